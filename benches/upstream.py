"""An OpenAI-compatible upstream that costs as little as possible, so that what is measured is the client.

Bodies are built once. The shape is in the base URL:
  /burst/N/v1      N text chunks in one write
  /each/N/v1       N text chunks, one write and one packet each
  /pace/N/MS/v1    N text chunks, one each MS milliseconds
Prints its port on the first line. Usage: python upstream.py [PORT]
"""

import asyncio
import contextlib
import functools
import socket
import sys
from collections.abc import Iterator
from typing import cast

import streams

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n"
    b"x-request-id: req_0123456789abcdef\r\nopenai-processing-ms: 12\r\n\r\n"
)


@functools.cache
def pieces(count: int) -> list[bytes]:
    """The stream in HTTP chunks, one per event, and the last chunk."""
    return [b"%x\r\n%s\r\n" % (len(event), event) for event in streams.events(count)] + [b"0\r\n\r\n"]


class Connection(asyncio.Protocol):
    """One connection; requests come one after the other, with a content-length."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.waiting = cast("asyncio.Transport", transport), b""
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        head, found, body = self.waiting.partition(b"\r\n\r\n")
        if not found:
            return
        length = next(
            (
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            ),
            0,
        )
        if len(body) < length:
            return
        self.waiting = body[length:]
        _, path, _ = head.split(b" ", 2)
        self.answer(path.decode("ascii").strip("/").split("/"))

    def answer(self, path: list[str]) -> None:
        """Sends the stream in the shape that the path asks for."""
        shape, parts = path[0], pieces(int(path[1]))
        if shape == "burst":
            self.transport.write(HEAD + b"".join(parts))
        else:
            self.transport.write(HEAD)
            self.send(iter(parts), float(path[2]) / 1000 if shape == "pace" else 0.0)

    def send(self, parts: Iterator[bytes], delay: float) -> None:
        """The next piece, and the one after that when the loop gets round to it."""
        part = next(parts, None)
        if part is None or self.transport.is_closing():
            return
        self.transport.write(part)
        loop = asyncio.get_running_loop()
        if delay:
            loop.call_later(delay, self.send, parts, delay)
        else:
            loop.call_soon(self.send, parts, delay)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    with contextlib.suppress(KeyboardInterrupt):
        try:
            import uvloop
        except ImportError:
            asyncio.run(serve(port))
        else:
            uvloop.run(serve(port))
