"""The keys that the gateway knows, kept as they are in the database.

Whoever changes keys, here or on another node, changes the database; the gateway hears of it by `sync` alone. What is
read is handed over under one lock, so an older state never replaces a newer one.
"""

from collections.abc import Mapping
from math import inf
from threading import Lock
from typing import Protocol

import orjson

from .keys import Key
from .store import Store, StoreDownError


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
        self._keys: dict[str, Key] = {}
        self._owing = Lock()  # of its own: whoever takes rows must not wait for a database
        self._owed: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self.ends = inf
        """Unix seconds: when the first period of a budget ends."""

    def sync(self) -> int:
        """Hands over what has changed since the last time; at the first time everything. Gives how many keys.

        Raises:
            StoreDownError: the database does not answer. The gateway keeps what it knows.
        """
        with self._lock:
            try:
                found = self._store.changes(self._seen)
            except StoreDownError:
                self._put({})
                raise
            gone = [key for key in found.dropped if key in self._keys]
            if found.whole:
                gone = sorted(self._keys.keys() - {key.id for key in found.keys})
            self._put({key.id: key for key in found.keys})
            if gone:
                self._gateway.drop_keys(gone)
            for key in gone:
                del self._keys[key]
            if found.keys or gone:
                ends = (key.budget_reset for key in self._keys.values() if key.budget_reset is not None)
                self.ends = min(ends, default=inf)
            self._seen = found.number
            return len(found.keys) + len(gone)

    def _put(self, changed: Mapping[str, Key]) -> None:
        """Hands over keys that were changed, and those of which something else is owed than the gateway was told."""
        with self._owing:
            owed = dict(self._owed)
        keys = dict(changed)
        for name in owed.keys() | self._told.keys():
            key = self._keys.get(name)
            # What a key without a budget has spent is nothing to the gateway.
            if key is not None and key.budget is not None and owed.get(name) != self._told.get(name):
                keys.setdefault(name, key)
        if keys:
            self._gateway.put_keys(orjson.dumps([key.row(owed.get(key.id, 0)) for key in keys.values()]))
        self._keys.update(changed)
        self._told = owed

    def name_of(self, id: str) -> str | None:
        """The name of a key, if it is known and has one."""
        key = self._keys.get(id)
        return None if key is None else key.name

    def owe(self, amounts: Mapping[str, int]) -> None:
        """Keys have spent what the database does not know yet; negative amounts: now it does."""
        with self._owing:
            for key, amount in amounts.items():
                left = self._owed.get(key, 0) + amount
                if left > 0:
                    self._owed[key] = left
                else:
                    self._owed.pop(key, None)
