# ruff: noqa: D102  the methods of answers and ports are documented on Answer and Port
"""The HTTP port over httpx and httpx2, blocking and asynchronous."""

import atexit
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from .._native import Decoder
from ..clocks import later
from ..errors import BadRequestError, Headers
from .port import PRIOR_KNOWLEDGE, Request, Route

T = TypeVar("T")

KEEPALIVE = {"max_connections": None, "max_keepalive_connections": 100, "keepalive_expiry": 30.0}
"""A stream holds its connection for as long as a model talks: a cap on connections would be a queue in disguise. Idle
ones are dropped before the 60 s after which common load balancers drop them without a word."""


_open: set[Any] = set()
"""Answers that are not closed, so that none is ever garbage.

httpx reads through generators that close their connection when they end. The garbage collector would end them in
whatever thread and place it comes: there, a lock of the connection pool may be held that they wait for.
"""


class _Response:
    """What both kinds of httpx answer have in common."""

    def __init__(self, response: Any) -> None:
        _open.add(self)
        self.response = response
        self.status_code: int = response.status_code
        self.headers = Headers.of(response.headers.multi_items())
        extensions = response.extensions
        stream = extensions.get("network_stream")
        # An HTTP/2 connection carries other responses too.
        alone = stream is not None and extensions.get("http_version") != b"HTTP/2"
        self.line = stream.get_extra_info("socket") if alone else None


class BlockingAnswer(_Response):
    """An answer of httpx.Client."""

    def __init__(self, response: Any) -> None:
        super().__init__(response)
        self.thread = threading.current_thread()
        # The stream itself is what iter_raw() reads, less three calls per read.
        self.source: Iterator[bytes] = (
            response.iter_bytes() if "content-encoding" in self.headers else iter(response.stream)
        )

    async def read(self) -> bytes | None:
        return next(self.source, None)

    def chunks(self, decoder: Decoder) -> Callable[[], Any]:
        pull, feed = self.source.__next__, decoder.feed

        def chunks() -> Any:
            try:
                data = pull()
            except StopIteration:
                return None
            return feed(data)

        return chunks

    async def close(self) -> None:
        self._close()

    def abandon(self) -> None:
        # Not here: the garbage collector may have come while this thread holds the lock of the connection pool.
        later(self._close)

    def _close(self) -> None:
        try:
            self.response.close()
            if hasattr(self.source, "close"):
                with suppress(ValueError):  # another thread is inside; it finds the connection closed
                    self.source.close()
        finally:
            _open.discard(self)


def _leave() -> None:
    """Closes what is open while the modules that do it are still there: a little later the collector would try.

    What daemon threads read is left to them. They stop with the interpreter, wherever they are, and let nothing go.
    """
    here = threading.current_thread()
    for answer in list(_open):
        if isinstance(answer, BlockingAnswer) and (answer.thread is here or not answer.thread.is_alive()):
            with suppress(Exception):
                answer._close()  # noqa: SLF001  the same module


atexit.register(_leave)


class AsyncAnswer(_Response):
    """An answer of httpx.AsyncClient."""

    def __init__(self, response: Any, world: "World") -> None:
        super().__init__(response)
        self.world = world
        encoded = "content-encoding" in self.headers
        self.source: AsyncIterator[bytes] = response.aiter_bytes() if encoded else aiter(response.stream)

    async def read(self) -> bytes | None:
        return await anext(self.source, None)

    def chunks(self, decoder: Decoder) -> Callable[[], Any]:
        pull, feed = self.source.__anext__, decoder.feed

        async def chunks() -> Any:
            try:
                data = await pull()
            except StopAsyncIteration:
                return None
            return feed(data)

        return chunks

    async def close(self) -> None:
        try:
            await self.response.aclose()
            if self.line is not None:
                # httpx reads through six asynchronous generators, one inside the other. Dropped half-way they would
                # each be closed by a task of the event loop, and trio warns of it. A read that finds the connection
                # closed ends them all, here and now.
                with suppress(Exception):
                    async for _ in self.source:
                        pass
        finally:
            _open.discard(self)

    def abandon(self) -> None:
        try:
            self.world.later(self.close)
        except Exception:  # noqa: BLE001  the loop has ended, and its connections with it
            _open.discard(self)


