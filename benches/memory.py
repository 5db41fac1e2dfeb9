"""What a stream keeps: bytes that are in use after chunk 10,000 and were not after chunk 100, and per idle stream.

Every allocation goes through the C library (PYTHONMALLOC=malloc) and is counted there, native ones too, so the figures
are bytes and not pages. Needs Linux with glibc.

Held open are 10,000 slow streams too, in one process: what they make it grow by, and whether all of them are whole.

Usage: python memory.py [--rounds N] [--only penstock] [--publish]
       python memory.py --client NAME --base URL   (what the above starts)
"""

import asyncio
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import measure
import streams
import upstream

HERE = Path(__file__).parent
IDLE = 200
HELD = 10_000
SLOW = 8  # seconds between the texts of those


class Allocated(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()  # noqa: SIM905
    ]


def allocated() -> int:
    """Bytes in use, in small blocks and in mapped ones."""
    gc.collect()
    function = ctypes.CDLL(None).mallinfo2
    function.restype = Allocated
    found = function()
    return int(found.uordblks + found.hblkhd)


def client(count: int) -> Any:
    """An httpx client whose requests are answered here, an event a read: no half-full socket buffer is counted."""
    import httpx

    events = streams.events(count)

    class Body(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            return iter(events)

    class Canned(httpx.BaseTransport):
        def handle_request(self, _: httpx.Request) -> httpx.Response:
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Body())

    return httpx.Client(transport=Canned())


def chunks(name: str, count: int) -> Iterator[Any]:
    """The chunks of one stream; whoever asks drops each before the next."""
    import peers

    http = client(count)
    call: dict[str, Any] = {"messages": peers.MESSAGES, "stream": True, "stream_options": peers.OPTIONS}
    base = "http://upstream/v1"
    if name.startswith("penstock.parser"):
        from penstock.parser import iter_chunks

        with http.stream("POST", f"{base}/chat/completions", json=peers.BODY) as response:
            yield from iter_chunks(response.iter_bytes(), "chat", include_usage=True)
    elif name.startswith("penstock"):
        from penstock import completion

        options: dict[str, Any] = {"keep_partial": False} if "keep_partial=False" in name else {}
        stream: Any = completion(
            f"openai/{peers.MODEL}", **call, api_base=base, api_key=peers.KEY, client=http, **options
        )
        yield from stream.text() if "text" in name else stream
    else:
        import openai

        sdk = openai.OpenAI(base_url=base, api_key=peers.KEY, http_client=http)
        if name == "openai":
            yield from sdk.chat.completions.create(model=peers.MODEL, **call)
        else:
            import litellm

            yield from litellm.completion(model=f"openai/{peers.MODEL}", **call, api_key=peers.KEY, client=sdk)


GROWTH = ("penstock", "penstock, keep_partial=False", "penstock, text only", "penstock.parser", "openai", "litellm")


def growth(name: str) -> float:
    """Bytes that a stream holds after chunk 10,000 more than after chunk 100."""
    for _ in chunks(name, 200):
        pass  # everything that is built once is built
    first = 0
    for number, _ in enumerate(chunks(name, 10_100)):
        if number == 100:
            first = allocated()
        elif number == 10_000:
            return allocated() - first
    raise SystemExit(f"{name}: the stream ended early")


async def opened(name: str, base: str, stack: AsyncExitStack, shared: dict[str, Any]) -> AsyncIterator[Any]:
    """A stream whose first chunk has come and whose next one is an hour away."""
    import peers

    call: dict[str, Any] = {"messages": peers.MESSAGES, "stream": True, "stream_options": peers.OPTIONS}
    if name in ("penstock, async", SHARED):
        from penstock import acompletion

        http2 = name == SHARED
        stream: Any = await acompletion(f"openai/{peers.MODEL}", **call, api_base=base, api_key=peers.KEY, http2=http2)
        iterator = aiter(stream)
    elif name == "openai, async":
        import openai

        client = shared.get("client") or shared.setdefault(
            "client", openai.AsyncOpenAI(base_url=base, api_key=peers.KEY)
        )
        iterator = aiter(await client.chat.completions.create(model=peers.MODEL, **call))
    elif name == "litellm, async":
        import litellm

        iterator = aiter(
            await litellm.acompletion(model=f"openai/{peers.MODEL}", **call, api_base=base, api_key=peers.KEY)
        )
    elif name == "httpx, bytes only, async":
        import httpx

        client = shared.get("client") or shared.setdefault(
            "client", httpx.AsyncClient(limits=httpx.Limits(max_connections=2000))
        )
        sent = client.stream("POST", f"{base}/chat/completions", json=peers.BODY)
        iterator = (await stack.enter_async_context(sent)).aiter_bytes()
    else:
        import aiohttp

        client = shared.get("client") or shared.setdefault(
            "client", aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        )
        sent = client.post(f"{base}/chat/completions", json=peers.BODY)
        iterator = (await stack.enter_async_context(sent)).content.iter_any()
    await anext(iterator)
    return iterator  # type: ignore[no-any-return]


IDLING = (
    "penstock, async",
    "openai, async",
    "litellm, async",
    "httpx, bytes only, async",
    "aiohttp, bytes only, async",
)


SHARED = "penstock, HTTP/2, async"
WITHIN_TLS = ("penstock, async", "httpx, bytes only, async", "aiohttp, bytes only, async")


