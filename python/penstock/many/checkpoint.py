"""What is done, on disk: ranges of rows in a log that only grows, until it is written anew and short.

The first line names the input; every other one adds to what is done:

    {"bulk":{"bytes":65536,"sha256":"..."}}
    {"rows":[[0,99],[103,103]],"output":48213}

`output` is how many bytes of the output file these rows, and those of all lines before, account for. The output is
written and synced first, so no row is in here that is not there. Rows behind that place are there and not yet here:
whoever resumes reads them from the output itself.
"""

import os
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import orjson

from ..errors import BadRequestError

HEAD = 1 << 16
"""Bytes at the beginning of an input by which it is known again: more may be added to its end."""

COMPACT = 1 << 20
"""Bytes that the log may grow by before it is written anew."""

SYNC = 1.0
"""Seconds between two syncs. The end of the process loses nothing that was written; the end of the machine may lose as
much as this."""


class Ranges:
    """A set of row numbers that is small while they lie together."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.count = 0

    def __contains__(self, row: int) -> bool:
        at = bisect_right(self._starts, row) - 1
        return at >= 0 and row <= self._ends[at]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    def add(self, first: int, last: int) -> None:
        """Adds the rows from first to last, both included."""
        starts, ends = self._starts, self._ends
        # The ranges that touch these rows, from `low` up to `high`, become one with them.
        low = bisect_right(ends, first - 2)
        high = bisect_right(starts, last + 1)
        if low < high:
            first, last = min(first, starts[low]), max(last, ends[high - 1])
            self.count -= sum(ends[at] - starts[at] + 1 for at in range(low, high))
        starts[low:high] = [first]
        ends[low:high] = [last]
        self.count += last - first + 1


class Checkpoint:
    """The rows that are done, and the file that says so.

    One process at a time may use the file; a killed one leaves it free.

    Args:
        path: the file; it is made if it is not there.
        source: the file that the rows come from, if they come from one.

    Raises:
        BadRequestError: the file is none of these, belongs to another input, or is in use.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: "str | os.PathLike[str]", source: "str | os.PathLike[str] | None" = None) -> None:
        self.path = Path(path)
        self.done = Ranges()
        self.output = 0
        self.fresh = not self.path.exists() or not self.path.stat().st_size
        self._pending = Ranges()
        self._synced = monotonic()
        self._head = b""
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            _lock(self._file, self.path)
            if self.fresh:
                known = None if source is None else _fingerprint(source, HEAD)
                self._head = orjson.dumps({"bulk": known}) + b"\n"
                _write(self._file, self._head)
                os.fsync(self._file)
            else:
                self._read(source)
        except BaseException:
            os.close(self._file)
            raise
        self._size = self._short = os.fstat(self._file).st_size

    def _read(self, source: "str | os.PathLike[str] | None") -> None:
        text = self.path.read_bytes()
        whole = text.rfind(b"\n") + 1
        head, *lines = text[:whole].splitlines() or [b""]
        try:
            known = orjson.loads(head)["bulk"]
            for line in lines:
                entry = orjson.loads(line)
                for first, last in entry["rows"]:
                    self.done.add(first, last)
                self.output = entry.get("output", self.output)
        except (ValueError, KeyError, TypeError) as error:
            raise BadRequestError(f"{self.path} is no checkpoint: {error}", param="checkpoint") from None
        if source is not None and known is not None and known != _fingerprint(source, known["bytes"]):
            raise BadRequestError(
                f"{self.path} is the checkpoint of another input. Give each input a checkpoint of its own",
                param="checkpoint",
            )
        self._head = head + b"\n"
        os.ftruncate(self._file, whole)  # a line that was being written when the machine stopped

    def add(self, row: int) -> None:
        """A row is done. It is on disk after the next `commit`."""
        self.done.add(row, row)
        self._pending.add(row, row)

    def due(self) -> bool:
        """Whether it is time for a sync."""
        return monotonic() - self._synced >= SYNC

    def commit(self, output: int | None = None, *, sync: bool = False) -> None:
        """Writes down what was added; `output` is how long the output is with it."""
        if output is not None:
            self.output = output
        if self._pending.count:
            line = self._line(self._pending)
            _write(self._file, line)
            self._size += len(line)
            self._pending = Ranges()
        if sync:
            os.fsync(self._file)
            self._synced = monotonic()
        if self._size - self._short > COMPACT:
            self._compact()

    def _line(self, rows: Ranges) -> bytes:
        entry: dict[str, Any] = {"rows": list(rows)}
        if self.output:
            entry["output"] = self.output
        return orjson.dumps(entry) + b"\n"

    def _compact(self) -> None:
        """The same in two lines, in a file that takes the place of this one in one step."""
        beside = self.path.with_name(self.path.name + ".new")
        file = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        try:
            _lock(file, self.path)
            _write(file, self._head + self._line(self.done))
            os.fsync(file)
            beside.replace(self.path)
        except BaseException:
            os.close(file)
            raise
        sync_folder(self.path)
        os.close(self._file)
        self._file = file
        self._size = self._short = os.fstat(file).st_size

    def close(self) -> None:
        """Writes what is left and lets go of the file."""
        if self._file >= 0:
            self.commit(sync=True)
            if self._size > self._short:
                self._compact()
            os.close(self._file)
            self._file = -1


