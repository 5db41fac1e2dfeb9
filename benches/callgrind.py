"""Instructions per chunk, counted by valgrind: what decides between two versions of the hot path. Seconds illustrate.

Each subject runs twice, with more passes over the same stream the second time, and the difference is divided by the
chunks in between: start-up, imports and building the stream cancel out. Repeats to the digit on one machine.

Usage: python callgrind.py [--only penstock] [--publish]
       python callgrind.py --once NAME SHAPE PASSES   (what runs under valgrind)
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import measure
import parser as bench
import streams

HERE = Path(__file__).parent
ROOT = HERE.parent
CHUNKS = 200
SHAPES = {"chunk by chunk": 0, "16 KiB reads": 16384}
RUST = "penstock-core, from Rust"


def parts(shape: str) -> list[bytes]:
    """The stream in this shape."""
    events = streams.events(CHUNKS)
    return streams.reads(events, size) if (size := SHAPES[shape]) else events


def once(name: str, shape: str, passes: int) -> None:
    """Runs a subject so many times."""
    cut = [event[6:-2] for event in streams.events(CHUNKS)[:-1]]
    run, reads = bench.subjects(cut)[name](), parts(shape)
    for _ in range(passes):
        run(reads)


def instructions(command: list[str]) -> int:
    """How many instructions a command takes."""
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", *command]
        ran = subprocess.run(valgrind, env=environment, check=True, capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", ran.stderr)
    if found is None:
        raise SystemExit(ran.stderr)
    return int(found[1])


def per_chunk(command: list[str], *, few: int, many: int) -> float:
    """The difference that the passes in between make, by chunk."""
    low, high = (instructions([*command, str(passes)]) for passes in (few, many))
    return (high - low) / (many - few) / (CHUNKS + 3)


def main() -> None:
    parser = measure.arguments(__doc__, rounds=1)
    parser.add_argument("--once", nargs=3, metavar=("NAME", "SHAPE", "PASSES"))
    options = parser.parse_args()
    if options.once:
        name, shape, passes = options.once
        return once(name, shape, int(passes))
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed")
    build = ["cargo", "build", "--quiet", "--locked", "--profile", "profiling", "--package", "penstock-core"]
    subprocess.run([*build, "--example", "decode"], cwd=ROOT, check=True)
    cells: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder) / "stream.sse"
        body.write_bytes(b"".join(streams.events(CHUNKS)))
        decode = str(ROOT / "target" / "profiling" / "examples" / "decode")
        for shape, size in SHAPES.items():
            found = cells[shape] = {}
            if measure.wanted(RUST, options.only):
                found[RUST] = per_chunk([decode, str(body), str(size)], few=10, many=60)
            for name in bench.subjects([]):
                if measure.wanted(name, options.only):
                    command = [sys.executable, str(HERE / "callgrind.py"), "--once", name, shape]
                    # The first passes warm up: caches, interned strings, specialised byte code.
                    found[name] = per_chunk(command, few=10, many=30)
            print(f"\n{shape}: instructions per chunk\n")
            print(measure.table(["", "instructions"], [[name, f"{value:,.0f}"] for name, value in found.items()]))
    result = {"bench": "callgrind", "unit": "instructions per chunk", "cells": cells}
    path = measure.save("callgrind", result, publish=options.publish)
    print(f"\n{measure.heading(json.loads(path.read_text(encoding='utf-8')))}\nwritten to {path}")
    return None


if __name__ == "__main__":
    main()
