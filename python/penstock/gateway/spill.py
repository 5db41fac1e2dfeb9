"""Rows that the database does not have yet, on the local disk.

Lines of JSON in segments: files that only grow, each of one process, which holds a lock on it. A segment is read back
when the database answers again, and removed when it is all there. Those of a process that was killed have no lock, and
the next one to start takes them over. To write a row twice does no harm (see `Store.write`), so nothing here has to
remember how far it came.
"""

import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from glob import escape
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

import orjson

from ..many.checkpoint import sync_folder

SEGMENT = 64 << 20
"""Bytes after which the next segment begins: what was read back can be removed while more is written."""


log = logging.getLogger("penstock.gateway")


class Spill:
    """Segments beside each other: `spend.spill` has `spend.spill.4f1c...jsonl`, and others.

    Args:
        path: what their names begin with. The folder is made when there is something to write.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = Lock()
        self._writing: Segment | None = None
        self._waiting: list[Segment] = []

    def adopt(self) -> int:
        """Takes over what other processes left. Gives how many segments."""
        count = 0
        for path in sorted(self.path.parent.glob(f"{escape(self.path.name)}.*.jsonl")):
            segment = Segment.left(path)
            if segment is not None:
                with self._lock:
                    self._waiting.append(segment)
                count += 1
        return count

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes rows, and waits until they are on the disk.

        Raises:
            OSError: they are not.
        """
        data = b"".join(orjson.dumps(row, default=dict) + b"\n" for row in rows)
        if not data:
            return
        with self._lock:
            if self._writing is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._writing = Segment.new(self.path.with_name(f"{self.path.name}.{uuid4().hex}.jsonl"))
            self._writing.append(data)
            if self._writing.size >= SEGMENT:
                self._waiting.append(self._writing)
                self._writing = None

    def __bool__(self) -> bool:
        """Whether there is anything to read back."""
        return bool(self._waiting) or self._writing is not None

    def segments(self) -> "list[Segment]":
        """What is to be read back, the oldest first. What is written from now on goes to another segment."""
        with self._lock:
            if self._writing is not None:
                self._waiting.append(self._writing)
                self._writing = None
            return list(self._waiting)

    def remove(self, segment: "Segment") -> None:
        """A segment is in the database."""
        with self._lock:
            self._waiting.remove(segment)
        segment.remove()

    def close(self) -> None:
        """Lets go of the files: the next process may have them."""
        with self._lock:
            for segment in [*self._waiting, *([self._writing] if self._writing else [])]:
                segment.close()
            self._waiting, self._writing = [], None


class Segment:
    """One of the files, open and locked.

    own: whether this process wrote it.
    """

    def __init__(self, path: Path, file: int, *, own: bool) -> None:
        self.path = path
        self.own = own
        self.size = os.fstat(file).st_size
        self._file = file

    @classmethod
    def new(cls, path: Path) -> "Segment":
        """A segment that is not there yet."""
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        _lock(file)
        sync_folder(path)
        return cls(path, file, own=True)

    @classmethod
    def left(cls, path: Path) -> "Segment | None":
        """A segment of a process that is no more. None: it is somebody's, or gone, or not for us."""
        try:
            file = os.open(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.error("%s: %s. The spend rows in it stay there", path, error.strerror)  # noqa: TRY400  the message is all
            return None
        # Between the two its owner may have removed it.
        if not _lock(file) or not path.exists():
            os.close(file)
            return None
        return cls(path, file, own=False)

    def append(self, data: bytes) -> None:
        """Writes whole lines."""
        begin = self.size
        try:
            while data:
                written = os.write(self._file, data)
                self.size += written
                data = data[written:]
            os.fsync(self._file)
        except OSError:
            # On a full disk half a line may be there, which would spoil the next one.
            with suppress(OSError):
                os.ftruncate(self._file, begin)
                self.size = begin
            raise

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows. A line that was being written when the machine stopped is none."""
        # By the file that is held, whatever its name is by now.
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(0)
            for line in file:
                with suppress(orjson.JSONDecodeError):
                    row = orjson.loads(line)
                    if isinstance(row, dict):
                        yield row

    def remove(self) -> None:
        """Removes the file."""
        self.close()  # first, for systems that keep a file that is open
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Lets go of it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _lock(file: int) -> bool:
    if sys.platform == "win32":
        return True  # two nodes in one folder are for their operator to keep apart there
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
