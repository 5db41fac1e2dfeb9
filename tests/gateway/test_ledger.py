"""The ledger: rows get from the gateway into the database, each once, whatever happens to the database or to us."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from penstock.gateway import ledger as module
from penstock.gateway.keyring import Keyring
from penstock.gateway.keys import Key, hash_of, hint_of, make
from penstock.gateway.ledger import Ledger
from penstock.gateway.spill import Segment, Spill
from penstock.gateway.store import Store, StoreDownError

Row = Callable[..., dict[str, Any]]
Until = Callable[..., None]
Start = Callable[..., Ledger]


def add(store: Store, **parts: Any) -> Key:
    secret = make()
    return store.add_key(Key(**{"id": hash_of(secret), "hint": hint_of(secret), "created": time.time(), **parts}))


@pytest.fixture
def start(gateway: Any, tmp_path: Path) -> Iterator[Start]:
    """Starts ledgers, quick ones, that are closed at the end."""
    with contextlib.ExitStack() as closing:

        def started(store: Store, **options: Any) -> Ledger:
            options = {"spill": tmp_path / "spend.spill", "flush_seconds": 0.2, "poll_seconds": 0.1, **options}
            ledger = Ledger(store, options.pop("gateway", gateway), **options).start()
            closing.callback(ledger.close)
            return ledger

        yield started


class Broken(Store):
    """A store whose database can be taken away."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.down = False
        self.blocked = threading.Event()
        self.blocked.set()

    def write(self, rows: Any) -> int:
        self.blocked.wait(30)
        if self.down:
            raise StoreDownError("it is down")
        return super().write(rows)

    def changes(self, since: int) -> Any:
        if self.down:
            raise StoreDownError("it is down")
        return super().changes(since)

    def reset_budgets(self, now: float) -> int:
        if self.down:
            raise StoreDownError("it is down")
        return super().reset_budgets(now)


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Broken]:
    store = Broken(str(tmp_path / "penstock.db"))
    yield store
    store.close()


def spilled(tmp_path: Path) -> list[str]:
    """The ids in the files of the spill."""
    return [
        json.loads(line)["id"]
        for path in tmp_path.glob("spend.spill.*.jsonl")
        for line in path.read_text().splitlines()
    ]


def written(store: Store) -> list[str]:
    return sorted(row["id"] for row in store.logs(limit=100_000))


def ids(rows: Sequence[dict[str, Any]]) -> list[str]:
    return sorted(row["id"] for row in rows)


# ---- all is well


def test_rows_are_written_within_the_interval(store: Store, gateway: Any, start: Start, row: Row, until: Until) -> None:
    start(store)
    rows = [row() for _ in range(100)]
    gateway.settle(*rows)
    until(lambda: written(store) == ids(rows))
    assert store.spend("day")[0]["requests"] == 100


def test_an_orderly_end_loses_nothing(
    store: Store, gateway: Any, start: Start, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 50)
    ledger = start(store, flush_seconds=60)
    rows = [row() for _ in range(180)]
    gateway.settle(*rows)
    assert ledger.close()
    assert written(store) == ids(rows)


def test_rows_that_come_all_the_time_are_all_there(store: Store, gateway: Any, start: Start, row: Row) -> None:
    ledger = start(store)
    rows = [row() for _ in range(300)]
    for each in rows:
        gateway.settle(each)
        time.sleep(0.002)
    assert ledger.close()
    assert written(store) == ids(rows)
    assert ledger.written == 300


def test_a_cost_that_the_gateway_did_not_know_is_filled_in(
    store: Store, gateway: Any, start: Start, row: Row, until: Until
) -> None:
    key = add(store, budget=10**10)
    prices = {"openai/own": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}}
    start(store, prices=prices)
    gateway.settle(
        row(model="own", cost=None, key=key.id),
        row(model="nobody-knows", cost=None),
        row(model="own", cost=None, prompt_tokens=None, completion_tokens=None),
        row(model="own", cost=0.5),
    )
    until(lambda: len(store.logs()) == 4)
    until(lambda: gateway.keys.get(key.id, {}).get("spent") == pytest.approx(193e-6))
    costs = sorted(each["cost"] or 0.0 for each in store.logs())
    assert costs == [0.0, 0.0, pytest.approx(193e-6), 0.5]


