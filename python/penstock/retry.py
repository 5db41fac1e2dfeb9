"""When a failed attempt is worth another one, and after how long. Pure rules: chance is an argument."""

from .errors import (
    APIError,
    AuthenticationError,
    ContentPolicyViolationError,
    ContextWindowExceededError,
    NotFoundError,
    PermissionDeniedError,
)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 8.0

LONGEST_RETRY_AFTER = 60.0
"""Seconds. A provider that asks for a longer wait gets no second attempt: the caller can do something better."""

SPENT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "tls"})
"""Codes that no waiting cures: of a 429, and of a server whose certificate is not trusted."""

ELSEWHERE = (AuthenticationError, PermissionDeniedError, NotFoundError, ContextWindowExceededError)
"""Errors that are final here but may not be with another model."""


def retryable(error: APIError) -> bool:
    """Whether the same request may succeed later. `x-should-retry` from the provider decides; else the class does."""
    advice = error.headers.get("x-should-retry") if error.headers is not None else None
    if advice in ("true", "false"):
        return bool(advice == "true")
    return error.retryable and error.code not in SPENT and error.type not in SPENT


def pause(error: APIError, retries: int, max_retries: int, chance: float) -> float | None:
    """Seconds to wait before the next attempt; None if there shall be none.

    `retries` is how many there have been, `chance` a random number in [0, 1): clients that failed together shall not
    come back together.
    """
    if retries >= max_retries or not retryable(error):
        return None
    if error.retry_after is not None and error.retry_after > 0:
        return error.retry_after if error.retry_after <= LONGEST_RETRY_AFTER else None
    longest = min(FIRST_PAUSE * 2.0**retries, LONGEST_PAUSE)
    return float(longest * (0.5 + chance / 2))


def falls_back(error: APIError) -> bool:
    """Whether the next of `fallbacks` is tried: retries are spent, or this model or account alone is at fault."""
    return retryable(error) or error.retryable or isinstance(error, ELSEWHERE)


def refused_content(error: APIError) -> bool:
    """Whether the next of `content_policy_fallbacks` is tried."""
    return isinstance(error, ContentPolicyViolationError)
