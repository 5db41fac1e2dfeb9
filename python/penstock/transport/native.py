# ruff: noqa: D102  the methods of answers and ports are documented on Answer and Port
"""The HTTP port over the engine: from the socket to chunks without Python in between."""

import asyncio
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from .._native import AsyncTransfer, Connections, Decoder, NetworkError, Transfer, Trust
from ..errors import BadRequestError, Headers
from .port import Request, Route

T = TypeVar("T")


class NativeAnswer:
    """An answer that the caller's own thread reads."""

    def __init__(self, transfer: Transfer, status_code: int, headers: Headers) -> None:
        self.line = self.transfer = transfer
        self.status_code = status_code
        self.headers = headers

    async def read(self) -> bytes | None:
        return self.transfer.read()

    def chunks(self, decoder: Any) -> Callable[[], Any]:
        if type(decoder) is Decoder:
            self.transfer.attach(decoder)
            return self.transfer.pull
        read, feed = self.transfer.read, decoder.feed

        def chunks() -> Any:
            data = read()
            return None if data is None else feed(data)

        return chunks

    async def close(self) -> None:
        self.transfer.close()

    def abandon(self) -> None:
        self.transfer.close()


class AsyncNativeAnswer:
    """An answer that the event loop's thread reads when the loop says so."""

    def __init__(self, transfer: AsyncTransfer, status_code: int, headers: Headers, loop: Any) -> None:
        self.line = self.transfer = transfer
        self.status_code = status_code
        self.headers = headers
        self.loop = loop

    async def read(self) -> bytes | None:
        return await read(self.transfer)

    def chunks(self, decoder: Any) -> Callable[[], Any]:
        if type(decoder) is Decoder:
            self.transfer.attach(decoder)
            return self.transfer.pull

        async def chunks() -> Any:
            data = await self.read()
            return None if data is None else decoder.feed(data)

        return chunks

    async def close(self) -> None:
        self.transfer.close()

    def abandon(self) -> None:
        self.transfer.shut()
        with suppress(RuntimeError):  # the loop has ended, and watches nothing any more
            # Perhaps from another thread, and in any case from where the loop may be in the middle of something.
            self.loop.call_soon_threadsafe(self.transfer.close)


class NativePort:
    """Requests of the blocking world."""

    def __init__(self, route: Route) -> None:
        self.route = route

    async def send(self, request: Request, limits: dict[str, float | None]) -> NativeAnswer:
        transfer = Transfer(
            blocking_connections(self.route, request.url),
            request.url,
            list(request.headers.items()),
            request.content,
            method=request.method,
            connect=limits["connect"],
            wait=limits["read"],
        )
        status_code, headers = transfer.send()
        return NativeAnswer(transfer, status_code, Headers.of(headers))

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  no event loop runs this

    async def aside(self, work: Callable[[], T]) -> T:
        return work()


