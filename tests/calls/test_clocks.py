"""The four clocks. No test measures how fast something is; each waits for a clock that must run out, or must not."""

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from penstock import APITimeoutError, BadRequestError, Timeout, Timeouts, acompletion, completion
from penstock.clocks import NEVER, Watch
from penstock.replay import Upstream
from penstock.replay.cases import FAMILIES

MESSAGES = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("script", "timeouts", "clock"),
    [
        ("first_byte=5", Timeouts(first_token=0.2), "first_token"),
        ("first_byte=5", Timeouts(total=0.2), "total"),
        ("silent", Timeouts(first_token=0.2), "first_token"),
        ("silent&keepalive=20", Timeouts(first_token=0.2, idle=0.15), "first_token"),
        ("stall=1&keepalive=20", Timeouts(first_token=0.2), "first_token"),
        ("silent", Timeouts(idle=0.2), "idle"),
        ("stall=3", Timeouts(first_token=0.1, idle=0.3), "idle"),
        ("stall=3&keepalive=20", Timeouts(idle=0.2, total=0.5), "total"),
        ("delay=20", Timeouts(total=0.3), "total"),
    ],
)
def test_each_clock_ends_the_stream_and_says_so(world: Any, script: str, timeouts: Timeouts, clock: str) -> None:
    raised = world.fails(Timeout, f"hello?{script}", timeout=timeouts)
    assert raised.code == clock
    assert f"{getattr(timeouts, clock):g} s (timeout: {clock})" in raised.message
    assert isinstance(raised, APITimeoutError)


CLOCKS = {
    "connect": ("", Timeouts(connect=0.3)),
    "first_token": ("?first_byte=5", Timeouts(first_token=0.2)),
    "idle": ("?stall=3", Timeouts(idle=0.2)),
    "total": ("?stall=3&keepalive=20", Timeouts(total=0.4)),
}


