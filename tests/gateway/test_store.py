"""The database: each request once, sums that are equal, a schema that grows, and several nodes at once."""

import csv
import io
import json
import random
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.errors import BadRequestError, NotFoundError
from penstock.gateway import migrations
from penstock.gateway.keys import Key, hash_of, hint_of, later, make
from penstock.gateway.store import Store, StoreDownError, StoreError, check, fit
from penstock.gateway.tables import SUMS, VERSION, VERSION_TABLE, metadata

Row = Callable[..., dict[str, Any]]


def add(store: Store, **parts: Any) -> Key:
    secret = make()
    return store.add_key(Key(**{"id": hash_of(secret), "hint": hint_of(secret), "created": time.time(), **parts}))


def costs(store: Store) -> tuple[int, int, int]:
    """What was spent, three times: by the requests, by the days, by the keys."""
    with store._begin() as connection:
        found = [
            connection.execute(sa.text(f"SELECT coalesce(sum({column}), 0) FROM {table}")).scalar_one()
            for column, table in (("cost", "penstock_requests"), ("cost", "penstock_daily"), ("spent", "penstock_keys"))
        ]
    return int(found[0]), int(found[1]), int(found[2])


# ---- writing


def test_a_row_comes_back_as_it_was(store: Store, row: Row) -> None:
    written = row(user="u-1", trace="00-" + "1" * 32 + "-" + "2" * 16 + "-01", key="a" * 64)
    assert store.write([written]) == 1
    assert store.logs() == [written]


def test_a_request_is_written_once(store: Store, row: Row) -> None:
    first, second = row(), row()
    assert store.write([first, first]) == 1
    assert store.write([first, second]) == 1
    assert store.write([second, first]) == 0
    assert len(store.logs()) == 2
    assert store.spend("day")[0]["requests"] == 2


def test_nothing_is_written_of_nothing(store: Store) -> None:
    assert store.write([]) == 0


def test_more_rows_than_a_statement_has_parameters_for(store: Store, row: Row) -> None:
    rows = [row() for _ in range(5000)]
    assert store.write(rows) == 5000
    assert store.write(rows) == 0
    assert store.spend("model")[0]["requests"] == 5000


AMOUNTS = st.one_of(st.none(), st.floats(0, 50, allow_nan=False), st.sampled_from([1e-9, 3e-10, 0.1, 0.2, 2.5e-6]))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(amounts=st.lists(st.tuples(st.integers(0, 2), AMOUNTS), max_size=40), shuffle=st.randoms())
def test_sums_are_equal_to_the_last_digit(
    store: Store, row: Row, amounts: list[tuple[int, float | None]], shuffle: random.Random
) -> None:
    keys = [add(store) for _ in range(3)]
    before = costs(store)
    rows = [row(key=keys[which].id, cost=cost) for which, cost in amounts]
    again = rows * 2
    shuffle.shuffle(again)
    new = 0
    while again:
        size = shuffle.randint(1, 10)
        new += store.write(again[:size])
        again = again[size:]
    assert new == len(rows)
    requests, days, spent = (now - then for now, then in zip(costs(store), before, strict=True))
    assert requests == days == spent == sum(round(cost * 1e9) for _, cost in amounts if cost)


def test_days_are_of_utc(store: Store, row: Row) -> None:
    midnight = 1_800_057_600  # 2027-01-16
    store.write([row(started=midnight - 0.001), row(started=midnight)])
    assert [each["day"] for each in store.spend("day")] == ["2027-01-15", "2027-01-16"]


@pytest.mark.parametrize("parts", [{"id": None}, {"id": ""}, {"started": None}, {"started": -1}, {"started": 1e99}])
def test_without_id_or_time_it_is_no_row(row: Row, parts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="spend row"):
        fit(row(**parts))


def test_what_others_wrote_is_made_to_fit(store: Store, row: Row) -> None:
    odd = row(
        user="a\0b" + "x" * 10_000,
        model="\0",
        prompt_tokens=10**30,
        completion_tokens=-5,
        total_tokens=1.5,
        cached_tokens=True,
        cost=float("1e300"),
        status=70_000,
        seconds=float("inf"),
        stream="yes",
        attempts=None,
    )
    assert store.write([fit(odd)]) == 1
    (kept,) = store.logs()
    assert kept["user"].startswith("a\ufffdbx")
    assert len(kept["user"]) == 512
    nothing = (
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "cached_tokens",
        "cost",
        "status",
        "seconds",
        "stream",
    )
    assert [kept[name] for name in nothing] == [None] * len(nothing)
    assert kept["attempts"] == []


