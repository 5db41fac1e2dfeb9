"""End to end against a local upstream: CPU time per chunk of the whole client process, HTTP included.

Three shapes: everything in one burst, one packet per chunk, and 200 streams at once with a chunk every 5 ms each. Each
client lives in a process of its own for the whole run and is measured in turns with the others.

Usage: python clients.py [--rounds N] [--only penstock,aiohttp] [--publish]
       python clients.py --client NAME   (what the above starts: `BASE STREAMS AT_ONCE` a line in, JSON a line out)
"""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import measure

HERE = Path(__file__).parent
ANCHOR = "aiohttp + orjson, by hand, async"
FLOOR = "raw socket, bytes only"


class Process:
    """A child that answers one line with one line."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, question: str | None = None) -> str:
        """The next line it says, asked for with this line."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if question is not None:
            print(question, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline().strip()
        if not answer:
            raise SystemExit(f"{self.process.args!r}: ended with {self.process.wait()}")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.communicate()


def report(count: int, cpu: float, wall: float) -> None:
    """The answer to one question."""
    found = {"chunks": count, "cpu": cpu / count * 1e6, "rate": count / wall, "memory": measure.peak_memory()}
    print(json.dumps(found), flush=True)


def serve_sync(name: str) -> None:
    """A blocking client: one stream after the other."""
    import peers

    clients: dict[str, peers.Run] = {}
    print("ready", flush=True)
    for line in sys.stdin:
        base, streams, _ = line.split()
        run = clients.get(base) or clients.setdefault(base, peers.SYNC[name](base))
        run()
        cpu, wall = time.process_time(), time.perf_counter()
        count = sum(run()[0] for _ in range(int(streams)))
        report(count, time.process_time() - cpu, time.perf_counter() - wall)


async def serve_async(name: str) -> None:
    """An asyncio client: `at_once` streams side by side."""
    import peers

    clients: dict[str, peers.AsyncRun] = {}
    print("ready", flush=True)
    while line := sys.stdin.readline():  # nothing else is to run while it waits
        base, streams, at_once = line.split()
        run = clients.get(base) or clients.setdefault(base, peers.ASYNC[name](base))
        await run()
        cpu, wall = time.process_time(), time.perf_counter()
        count = 0
        for _ in range(int(streams)):
            count += sum(found for found, _ in await asyncio.gather(*(run() for _ in range(int(at_once)))))
        report(count, time.process_time() - cpu, time.perf_counter() - wall)


def main() -> None:
    parser = measure.arguments(__doc__, rounds=5)
    parser.add_argument("--client", help="be this client")
    parser.add_argument("--no-fan", action="store_true", help="leave out the 200 streams")
    options = parser.parse_args()
    import peers
    import upstream

    if options.client in peers.SYNC:
        return serve_sync(options.client)
    if options.client in peers.ASYNC:
        return asyncio.run(serve_async(options.client))

    missing = {
        "penstock": "penstock",
        "litellm": "litellm",
        "any-llm": "any-llm-sdk",
        "openai": "openai",
        "aiohttp": "aiohttp",
    }
    installed = measure.versions()
    names = [
        name
        for name in [*peers.SYNC, *peers.ASYNC]
        if measure.wanted(name, options.only)
        and all(package in installed for word, package in missing.items() if name.startswith(word))
    ]
    with upstream.serve() as base:
        shapes = {
            "burst": (f"{base}/plain/burst/2000/v1", 3, 1, names),
            "chunk by chunk": (f"{base}/plain/each/1000/v1", 3, 1, names),
        }
        if not options.no_fan:
            shapes["200 streams, a chunk each 5 ms"] = (
                f"{base}/plain/pace/100/5/v1",
                1,
                200,
                [name for name in names if name in peers.ASYNC],
            )
        children = {name: Process(str(HERE / "clients.py"), "--client", name) for name in names}
        try:
            for child in children.values():
                child.ask()
            answers: dict[str, dict[str, list[dict[str, float]]]] = {shape: {} for shape in shapes}
            for _ in range(options.rounds):
                for shape, (url, streams, at_once, chosen) in shapes.items():
                    for name in chosen:
                        answer = json.loads(children[name].ask(f"{url} {streams} {at_once}"))
                        answers[shape].setdefault(name, []).append(answer)
        finally:
            for child in children.values():
                child.__exit__(None, None, None)

    cells: dict[str, dict[str, Any]] = {}
    for shape, rounds in answers.items():
        anchor = [answer["cpu"] for answer in rounds.get(ANCHOR, ())]
        cells[shape] = {
            name: {
                "cpu": measure.summary([answer["cpu"] for answer in found], anchor),
                "rate": measure.summary([answer["rate"] for answer in found]),
                "memory": max(answer["memory"] for answer in found),
            }
            for name, found in rounds.items()
        }
        print(f"\n{shape}: microseconds of CPU per chunk, {options.rounds} rounds\n")
        print(
            measure.table(
                ["", "median", "min", "max", f"times {ANCHOR}", "chunks/s", "peak MiB"],
                [
                    [
                        name,
                        *(measure.figure(cell["cpu"][key]) for key in ("median", "min", "max")),
                        measure.figure(cell["cpu"]["share"]) if "share" in cell["cpu"] else "",
                        measure.figure(cell["rate"]["median"]),
                        measure.figure(cell["memory"]),
                    ]
                    for name, cell in cells[shape].items()
                ],
            )
        )
    result = {
        "bench": "clients",
        "unit": "microseconds of CPU per chunk",
        "rounds": options.rounds,
        "anchor": ANCHOR,
        "floor": FLOOR,
        "cells": cells,
    }
    path = measure.save("clients", result, publish=options.publish)
    print(f"\n{measure.heading(json.loads(path.read_text(encoding='utf-8')))}\nwritten to {path}")
    return None


if __name__ == "__main__":
    main()
