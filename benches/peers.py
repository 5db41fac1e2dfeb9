"""The clients under test, each in the way its own documentation shows: one request, streamed, every delta's text read.

A client is a function from a base URL to a coroutine function or a plain one that returns (chunks, characters).
"""

import json
import os
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

Run = Callable[[], tuple[int, int]]
AsyncRun = Callable[[], Awaitable[tuple[int, int]]]
Feed = Callable[[bytes], tuple[int, int]]
"""What is done with the bytes of a stream as they come: (chunks, characters) in them."""
Take = Callable[[Any], int]
"""What is done with a text, or with the bytes where nothing is parsed: counts its characters, or the chunks in them."""

MODEL = "gpt-4o"
MESSAGES: Any = [{"role": "user", "content": "Hello!"}]
OPTIONS: Any = {"include_usage": True}
BODY = {"model": MODEL, "messages": MESSAGES, "stream": True, "stream_options": OPTIONS}
KEY = "sk-test"
LAST = b"0\r\n\r\n"
"""How a chunked body ends, for those who read it without HTTP."""
os.environ["OPENAI_API_KEY"] = KEY
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would fetch its prices from the network


def chunks_in(data: bytes) -> int:
    return data.count(b"data: {")


def penstock(base: str, *, take: Take = len, **options: Any) -> Run:
    from penstock import completion

    def run() -> tuple[int, int]:
        count = size = 0
        for chunk in completion(
            f"openai/{MODEL}", MESSAGES, stream=True, stream_options=OPTIONS, api_base=base, api_key=KEY, **options
        ):
            count += 1
            if chunk["choices"]:
                size += take(chunk["choices"][0]["delta"].get("content") or "")
        return count, size

    return run


def penstock_text(base: str, **options: Any) -> Run:
    from penstock import completion

    def run() -> tuple[int, int]:
        count = size = 0
        for piece in completion(
            f"openai/{MODEL}", MESSAGES, stream=True, stream_options=OPTIONS, api_base=base, api_key=KEY, **options
        ).text():
            count += 1
            size += len(piece)
        return count + 3, size  # the role, the finish reason and the usage came too

    return run


def penstock_async(base: str, *, take: Take = len, **options: Any) -> AsyncRun:
    from penstock import acompletion

    async def run() -> tuple[int, int]:
        count = size = 0
        async for chunk in await acompletion(
            f"openai/{MODEL}", MESSAGES, stream=True, stream_options=OPTIONS, api_base=base, api_key=KEY, **options
        ):
            count += 1
            if chunk.choices:
                size += take(chunk.choices[0].delta.content or "")
        return count, size

    return run


def openai(base: str, *, take: Take = len) -> Run:
    import openai as sdk

    client = sdk.OpenAI(base_url=base, api_key=KEY)

    def run() -> tuple[int, int]:
        count = size = 0
        for chunk in client.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, stream_options=OPTIONS
        ):
            count += 1
            if chunk.choices:
                size += take(chunk.choices[0].delta.content or "")
        return count, size

    return run


def openai_async(base: str, *, aiohttp: bool = False, take: Take = len) -> AsyncRun:
    import openai as sdk

    limits = __import__("httpx").Limits(max_connections=2000)
    http_client = sdk.DefaultAioHttpClient() if aiohttp else sdk.DefaultAsyncHttpxClient(limits=limits)
    client = sdk.AsyncOpenAI(base_url=base, api_key=KEY, http_client=http_client)

    async def run() -> tuple[int, int]:
        count = size = 0
        async for chunk in await client.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, stream_options=OPTIONS
        ):
            count += 1
            if chunk.choices:
                size += take(chunk.choices[0].delta.content or "")
        return count, size

    return run


def litellm(base: str) -> Run:
    import litellm as sdk

    sdk.suppress_debug_info = True

    def run() -> tuple[int, int]:
        count = size = 0
        for chunk in sdk.completion(
            model=f"openai/{MODEL}", messages=MESSAGES, stream=True, stream_options=OPTIONS, api_base=base, api_key=KEY
        ):
            count += 1
            if chunk["choices"]:
                size += len(chunk["choices"][0]["delta"]["content"] or "")
        return count, size

    return run


def litellm_async(base: str, *, take: Take = len) -> AsyncRun:
    import litellm as sdk

    sdk.suppress_debug_info = True

    async def run() -> tuple[int, int]:
        count = size = 0
        async for chunk in await sdk.acompletion(
            model=f"openai/{MODEL}", messages=MESSAGES, stream=True, stream_options=OPTIONS, api_base=base, api_key=KEY
        ):
            count += 1
            if chunk["choices"]:
                size += take(chunk["choices"][0]["delta"]["content"] or "")
        return count, size

    return run


