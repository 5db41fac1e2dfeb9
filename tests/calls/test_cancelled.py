"""A task is cancelled at each await that a streamed call makes, one after the other: whatever it was doing then, its
end is told once, its connection is closed, and nothing complains.
"""

import asyncio
import gc
import types
from collections.abc import Coroutine, Generator
from functools import partial
from typing import Any

import pytest

from penstock import APIError, acompletion, retry
from penstock.replay import Upstream
from penstock.replay.cases import FAMILIES

MESSAGES = [{"role": "user", "content": "Hello"}]


@types.coroutine
def cancelled_at(step: int, coroutine: Coroutine[Any, Any, Any], steps: list[int]) -> Generator[Any, Any, Any]:
    """The coroutine, whose task is cancelled when it suspends for this time; `steps` gets how often it did."""
    count = 0
    resume: Any = partial(coroutine.send, None)
    while True:
        try:
            waits_for = resume()
        except StopIteration as done:
            steps.append(count)
            return done.value
        if count == step:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        count += 1
        try:
            yield waits_for
        except BaseException as error:  # noqa: BLE001  passed on, as it was
            resume = partial(coroutine.throw, error)
        else:
            resume = partial(coroutine.send, None)


class Calls:
    """Streams of one call, and what was told of their ends."""

    def __init__(self, model: str, **options: Any) -> None:
        self.model = model
        self.options = options
        self.streams = 0
        self.told: list[Any] = []

    async def once(self) -> None:
        stream = await acompletion(self.model, MESSAGES, stream=True, **self.options)
        self.streams += 1
        stream._flow.on_settled(self.told.append)
        try:
            async for _ in stream:
                pass
        except APIError:
            pass

    async def at_each_await(self) -> int:
        """Cancels at the first await, at the second, and so on; how many there are."""
        await self.once()  # the connection stands
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        step = 0
        while True:
            before, steps = self.streams, list[int]()
            self.told.clear()
            task = asyncio.ensure_future(_run(cancelled_at(step, self.once(), steps)))
            await asyncio.wait([task])
            over = steps != [] and steps[0] <= step
            assert task.cancelled() != over
            assert task.cancelled() or task.exception() is None
            gc.collect(0)
            await asyncio.sleep(0)
            assert len(self.told) == self.streams - before
            assert [outcome.how for outcome in self.told] in ([], ["cancelled"], ["complete"], ["failed"])
            if over:
                break
            step += 1
        for _ in range(200):
            if len(asyncio.all_tasks()) == 1:
                break
            await asyncio.sleep(0.005)
        assert len(asyncio.all_tasks()) == 1
        assert complaints == []
        return step


async def _run(awaitable: Any) -> Any:
    return await awaitable


@pytest.fixture
def up() -> Any:
    with Upstream() as upstream:
        yield upstream


def judge(up: Upstream, model: str, **options: Any) -> int:
    calls = Calls(model, **options)
    steps: int = asyncio.run(calls.at_each_await())
    up.wait(lambda stats: stats["connections"]["open"] == 0)
    return steps


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("script", ["", "?trim=300", "?delay=1&cut=6"])
def test_cancelled_at_each_await(up: Upstream, by: str, family: str, script: str) -> None:
    # At a base URL of its own: nothing of it is in any other test's pool.
    awaits = judge(up, f"replay/{family}/hello{script}", api_base=up.base_url, api_key="k", max_retries=0)
    assert awaits >= (1 if by == "native" else 3)  # the engine may have it all in one read


@pytest.mark.parametrize("script", ["status=500", "cut=0", "cut=3", "error=2", "delay=1&cut=9"])
def test_cancelled_at_each_await_of_several_attempts(
    up: Upstream, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)
    options: dict[str, Any] = {"on_stream_cut": "restart", "fallbacks": ["openai/tools"], "max_retries": 1}
    assert judge(up, f"openai/hello?{script}", api_base=up.base_url, api_key="k", **options) >= 3
