"""Hooks are told of every call: its start, its first token, and once its end, however that comes."""

import asyncio
import gc
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio

import penstock
from penstock import BadRequestError, RateLimitError, acompletion, completion

MESSAGES = [{"role": "user", "content": "Hello"}]


class Diary:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, Any]] = []
        self.calls: set[Any] = set()

    def started(self, call: Any) -> None:
        self.lines.append(("started", call))
        self.calls.add(call)

    def first_token(self, call: Any, seconds: float) -> None:
        assert seconds >= 0
        self.lines.append(("first_token", seconds))
        self.calls.add(call)

    def ended(self, call: Any, end: Any) -> None:
        self.lines.append(("ended", end))
        self.calls.add(call)

    def moments(self, *, wait: bool = False) -> list[str]:
        due = time.monotonic() + 5
        while wait and "ended" not in dict(self.lines) and time.monotonic() < due:
            gc.collect()
            time.sleep(0.005)
        return [moment for moment, _ in self.lines]

    @property
    def end(self) -> Any:
        (end,) = [what for moment, what in self.lines if moment == "ended"]
        assert len(self.calls) == 1
        return end


class SlowDiary(Diary):
    """The same, but each method is a coroutine that waits."""

    sleep: Callable[[float], Any] = staticmethod(asyncio.sleep)

    async def started(self, call: Any) -> None:  # type: ignore[override]
        await self.sleep(0.001)
        super().started(call)

    async def first_token(self, call: Any, seconds: float) -> None:  # type: ignore[override]
        await self.sleep(0.001)
        super().first_token(call, seconds)

    async def ended(self, call: Any, end: Any) -> None:  # type: ignore[override]
        await self.sleep(0.001)
        super().ended(call, end)


class TrioDiary(SlowDiary):
    sleep = staticmethod(trio.sleep)


@pytest.fixture(params=["sync", "async"])
def diary(request: pytest.FixtureRequest, world: Any) -> Diary:
    if request.param == "sync":
        return Diary()
    return TrioDiary() if world.name == "trio" else SlowDiary()


# Each way to end


def test_a_whole_response(world: Any, diary: Diary) -> None:
    response = world.ask("hello", hooks=[diary], temperature=0.5)
    assert diary.moments() == ["started", "ended"]
    call = diary.lines[0][1]
    assert (call.operation, call.model, call.provider, call.stream) == ("chat", "openai/hello", "openai", False)
    assert call.input == MESSAGES
    assert call.parameters == {"temperature": 0.5}
    end = diary.end
    assert (end.how, end.error, end.timings) == ("complete", None, None)
    assert end.response is response
    assert end.usage == response.usage
    assert [attempt.status_code for attempt in end.attempts] == [200]
    assert end.seconds > 0


def test_a_stream(world: Any, diary: Diary) -> None:
    _, stream = world.stream("hello", hooks=[diary])
    assert diary.moments() == ["started", "first_token", "ended"]
    assert diary.end.how == "complete"
    assert diary.end.usage == stream.usage
    assert diary.end.usage.complete
    assert diary.end.timings.to_first_token > 0
    assert diary.end.response.choices[0].finish_reason == "stop"


def test_an_error_before_the_stream(world: Any, diary: Diary) -> None:
    error = world.fails(RateLimitError, "hello?status=429", hooks=[diary], max_retries=1)
    assert diary.moments() == ["started", "ended"]
    assert diary.end.how == "failed"
    assert diary.end.error is error
    assert [attempt.status_code for attempt in diary.end.attempts] == [429, 429]


def test_an_error_within_the_stream(world: Any, diary: Diary) -> None:
    error = world.fails(penstock.APIConnectionError, "hello?cut=20", hooks=[diary])
    assert diary.moments() == ["started", "first_token", "ended"]
    assert diary.end.error is error
    assert diary.end.response == error.partial


def test_a_call_that_is_refused_here(world: Any, diary: Diary) -> None:
    with pytest.raises(BadRequestError):
        world.ask("nobody/at-all", hooks=[diary])
    assert diary.moments() == ["started", "ended"]
    assert diary.end.provider is None


def test_a_fallback_is_the_same_call(world: Any, diary: Diary) -> None:
    world.ask("hello?status=404", hooks=[diary], fallbacks=["openai/reasoning"])
    assert diary.moments() == ["started", "ended"]
    assert diary.lines[0][1].model == "openai/hello?status=404"
    assert diary.end.model == "reasoning"
    assert len(diary.end.attempts) == 2


@pytest.mark.parametrize("kind", [Diary, SlowDiary])
def test_closed_by_the_caller(up: Any, kind: type[Diary]) -> None:
    diary = kind()
    with completion("replay/hello", MESSAGES, stream=True, hooks=[diary]) as stream:
        next(stream)
        next(stream)
    assert diary.moments() == ["started", "first_token", "ended"]
    assert diary.end.how == "left"
    assert diary.end.response.choices[0].finish_reason is None


@pytest.mark.parametrize("kind", [Diary, SlowDiary])
def test_dropped(up: Any, kind: type[Diary]) -> None:
    diary = kind()
    for _ in completion("replay/hello", MESSAGES, stream=True, hooks=[diary]):
        break
    assert diary.moments(wait=True)[-1] == "ended"
    assert diary.end.how == "left"


