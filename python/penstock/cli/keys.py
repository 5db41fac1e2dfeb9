"""`penstock keys` and `penstock spend`: on the database of the proxy, which may be running.

A running proxy hears of a change within seconds.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import BadRequestError, NotFoundError
from .talk import remark, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..gateway.keys import Key
    from ..gateway.store import Store


def _database(command: "Callable[..., Any]") -> "Callable[..., Any]":
    """The options that say which database."""
    config = click.option(
        "--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The proxy's: it names one."
    )
    database = click.option(
        "--database",
        help="postgresql://..., or a file of SQLite. Default: PENSTOCK_DATABASE, else penstock.db here.",
    )
    return database(config(command))


def _limits(command: "Callable[..., Any]") -> "Callable[..., Any]":
    """The options of what a key may do."""
    options = (
        click.option("-m", "--model", "models", multiple=True, help="A group that it may ask, such as fast or gpt-*."),
        click.option("--rpm", help="Requests a minute."),
        click.option("--tpm", help="Tokens a minute."),
        click.option("--max-parallel", help="Requests at once."),
        click.option("--budget", help="US dollars that it may spend."),
        click.option("--period", help="After which its budget begins anew: 30d, 1mo."),
        click.option("--expires", help="How long it lives from now on: 12h, 90d."),
        click.option("--metadata", help="An object of JSON, of your own."),
    )
    for option in reversed(options):
        command = option(command)
    return command


NONE = "none"
"""What is given where there is to be no limit."""

_CALLED = {
    "name": "key_alias",
    "models": "models",
    "rpm": "rpm_limit",
    "tpm": "tpm_limit",
    "max_parallel": "max_parallel_requests",
    "budget": "max_budget",
    "period": "budget_duration",
    "spent": "spend",
    "expires": "duration",
    "blocked": "blocked",
    "metadata": "metadata",
}


_OPTIONS = {
    **{called: f"--{name.replace('_', '-')}" for name, called in _CALLED.items()},
    "key_alias": "NAME",
    "models": "--model",
}
"""What callers of the API call the parts of a key, and how they are said on a command line."""


@click.group(short_help="Keys of the proxy.")
def keys() -> None:
    """Make, show, change and delete the keys of the proxy.

    A key is shown once, when it is made. KEY is its name, its hash, or the key itself; but other users of this
    machine can read a command line.
    """


@keys.command(short_help="Make a key.")
@click.argument("name", required=False)
@_limits
@_database
def make(name: str | None, database: str | None, config: Path | None, **given: Any) -> None:
    """Make a key, and print it: it is not shown again.

    What is not limited has no limit.
    """
    from ..gateway.keys import new

    with _opened(database, config, new=True) as store:
        key, kept = new(_given(name=name, **given), time.time())
        kept = store.add_key(kept)
    click.echo(key)
    remark(f"{kept.name or kept.hint}: this is the only time that it is shown")


@keys.command("list", short_help="List the keys.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each.")
@_database
def list_(as_json: bool, database: str | None, config: Path | None) -> None:
    """List the keys, without the keys themselves."""
    with _opened(database, config) as store:
        found = store.keys()
    if as_json:
        _dump(found)
        return
    head = ("name", "key", "models", "spent", "budget", "rpm", "tpm", "parallel", "expires", "state")
    table(head, [_line(key) for key in found])


@keys.command(short_help="Show a key.")
@click.argument("key")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@_database
def show(key: str, as_json: bool, database: str | None, config: Path | None) -> None:
    """Show all that is known of a key."""
    from ..gateway.keys import shown

    with _opened(database, config) as store:
        found = _found(store, key)
    if as_json:
        _dump([found])
        return
    table(("field", "value"), [(name, _text(value)) for name, value in shown(found).items()])


@keys.command(short_help="Change a key.")
@click.argument("key")
@click.option("--name", help="What it is called.")
@_limits
@click.option("--spent", help="What it has spent in this period, so far.")
@click.option("--block/--unblock", "blocked", default=None, help="Refuse it, or no longer.")
@_database
def update(key: str, database: str | None, config: Path | None, **given: Any) -> None:
    """Change what is given, and nothing else. `none` takes a limit away; `--model '*'` allows every model."""
    from ..gateway.keys import parse

    with _opened(database, config) as store:
        parts = parse(_given(**given), time.time())
        if not parts:
            raise click.UsageError("nothing is to be changed", click.get_current_context())
        changed = store.update_key(_found(store, key).id, parts)
    remark(f"{changed.name or changed.hint} is changed")


@keys.command(short_help="Delete keys.")
@click.argument("key", nargs=-1, required=True)
@_database
def delete(key: tuple[str, ...], database: str | None, config: Path | None) -> None:
    """Delete keys, for good: all that are named, or none."""
    with _opened(database, config) as store:
        found = [_found(store, each) for each in key]
        store.delete_keys([each.id for each in found])
    remark(f"deleted: {', '.join(each.name or each.hint for each in found)}")


@keys.command(short_help="Print a new master key.")
def secret() -> None:
    """Print a new key and keep it nowhere: for general_settings.master_key."""
    from ..gateway.keys import make

    click.echo(make())


@click.command(short_help="What was spent.")
@click.option(
    "--by", type=click.Choice(["day", "key", "model", "group", "provider"]), help="What to sum by. Default: day."
)
@click.option("--start", metavar="DAY", help="The first day, in UTC: 2027-01-31.")
@click.option("--end", metavar="DAY", help="The last day.")
@click.option("--key", help="Of this key alone: its name or its hash.")
@click.option("-m", "--model", help="Of this model or group alone.")
@click.option("--csv", "csv_file", metavar="FILE", help="Every request, or with --by the sums, as CSV; - prints it.")
@_database
def spend(
    by: str | None,
    start: str | None,
    end: str | None,
    key: str | None,
    model: str | None,
    csv_file: str | None,
    database: str | None,
    config: Path | None,
) -> None:
    """Show what was spent through the proxy: requests, tokens, US dollars."""
    from ..gateway.keys import day, dollars, moment
    from ..gateway.store import write_sums

    try:
        days = {"start": start and day(start), "end": end and day(end)}
        first, last = (moment(start) if start else None), (moment(end, end=True) if end else None)
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context()) from None
    with _opened(database, config) as store:
        chosen = None if key is None else _found(store, key, deleted=True).id
        if csv_file is not None and by is None:
            with _file(csv_file) as file:
                count = store.export_csv(file, start=first, end=last, key=chosen, model=model)
            remark(f"{count:,} requests")
            return
        by = by or "day"
        rows = store.spend(by, **days, key=chosen, model=model)
    if csv_file is not None:
        with _file(csv_file) as file:
            write_sums(file, by, rows)
        return
    counts = ("requests", "failures", "prompt_tokens", "completion_tokens")
    shown = [
        (
            _text(row.get("key_alias") or row[by]) or "-",
            *(f"{row[name]:,}" for name in counts),
            f"{dollars(row['cost']):,.6f}",
        )
        for row in rows
    ]
    if len(rows) > 1 and sys.stdout.isatty():
        total = {name: sum(row[name] for row in rows) for name in (*counts, "cost")}
        shown.append(("", *(f"{total[name]:,}" for name in counts), f"{dollars(total['cost']):,.6f}"))
    table((by, "requests", "failed", "prompt", "completion", "USD"), shown)


@contextmanager
def _opened(database: str | None, config: Path | None, *, new: bool = False) -> "Iterator[Store]":
    """The store; what is wrong with it, or with what it is asked, is an error of the command line.

    new: a file that is not there is made.
    """
    try:
        from ..gateway.store import DEFAULT, Store, StoreError, file_of
    except ModuleNotFoundError as error:
        raise click.UsageError(
            f"keys need {error.name}, which is not installed: pip install 'penstock[proxy]'",
            click.get_current_context(),
        ) from None
    # In the order that the proxy has.
    named = _named(config) if database is None and config is not None else database
    url = named or os.environ.get("PENSTOCK_DATABASE") or DEFAULT
    try:
        file = file_of(url)
        missing = file is not None and not file.exists()
        if missing and not new:
            # To look into a database that is not there would make one.
            what = f"there is no database {file}: --database or --config names another"
            raise click.UsageError(what, click.get_current_context())
        store = Store(url)
        if missing and file is not None:
            remark(f"{file.absolute()} is new: --database or --config names that of a proxy which is elsewhere")
        try:
            yield store
        finally:
            store.close()
    except BadRequestError as error:
        said = str(error)
        if error.param in _OPTIONS:
            said = said.replace(error.param, _OPTIONS[error.param], 1).replace("or null", f"or {NONE}")
        raise click.UsageError(said, click.get_current_context()) from None
    except (StoreError, NotFoundError) as error:
        raise click.UsageError(str(error), click.get_current_context()) from None


def _named(config: Path) -> str | None:
    """The database that the proxy has by its config. Whatever else the config wants, as the keys of upstreams."""
    from ..gateway.config import read

    found = read(config)
    settings = found.values.get("general_settings")
    for problem in found.errors:
        if settings is None or problem.place == ("general_settings", "database_url"):
            raise click.UsageError(str(problem), click.get_current_context())
    return settings["database_url"] if settings else None


def _given(**given: Any) -> dict[str, Any]:
    """Options, as callers of the API would give them."""
    import orjson

    parts: dict[str, Any] = {}
    for name, value in given.items():
        if value is None or value == ():
            continue
        parts[_CALLED[name]] = None if value in (NONE, (NONE,), ("*",)) else value
        if name in ("rpm", "tpm", "max_parallel") and isinstance(value, str) and value.isdecimal():
            parts[_CALLED[name]] = int(value)
        if name == "metadata" and value != NONE:
            try:
                parts["metadata"] = orjson.loads(value)
            except orjson.JSONDecodeError as error:
                raise click.UsageError(f"--metadata is no JSON: {error}", click.get_current_context()) from None
    return parts


def _found(store: "Store", key: str, *, deleted: bool = False) -> "Key":
    found = store.find_key(key, deleted=deleted)
    if found is None:
        # A key is not repeated: it was a secret.
        raise NotFoundError("there is no such key" if key.startswith("sk-") else f"there is no key {key!r}")
    return found


def _line(key: "Key") -> Sequence[str]:
    from ..gateway.keys import dollars, shown_time

    now = time.time()
    state = "blocked" if key.blocked else "expired" if key.expires is not None and key.expires <= now else ""
    if not state and key.budget is not None and key.spent >= key.budget:
        state = "spent"
    budget = "" if key.budget is None else f"{dollars(key.budget):g}"
    return (
        key.name or "",
        key.hint,
        ", ".join(key.models) or "all",
        f"{dollars(key.spent):.6f}",
        budget + (f" / {key.budget_period}" if key.budget_period else ""),
        *(("" if limit is None else str(limit)) for limit in (key.rpm, key.tpm, key.max_parallel)),
        shown_time(key.expires) or "",
        state or "good",
    )


def _text(value: Any) -> str:
    import orjson

    if value is None or value == []:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return orjson.dumps(value).decode() if value else ""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _dump(found: "Sequence[Key]") -> None:
    import orjson

    from ..gateway.keys import shown

    for key in found:
        click.echo(orjson.dumps(shown(key)))


@contextmanager
def _file(name: str) -> Iterator[Any]:
    if name == "-":
        yield sys.stdout
        return
    try:
        file = Path(name).open("w", encoding="utf-8", newline="")  # noqa: SIM115  it is closed below
    except OSError as error:
        raise click.UsageError(f"--csv {name}: {error.strerror}", click.get_current_context()) from None
    with file:
        yield file
