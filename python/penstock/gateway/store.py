"""Keys and spend in a database: a file of SQLite, or PostgreSQL by its URL.

Every method is one transaction, and may be called from any thread. A request is written once, whoever writes it and
however often: its id decides, and only a row that is new adds to the sums and to what its key has spent, in the same
transaction. Money is in nano-dollars (see `keys`).
"""

import csv
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import chain
from math import isfinite
from operator import itemgetter
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import sqlalchemy as sa

from ..errors import BadRequestError, NotFoundError
from .keys import MOST, NANO, PREFIX, Key, dollars, hash_of, is_hash, next_reset
from .tables import SUMS, VERSION, VERSION_TABLE, changes, daily, keys, requests

if TYPE_CHECKING:
    from typing import TextIO

DEFAULT = "sqlite:///penstock.db"
"""In the folder that the proxy is started in."""

LOCK = 0x70656E73746F636B
"""The number of the advisory lock that steps of the schema are made under: "penstock" in ASCII."""

WAIT = 10.0
"""Seconds to wait for another writer of the same database."""

PATIENCE = 30.0
"""Seconds after which PostgreSQL gives up on one of our statements. Steps of the schema may take as long as they do."""

BUNDLE = 100
"""Requests that one statement of SQLite inserts."""

LONGEST = 512
"""Characters that are kept of a text of somebody else's, such as the name of a user."""

HIGHEST = 1 << 40
"""No request has as many tokens. A provider that reports more reports nonsense, which is not counted."""

BY = {"key": "key_id", "model": "model", "day": "day", "provider": "provider", "group": "model_group"}
"""What spend may be grouped by, and the column that it is in."""


class StoreError(Exception):
    """The database cannot be used as it is. The message says why, without the password."""


class StoreDownError(StoreError):
    """The database does not answer, or is not able to, for now."""


BAD = (sa.exc.IntegrityError, sa.exc.DataError, ValueError, TypeError, KeyError, OverflowError)
"""What `Store.write` raises when a row does not fit."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Keys that were changed since a number. whole: these are all there are, whatever was known before."""

    number: int
    keys: list[Key]
    dropped: list[str]
    whole: bool


class Record(NamedTuple):
    """A spend row as columns: not in the order of the table, but what many requests have nothing of comes last."""

    id: str
    started: float
    seconds: float | None
    route: str | None
    model_group: str | None
    outcome: str | None
    status: int | None
    attempts: str
    stream: int | None
    """0 or 1, as with the next: what a driver has to be asked to make of a bool takes it longer than all the rest."""
    usage_complete: int | None
    chunks: int | None
    deployment: str | None
    provider: str | None
    model: str | None
    total_tokens: int | None
    prompt_tokens: int | None
    completion_tokens: int | None
    key_id: str | None
    cost: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    first_token: float | None
    cache_write_tokens: int | None
    error: str | None
    end_user: str | None
    trace: str | None


Columns = tuple[Any, ...]
"""A record without the names: to wrap those of the gateway takes longer than to read what is in them."""


def columns(*names: str) -> Callable[[Columns], Any]:
    """What gives some of a record, by position, which takes a fifth of what it takes by name."""
    return itemgetter(*map(Record._fields.index, names))