class BlockingPort:
    """Requests by an httpx.Client or httpx2.Client."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def send(self, request: Request, limits: dict[str, float | None]) -> BlockingAnswer:
        built = _build(self.client, request, limits)
        return BlockingAnswer(self.client.send(built, stream=True, follow_redirects=False))

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  no event loop runs this

    async def aside(self, work: Callable[[], T]) -> T:
        return work()


class AsyncPort:
    """Requests by an httpx.AsyncClient or httpx2.AsyncClient."""

    def __init__(self, client: Any, world: "World") -> None:
        self.client = client
        self.world = world

    async def send(self, request: Request, limits: dict[str, float | None]) -> AsyncAnswer:
        built = _build(self.client, request, limits)
        try:
            return AsyncAnswer(await self.client.send(built, stream=True, follow_redirects=False), self.world)
        except Exception:
            raise
        except BaseException:
            for connection in _forsaken(self.client):
                self.world.later(connection.aclose)
            raise

    async def sleep(self, seconds: float) -> None:
        await self.world.sleep(seconds)

    async def aside(self, work: Callable[[], T]) -> T:
        result: T = await self.world.aside(work)
        return result


def _forsaken(client: Any) -> Iterator[Any]:
    """The connections that stand, that no request was sent on, and that none ever will be.

    httpcore 1.0 keeps one for ever whose request is cancelled just then: neither idle nor closed, it is nobody's.
    """
    for transport in {getattr(client, "_transport", None), *getattr(client, "_mounts", {}).values()}:
        pool = getattr(transport, "_pool", None)
        used = [request.connection for request in getattr(pool, "_requests", ())]
        for connection in getattr(pool, "connections", ()):
            if connection not in used and ", NEW," in repr(connection):
                yield connection


def _build(client: Any, request: Request, limits: dict[str, float | None]) -> Any:
    return client.build_request(
        request.method,
        request.url,
        headers=request.headers,
        content=request.content,
        extensions={"timeout": limits},
    )


class World:
    """The event loop that runs this code: asyncio's or trio's."""

    def __init__(self) -> None:
        import asyncio

        self.loop: Any
        self.sleep: Any
        self.aside: Any
        try:
            self.loop = asyncio.get_running_loop()
        except RuntimeError:
            import trio

            self.loop = trio.lowlevel.current_trio_token()
            self.sleep, self.aside = trio.sleep, trio.to_thread.run_sync
        else:
            self.sleep, self.aside = asyncio.sleep, asyncio.to_thread

    def later(self, close: Any) -> None:
        """Has the loop close something, from any thread, and from where nothing can be awaited.

        Raises:
            RuntimeError: the loop has ended.
        """
        if hasattr(self.loop, "create_task"):
            self.loop.call_soon_threadsafe(lambda: _closing(self.loop, close))
        else:
            trio = sys.modules["trio"]
            self.loop.run_sync_soon(lambda: trio.lowlevel.spawn_system_task(_closed, close))


_closings: set[Any] = set()
"""Tasks that close something: the loop itself holds its tasks only weakly."""


def _closing(loop: Any, close: Any) -> None:
    task = loop.create_task(_closed(close))
    _closings.add(task)
    task.add_done_callback(_closings.discard)


async def _closed(close: Any) -> None:
    """Closes what nobody is left to hear an error about."""
    with suppress(Exception):
        await close()


class _Pools:
    """The clients of this process: one per route, and for asynchronous calls one per event loop and route."""

    def __init__(self) -> None:
        self.forgotten: list[Any] = []
        self.begin()

    def begin(self) -> None:
        self.lock = threading.Lock()
        self.blocking: dict[Route, Any] = {}
        self.looped: WeakKeyDictionary[Any, dict[Route, tuple[Any, AsyncIterator[None]]]] = WeakKeyDictionary()
        self.trust: dict[tuple[Any, Any], Any] = {}

    def forget(self) -> None:
        """In a forked child: the connections are the parent's. They are set aside and never closed.

        A TLS connection that is closed says goodbye to the server, in the middle of what the parent is reading.
        """
        self.forgotten.append((self.blocking, self.looped, set(_open)))
        _open.clear()
        self.begin()

    def client(self, route: Route) -> Any:
        client = self.blocking.get(route)
        if client is None:
            with self.lock:
                client = self.blocking.get(route)
                if client is None:
                    client = self.blocking[route] = _httpx().Client(**self.options(route))
        return client

    async def async_client(self, route: Route, world: World) -> Any:
        clients = self.looped.get(world.loop)
        if clients is None:
            with self.lock:
                # Connections refer to their loop, so that no dead loop would leave a weak dictionary by itself.
                for loop in [loop for loop in self.looped if getattr(loop, "is_closed", bool)()]:
                    del self.looped[loop]
                clients = self.looped.setdefault(world.loop, {})
        if route not in clients:
            with self.lock:
                client = _httpx().AsyncClient(**self.options(route))
            keeper = self.keep(world.loop, client)
            clients[route] = client, keeper
            await anext(keeper)
        return clients[route][0]

    async def keep(self, loop: Any, client: Any) -> AsyncIterator[None]:
        """Closes a client when its event loop ends, while there is still a loop to do it in.

        Loops close the asynchronous generators that are open then, and this is one of them.
        """
        try:
            yield
        finally:
            self.looped.pop(loop, None)
            await _closed(client.aclose)

    def options(self, route: Route) -> dict[str, Any]:
        """Arguments of a client. The trust store takes 20 ms to load, so clients of one trust share it.

        Raises:
            BadRequestError: something that these arguments name is not there.
        """
        from http.cookiejar import CookieJar, DefaultCookiePolicy
        from importlib.util import find_spec

        if route.http2 and find_spec("h2") is None:
            raise BadRequestError("http2: httpx speaks HTTP/2 with the package h2: httpx[http2]", param="http2")

        httpx = _httpx()
        trusted = route.verify, route.cert
        if trusted not in self.trust:
            self.trust[trusted] = _trust(*trusted)
        return {
            "verify": self.trust[trusted],
            "proxy": route.proxy,
            "limits": httpx.Limits(**KEEPALIVE),
            "http2": bool(route.http2),
            # Without TLS that is how httpx is told that the server is known to speak it.
            "http1": route.http2 != PRIOR_KNOWLEDGE,
            # Callers with different keys share this client: no cookie of one may travel with another's request.
            "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=())),
        }


def _trust(verify: Any, cert: Any) -> Any:
    """The SSLContext for these arguments. Made here, for httpx takes paths only with a warning.

    `verify` is an SSLContext, a bool, or the path of a bundle or a directory; `cert` a path, or certificate, key and
    password.

    Raises:
        BadRequestError: a file is not there or is not what it should be.
    """
    import ssl

    context = verify
    try:
        if isinstance(verify, bool):
            context = _httpx().create_ssl_context(verify=verify)
        elif isinstance(verify, str | os.PathLike):
            path = Path(verify)
            where = (None, path) if path.is_dir() else (path, None)
            context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=where[0], capath=where[1])
    except OSError as error:
        raise BadRequestError(f"verify: {verify}: {error.strerror or error}", param="verify") from error
    if cert is not None:
        try:
            context.load_cert_chain(*((cert,) if isinstance(cert, str | os.PathLike) else cert))
        except OSError as error:
            raise BadRequestError(f"cert: {error.strerror or error}", param="cert") from error
    return context


_pools = _Pools()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.forget)


def _httpx() -> ModuleType:
    import httpx

    return httpx


def blocking_port(client: Any, route: Route) -> BlockingPort:
    """A port for `completion`: the caller's own client, or the shared one.

    Raises:
        BadRequestError: the client is not a blocking one.
    """
    if client is not None:
        _check(client, asynchronous=False)
    return BlockingPort(client or _pools.client(route))


def blocking_client(route: Route) -> Any:
    """The shared httpx.Client of a route, for what is not one of the port's requests."""
    return _pools.client(route)


async def async_port(client: Any, route: Route, world: World) -> AsyncPort:
    """A port for `acompletion`: the caller's own client, or the one of this event loop.

    Raises:
        BadRequestError: the client is not an asynchronous one.
    """
    if client is not None:
        _check(client, asynchronous=True)
    return AsyncPort(client or await _pools.async_client(route, world), world)


def _check(client: Any, *, asynchronous: bool) -> None:
    wanted = "AsyncClient" if asynchronous else "Client"
    if not (hasattr(client, "build_request") and hasattr(client, "send")) or hasattr(client, "aclose") != asynchronous:
        raise BadRequestError(
            f"client must be an httpx or httpx2 {wanted}, not {type(client).__name__}", param="client"
        )
