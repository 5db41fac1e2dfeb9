"""What importing costs: CPU time and resident memory of a fresh interpreter, over one that imports nothing."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable

import measure

# The package itself imports nothing before it is used: what most have of it is told beside it.
USED = "penstock, completion used"
SUBJECTS = ("penstock.parser", "penstock", USED, "orjson", "aiohttp", "httpx", "openai", "any_llm", "litellm")
PROBE = """
import sys, time
module, _, used = sys.argv[1].partition(", ")
if module:
    __import__(module)
if used:
    sys.modules[module].completion("openai/x", [], mock_response="x")
used = time.process_time()
try:  # as measure.peak_memory, which would itself import half of what is to be compared
    peak = next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
except OSError:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
print(used, peak)
"""


def start(module: str) -> tuple[float, float]:
    """Milliseconds of CPU and MiB of a fresh interpreter that imports this."""
    command = [sys.executable, "-I", "-c", PROBE, module]
    cpu, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
    return float(cpu) * 1e3, float(peak)


def main() -> None:
    options = measure.arguments(__doc__, rounds=9).parse_args()
    chosen = [
        name
        for name in SUBJECTS
        if measure.wanted(name, options.only) and importlib.util.find_spec(name.partition(",")[0].partition(".")[0])
    ]
    memory: dict[str, list[float]] = {name: [] for name in ["", *chosen]}

    def sampler(name: str) -> Callable[[], float]:
        def sample() -> float:
            cpu, peak = start(name)
            memory[name].append(peak)
            return cpu

        return sample

    for name in ["", *chosen]:
        start(name)  # byte code is compiled once, and not in a measured round
    samples = measure.alternate({name: sampler(name) for name in ["", *chosen]}, options.rounds)
    bare_cpu, bare_memory = (measure.summary(values[""])["median"] for values in (samples, memory))
    cells = {
        name: {
            "cpu": {key: value - bare_cpu for key, value in measure.summary(samples[name]).items()},
            "memory": {key: value - bare_memory for key, value in measure.summary(memory[name]).items()},
        }
        for name in chosen
    }
    rows = [
        [
            name,
            *(measure.figure(cell["cpu"][key]) for key in ("median", "min", "max")),
            measure.figure(cell["memory"]["median"]),
        ]
        for name, cell in cells.items()
    ]
    print(f"over bare Python ({bare_cpu:.0f} ms, {bare_memory:.0f} MiB), {options.rounds} rounds\n")
    print(measure.table(["import", "CPU ms, median", "min", "max", "MiB"], rows))
    result = {
        "bench": "imports",
        "unit": "milliseconds of CPU; MiB",
        "rounds": options.rounds,
        "bare": {"cpu": bare_cpu, "memory": bare_memory},
        "cells": cells,
    }
    path = measure.save("imports", result, publish=options.publish)
    print(f"\n{measure.heading(json.loads(path.read_text(encoding='utf-8')))}\nwritten to {path}")


if __name__ == "__main__":
    main()
