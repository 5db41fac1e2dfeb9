"""Every fault that the local upstream can have, and what a caller gets: a row each, in every world.

Each row runs over one connection that is open already, so that it shows what becomes of it: it goes back to the pool
or it is closed, and the next call works either way.
"""

import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import anyio
import pytest

from penstock import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    AuthenticationError,
    BadGatewayError,
    BadRequestError,
    ConflictError,
    ContentPolicyViolationError,
    ContextWindowExceededError,
    InternalServerError,
    NotFoundError,
    PaymentRequiredError,
    PermissionDeniedError,
    RateLimitError,
    ServiceUnavailableError,
    Timeout,
    Timeouts,
    UnprocessableEntityError,
    acompletion,
    completion,
    retry,
)
from penstock.replay import Upstream
from penstock.replay.faults import KEYS, PROBLEMS, Script
from penstock.transport import run

MESSAGES = [{"role": "user", "content": "Hello"}]
CLOCKS = Timeouts(first_token=0.5, idle=0.25)
EACH = "usage-every-chunk"  # a provider that reports usage all the time; the others report it after the finish
ALL = None


class Row(NamedTuple):
    """A fault and what comes of it.

    chunks: how many the caller gets: ALL of them (of a clean run), 3, or -2, all but the last two, which are the one
        with the finish reason and the one with the usage.
    error: what it ends with, None if with nothing.
    requests: how many the upstream saw, where retries are due.
    pooled: whether the connection is used again.
    usage: its source, on the error or the stream.
    """

    script: str
    chunks: int | None = ALL
    error: type[Exception] | None = None
    code: str | None = None
    requests: int = 1
    pooled: bool = False
    usage: str | None = None
    case: str = "hello"


def status(code: int, error: type[Exception], name: str | None = None, more: str = "", requests: int = 1) -> Row:
    """The provider refuses: its answer is read to the end, so that the connection goes back to the pool."""
    return Row(f"status={code}&retry_after_ms=1{more}", 0, error, name, requests, pooled=True)


REFUSED = (
    status(400, BadRequestError, "invalid_value"),
    status(400, ContextWindowExceededError, "context_length_exceeded", "&code=context_length_exceeded"),
    status(400, ContentPolicyViolationError, "content_filter", "&code=content_filter"),
    status(401, AuthenticationError, "invalid_api_key"),
    status(402, PaymentRequiredError, "payment_required"),
    status(403, PermissionDeniedError, "permission_denied"),
    status(404, NotFoundError, "model_not_found"),
    status(408, Timeout, "request_timeout", requests=3),
    status(409, ConflictError, "conflict", requests=3),
    status(413, BadRequestError, "payload_too_large"),
    status(422, UnprocessableEntityError, "unprocessable_entity"),
    status(424, ServiceUnavailableError, requests=3),
    status(429, RateLimitError, "rate_limit_exceeded", requests=3),
    status(429, RateLimitError, "insufficient_quota", "&code=insufficient_quota"),
    status(500, InternalServerError, requests=3),
    status(502, BadGatewayError, "bad_gateway", requests=3),
    status(503, ServiceUnavailableError, "overloaded", requests=3),
    status(504, Timeout, "gateway_timeout", requests=3),
    status(529, ServiceUnavailableError, "overloaded", requests=3),
    status(500, InternalServerError, more="&should_retry=false"),
    status(400, BadRequestError, "invalid_value", "&should_retry=true", requests=3),
    status(429, RateLimitError, "rate_limit_exceeded", "&fail=9", requests=3),
    Row("status=429&retry_after=61", 0, RateLimitError, "rate_limit_exceeded", 1, pooled=True),
    Row("status=502&html", 0, BadGatewayError, None, 3, pooled=True),
    Row("status=503&gzip&retry_after_ms=1", 0, ServiceUnavailableError, "overloaded", 3, pooled=True),
    Row("status=401&cut_bytes=9", 0, AuthenticationError),
    Row("status=500&reset=0", 0, InternalServerError, None, 3),
    Row("status=503&stall=0&retry_after_ms=1", 0, ServiceUnavailableError, None, 3),
    Row("rejects=messages", 0, BadRequestError, None, 1, pooled=True),
    Row("redirect=http://elsewhere.example/v1", 0, APIStatusError, None, 1, pooled=True),
    Row("redirect=http://elsewhere.example/v1&status=302", 0, APIStatusError, None, 1, pooled=True),
)