class AsyncNativePort:
    """Requests under asyncio, on whatever loop has readers."""

    def __init__(self, route: Route, loop: Any) -> None:
        self.route = route
        self.loop = loop

    async def send(self, request: Request, limits: dict[str, float | None]) -> AsyncNativeAnswer:
        transfer = await begin(
            self.route,
            self.loop,
            request.url,
            list(request.headers.items()),
            request.content,
            method=request.method,
            connect=limits["connect"],
            wait=limits["read"],
        )
        status_code, headers = transfer.head or (0, [])
        return AsyncNativeAnswer(transfer, status_code, Headers.of(headers), self.loop)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def aside(self, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(work)


async def begin(route: Route, loop: Any, url: str, *args: Any, connect: float | None, **options: Any) -> AsyncTransfer:
    """A request up to its response's headers. The arguments are those of AsyncTransfer."""
    looped = _pools.looped.get(loop) or await _pools.begin_loop(loop)
    connections = _pools.connections(looped.pools, route, url)
    transfer = AsyncTransfer(connections, loop, url, *args, connect=connect, **options)
    looped.open.add(transfer)
    try:
        while True:
            place = transfer.send()
            if place is not None and not isinstance(place, tuple):
                place = await place
            if place is None:
                return transfer
            host, port = place
            transfer.resolved(await _addresses(loop, host, port, connect))
    except BaseException:
        transfer.close()
        raise


async def read(transfer: AsyncTransfer) -> bytes | None:
    """The next bytes of a response; None at its end."""
    data = transfer.read()
    if data is None or isinstance(data, bytes):
        return data
    later: bytes | None = await data
    return later


def blocking_connections(route: Route, url: str) -> Connections:
    """Those of the blocking world to a URL."""
    return _pools.connections(_pools.blocking, route, url)


async def _addresses(loop: Any, host: str, port: int, seconds: float | None) -> list[tuple[str, int]]:
    try:
        async with asyncio.timeout(seconds):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise NetworkError(f"no address of {host} in time", "connect_time") from None
    except OSError as error:
        raise NetworkError(f"no connection to {host}:{port}: {error.strerror or error}", "connect") from error
    return [place[4][:2] for place in found]


# Pools


def proxy_of(route: Route, url: str) -> str | None:
    """The proxy for a URL: the caller's, or by the environment."""
    if route.proxy is not None:
        return str(route.proxy)
    scheme, _, rest = url.partition("://")
    proxy = _variable(f"{scheme}_proxy") or _variable("all_proxy")
    if not proxy and sys.platform in ("darwin", "win32"):
        from urllib.request import getproxies  # the system's own settings

        proxy = getproxies().get(scheme)
    if not proxy or _is_direct(rest.partition("/")[0].rpartition("@")[2]):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _variable(name: str) -> str | None:
    if value := os.environ.get(name):
        return value
    value = os.environ.get(name.upper())
    # HTTP_PROXY is what a CGI script's caller may set by a header `Proxy`; there only the lower case counts.
    return None if value and name == "http_proxy" and "REQUEST_METHOD" in os.environ else value


def _is_direct(authority: str) -> bool:
    """Whether NO_PROXY has this host: its name, a domain it is in, its address, its network, or all (*)."""
    names = _variable("no_proxy")
    if not names:
        return False
    host, _, port = authority.rpartition(":") if not authority.endswith("]") else (authority, "", "")
    host = (host if host and port.isdigit() else authority).strip("[]").lower()
    for name in (each.strip().lower() for each in names.split(",")):
        if name == "*" or name in (host, authority.lower()):
            return True
        domain = name.removeprefix("*").removeprefix(".")
        if domain and host.endswith("." + domain):
            return True
        if "/" in name and _is_within(host, name):
            return True
    return False


def _is_within(host: str, network: str) -> bool:
    from ipaddress import ip_address, ip_network

    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:
        return False


class _Looped:
    """What an event loop has open: closed when it ends, while there is still a loop to do it in."""

    def __init__(self) -> None:
        self.pools: dict[Any, Connections] = {}
        self.open: WeakSet[AsyncTransfer] = WeakSet()
        self.keeper = self._keep()

    async def _keep(self) -> AsyncIterator[None]:
        """Loops close the asynchronous generators that are open when they end, and this is one of them."""
        try:
            yield
        finally:
            for transfer in list(self.open):
                transfer.close()
            for pool in self.pools.values():
                pool.close()
            self.pools.clear()


class _Pools:
    """The connections of this process: per route, and for asynchronous calls per event loop and route."""

    def __init__(self) -> None:
        self.forgotten: list[Any] = []
        self.begin()

    def begin(self) -> None:
        self.lock = threading.Lock()
        self.blocking: dict[Any, Connections] = {}
        self.looped: WeakKeyDictionary[Any, _Looped] = WeakKeyDictionary()
        self.trust: dict[Any, Trust] = {}

    def forget(self) -> None:
        """In a forked child: the connections are the parent's. They are set aside and never closed."""
        self.forgotten.append((self.blocking, self.looped))
        self.begin()

    async def begin_loop(self, loop: Any) -> _Looped:
        with self.lock:
            looped = self.looped[loop] = _Looped()
        hooks = sys.get_asyncgen_hooks()
        # Without the second hook, which the generator would hold on to, and with it the loop, for good.
        sys.set_asyncgen_hooks(hooks.firstiter, None)
        try:
            begun = anext(looped.keeper)
        finally:
            sys.set_asyncgen_hooks(*hooks)
        await begun
        return looped

    def connections(self, pools: dict[Any, Connections], route: Route, url: str) -> Connections:
        """The pool for a URL, among those of the blocking world or of a loop."""
        proxy = proxy_of(route, url)
        trusted = route.verify, route.cert, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
        key = trusted, proxy, route.http2
        pool = pools.get(key)
        if pool is None:
            with self.lock:
                if trusted not in self.trust:
                    self.trust[trusted] = trust(*trusted)
                pool = pools.get(key)
                if pool is None:
                    http2: Any = "negotiated" if route.http2 is True else route.http2 or None
                    try:
                        pool = pools[key] = Connections(self.trust[trusted], proxy=proxy, http2=http2)
                    except NetworkError as error:
                        raise BadRequestError(error.args[0], param="proxy") from None
        return pool


STORES = (
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
)
"""Where systems other than macOS and Windows keep whom they trust. Small container images have none of these."""


def authorities(verify: Any, file: str | None, directory: str | None) -> list[str] | None:
    """The files and directories of those who are trusted; None for the system's own."""
    if not isinstance(verify, bool):
        return [os.fspath(verify)]
    if file or directory:
        return [path for path in (file, directory) if path]
    if sys.platform not in ("darwin", "win32") and not any(map(os.path.exists, STORES)):
        from certifi import where  # as httpx has it everywhere

        return [where()]
    return None


def identity(cert: Any) -> tuple[str, str] | None:
    """The files of the client's certificate and its key."""
    if cert is None:
        return None
    first, second = (cert, cert) if isinstance(cert, str | os.PathLike) else (cert[0], cert[1])
    return os.fspath(first), os.fspath(second)


def trust(verify: Any, cert: Any, file: str | None, directory: str | None) -> Trust:
    """Whom to trust: `verify` is a bool or the path of a bundle or a directory; `cert` a path, or certificate and key.

    Raises:
        BadRequestError: a file is not there or is not what it should be.
    """
    paths, checked = authorities(verify, file, directory), verify is not False
    try:
        trusting = Trust(paths, verify=checked)
    except (OSError, ValueError) as error:
        raise BadRequestError(
            f"verify: {verify if paths is None else paths[0]}: {_why(error)}", param="verify"
        ) from error
    if cert is None:
        return trusting
    try:
        return Trust(paths, verify=checked, cert=identity(cert))
    except (OSError, ValueError) as error:
        raise BadRequestError(f"cert: {_why(error)}", param="cert") from error


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


_pools = _Pools()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.forget)