class Store:
    """An open database, with its schema made or brought up to date.

    Several nodes may open one at once: one of them makes the schema, the others wait for it.

    Args:
        url: `postgresql://user:password@host/name`, `sqlite:///file`, or the path of a file.

    Raises:
        StoreError: the URL is none, the database is newer than this code, or PostgreSQL's driver is not installed.
        StoreDownError: it cannot be reached.
    """

    def __init__(self, url: str = DEFAULT) -> None:
        self.url = _parsed(url)
        self.file = _file_of(self.url)
        self.shown = self.url.render_as_string(hide_password=True)
        self._closed = False
        self._engine = _open(self.url)
        # Made once: to make one takes as long as half a transaction.
        self._engines = {
            (writes, patience): self._engine.execution_options(penstock_writes=writes, penstock_patience=patience)
            for writes in (False, True)
            for patience in (0, PATIENCE)
        }
        self._looking = Lock()
        self._looks: sa.Connection | None = None
        self._insert = _insert_of(self.url.get_backend_name())
        insert = self._insert(daily)
        sums = {name: daily.c[name] + insert.excluded[name] for name in SUMS}
        self._add_up = insert.on_conflict_do_update(index_elements=_PLACE, set_=sums)
        try:
            self._migrate()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes its connections; whoever still asks is told so (StoreDownError)."""
        self._closed = True
        with self._looking:
            self._look_no_more()
        self._engine.dispose()

    # ---- transactions

    @contextmanager
    def _begin(self, *, writes: bool = False, patience: float = PATIENCE) -> Iterator[sa.Connection]:
        with self._told(), self._engines[writes, patience].begin() as connection:
            yield connection

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Whoever asks within it is told by errors of ours."""
        if self._closed:
            raise StoreDownError(f"{self.shown} was closed")
        try:
            yield
        except (sa.exc.IntegrityError, sa.exc.DataError):
            raise  # these are about what was written
        except sa.exc.DBAPIError as error:
            # Not only a connection that broke: a full disk, a file that is damaged, a table that somebody took away.
            raise StoreDownError(self._said(error)) from error
        except sa.exc.TimeoutError as error:
            raise StoreDownError(f"{self.shown}: every connection is in use") from error

    def _said(self, error: sa.exc.DBAPIError) -> str:
        """What the driver said, in one line: SQLAlchemy would add the statement."""
        return f"{self.shown}: {' '.join(str(error.orig).split()) or type(error.orig).__name__}"

    def _migrate(self) -> None:
        with self._begin() as connection:
            found = _version(connection)
        if found == VERSION:
            return
        self._refuse_newer(found)
        from alembic import command
        from alembic.config import Config

        config = Config()
        home = Path(__file__).parent / "migrations"
        config.set_main_option("script_location", str(home).replace("%", "%%"))
        # SQLite has one writer at a time, which is lock enough.
        with self._begin(writes=True, patience=0) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            found = _version(connection)
            if found == VERSION:
                return  # another node was first
            self._refuse_newer(found)
            config.attributes["connection"] = connection
            command.upgrade(config, VERSION)

    def _refuse_newer(self, found: str | None) -> None:
        if found is not None and found > VERSION:
            raise StoreError(
                f"{self.shown} was made by a newer penstock: its schema is {found}, and this one knows {VERSION}. "
                "Upgrade penstock, or name another database."
            )

    # ---- keys

    def keys(self, *, name: str | None = None, offset: int = 0, limit: int | None = None) -> list[Key]:
        """The keys that there are, oldest first."""
        statement = sa.select(keys).where(keys.c.deleted.is_(None)).order_by(keys.c.created, keys.c.id)
        if name is not None:
            statement = statement.where(keys.c.name == name)
        with self._begin() as connection:
            return [_key(row) for row in connection.execute(statement.offset(offset).limit(limit)).mappings()]

    def count_keys(self) -> int:
        """How many keys there are."""
        with self._begin() as connection:
            counted = sa.select(sa.func.count()).select_from(keys).where(keys.c.deleted.is_(None))
            return connection.execute(counted).scalar_one()

    def find_key(self, key: str, *, deleted: bool = False) -> Key | None:
        """A key by itself, its id or its name. `deleted`: also one that is no more."""
        if key.startswith(PREFIX):
            which = keys.c.id == hash_of(key)
        elif is_hash(key):
            which = keys.c.id == key
        else:
            which = keys.c.name == _text(key)
        statement = sa.select(keys).where(which).order_by(keys.c.deleted.desc().nulls_first())
        if not deleted:
            statement = statement.where(keys.c.deleted.is_(None))
        with self._begin() as connection:
            row = connection.execute(statement.limit(1)).mappings().first()
        return None if row is None else _key(row)

    def add_key(self, key: Key) -> Key:
        """Adds a key.

        Raises:
            BadRequestError: there is one with this name, or there is or was this very key.
        """
        values = {**_columns(key), "id": key.id, "hint": key.hint, "created": key.created}
        with self._named(key.name), self._begin(writes=True) as connection:
            known = connection.execute(sa.select(keys.c.deleted).where(keys.c.id == key.id)).first()
            if known is not None:
                what = "there is this key already" if known.deleted is None else "this key was deleted, and stays so"
                raise BadRequestError(f"{what}: make another", param="key")
            statement = self._insert(keys).values(**values, changed=_next(connection)).returning(keys)
            return _key(connection.execute(statement).mappings().one())

    def update_key(self, id: str, parts: Mapping[str, Any]) -> Key:
        """Changes the parts of a key that are given, by the names of `Key`.

        Raises:
            NotFoundError: there is no such key.
            BadRequestError: there is another with this name.
        """
        with self._named(parts.get("name")), self._begin(writes=True) as connection:
            values = {**_stored(parts), "changed": _next(connection)}
            statement = sa.update(keys).where(keys.c.id == id, keys.c.deleted.is_(None)).values(values).returning(keys)
            row = connection.execute(statement).mappings().first()
        if row is None:
            raise NotFoundError("there is no such key", param="key")
        return _key(row)

    def delete_keys(self, ids: Iterable[str]) -> list[str]:
        """Deletes keys. Gives the ids of those that there were."""
        with self._begin(writes=True) as connection:
            values = {"deleted": time.time(), "changed": _next(connection)}
            there = keys.c.id.in_(sorted(set(ids))) & keys.c.deleted.is_(None)
            gone = connection.execute(sa.update(keys).where(there).values(values).returning(keys.c.id))
            return sorted(gone.scalars())

    def changes(self, since: int) -> Changes:
        """The keys that were changed since the number of an earlier call; 0: all there are."""
        if since and self._change() == since:
            return Changes(number=since, keys=[], dropped=[], whole=False)
        with self._begin() as connection:
            # The number first: what is committed after it was read is seen again next time, not missed.
            number = _change(connection)
            # A database that was restored from an older copy has not counted so far.
            whole = not since or number < since
            statement = sa.select(keys).where(keys.c.changed > (0 if whole else since)).order_by(keys.c.changed)
            found = list(connection.execute(statement).mappings())
        return Changes(
            number=number,
            keys=[_key(row) for row in found if row["deleted"] is None],
            dropped=[row["id"] for row in found if row["deleted"] is not None],
            whole=whole,
        )

    def _change(self) -> int:
        """The number of the last change, by a connection without transactions: it takes a third of one.

        This is asked every other second though nothing happens.
        """
        with self._looking, self._told():
            if self._looks is not None:
                with suppress(sa.exc.DBAPIError):  # it may have broken since
                    return _change(self._looks)
                self._look_no_more()
            self._looks = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._looks.detach()  # from the pool, whose others have transactions
            return _change(self._looks)

    def _look_no_more(self) -> None:
        looks, self._looks = self._looks, None
        if looks is not None:
            with suppress(sa.exc.DBAPIError):
                looks.close()

    def reset_budgets(self, now: float) -> int:
        """Begins a new period for the keys whose period has ended. Gives how many."""
        due = sa.select(keys.c.id, keys.c.budget_period, keys.c.budget_reset, keys.c.created)
        due = due.where(keys.c.budget_reset <= now, keys.c.deleted.is_(None)).order_by(keys.c.id)
        with self._begin() as connection:
            ended = connection.execute(due).all()
        if not ended:
            return 0
        count = 0
        with self._begin(writes=True) as connection:
            number = _next(connection)
            for key, period, reset, created in ended:
                until = None if period is None else next_reset(reset, period, now, created)
                # Only from the end that was read: another node may have done it.
                which = (keys.c.id == key) & (keys.c.budget_reset == reset)
                values = {"spent": 0, "budget_reset": until, "changed": number}
                count += connection.execute(sa.update(keys).where(which).values(values)).rowcount
        return count

    @contextmanager
    def _named(self, name: str | None) -> Iterator[None]:
        try:
            yield
        except sa.exc.IntegrityError:
            raise BadRequestError(f"there is another key with the name {name!r}", param="key_alias") from None

    # ---- spend

    def write(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Writes spend rows, of the gateway or by `fit`. Gives how many of them were new.

        Raises:
            StoreDownError: nothing was written, as far as can be told; the same rows may be written again.
            BAD: a row does not fit; nothing was written.
        """
        records: dict[str, Columns] = {}
        for record in map(record_of, rows):
            records.setdefault(_id(record), record)
        if not records:
            return 0
        # Everybody takes locks in the same order, of requests, days and keys: so no two writers wait for each other.
        ordered = [records[each] for each in sorted(records)]
        with self._begin(writes=True) as connection:
            new = _inserted(ordered, connection)
            if new:
                self._add(new, connection)
        return len(new)

    def _add(self, records: list[Columns], connection: sa.Connection) -> None:
        """Adds requests to the sums of their days and to what their keys have spent."""
        groups: dict[tuple[Any, ...], list[Columns]] = {}
        for record in records:
            groups.setdefault((_started(record) // 86400, *_place(record)), []).append(record)
        sums: dict[tuple[str, ...], list[int]] = {}
        spent: dict[str, int] = {}
        for (number, *names), group in groups.items():
            day = datetime.fromtimestamp(number * 86400, UTC).strftime("%Y-%m-%d")
            outcomes = list(map(_outcome, group))
            total = [
                len(group),
                len(group) - outcomes.count("complete") - outcomes.count("left"),
                *(sum(filter(None, column)) for column in zip(*map(_sums, group), strict=True)),
            ]
            sums[day, *(name or "" for name in names)] = total
            key, cost = names[0], total[-1]
            if key and cost:
                spent[key] = spent.get(key, 0) + cost
        columns = [*_PLACE, *SUMS]
        values = [dict(zip(columns, (*place, *sums[place]), strict=True)) for place in sorted(sums)]
        connection.execute(self._add_up, values)
        if spent:
            owners = sorted(spent)
            number = connection.execute(_COUNT_UP.where(_budgeted(owners))).scalar_one_or_none()
            connection.execute(_SPENT, [{"of": key, "more": spent[key], "number": number} for key in owners])

    def spend(
        self,
        by: str = "day",
        *,
        start: str | None = None,
        end: str | None = None,
        key: str | None = None,
        model: str | None = None,
    ) -> list[dict[str, Any]]:
        """What was spent, summed by "key", "model", "day", "provider" or "group": the most first, days in order.

        start, end: days of UTC, both included. key: an id. model: a model, or a group. Each row has the name of what it
        is grouped by (null: not known), the sums of tokens, and `cost` in nano-dollars; by "key" also `key_alias`.
        """
        column = daily.c[BY[by]]
        columns: list[Any] = [column.label(by), *(sa.func.sum(daily.c[name]).label(name) for name in SUMS)]
        source: Any = daily
        if by == "key":
            source = daily.outerjoin(keys, keys.c.id == daily.c.key_id)
            columns.insert(1, sa.func.max(keys.c.name).label("key_alias"))
        statement = sa.select(*columns).select_from(source).group_by(column)
        statement = statement.order_by(column if by == "day" else sa.func.sum(daily.c.cost).desc(), column)
        if start is not None:
            statement = statement.where(daily.c.day >= start)
        if end is not None:
            statement = statement.where(daily.c.day <= end)
        if key is not None:
            statement = statement.where(daily.c.key_id == _text(key))
        if model is not None:
            statement = statement.where((daily.c.model == _text(model)) | (daily.c.model_group == _text(model)))
        with self._begin() as connection:
            # Sums are decimals in PostgreSQL.
            return [
                {str(name): int(value) if name in SUMS else value or None for name, value in row.items()}
                for row in connection.execute(statement).mappings()
            ]

    def logs(
        self,
        *,
        start: float | None = None,
        end: float | None = None,
        key: str | None = None,
        model: str | None = None,
        id: str | None = None,
        before: tuple[float, str] | None = None,
        limit: int = 100,
    ) -> list[dict[str, Any]]:
        """Spend rows, the last first.

        start, end: Unix seconds, the end not included. before: `started` and `id` of the row to go on after.
        """
        statement = _asked(start, end, key, model).order_by(requests.c.started.desc(), requests.c.id.desc())
        if id is not None:
            statement = statement.where(requests.c.id == _text(id))
        if before is not None:
            place = sa.tuple_(requests.c.started, requests.c.id)
            statement = statement.where(place < sa.tuple_(sa.literal(before[0]), sa.literal(_text(before[1]))))
        with self._begin() as connection:
            return [_spend_row(row) for row in connection.execute(statement.limit(limit)).mappings()]

    def export_csv(
        self,
        file: "TextIO",
        *,
        start: float | None = None,
        end: float | None = None,
        key: str | None = None,
        model: str | None = None,
        limit: int | None = None,
    ) -> int:
        """Writes spend rows as CSV, the first first, a head before them. Gives how many."""
        statement = _asked(start, end, key, model).order_by(requests.c.started, requests.c.id).limit(limit)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CSV)
        count = 0
        with self._begin(patience=0) as connection:
            result = connection.execution_options(yield_per=1000).execute(statement)
            for found in result.mappings():
                row = _spend_row(found)
                row["time"] = datetime.fromtimestamp(row["started"], UTC).isoformat(timespec="milliseconds")
                row["attempts"] = len(row["attempts"])
                writer.writerow([cell(row[name]) for name in CSV])
                count += 1
        return count

    def prune(self, before: float, *, most: int = 10_000) -> int:
        """Deletes requests that began before a time, at most so many: so writers get their turn. The sums stay."""
        old = sa.select(requests.c.id).where(requests.c.started < before).order_by(requests.c.started).limit(most)
        with self._begin(writes=True) as connection:
            return connection.execute(sa.delete(requests).where(requests.c.id.in_(old))).rowcount


CSV = (
    "id", "time", "seconds", "first_token", "key", "user", "route", "group", "deployment", "provider", "model",
    "stream", "outcome", "status", "error", "prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens",
    "cache_write_tokens", "reasoning_tokens", "usage_complete", "cost", "chunks", "attempts", "trace",
)  # fmt: skip
"""The columns of an export of requests."""


def cell(value: Any) -> Any:
    """A value for a cell of CSV. What begins like a formula was somebody's text, and stays one in a spreadsheet."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    if isinstance(value, float):
        return f"{value:.9f}".rstrip("0").rstrip(".")
    return value


def write_sums(file: "TextIO", by: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows of `Store.spend` as CSV."""
    names = [by, *(["key_alias"] if by == "key" else []), *SUMS]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([cell(dollars(row[name]) if name == "cost" else row[name]) for name in names])


# ---- opening


def _parsed(url: str) -> sa.URL:
    if "://" not in url:
        url = f"sqlite:///{url}"
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise StoreError("the database's URL is none: postgresql://user:password@host/name, sqlite:///file") from None
    if parsed.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise StoreError(f"databases of {parsed.drivername} are not served: postgresql://..., sqlite:///file")
    if parsed.database in (None, "", ":memory:"):
        raise StoreError("a database of SQLite is a file: sqlite:///file, or sqlite:////folder/file")
    return parsed


def file_of(url: str) -> Path | None:
    """The file of a database of SQLite. None: it is another, or for SQLite to find.

    Raises:
        StoreError: the URL is none.
    """
    return _file_of(_parsed(url))


def _file_of(url: sa.URL) -> Path | None:
    file = url.database if url.get_backend_name() == "sqlite" else None
    return None if file is None or file.startswith("file:") else Path(file)


def check(url: str = DEFAULT) -> None:
    """Looks at what `Store` needs to open a database, without asking it and without making a file.

    Raises:
        StoreError: as of `Store`.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        _check_file(parsed)
    else:
        _open(parsed).dispose()


def _check_file(url: sa.URL) -> Path | None:
    """The file of a database, which may not be there yet. None: it is for SQLite to find."""
    import sqlite3

    if sqlite3.sqlite_version_info < (3, 35):
        raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old: 3.35 is the first that tells what it inserted")
    path = _file_of(url)
    if path is None:
        return None
    folder = path.absolute().parent
    try:
        os.close(os.open(path, os.O_RDWR))
    except FileNotFoundError:
        if not folder.is_dir():
            raise StoreError(f"{path}: there is no folder {folder}") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise StoreError(f"{path}: no file can be made in {folder}") from None
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from None
    return path


def _open(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() == "sqlite":
        return _open_file(url)
    given = {
        "connect_timeout": 5,
        # A peer that is gone without a word is found out in seconds, not in the minutes of TCP.
        "tcp_user_timeout": 10_000,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "application_name": "penstock",
        # A pooler before the database may give each transaction another connection, with none of our statements.
        "prepare_threshold": None,
    }
    try:
        engine = sa.create_engine(
            url,
            connect_args={name: value for name, value in given.items() if name not in url.query},
            pool_pre_ping=True,
            pool_recycle=1800,
            pool_timeout=WAIT,
            hide_parameters=True,
        )
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("psycopg"):
            raise
        raise StoreError("PostgreSQL needs its driver: pip install 'penstock[postgres]'") from None

    def begin(connection: sa.Connection) -> None:
        patience = connection.get_execution_options().get("penstock_patience")
        if patience:
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {patience * 1000:.0f}")

    sa.event.listen(engine, "begin", begin)
    return engine


def _open_file(url: sa.URL) -> sa.Engine:
    path = _check_file(url)
    if path is not None:
        try:
            # Whoever else uses this machine has no business in it.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from None
    engine = sa.create_engine(url, connect_args={"timeout": WAIT}, pool_timeout=WAIT, hide_parameters=True)

    def connect(connection: Any, _record: Any) -> None:
        # We begin transactions ourselves: the driver would only do it at the first write, too late to wait for a lock.
        connection.isolation_level = None
        _write_ahead(lambda sql: connection.execute(sql).fetchone())
        # An answer that was paid for is on the disk when it is counted, though the machine may stop.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    def begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("penstock_writes")
        if writes is not None:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    sa.event.listen(engine, "connect", connect)
    sa.event.listen(engine, "begin", begin)
    return engine


def _write_ahead(ask: Callable[[str], Any]) -> None:
    """Readers do not wait for the writer. SQLite does not wait for the lock that this takes once: we do."""
    import sqlite3

    deadline = time.monotonic() + WAIT
    while ask("PRAGMA journal_mode")[0] != "wal":
        try:
            if ask("PRAGMA journal_mode = WAL")[0] != "wal":
                return  # a file system that cannot: slower, and as safe
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    found: str | None = connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608
    return found


# ---- rows


_PLACE = [column.name for column in daily.primary_key]
_COUNT_UP = sa.update(changes).values(number=changes.c.number + 1).returning(changes.c.number)
_NUMBER = sa.bindparam("number", type_=sa.BigInteger)
_SPENT = (
    sa.update(keys)
    .where(keys.c.id == sa.bindparam("of"))
    .values(
        spent=keys.c.spent + sa.bindparam("more"),
        # Nodes must hear what a key with a budget has spent. The others' need not be told of.
        changed=sa.case((keys.c.budget.is_(None), keys.c.changed), else_=sa.func.coalesce(_NUMBER, keys.c.changed)),
    )
)


def _budgeted(ids: list[str]) -> "sa.ColumnElement[bool]":
    """Whether one of these keys has a budget."""
    return sa.exists().where(keys.c.id.in_(ids), keys.c.budget.is_not(None))


def _change(connection: sa.Connection) -> int:
    """The number of the last change of keys, or of what those with a budget have spent."""
    number: int = connection.exec_driver_sql(f"SELECT number FROM {changes.name}").scalar_one()  # noqa: S608
    return number


def _next(connection: sa.Connection) -> int:
    """The number of the next change of keys. Nobody else gets one until this transaction has ended."""
    number: int = connection.execute(_COUNT_UP).scalar_one()
    return number


def _key(row: Any) -> Key:
    values = {name: row[name] for name in Key.__slots__}
    values["models"] = tuple(orjson.loads(row["models"]))
    values["metadata"] = orjson.loads(row["metadata"])
    return Key(**values)


def _columns(key: Key) -> dict[str, Any]:
    return _stored({name: getattr(key, name) for name in Key.__slots__ if name not in ("id", "hint", "created")})


def _stored(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of a key as columns."""
    values = {name: value for name, value in parts.items() if name != "changed"}
    for name in ("models", "metadata"):
        if name in values:
            values[name] = orjson.dumps(values[name]).decode()
    return values


_TEXTS = ("key", "route", "group", "deployment", "provider", "model", "outcome", "error", "user", "trace")
_COUNTS = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "chunks",
)
_TIMES = ("seconds", "first_token")
_FLAGS = ("stream", "usage_complete")
_CALLED = {"key_id": "key", "model_group": "group", "end_user": "user"}
"""What rows call otherwise."""

_FLAG = {True: 1, False: 0, None: None}
_id = columns("id")
_started = columns("started")
_outcome = columns("outcome")
_place = columns("key_id", "model_group", "provider", "model")
_sums = columns(*SUMS[2:])
_spent = columns("key_id", "cost")
_SELDOM = Record._fields.index("cache_write_tokens")
_NOTHING = (None,) * (len(Record._fields) - _SELDOM)
_values = itemgetter(*(_CALLED.get(name, name) for name in Record._fields))


def record_of(row: Mapping[str, Any]) -> Columns:
    """A spend row as columns. The gateway's own know theirs."""
    own: Columns | None = getattr(row, "record", None)
    if own is not None:
        return own
    return Record._make(_values(row))._replace(
        stream=_FLAG[row["stream"]],
        usage_complete=_FLAG[row["usage_complete"]],
        cost=cost_of(row),
        attempts=orjson.dumps(row["attempts"]).decode(),
    )


def fit(row: Mapping[str, Any]) -> dict[str, Any]:
    """A spend row that comes from elsewhere than the gateway, made to fit the columns: one row cannot hold up others.

    Raises:
        ValueError: without its id or its time it is no row.
    """
    name, started = row.get("id"), row.get("started")
    if not isinstance(name, str) or not name or not isinstance(started, int | float) or not 0 <= started < 1 << 33:
        raise ValueError("a spend row has an id, and the time that it started at")
    fitted: dict[str, Any] = {"id": _text(name), "started": float(started), "cost": row.get("cost")}
    for name in _TEXTS:
        fitted[name] = _text(row.get(name))
    for name in _COUNTS:
        value = row.get(name)
        fitted[name] = value if type(value) is int and 0 <= value < HIGHEST else None
    for name in _TIMES:
        value = row.get(name)
        fitted[name] = float(value) if isinstance(value, int | float) and isfinite(value) else None
    for name in _FLAGS:
        value = row.get(name)
        fitted[name] = value if isinstance(value, bool) else None
    status = row.get("status")
    fitted["status"] = status if type(status) is int and 0 <= status < 1000 else None
    fitted["attempts"] = row.get("attempts") or []
    return fitted


def cost_of(row: Mapping[str, Any]) -> int | None:
    """What a spend row cost, in nano-dollars. None: not known."""
    cost = row.get("cost")
    if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 <= cost <= MOST:
        return None
    return round(cost * NANO)


def spent_of(row: Mapping[str, Any]) -> tuple[str | None, int | None]:
    """Which key spent how much on a row, in nano-dollars. None: not known."""
    own: Columns | None = getattr(row, "record", None)
    return (row.get("key"), cost_of(row)) if own is None else _spent(own)


def _text(value: Any) -> str | None:
    """A text that both databases take: PostgreSQL has none with a zero in it."""
    return None if value is None else str(value)[:LONGEST].replace("\0", "\ufffd")


def _inserted(records: list[Columns], connection: sa.Connection) -> list[Columns]:
    """Inserts requests. Gives those that were not there."""
    if connection.dialect.name == "sqlite":
        # The driver's own way, by position, takes a tenth of SQLAlchemy's time. It takes longer for a NULL than for a
        # text: what hardly any request has is left out where it is not known.
        usual = [record[:_SELDOM] for record in records if record[_SELDOM:] == _NOTHING]
        others = [record for record in records if record[_SELDOM:] != _NOTHING]
        options = {"preserve_rowcount": True}
        count = 0
        for sql, values in chain(_inserts(usual), _inserts(others)):
            count += connection.exec_driver_sql(sql, values, execution_options=options).rowcount
        if count == len(records):
            return records
        # Some were there. A row that is new has a higher number than all before it, and nobody else writes meanwhile.
        last = sa.select(requests.c.id).order_by(sa.literal_column("rowid").desc()).limit(count)
        new = set(connection.execute(last).scalars())
        return [record for record in records if _id(record) in new]
    # One parameter for all: 4 microseconds of this process for a row, where one for each value takes 110.
    given = orjson.dumps([dict(zip(Record._fields, record, strict=True)) for record in records]).decode()
    inserted = set(connection.execute(_from_json(), {"records": given}).scalars())
    return [record for record in records if _id(record) in inserted]


def _inserts(records: list[Columns]) -> Iterator[tuple[str, Any]]:
    """What inserts requests of which the same columns are known: statements, and their parameters."""
    ones = len(records) % BUNDLE
    if ones:
        yield _insert(len(records[0]), 1), records[:ones]
    # To begin and to end a statement for each takes SQLite a quarter of its time, and Python lets go of the GIL twice.
    for at in range(ones, len(records), BUNDLE):
        yield _insert(len(records[0]), BUNDLE), tuple(chain.from_iterable(records[at : at + BUNDLE]))


@cache
def _insert(length: int, count: int) -> str:
    """The statement that inserts so many requests of which so many columns are known."""
    names = ", ".join(Record._fields[:length])
    values = ", ".join([f"({', '.join('?' * length)})"] * count)
    return f"INSERT INTO {requests.name} ({names}) VALUES {values} ON CONFLICT (id) DO NOTHING"  # noqa: S608


def _insert_of(name: str) -> Any:
    """The database's own form of INSERT: each takes memory that the other one's users need not spend."""
    if name == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert
    from sqlalchemy.dialects import postgresql

    return postgresql.insert


@cache
def _from_json() -> Any:
    """The statement that inserts requests that are a list of JSON, and tells which were new."""
    from sqlalchemy.dialects import postgresql

    document = sa.cast(sa.bindparam("records", type_=sa.Text), postgresql.JSON)
    given = sa.func.json_to_recordset(document).table_valued(*(sa.column(each.name, each.type) for each in requests.c))
    given = given.render_derived(with_types=True)
    names = [each.name for each in requests.c]
    insert = postgresql.insert(requests).from_select(names, sa.select(*(given.c[name] for name in names)))
    return insert.on_conflict_do_nothing(index_elements=["id"]).returning(requests.c.id)


def _asked(start: float | None, end: float | None, key: str | None, model: str | None) -> "sa.Select[Any]":
    statement = sa.select(requests)
    if start is not None:
        statement = statement.where(requests.c.started >= start)
    if end is not None:
        statement = statement.where(requests.c.started < end)
    if key is not None:
        statement = statement.where(requests.c.key_id == _text(key))
    if model is not None:
        statement = statement.where((requests.c.model == _text(model)) | (requests.c.model_group == _text(model)))
    return statement


def _spend_row(found: Any) -> dict[str, Any]:
    """A spend row as it was before it was columns."""
    # Plain texts: the names of columns are a class of SQLAlchemy's, which orjson does not write.
    row = {_CALLED.get(name) or str(name): value for name, value in found.items()}
    row["cost"] = None if row["cost"] is None else dollars(row["cost"])
    row["attempts"] = orjson.loads(row["attempts"] or "[]")
    return row
