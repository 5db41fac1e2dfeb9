"""Tables with the answers beside their rows, for engines that give each of many workers a part of the table."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, Unpack

import orjson

from ..configuration import configured, current
from ..errors import AuthenticationError, BadRequestError
from ..wire import Parameters, plain
from .pace import Limits
from .rows import BulkRow, fields_of, table_rows
from .run import Bulk, Run

if TYPE_CHECKING:
    from ..call import Options

RESULTS = {
    "text": "string",
    "response": "string",
    "error": "string",
    "prompt_tokens": "int64",
    "completion_tokens": "int64",
    "total_tokens": "int64",
    "cost": "double",
    "latency": "double",
    "attempts": "int64",
}
"""The columns that come to a table, with their Arrow types. response and error are JSON: one of the two is null."""

SUBJECT = ("messages", "prompt", "model")
BATCHED = ("body", "method", "url")
"""The columns that are the request unless the caller names others: of a plain table, and of OpenAI's batch format."""

PARAMETERS = Parameters.__optional_keys__ | {"extra_body"}

NESTED = ("body", "messages", "tools", "response_format")
"""What may be a column of JSON too, as not every engine has columns of lists and structs."""


class Share:
    """What one worker asks, and its part of the limits. It can be pickled, and sent to all workers.

    The defaults of `configure` that hold where it is made hold on the workers too, but for hooks.

    Args:
        model: asked for every row. Without it the rows have a column `model`.
        max_in_flight: how many requests at once; a number is divided by the workers, "auto" is found by each of them.
        rpm, tpm: requests and tokens a minute, divided by the workers.
        workers: how many ask at the same time. Needed for max_in_flight, rpm and tpm, which are for all of them.
        columns: those that are the request, parameters among them. Default: messages or prompt, and model; or body,
            method and url of the batch format. Every other column is carried along; one that has the name of a
            parameter (n, user, stop) is refused unless `columns` says what it is.
        options: as `completion`'s, for every row; parameters in a row win. An api_key is sent to the workers; without
            it they look for it in their own environment.

    Raises:
        BadRequestError: an argument that cannot be.
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        max_in_flight: int | Literal["auto"] = "auto",
        rpm: float | None = None,
        tpm: float | None = None,
        workers: int | None = None,
        columns: Sequence[str] | None = None,
        **options: "Unpack[Options]",
    ) -> None:
        whole = {"max_in_flight": None if max_in_flight == "auto" else max_in_flight, "rpm": rpm, "tpm": tpm}
        limited = [name for name, limit in whole.items() if limit is not None]
        if workers is None and limited:
            raise BadRequestError(f"{limited[0]} is for all workers: workers says how many they are", param="workers")
        if workers is not None and workers < 1:
            raise BadRequestError(f"workers must be above 0, not {workers!r}", param="workers")
        Limits(max_in_flight, rpm, tpm, 0.0)
        count = workers or 1
        if max_in_flight != "auto" and max_in_flight < count:
            raise BadRequestError(
                f"max_in_flight must be one for each of {count} workers, not {max_in_flight}", param="max_in_flight"
            )
        self.model = model
        self.columns = columns
        self.options = options
        self.limits: tuple[int | Literal["auto"], float | None, float | None] = (
            max_in_flight if max_in_flight == "auto" else max_in_flight // count,
            None if rpm is None else rpm / count,
            None if tpm is None else tpm / count,
        )
        defaults = current()
        self.defaults = {
            item.name: value
            for item in fields(defaults)
            if item.name != "hooks" and (value := getattr(defaults, item.name)) is not None
        }
        with suppress(AuthenticationError):  # the workers may have a key
            self._run((), Limits(*self.limits, monotonic())).close()

    def _run(self, rows: Iterable[Any], limits: Limits) -> Run:
        with configured(**self.defaults):
            return Run(rows, limits=limits, model=self.model, ordered=True, options=self.options)

    def answers(self, tables: Iterable[Any]) -> Iterator[Any]:
        """The Arrow tables, or record batches, in their order, with the RESULTS beside their rows.

        Raises:
            BadRequestError: a table without requests, or with a column that has the name of a result.
            APIError: rows one after the other fail in a way that all would.
        """
        waiting: deque[Any] = deque()
        done: list[tuple[Any, ...]] = []

        def rows() -> Iterator[Any]:
            for table in tables:
                asked = table.select(self.asked(table.schema.names))
                waiting.append(table)
                yield from map(_parsed, table_rows(asked))

        with self._turn() as limits, Bulk(self._run(rows(), limits)) as answered:
            for row in answered:
                done.append(_values(row))
                while waiting and len(done) >= (count := waiting[0].num_rows):
                    yield _beside(waiting.popleft(), done[:count])
                    del done[:count]
        for table in waiting:
            yield _beside(table, [])  # without rows: all others are complete

    def asked(self, names: Sequence[str]) -> list[str]:
        """Those of a table's columns that are the request.

        Raises:
            BadRequestError: there are none, or one has the name of a result, or of a parameter.
        """
        refuse_taken(names)
        if self.columns is not None:
            chosen = list(self.columns)
            missing = [name for name in chosen if name not in names]
        elif "body" in names:
            chosen, missing = [name for name in BATCHED if name in names], []
        else:
            chosen = [name for name in SUBJECT if name in names]
            missing = [] if {"messages", "prompt"} & set(chosen) else ["messages", "prompt"]
            unclear = [name for name in names if name in PARAMETERS]
            if unclear and not missing:
                raise BadRequestError(
                    f"{unclear[0]} may be a parameter of the request or a column like any other: columns says which "
                    "are the request",
                    param="columns",
                )
        if missing:
            raise BadRequestError(
                f"the table has no column {' or '.join(missing)}: it has {', '.join(map(str, names))}", param="columns"
            )
        return chosen

    @contextmanager
    def _turn(self) -> Iterator[Limits]:
        """The limits, for as long as they are nobody else's in this process."""
        key = (self.model, self.options.get("api_base"), self.options.get("base_url"), *self.limits)
        idle = _idle.setdefault(key, [])
        try:
            limits = idle.pop()
        except IndexError:
            limits = Limits(*self.limits, monotonic())
        try:
            yield limits
        finally:
            idle.append(limits)