def _fingerprint(path: "str | os.PathLike[str]", length: int) -> dict[str, Any]:
    """What tells an input from another one: the hash of its beginning."""
    import hashlib

    with Path(path).open("rb") as file:
        head = file.read(length)
    # A last line that is still being written is no part of it.
    head = head[: head.rfind(b"\n") + 1 or len(head)]
    return {"bytes": len(head), "sha256": hashlib.sha256(head).hexdigest()}


def sync_folder(path: Path) -> None:
    """A file's name is on disk when its folder is."""
    with suppress(OSError):  # not every system opens folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _lock(file: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:
        return  # a system without it: two runs at once are the caller's to prevent
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise BadRequestError(f"{path} is in use by another run", param="checkpoint") from None


class Output:
    """The file of results: a line of JSON for each row, whole or not there.

    Raises:
        BadRequestError: the file has results that the checkpoint knows nothing of.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: "str | os.PathLike[str]", checkpoint: Checkpoint) -> None:
        self.path = Path(path)
        self.checkpoint = checkpoint
        if checkpoint.fresh and self.path.exists() and self.path.stat().st_size:
            raise BadRequestError(
                f"{self.path} exists, and no checkpoint says what is in it. Move it away, or name another output",
                param="output",
            )
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        self._unsynced = False
        try:
            self._size = self._resume()
        except BaseException:
            os.close(self._file)
            raise

    def _resume(self) -> int:
        """Reads what the checkpoint has not seen, and takes away a line that was cut."""
        size = os.fstat(self._file).st_size
        whole = self.checkpoint.output
        if size < whole:
            raise BadRequestError(
                f"{self.path} has {size} bytes, and its checkpoint knows {whole}: one of them is not of this run",
                param="output",
            )
        with open(self._file, "rb", closefd=False) as file:
            file.seek(whole)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.checkpoint.add(row_of(orjson.loads(line)))
                whole += len(line)
        os.ftruncate(self._file, whole)
        os.lseek(self._file, whole, os.SEEK_SET)
        self._size = whole
        self.commit()
        return whole

    def write(self, row: int, line: bytes) -> None:
        """Writes the result of a row. A line that begins without its end is taken away by the next run."""
        _write(self._file, line)
        self._size += len(line)
        self.checkpoint.add(row)
        if self.checkpoint.due():
            self.commit()

    def commit(self) -> None:
        """Syncs the results, then the checkpoint that tells of them: so nothing is told that is not there."""
        os.fsync(self._file)
        self.checkpoint.commit(self._size, sync=True)

    def close(self) -> None:
        """Commits, and lets go of the file."""
        if self._file >= 0:
            self.commit()
            os.close(self._file)
            self._file = -1


ID = "batch_req_"
"""What the id of a result in the batch format begins with; the number of its row follows."""


def row_of(result: dict[str, Any]) -> int:
    """The number of the row that a line of the output is about."""
    row: int = result["row"] if "row" in result else int(result["id"].removeprefix(ID))
    return row
