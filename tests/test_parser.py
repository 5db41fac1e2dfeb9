"""The parser alone, over bytes from anywhere."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import APIConnectionError, APIResponseValidationError
from penstock.parser import FAMILIES, Decoder, aiter_chunks, iter_chunks, iter_events

TEXTS = ["", "Hello", " 東京", ' "naïve"\n', "😀"]


def event(choice: dict[str, Any], **fields: Any) -> bytes:
    return b"data: " + json.dumps({"id": "c", "choices": [{"index": 0, **choice}], **fields}).encode() + b"\n\n"


BODY = (
    b"".join(event({"delta": {"content": text}}) for text in TEXTS)
    + event({"delta": {}, "finish_reason": "stop"})
    + b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}\n\ndata: [DONE]\n\n'
)


def cut(body: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cuts), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


async def later(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def test_chunks_of_an_iterable() -> None:
    chunks = iter_chunks([BODY], include_usage=True)
    given = list(chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in given if chunk.choices) == "".join(TEXTS)
    assert given[-1].usage.total_tokens == 7
    assert chunks.usage == given[-1].usage


@pytest.mark.parametrize("run", [asyncio.run, trio.run])
def test_chunks_of_an_asynchronous_iterable(run: Any) -> None:
    async def main() -> list[Any]:
        return [chunk async for chunk in aiter_chunks(later([BODY]))]

    given = asyncio.run(main()) if run is asyncio.run else trio.run(main)
    assert given == list(iter_chunks([BODY]))


@given(st.lists(st.integers(0, len(BODY)), max_size=8))
def test_any_cut_gives_the_same_chunks(cuts: list[int]) -> None:
    def fixed(chunks: Any) -> list[Any]:
        return [{**chunk.model_dump(), "created": 0} for chunk in chunks]

    parts = cut(BODY, cuts)

    async def main() -> list[Any]:
        return fixed([chunk async for chunk in aiter_chunks(later(parts), include_usage=True)])

    whole = fixed(iter_chunks([BODY], include_usage=True))
    assert fixed(iter_chunks(parts, include_usage=True)) == whole
    assert asyncio.run(main()) == whole


def test_the_depths() -> None:
    assert "".join(iter_chunks([BODY], depth="text")) == "".join(TEXTS)
    decoder = Decoder(depth="raw")
    assert decoder.feed(BODY) is None
    assert decoder.usage is not None
    assert decoder.usage.total_tokens == 7

    async def main() -> list[Any]:
        return [piece async for piece in aiter_chunks(later([BODY]), depth="raw")]

    assert asyncio.run(main()) == []


def test_a_cut_body_is_an_error_after_its_chunks() -> None:
    chunks = iter_chunks([event({"delta": {"content": "a"}})])
    assert next(chunks).choices[0].delta.content == "a"
    with pytest.raises(APIConnectionError):
        next(chunks)


def test_other_tasks_get_their_turn_in_a_long_read() -> None:
    long = event({"delta": {"content": "a"}}) * 300 + BODY
    turns = 0

    async def main() -> None:
        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count())
        async for _ in aiter_chunks(later([long])):
            pass
        counting.cancel()

    asyncio.run(main())
    assert turns >= 3


def test_bare_events() -> None:
    body = b"event: ping\ndata: 1\ndata: 2\nid: 7\nretry: 50\n\n: comment\n\ndata:x\n\ndata: unfinished"

    def parts() -> Iterator[bytes]:
        yield from cut(body, list(range(len(body))))

    first, second = iter_events(parts())
    assert (first.event, first.data, first.id, first.retry) == ("ping", "1\n2", "7", 50)
    assert (second.event, second.data, second.id, second.retry) == ("message", "x", "7", None)
    with pytest.raises(APIResponseValidationError):
        list(iter_events([b"data: " + b"x" * 100], max_event_size=50))


def test_families() -> None:
    assert "chat" in FAMILIES
    with pytest.raises(ValueError, match="nope"):
        iter_chunks([], family="nope")