def test_a_key_that_is_not_known_spends_all_the_same(store: Store, row: Row) -> None:
    store.write([row(key="f" * 64, cost=1.5)])
    assert store.spend("key") == [
        {
            "key": "f" * 64,
            "key_alias": None,
            "requests": 1,
            "failures": 0,
            "prompt_tokens": 19,
            "completion_tokens": 87,
            "total_tokens": 106,
            "cached_tokens": 8,
            "cost": 1_500_000_000,
        }
    ]


# ---- reading


def test_spend_by_everything(store: Store, row: Row) -> None:
    alice = add(store, name="alice")
    store.write(
        [
            row(key=alice.id, cost=1.0, started=1_800_000_000),
            row(key=alice.id, cost=2.0, started=1_800_100_000, model="small", provider="groq"),
            row(cost=4.0, started=1_800_200_000, outcome="failed", group="slow"),
            row(cost=None, started=1_800_200_000, outcome="left"),
        ]
    )
    assert [(each["key"], each["key_alias"], each["cost"]) for each in store.spend("key")] == [
        (None, None, 4_000_000_000),
        (alice.id, "alice", 3_000_000_000),
    ]
    assert [(each["model"], each["requests"], each["failures"]) for each in store.spend("model")] == [
        ("gpt-4o", 3, 1),
        ("small", 1, 0),
    ]
    assert [each["provider"] for each in store.spend("provider")] == ["openai", "groq"]
    assert [each["group"] for each in store.spend("group")] == ["slow", "fast"]
    days = store.spend("day")
    assert [each["day"] for each in days] == ["2027-01-15", "2027-01-16", "2027-01-17"]
    assert all(isinstance(each[name], int) for each in days for name in SUMS)
    assert store.spend("day", start="2027-01-16", end="2027-01-16") == [days[1]]
    assert store.spend("day", key=alice.id) == days[:2]
    assert len(store.spend("day", model="small")) == 1
    assert len(store.spend("day", model="slow")) == 1
    assert store.spend("day", model="none\0") == []


def test_what_a_deleted_key_has_spent_keeps_its_name(store: Store, row: Row) -> None:
    gone = add(store, name="gone")
    store.write([row(key=gone.id)])
    assert store.delete_keys([gone.id]) == [gone.id]
    assert store.spend("key")[0]["key_alias"] == "gone"
    assert store.find_key("gone") is None
    found = store.find_key("gone", deleted=True)
    assert found is not None
    assert found.id == gone.id