def test_observers_see_each_row_once_and_may_fail(
    store: Store, gateway: Any, start: Start, row: Row, until: Until
) -> None:
    seen: list[str] = []

    class Watch:
        def observe(self, rows: Sequence[dict[str, Any]]) -> None:
            seen.extend(each["id"] for each in rows)

    class Fails:
        def observe(self, rows: Sequence[dict[str, Any]]) -> None:
            raise RuntimeError("no more paper")

    ledger = start(store, observers=[Fails(), Watch()])
    rows = [row() for _ in range(20)]
    for each in rows:
        gateway.settle(each)
        time.sleep(0.01)
    assert ledger.close()
    assert sorted(seen) == ids(rows) == written(store)


def test_what_is_no_row_is_put_aside_and_holds_up_nothing(
    store: Store, gateway: Any, start: Start, row: Row, until: Until, tmp_path: Path
) -> None:
    start(store)
    good = [row() for _ in range(3)]
    gateway.settle(good[0], row(id=None), good[1], row(started="yesterday"), good[2])
    until(lambda: written(store) == ids(good))
    until(lambda: len((tmp_path / "spend.spill.refused").read_text().splitlines()) == 2)


# ---- keys


def test_keys_are_handed_over_and_their_changes_too(store: Store, gateway: Any, start: Start, until: Until) -> None:
    first = add(store, name="first", rpm=5, budget=2_500_000_000, models=("fast",), expires=2e9)
    start(store)
    until(lambda: first.id in gateway.keys)
    assert gateway.keys[first.id] == {
        "id": first.id,
        "name": "first",
        "models": ["fast"],
        "rpm": 5,
        "tpm": None,
        "max_parallel": None,
        "budget": 2.5,
        "spent": 0.0,
        "period": None,
        "expires": 2e9,
        "blocked": False,
    }
    # Another node, or the command line.
    second = add(store)
    until(lambda: second.id in gateway.keys)
    store.update_key(first.id, {"blocked": True})
    until(lambda: gateway.keys[first.id]["blocked"])
    store.delete_keys([first.id])
    until(lambda: first.id not in gateway.keys)


def test_two_nodes_hear_what_a_key_has_spent_on_the_other(
    database: str, start: Start, row: Row, until: Until, tmp_path: Path, gateway: Any
) -> None:
    stores = [Store(database), Store(database)]
    other = type(gateway)()
    ledgers = [
        start(store, gateway=its, spill=tmp_path / f"spill-{id(its)}")
        for store, its in zip(stores, (gateway, other), strict=True)
    ]
    key = add(stores[0], budget=10_000_000_000)
    free = add(stores[0])
    until(lambda: all(key.id in its.keys and free.id in its.keys for its in (gateway, other)))
    gateway.settle(row(key=key.id, cost=1.5), row(key=free.id, cost=1.0))
    other.settle(row(key=key.id, cost=2.0))
    until(lambda: gateway.keys[key.id]["spent"] == other.keys[key.id]["spent"] == 3.5)
    # Without a budget nobody needs to know.
    assert gateway.keys[free.id]["spent"] == 0.0
    for ledger, store in zip(ledgers, stores, strict=True):
        ledger.close()
        store.close()


def test_a_period_that_ends_lets_the_key_go_on(
    store: Store, gateway: Any, start: Start, row: Row, until: Until
) -> None:
    key = add(store, budget=10**9, budget_period="1h", budget_reset=time.time() + 3600)
    start(store)
    gateway.settle(row(key=key.id, cost=1.0))
    until(lambda: gateway.keys.get(key.id, {}).get("spent") == 1.0)
    store.update_key(key.id, {"budget_reset": time.time() - 1})
    until(lambda: gateway.keys[key.id]["spent"] == 0.0)


def test_what_is_not_in_the_database_yet_was_spent_all_the_same(broken: Broken, gateway: Any, row: Row) -> None:
    key = add(broken, budget=10**10)
    keyring = Keyring(broken, gateway)
    keyring.owe({key.id: 250_000_000})
    assert keyring.sync() == 1
    assert gateway.keys[key.id]["spent"] == 0.25
    # It is told once, and when it has changed: also if nothing else has, and if the database is down.
    assert keyring.sync() == 0
    assert gateway.puts == 1
    broken.down = True
    keyring.owe({key.id: 250_000_000})
    with pytest.raises(StoreDownError):
        keyring.sync()
    assert gateway.keys[key.id]["spent"] == 0.5
    broken.down = False
    keyring.owe({key.id: -500_000_000})
    keyring.sync()
    assert gateway.keys[key.id]["spent"] == 0.0
    assert gateway.puts == 3