CURED = (
    Row("fail=2", requests=3, pooled=True, usage="reported"),
    Row("fail=2&cut=0", requests=3, pooled=True, usage="reported"),
    Row("fail=1&error_event=0", requests=2, pooled=True, usage="reported"),
    Row("fail=1&silent", requests=2, pooled=True, usage="reported"),
)

SILENT = (
    Row("first_byte=5", 0, Timeout, "first_token", 3),
    Row("silent", 0, Timeout, "idle", 3),
    Row("silent&keepalive=20", 0, Timeout, "first_token", 3),
    Row("stall=0", 0, Timeout, "idle", 3),
    Row("stall=1&keepalive=20", 1, Timeout, "first_token"),
    Row("stall=3", 3, Timeout, "idle"),
    Row("stall=finish", -2, Timeout, "idle"),
    Row("stall=finish+1", -1, Timeout, "idle"),
    Row("stall=finish+2", -1, Timeout, "idle", usage="reported"),
    Row("stall=3", 3, Timeout, "idle", usage="partial", case=EACH),
)

BROKEN = (
    Row("cut=0", 0, APIConnectionError, None, 3),
    Row("cut=1", 1, APIConnectionError),
    Row("cut=3", 3, APIConnectionError),
    Row("cut=3", 3, APIConnectionError, usage="partial", case=EACH),
    Row("cut=3&gzip", 3, APIConnectionError),
    Row("cut=3&chunk=7", 3, APIConnectionError),
    Row("cut=finish", -2, APIConnectionError),
    Row("cut=finish+1"),  # nothing of the answer is missing but its usage
    Row("cut=-1", usage="reported"),
    Row("cut_bytes=0", 0, APIConnectionError, None, 3),
    Row("cut_bytes=100", 0, APIConnectionError, None, 3),  # in the middle of the first event
    Row("cut_bytes=1000", 3, APIConnectionError),  # in the middle of the fourth
    Row("reset=0&delay=1", 0, APIConnectionError, None, 3),
    Row("reset=3&delay=1", 3, APIConnectionError),
    Row("reset=3&delay=1", 3, APIConnectionError, usage="partial", case=EACH),
    Row("reset=finish&delay=1", -2, APIConnectionError),
    Row("reset=finish+1&delay=1"),
    Row("reset=-1&delay=1", usage="reported"),
    Row("trim=500", -2, APIConnectionError, pooled=True),  # a proper end in the middle of an event
)

WRONG = (
    Row("error=0", 0, InternalServerError, "server_error", 3),
    Row("error=3", 3, InternalServerError, "server_error"),
    Row("error=3", 3, InternalServerError, "server_error", usage="partial", case=EACH),
    Row("error=3&nodone", 3, InternalServerError, "server_error"),
    Row("error=3&code=content_filter", 3, ContentPolicyViolationError, "content_filter"),
    Row("error=3&code=insufficient_quota", 3, RateLimitError, "insufficient_quota"),
    Row("error=0&code=insufficient_quota", 0, RateLimitError, "insufficient_quota"),
    Row("error=finish+1", -1, InternalServerError, "server_error"),
    Row("error_event=0", 0, InternalServerError, "server_error", 3),
    Row("error_event=3", 3, InternalServerError, "server_error"),
    Row("error_event=3&chunk=1m", 3, InternalServerError, "server_error", pooled=True),  # all in one read
    Row("error_event=finish+1", -1, InternalServerError, "server_error"),
    Row("malformed=0", 0, APIResponseValidationError),
    Row("malformed=3", 3, APIResponseValidationError),
    Row("malformed=3", 3, APIResponseValidationError, usage="partial", case=EACH),
    Row("malformed=3&chunk=1m", 3, APIResponseValidationError, pooled=True),
    Row("event_bytes=20m", 1, APIResponseValidationError),
    Row("endless", 0, APIResponseValidationError),
    Row("html", 0, APIResponseValidationError),
    Row("html&json", 0, APIResponseValidationError),
    Row("json&malformed=0", 0, APIResponseValidationError, pooled=True),
    Row("html&content_type=application/json", 0, APIResponseValidationError, pooled=True),
)

