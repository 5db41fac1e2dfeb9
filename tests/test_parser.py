"""The parser alone, over bytes from anywhere."""

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import APIConnectionError, APIError, APIResponseValidationError
from penstock.parser import FAMILIES, Decoder, aiter_chunks, iter_chunks, iter_events
from penstock.replay import cases, faults
from penstock.replay.faults import Script

CHAT = cases.FAMILIES["chat"]

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


# Any cut of any case --------------------------------------------------------------------------------------------------


def spoiled(script: str) -> list[bytes]:
    """The events of a case as the local upstream would send them to `case?script`."""
    name, _, rest = script.partition("?")
    case = CHAT.find(name)
    assert case is not None
    asked = Script.read(rest)
    frames = case.frames(asked=True, usage=not asked.nousage, done=not asked.nodone)
    return list(faults.end(faults.spoil(frames, asked, CHAT), asked, CHAT).frames)


SCRIPTS = [
    *CHAT.cases,
    "hello?nousage",
    "hello?nodone",
    "hello?error=3",
    "hello?error=finish+1",
    "hello?error_event=3",
    "hello?malformed=3",
    "hello?cut=finish",
    "hello?cut=finish+1",
    "hello?trim=1",
    "hello?trim=10",
    "hello?trim=500",
    "usage-every-chunk?cut=5",
    "usage-every-chunk?error=5",
]


def outcome(chunks: Any, usage: Any) -> tuple[list[Any], str, Any]:
    """All that can be told of a stream: chunks, how it ended, its usage."""
    given: list[Any] = []
    ending = ""
    try:
        given.extend(chunks)
    except APIError as error:
        ending = f"{type(error).__name__}: {error}"
    return plain(given), ending, described(usage())


def plain(chunks: list[Any]) -> list[Any]:
    """Chunks as data, without what is made up where the provider says nothing: an id of its own, and the time."""
    assert len({(chunk.id, chunk.created) for chunk in chunks}) <= 1
    return [
        {**chunk.model_dump(), "created": 0, "id": re.sub(r"[0-9a-f]{32}$", "(generated)", chunk.id)}
        for chunk in chunks
    ]


def described(usage: Any) -> Any:
    return usage and (usage.model_dump(), usage.source, usage.complete, usage.raw)


def fed(parts: list[bytes], decoder: Decoder) -> Iterator[Any]:
    for part in parts:
        yield from decoder.feed(part)
    yield from decoder.finish()


async def pulled(parts: list[bytes], given: list[Any]) -> None:
    async for chunk in aiter_chunks(later(parts), include_usage=True):
        given.append(chunk)  # noqa: PERF401  what came before an error counts


def whole(script: str) -> tuple[bytes, Any]:
    body = b"".join(spoiled(script))
    chunks = iter_chunks([body], include_usage=True)
    return body, outcome(chunks, lambda: chunks.usage)


WHOLE = {script: whole(script) for script in SCRIPTS}


@settings(deadline=None, max_examples=300)
@given(st.data(), st.sampled_from(SCRIPTS))
def test_any_cut_gives_the_same_chunks(data: st.DataObject, script: str) -> None:
    body, expected = WHOLE[script]
    parts = cut(body, data.draw(st.lists(st.integers(0, len(body)), max_size=12)))
    decoder = Decoder(include_usage=True)
    assert outcome(fed(parts, decoder), lambda: decoder.usage) == expected
    chunks = iter_chunks(parts, include_usage=True)
    assert outcome(chunks, lambda: chunks.usage) == expected
    given: list[Any] = []
    ending = ""
    try:
        asyncio.run(pulled(parts, given))
    except APIError as error:
        ending = f"{type(error).__name__}: {error}"
    assert (plain(given), ending) == expected[:2]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_byte_on_its_own_gives_the_same_chunks(script: str) -> None:
    body, expected = WHOLE[script]
    decoder = Decoder(include_usage=True)
    assert outcome(fed([body[at : at + 1] for at in range(len(body))], decoder), lambda: decoder.usage) == expected


@pytest.mark.parametrize("script", SCRIPTS)
def test_usage_comes_once_and_last_where_it_was_asked_for(script: str) -> None:
    chunks, ending, usage = WHOLE[script][1]
    *others, last = chunks
    if ending:
        others = chunks
    else:
        assert last["choices"] == []
        assert last["usage"] == (usage and usage[0])
    assert all("usage" in chunk and chunk["usage"] is None for chunk in others)
    assert all(chunk["choices"] or "prompt_filter_results" in chunk for chunk in others)
    silent, _, same = outcome((without := iter_chunks([WHOLE[script][0]])), lambda: without.usage)
    assert not any("usage" in chunk for chunk in silent)
    assert len(silent) == len(others)
    assert same == usage


@pytest.mark.parametrize("script", SCRIPTS)
def test_usage_is_settled_once(script: str) -> None:
    body, (_, _, expected) = WHOLE[script]
    decoder = Decoder()
    with suppress(APIError):
        decoder.feed(body)
        decoder.finish()
    for _ in range(2):
        assert described(decoder.usage) == expected
        with suppress(APIError):
            assert decoder.finish() == []
        with suppress(APIError):
            assert decoder.feed(body) == []  # what follows the end is ignored


