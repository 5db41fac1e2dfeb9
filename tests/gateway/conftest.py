"""What the proxy's tests share: databases of both kinds, a gateway that is none, and rows for it."""

import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.gateway.store import Store


class Postgres:
    """A private server in a folder of its own, on a socket that no other user finds."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.binaries, self.folder = binaries, folder
        # It refuses to run as root.
        self.user: str | None = None
        if os.geteuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            self.user = "postgres" if "postgres" in names else "nobody"
            shutil.chown(folder, self.user)
        self._run(
            "initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "penstock", "-E", "UTF8", "--locale=C", "-N"
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def _command(self, *command: str) -> list[str]:
        return [str(self.binaries / command[0]), *command[1:]]

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            self._command(*command), check=False, user=self.user, capture_output=True, text=True, cwd=self.folder
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        import psycopg

        settings = ("listen_addresses=", f"unix_socket_directories={self.folder}", "fsync=off", "max_connections=60")
        options = [word for setting in settings for word in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command("postgres", "-D", str(self.folder / "data"), *options),
                user=self.user,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url()).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.05)
            else:
                return

    def stop(self, how: int = signal.SIGQUIT) -> None:
        """Ends it at once, as a crash would."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None

    def url(self) -> str:
        return f"postgresql://penstock@/postgres?host={self.folder}"

    def make(self) -> str:
        """The URL of what is as good as a new database, and made in no time: a schema."""
        import psycopg

        name = f"test_{secrets.token_hex(6)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        return f"{self.url()}&options=-csearch_path%3D{name}"


def binaries() -> Path | None:
    """Where PostgreSQL's programs are."""
    found = [Path(place).parent for name in ("initdb", "postgres") if (place := shutil.which(name))]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in found if all((place / name).exists() for name in ("initdb", "postgres"))), None)


def started() -> Iterator[Postgres]:
    place = binaries()
    if place is None:
        pytest.skip("external: no PostgreSQL here (initdb and postgres, on PATH or in /usr/lib/postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="penstock-pg-"))
    server = None
    try:
        server = Postgres(place, folder)
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[Postgres]:
    """One server for all tests that do not stop it."""
    yield from started()


@pytest.fixture
def mortal_postgres() -> Iterator[Postgres]:
    """A server that a test may stop and start."""
    yield from started()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'penstock.db'}"
    server: Postgres = request.getfixturevalue("shared_postgres")
    return server.make()


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """An open store, on each kind of database."""
    store = Store(database)
    yield store
    store.close()


class Gateway:
    """What the native Gateway shows of itself here: rows to take, and keys."""

    def __init__(self) -> None:
        self.keys: dict[str, dict[str, Any]] = {}
        self.puts = 0
        self._rows: deque[bytes] = deque()
        self._some = threading.Condition()

    def settle(self, *rows: dict[str, Any]) -> None:
        """Requests have ended."""
        with self._some:
            self._rows.extend(json.dumps(row).encode() for row in rows)
            self._some.notify_all()

    def take_rows(self, most: int, seconds: float, /) -> list[bytes]:
        with self._some:
            self._some.wait_for(lambda: bool(self._rows), seconds)
            return [self._rows.popleft() for _ in range(min(most, len(self._rows)))]

    def put_keys(self, keys: bytes, /) -> None:
        self.puts += 1
        self.keys |= {key["id"]: key for key in json.loads(keys)}

    def drop_keys(self, ids: list[str], /) -> None:
        for each in ids:
            self.keys.pop(each, None)


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


def make_row(**parts: Any) -> dict[str, Any]:
    """A spend row as the gateway writes it."""
    row = {
        "id": f"req_{secrets.token_hex(16)}",
        "started": time.time(),
        "seconds": 1.25,
        "first_token": 0.25,
        "key": None,
        "route": "/v1/chat/completions",
        "group": "fast",
        "deployment": "fast-1",
        "provider": "openai",
        "model": "gpt-4o",
        "stream": True,
        "outcome": "complete",
        "status": 200,
        "error": None,
        "prompt_tokens": 19,
        "completion_tokens": 87,
        "total_tokens": 106,
        "cached_tokens": 8,
        "cache_write_tokens": None,
        "reasoning_tokens": 41,
        "usage_complete": True,
        "cost": 0.0009175,
        "chunks": 24,
        "attempts": [{"deployment": "fast-1", "status": 200, "error": None, "seconds": 1.2}],
        "user": None,
        "trace": None,
    }
    return {**row, **parts}


@pytest.fixture
def row() -> Callable[..., dict[str, Any]]:
    return make_row


def wait(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it has not become so"
        time.sleep(0.01)


@pytest.fixture
def until() -> Callable[..., None]:
    return wait
