"""The ledger: takes spend rows from the gateway and sees to it that each is in the database, once.

A row is on the disk `flush_seconds` after its request ended, whatever the database does: half of that it waits for
others to be written with, and if the database has not taken it in the other half, it goes into the spill (see `spill`).
What is spilled is written when the database answers again, or by the next process. So `kill -9` loses the rows of one
interval at most, and an orderly end none.

Two threads: one takes rows and never waits for the database, the other one writes and looks after the keys. Rows are in
memory for one interval. Longer only where the local disk fails as well as the database: then up to `MEMORY` rows are,
and beyond that no more are taken: they wait in the gateway.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, Self

import orjson

from ..cost import completion_cost
from ..errors import BadRequestError
from ..log import Seldom
from .keyring import Keyring, KeyTable
from .observe import usage_of
from .spill import Segment, Spill
from .store import BAD, Store, StoreDownError, fit, spent_of

MOST = 5_000
"""Rows in one transaction."""

MEMORY = 100_000
"""Rows that are kept in memory when they can be written nowhere: some 100 MB."""

IDLE = 5.0
"""Seconds to wait for a row. A gateway that is closed has none to wait for, and says so at once."""

RETRY = 1.0
"""Seconds after which a database that did not answer is asked again."""

PRUNE = 3600.0
"""Seconds between two looks for requests that are old enough to be forgotten."""

FORGET = 300.0
"""Seconds after which the price of a model that had none is asked for again."""

log = logging.getLogger("penstock.gateway")


class Settled(KeyTable, Protocol):
    """The part of the native Gateway that has rows to take."""

    def take_rows(self, most: int, seconds: float, /) -> Sequence[Mapping[str, Any] | str]:
        """Rows, as soon as there is one; among them lines for the log."""


class Observer(Protocol):
    """Somebody who wants to see every row, once: the access log, the spans."""

    def observe(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows of requests that have just ended."""


@dataclass(slots=True, eq=False)
class Batch:
    """Rows on their way. amounts: what keys spent with them. spilled: they are on the local disk too."""

    rows: list[Mapping[str, Any]]
    amounts: dict[str, int]
    at: float = field(default_factory=time.monotonic)
    spilled: bool = False


