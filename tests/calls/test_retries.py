"""Another attempt, another model: when, after how long, and when not."""

from collections import Counter
from typing import Any

import pytest

from penstock import (
    APIConnectionError,
    APIError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    ContentPolicyViolationError,
    ContextWindowExceededError,
    InternalServerError,
    RateLimitError,
    ServiceUnavailableError,
    Timeout,
    api,
    retry,
)
from penstock._native import RetryBudget
from penstock.errors import Headers
from penstock.replay import Upstream


def asked(up: Upstream) -> Counter[str]:
    """How often each model was asked."""
    return Counter(exchange["model"] for exchange in up.stats()["requests"])


def sleepless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)


# The rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (APIConnectionError("x"), True),
        (Timeout("x"), True),
        (Timeout("x", status_code=408), True),
        (ConflictError("x", status_code=409), True),
        (ServiceUnavailableError("x", status_code=424), True),
        (RateLimitError("x", status_code=429), True),
        (RateLimitError("x", status_code=429, code="insufficient_quota"), False),
        (InternalServerError("x", status_code=500), True),
        (BadRequestError("x", status_code=400), False),
        (ContextWindowExceededError("x", status_code=500), False),
        (AuthenticationError("x", status_code=401), False),
        (BadRequestError("x", headers=Headers({"x-should-retry": "true"})), True),
        (InternalServerError("x", headers=Headers({"x-should-retry": "false"})), False),
    ],
)
def test_which_errors_are_worth_another_attempt(error: APIError, again: bool) -> None:
    assert retry.retryable(error) is again
    assert (retry.pause(error, 0, 2, 0.5) is not None) is again


def test_pauses_double_up_to_a_limit_and_spread() -> None:
    error = InternalServerError("x")
    assert [retry.pause(error, n, 9, 0.999999) for n in range(6)] == pytest.approx([0.5, 1, 2, 4, 8, 8], rel=1e-3)
    assert [retry.pause(error, n, 9, 0.0) for n in range(6)] == [0.25, 0.5, 1, 2, 4, 4]


def test_pauses_end() -> None:
    assert retry.pause(InternalServerError("x"), 2, 2, 0.5) is None
    assert retry.pause(InternalServerError("x"), 0, 0, 0.5) is None


def test_the_provider_says_how_long() -> None:
    assert retry.pause(RateLimitError("x", retry_after=7.5), 0, 2, 0.5) == 7.5
    assert retry.pause(RateLimitError("x", retry_after=60), 0, 2, 0.5) == 60
    assert retry.pause(RateLimitError("x", retry_after=61), 0, 2, 0.5) is None
    assert retry.pause(RateLimitError("x", retry_after=0), 0, 2, 0.0) == 0.25


# Attempts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    ["status=500&fail=2", "status=429&retry_after_ms=1&fail=2", "error=0&fail=2", "cut=0&fail=2", "html&fail=0"],
)
def test_failed_attempts_are_followed_by_others(
    world: Any, up: Upstream, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    sleepless(monkeypatch)
    chunks, stream = world.stream(f"hello?{script}", max_retries=2)
    assert chunks
    *failed, last = stream.attempts
    assert last.error is None
    assert [attempt.error is not None for attempt in failed] == [True] * (len(stream.attempts) - 1)
    assert len(failed) == (0 if "fail=0" in script else 2)


def test_two_retries_are_the_default(world: Any, up: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    sleepless(monkeypatch)
    world.fails(InternalServerError, "hello?status=500", max_retries=None)
    assert asked(up) == {"hello": 3}
    with pytest.raises(InternalServerError):
        world.ask("hello?status=500", max_retries=None, num_retries=1)
    assert asked(up) == {"hello": 5}


def test_an_error_after_the_first_event_is_final(world: Any, up: Upstream) -> None:
    world.fails(InternalServerError, "hello?error=2", max_retries=2)
    assert asked(up) == {"hello": 1}


def test_x_should_retry_is_heard(world: Any, up: Upstream) -> None:
    world.fails(InternalServerError, "hello?status=500&should_retry=false", max_retries=2)
    assert asked(up) == {"hello": 1}


def test_a_long_wait_is_left_to_the_caller(world: Any, up: Upstream) -> None:
    raised = world.fails(RateLimitError, "hello?status=429&retry_after=61", max_retries=2)
    assert raised.retry_after == 61
    assert asked(up) == {"hello": 1}


def test_retries_are_a_part_of_the_calls(world: Any, up: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    sleepless(monkeypatch)
    monkeypatch.setattr(api, "_budget", RetryBudget(0.5, 1))
    raised = [world.fails(InternalServerError, "hello?status=500", max_retries=2) for _ in range(4)]
    # One retry, and another half of one for each call.
    assert asked(up) == {"hello": 4 + 3}
    assert any("not tried again" in note for note in raised[-1].__notes__)


# stream_options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_without_stream_options_is_asked_without_and_remembered(up: Upstream, world: Any, status: int) -> None:
    base = f"{up.base_url}/{world.name}-{world.by}{status}"
    for _ in range(2):
        chunks, stream = world.stream(
            f"hello?rejects=stream_options&status={status}",
            api_base=base,
            stream_options={"include_usage": True},
        )
        assert chunks[-1].choices == []
        assert stream.attempts[-1].error is None
    sent = ["stream_options" in exchange["body"] for exchange in up.stats()["requests"]]
    assert sent == [True, False, False]


# Fallbacks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script", ["status=500", "status=401", "status=403", "status=404", "status=400&code=context_length_exceeded"]
)
def test_another_model_when_this_one_fails(world: Any, up: Upstream, script: str) -> None:
    chunks, stream = world.stream(f"hello?{script}", fallbacks=["openai/tools"])
    assert chunks
    assert [attempt.model for attempt in stream.attempts] == [f"hello?{script}", "tools"]
    assert asked(up) == {"hello": 1, "tools": 1}


def test_fallbacks_go_in_order_and_bring_their_own_options(world: Any, up: Upstream) -> None:
    response = world.ask(
        "hello?status=500",
        fallbacks=["openai/tools?status=503", {"model": "openai/hello", "temperature": 0.5}],
        temperature=0.1,
    )
    assert response.choices
    assert [exchange["body"]["temperature"] for exchange in up.stats()["requests"]] == [0.1, 0.1, 0.5]


def test_the_last_error_is_raised(world: Any) -> None:
    raised = world.fails(AuthenticationError, "hello?status=500", fallbacks=["openai/tools?status=401"])
    assert raised.model == "tools?status=401"
    (note,) = raised.__notes__
    assert "hello?status=500, status 500" in note


def test_a_bad_request_is_bad_everywhere(world: Any, up: Upstream) -> None:
    world.fails(BadRequestError, "hello?status=400", fallbacks=["openai/tools"])
    assert asked(up) == {"hello": 1}


def test_refused_content_has_fallbacks_of_its_own(world: Any, up: Upstream) -> None:
    script = "hello?status=400&code=content_filter"
    world.fails(ContentPolicyViolationError, script, fallbacks=["openai/tools"])
    assert asked(up) == {"hello": 1}
    chunks, _ = world.stream(script, content_policy_fallbacks=["openai/tools"])
    assert chunks
