"""A thousand random points in the streams of each family: wherever one is cut, what had come is what the caller has.

Seven hundred cuts go through the decoder, two hundred through calls over a body that breaks or ends there, a hundred
through sockets.
"""

import asyncio
import random
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

import httpx
import pytest

from penstock import APIConnectionError, APIError, acompletion, completion, stream_chunk_builder
from penstock.parser import Decoder, ending
from penstock.replay.cases import FAMILIES

MESSAGES = [{"role": "user", "content": "Hello"}]
DECODED, CALLED, SENT = 700, 200, 100


class Whole(NamedTuple):
    """A case and what it gives when nothing happens to it."""

    family: str
    name: str
    body: bytes
    ends: list[int]
    """Where its events end."""
    given: list[int]
    """How many chunks have been given there."""
    chunks: list[Any]
    usage: Any
    model: str

    def at(self, cut: int) -> tuple[int, int]:
        """The least and the most chunks that a cut leaves."""
        event = bisect_right(self.ends, cut)
        return ([0, *self.given][event], self.given[min(event, len(self.given) - 1)])


def decoder(family: str) -> Decoder:
    return Decoder(family, include_usage=True, keep_partial=True, model="m")


@cache
def wholes(family: str) -> list[Whole]:
    found = []
    for name, case in FAMILIES[family].cases.items():
        frames = case.frames(asked=True, usage=True, done=True)
        one, chunks, given = decoder(family), [], []
        try:
            for frame in frames:
                chunks += one.feed(frame)
                given.append(len(chunks))
            chunks += ending(one)
        except APIError:
            continue  # a case that fails
        whole = Whole(family, name, b"".join(frames), list(accumulate(map(len, frames))), given, chunks, one.usage, "")
        if len(frames) > 1 and len(whole.body) < 100_000:  # one event is a document, not a stream
            found.append(whole)
    return found


def points(family: str, count: int, seed: str) -> Iterator[tuple[random.Random, Whole, int]]:
    dice = random.Random(family + seed)
    for number in range(count):
        whole = wholes(family)[number % len(wholes(family))]
        yield dice, whole, dice.randrange(len(whole.body))


def pieces(dice: random.Random, body: bytes) -> Iterator[bytes]:
    """The body in reads of any size."""
    at = 0
    while at < len(body):
        size = dice.choice((1, 7, 100, 2000, 100_000))
        yield body[at : at + size]
        at += size


def plain(chunk: Any) -> Any:
    """A chunk without what is made up anew each time, and without the model, which a call is named after."""
    fields = chunk.model_dump()
    for choice in fields["choices"]:
        for call in choice["delta"].get("tool_calls") or ():
            call.pop("id", None)
    return fields["choices"], {
        name: fields[name] for name in fields if name not in ("id", "created", "model", "choices")
    }


def judge(whole: Whole, cut: int, chunks: list[Any], error: APIError | None, usage: Any, partial: Any) -> None:
    """Whether this is what a cut at this point has to leave."""
    place = f"{whole.family}/{whole.name} cut at {cut} of {len(whole.body)}"
    clean = [plain(chunk) for chunk in whole.chunks]
    got = [plain(chunk) for chunk in chunks]
    least, most = whole.at(cut)
    if error is None:
        # Nothing of the answer was missing: the end differs only in the usage, if that had not come yet.
        *got, (choices, last) = got
        assert (choices, "usage" in last) == ([], True), place
        assert last["usage"] == (usage.model_dump() if usage is not None else None), place
        # One wire has no reasons: its mark is its end.
        reasons = [
            {choice.index for chunk in each for choice in chunk.choices if choice.finish_reason}
            for each in (chunks, whole.chunks)
        ]
        assert reasons[0] == reasons[1], place
    else:
        assert type(error) is APIConnectionError, place
        assert least <= len(got) <= most, place
    assert got == clean[: len(got)], place
    if usage is not None and usage.complete:
        assert usage == whole.usage, place
    assert usage is None or usage.source in ("reported", "partial"), place
    # What was collected is what was given, and nobody has said "stop" who was not heard to.
    built: Any = stream_chunk_builder(chunks)
    if built is None:
        assert partial is None or partial.choices == [], place
    else:
        assert partial.choices == built.choices, place
        assert (partial.id, partial.created, partial.model) == (built.id, built.created, built.model), place


ONE_REQUEST = [family for family in FAMILIES if family != "predictions"]
"""Families whose stream is the answer to the request itself."""


@pytest.mark.parametrize("family", FAMILIES)
def test_decoded(family: str) -> None:
    for dice, whole, cut in points(family, DECODED, "decoded"):
        one, chunks, raised = decoder(family), [], None
        try:
            for piece in pieces(dice, whole.body[:cut]):
                chunks += one.feed(piece)
            for chunk in ending(one):
                chunks.append(chunk)
        except APIError as error:
            raised = error
        judge(whole, cut, chunks, raised, one.usage, one.response())


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """One that breaks, or ends properly."""

    def __init__(self, parts: list[bytes], breaks: bool) -> None:
        self.parts = parts
        self.breaks = breaks

    def __iter__(self) -> Iterator[bytes]:
        yield from self.parts
        if self.breaks:
            raise httpx.ReadError("reset by the peer")

    async def __aiter__(self) -> Any:
        for part in self:
            yield part


