"""The parser alone: bytes of a response body in, chunks out, with any HTTP library.

    import httpx
    from penstock.parser import iter_chunks

    with httpx.stream("POST", url, headers=headers, json=body) as response:
        for chunk in iter_chunks(response.iter_bytes()):
            print(chunk.choices[0].delta.content if chunk.choices else chunk.usage)

Give it bytes whose content-encoding is undone (httpx: `iter_bytes()`, not `iter_raw()`), cut anywhere. Check the status
first: the body of an error response is not a stream.
"""

from ._native import FAMILIES, ChunkIterator, Decoder, EventDecoder, ServerSentEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
    from typing import Any

    from typing_extensions import Buffer

__all__ = [
    "FAMILIES",
    "ChunkIterator",
    "Decoder",
    "EventDecoder",
    "ServerSentEvent",
    "aiter_chunks",
    "iter_chunks",
    "iter_events",
]

TURN = 64
"""Chunks that one read may hand out before other tasks get their turn."""


def iter_chunks(iterable: "Iterable[Buffer]", family: str = "chat", **options: "Any") -> ChunkIterator:
    """The chunks in an iterable of bytes. Nothing is read after the event that ends the stream ([DONE]).

    Args:
        iterable: the body, cut anywhere.
        family: one of FAMILIES.
        options: as Decoder takes them: dialect, depth, include_usage, max_event_size, model.

    Raises:
        APIStatusError: while iterating: the provider reported an error in the stream.
        APIConnectionError: while iterating: the body ended before the completion did.
        APIResponseValidationError: while iterating: these are not the bytes of such a stream.
        ValueError: an unknown family or option value.
    """
    return ChunkIterator(iterable, Decoder(family, **options))


async def aiter_chunks(
    iterable: "AsyncIterable[Buffer]", family: str = "chat", **options: "Any"
) -> "AsyncIterator[Any]":
    """The chunks in an asynchronous iterable of bytes, such as `response.aiter_bytes()` of httpx.

    Arguments and errors are those of `iter_chunks`. Other tasks get their turn every 64 chunks, however many come in
    one read. An asynchronous generator is closed at the end, for Python would leave that to chance.
    """
    decoder = Decoder(family, **options)
    feed = decoder.feed
    given = 0
    try:
        async for data in iterable:
            for chunk in feed(data) or ():
                yield chunk
                given += 1
                if given >= TURN:
                    given = 0
                    await other_tasks()
            if decoder.ended:
                break
        for chunk in ending(decoder):
            yield chunk
    finally:
        if hasattr(iterable, "aclose"):
            await iterable.aclose()


def ending(decoder: Decoder) -> "Iterator[Any]":
    """What the end of the body brings; an error behind it is raised once all of it has been handed out."""
    while chunks := decoder.finish():
        yield from chunks


def iter_events(
    iterable: "Iterable[Buffer]", *, max_event_size: "int | None" = 16 << 20
) -> "Iterator[ServerSentEvent]":
    """The server-sent events in an iterable of bytes, by the WHATWG rules: an unfinished last event is dropped.

    Raises:
        APIResponseValidationError: while iterating: an event over `max_event_size` bytes.
    """
    feed = EventDecoder(max_event_size=max_event_size).feed
    for data in iterable:
        yield from feed(data)


async def other_tasks() -> None:
    """Lets the other tasks of this thread run, under asyncio and under trio."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        import trio

        await trio.lowlevel.checkpoint()
    else:
        await asyncio.sleep(0)