class Ledger:
    """Rows of one gateway, into one store.

    Args:
        store, gateway: where rows go, and where they come from.
        spill: what the names of the files begin with that hold rows while the database is away. A path of this node's
            own, that stays when the process ends: beside the file of SQLite, say.
        keyring: carries what keys have spent back to the gateway; the one that `Admin` has.
        observers: are shown each row, with its cost.
        flush_seconds: see above. poll_seconds: between two looks for keys that other nodes have changed.
        retention_days: after which requests are deleted. None: never. The sums of days stay.
        prices: as `completion_cost` takes them, for rows that come without a cost.
    """

    def __init__(
        self,
        store: Store,
        gateway: Settled,
        *,
        spill: str | Path,
        keyring: Keyring | None = None,
        observers: Iterable[Observer] = (),
        flush_seconds: float = 1.0,
        poll_seconds: float = 2.0,
        retention_days: float | None = None,
        prices: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.spill = Spill(spill)
        self.written = 0
        self._store = store
        self._gateway = gateway
        self._keyring = keyring or Keyring(store, gateway)
        self._observers = list(observers)
        self._prices = Prices(prices)
        self._tick = flush_seconds / 2
        self._poll = poll_seconds
        self._retention = retention_days
        self._batches: deque[Batch] = deque()
        self._turn = threading.Condition()
        self._closing = threading.Event()
        self._taken = False  # all, at the end
        self._retry = 0.0
        self._complains = Seldom()
        self._look = 0.0
        self._prune = 0.0
        self._reading: _Reading | None = None
        self._deadline = float("inf")
        self._threads = [
            threading.Thread(target=self._take, name="penstock-ledger", daemon=True),
            threading.Thread(target=self._write, name="penstock-ledger-writer", daemon=True),
        ]

    @property
    def down(self) -> bool:
        """Whether the database did not answer when it was last asked."""
        return self._retry > 0

    def start(self) -> Self:
        """Takes over what an earlier process left, and begins."""
        left = self.spill.adopt()
        if left:
            log.warning("%d files of spend rows that an earlier process could not write are written now", left)
        for thread in self._threads:
            thread.start()
        return self

    def close(self, seconds: float = 10.0) -> bool:
        """Takes and writes what is left, in so many seconds. Gives whether the database has all; else it is spilled."""
        self._deadline = time.monotonic() + seconds
        self._closing.set()
        with self._turn:
            self._turn.notify_all()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(self._deadline - time.monotonic(), 0.0))
        with self._turn:
            self._spill(self._batches)
            lost = sum(len(batch.rows) for batch in self._batches if not batch.spilled)
        if lost:
            log.critical("%d spend rows are lost: neither the database nor the disk took them", lost)
        complete = not self.spill and not lost
        if not complete:
            log.warning("spend rows are left in %s.*: the next start writes them", self.spill.path)
        self.spill.close()
        return complete

    # ---- the thread that takes

    def _take(self) -> None:
        while not self._closing.is_set():
            try:
                self._accept(self._gather())
            except Exception:
                log.exception("the ledger could not take rows")
                self._closing.wait(self._tick)
        try:
            while rows := self._gateway.take_rows(MOST, 0.0):
                self._accept(rows)
        except Exception:
            log.exception("the ledger could not take the last rows")
        with self._turn:
            self._taken = True
            self._turn.notify_all()

    def _gather(self) -> list[Mapping[str, Any] | str]:
        """Rows that ended within half an interval."""
        begin = time.monotonic()
        with self._turn:
            full = sum(len(batch.rows) for batch in self._batches) >= MEMORY
        if full:
            self._closing.wait(self._tick)
            self._rescue()
            return []
        rows = list(self._gateway.take_rows(MOST, self._patience(IDLE)))
        self._rescue()
        if not rows:
            # One that is closed answers at once.
            self._closing.wait(max(min(0.05, self._tick) - (time.monotonic() - begin), 0.0))
            return rows
        end = time.monotonic() + self._tick
        while len(rows) < MOST and (left := end - time.monotonic()) > 0 and not self._closing.is_set():
            self._closing.wait(self._patience(left))
            self._rescue()
        if len(rows) < MOST:
            rows += self._gateway.take_rows(MOST - len(rows), 0.0)
        return rows

    def _patience(self, most: float) -> float:
        """Seconds to wait at most: until the oldest rows that are nowhere yet are due."""
        with self._turn:
            due = [batch.at for batch in self._batches if not batch.spilled]
        # Where nothing can be spilled it is tried again, but not all the time.
        return min(most, max(due[0] + self._tick - time.monotonic(), self._tick / 10)) if due else most

    def _rescue(self) -> None:
        """What the database did not take in time goes to the disk."""
        late = time.monotonic() - self._tick
        with self._turn:
            self._spill(batch for batch in self._batches if batch.at <= late)

    def _spill(self, batches: Iterable[Batch]) -> None:
        """Writes batches to the local disk. To be called with `_turn`."""
        for batch in batches:
            if batch.spilled:
                continue
            try:
                self.spill.append(batch.rows)
                batch.spilled = True
            except OSError as error:
                if self._complains.due():
                    log.error("%s: %s. Spend rows are kept in memory", self.spill.path, error.strerror)  # noqa: TRY400  the message is all
                return

    def _accept(self, taken: Iterable[Mapping[str, Any] | str]) -> None:
        rows: list[Mapping[str, Any]] = []
        for row in taken:
            if isinstance(row, str):
                # The native module has no log of its own.
                log.warning("%s", row)
            elif spent_of(row)[1] is None and row["cost"] is None and (cost := self._prices.cost(row)) is not None:
                rows.append({**row, "cost": cost})
            else:
                rows.append(row)
        if not rows:
            return
        amounts = _amounts(rows)
        self._keyring.owe(amounts)
        with self._turn:
            self._batches.append(Batch(rows, amounts))
            self._turn.notify_all()
        for observer in self._observers:
            try:
                observer.observe(rows)
            except Exception:
                log.exception("%s failed", type(observer).__name__)

    # ---- the thread that writes

    def _write(self) -> None:
        while True:
            try:
                if not self._work():
                    return
            except Exception:
                log.exception("the ledger could not write")
                time.sleep(RETRY)

    def _work(self) -> bool:
        """One thing that is to be done. Gives whether there will be others."""
        now = time.monotonic()
        answers = now >= self._retry
        with self._turn:
            if not answers:
                self._spill(self._batches)
            # What is on the disk is read back from there.
            while self._batches and self._batches[0].spilled:
                self._batches.popleft()
            batch = self._batches[0] if self._batches else None
        if answers and batch is not None:
            self._flush(batch)
        elif answers and now >= self._look:
            self._look_after(now)
        elif answers and self.spill:
            self._restore()
        elif self._taken and (batch is None or now >= self._deadline):
            return False
        else:
            until = min(self._look, self._deadline) if answers else self._retry
            with self._turn:
                # A batch that could not be spilled is no reason to go on: time is.
                self._turn.wait_for(lambda: self._changed(batch), max(until - now, 0.001))
        # At the end a database that is away is not waited for.
        return not (self._taken and time.monotonic() >= self._deadline)

    def _changed(self, last: Batch | None) -> bool:
        first = self._batches[0] if self._batches else None
        return first is not last or (self._taken and last is None)

    def _flush(self, batch: Batch) -> None:
        if not self._store_rows(batch.rows):
            with self._turn:
                self._spill([batch])
            return
        with self._turn:
            # If it was spilled meanwhile, it is also there, and owed until it was read from there.
            if not batch.spilled:
                self._keyring.owe({key: -amount for key, amount in batch.amounts.items()})
            self._batches.remove(batch)
        self._answers(self._keyring.sync)

    def _restore(self) -> None:
        """Writes a part of what was spilled."""
        if self._reading is None:
            segment = self.spill.segments()[0]
            self._reading = _Reading(segment, segment.rows())
        rows = list(islice(self._reading.rows, MOST))
        if not rows:
            segment = self._reading.segment
            if segment.own:
                self._keyring.owe({key: -amount for key, amount in self._reading.amounts.items()})
            self.spill.remove(segment)
            self._reading = None
            self._answers(self._keyring.sync)
        elif self._store_rows(rows):
            for key, amount in _amounts(rows).items():
                self._reading.amounts[key] = self._reading.amounts.get(key, 0) + amount
        else:
            self._reading = None

    def _store_rows(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the rows are in the database, or can never be."""

        def write() -> None:
            try:
                self.written += self._store.write(rows)
            except BAD:
                for row in rows:
                    self.written += self._one(row)

        return self._answers(write)

    def _one(self, row: Mapping[str, Any]) -> int:
        """Writes one row, made to fit, or puts it aside: it must not hold up the others."""
        try:
            return self._store.write([fit(row)])
        except BAD as error:
            aside = Path(f"{self.spill.path}.refused")
            log.error("the database refuses the spend row %.40s, which is now in %s: %s", row.get("id"), aside, error)  # noqa: TRY400
            with suppress(OSError), aside.open("ab") as file:
                file.write(orjson.dumps(row, default=dict) + b"\n")
            return 0

    def _look_after(self, now: float) -> None:
        """What is to be done now and then: keys that others changed, periods that ended, requests that are old."""
        self._look = now + self._poll

        def look() -> None:
            self._keyring.sync()
            at = time.time()
            if at >= self._keyring.ends and self._store.reset_budgets(at):
                self._keyring.sync()
            if self._retention is not None and now >= self._prune:
                gone = self._store.prune(time.time() - self._retention * 86400)
                # Many are taken away in several goes, and rows are written between them.
                self._prune = now + (PRUNE if not gone else 0.0)

        self._answers(look)

    def _answers(self, ask: "Any") -> bool:
        """Does what asks the database. Gives whether it answered."""
        try:
            ask()
        except StoreDownError as error:
            if not self.down:
                log.error("%s. Spend rows go to %s.* until it answers", error, self.spill.path)  # noqa: TRY400
            self._retry = time.monotonic() + RETRY
            return False
        if self.down:
            log.warning("%s answers again", self._store.shown)
            self._retry = 0.0
        return True


@dataclass(slots=True)
class _Reading:
    """A segment that is being written to the database. amounts: what its keys have spent, so far as it was read."""

    segment: Segment
    rows: Iterator[dict[str, Any]]
    amounts: dict[str, int] = field(default_factory=dict)


def _amounts(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """What each key spent, in nano-dollars."""
    amounts: dict[str, int] = {}
    for row in rows:
        key, cost = spent_of(row)
        if key and cost:
            amounts[key] = amounts.get(key, 0) + cost
    return amounts


class Prices:
    """The cost of rows that came without one: the gateway knows only prices that are the same for every prompt."""

    def __init__(self, table: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._table = table
        self._unknown: dict[str, float] = {}

    def cost(self, row: Mapping[str, Any]) -> float | None:
        """US dollars, or None: nobody knows the price, or the tokens."""
        prompt, completion = row.get("prompt_tokens"), row.get("completion_tokens")
        if not row.get("model") or (prompt is None and completion is None):
            return None
        model = f"{row['provider']}/{row['model']}" if row.get("provider") else row["model"]
        now = time.monotonic()
        if self._unknown.get(model, 0.0) > now:
            return None
        try:
            at = datetime.fromtimestamp(row["started"], UTC)
            return float(completion_cost(model=model, usage=usage_of(row), prices=self._table, at=at))
        except Exception as error:  # noqa: BLE001  a row without a price is still a row
            if not isinstance(error, BadRequestError):
                log.warning("the price of %s: %s", model, error)
            if len(self._unknown) > 1000:
                self._unknown.clear()
            self._unknown[model] = now + FORGET
            return None