async def idle(name: str, base: str) -> float:
    """Bytes per open stream that waits, of `IDLE` streams."""
    url = f"{base}/plain/pace/3/3600000/v1"
    shared: dict[str, Any] = {}
    stack = AsyncExitStack()
    held = [await opened(name, url, stack, shared) for _ in range(10)]
    before = allocated()
    held += [await opened(name, url, stack, shared) for _ in range(IDLE)]
    found = (allocated() - before) / IDLE
    print(json.dumps(found), flush=True)
    os._exit(0)  # nobody is to close 200 streams in good order


async def events(iterator: AsyncIterator[Any]) -> int:
    """How many more events come, in chunks or in bytes."""
    import peers

    return sum([peers.chunks_in(item) if isinstance(item, bytes) else 1 async for item in iterator])


async def hold(name: str, base: str) -> None:
    """Bytes of resident memory per stream when `HELD` are open, and how many of them were not read to their end."""
    texts = 4
    url = f"{base}/plain/pace/{texts}/{SLOW * 1000}/v1"
    shared: dict[str, Any] = {}
    async with AsyncExitStack() as stack:
        held = [await opened(name, url, stack, shared) for _ in range(10)]
        gc.collect()
        before = measure.memory()
        held += [await opened(name, url, stack, shared) for _ in range(HELD)]
        gc.collect()
        found = (measure.memory() - before) * 1024 * 1024 / HELD
        counts = await asyncio.gather(*map(events, held), return_exceptions=True)
        # The first has been read; the finish reason and the usage come after the texts.
        print(json.dumps([found, sum(count != texts + 2 for count in counts)]), flush=True)
        os._exit(0)


HOLDING = ("penstock, async", "aiohttp, bytes only, async")


def main() -> None:
    parser = measure.arguments(__doc__, rounds=3)
    parser.add_argument("--client", help="be this client")
    parser.add_argument("--base", help="of the upstream")
    parser.add_argument("--hold", action="store_true", help=f"as this client, hold {HELD} streams")
    options = parser.parse_args()
    if options.client:
        if options.hold:
            asyncio.run(hold(options.client, options.base))
        elif options.client in GROWTH:
            print(json.dumps(growth(options.client)))
        else:
            asyncio.run(idle(options.client, options.base))
        return
    files = measure.raise_file_limit()
    cells: dict[str, dict[str, dict[str, float]]] = {}
    dropped: dict[str, int] = {}
    installed = measure.versions()
    with upstream.serve_all() as bases:

        def answer(name: str, *more: str, malloc: bool = True, speaks: str = "http") -> Any:
            base = bases[speaks]
            command = [sys.executable, str(HERE / "memory.py"), "--client", name, "--base", base, *more]
            environment = {**os.environ, "PYTHONMALLOC": "malloc"} if malloc else None
            ran = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            return json.loads(ran.stdout.splitlines()[-1])

        def held(name: str) -> float:
            size, lost = answer(name, "--hold", malloc=False)
            dropped[name] = dropped.get(name, 0) + lost
            return float(size)

        shapes: dict[str, tuple[tuple[str, ...], Callable[[str], float]]] = {
            "growth from chunk 100 to 10,000": (GROWTH, answer),
            "each idle stream": (IDLING, answer),
            "each idle stream within TLS": (WITHIN_TLS, partial(answer, speaks="https")),
            "each idle stream on a connection of HTTP/2 within TLS": ((SHARED,), partial(answer, speaks="http2")),
        }
        if files > HELD + 100:
            shapes[f"each of {HELD:,} slow streams, resident"] = (HOLDING, held)
        else:
            print(f"{HELD:,} streams are not tried: only {files:,} files may be open (`ulimit -Hn`), a socket is one")
        for shape, (names, ask) in shapes.items():
            chosen = [
                name
                for name in names
                if measure.wanted(name, options.only) and name.partition(",")[0].partition(".")[0] in installed
            ]
            if not chosen:
                continue
            found: dict[str, list[float]] = {name: [] for name in chosen}
            for _ in range(options.rounds):
                for name in chosen:
                    found[name].append(ask(name) / 1024)
            cells[shape] = {name: measure.summary(samples) for name, samples in found.items()}
            rows = [
                [name, *(f"{cell[key]:,.1f}" for key in ("median", "min", "max"))]
                for name, cell in cells[shape].items()
            ]
            print(f"\n{shape}: KiB, {options.rounds} rounds\n\n{measure.table(['', 'median', 'min', 'max'], rows)}")
    print(*(f"\n{name}: {lost} of {HELD * options.rounds:,} dropped" for name, lost in dropped.items()), sep="")
    text = sum(
        len((document["choices"][0]["delta"].get("content") or "").encode())
        for document in streams.documents(10_100)[100:10_000]
    )
    print(f"\ntext delivered between chunk 100 and 10,000: {text / 1024:.1f} KiB")
    result = {
        "bench": "memory",
        "unit": "KiB",
        "rounds": options.rounds,
        "text": text / 1024,
        "cells": cells,
        "dropped": dropped,
    }
    path = measure.save("memory", result, publish=options.publish)
    print(f"\n{measure.heading(json.loads(path.read_text(encoding='utf-8')))}\nwritten to {path}")


if __name__ == "__main__":
    main()