_idle: dict[tuple[Any, ...], list[Limits]] = {}
"""What this process knows of pace and rates, while nobody asks: a worker is called for one part of a table after the
other, and must not begin each of them with a new minute. Several threads have several, and each is a worker."""


def refuse_taken(names: Iterable[str]) -> None:
    """Refuses a table to which the results cannot be added.

    Raises:
        BadRequestError: a column has the name of a result.
    """
    taken = [name for name in names if name in RESULTS]
    if taken:
        raise BadRequestError(
            f"the table has a column {taken[0]}, and the results have one too: rename it", param="columns"
        )


def empty() -> Any:
    """An Arrow table of the RESULTS, without rows."""
    import pyarrow as pa

    return pa.schema(list(RESULTS.items())).empty_table()


def _parsed(row: dict[str, Any]) -> dict[str, Any]:
    for name in NESTED:
        if isinstance(text := row.get(name), str):
            with suppress(ValueError):  # what is no JSON is refused with the row
                row[name] = orjson.loads(text)
    return row


def _values(row: BulkRow) -> tuple[Any, ...]:
    """A row of the RESULTS."""
    response, error, usage = row.response, row.error, row.usage
    return (
        response.choices[0].message.content if response is not None and response.choices else None,
        None if response is None else orjson.dumps(response, default=plain).decode(),
        None if error is None else orjson.dumps(fields_of(error), default=plain).decode(),
        None if usage is None else usage.prompt_tokens,
        None if usage is None else usage.completion_tokens,
        None if usage is None else usage.total_tokens,
        row.cost,
        row.latency,
        len(row.attempts),
    )


def _beside(table: Any, rows: Sequence[tuple[Any, ...]]) -> Any:
    """The table with the results of its rows."""
    import pyarrow as pa

    added = empty().schema
    results = zip(*rows, strict=True) if rows else [()] * len(added)
    arrays = [pa.array(values, field.type) for values, field in zip(results, added, strict=True)]
    schema = pa.schema([*table.schema, *added], metadata=table.schema.metadata)
    return type(table).from_arrays([*table.columns, *arrays], schema=schema)
