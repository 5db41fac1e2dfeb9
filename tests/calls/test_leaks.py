"""Thousands of streams that do not come to their end leave nothing behind: no socket, task, thread or memory.

Warnings are errors in these tests (pyproject.toml), those of the garbage collector and of trio too.
"""

import asyncio
import gc
import os
import random
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpcore
import pytest

from penstock import APIError, acompletion, completion, errors
from penstock.replay import Upstream
from penstock.replay.cases import FAMILIES

MESSAGES = [{"role": "user", "content": "Hello"}]
COUNT = 2500
"""Streams for each of the four ways to run them: 10,000 in all."""

DESCRIPTORS = Path("/proc/self/fd")
LONG = "openai/hello?stall=3"
BROKEN = ("cut=3", "reset=3", "error=3", "malformed=3", "error_event=2", "trim=500")

GROWTH = 200_000
"""Bytes that a thousand streams may add: 200 each would be a leak worth the name. What stays is caches filled late: of
regular expressions, of interned strings, of a pool's list; they measure 60 kB here, and none of them grows."""

pytestmark = pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="external: no /proc to count descriptors in")


def model(turn: int, script: str) -> str:
    """Of each family in turn."""
    return f"replay/{tuple(FAMILIES)[turn % len(FAMILIES)]}/hello?{script}"


def descriptors() -> int:
    return len(list(DESCRIPTORS.iterdir()))


def threads() -> int:
    """Without the one that keeps the clocks, which stays."""
    return sum(thread.name != "penstock-clocks" for thread in threading.enumerate())


def settled(count: Callable[[], int], limit: int, seconds: float = 10) -> int:
    """The count, once it is within the limit: what is closed by another thread or the server takes a moment."""
    deadline = time.monotonic() + seconds
    while (now := count()) > limit and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    return now


@pytest.fixture
def up() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def options(up: Upstream) -> dict[str, Any]:
    return {"messages": MESSAGES, "stream": True, "api_base": up.base_url, "api_key": "any", "max_retries": 0}


class Remains:
    """What there is now of all that can be left behind; `none_since` compares."""

    def __init__(self, up: Upstream) -> None:
        gc.collect()
        self.up = up
        self.descriptors = descriptors()
        self.threads = threads()

    def none_since(self, spare: int) -> None:
        """`spare`: connections that a pool may keep, each with a descriptor here and one in the server's thread."""
        assert settled(lambda: self.up.stats()["connections"]["open"], spare) <= spare
        assert settled(descriptors, self.descriptors + 2 * spare) <= self.descriptors + 2 * spare
        assert settled(threads, self.threads) <= self.threads


