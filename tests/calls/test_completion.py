"""What a call gives back when all goes well."""

import asyncio
import threading
from typing import Any

import httpx
import httpx2
import pytest
import trio

from penstock import (
    APIConnectionError,
    APIError,
    AsyncStream,
    BadRequestError,
    ChatCompletion,
    ChatCompletionChunk,
    RateLimitError,
    Stream,
    acompletion,
    completion,
    stream_chunk_builder,
)
from penstock.replay import Upstream

MESSAGES = [{"role": "user", "content": "Hello"}]


def text(chunks: list[Any]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices if choice.index == 0)


def choices(completion: ChatCompletion) -> Any:
    """The choices as plain data; no content and empty content are the same, as the first delta often has "" already."""
    plain = completion.model_dump()["choices"]
    for choice in plain:
        choice["message"]["content"] = choice["message"].get("content") or None
    return plain


# Streams -------------------------------------------------------------------------------------------------------------


def test_a_stream_has_the_text_of_the_whole_response(world: Any) -> None:
    whole = world.ask("hello")
    chunks, _ = world.stream("hello")
    assert isinstance(whole, ChatCompletion)
    assert all(isinstance(chunk, ChatCompletionChunk) for chunk in chunks)
    assert text(chunks) == whole.choices[0].message.content


@pytest.mark.parametrize("case", ["hello", "reasoning", "tools", "parallel-tools", "n2", "refusal", "legacy-function"])
def test_what_is_collected_is_the_whole_response(world: Any, case: str) -> None:
    whole = world.ask(case)
    _, stream = world.stream(case)
    assert choices(stream._collected()) == choices(whole)


def test_usage_comes_last_in_a_chunk_of_its_own_if_asked_for(world: Any) -> None:
    chunks, stream = world.stream("hello", stream_options={"include_usage": True})
    *others, last = chunks
    assert last.choices == []
    assert last.usage == stream.usage
    assert stream.usage.complete
    assert all("usage" in chunk and chunk.usage is None for chunk in others)


def test_usage_is_known_without_being_asked_for(world: Any, up: Upstream) -> None:
    chunks, stream = world.stream("hello")
    assert not any("usage" in chunk for chunk in chunks)
    assert stream.usage.total_tokens > 0
    assert up.stats()["requests"][-1]["body"]["stream_options"] == {"include_usage": True}


def test_where_nobody_reports_usage_it_is_unknown(world: Any) -> None:
    chunks, stream = world.stream("hello?nousage", stream_options={"include_usage": True})
    assert chunks[-1].choices == []
    assert chunks[-1].usage is None
    assert stream.usage is None


def test_a_stream_tells_about_its_response(world: Any) -> None:
    _, stream = world.stream("hello")
    assert stream.status_code == 200
    assert stream.request_id.startswith("req_replay_")
    assert stream.response_headers["X-Request-Id"] == stream.request_id
    assert "Content-Type" in stream.response_headers
    (attempt,) = stream.attempts
    assert (attempt.provider, attempt.model, attempt.status_code, attempt.error) == ("openai", "hello", 200, None)
    timings = stream.timings
    assert 0 < timings.to_headers <= timings.to_first_token
    assert timings.tokens_per_second == pytest.approx(1 / timings.between_tokens)


def test_connections_are_used_again(up: Upstream) -> None:
    before = up.stats()["connections"]["opened"]
    for _ in range(5):
        list(completion("openai/hello", MESSAGES, stream=True, api_base=up.base_url, api_key="x"))
    assert up.stats()["connections"]["opened"] - before <= 1


def test_the_text_alone(up: Upstream) -> None:
    arguments: dict[str, Any] = {"stream": True, "api_base": up.base_url, "api_key": "x"}
    chunks = list(completion("openai/n2", MESSAGES, **arguments))
    pieces = list(completion("openai/n2", MESSAGES, **arguments).text())
    assert "".join(pieces) == text(chunks)
    assert all(pieces)

    async def main() -> list[str]:
        return [piece async for piece in (await acompletion("openai/n2", MESSAGES, **arguments)).text()]

    assert asyncio.run(main()) == pieces


def test_collect_after_some_chunks_has_all_of_them(up: Upstream) -> None:
    stream = completion("openai/hello", MESSAGES, stream=True, api_base=up.base_url, api_key="x")
    next(stream)
    next(stream)
    whole = completion("openai/hello", MESSAGES, api_base=up.base_url, api_key="x")
    assert stream.collect().choices == whole.choices


