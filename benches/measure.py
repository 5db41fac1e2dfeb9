"""How figures are taken and kept: rounds that alternate, CPU time, medians with their range, and where it was.

Absolute microseconds move with the machine; ratios within one run are what the budgets are written in.
"""

import argparse
import contextlib
import datetime as dt
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PEERS = (
    "penstock",
    "openai",
    "litellm",
    "tensorzero",
    "any-llm-sdk",
    "httpx",
    "httpx-sse",
    "httpx2",
    "h2",
    "aiohttp",
    "orjson",
    "jiter",
    "msgspec",
    "uvloop",
)


def arguments(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """The options that every bench has."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument(
        "--rounds", type=int, default=rounds, help="how often each subject is measured, in turns (%(default)s)"
    )
    parser.add_argument(
        "--only", default="", help="measure only subjects whose name contains one of these, comma-separated"
    )
    parser.add_argument(
        "--publish", action="store_true", help="write the result that the report reads, not a local one"
    )
    return parser


def wanted(name: str, only: str) -> bool:
    """Whether `--only` lets this subject in."""
    return not only or any(part.strip() in name for part in only.split(","))


def processor() -> str:
    """The processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def peak_memory() -> float:
    """The most memory this process has had, in MiB. Not `ru_maxrss` on Linux: that one counts the parent's too."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def memory() -> float:
    """The memory this process has now, in MiB. On Linux."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def forget_peak_memory() -> None:
    """What `peak_memory` finds counts from here on, on Linux."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def raise_file_limit() -> int:
    """As many open files as the system lets this process and its children have; a socket is one."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def versions() -> dict[str, str]:
    """What of the peers is installed here."""
    found = {}
    for name in PEERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def circumstances() -> dict[str, Any]:
    """Machine, date, versions and command: a figure without them is an anecdote."""
    return {
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": versions(),
        "command": " ".join(["python", *(os.path.relpath(word) if Path(word).exists() else word for word in sys.argv)]),
    }


def alternate(subjects: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """One sample of each subject per round, in turns, so that a slow minute is slow for all of them."""
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, sample in subjects.items():
            samples[name].append(sample())
    return samples


def cpu_per_item(work: Callable[[], object], items: int, *, at_least: float = 0.1) -> Callable[[], float]:
    """A sampler: microseconds of CPU per item, over as many passes as it takes to see `at_least` seconds."""
    began = time.process_time()
    work()
    passes = max(1, round(at_least / max(1e-6, time.process_time() - began)))

    def sample() -> float:
        start = time.process_time()
        for _ in range(passes):
            work()
        return (time.process_time() - start) / passes / items * 1e6

    return sample


def summary(samples: Sequence[float], anchor: Sequence[float] = ()) -> dict[str, float]:
    """Median and range; against an anchor also `times`, how many times less than it this is, and `share`, the inverse.

    Both are medians over the rounds, so that a slow round is slow on both sides of the fraction.
    """
    found = {"median": statistics.median(samples), "min": min(samples), "max": max(samples)}
    if anchor:
        found["times"] = statistics.median(other / own for other, own in zip(anchor, samples, strict=True) if own > 0)
        found["share"] = 1 / found["times"]
    return found


def save(name: str, result: Mapping[str, Any], *, publish: bool) -> Path:
    """Writes a result beside the others; only published ones are committed."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{'' if publish else 'local-'}{name}.json"
    path.write_text(json.dumps({**circumstances(), **result}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def figure(value: float) -> str:
    """Three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in a terminal too; all but the first column to the right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *others]) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([line(lines[0]), rule, *map(line, lines[1:])])


def heading(result: Mapping[str, Any]) -> str:
    """The circumstances in one line."""
    installed = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return f"{result['date']}, {result['machine']}, {result['python']}; {installed}; `{result['command']}`"
