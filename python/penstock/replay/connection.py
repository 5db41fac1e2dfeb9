"""HTTP/1.1 as a server speaks it: requests read, answers written by one loop, whatever is wrong with them."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
import struct
import time
import zlib
from contextlib import suppress
from hashlib import sha256
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from .faults import Body, Script, recut
from .ledger import Exchange, Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BODY_LIMIT = 64 << 20
"""Bytes of a request that are read before it is refused."""
_SECRET = re.compile(r"authorization|api-?key|token|cookie|secret", re.IGNORECASE)
_SECRET_QUERY = re.compile(r"(?<=[?&]key=)[^&]+")


class Answer(NamedTuple):
    """A response to be written: chunked if `length` is None."""

    status: int
    headers: dict[str, str]
    body: Body
    length: int | None = None
    keepalive: bytes = b""


class _GoneError(Exception):
    """The client closed the connection."""


class Connection(asyncio.Protocol):
    """One client: requests in turn, each answered by the one loop in `_write`."""

    transport: asyncio.Transport

    def __init__(self, ledger: Ledger, answer: Callable[[Exchange], tuple[Answer, Script]]) -> None:
        self.ledger = ledger
        self.answer = answer
        self.reader = asyncio.StreamReader()
        self.gone = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts serving."""
        self.transport = cast("asyncio.Transport", transport)
        # asyncio leaves this to us: a socket of `create_server` says protocol 0, not TCP. Each piece is a segment.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # What drain has waited for is with the kernel: "bytes" and "closed_early" would lie otherwise.
        self.transport.set_write_buffer_limits(high=0)
        self.reader.set_transport(self.transport)
        self.ledger.connect(self)
        self.task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        """Passes on what came."""
        self.reader.feed_data(data)

    def eof_received(self) -> None:
        """Takes the client for gone."""
        # Half-closing is not told from closing: no HTTP client of note does it before it has its answer.
        self._lost()

    def connection_lost(self, _exc: Exception | None) -> None:
        """Forgets the client."""
        self.ledger.open.discard(self)
        self._lost()

    def _lost(self) -> None:
        self.gone.set()
        self.writable.set()
        self.reader.feed_eof()

    def pause_writing(self) -> None:
        """Holds the writing back."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """Lets it go on."""
        self.writable.set()

    # Requests.

    async def _serve(self) -> None:
        try:
            with suppress(_GoneError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
                while await self._exchange():
                    pass
        finally:
            # shutdown, not close alone: a forked child may hold a copy of the socket, and the client wait for it.
            with suppress(OSError):
                if not (self.transport.is_closing() or self.transport.get_write_buffer_size()):
                    self.transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
            self.transport.close()

    async def _exchange(self) -> bool:
        """Answers one request; whether another may follow on this connection."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            await self._write(_BAD_REQUEST, Script(), None)
            return False
        started = time.monotonic()
        line, *fields = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, path, version = (*line.split(" "), "", "")[:3]
        headers: dict[str, str] = {}
        for item in fields:
            name, _, value = item.partition(":")
            name, value = name.strip().lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        if headers.get("expect", "").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            raw = await self._body(headers)
        except ValueError:
            await self._write(_BAD_REQUEST, Script(), None)
            return False
        shown = {name: _shown(name, value) for name, value in headers.items()}
        exchange = Exchange(f"req_replay_{next(_ids):08d}", method, _SECRET_QUERY.sub("...", path), shown, _parsed(raw))
        answer, script = self.answer(exchange)
        if not path.partition("?")[0].endswith("/stats"):
            self.ledger.log.append(exchange)
        try:
            await self._write(answer, script, exchange)
            exchange.finished = True
        finally:
            exchange.closed_early = self.gone.is_set() and not exchange.finished
            exchange.seconds = time.monotonic() - started
            self.ledger.settle(exchange)
        if answer.body.ending != "end":
            return False
        return version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"

    async def _body(self, headers: dict[str, str]) -> bytes:
        """The request's body, whichever way its length is told; ValueError if it is too long or told wrongly."""
        if "chunked" not in headers.get("transfer-encoding", "").lower():
            return await self.reader.readexactly(_limited(int(headers.get("content-length", 0))))
        body = bytearray()
        while size := int((await self.reader.readuntil(b"\n")).partition(b";")[0], 16):
            body += await self.reader.readexactly(_limited(size))
            _limited(len(body))
            await self.reader.readuntil(b"\n")
        while (await self.reader.readuntil(b"\n")).strip():
            pass
        return bytes(body)

    # The answer.

    async def _write(self, answer: Answer, script: Script, exchange: Exchange | None) -> None:
        """Sends an answer and ends it as it says.

        Raises:
            _GoneError: the client closed the connection first.
        """
        await self._wait(script.first_byte or 0)
        chunked = answer.length is None
        self._head(answer, exchange)
        pack = zlib.compressobj(wbits=31) if script.gzip else None

        async def send(piece: bytes) -> None:
            if not piece:
                return
            self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await self.writable.wait()
            if self.gone.is_set():
                raise _GoneError
            if exchange is not None:
                exchange.bytes += len(piece)
                exchange.chunks += 1

        async def wait(seconds: float | None) -> None:
            if script.keepalive and script.chunk is None:
                while seconds is None or seconds > script.keepalive:
                    await self._wait(script.keepalive)
                    await send(_packed(pack, answer.keepalive) if answer.keepalive else b"")
                    seconds = None if seconds is None else seconds - script.keepalive
            await self._wait(seconds)

        pieces: Iterable[bytes] = (_packed(pack, frame) for frame in answer.body.frames)
        for piece in recut(pieces, script.chunk) if script.chunk else pieces:
            await wait(script.delay or 0)
            await send(piece)
        match answer.body.ending:
            case "stall":
                await wait(None)
            case "reset":
                await self._wait(0)
                self._reset()
            case "end":
                if pack:
                    await send(pack.flush())
                if chunked:
                    self.transport.write(b"0\r\n\r\n")

    def _head(self, answer: Answer, exchange: Exchange | None) -> None:
        headers = {"server": "penstock-replay", **answer.headers}
        if exchange is not None:
            headers["x-request-id"] = exchange.id
            exchange.status = answer.status
        chunked = answer.length is None
        headers |= {"transfer-encoding": "chunked"} if chunked else {"content-length": str(answer.length)}
        lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def _wait(self, seconds: float | None) -> None:
        """Waits, None for ever; at 0 the loop has one turn, so that a client's going is noticed."""
        if seconds == 0:
            await asyncio.sleep(0)
        else:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.gone.wait(), seconds)
        if self.gone.is_set():
            raise _GoneError

    def _reset(self) -> None:
        sock: socket.socket = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


_ids = itertools.count(1)
_BAD_REQUEST = Answer(400, {"content-type": "application/json"}, Body([b"{}"]), 2)
_REASONS = {status.value: status.phrase for status in HTTPStatus}


def _limited(size: int) -> int:
    if not 0 <= size <= BODY_LIMIT:
        raise ValueError(f"a body of {size} bytes")
    return size


def _packed(pack: Any, piece: bytes) -> bytes:
    """The piece as it goes on the wire: compressed so that it can be read at once, if at all."""
    packed: bytes = pack.compress(piece) + pack.flush(zlib.Z_SYNC_FLUSH) if pack else piece
    return packed


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")


def _shown(name: str, value: str) -> str:
    """A header as the statistics show it: enough to tell one key from another, not to use it."""
    if not _SECRET.search(name):
        return value
    scheme, _, secret = value.rpartition(" ")
    return f"{scheme} sha256:{sha256(secret.encode()).hexdigest()[:12]}".strip()
