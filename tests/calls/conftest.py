"""Calls in every world: blocking, under asyncio and under trio, against the local upstream."""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import trio

from penstock import acompletion, completion, transport
from penstock.replay import Upstream

MESSAGES = [{"role": "user", "content": "Hello"}]
KEY = "sk-test-0123456789abcdef"


class World:
    """One way to call. `stream` gives (chunks, the stream) or raises; `ask` gives the response."""

    def __init__(self, name: str, by: str, base_url: str) -> None:
        self.name = name
        self.by = by
        self.base_url = base_url

    def run(self, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return asyncio.run(main()) if self.name == "asyncio" else trio.run(main)

    def _arguments(self, model: str, options: dict[str, Any]) -> dict[str, Any]:
        model = model if "/" in model.partition("?")[0] else f"openai/{model}"
        defaults = {"messages": MESSAGES, "api_base": self.base_url, "api_key": KEY, "max_retries": 0}
        return {"model": model, **defaults, **options}

    def ask(self, model: str, **options: Any) -> Any:
        arguments = self._arguments(model, options)
        if self.name == "blocking":
            return completion(**arguments)

        async def main() -> Any:
            return await acompletion(**arguments)

        return self.run(main)

    def stream(self, model: str, into: list[Any] | None = None, **options: Any) -> tuple[list[Any], Any]:
        arguments = self._arguments(model, {"stream": True, **options})
        chunks = [] if into is None else into
        if self.name == "blocking":
            stream = completion(**arguments)
            chunks.extend(stream)
            return chunks, stream

        async def main() -> Any:
            stream = await acompletion(**arguments)
            async for chunk in stream:
                chunks.append(chunk)
            return stream

        return chunks, self.run(main)

    def fails(self, error: type[Exception], model: str, into: list[Any] | None = None, **options: Any) -> Any:
        """The error that streaming this ends with."""
        with pytest.raises(error) as caught:
            self.stream(model, into, **options)
        assert type(caught.value) is error
        return caught.value


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def up(upstream: Upstream) -> Iterator[Upstream]:
    """The local upstream, with nothing remembered of other tests."""
    upstream.reset()
    yield upstream
    gc.collect()  # what a test dropped complains now or never


WORLDS = ("blocking-native", "blocking-httpx", "asyncio-native", "asyncio-httpx", "trio-httpx")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test that talks to the upstream does so over every transport."""
    named = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "world" in named:
        return  # two of its own
    if "world" in metafunc.fixturenames:
        metafunc.parametrize("world", WORLDS, indirect=True)
    elif "up" in metafunc.fixturenames:
        metafunc.parametrize("by", ["native", "httpx"], indirect=True)


@pytest.fixture(autouse=True)
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What carries the requests of this test, where it does not say it itself."""
    name: str = getattr(request, "param", "native")
    if name == "httpx":
        monkeypatch.setattr(transport, "_engine", lambda *_: False)
    return name


@pytest.fixture
def world(request: pytest.FixtureRequest, up: Upstream, monkeypatch: pytest.MonkeyPatch) -> World:
    name, _, by = request.param.partition("-")
    if by == "httpx":
        monkeypatch.setattr(transport, "_engine", lambda *_: False)
    return World(name, by, up.base_url)