def any_llm_async(base: str) -> AsyncRun:
    from any_llm import acompletion

    async def run() -> tuple[int, int]:
        count = size = 0
        async for chunk in await acompletion(
            model=f"openai:{MODEL}", messages=MESSAGES, stream=True, stream_options=OPTIONS, api_base=base, api_key=KEY
        ):
            count += 1
            if chunk.choices:
                size += len(chunk.choices[0].delta.content or "")
        return count, size

    return run


def httpx_sse(base: str) -> Run:
    import httpx
    from httpx_sse import connect_sse

    client = httpx.Client()

    def run() -> tuple[int, int]:
        count = size = 0
        with connect_sse(client, "POST", f"{base}/chat/completions", json=BODY) as source:
            for event in source.iter_sse():
                if event.data == "[DONE]":
                    break
                chunk = json.loads(event.data)
                count += 1
                if chunk["choices"]:
                    size += len(chunk["choices"][0]["delta"].get("content") or "")
        return count, size

    return run


def read(parts: list[bytes], loads: Callable[[bytes], Any], take: Take = len) -> tuple[int, int]:
    """Whole events -> how many chunks, how much text."""
    count = size = 0
    for part in parts:
        if part == b"data: [DONE]":
            continue
        chunk = loads(part[6:])
        count += 1
        if chunk["choices"]:
            size += take(chunk["choices"][0]["delta"].get("content") or "")
    return count, size


def httpx_orjson(base: str) -> Run:
    import httpx
    import orjson

    client = httpx.Client()

    def run() -> tuple[int, int]:
        count = size = 0
        rest = b""
        with client.stream("POST", f"{base}/chat/completions", json=BODY) as response:
            for data in response.iter_bytes():
                *whole, rest = (rest + data).split(b"\n\n")
                found, text = read(whole, orjson.loads)
                count += found
                size += text
        return count, size

    return run


def httpx_orjson_async(base: str) -> AsyncRun:
    import httpx
    import orjson

    client = httpx.AsyncClient(limits=httpx.Limits(max_connections=2000))

    async def run() -> tuple[int, int]:
        count = size = 0
        rest = b""
        async with client.stream("POST", f"{base}/chat/completions", json=BODY) as response:
            async for data in response.aiter_bytes():
                *whole, rest = (rest + data).split(b"\n\n")
                found, text = read(whole, orjson.loads)
                count += found
                size += text
        return count, size

    return run


def httpx_bytes(base: str, *, take: Take = chunks_in) -> Run:
    import httpx

    client = httpx.Client()

    def run() -> tuple[int, int]:
        count = 0
        with client.stream("POST", f"{base}/chat/completions", json=BODY) as response:
            for data in response.iter_bytes():
                count += take(data)
        return count, 0

    return run


def httpx_bytes_async(base: str, *, take: Take = chunks_in, http2: bool = False) -> AsyncRun:
    import httpx

    client = httpx.AsyncClient(limits=httpx.Limits(max_connections=2000), timeout=60, http2=http2)

    async def run() -> tuple[int, int]:
        count = 0
        async with client.stream("POST", f"{base}/chat/completions", json=BODY) as response:
            async for data in response.aiter_bytes():
                count += take(data)
        return count, 0

    return run


def aiohttp_orjson_async(base: str, *, take: Take = len) -> AsyncRun:
    import aiohttp
    import orjson

    client: list[aiohttp.ClientSession] = []

    async def run() -> tuple[int, int]:
        if not client:
            client.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        count = size = 0
        rest = b""
        async with client[0].post(f"{base}/chat/completions", json=BODY) as response:
            async for data in response.content.iter_any():
                *whole, rest = (rest + data).split(b"\n\n")
                found, text = read(whole, orjson.loads, take)
                count += found
                size += text
        return count, size

    return run


def raw(base: str) -> tuple[tuple[str, int], bytes]:
    """Where to connect, and the request as bytes."""
    url = urlsplit(base)
    body = json.dumps(BODY).encode()
    head = b"POST %s/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    return (url.hostname or "", url.port or 80), head % (url.path.encode(), len(body)) + body