HARMLESS = (
    Row("tag=nothing", pooled=True, usage="reported"),
    Row("nousage", pooled=True),
    Row("nodone", pooled=True, usage="reported"),
    Row("nodone&nousage", pooled=True),
    Row("trim", pooled=True, usage="reported"),  # the last line end
    Row("trim=10", pooled=True, usage="reported"),  # in the middle of [DONE]
    Row("nodone&trim=2", pooled=True, usage="reported"),  # the last event is complete JSON, its blank line is not there
    Row("gzip", pooled=True, usage="reported"),
    Row("gzip&chunk=1m", pooled=True, usage="reported"),
    Row("content_type=text/plain&chunk=1", pooled=True, usage="reported"),
    Row("content_type=text/html", pooled=True, usage="reported"),
    Row("content_type=application/json", pooled=True, usage="reported"),
    Row("json", pooled=True, usage="reported"),  # the server does not stream
    Row("chunk=1", pooled=True, usage="reported"),
    Row("chunk=random:5", pooled=True, usage="reported"),
    Row("delay=1", pooled=True, usage="reported"),
    Row("keepalive=1&delay=3", pooled=True, usage="reported"),
    Row("rejects=stream_options", requests=2, pooled=True),
)

ROWS = REFUSED + CURED + SILENT + BROKEN + WRONG + HARMLESS

WHOLE = (
    *REFUSED,
    Row("fail=2", requests=3, pooled=True),
    Row("first_byte=5", 0, Timeout, "total"),  # a number is for the whole call, so that no time is left to try again
    Row("silent", 0, Timeout, "total"),
    Row("stall=0&keepalive=20", 0, Timeout, "total"),
    Row("cut=0", 0, APIConnectionError, None, 3),
    Row("cut_bytes=100", 0, APIConnectionError, None, 3),
    Row("reset=0", 0, APIConnectionError, None, 3),
    Row("malformed=0", 0, APIResponseValidationError, pooled=True),
    Row("trim", 0, APIResponseValidationError, pooled=True),
    Row("html", 0, APIResponseValidationError, pooled=True),
    Row("gzip", pooled=True),
    Row("chunk=1", pooled=True),
    Row("content_type=text/plain", pooled=True),
)


def test_no_fault_is_without_a_row() -> None:
    scripts = [Script.read(row.script) for row in ROWS]
    used = {name for script in scripts for name in KEYS if getattr(script, name) != getattr(Script(), name)}
    assert used == set(KEYS)
    assert {problem.status for problem in PROBLEMS} <= {script.status for script in scripts}
    rows = [(row.case, row.script) for row in ROWS]
    assert len(set(rows)) == len(rows)


@pytest.fixture
def up() -> Iterator[Upstream]:
    """An upstream of its own: no connection to it is in any pool, and nothing is known about it."""
    with Upstream() as upstream:
        yield upstream


