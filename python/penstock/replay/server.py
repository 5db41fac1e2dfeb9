"""The local upstream: a loopback socket served by a daemon thread with its own event loop. Standard library only."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from .cases import FAMILIES
from .connection import Answer, Connection
from .family import Asked, Case, Family, Json, Problem, Recorded, RefusedError, dump
from .faults import HEADERS, PAGE, Body, Script, end, refusal, spoil
from .ledger import Exchange, Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")


class Upstream:
    """A running upstream on a port of its own, for a test or a tool.

        with Upstream() as upstream:
            completion(model="openai/hello", api_base=upstream.base_url, api_key="any", messages=...)

    Args:
        host: the address to listen on. Anyone who can reach it may use it: no key is checked.
        port: 0 lets the system choose.
        bodies: files to serve as recorded, under their names less the suffix.

    Raises:
        OSError: by `start`, if the port is taken; at once, if a file cannot be read.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, bodies: Iterable[str | Path] = ()) -> None:
        self.host = host
        self.recorded = {body.name: body for body in map(Recorded, map(Path, bodies))}
        self._port = port
        self._ledger = Ledger()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._serving = threading.Event()
        self._process = 0

    def start(self) -> Self:
        """Listens and returns; the socket accepts from here on. Starting twice is the same as once."""
        with self._lock:
            if self._thread is None:
                family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
                listening = socket.create_server((self.host, self._port), family=family, backlog=1024)
                self._port = listening.getsockname()[1]
                self._process = os.getpid()
                # Selector loop by name: the caller's policy may be one that does not belong in a thread.
                self._loop = asyncio.SelectorEventLoop()
                self._thread = threading.Thread(
                    target=self._run, args=(self._loop, listening), name="penstock-replay", daemon=True
                )
                self._thread.start()
                atexit.register(self.stop)
        return self

    def stop(self) -> None:
        """Closes every connection and the port. The statistics stay, and so does the number of the port."""
        # At the exit of a forked child the loop is a copy of the parent's, and not for it to stop.
        if self._process != os.getpid():
            return
        with self._lock:
            if self._loop is None or self._thread is None:
                return
            # A loop that is stopped while it still opens the server has nothing to run its clean-up on.
            self._serving.wait(5)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
            self._serving.clear()
            self._thread = self._loop = None
            atexit.unregister(self.stop)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def base_url(self) -> str:
        """What to give as api_base, for instance `http://127.0.0.1:40123/v1`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self._port}/v1"

    def names(self) -> list[str]:
        """The models it has: recorded bodies, then cases."""
        return list(dict.fromkeys([*self.recorded, *(name for family in FAMILIES.values() for name in family.cases)]))

    def stats(self) -> Json:
        """What the callers did, as GET /stats gives it.

        `connections`: opened, open. `models`: by name requests, chunks, bytes, closed_early. `requests`: the last
        thousand, oldest first, with the fields of `Exchange`.
        """
        return self._ask(self._ledger.snapshot)

    def reset(self) -> None:
        """Forgets the statistics, and how often `fail=` has failed."""
        self._ask(self._ledger.clear)

    def wait(self, until: Callable[[Json], bool], seconds: float = 5.0) -> Json:
        """The statistics, once `until` says yes to them: what a client did is known here a moment later.

        Raises:
            TimeoutError: it never did.
        """
        deadline = time.monotonic() + seconds
        while not until(stats := self.stats()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {seconds} s still: {json.dumps(stats, default=str)[:2000]}")
            time.sleep(0.005)
        return stats

    def _ask(self, question: Callable[[], T]) -> T:
        """Calls on the server's thread, so that nothing is seen half changed."""
        if self._loop is None:
            return question()

        async def ask() -> T:
            return question()

        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result(10)

    def _run(self, loop: asyncio.AbstractEventLoop, listening: socket.socket) -> None:
        server = loop.run_until_complete(
            loop.create_server(lambda: Connection(self._ledger, self._answer), sock=listening, backlog=1024)
        )
        self._serving.set()
        try:
            loop.run_forever()
        finally:
            server.close()
            loop.run_until_complete(self._hang_up())
            loop.close()

    async def _hang_up(self) -> None:
        connections: list[Connection] = list(self._ledger.open)
        for connection in connections:
            connection.task.cancel()
        await asyncio.gather(*(connection.task for connection in connections), return_exceptions=True)
        for connection in connections:
            connection.transport.abort()
        # Transports tell of their end in a callback, one turn later.
        await asyncio.sleep(0.001)

    # ---- what to answer

    def _answer(self, exchange: Exchange) -> tuple[Answer, Script]:
        """The answer to a request, and the script that it is to be written by."""
        path = exchange.path.partition("?")[0].rstrip("/")
        for family in FAMILIES.values():
            methods = ("POST",) if family.announce is None else ("POST", "GET")
            if exchange.method in methods and path.endswith(family.paths):
                return self._complete(family, path, exchange)
        if path.endswith("/models") and exchange.method == "GET":
            return _json(200, dump({"object": "list", "data": self._models_list()})), Script()
        if path.endswith("/stats") and exchange.method in ("GET", "DELETE"):
            if exchange.method == "DELETE":
                self._ledger.clear()
            return _json(200, dump(self._ledger.snapshot())), Script()
        return _json(404, dump({"error": {"message": f"Unknown request URL: {exchange.method} {path}"}})), Script()

    def _complete(self, family: Family, path: str, exchange: Exchange) -> tuple[Answer, Script]:
        def refuse(refused: Problem) -> tuple[Answer, Script]:
            return _json(refused.status, family.problem(refused)), Script()

        body = exchange.body if exchange.method == "POST" else {}
        if not isinstance(body, dict):
            return refuse(
                Problem(400, "invalid_request_error", None, "We could not parse the JSON body of your request.")
            )
        try:
            asked = family.read(path, body)
        except RefusedError as error:
            return refuse(error.problem)
        exchange.model, _, text = asked.model.partition("?")
        exchange.script = "&".join(filter(None, (text, exchange.headers.get("x-replay"))))
        name = exchange.model.removeprefix(family.name + "/")
        case: Case | None = self.recorded.get(name) or family.find(name)
        try:
            script = Script.read(exchange.script)
        except ValueError as error:
            return refuse(Problem(400, "invalid_request_error", "replay_script", f"replay: {error}"))
        if case is None:
            known = ", ".join([*self.recorded, *family.cases])
            message = f"The model '{exchange.model}' does not exist. Replay has: {known}."
            return refuse(Problem(404, "invalid_request_error", "model_not_found", message))
        if family.announce is not None and exchange.method == "POST":
            # What goes wrong does so at the second request.
            base_url = f"http://{exchange.headers.get('host', '')}/v1"
            return _json(201, family.announce(base_url, asked.model)), Script()
        if script.fail is not None:
            if not self._ledger.fails(exchange.model, exchange.script, script.fail):
                script = Script()
            elif replace(script, fail=None, tag=None) == Script():
                script = Script(status=500)
        return _scripted(family, case, asked, body, script), script

    def _models_list(self) -> list[Json]:
        rows: dict[str, str] = {}
        for family in FAMILIES.values():
            rows |= {name: case.about for name, case in family.cases.items()}
        rows |= {name: body.about for name, body in self.recorded.items()}
        return [
            {"id": name, "object": "model", "created": 1763800000, "owned_by": "replay", "description": about}
            for name, about in rows.items()
        ]


