"""What the proxy's tests share: databases of both kinds, a gateway that is none, and rows for it."""

import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.gateway.store import Store


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'penstock.db'}"
    url: str = request.getfixturevalue("shared_postgres").make()
    return url


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
        self._rows: deque[dict[str, Any] | str] = deque()
        self._some = threading.Condition()

    def settle(self, *rows: dict[str, Any] | str) -> None:
        """Requests have ended."""
        with self._some:
            self._rows.extend(rows)
            self._some.notify_all()

    def take_rows(self, most: int, seconds: float, /) -> list[dict[str, Any] | str]:
        with self._some:
            # Nobody closes this one, which would end the wait.
            self._some.wait_for(lambda: bool(self._rows), min(seconds, 0.1))
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