def test_an_older_copy_of_the_database_drops_the_keys_it_lacks(database: str, gateway: Any, tmp_path: Path) -> None:
    store = Store(database)
    kept = add(store)
    keyring = Keyring(store, gateway)
    keyring.sync()
    keyring._seen = 99
    keyring._keys["0" * 64] = kept
    gateway.keys["0" * 64] = {}
    assert keyring.sync() == 2
    assert set(gateway.keys) == {kept.id}
    store.close()


# ---- the database is away


def test_rows_are_on_the_disk_while_the_database_is_down(
    broken: Broken, gateway: Any, start: Start, row: Row, until: Until, tmp_path: Path
) -> None:
    ledger = start(broken)
    broken.down = True
    rows = [row() for _ in range(30)]
    for each in rows:
        gateway.settle(each)
        time.sleep(0.02)
    until(lambda: sorted(set(spilled(tmp_path))) == ids(rows))
    assert ledger.down
    assert written(broken) == []
    broken.down = False
    until(lambda: written(broken) == ids(rows))
    until(lambda: not list(tmp_path.glob("spend.spill.*")))
    assert not ledger.down


def test_a_database_that_hangs_keeps_no_row_from_the_disk(
    broken: Broken, gateway: Any, start: Start, row: Row, until: Until, tmp_path: Path
) -> None:
    key = add(broken, budget=10**10)
    ledger = start(broken)
    broken.blocked.clear()
    rows = [row(key=key.id, cost=0.5) for _ in range(5)]
    for each in rows:
        began = time.monotonic()
        gateway.settle(each)
        until(lambda each=each: each["id"] in spilled(tmp_path), 5)
        # Twice the interval of 0.2 s, and what the machine needs when others use it.
        assert time.monotonic() - began < 2.0
    broken.blocked.set()
    until(lambda: written(broken) == ids(rows))
    until(lambda: not spilled(tmp_path))
    until(lambda: gateway.keys[key.id]["spent"] == 2.5)
    assert ledger._keyring._owed == {}
    assert broken.spend("day")[0]["cost"] == 2_500_000_000


def test_at_the_end_a_database_that_is_down_is_not_waited_for(
    broken: Broken, gateway: Any, start: Start, row: Row, tmp_path: Path, until: Until
) -> None:
    ledger = start(broken, flush_seconds=60)
    until(lambda: not ledger.down)
    broken.down = True
    rows = [row() for _ in range(10)]
    gateway.settle(*rows)
    began = time.monotonic()
    assert not ledger.close()
    assert time.monotonic() - began < 5
    assert sorted(spilled(tmp_path)) == ids(rows)
    # The next start writes them.
    broken.down = False
    start(broken)
    until(lambda: written(broken) == ids(rows))
    until(lambda: not spilled(tmp_path))


def test_at_the_end_a_database_that_hangs_is_given_its_time_and_no_more(
    broken: Broken, gateway: Any, start: Start, row: Row, tmp_path: Path
) -> None:
    ledger = start(broken, flush_seconds=60)
    broken.blocked.clear()
    rows = [row() for _ in range(10)]
    gateway.settle(*rows)
    began = time.monotonic()
    assert not ledger.close(1.0)
    assert time.monotonic() - began < 4
    assert sorted(spilled(tmp_path)) == ids(rows)
    broken.blocked.set()


