"""Rows: where requests come from, what they mean, and what becomes of them."""

import os
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from .._native import ChatCompletion, CompletionUsage
from ..errors import APIError, BadRequestError
from ..stream import Attempt
from ..wire import Parameters, plain
from .checkpoint import ID

BATCH = 1024
"""Rows of a table that are Python objects at a time."""

REQUEST = ("model", "messages", "prompt", "custom_id", "id", "stream", "extra_body")
NAMES = frozenset({*REQUEST, *Parameters.__optional_keys__})
"""What a row may say. Keys, addresses and files are for the caller alone: a row is data, and may be anybody's."""

PATHS = ("/chat/completions",)
"""How the url of a row in the batch format ends."""


@dataclass(frozen=True, slots=True)
class BulkRow:
    """What became of one row of the input.

    index: its number in the input, from 0. id: its custom_id or id, if it has one. request: the row as it was read.
    response or error: the one that is there. usage: the tokens, as far as they are known. cost: in US dollars, where
    prices are known. latency: seconds from the first request to the end, pauses between attempts included. attempts:
    every request, failed ones first.
    """

    index: int
    id: str | None
    request: Any
    response: ChatCompletion | None
    error: APIError | None
    usage: CompletionUsage | None
    cost: float | None
    latency: float
    attempts: Sequence[Attempt]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it stands in an output file.

        A row in OpenAI's batch format (with custom_id, method, url and body) has its result in that format too: id,
        custom_id, response and error. Others have row, id, response, error, usage, cost, latency and attempts.
        """
        error = self.error
        failed: dict[str, Any] | None = None if error is None else fields_of(error)
        if isinstance(self.request, Mapping) and "body" in self.request:
            answer: dict[str, Any] | None = None
            if self.response is not None:
                answer = {"status_code": 200, "request_id": None, "body": self.response}
            elif error is not None and error.status_code is not None:
                answer = {
                    "status_code": error.status_code,
                    "request_id": error.request_id,
                    "body": {"error": failed},
                }
            failed = None if answer is not None else failed
            return {"id": f"{ID}{self.index}", "custom_id": self.id, "response": answer, "error": failed}
        return {
            "row": self.index,
            "id": self.id,
            "response": self.response,
            "error": failed,
            "usage": self.usage,
            "cost": self.cost,
            "latency": round(self.latency, 6),
            "attempts": len(self.attempts),
        }

    def to_json(self) -> bytes:
        """`to_dict` as a line of JSON."""
        return orjson.dumps(self.to_dict(), default=plain) + b"\n"


def fields_of(error: APIError) -> dict[str, Any]:
    """An error as plain data."""
    # Whoever reads the batch format finds a code in every error: without the provider's it is the name of the class.
    code = error.code if error.code is not None else type(error).__name__
    return {
        "message": error.message,
        "class": type(error).__name__,
        "status": error.status_code,
        "code": code,
        "type": error.type,
        "param": error.param,
    }


class Lines:
    """The lines of a JSON Lines file, empty ones as b"". `place` is how many bytes have been read of `size`."""

    def __init__(self, path: "str | os.PathLike[str]") -> None:
        self._file = Path(path).open("rb")  # noqa: SIM115  closed by close(), or with this object
        self.size = os.fstat(self._file.fileno()).st_size
        self.place = 0

    def __iter__(self) -> Iterator[bytes]:
        for line in self._file:
            self.place += len(line)
            yield line.strip()
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def rows_of(requests: Any) -> Any:
    """The rows of an input as an iterable, or as an asynchronous one if it is that.

    Raises:
        BadRequestError: nothing that has rows.
        OSError: the file cannot be read.
    """
    if isinstance(requests, str | os.PathLike):
        return Lines(requests)
    if hasattr(requests, "__arrow_c_stream__"):
        return table_rows(requests)
    if isinstance(requests, Iterable | AsyncIterable) and not isinstance(requests, bytes | Mapping):
        return requests
    raise BadRequestError(
        "requests must be the path of a JSON Lines file, an iterable of rows, or an Arrow table, "
        f"not {type(requests).__name__}",
        param="requests",
    )


def table_rows(table: Any) -> Iterator[dict[str, Any]]:
    """The rows of an Arrow table or reader, or of any frame that offers itself as one, without their nulls.

    Raises:
        ModuleNotFoundError: pyarrow is not installed.
    """
    import pyarrow as pa

    for batch in pa.RecordBatchReader.from_stream(table):
        for start in range(0, batch.num_rows, BATCH):
            for row in batch.slice(start, BATCH).to_pylist():
                yield without_nulls(row)


def without_nulls(value: Any) -> Any:
    """Data of a table as JSON has it: a struct in a column has every field of every row, most of them null."""
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [without_nulls(each) for each in value]
    return value


def read(raw: Any) -> Any:
    """A row as data.

    Raises:
        BadRequestError: a line that is not JSON.
    """
    if not isinstance(raw, bytes):
        return raw
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"the line is not JSON: {error}") from None


def name_of(row: Any) -> str | None:
    """The custom_id of a row, or its id."""
    if not isinstance(row, Mapping):
        return None
    name = row.get("custom_id", row.get("id"))
    return None if name is None else str(name)


def asked(row: Any, model: str | None) -> tuple[str, Any, dict[str, Any]]:
    """Model, messages and parameters of a row. A `model` of the caller's is asked whatever the row says.

    Raises:
        BadRequestError: the row is no request.
    """
    if isinstance(row, str):
        row = {"prompt": row}
    elif isinstance(row, Sequence):
        row = {"messages": row}
    if not isinstance(row, Mapping):
        raise BadRequestError(f"a row is a request, a list of messages or a prompt, not {type(row).__name__}")
    if "body" in row:
        row = _batched(row)
    unknown = [str(name) for name in row if name not in NAMES]
    if unknown:
        raise BadRequestError(
            f"a row may not say {', '.join(unknown)}: it has messages or prompt, model, id, and parameters",
            param=unknown[0],
        )
    if row.get("stream"):
        raise BadRequestError("rows are not streamed", param="stream")
    model = model or row.get("model")
    if model is None:
        raise BadRequestError("neither the call nor the row names a model", param="model")
    messages = row.get("messages")
    if (messages is None) == (row.get("prompt") is None):
        raise BadRequestError("a row has either messages or a prompt", param="messages")
    if messages is None:
        messages = [{"role": "user", "content": row["prompt"]}]
    given = {name: row[name] for name in row if name in Parameters.__optional_keys__ or name == "extra_body"}
    return model, messages, given


def _batched(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The request within a row of the batch format."""
    body, method, url = row["body"], row.get("method", "POST"), row.get("url", PATHS[0])
    if not isinstance(body, Mapping):
        raise BadRequestError(f"body must be a request, not {type(body).__name__}", param="body")
    if method != "POST" or not str(url).partition("?")[0].endswith(PATHS):
        raise BadRequestError(f"{method} {url} is no chat completion", param="url")
    return body