@pytest.fixture
def deaf() -> Iterator[str]:
    """The URL of a server whose queue of connections is full: no further one comes to stand."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    queue = [socket.socket() for _ in range(4)]
    for waiting in queue:
        waiting.setblocking(False)
        waiting.connect_ex(listening.getsockname())
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    for each in (*queue, listening):
        each.close()


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_each_clock_is_for_every_family(deaf: str, kind: str, clock: str) -> None:
    if clock == "connect" and not sys.platform.startswith("linux"):
        pytest.skip("external: elsewhere a full queue refuses connections")
    script, timeouts = CLOCKS[clock]
    options: dict[str, Any] = {"stream": True, "timeout": timeouts, "max_retries": 0}
    if clock == "connect":
        options["api_base"] = deaf

    def judge(family: str, raised: Timeout, seconds: float) -> None:
        limit = getattr(timeouts, clock)
        assert (raised.code, raised.provider) == (clock, "replay")
        assert f"{limit:g} s (timeout: {clock})" in raised.message
        assert limit * 0.9 <= seconds < limit + 4
        assert (raised.partial is None) == (clock in ("connect", "first_token"))
        if raised.partial is not None:
            assert raised.partial.choices == [] or raised.partial.choices[0].finish_reason is None
        assert raised.usage is None or not raised.usage.complete

    def one(family: str) -> None:
        began = time.monotonic()
        with pytest.raises(Timeout) as caught:
            list(completion(f"replay/{family}/hello{script}", MESSAGES, **options))
        judge(family, caught.value, time.monotonic() - began)

    async def aone(family: str) -> None:
        began = time.monotonic()
        with pytest.raises(Timeout) as caught:
            async for _ in await acompletion(f"replay/{family}/hello{script}", MESSAGES, **options):
                pass
        judge(family, caught.value, time.monotonic() - began)

    async def main() -> None:
        await asyncio.gather(*map(aone, FAMILIES))

    if kind == "asyncio":
        asyncio.run(main())
    else:
        with ThreadPoolExecutor(len(FAMILIES)) as pool:
            list(pool.map(one, FAMILIES))


def test_a_number_is_for_the_first_token_and_each_silence(world: Any) -> None:
    assert world.fails(Timeout, "hello?silent", timeout=0.2).code == "first_token"
    assert world.fails(Timeout, "hello?stall=3", timeout=0.2).code == "idle"
    chunks, _ = world.stream("hello?delay=10", timeout=0.2)
    assert chunks  # 0.7 s in all


def test_a_number_is_for_everything_without_streaming(world: Any) -> None:
    with pytest.raises(Timeout) as caught:
        world.ask("hello?first_byte=5", timeout=0.2)
    assert caught.value.code == "total"
    with pytest.raises(Timeout) as caught:
        world.ask("hello?stall=0&keepalive=20", timeout=0.2)
    assert caught.value.code == "total"


def test_total_is_for_all_attempts(world: Any, up: Upstream) -> None:
    with pytest.raises(Timeout) as caught:
        world.ask("hello?first_byte=5", timeout=0.3, max_retries=5)
    assert caught.value.code == "total"
    assert len(up.stats()["requests"]) == 1


def test_without_clocks_nothing_is_watched(world: Any) -> None:
    none = Timeouts(connect=None, first_token=None, idle=None, total=None)
    chunks, _ = world.stream("hello", timeout=none)
    assert chunks


def test_a_connection_that_does_not_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(request: httpx.Request) -> httpx.Response:
        assert request.extensions["timeout"]["connect"] == 2
        raise httpx.ConnectTimeout("timed out")

    with pytest.raises(Timeout) as caught:
        completion(
            "gpt-4o",
            MESSAGES,
            api_key="x",
            max_retries=0,
            timeout=Timeouts(connect=2),
            client=httpx.Client(transport=httpx.MockTransport(slow)),
        )
    assert caught.value.code == "connect"
    assert "no connection after 2 s" in caught.value.message


def test_many_streams_have_one_thread(up: Upstream) -> None:
    streams = [
        completion("openai/hello?delay=5", MESSAGES, stream=True, api_base=up.base_url, api_key="x", timeout=30)
        for _ in range(10)
    ]
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("penstock-clocks") == 1
    for stream in streams:
        stream.close()


def test_a_finished_connection_is_never_shut_down(up: Upstream) -> None:
    stream = completion("openai/hello", MESSAGES, stream=True, api_base=up.base_url, api_key="x")
    before = up.stats()["connections"]["opened"]
    list(stream)
    stream.close()
    stream._flow.watch.shut()
    list(completion("openai/hello", MESSAGES, stream=True, api_base=up.base_url, api_key="x"))
    assert up.stats()["connections"]["opened"] == before


# The values -----------------------------------------------------------------------------------------------------------


def test_what_timeout_means() -> None:
    assert Timeouts.of(None, stream=True) == Timeouts(connect=5, first_token=600, idle=600, total=None)
    assert Timeouts.of(30, stream=True) == Timeouts(connect=5, first_token=30, idle=30, total=None)
    assert Timeouts.of(30, stream=False) == Timeouts(connect=5, first_token=None, idle=None, total=30)
    assert Timeouts.of(2, stream=True).connect == 2
    given = Timeouts(total=9)
    assert Timeouts.of(given, stream=True) is given
    assert Timeouts.of(httpx.Timeout(7, connect=3), stream=True) == Timeouts(connect=3, first_token=7, idle=7)


@pytest.mark.parametrize("wrong", [0, -1, "soon", True, object()])
def test_what_timeout_cannot_be(wrong: Any) -> None:
    with pytest.raises(BadRequestError, match="timeout"):
        Timeouts.of(wrong, stream=True)


def test_the_nearest_clock_is_due() -> None:
    watch = Watch(Timeouts(first_token=10, idle=5, total=None), started=100.0)
    assert watch.due()[1] == "first_token"  # no silence before the first word
    watch.headers(None, stream=True)
    assert watch.due() == (watch.seen + 5, "idle")
    watch.stop()
    watch = Watch(Timeouts(first_token=None, idle=None, total=None), started=100.0)
    watch.headers(None, stream=True)
    assert watch.due()[0] == NEVER