def test_async_collect(up: Upstream) -> None:
    async def main() -> ChatCompletion:
        stream = await acompletion("openai/hello", MESSAGES, stream=True, api_base=up.base_url, api_key="x")
        return await stream.collect()

    assert asyncio.run(main()).choices[0].finish_reason == "stop"


def test_nothing_is_collected_of_what_is_not_kept(up: Upstream) -> None:
    options: Any = {"api_base": up.base_url, "api_key": "x", "keep_partial": False}
    stream = completion("openai/hello", MESSAGES, stream=True, **options)
    with pytest.raises(Exception, match="keep_partial"):
        stream.collect()


def test_chunks_can_be_joined_later(world: Any) -> None:
    chunks, stream = world.stream("parallel-tools", stream_options={"include_usage": True})
    joined = stream_chunk_builder(chunks)
    assert joined == stream._collected()
    assert stream_chunk_builder([chunk.model_dump() for chunk in chunks]) == joined
    assert stream_chunk_builder([]) is None


def test_a_server_that_ignores_stream_is_read_all_the_same(world: Any) -> None:
    chunks, stream = world.stream("tools?json", stream_options={"include_usage": True})
    assert [call.index for call in chunks[0].choices[0].delta.tool_calls] == [0]
    assert chunks[-1].usage == stream.usage
    assert stream.request_id


def test_many_chunks_in_one_read_leave_the_loop_its_turns(up: Upstream) -> None:
    async def main() -> int:
        stream = await acompletion("openai/long-200?chunk=1m", MESSAGES, stream=True, api_base=up.base_url, api_key="x")
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count())
        async for _ in stream:
            pass
        counting.cancel()
        return turns

    assert asyncio.run(main()) >= 2  # 200 chunks are three turns, and the first one starts the counting


# Worlds --------------------------------------------------------------------------------------------------------------


def test_overloads_tell_what_a_call_gives(up: Upstream) -> None:
    options: Any = {"api_base": up.base_url, "api_key": "x"}
    assert isinstance(completion("openai/hello", MESSAGES, stream=True, **options), Stream)
    assert isinstance(completion("openai/hello", MESSAGES, stream=False, **options), ChatCompletion)

    async def main() -> None:
        assert isinstance(await acompletion("openai/hello", MESSAGES, stream=True, **options), AsyncStream)

    asyncio.run(main())


def test_each_event_loop_has_its_own_connections(up: Upstream) -> None:
    async def main() -> None:
        await acompletion("openai/hello", MESSAGES, api_base=up.base_url, api_key="x")

    before = up.stats()["connections"]["opened"]
    for _ in range(3):
        asyncio.run(main())
    trio.run(main)
    assert up.stats()["connections"]["opened"] - before == 4
    # A loop that ends has closed them.
    up.wait(lambda stats: stats["connections"]["open"] <= before)


def test_threads_share_the_connections(up: Upstream) -> None:
    texts: list[str] = []

    def work() -> None:
        for _ in range(5):
            chunks = list(completion("openai/hello", MESSAGES, stream=True, api_base=up.base_url, api_key="x"))
            texts.append(text(chunks))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 40
    assert len(set(texts)) == 1


def test_many_streams_at_once_wait_for_no_connection(up: Upstream) -> None:
    async def one() -> int:
        stream = await acompletion("openai/hello?delay=1", MESSAGES, stream=True, api_base=up.base_url, api_key="x")
        return len([chunk async for chunk in stream])

    async def main() -> list[int]:
        return await asyncio.gather(*[one() for _ in range(150)])

    assert len(set(asyncio.run(main()))) == 1


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_client_of_the_callers_own(up: Upstream, library: Any) -> None:
    with library.Client(headers={"x-mine": "yes"}) as client:
        options: Any = {"api_base": up.base_url, "api_key": "x", "client": client}
        assert text(list(completion("openai/hello", MESSAGES, stream=True, **options)))
        assert up.stats()["requests"][-1]["headers"]["x-mine"] == "yes"
        assert not client.is_closed

    async def main() -> None:
        async with library.AsyncClient(headers={"x-mine": "async"}) as client:
            options["client"] = client
            stream = await acompletion("openai/hello", MESSAGES, stream=True, **options)
            assert [chunk async for chunk in stream]

    asyncio.run(main())
    assert up.stats()["requests"][-1]["headers"]["x-mine"] == "async"


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_mock_transport(library: Any) -> None:
    body = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'

    def answer(request: Any) -> Any:
        assert request.headers["authorization"] == "Bearer k"
        return library.Response(200, headers={"content-type": "text/event-stream"}, content=body)

    client = library.Client(transport=library.MockTransport(answer))
    assert text(list(completion("gpt-4o", MESSAGES, stream=True, api_key="k", client=client))) == "Hi"

    async def main() -> str:
        async with library.AsyncClient(transport=library.MockTransport(answer)) as client:
            stream = await acompletion("gpt-4o", MESSAGES, stream=True, api_key="k", client=client)
            return text([chunk async for chunk in stream])

    assert asyncio.run(main()) == "Hi"