def test_without_database_and_disk_rows_stay_in_memory_up_to_a_bound(
    broken: Broken,
    gateway: Any,
    start: Start,
    row: Row,
    until: Until,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MEMORY", 20)
    monkeypatch.setattr(module, "MOST", 10)
    (tmp_path / "no-folder").write_text("")
    ledger = start(broken, spill=tmp_path / "no-folder" / "spill")
    broken.down = True
    rows = [row() for _ in range(50)]
    gateway.settle(*rows)
    until(lambda: sum(len(batch.rows) for batch in ledger._batches) == 20)
    time.sleep(0.5)
    assert len(gateway._rows) == 30
    broken.down = False
    until(lambda: written(broken) == ids(rows))


def test_a_server_that_is_killed_under_load_and_comes_back_has_every_row_once(
    mortal_postgres: Any, gateway: Any, start: Start, row: Row, tmp_path: Path
) -> None:
    store = Store(mortal_postgres.make())
    key = add(store, budget=10**12)
    ledger = start(store)
    rows = [row(key=key.id, cost=(number + 1) * 1e-9) for number in range(600)]
    for number, each in enumerate(rows):
        gateway.settle(each)
        if number in (100, 350):
            mortal_postgres.stop()
        if number in (200, 500):
            mortal_postgres.start()
        time.sleep(0.004)
    ledger.close(20)
    if spilled(tmp_path):
        start(store).close(20)
    assert written(store) == ids(rows)
    total = 600 * 601 // 2
    assert store.spend("key")[0]["cost"] == total
    found = store.find_key(key.id)
    assert found is not None
    assert found.spent == total
    assert not spilled(tmp_path)
    store.close()


# ---- killed

RUN = """
import json, sys, threading, time
sys.path.insert(0, sys.argv[3])
from conftest import Gateway, make_row
from penstock.gateway.ledger import Ledger
from penstock.gateway.store import Store

class Slow(Store):
    def write(self, rows):
        time.sleep(float(sys.argv[4]))
        return super().write(rows)

gateway = Gateway()
store = Slow(sys.argv[1])
ledger = Ledger(store, gateway, spill=sys.argv[2], flush_seconds=INTERVAL).start()
while True:
    row = make_row()
    gateway.settle(row)
    sys.stdout.write(f"{time.monotonic()} {row['id']}\\n")
    sys.stdout.flush()
    time.sleep(0.001)
"""


@pytest.mark.parametrize("slow", [0.0, 3.0], ids=["quick", "slow"])
def test_kill_9_loses_the_rows_of_one_interval_at_most(
    database: str, tmp_path: Path, gateway: Any, start: Start, until: Until, slow: float
) -> None:
    """Also where the database takes longer than the interval for what it is given."""
    interval = 1.0
    spill = tmp_path / "spend.spill"
    code = RUN.replace("INTERVAL", str(interval))
    command = [sys.executable, "-c", code, database, str(spill), str(Path(__file__).parent), str(slow)]
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=lines.extend, args=(process.stdout,))
        reader.start()
        until(lambda: len(lines) > 10, 60)
        time.sleep(random.uniform(3.0, 4.0))
        os.kill(process.pid, signal.SIGKILL)
        killed = time.monotonic()
        reader.join()
    settled = [(float(at), name) for at, name in map(str.split, lines) if name]
    store = Store(database)
    # The next process takes over what was spilled.
    assert start(store, gateway=type(gateway)()).close(30)
    there = set(written(store))
    lost = [at for at, name in settled if name not in there]
    assert len(settled) > len(lost)
    # Half a second for a machine that others use.
    assert all(at > killed - interval - 0.5 for at in lost), f"{killed - min(lost)} s"
    assert len(there) == sum(each["requests"] for each in store.spend("day"))
    store.close()


# ---- the files


def test_a_segment_of_a_process_that_lives_is_left_alone(tmp_path: Path, row: Row) -> None:
    mine, other = Spill(tmp_path / "spend.spill"), Spill(tmp_path / "spend.spill")
    mine.append([row()])
    assert other.adopt() == 0
    mine.close()
    assert other.adopt() == 1
    (segment,) = other.segments()
    assert not segment.own
    other.remove(segment)
    assert not list(tmp_path.iterdir())


def test_a_line_that_was_cut_is_no_row(tmp_path: Path, row: Row) -> None:
    whole = row()
    path = tmp_path / "spend.spill.1.jsonl"
    path.write_text(json.dumps(whole) + "\n[1]\n" + json.dumps(row())[:50])
    segment = Segment.left(path)
    assert segment is not None
    assert list(segment.rows()) == [whole]
    segment.remove()


def test_what_is_written_while_it_is_read_back_goes_to_another_segment(tmp_path: Path, row: Row) -> None:
    spill = Spill(tmp_path / "deep" / "spend.spill")
    assert not spill
    first, second = row(), row()
    spill.append([first])
    (segment,) = spill.segments()
    spill.append([second])
    assert list(segment.rows()) == [first]
    spill.remove(segment)
    assert [list(each.rows()) for each in spill.segments()] == [[second]]
    spill.close()


def test_nothing_secret_is_readable_by_others(tmp_path: Path, row: Row) -> None:
    spill = Spill(tmp_path / "spend.spill")
    spill.append([row()])
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o077 == 0
    spill.close()
