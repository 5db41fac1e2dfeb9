"""What a notebook shows, what a mistake is answered by, and anyio."""

import asyncio
from collections.abc import AsyncIterable
from typing import Any

import anyio
import pytest

from penstock import RateLimitError, acompletion, completion
from penstock.replay import Upstream

MESSAGES = [{"role": "user", "content": "Hello"}]
KEY = "sk-test-0123456789abcdef"


@pytest.fixture
def options(up: Upstream) -> dict[str, Any]:
    return {"api_base": up.base_url, "api_key": KEY, "stream": True}


# What is shown --------------------------------------------------------------------------------------------------------


def test_the_repr_of_a_stream_tells_how_it_stands(options: dict[str, Any]) -> None:
    stream: Any = completion("openai/hello", MESSAGES, **options)
    assert repr(stream) == "<Stream openai/hello: open>"
    for _ in stream:
        pass
    assert repr(stream) == "<Stream openai/hello: complete, 106 tokens>"
    left: Any = completion("openai/hello", MESSAGES, **options)
    left.close()
    assert repr(left) == "<Stream openai/hello: left>"
    chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": "Hi"}}]}
    mocked: Any = completion("openai/gpt-4o", MESSAGES, stream=True, mock_response=[chunk, RateLimitError("slow")])
    with pytest.raises(RateLimitError):
        list(mocked)
    assert repr(mocked) == "<Stream: failed>"


def test_the_repr_of_other_streams(options: dict[str, Any]) -> None:
    async def main() -> None:
        stream = await acompletion("openai/hello", MESSAGES, **options)
        assert repr(stream) == "<AsyncStream openai/hello: open>"
        await stream.aclose()
        assert repr(stream) == "<AsyncStream openai/hello: left>"

    asyncio.run(main())
    with completion("openai/hello", MESSAGES, **options) as stream:
        assert KEY not in repr(stream) + repr(next(stream))


# Mistakes -------------------------------------------------------------------------------------------------------------


def test_an_asynchronous_stream_says_how_it_is_iterated(options: dict[str, Any]) -> None:
    async def main() -> None:
        stream: Any = await acompletion("openai/hello", MESSAGES, **options)
        with pytest.raises(TypeError, match="AsyncStream is asynchronous: `async for`, not `for`"):
            for _ in stream:
                pass
        with pytest.raises(TypeError, match="`async with`, not `with`"), stream:
            pass
        assert isinstance(stream, AsyncIterable)
        assert [chunk async for chunk in stream]

    asyncio.run(main())


def test_a_blocking_stream_is_no_asynchronous_one(options: dict[str, Any]) -> None:
    async def main() -> None:
        stream: Any = completion("openai/hello", MESSAGES, **options)
        assert not isinstance(stream, AsyncIterable)  # frameworks would choose the wrong way to read it
        with pytest.raises(TypeError, match=r"async for.*Stream"):
            async for _ in stream:
                pass
        with pytest.raises(TypeError, match=r"Stream.*await"):
            await stream
        stream.close()

    asyncio.run(main())


def test_the_coroutine_of_a_call_says_that_it_is_one() -> None:
    call: Any = acompletion("openai/gpt-4o", MESSAGES, stream=True, mock_response="Hi")
    with pytest.raises(TypeError, match="'coroutine' object is not iterable"):
        iter(call)
    call.close()


# Loops ----------------------------------------------------------------------------------------------------------------


def test_a_blocking_call_in_a_running_loop(options: dict[str, Any]) -> None:
    """As in a notebook, whose loop always runs."""

    async def main() -> None:
        response = completion("openai/hello", MESSAGES, **{**options, "stream": None})
        stream = completion("openai/hello", MESSAGES, **options)
        assert stream.collect().choices == response.choices

    asyncio.run(main())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio(backend: str, options: dict[str, Any], up: Upstream) -> None:
    async def main() -> None:
        response = await acompletion("openai/hello", MESSAGES, **{**options, "stream": None})
        texts: list[str] = []
        calls: list[Any] = []

        async def read() -> None:
            async with await acompletion("openai/hello", MESSAGES, **options) as stream:
                async for text in stream.text():
                    texts.append(text)  # noqa: PERF401

        async def call() -> None:
            stream = await acompletion("openai/tools", MESSAGES, **options)
            calls.extend([call async for call in stream.tool_calls()])

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            group.start_soon(call)
        assert "".join(texts) == response.choices[0].message.content
        assert calls

        with anyio.move_on_after(0.2) as scope:
            stream = await acompletion("openai/hello?stall=1", MESSAGES, **options)
            async for _ in stream:
                pass
        assert scope.cancelled_caught
        up.wait(lambda stats: any(exchange["closed_early"] for exchange in stats["requests"]))

    anyio.run(main, backend=backend)
