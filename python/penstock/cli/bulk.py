"""A file of requests, and its progress on standard error."""

import shlex
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .. import bulk
from .talk import remark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..many.run import Bulk, Progress

SHOWN = 0.25
"""Seconds between two looks at the progress."""


def run(requests: str, output: str, **options: Any) -> int:
    """Ask everything in the file; results go to the other one.

    Returns the exit status: 0, 1 if rows failed, 130 after Ctrl-C.
    """
    began = time.monotonic()
    with bulk(requests, output=output, **options) as rows, _shown(rows, began) as look:
        if rows.progress.resumed:
            remark(f"{rows.progress.resumed:,} rows were done before")
        interrupted = 0
        while True:
            try:
                for _ in rows:
                    look()
                break
            except KeyboardInterrupt:
                interrupted += 1
                if interrupted > 1:
                    break
                rows.stop()
                remark(f"finishing {rows.progress.in_flight} rows in flight; Ctrl-C once more drops them")
        progress = rows.progress
    remark(_summary(progress, time.monotonic() - began))
    if interrupted:
        remark(f"What is done is in {output}. To go on: {_again()}")
        return 130
    return 1 if progress.failed else 0


def _again() -> str:
    """This command line, without the key."""
    words = ["penstock", *sys.argv[1:]]
    for at, word in enumerate(words):
        if word == "--api-key":
            words[at + 1 : at + 2] = ["KEY"]
        elif word.startswith("--api-key="):
            words[at] = "--api-key=KEY"
    return shlex.join(words)


def _summary(progress: "Progress", seconds: float) -> str:
    parts = [f"{progress.rows:,} rows in {seconds:,.1f} s"]
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    parts.append(f"{progress.prompt_tokens:,} + {progress.completion_tokens:,} tokens")
    if progress.cost:
        parts.append(f"${progress.cost:,.4f}")
    if progress.rows:
        parts.append(f"{progress.rows / max(seconds, 1e-9):,.1f} rows/s")
    return ", ".join(parts)


@contextmanager
def _shown(rows: "Bulk", began: float) -> "Iterator[Callable[[], None]]":
    """Gives what is to be called after each row: it moves the bar, where there is a terminal."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[said]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, said="")
        due = 0.0

        def look() -> None:
            nonlocal due
            now = time.monotonic()
            if now >= due:
                due = now + SHOWN
                progress = rows.progress
                said = f"{_summary(progress, now - began)}, {progress.in_flight} in flight"
                bar.update(task, completed=progress.place or 0, total=progress.size, said=said)

        yield look