def socket_bytes(base: str, *, take: Take = chunks_in) -> Run:
    import socket

    address, request = raw(base)
    connection = socket.create_connection(address)

    def run() -> tuple[int, int]:
        connection.sendall(request)
        count = 0
        data = b""
        while not data.endswith(LAST):
            data = connection.recv(65536)
            count += take(data)
        return count, 0

    return run


def texts_by_hand(take: Take) -> Feed:
    """The least that reads a stream's texts: no HTTP, no usage kept, no error seen. It takes what this server sends."""
    import orjson

    rest = b""

    def feed(data: bytes) -> tuple[int, int]:
        nonlocal rest
        *lines, rest = (rest + data).split(b"\n")
        count = size = 0
        for line in lines:
            if line.startswith(b"data: {"):
                chunk = orjson.loads(line[6:])
                count += 1
                if chunk["choices"]:
                    size += take(chunk["choices"][0]["delta"].get("content") or "")
        return count, size

    return feed


def socket_orjson(base: str, *, take: Take = len) -> Run:
    """A blocking socket, and `texts_by_hand`."""
    import socket

    address, request = raw(base)
    connection = socket.create_connection(address)

    def run() -> tuple[int, int]:
        feed = texts_by_hand(take)
        connection.sendall(request)
        count = size = 0
        data = b""
        while not data.endswith(LAST):
            data = connection.recv(65536)
            found, text = feed(data)
            count += found
            size += text
        return count, size

    return run


def reader_async(base: str, begin: Callable[[], Feed]) -> AsyncRun:
    """The least that reads in the caller's event loop, which calls when there is something: no task before the end.

    What a stream brings goes into what `begin` gives for it.
    """
    import asyncio
    import socket

    address, request = raw(base)
    idle: list[socket.socket] = []

    async def run() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        connection = idle.pop() if idle else socket.create_connection(address)
        connection.setblocking(False)
        connection.sendall(request)
        feed, over = begin(), loop.create_future()
        count = size = 0

        def ready() -> None:
            nonlocal count, size
            data = connection.recv(65536)
            found, text = feed(data)
            count += found
            size += text
            if data.endswith(LAST) or not data:
                loop.remove_reader(connection)
                over.set_result(None)

        loop.add_reader(connection, ready)
        await over
        idle.append(connection)
        return count, size

    return run


def reader_bytes_async(base: str, *, take: Take = chunks_in) -> AsyncRun:
    """Nothing that parses in the caller's event loop can do with less."""
    return reader_async(base, lambda: lambda data: (take(data), 0))


def reader_orjson_async(base: str, *, take: Take = len) -> AsyncRun:
    """The texts are read, but given to no task."""
    return reader_async(base, lambda: texts_by_hand(take))


def epoll_bytes(base: str, streams: int, *, take: Take = chunks_in) -> Run:
    """All streams at once in one loop that only waits and reads: nothing that parses can do with less."""
    import select
    import socket

    address, request = raw(base)
    poll = select.epoll()
    connections = {}
    for _ in range(streams):
        connection = socket.create_connection(address)
        connections[connection.fileno()] = connection
        poll.register(connection.fileno(), select.EPOLLIN)

    def run() -> tuple[int, int]:
        for connection in connections.values():
            connection.sendall(request)
        count, open_ = 0, streams
        while open_:
            for number, _ in poll.poll():
                data = connections[number].recv(65536)
                count += take(data)
                if data.endswith(LAST) or not data:
                    open_ -= 1
        return count, 0

    return run


SYNC: dict[str, Callable[[str], Run]] = {
    "penstock": penstock,
    "penstock, text only": penstock_text,
    "penstock over httpx": lambda base: penstock(base, transport="httpx"),
    "litellm": litellm,
    "openai": openai,
    "httpx-sse + json": httpx_sse,
    "httpx + orjson, by hand": httpx_orjson,
    "httpx, bytes only": httpx_bytes,
    "raw socket, bytes only": socket_bytes,
}
ASYNC: dict[str, Callable[[str], AsyncRun]] = {
    "penstock, async": penstock_async,
    "penstock over httpx, async": lambda base: penstock_async(base, transport="httpx"),
    "litellm, async": litellm_async,
    "any-llm, async": any_llm_async,
    "openai, async": openai_async,
    "openai + aiohttp transport, async": lambda base: openai_async(base, aiohttp=True),
    "httpx + orjson, by hand, async": httpx_orjson_async,
    "httpx, bytes only, async": httpx_bytes_async,
    "aiohttp + orjson, by hand, async": aiohttp_orjson_async,
}