def leave(turn: int, options: dict[str, Any]) -> None:
    """One blocking stream, left in one of the ways there are."""
    way = turn % 6
    if way == 5:
        with suppress(APIError):
            list(completion(model(turn // 6, BROKEN[turn // 6 % len(BROKEN)]), **options))
        return
    stream = completion(model(turn // 6, "stall=6"), **options)
    if way == 0:
        return
    if way == 1:
        for _ in stream:
            break
    elif way == 2:
        next(stream)
        stream.close()
    elif way == 3:
        with suppress(ZeroDivisionError), stream:
            for _ in stream:
                raise ZeroDivisionError
    else:
        for text in stream.text():
            assert text
            break


async def leave_async(turn: int, options: dict[str, Any]) -> None:
    """The same under asyncio."""
    way = turn % 6
    if way == 5:
        with suppress(APIError):
            async for _ in await acompletion(model(turn // 6, BROKEN[turn // 6 % len(BROKEN)]), **options):
                pass
        return
    stream = await acompletion(model(turn // 6, "stall=6"), **options)
    if way == 0:
        return
    if way == 1:
        async for _ in stream:
            break
    elif way == 2:
        await anext(stream)
        await stream.aclose()
    elif way == 3:
        with suppress(ZeroDivisionError):
            async with stream:
                async for _ in stream:
                    raise ZeroDivisionError
    else:
        async for text in stream.text():
            assert text
            break


async def cancelled(turn: int, options: dict[str, Any], dice: random.Random) -> None:
    """A task that reads, cancelled at whatever it awaits just then."""

    async def read() -> None:
        async for _ in await acompletion(model(turn, "stall=6"), **options):
            pass

    task = asyncio.ensure_future(read())
    for _ in range(dice.randrange(40)):
        await asyncio.sleep(0)
    if turn % 4 == 0:
        await asyncio.sleep(dice.random() * 0.02)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def only_this_task() -> bool:
    return len(asyncio.all_tasks()) == 1


async def quiet(up: Upstream, spare: int) -> None:
    """The loop has nothing left to do and its connections are closed, but for so many in the pool."""
    for _ in range(1000):
        gc.collect(0)
        await asyncio.sleep(0.01)
        if only_this_task() and up.stats()["connections"]["open"] <= spare:
            return
    raise AssertionError(f"{len(asyncio.all_tasks())} tasks, {up.stats()['connections']}")


def test_blocking_streams_leave_nothing(up: Upstream, options: dict[str, Any]) -> None:
    leave(5, options)
    leave(0, options)  # starts the thread that closes what is dropped
    remains = Remains(up)
    for turn in range(COUNT):
        leave(turn, options)
    remains.none_since(spare=2)


def test_streams_in_threads_leave_nothing(up: Upstream, options: dict[str, Any]) -> None:
    leave(0, options)
    remains = Remains(up)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda turn: leave(turn, options), range(COUNT)))
    remains.none_since(spare=8)


def test_asynchronous_streams_leave_nothing(up: Upstream, options: dict[str, Any]) -> None:
    remains = Remains(up)

    async def main() -> None:
        for start in range(0, COUNT, 20):
            await asyncio.gather(*(leave_async(turn, options) for turn in range(start, start + 20)))
        await quiet(up, spare=20)

    asyncio.run(main())
    remains.none_since(spare=0)


def test_cancelled_streams_leave_nothing(up: Upstream, options: dict[str, Any]) -> None:
    remains = Remains(up)

    async def main() -> None:
        dice = random.Random(7)
        for start in range(0, COUNT, 20):
            await asyncio.gather(*(cancelled(turn, options, dice) for turn in range(start, start + 20)))
        # No stream was read to its end; where one takes two requests, the first was, and its connection waits.
        await quiet(up, spare=20)

    asyncio.run(main())
    remains.none_since(spare=20)


def test_memory_does_not_grow(up: Upstream, options: dict[str, Any]) -> None:
    async def main() -> None:
        for turn in range(80):
            await leave_async(turn, options)
        await quiet(up, spare=20)

    def both() -> None:
        for turn in range(80):
            leave(turn, options)
        asyncio.run(main())
        settled(lambda: up.stats()["connections"]["open"], 2)
        up.reset()  # its log would grow

    both()
    tracemalloc.start()
    try:
        both()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        both()
        both()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < GROWTH, f"{grown} bytes"


def test_a_stream_dropped_in_another_thread_is_closed(up: Upstream, options: dict[str, Any]) -> None:
    leave(0, options)
    remains = Remains(up)
    streams = [completion(LONG, **options) for _ in range(20)]
    for stream in streams:
        next(stream)
    hand = [streams]
    del streams, stream
    thread = threading.Thread(target=hand.clear)
    thread.start()
    thread.join()
    remains.none_since(spare=0)


def test_an_async_stream_dropped_in_another_thread_is_closed(up: Upstream, options: dict[str, Any]) -> None:
    remains = Remains(up)

    async def main() -> None:
        hand = [await acompletion(LONG, **options) for _ in range(20)]
        for stream in hand:
            await anext(stream)
        del stream
        await asyncio.get_running_loop().run_in_executor(None, hand.clear)
        await quiet(up, spare=0)

    asyncio.run(main())
    remains.none_since(spare=0)


def test_a_cycle_that_holds_a_stream_is_collected(
    up: Upstream, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(0, options)
    remains = Remains(up)
    assign = httpcore.ConnectionPool._assign_requests_to_connections

    def collected(pool: httpcore.ConnectionPool) -> Any:
        gc.collect()  # the worst moment to come: this thread holds the lock of the pool
        return assign(pool)

    monkeypatch.setattr(httpcore.ConnectionPool, "_assign_requests_to_connections", collected)
    for turn in range(20):
        cycle: list[Any] = [completion(LONG, **options)]
        if turn % 4:
            next(cycle[0])
        if turn % 4 == 2:
            cycle[0].close()
        cycle.append(cycle)
    del cycle
    gc.collect()
    remains.none_since(spare=0)


@pytest.mark.parametrize("begun", [False, True])
def test_a_loop_that_ends_with_streams_open_closes_them(up: Upstream, options: dict[str, Any], begun: bool) -> None:
    remains = Remains(up)
    kept: list[Any] = []

    async def main() -> None:
        for _ in range(20):
            kept.append(await acompletion(LONG, **options))
            if begun:
                await anext(kept[-1])

    asyncio.run(main())
    assert settled(lambda: up.stats()["connections"]["open"], 0) == 0
    kept.clear()
    remains.none_since(spare=0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="external: no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_with_streams_open_costs_neither_side(up: Upstream, options: dict[str, Any]) -> None:
    streams = [completion("openai/long-100?delay=2", **options) for _ in range(5)]
    for stream in streams:
        next(stream)
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            status = 1
            with suppress(BaseException):
                streams.pop().close()  # the child's copies: the parent's connections live on
                del stream
                streams.clear()
                gc.collect()
                leave(2, options)
                status = 0
            os._exit(status)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    for stream in streams:
        assert sum(bool(chunk.choices) for chunk in stream) >= 100


def program(code: str, up: Upstream) -> subprocess.CompletedProcess[str]:
    """A program that has run to its end, with the address of the upstream as its argument."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, up.base_url],
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
        env=os.environ | {"PYTHONPATH": str(Path(errors.__file__).parent.parent)},
    )


EXIT = """
import asyncio, sys, threading
from penstock import acompletion, completion
options = dict(messages=[dict(role="user", content="x")], stream=True, api_base=sys.argv[1], api_key="any")
kept = [completion("openai/long-200?delay=20", **options) for _ in range(5)]
for stream in kept[1:]:
    next(stream)
cycle = [kept[0]]; cycle.append(cycle)
def read():
    for _ in completion("openai/long-200?delay=20", **options):
        ready.set()
ready = threading.Event()
threading.Thread(target=read, daemon=True).start()
ready.wait(5)
async def main():
    kept.append(await acompletion("openai/long-200?delay=20", **options))
    await anext(kept[-1])
    asyncio.ensure_future(acompletion("openai/hello?first_byte=5", **options))
    await asyncio.sleep(0.01)
asyncio.run(main())
"""


UNCAUGHT = """
import sys
from penstock import completion
options = dict(messages=[dict(role="user", content="x")], stream=True, api_base=sys.argv[1], api_key="any")
for chunk in completion("openai/hello", **options):
    raise ZeroDivisionError
"""


def test_a_program_that_fails_in_its_loop_ends(up: Upstream) -> None:
    # The thread that keeps the clocks has just begun: it stops where it is, often with its lock in hand.
    for _ in range(5):
        done = program(UNCAUGHT, up)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == "ZeroDivisionError"


def test_the_interpreter_ends_with_streams_open_and_says_nothing(up: Upstream) -> None:
    done = program(EXIT, up)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert settled(lambda: up.stats()["connections"]["open"], 0) == 0


FORKED = """
import os, sys
from penstock import completion
options = dict(messages=[dict(role="user", content="x")], stream=True, api_base=sys.argv[1], api_key="any")
one, other = (completion("openai/long-100?delay=3", **options) for _ in range(2))
next(one), next(other)
child = os.fork()
if child == 0:
    next(completion("openai/hello", **options))
    sys.exit(0)
print(os.waitpid(child, 0)[1], len(list(one)), len(list(other)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="external: no fork on this system")
def test_a_forked_child_that_ends_takes_nothing_with_it(up: Upstream) -> None:
    done = program(FORKED, up)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 101 101\n", "")