def _json(status: int, body: bytes) -> Answer:
    return Answer(status, {"content-type": "application/json"}, Body([body]), len(body))


def _scripted(family: Family, case: Case, asked: Asked, request: Json, script: Script) -> Answer:
    """The answer of a case under a script."""
    headers = {name: value for key, name in HEADERS.items() if (value := getattr(script, key)) is not None}
    if script.redirect is not None:
        return Answer(script.status or 307, {**headers, "location": script.redirect}, Body([]), 0)
    frames: list[bytes]
    status, content_type, keepalive = script.status or 200, "application/json", b""
    if script.html:
        content_type, frames = "text/html; charset=utf-8", [PAGE]
    elif failure := refusal(script, request):
        status, frames = failure.status, [family.problem(failure)]
    else:
        # With `rejects` the status is that of the refusal, and this request was not refused.
        status = status if script.rejects is None else 200
        if asked.stream and not script.json:
            frames = case.frames(asked=asked.usage, usage=not script.nousage, done=not script.nodone)
            frames = spoil(frames, script, family)
            content_type, keepalive = family.content_type, family.keepalive
        else:
            frames = [case.single(usage=not script.nousage)]
        if isinstance(case, Recorded):
            content_type = case.content_type
    headers["content-type"] = script.content_type or content_type
    body = end(frames, script, family)
    if script.gzip:
        headers["content-encoding"] = "gzip"
    plain = len(frames) == 1 and body == Body(frames) and not script.gzip
    return Answer(status, headers, body, len(frames[0]) if plain else None, keepalive)


# By process: a forked child finds its parent's here, never looks at it, and never drops it either.
_running: dict[int, Upstream] = {}


def upstream() -> Upstream:
    """The running upstream of this process, started at the first call. A forked child gets its own.

    Raises:
        OSError: no socket can be had.
    """
    return _running.setdefault(os.getpid(), Upstream()).start()