def text(chunks: list[Any]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


class Course:
    """A call after a good one and before another, all in one loop, and what was seen of it."""

    def __init__(self, world: Any, up: Upstream, row: Row, timeout: Any, **options: Any) -> None:
        self.world, self.up, self.row, self.timeout = world, up, row, timeout
        self.options = {
            "messages": MESSAGES,
            "api_base": up.base_url,
            "api_key": "sk-test-0123456789abcdef",
            **options,
        }
        self.model = f"openai/{row.case}?{quote(row.script, safe='?&=/:-')}"
        self.clean: Any = None
        self.chunks: list[Any] = []
        self.stream: Any = None
        self.response: Any = None
        self.error: Any = None
        self.open = -1

    @property
    def either(self) -> bool:
        """Whether the connection may be used again or not: what is wrong may have come with the end in one read."""
        return self.world.by == "native" and self.row in WRONG

    async def call(self, model: str, into: list[Any], **more: Any) -> Any:
        options, blocking = self.options | more, self.world.name == "blocking"
        answer: Any = completion(model, **options) if blocking else await acompletion(model, **options)
        if "stream" in self.options:
            self.stream = answer
            if blocking:
                into.extend(answer)
            else:
                async for chunk in answer:
                    into += [chunk]
        return answer

    async def main(self) -> None:
        clean: list[Any] = []
        response = await self.call(f"openai/{self.row.case}", clean)
        self.clean = clean if "stream" in self.options else response
        try:
            self.response = await self.call(self.model, self.chunks, timeout=self.timeout)
        except APIError as error:
            self.error = error
        self.requests = len(self.up.stats()["requests"]) - 1
        faulty, self.stream = self.stream, None
        for _ in range(300):  # a closed connection is known there a moment later
            self.open = self.up.stats()["connections"]["open"]
            if self.open == int(self.row.pooled) or self.either:
                break
            await self.sleep(0.01)
        again: list[Any] = []
        await self.call(f"openai/{self.row.case}", again)
        assert text(again) == text(clean)
        self.stream = faulty

    async def sleep(self, seconds: float) -> None:
        if self.world.name == "blocking":
            time.sleep(seconds)  # noqa: ASYNC251  no event loop runs this
        else:
            await anyio.sleep(seconds)

    def run(self) -> None:
        if self.world.name == "blocking":
            run(self.main())
        else:
            self.world.run(self.main)


def ends_as_its_row_says(course: Course) -> None:
    row, raised = course.row, course.error
    assert (type(raised) if raised else None) is row.error, raised
    assert course.requests == row.requests
    if not course.either:
        keeps_its_connection_or_not(course)
    if raised is not None:
        names_everything(course)


def keeps_its_connection_or_not(course: Course) -> None:
    row = course.row
    assert course.open == int(row.pooled)
    lost = course.up.stats()["connections"]["opened"] - 1
    cured = row.error is None and row.requests > 1  # by a last request on a connection of its own
    assert lost in (0, row.requests - cured) if cured else lost == (0 if row.pooled else row.requests)


def names_everything(course: Course) -> None:
    raised = course.error
    assert raised.code == course.row.code
    assert (raised.provider, raised.model) == ("openai", course.model.removeprefix("openai/"))
    assert raised.message
    assert raised.message in str(raised)
    if raised.headers is not None:
        assert raised.request_id == raised.headers["x-request-id"]
        assert raised.response.headers is raised.headers
        assert raised.status_code == (None if raised.response.status_code == 200 else raised.response.status_code)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.case}?{row.script}")
def test_streamed(world: Any, up: Upstream, monkeypatch: pytest.MonkeyPatch, row: Row) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)
    clocks = CLOCKS if re.search("stall|silent|first_byte", row.script) else None
    course = Course(world, up, row, clocks, stream=True, stream_options={"include_usage": True})
    course.run()
    ends_as_its_row_says(course)
    chunks, clean, raised = course.chunks, course.clean, course.error
    usage = raised.usage if raised is not None else course.stream.usage
    assert (usage.source if usage is not None else None) == row.usage
    assert usage is None or usage.complete is (row.usage == "reported")
    if raised is None:
        assert text(chunks) == text(clean)
        assert chunks[-1].choices == []
        assert chunks[-1].usage == usage
        assert [attempt.error is None for attempt in course.stream.attempts] == [False] * (row.requests - 1) + [True]
        return
    expected = clean[: row.chunks]
    assert chunks == expected
    if not chunks:
        assert raised.partial is None
    else:
        message = raised.partial.choices[0]
        assert (message.message.content or "") == text(chunks)
        assert message.finish_reason == (chunks[-1].choices[0].finish_reason if chunks[-1].choices else "stop")
        assert course.stream.usage == usage
        assert [attempt.error for attempt in course.stream.attempts] == [None]


@pytest.mark.parametrize("row", WHOLE, ids=lambda row: f"{row.case}?{row.script}")
def test_not_streamed(world: Any, up: Upstream, monkeypatch: pytest.MonkeyPatch, row: Row) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)
    clocks = 0.3 if row.code == "total" else CLOCKS if "stall" in row.script else None
    course = Course(world, up, row, clocks)
    course.run()
    ends_as_its_row_says(course)
    if row.error is None:
        assert course.response == course.clean
    else:
        assert course.error.partial is None
        assert course.error.usage is None