def test_a_client_for_the_other_world_is_refused() -> None:
    with pytest.raises(BadRequestError, match="httpx2 Client, not AsyncClient"):
        completion("gpt-4o", MESSAGES, api_key="k", client=httpx.AsyncClient())


def test_replay_is_a_provider(world: Any) -> None:
    chunks, _ = world.stream("replay/hello", api_base=None, api_key=None)
    assert text(chunks)


# Answers of the caller's own -----------------------------------------------------------------------------------------


def test_mock_response(world: Any) -> None:
    assert world.ask("gpt-4o", mock_response="Hi").choices[0].message.content == "Hi"
    chunks, stream = world.stream("gpt-4o", mock_response="Hi", stream_options={"include_usage": True})
    assert text(chunks) == "Hi"
    assert chunks[-1].usage is None
    assert stream._collected().choices[0].finish_reason == "stop"
    given = {"choices": [{"message": {"role": "assistant", "content": "a"}, "finish_reason": "length"}]}
    assert world.ask("gpt-4o", mock_response=given).choices[0].finish_reason == "length"
    with pytest.raises(ZeroDivisionError):
        world.ask("gpt-4o", mock_response=ZeroDivisionError())


def chunk_of(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"id": "c", "created": 1, "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


COUNTED = {"id": "c", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}


def test_mock_response_of_chunks(world: Any) -> None:
    given = [chunk_of(role="assistant", content="Hel"), chunk_of(content="lo"), chunk_of("stop"), COUNTED]
    chunks, stream = world.stream("gpt-4o", mock_response=given, stream_options={"include_usage": True})
    assert text(chunks) == "Hello"
    assert [chunk.usage is None for chunk in chunks] == [True, True, True, False]
    assert stream.usage.total_tokens == 3
    whole = world.ask("gpt-4o", mock_response=given)
    assert whole == stream._collected() == stream_chunk_builder(chunks)
    assert whole.choices[0].message.content == "Hello"
    again, _ = world.stream("gpt-4o", mock_response=chunks[:-1])
    assert text(again) == "Hello"


@pytest.mark.parametrize("kind", [ZeroDivisionError, APIConnectionError, RateLimitError])
def test_mock_response_breaks_where_it_is_told_to(world: Any, kind: type[Exception]) -> None:
    error = kind("as told")
    chunks: list[Any] = []
    given = [chunk_of(content="Hel"), chunk_of(content="lo"), error, chunk_of("stop")]
    with pytest.raises(kind) as caught:
        world.stream("gpt-4o", mock_response=given, into=chunks)
    assert text(chunks) == "Hello"
    assert caught.value is error
    if isinstance(error, APIError):
        assert error.partial is not None
        assert error.partial.choices[0].message.content == "Hello"
        assert error.provider == "openai"
    with pytest.raises(kind):
        world.ask("gpt-4o", mock_response=given)
    with pytest.raises(kind):
        world.stream("gpt-4o", mock_response=[kind("at once")])


def test_mock_response_without_an_end_is_cut(world: Any) -> None:
    world.fails(APIConnectionError, "gpt-4o", mock_response=[chunk_of(content="Hel")])
    world.fails(APIConnectionError, "gpt-4o", mock_response=[])
    for wrong in (["Hel"], [chunk_of(content="a"), 1]):
        with pytest.raises(BadRequestError, match="mock_response"):
            world.stream("gpt-4o", mock_response=wrong)


def test_a_mocked_error_has_fallbacks(world: Any) -> None:
    given = [RateLimitError("slow down")]
    chunks, _ = world.stream("gpt-4o", mock_response=given, fallbacks=[{"model": "gpt-4o", "mock_response": "Hi"}])
    assert text(chunks) == "Hi"


def test_the_builder_takes_messages_and_counts_none() -> None:
    whole = stream_chunk_builder([chunk_of(content="Hi"), chunk_of("stop")], messages=MESSAGES)
    assert whole is not None
    assert whole.usage is None