@pytest.mark.parametrize("kind", [Diary, SlowDiary])
def test_dropped_in_a_cycle_and_never_begun(up: Any, kind: type[Diary]) -> None:
    diary = kind()
    cycle: list[Any] = [completion("replay/hello", MESSAGES, stream=True, hooks=[diary])]
    cycle.append(cycle)
    del cycle
    assert diary.moments(wait=True) == ["started", "ended"]


@pytest.mark.parametrize("kind", [Diary, SlowDiary])
def test_cancelled(up: Any, kind: type[Diary]) -> None:
    diary = kind()

    async def main() -> None:
        async def read() -> None:
            async for _ in await acompletion("replay/hello?stall=8", MESSAGES, stream=True, hooks=[diary]):
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.3)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert diary.moments() == ["started", "first_token", "ended"]
    assert diary.end.how == "cancelled"
    assert isinstance(diary.end.error, asyncio.CancelledError)


@pytest.mark.parametrize("kind", [Diary, SlowDiary])
def test_left_and_dropped_under_asyncio(up: Any, kind: type[Diary]) -> None:
    diary = kind()

    async def main() -> None:
        stream = await acompletion("replay/hello", MESSAGES, stream=True, hooks=[diary])
        async for _ in stream:
            break
        del stream
        for _ in range(200):
            gc.collect()
            await asyncio.sleep(0.01)
            if "ended" in diary.moments():
                break

    asyncio.run(main())
    assert diary.end.how == "left"


# What hooks may be


def test_what_a_hook_raises_is_logged_and_goes_no_further(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Bad:
        def started(self, call: Any) -> None:
            raise ZeroDivisionError

        async def first_token(self, call: Any, seconds: float) -> None:
            raise KeyError

        def ended(self, call: Any, end: Any) -> None:
            raise ZeroDivisionError

    diary = Diary()
    chunks, _ = world.stream("hello", hooks=[Bad(), diary])
    assert len(chunks) > 3
    assert diary.moments() == ["started", "first_token", "ended"]
    failures = [record for record in caplog.records if record.name == "penstock" and record.exc_info]
    assert len(failures) == 3
    assert "started of the hook" in failures[0].getMessage()


def test_a_method_may_be_left_out(up: Any) -> None:
    class Only:
        seen = 0

        def ended(self, call: Any, end: Any) -> None:
            self.seen += 1

    only = Only()
    list(completion("replay/hello", MESSAGES, stream=True, hooks=[only]))
    assert only.seen == 1


def test_a_hook_that_is_none(up: Any) -> None:
    with pytest.raises(BadRequestError, match="is no hook: it has none of started, first_token, ended"):
        completion("replay/hello", MESSAGES, hooks=[print])
    with pytest.raises(BadRequestError, match="hooks must be a list"):
        completion("replay/hello", MESSAGES, hooks=Diary())  # type: ignore[call-overload]


def test_hooks_of_all_calls_come_before_those_of_one(up: Any) -> None:
    order: list[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def started(self, call: Any) -> None:
            order.append(self.name)

    with penstock.configured(hooks=[Named("all")]):
        completion("replay/hello", MESSAGES, hooks=[Named("one")])
        completion("replay/hello", MESSAGES)
    assert order == ["all", "one", "all"]


def test_a_blocking_call_within_an_event_loop_waits_for_a_coroutine(up: Any) -> None:
    diary = SlowDiary()

    async def main() -> None:
        completion("replay/hello", MESSAGES, hooks=[diary])

    asyncio.run(main())
    assert diary.moments() == ["started", "ended"]


@pytest.mark.parametrize("ended", ["def ended", "async def ended"])
@pytest.mark.parametrize("begun", ["next(stream)", "pass"])
def test_a_program_that_ends_with_a_stream_open(up: Any, ended: str, begun: str) -> None:
    code = (
        "import penstock\n"
        f"class Last:\n    {ended}(self, call, end):\n        print(end.how, flush=True)\n"
        f"stream = penstock.completion('replay/hello?stall=9', {MESSAGES}, stream=True, hooks=[Last()])\n"
        f"{begun}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=20)
    assert (done.stdout, done.stderr) == ("left\n", "")


# The log


def test_the_log_says_what_was_asked_and_how_it_ended(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "penstock")
    world.stream("hello?fail=1", max_retries=1)
    lines = [record.getMessage() for record in caplog.records if record.name == "penstock"]
    assert lines[0] == "chat openai/hello?fail=1, streamed"
    assert lines[1].startswith("InternalServerError after ")
    assert "/chat/completions: 200 after " in lines[2]
    assert ": complete after " in lines[3]


def test_the_log_has_no_secrets(up: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "penstock")
    key = "sk-this-is-a-secret-0123456789"
    base = up.base_url.replace("://", "://user:pass-word@")
    for case in ("hello", "hello?status=401", "hello?status=500"):
        with suppress(penstock.APIError):
            completion(
                f"openai/{case}",
                MESSAGES,
                api_key=key,
                api_base=base,
                extra_query={"token": "query-secret"},
                extra_headers={"x-token": "header-secret"},
                max_retries=0,
            )
    text = "\n".join(record.getMessage() for record in caplog.records if record.name == "penstock")
    assert "POST http://127.0.0.1" in text
    for secret in (key, "pass-word", "query-secret", "header-secret", "Hello"):
        assert secret not in text


def test_nobody_listening_costs_nothing(up: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    logging.getLogger("penstock").setLevel(logging.WARNING)
    monkeypatch.setitem(sys.modules, "penstock.hooks", None)
    stream = completion("replay/hello", MESSAGES, stream=True)
    list(stream)
    assert stream._flow.observation is None