class Told(list[Any]):
    """The outcomes of one stream."""

    def of(self, stream: Any) -> Any:
        stream._flow.on_settled(self.append)
        return stream


def call(model: str, **options: Any) -> tuple[list[Any], APIError | None, Any]:
    """Chunks, error and stream of a blocking call."""
    chunks: list[Any] = []
    told = Told()
    stream = None
    try:
        stream = told.of(
            completion(model, MESSAGES, stream=True, stream_options={"include_usage": True}, max_retries=0, **options)
        )
        for chunk in stream:
            chunks.append(chunk)  # noqa: PERF402  what came before an error counts
    except APIError as error:
        return chunks, error, settled(told, stream, error)
    return chunks, None, settled(told, stream, None)


async def acall(model: str, **options: Any) -> tuple[list[Any], APIError | None, Any]:
    """The same, asynchronous."""
    chunks: list[Any] = []
    told = Told()
    stream = None
    try:
        stream = told.of(
            await acompletion(
                model, MESSAGES, stream=True, stream_options={"include_usage": True}, max_retries=0, **options
            )
        )
        async for chunk in stream:
            chunks += [chunk]
    except APIError as error:
        return chunks, error, settled(told, stream, error)
    return chunks, None, settled(told, stream, None)


def settled(told: Told, stream: Any, error: APIError | None) -> Any:
    """The stream, whose end has been told once."""
    if stream is not None:
        (outcome,) = told
        assert outcome.how == ("complete" if error is None else "failed")
        assert outcome.error is error
        assert outcome.usage == stream.usage
    return stream


def judge_call(whole: Whole, cut: int, chunks: list[Any], error: APIError | None, stream: Any) -> None:
    usage = stream.usage if stream is not None else None
    partial = error.partial if error is not None else stream._collected()
    if error is not None:
        assert error.usage == usage or stream is None
        assert error.provider is not None
    judge(whole, cut, chunks, error, usage, partial)


@pytest.mark.parametrize("world", ["blocking", "asyncio"])
@pytest.mark.parametrize("family", ONE_REQUEST)
def test_called(family: str, world: str) -> None:
    todo = list(points(family, CALLED // 2, world))

    def answer(dice: random.Random, whole: Whole, cut: int) -> httpx.MockTransport:
        body = Body(list(pieces(dice, whole.body[:cut])), breaks=dice.random() < 0.5)
        headers = {"content-type": FAMILIES[family].content_type}
        return httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, stream=body))

    async def main() -> None:
        for dice, whole, cut in todo:
            async with httpx.AsyncClient(transport=answer(dice, whole, cut)) as client:
                judge_call(whole, cut, *await acall(f"replay/{family}/{whole.name}", client=client))

    if world == "asyncio":
        asyncio.run(main())
        return
    for dice, whole, cut in todo:
        with httpx.Client(transport=answer(dice, whole, cut)) as client:
            judge_call(whole, cut, *call(f"replay/{family}/{whole.name}", client=client))


@pytest.mark.parametrize("family", FAMILIES)
def test_sent(family: str) -> None:
    def model(whole: Whole, cut: int, number: int) -> str:
        script = f"cut_bytes={cut}" if number % 2 else f"trim={len(whole.body) - cut}"
        return f"replay/{family}/{whole.name}?{script}"

    todo = list(points(family, SENT, "sent"))
    for number, (_, whole, cut) in enumerate(todo[::2]):
        judge_call(whole, cut, *call(model(whole, cut, number)))

    async def one(number: int, whole: Whole, cut: int) -> None:
        judge_call(whole, cut, *await acall(model(whole, cut, number)))

    async def main() -> None:
        await asyncio.gather(*(one(number, whole, cut) for number, (_, whole, cut) in enumerate(todo[1::2])))

    asyncio.run(main())


@pytest.mark.parametrize("world", ["blocking", "asyncio"])
@pytest.mark.parametrize("family", ONE_REQUEST)
def test_an_event_that_is_whole_but_for_its_end_is_handed_out(family: str, world: str) -> None:
    """The connection breaks behind the last character of an event that says something."""
    whole = wholes(family)[0]
    marks = [mark for mark in (b"\r\n\r\n", b"\n\n", b"\n", b"") if whole.body[: whole.ends[0]].endswith(mark)]
    event = next(number for number in range(2, len(whole.ends)) if whole.given[number] > whole.given[number - 1])
    cut = whole.ends[event] - len(marks[0])
    if "eventstream" in FAMILIES[family].content_type:
        cut = whole.ends[event]  # a message says how long it is: none is whole before its end
    body = Body([whole.body[:cut]], breaks=True)
    headers = {"content-type": FAMILIES[family].content_type}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, stream=body))
    if world == "blocking":
        chunks, error, stream = call(f"replay/{family}/{whole.name}", client=httpx.Client(transport=transport))
    else:
        client = httpx.AsyncClient(transport=transport)
        chunks, error, stream = asyncio.run(acall(f"replay/{family}/{whole.name}", client=client))
    assert len(chunks) == whole.given[event]
    assert stream.usage is None or not stream.usage.complete
    assert error is not None
    assert "cut" in error.message