def test_logs_are_paged_and_no_row_is_on_two_pages(store: Store, row: Row) -> None:
    # Many of the same time: the id decides between them.
    rows = [row(started=1_800_000_000 + number // 4, model=f"m{number % 2}") for number in range(40)]
    store.write(rows)
    seen: list[dict[str, Any]] = []
    place = None
    while page := store.logs(before=place, limit=7):
        seen += page
        place = page[-1]["started"], page[-1]["id"]
    assert sorted(each["id"] for each in seen) == sorted(each["id"] for each in rows)
    assert [each["started"] for each in seen] == sorted((each["started"] for each in rows), reverse=True)
    assert len(store.logs(model="m1")) == 20
    assert store.logs(id=rows[3]["id"]) == [rows[3]]
    assert len(store.logs(start=1_800_000_002, end=1_800_000_004)) == 8


def test_csv_has_every_request_and_no_formula(store: Store, row: Row) -> None:
    store.write([row(user="=HYPERLINK(1)", started=1_800_000_000, cost=2.5e-6), row(started=1_800_000_001, cost=None)])
    file = io.StringIO()
    assert store.export_csv(file) == 2
    first, second = csv.DictReader(io.StringIO(file.getvalue()))
    assert first["user"] == "'=HYPERLINK(1)"
    assert first["cost"] == "0.0000025"
    assert first["time"] == "2027-01-15T08:00:00.000+00:00"
    assert second["cost"] == ""
    assert store.export_csv(io.StringIO(), limit=1) == 1
    assert store.export_csv(io.StringIO(), start=1_800_000_001) == 1


def test_old_requests_go_and_their_sums_stay(store: Store, row: Row) -> None:
    store.write([row(started=1_800_000_000 + number) for number in range(30)])
    sums = store.spend("model")
    assert store.prune(1_800_000_020, most=15) == 15
    assert store.prune(1_800_000_020, most=15) == 5
    assert store.prune(1_800_000_020, most=15) == 0
    assert len(store.logs()) == 10
    assert store.spend("model") == sums


# ---- keys


def test_a_key_comes_back_as_it_was(store: Store) -> None:
    secret = make()
    key = Key(
        id=hash_of(secret),
        hint=hint_of(secret),
        name="alice",
        models=("fast", "gpt-*"),
        rpm=60,
        tpm=100_000,
        max_parallel=4,
        budget=10_000_000_000,
        budget_period="30d",
        budget_reset=1_800_000_000.5,
        expires=1_900_000_000.0,
        created=1_700_000_000.0,
        metadata={"team": ["a", {"b": "\u00e9"}]},
    )
    added = store.add_key(key)
    assert added.changed > 0
    for known in (secret, key.id, "alice"):
        assert store.find_key(known) == added
    assert store.keys() == [added]
    assert store.count_keys() == 1


def test_the_key_itself_is_nowhere_in_the_database(store: Store) -> None:
    secret = make()
    store.add_key(Key(id=hash_of(secret), hint=hint_of(secret)))
    with store._begin() as connection:
        kept = str(connection.execute(sa.text("SELECT * FROM penstock_keys")).all())
    assert secret not in kept
    assert secret[3:-4] not in kept


def test_a_name_is_one_keys_until_it_is_deleted(store: Store) -> None:
    first = add(store, name="alice")
    other = add(store, name="bob")
    with pytest.raises(BadRequestError, match="'alice'"):
        add(store, name="alice")
    with pytest.raises(BadRequestError, match="'alice'"):
        store.update_key(other.id, {"name": "alice"})
    store.delete_keys([first.id])
    assert store.update_key(other.id, {"name": "alice"}).name == "alice"
    add(store)
    add(store)  # many may have none


def test_a_key_is_not_there_twice_and_a_deleted_one_stays_so(store: Store) -> None:
    key = add(store)
    with pytest.raises(BadRequestError, match="already"):
        store.add_key(key)
    assert store.delete_keys([key.id, "0" * 64]) == [key.id]
    assert store.delete_keys([key.id]) == []
    with pytest.raises(BadRequestError, match="deleted"):
        store.add_key(key)
    with pytest.raises(NotFoundError):
        store.update_key(key.id, {"rpm": 1})


def test_only_what_is_given_is_changed(store: Store) -> None:
    key = add(store, name="alice", rpm=5, models=("fast",), budget=7)
    changed = store.update_key(key.id, {"rpm": None, "blocked": True})
    assert (changed.rpm, changed.blocked, changed.models, changed.budget) == (None, True, ("fast",), 7)
    assert changed.changed > key.changed


def test_changes_are_what_happened_since(store: Store, row: Row) -> None:
    assert store.changes(0).keys == []
    first, second = add(store), add(store, budget=1)
    found = store.changes(0)
    assert {key.id for key in found.keys} == {first.id, second.id}
    assert found.whole
    assert store.changes(found.number).keys == []
    store.update_key(first.id, {"rpm": 3})
    store.delete_keys([second.id])
    later = store.changes(found.number)
    assert [key.rpm for key in later.keys] == [3]
    assert later.dropped == [second.id]
    assert not later.whole


def test_what_a_key_with_a_budget_spends_is_a_change(store: Store, row: Row) -> None:
    rich, poor = add(store), add(store, budget=5_000_000_000)
    seen = store.changes(0).number
    store.write([row(key=rich.id, cost=1.0), row(key=poor.id, cost=1.0)])
    (changed,) = store.changes(seen).keys
    assert (changed.id, changed.spent) == (poor.id, 1_000_000_000)


def test_a_database_from_an_older_copy_is_read_whole(store: Store) -> None:
    key = add(store)
    found = store.changes(1_000_000)
    assert found.whole
    assert [each.id for each in found.keys] == [key.id]


def test_no_change_is_missed_while_others_change(store: Store) -> None:
    """Numbers become visible in their order, or a reader would step over one that is committed late."""
    names = [[f"{writer}-{number}" for number in range(20)] for writer in range(4)]

    def write(mine: list[str]) -> None:
        for name in mine:
            add(store, name=name)

    writers = [threading.Thread(target=write, args=(mine,)) for mine in names]
    for writer in writers:
        writer.start()
    seen, number = set(), 0
    while True:
        done = not any(writer.is_alive() for writer in writers)
        found = store.changes(number)
        number = found.number
        seen |= {key.name for key in found.keys}
        if done:
            break
    assert seen == {name for mine in names for name in mine}


def test_a_budget_begins_anew_when_its_period_ends(store: Store, row: Row) -> None:
    now = time.time()
    key = add(store, budget=5, budget_period="1h", budget_reset=now - 3 * 3600 - 60)
    calm = add(store, budget=5, budget_period="1h", budget_reset=now + 60)
    store.write([row(key=key.id, cost=1.0), row(key=calm.id, cost=1.0)])
    seen = store.changes(0).number
    assert store.reset_budgets(now) == 1
    assert store.reset_budgets(now) == 0
    (changed,) = store.changes(seen).keys
    assert (changed.id, changed.spent) == (key.id, 0)
    # In step with the periods that nobody was there for.
    assert changed.budget_reset == pytest.approx(now - 60 + 3600)


def test_a_month_begins_on_the_day_that_its_key_was_made(store: Store) -> None:
    made, february, march = (
        datetime(2027, *day, 8, 30, 1, 123457, tzinfo=UTC).timestamp() for day in ((1, 31), (2, 28), (3, 31))
    )
    key = add(store, budget=5, budget_period="1mo", budget_reset=later(made, "1mo"), created=made)
    assert store.reset_budgets(february) == 1
    found = store.find_key(key.id)
    assert found is not None
    assert found.budget_reset == march


# ---- the schema


def scripts() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__path__[0])))
    return config


