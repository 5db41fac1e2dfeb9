"""The engine as a transport of httpx, for clients of httpx and for SDKs that take one.

    OpenAI(http_client=httpx.Client(transport=HTTPTransport()))

Connections are shared with the calls of this package. Proxies are those of the environment, or the one given here.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from .._native import AsyncTransfer, NetworkError, Transfer
from . import native
from .port import Route, http2_of

ERRORS: dict[str, type[httpx.RequestError]] = {
    "url": httpx.UnsupportedProtocol,
    "request": httpx.LocalProtocolError,
    "connect": httpx.ConnectError,
    "tls": httpx.ConnectError,
    "proxy": httpx.ProxyError,
    "cut": httpx.RemoteProtocolError,
    "malformed": httpx.RemoteProtocolError,
    "connect_time": httpx.ConnectTimeout,
    "due_time": httpx.ReadTimeout,
    "idle_time": httpx.ReadTimeout,
}
"""httpx's exceptions for the engine's kinds of failure."""


@contextmanager
def _translated(request: httpx.Request) -> Iterator[None]:
    try:
        yield
    except NetworkError as error:
        message, kind = error.args
        raise ERRORS.get(kind, httpx.TransportError)(message, request=request) from error


def _arguments(request: httpx.Request, content: bytes) -> dict[str, Any]:
    """What both kinds of transfer take. The body is there, so that its length is known."""
    limits = request.extensions.get("timeout", {})
    headers = [
        (name.decode("ascii"), value.decode("utf-8", "replace"))
        for name, value in request.headers.raw
        if name.lower() != b"transfer-encoding"
    ]
    return {
        "url": str(request.url),
        "headers": headers,
        "content": content,
        "method": request.method,
        "connect": limits.get("connect"),
        "wait": limits.get("read"),
        "decode": False,  # httpx does that
    }


def _response(
    head: tuple[int, list[tuple[str, str]]], transfer: Transfer | AsyncTransfer, stream: Any
) -> httpx.Response:
    status_code, headers = head
    raw = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
    return httpx.Response(
        status_code, headers=raw, stream=stream, extensions={"http_version": (transfer.version or "").encode()}
    )


class _Body(httpx.SyncByteStream):
    def __init__(self, transfer: Transfer, request: httpx.Request) -> None:
        self._transfer = transfer
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        with _translated(self._request):
            while (data := self._transfer.read()) is not None:
                yield data

    def close(self) -> None:
        self._transfer.close()


class _AsyncBody(httpx.AsyncByteStream):
    def __init__(self, transfer: AsyncTransfer, request: httpx.Request) -> None:
        self._transfer = transfer
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated(self._request):
            while (data := await native.read(self._transfer)) is not None:
                yield data

    async def aclose(self) -> None:
        self._transfer.close()


class HTTPTransport(httpx.BaseTransport):
    """A transport for httpx.Client.

    Args:
        verify: False, or the path of a bundle or directory of certificates.
        cert: the path of a client certificate with its key, or a pair of paths.
        proxy: a URL of http, https, socks5 or socks5h.
        http2: True for HTTP/2 where the server chooses it within TLS, "prior-knowledge" for HTTP/2 without TLS too.

    Raises:
        BadRequestError: `http2` is none of these. With the first request: a file or the proxy is not what it should be.
    """

    def __init__(
        self, *, verify: Any = True, cert: Any = None, proxy: str | None = None, http2: bool | str = False
    ) -> None:
        self._route = Route(proxy, verify, cert, http2=http2_of(http2))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request: the response, its body unread."""
        connections = native.blocking_connections(self._route, str(request.url))
        with _translated(request):
            transfer = Transfer(connections, **_arguments(request, request.read()))
            head = transfer.send()
            transfer.keep_time(request.extensions.get("timeout", {}).get("read"), None)
        return _response(head, transfer, _Body(transfer, request))


class AsyncHTTPTransport(httpx.AsyncBaseTransport):
    """The same for httpx.AsyncClient, under asyncio."""

    def __init__(
        self, *, verify: Any = True, cert: Any = None, proxy: str | None = None, http2: bool | str = False
    ) -> None:
        self._route = Route(proxy, verify, cert, http2=http2_of(http2))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request: the response, its body unread."""
        loop = asyncio.get_running_loop()
        arguments = _arguments(request, await request.aread())
        with _translated(request):
            transfer = await native.begin(self._route, loop, **arguments)
            transfer.keep_time(request.extensions.get("timeout", {}).get("read"), None)
        return _response(transfer.head or (0, []), transfer, _AsyncBody(transfer, request))
