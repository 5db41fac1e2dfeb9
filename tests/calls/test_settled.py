"""However a stream ends, its end is told once, with the usage and the response as they were known then."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from penstock import APIConnectionError, InternalServerError, Timeout, Timeouts, acompletion, completion, errors
from penstock.replay.cases import FAMILIES

MESSAGES = [{"role": "user", "content": "Hello"}]


class Told(list[Any]):
    """The outcomes of one stream."""

    def of(self, stream: Any) -> Any:
        stream._flow.on_settled(self.append)
        return stream

    def only(self) -> Any:
        gc.collect()
        (outcome,) = self
        return outcome


def to_the_end(stream: Any) -> None:
    list(stream)


def closed(stream: Any) -> None:
    stream.close()
    stream.close()


def closed_half_way(stream: Any) -> None:
    next(stream)
    stream.close()
    assert list(stream) == []


def left_by_break(stream: Any) -> None:
    for _ in stream:
        break


def left_by_an_exception(stream: Any) -> None:
    with suppress(ZeroDivisionError), stream:
        for _ in stream:
            raise ZeroDivisionError


def dropped(stream: Any) -> None:
    pass


def collected_as_garbage(stream: Any) -> None:
    cycle = [stream]
    cycle.append(cycle)


def drained(stream: Any) -> None:
    next(stream)
    assert stream.drain().complete


def drained_for_a_moment(stream: Any) -> None:
    next(stream)
    stream.drain(max_tokens=1)


def failed(stream: Any) -> None:
    with suppress(errors.APIError):
        list(stream)


def closed_by_another_thread(stream: Any) -> None:
    threading.Timer(0.05, stream.close).start()
    list(stream)


WAYS: list[tuple[Callable[[Any], None], str, str, type[Exception] | None]] = [
    (to_the_end, "", "complete", None),
    (closed, "?stall=3", "left", None),
    (closed_half_way, "?stall=3", "left", None),
    (left_by_break, "?stall=3", "left", None),
    (left_by_an_exception, "?stall=3", "left", None),
    (dropped, "?stall=3", "left", None),
    (collected_as_garbage, "?stall=3", "left", None),
    (drained, "", "complete", None),
    (drained_for_a_moment, "?stall=4", "left", None),
    (closed_by_another_thread, "?stall=3", "left", None),
    (failed, "?cut=3", "failed", APIConnectionError),
    (failed, "?error=3", "failed", InternalServerError),
    (failed, "?stall=3", "failed", Timeout),
]
IDS = [f"{way.__name__}{script}" for way, script, _, _ in WAYS]
TELLING = [family for family in FAMILIES if family != "predictions"]
"""Families that tell a usage."""


def patience(error: Any) -> Timeouts:
    """Short where it is waited for."""
    return Timeouts(idle=0.15 if error is Timeout else 30)


def judge(told: Told, how: str, error: type[Exception] | None) -> None:
    outcome = told.only()
    assert outcome.how == how
    assert (type(outcome.error) if outcome.error is not None else None) is error
    assert outcome.attempts[-1].error is None
    assert outcome.timings.to_headers > 0
    response = outcome.response()
    if how == "complete":
        assert outcome.usage.complete
        assert response.usage == outcome.usage
        assert response.choices[0].finish_reason == "stop"
    elif response is not None:
        assert response.choices[0].finish_reason is None
        assert outcome.usage is None or not outcome.usage.complete
    if how == "failed":
        assert outcome.error.usage == outcome.usage
        assert outcome.error.partial == response


@pytest.mark.parametrize("family", TELLING)
@pytest.mark.parametrize(("way", "script", "how", "error"), WAYS, ids=IDS)
def test_blocking(family: str, way: Any, script: str, how: str, error: Any) -> None:
    told = Told()
    way(told.of(completion(f"replay/{family}/hello{script}", MESSAGES, stream=True, timeout=patience(error))))
    judge(told, how, error)


async def cancelled(stream: Any) -> None:
    async def read() -> None:
        async for _ in stream:
            pass

    task = asyncio.ensure_future(read())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancelled_while_draining(stream: Any) -> None:
    await anext(stream)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stream.drain(), 0.05)


async def aclosed(stream: Any) -> None:
    await anext(stream)
    await stream.aclose()
    await stream.aclose()


async def aclosed_by_another_task(stream: Any) -> None:
    asyncio.get_running_loop().call_later(0.05, lambda: asyncio.ensure_future(stream.aclose()))
    async for _ in stream:
        pass


async def aleft_by_break(stream: Any) -> None:
    async for _ in stream:
        break


async def adropped(stream: Any) -> None:
    pass


async def afailed(stream: Any) -> None:
    with suppress(errors.APIError):
        async for _ in stream:
            pass


async def adrained(stream: Any) -> None:
    await anext(stream)
    assert (await stream.drain()).complete


ASYNC_WAYS: list[tuple[Any, str, str, type[BaseException] | None]] = [
    (afailed, "", "complete", None),
    (adrained, "", "complete", None),
    (aclosed, "?stall=3", "left", None),
    (aclosed_by_another_task, "?stall=3", "left", None),
    (aleft_by_break, "?stall=3", "left", None),
    (adropped, "?stall=3", "left", None),
    (cancelled, "?stall=3", "cancelled", asyncio.CancelledError),
    (cancelled_while_draining, "?stall=3", "cancelled", asyncio.CancelledError),
    (afailed, "?cut=3", "failed", APIConnectionError),
    (afailed, "?error=3", "failed", InternalServerError),
    (afailed, "?stall=3", "failed", Timeout),
]
ASYNC_IDS = [f"{way.__name__}{script}" for way, script, _, _ in ASYNC_WAYS]


@pytest.mark.parametrize(("way", "script", "how", "error"), ASYNC_WAYS, ids=ASYNC_IDS)
def test_asynchronous(way: Any, script: str, how: str, error: Any) -> None:
    told = {family: Told() for family in TELLING}

    async def one(family: str) -> None:
        stream = await acompletion(f"replay/{family}/hello{script}", MESSAGES, stream=True, timeout=patience(error))
        await way(told[family].of(stream))
        del stream
        gc.collect()
        await asyncio.sleep(0.01)

    async def main() -> None:
        await asyncio.gather(*map(one, TELLING))

    asyncio.run(main())
    for family in TELLING:
        judge(told[family], how, error)


def test_ctrl_c_while_reading() -> None:
    told = Told()
    stream = told.of(completion("replay/chat/hello?stall=3", MESSAGES, stream=True))
    next(stream)
    with pytest.raises(KeyboardInterrupt):
        stream._chunks.throw(KeyboardInterrupt)
    assert told.only().how == "cancelled"


def test_a_loop_that_ends_settles_what_is_open() -> None:
    told, kept = Told(), []

    async def main() -> None:
        kept.append(told.of(await acompletion("replay/chat/hello?stall=3", MESSAGES, stream=True)))
        await anext(kept[0])

    asyncio.run(main())
    kept.clear()
    assert told.only().how == "left"


PROGRAM = """
import asyncio, os, sys
from penstock import acompletion, completion
options = dict(messages=[dict(role="user", content="x")], stream=True)
def listen(number, stream):
    stream._flow.on_settled(lambda outcome: print(number, outcome.how, flush=True))
    return stream
kept = [listen(number, completion("replay/chat/hello?stall=3", **options)) for number in range(3)]
next(kept[1]), next(kept[2].text())
async def main():
    kept.append(listen(3, await acompletion("replay/chat/hello?stall=3", **options)))
    await anext(kept[-1])
asyncio.run(main())
if os.fork() == 0:
    sys.exit()
os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="external: no fork on this system")
def test_the_exit_of_the_interpreter_settles_what_is_open_and_that_of_a_child_does_not() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
        env=os.environ | {"PYTHONPATH": str(Path(errors.__file__).parent.parent)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["0 left", "1 left", "2 left", "3 left"]