def test_the_migrations_end_where_the_tables_are(store: Store) -> None:
    assert ScriptDirectory.from_config(scripts()).get_heads() == [VERSION]
    with store._begin() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True, "target_metadata": metadata}
        )
        assert compare_metadata(context, metadata) == []


def test_from_the_first_version_on_nothing_is_lost(database: str, row: Row) -> None:
    old = Store.__new__(Store)
    old.__dict__.update(vars(fresh := Store(database)))
    with fresh._begin(writes=True) as connection:
        for table in ("daily", "requests", "keys", "changes", "version"):
            connection.execute(sa.text(f"DROP TABLE penstock_{table}"))
        config = scripts()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        sample = metadata.tables["penstock_requests"]
        rows = [
            {
                "id": f"req_{number}",
                "started": 1_800_000_000.0 + 40_000 * number,
                "cost": 10**number,
                "prompt_tokens": 2,
            }
            for number in range(5)
        ]
        for number, values in enumerate(rows):
            values |= {
                "model": "m",
                "outcome": "complete" if number else "failed",
                "key_id": "k" if number % 2 else None,
            }
            connection.execute(sa.insert(sample).values(**values))
    fresh.close()
    store = Store(database)
    days = store.spend("day")
    assert [(each["day"], each["requests"], each["cost"], each["failures"]) for each in days] == [
        ("2027-01-15", 2, 11, 1),
        ("2027-01-16", 2, 1100, 0),
        ("2027-01-17", 1, 10_000, 0),
    ]
    assert [(each["key"], each["cost"]) for each in store.spend("key")] == [(None, 10_101), ("k", 1010)]
    # And goes on from there.
    store.write([row(started=1_800_000_000.0, model="m", cost=1e-9)])
    assert store.spend("day")[0]["cost"] == 12
    store.close()


def test_a_database_of_a_newer_penstock_is_refused(database: str) -> None:
    store = Store(database)
    with store._begin(writes=True) as connection:
        connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    store.close()
    with pytest.raises(StoreError, match="newer penstock: its schema is 9999"):
        Store(database)


OPEN = "import sys; from penstock.gateway.store import Store; print(len(Store(sys.argv[1]).keys()))"


