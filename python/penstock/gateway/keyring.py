"""The keys that the gateway knows, kept as they are in the database.

Whoever changes keys, here or on another node, changes the database; the gateway hears of it by `sync` alone. What is
read is handed over under one lock, so an older state never replaces a newer one.
"""

from collections.abc import Mapping
from threading import Lock
from typing import Protocol

import orjson

from .store import Store


class KeyTable(Protocol):
    """The part of the native Gateway that knows keys."""

    def put_keys(self, keys: bytes, /) -> None:
        """Adds keys, or replaces them."""

    def drop_keys(self, ids: list[str], /) -> None:
        """Forgets keys."""


class Keyring:
    """Carries changes of keys from the store to the gateway. May be used from any thread."""

    def __init__(self, store: Store, gateway: KeyTable) -> None:
        self._store = store
        self._gateway = gateway
        self._lock = Lock()
        self._seen = 0
        self._owing = Lock()  # of its own: whoever takes rows must not wait for a database
        self._names: dict[str, str | None] = {}
        self._unwritten: dict[str, int] = {}

    def sync(self) -> int:
        """Hands over what has changed since the last time; at the first time everything. Gives how many keys.

        Raises:
            StoreDownError: the database does not answer. The gateway keeps what it knows.
        """
        with self._lock:
            found = self._store.changes(self._seen)
            dropped = [key for key in found.dropped if key in self._names]
            if found.whole:
                dropped = sorted(self._names.keys() - {key.id for key in found.keys})
            if found.keys:
                with self._owing:
                    rows = [key.row(self._unwritten.get(key.id, 0)) for key in found.keys]
                self._gateway.put_keys(orjson.dumps(rows))
            if dropped:
                self._gateway.drop_keys(dropped)
            self._names.update((key.id, key.name) for key in found.keys)
            for key in dropped:
                del self._names[key]
            self._seen = found.number
            return len(found.keys) + len(dropped)

    def name_of(self, id: str) -> str | None:
        """The name of a key, if it is known and has one."""
        return self._names.get(id)

    def owe(self, amounts: Mapping[str, int]) -> None:
        """Keys have spent what the database does not know yet; negative amounts: now it does."""
        with self._owing:
            for key, amount in amounts.items():
                left = self._unwritten.get(key, 0) + amount
                if left > 0:
                    self._unwritten[key] = left
                else:
                    self._unwritten.pop(key, None)
