"""When a failed attempt is worth another one, and after how long.

The rules are the native module's, pure, with chance as an argument; exceptions are made known to them here.
"""

from ._native import Failure
from .errors import APIError, ContentPolicyViolationError

FIRST_PAUSE = 0.5
"""Seconds before the first retry; each further one waits twice as long."""

ADVICE = {"true": True, "false": False}


def failure(error: APIError) -> Failure:
    """The error as the rules see it. `x-should-retry` from the provider decides; else the class does."""
    advice = error.headers.get("x-should-retry") if error.headers is not None else None
    return Failure(
        [cls.__name__ for cls in type(error).__mro__],
        code=None if error.code is None else str(error.code),
        kind=error.type,
        retry_after=error.retry_after,
        advice=ADVICE.get(advice) if advice is not None else None,
    )


def retryable(error: APIError) -> bool:
    """Whether the same request may succeed later."""
    return failure(error).retryable


def pause(error: APIError, retries: int, max_retries: int, chance: float) -> float | None:
    """Seconds to wait before the next attempt; None if there shall be none.

    `retries` is how many there have been, `chance` a random number in [0, 1): clients that failed together shall not
    come back together.
    """
    return failure(error).pause(retries, max_retries, chance, first=FIRST_PAUSE)


def falls_back(error: APIError) -> bool:
    """Whether the next of `fallbacks` is tried: retries are spent, or this model or account alone is at fault."""
    return failure(error).falls_back


def refused_content(error: APIError) -> bool:
    """Whether the next of `content_policy_fallbacks` is tried."""
    return isinstance(error, ContentPolicyViolationError)