def test_several_nodes_may_start_at_once(database: str) -> None:
    nodes = [
        subprocess.Popen([sys.executable, "-c", OPEN, database], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for node in nodes:
        out, err = node.communicate(timeout=60)
        assert out.split() == [b"0"], err.decode()
    store = Store(database)
    assert store.changes(0).number == 0
    store.close()


# ---- several writers

WRITE = """
import json, random, sys
from penstock.gateway.store import Store

url, seed, place = sys.argv[1:]
rows = [json.loads(line) for line in open(place)]
random.Random(seed).shuffle(rows)
store = Store(url)
print("ready", flush=True)
sys.stdin.readline()
new = 0
while rows:
    new += store.write(rows[:50])
    rows = rows[50:]
print(new)
"""


def test_two_processes_that_write_the_same_rows_write_each_once(database: str, row: Row, tmp_path: Path) -> None:
    store = Store(database)
    keys = [add(store, budget=10**12) for _ in range(3)]
    rows = [row(key=keys[number % 3].id, cost=number * 1e-9, model=f"m{number % 7}") for number in range(1000)]
    place = tmp_path / "rows.jsonl"
    place.write_text("".join(json.dumps(each) + "\n" for each in rows))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE, database, str(seed), str(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(2)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    news = [int(writer.communicate("go\n", timeout=60)[0]) for writer in writers]
    assert sum(news) == 1000
    total = sum(range(1000))
    assert costs(store) == (total, total, total)
    assert sum(each["requests"] for each in store.spend("model")) == 1000
    store.close()


def test_a_database_that_was_killed_is_used_again(mortal_postgres: Any, row: Row) -> None:
    store = Store(mortal_postgres.make())
    key = add(store)
    first, second = row(key=key.id), row(key=key.id)
    store.write([first])
    mortal_postgres.stop()
    with pytest.raises(StoreDownError) as caught:
        store.write([second])
    assert "INSERT" not in str(caught.value)
    mortal_postgres.start()
    assert store.write([first, second]) == 1
    assert len({*costs(store)}) == 1
    store.close()


def test_who_waits_too_long_for_another_writer_is_told_so(
    tmp_path: Path, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.gateway.store.WAIT", 0.2)
    store = Store(str(tmp_path / "penstock.db"))
    other = sqlite3.connect(tmp_path / "penstock.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreDownError, match="locked"):
        store.write([row()])
    assert store.logs() == []  # readers do not wait
    other.execute("COMMIT")
    other.close()
    assert store.write([row()]) == 1
    store.close()


# ---- opening


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://user:hunter2@host/name", "mysql"),
        ("sqlite://", "a file"),
        ("sqlite:///:memory:", "a file"),
        ("postgresql://host:port/name", "URL is none"),
        ("sqlite:////no/such/folder/penstock.db", "there is no folder"),
    ],
)
@pytest.mark.parametrize("find", [Store, check])
def test_what_is_no_database_is_refused(find: Callable[[str], Any], url: str, said: str) -> None:
    with pytest.raises(StoreError, match=said) as caught:
        find(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("find", [Store, check])
def test_a_folder_is_no_database(find: Callable[[str], Any], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "penstock.db"):
        with pytest.raises(StoreError, match=path.name):
            find(str(path))


def test_a_look_at_a_database_leaves_nothing_behind(tmp_path: Path) -> None:
    check(f"sqlite:///{tmp_path}/penstock.db")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty.db").touch()
    check(f"{tmp_path}/empty.db")
    assert (tmp_path / "empty.db").read_bytes() == b""


def test_a_look_at_a_server_does_not_go_there() -> None:
    pytest.importorskip("psycopg", reason="external: no psycopg")
    with socket.create_server(("127.0.0.1", 0)) as server:
        check(f"postgresql://user@127.0.0.1:{server.getsockname()[1]}/name")
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_server_that_is_not_there_is_told_without_the_password() -> None:
    with pytest.raises(StoreDownError) as caught:
        Store("postgres://user:hunter2@127.0.0.1:1/name?connect_timeout=2")
    assert "hunter2" not in str(caught.value)
    assert "user:***@127.0.0.1" in str(caught.value)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear all, " * 100)
    with pytest.raises(StoreError, match="not a database"):
        Store(str(tmp_path / "letter.txt"))


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "penstock.db"
    Store(str(path)).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("find", [Store, check])
def test_without_its_driver_postgresql_says_what_to_install(
    find: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"penstock\[postgres\]"):
        find("postgresql://user@host/name")
