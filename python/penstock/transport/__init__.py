"""Where requests go: the engine of this package, or a client of httpx or httpx2. See `port` for what they share."""

import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from ..errors import BadRequestError
from . import clients
from .clients import blocking_client
from .port import Answer, Port, Request, Route, Scripted, failure, http2_of, media_type, request_id, run

__all__ = [
    "Answer",
    "AsyncHTTPTransport",
    "HTTPTransport",
    "Port",
    "Request",
    "Route",
    "Scripted",
    "async_port",
    "blocking_client",
    "blocking_port",
    "failure",
    "http2_of",
    "media_type",
    "request_id",
    "run",
]


PATHS = str, os.PathLike

if TYPE_CHECKING:
    from .mounts import AsyncHTTPTransport, HTTPTransport


def __getattr__(name: str) -> Any:
    if name in ("AsyncHTTPTransport", "HTTPTransport"):
        from . import mounts  # which imports httpx

        return getattr(mounts, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def blocking_port(client: Any, route: Route, transport: str | None = None) -> Port:
    """A port for `completion`: the caller's own client, or the engine, or the shared client.

    Raises:
        BadRequestError: the client is not a blocking one, or the engine was asked for what it cannot do.
    """
    if _engine(client, transport, route, None):
        port: Port = _native().NativePort(route)
        return port
    return clients.blocking_port(client, route)


async def async_port(client: Any, route: Route, transport: str | None = None) -> Port:
    """A port for `acompletion`: the caller's own client, or the engine, or the client of this event loop.

    Raises:
        BadRequestError: the client is not an asynchronous one, or the engine was asked for what it cannot do.
    """
    world = clients.World()
    if _engine(client, transport, route, world.loop):
        port: Port = _native().AsyncNativePort(route, world.loop)
        return port
    return await clients.async_port(client, route, world)


@cache
def _native() -> Any:
    """The engine's module, which imports asyncio."""
    from . import native

    return native


def _engine(client: Any, transport: str | None, route: Route, loop: Any) -> bool:
    """Whether the engine serves: where it can, unless another was chosen."""
    if client is not None or transport == "httpx":
        if client is not None and transport == "native":
            raise BadRequestError(
                "transport='native' has no use for a client: give one or the other", param="transport"
            )
        return False
    unable = _unable(route, loop)
    if unable and transport == "native":
        raise BadRequestError(f"transport='native' cannot serve {unable}: transport='httpx' can", param="transport")
    return unable is None


def _unable(route: Route, loop: Any) -> str | None:
    """What of this the engine cannot do."""
    if not (route.verify is True or isinstance(route.verify, (bool, *PATHS))):
        return f"verify={type(route.verify).__name__}: it takes paths"
    if not (route.cert is None or isinstance(route.cert, PATHS) or len(route.cert) == 2 or route.cert[2] is None):
        return "a client key with a password"
    if not (route.proxy is None or isinstance(route.proxy, str)):
        return f"proxy={type(route.proxy).__name__}: it takes URLs"
    if loop is not None and not hasattr(loop, "add_reader"):
        return "trio"
    if sys.platform == "win32" and hasattr(loop, "_proactor"):
        return "an event loop without readers: asyncio.SelectorEventLoop has them"
    return None