def test_the_depths_agree_on_usage() -> None:
    for script, (body, (_, _, expected)) in WHOLE.items():
        for depth in ("text", "raw"):
            decoder = Decoder(depth=depth)
            with suppress(APIError):
                decoder.feed(body)
                decoder.finish()
            assert described(decoder.usage) == expected, (script, depth)


# Threads --------------------------------------------------------------------------------------------------------------


def test_one_decoder_fed_by_two_threads_refuses_and_keeps_its_state() -> None:
    body = b"".join(spoiled("long-3000")[1:-3])  # the deltas alone
    decoder = Decoder(keep_partial=True)
    given: list[int] = []
    refused: list[str] = []
    deadline = time.monotonic() + 20

    def work() -> None:
        while not refused and time.monotonic() < deadline:
            try:
                given.append(len(decoder.feed(body)))
            except RuntimeError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "fed by another thread" in refused[0]
    assert set(given) == {3000}  # whoever got in was alone
    decoder.feed(b"data: [DONE]\n\n")
    response = decoder.response()
    assert response is not None
    text = "".join(chunk.choices[0].delta.content or "" for chunk in iter_chunks([body, b"data: [DONE]\n\n"]))
    assert response.choices[0].message.content == text * len(given)


def test_ten_threads_with_a_decoder_each_agree() -> None:
    def work(script: str) -> Any:
        body, expected = WHOLE[script]
        parts = [body[at : at + 97] for at in range(0, len(body), 97)]
        decoder = Decoder(include_usage=True)
        return outcome(fed(parts, decoder), lambda: decoder.usage) == expected

    with ThreadPoolExecutor(10) as pool:
        assert all(pool.map(work, SCRIPTS * 5))


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


@pytest.mark.parametrize("parts", [[BODY], [BODY[:50], BODY[50:]], [BODY[:-1], BODY[-1:]]])
@pytest.mark.parametrize("run", [asyncio.run, trio.run])
def test_nothing_is_read_after_the_terminal_event(run: Any, parts: list[bytes]) -> None:
    closed = []

    def body() -> Iterator[bytes]:
        yield from parts
        raise AssertionError("read on")

    async def later_body() -> AsyncIterator[bytes]:
        try:
            for part in body():
                yield part
        finally:
            closed.append(True)

    async def main() -> list[Any]:
        return [chunk async for chunk in aiter_chunks(later_body())]

    given = asyncio.run(main()) if run is asyncio.run else trio.run(main)
    assert given == list(iter_chunks(body()))
    assert closed == [True]


def test_an_iterable_that_fails_passes_its_error_on() -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield BODY[:200]
        raise OSError("gone")

    async def main() -> None:
        async for _ in aiter_chunks(failing()):
            pass

    with pytest.raises(OSError, match="gone"):
        asyncio.run(main())


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


UNFINISHED = event({"delta": {"content": "Hi"}}).rstrip(b"\n")
"""Its data is whole, its blank line is missing, and no finish reason came."""


def test_an_unfinished_event_is_handed_out_before_the_cut_is_raised() -> None:
    chunks = iter_chunks([UNFINISHED])
    seen = [next(chunks)]
    with pytest.raises(APIConnectionError, match="before the completion did"):
        next(chunks)
    assert [chunk.choices[0].delta.content for chunk in seen] == ["Hi"]


def test_so_it_is_in_an_asynchronous_stream() -> None:
    seen = []

    async def body() -> AsyncIterator[bytes]:
        yield UNFINISHED

    async def main() -> None:
        async for chunk in aiter_chunks(body()):
            seen.append(chunk)  # noqa: PERF401  what came before an error is kept

    with pytest.raises(APIConnectionError, match="before the completion did"):
        asyncio.run(main())
    assert [chunk.choices[0].delta.content for chunk in seen] == ["Hi"]


def test_text_is_of_choice_0_however_the_reads_fall() -> None:
    """An event that only brings another text is not read again, and belongs to the choice of the one before."""
    turns = [(0, "a"), (1, "x"), (1, "y"), (0, "b"), (0, "c"), (1, "z")]
    events = [
        b"data: "
        + json.dumps({"id": "c", "choices": [{"index": index, "delta": {"content": text}}]}).encode()
        + b"\n\n"
        for index, text in turns
    ]
    assert list(iter_chunks([*events, b"data: [DONE]\n\n"], depth="text")) == ["a", "b", "c"]
    for before in range(len(events)):
        decoder = Decoder(keep_partial=True)
        seen = [chunk for event in events[:before] for chunk in decoder.feed(event)]
        decoder.read_text()
        texts = [text for event in events[before:] for text in decoder.feed(event)]
        assert "".join(c.choices[0].delta.content for c in seen if c.choices[0].index == 0) + "".join(texts) == "abc"
        assert decoder.response() is None
