"""Gateways side by side: CPU per streamed chunk and per request, time to the first token, memory, how late texts are.

Every gateway is a process of its own for the whole run, with one worker, in front of the same upstream; the same client
asks all of them the same, in turns. CPU is the gateway's and its children's, user and system, from the kernel's clocks.
`direct` is the client at the upstream, `relay` between the two with nothing done to the bytes: the floor.

A gateway that does not come up or answers wrongly is left out of the table and named under it.

Usage: python gateway.py [--rounds N] [--only penstock,relay] [--cells burst,plain] [--quick] [--publish]
                         [--penstock "python -m penstock proxy"]
       python gateway.py --tensorzero CONFIG   (what the above starts: that gateway lives in a Python process)
"""

import asyncio
import contextlib
import json
import os
import re
import secrets
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import measure
import upstream

HERE = Path(__file__).parent
SLOW = 10
"""A gateway that is `slow` gets one request in so many, and as many fewer streams at once where they are paced."""

PATIENCE = 120.0
"""Seconds in which a gateway has to come up: one of them imports for twenty."""

DELAYED = (35_000, 60_000)
"""Microseconds that, to the first token or from there to the end, show a kernel that waited before it acknowledged and
a sender that waited for it: 40 ms on Linux. Only where streams are short and alone does nothing else take so long.
"""

QUIET, IDLE = 1.1, 0.02
"""A gateway that takes less than so much of a core over so many seconds has nothing left to do."""

CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Cell:
    """What is asked of every gateway."""

    route: str
    at_once: int
    requests: int
    chunks: int = 0
    """The upstream's, of each answer; 0 counts requests instead."""
    spread: float = 0
    """Milliseconds over which the streams begin."""
    paced: bool = False

    @property
    def unit(self) -> str:
        return "chunk" if self.chunks else "request"


ROUTES = {
    "each": "/plain/each/100",
    "few": "/plain/each/20",
    "burst": "/plain/burst/100",
    "paced": "/plain/pace/100/10/stamped",
    "steady": "/plain/pace/100/2/stamped",
    "open": "/plain/pace/40/250",
    "profile": "/profile/pace/28/1/after/10",
    "answer": "/answer",
    "translated": "/anthropic/each/100",
    "translated-steady": "/anthropic/pace/100/2",
}
"""The models that every gateway is configured with, and where they are upstream."""

OPEN = "1,000 open streams, a chunk each 250 ms"
CELLS = {
    # First: what a gateway has once held it keeps, and a later growth would be smaller than it is.
    OPEN: Cell("open", 1000, 1000, 43, spread=250, paced=True),
    "chunk by chunk": Cell("each", 8, 400, 103),
    "burst": Cell("burst", 8, 400, 103),
    "200 streams, a chunk each 10 ms": Cell("paced", 200, 200, 103, spread=10, paced=True),
    # Without pauses a slow gateway finds several chunks in each read, and seems cheaper than it is. Here none does.
    "8 streams, a chunk each 2 ms": Cell("steady", 8, 80, 103, spread=2),
    # The deltas are what both dialects have in the same number; before and after them come five events or three.
    "translated, chunk by chunk": Cell("translated", 8, 400, 103),
    "translated, 8 streams, a chunk each 2 ms": Cell("translated-steady", 8, 80, 103, spread=2),
    "plain requests": Cell("answer", 8, 4000),
    "litellm's public profile, 50 at once": Cell("profile", 50, 500, 31, paced=True),
    "one stream at a time": Cell("few", 1, 300, 23),
}


class Tree:
    """A process and its children."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def pids(self) -> list[int]:
        parents: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        found = [self.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def cpu(self) -> float:
        """Seconds in user and system mode, of threads that have ended too: a process's clock may be read by others."""
        total = 0.0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                total += time.clock_gettime((~pid << 3) | 2)
        return total

    def quiet(self) -> float:
        """Its CPU once it has nothing left to do: whoever writes accounts does so when the answers are long sent."""
        deadline = time.monotonic() + PATIENCE
        now, last = self.cpu(), 0.0
        while time.monotonic() < deadline:
            before = now
            time.sleep(QUIET)
            now = self.cpu()
            spent = now - before
            # One that always does something, and on some machines more than that, is as quiet as it gets.
            if spent < IDLE * QUIET or abs(spent - last) < spent / 5:
                break
            last = spent
        return now

    def memory(self) -> float:
        """MiB that are resident."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError, StopIteration):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
        return total / 1024


@dataclass
class Gateway:
    """One that runs: where it is, and how it is asked."""

    name: str
    address: str
    """HOST:PORT."""
    tree: Tree | None = None
    path: str = CHAT
    """With `{route}` where the route's place upstream goes."""
    model: str = "{route}"
    key: str | None = None
    slow: bool = False
    failures: dict[str, str] = field(default_factory=dict)
    """By cell, why it has no figures."""
    asked: int = 0
    accounts: Callable[[], int] | None = None
    """How many requests it has accounted."""

    @property
    def translates(self) -> bool:
        return "{place}" not in self.path

    def request(self, route: str) -> bytes:
        """What the client sends, all of it."""
        body: dict[str, Any] = {
            "model": self.model.format(route=route),
            "messages": [{"role": "user", "content": "Hello!"}],
        }
        if route != "answer":
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        content = json.dumps(body).encode()
        lines = [
            f"POST {self.path.format(place=ROUTES[route])} HTTP/1.1",
            f"host: {self.address}",
            "content-type: application/json",
            f"content-length: {len(content)}",
            *([f"authorization: Bearer {self.key}"] if self.key else []),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + content


# Starting them -------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def get(url: str, *, key: str | None = None, body: dict[str, Any] | None = None) -> Any:
    """The JSON at an address."""
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(url, headers=headers, data=json.dumps(body).encode() if body else None)
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


@contextlib.contextmanager
def child(name: str, command: list[str], folder: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process whose output is kept, and shown when it fails."""
    log = folder / f"{name}.log"
    with (
        log.open("w") as out,
        subprocess.Popen(
            command, stdout=out, stderr=out, cwd=folder, text=True, env={**os.environ, **environment}
        ) as process,
    ):
        try:
            yield process
        except BaseException:
            print(f"{name}, the end of its log:", log.read_text(errors="replace")[-3000:], sep="\n", file=sys.stderr)
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def await_ready(process: subprocess.Popen[str], url: str) -> None:
    """Waits until it answers."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r}: ended with {process.returncode}")
        with contextlib.suppress(OSError, ValueError):
            get(url)
            return
        time.sleep(0.1)
    raise SystemExit(f"{process.args!r}: not ready after {PATIENCE:.0f} s")


def model_list(base: str) -> list[dict[str, Any]]:
    """The models as litellm's configuration has them, which is penstock's too."""
    models = []
    for route, place in ROUTES.items():
        model, end = ("anthropic/claude-sonnet-4-5", "") if route.startswith("translated") else ("openai/gpt-4o", "/v1")
        parameters = {"model": model, "api_base": f"{base}{place}{end}", "api_key": "sk-upstream"}
        models.append({"model_name": route, "litellm_params": parameters})
    return models


@contextlib.contextmanager
def penstock(base: str, folder: Path, command: str) -> Iterator[Gateway]:
    """With a key in its store, checked and charged for each request."""
    port, master = free_port(), "sk-" + secrets.token_urlsafe(32)
    config = {
        "model_list": model_list(base),
        "general_settings": {"master_key": master, "database_url": f"sqlite:///{folder}/penstock.db"},
    }
    file = folder / "penstock.yaml"
    file.write_text(json.dumps(config))
    words = [*shlex.split(command), "--config", str(file), "--port", str(port), "--workers", "1"]
    with child("penstock", words, folder) as process:
        address = f"127.0.0.1:{port}"
        await_ready(process, f"http://{address}/health/readiness")
        key = get(f"http://{address}/key/generate", key=master, body={"key_alias": "bench"})["key"]

        def accounts() -> int:
            found: int = get(f"http://{address}/spend", key=master)["requests"]
            return found

        yield Gateway("penstock", address, Tree(process.pid), key=key, accounts=accounts)


@contextlib.contextmanager
def litellm(base: str, folder: Path) -> Iterator[Gateway]:
    """Without a database: it checks the master key, and keeps no account."""
    port, master = free_port(), "sk-" + secrets.token_urlsafe(32)
    file = folder / "litellm.yaml"
    file.write_text(json.dumps({"model_list": model_list(base), "general_settings": {"master_key": master}}))
    command = [str(Path(sys.executable).parent / "litellm"), "--config", str(file), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    with child("litellm", command, folder, LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_LOG="ERROR") as process:
        address = f"127.0.0.1:{port}"
        await_ready(process, f"http://{address}/health/readiness")
        yield Gateway("litellm", address, Tree(process.pid), key=master, slow=True)


@contextlib.contextmanager
def tensorzero(base: str, folder: Path) -> Iterator[Gateway]:
    """Without a database: it checks no key and keeps no account."""
    lines = [
        "[gateway]",
        "observability.enabled = false",
        "disable_pseudonymous_usage_analytics = true",
        'bind_address = "127.0.0.1:0"',
    ]
    for route, place in ROUTES.items():
        kind, end = ("anthropic", "/v1/messages") if route.startswith("translated") else ("openai", "/v1/")
        lines += [
            f"[models.{route}]",
            'routing = ["upstream"]',
            f"[models.{route}.providers.upstream]",
            f'type = "{kind}"',
            'model_name = "claude-sonnet-4-5"' if route.startswith("translated") else 'model_name = "gpt-4o"',
            f'api_base = "{base}{place}{end}"',
            'api_key_location = "env::UPSTREAM_KEY"',
        ]
    file = folder / "tensorzero.toml"
    file.write_text("\n".join([*lines, ""]))
    command = [sys.executable, str(HERE / "gateway.py"), "--tensorzero", str(file)]
    with child("tensorzero", command, folder, UPSTREAM_KEY="sk-upstream", RUST_LOG="error") as process:
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(r"http://(127\.0\.0\.1:\d+)", (folder / "tensorzero.log").read_text())):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("tensorzero did not come up")
            time.sleep(0.1)
        yield Gateway(
            "tensorzero",
            found[1],
            Tree(process.pid),
            path="/openai/v1/chat/completions",
            model="tensorzero::model_name::{route}",
        )


async def serve_tensorzero(file: str) -> None:
    """That gateway, in this process."""
    from tensorzero import tensorzero as native

    gateway = await native._start_http_gateway(
        config_file=file, clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=True
    )
    print(gateway.base_url, flush=True)
    await asyncio.Event().wait()


@contextlib.contextmanager
def relay(base: str) -> Iterator[Gateway]:
    """Bytes, handed on."""
    command = [str(upstream.SOURCE), "relay", base.removeprefix("http://")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        try:
            yield Gateway("relay", f"127.0.0.1:{port}", Tree(process.pid), path="{place}" + CHAT)
        finally:
            process.terminate()


@contextlib.contextmanager
def direct(base: str) -> Iterator[Gateway]:
    """Nothing between."""
    yield Gateway("direct", base.removeprefix("http://"), path="{place}" + CHAT)


# Measuring -----------------------------------------------------------------------------------------------------------


class Watch:
    """Looks at a gateway's memory while it works."""

    def __init__(self, tree: Tree | None) -> None:
        self.tree = tree
        self.over = threading.Event()
        self.peak = 0.0

    def __enter__(self) -> Self:
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def look(self) -> None:
        while self.tree is not None and not self.over.wait(0.25):
            self.peak = max(self.peak, self.tree.memory())

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def drive(gateway: Gateway, file: Path, at_once: int, requests: int, *options: str) -> dict[str, Any]:
    """What the client says after so many requests."""
    command = [str(upstream.SOURCE), "drive", gateway.address, str(file), str(at_once), str(requests), *options]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    if ran.returncode:
        raise RuntimeError(ran.stderr.strip() or f"the client ended with {ran.returncode}")
    found: dict[str, Any] = json.loads(ran.stdout)
    if found["errors"]:
        raise RuntimeError(f"{found['errors']} of {found['requests']} requests: {found['error']}")
    return found


def share(samples: list[float], part: float) -> float:
    """The value that this part of the samples does not exceed."""
    return sorted(samples)[min(len(samples) - 1, int(len(samples) * part))]


def alive(base: str) -> None:
    """No gateway's failure if it is not: then all of this is for nothing."""
    host, _, port = base.removeprefix("http://").partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise SystemExit(f"the upstream is gone: {error}") from None


def delayed(took: float) -> bool:
    """Whether this looks like an acknowledgement that was waited for."""
    return DELAYED[0] <= took <= DELAYED[1]


def measured(gateway: Gateway, cell: Cell, folder: Path, *, quick: bool) -> dict[str, float]:
    """One sample of one cell."""
    fewer = SLOW if gateway.slow or quick else 1
    at_once = max(1, cell.at_once // fewer) if cell.paced else cell.at_once
    requests = max(at_once, cell.requests // fewer)
    file, warm = folder / f"{gateway.name}.http", folder / f"{gateway.name}-warm.http"
    file.write_bytes(gateway.request(cell.route))
    warm.write_bytes(gateway.request("few" if cell.route == "open" else cell.route))
    options = ["--spread", str(cell.spread)] if cell.spread else []
    options += ["--stamped"] if "/stamped" in ROUTES[cell.route] else []
    if cell.route.startswith("translated") and not gateway.translates:
        options += ["--end", '{"type":"message_stop"']
    drive(gateway, warm, 1, 3, *options)
    before, memory = (gateway.tree.quiet(), gateway.tree.memory()) if gateway.tree else (0.0, 0.0)
    with Watch(gateway.tree) as watch:
        found = drive(gateway, file, at_once, requests, *options)
    gateway.asked += 3 + requests
    meanwhile = gateway.tree.cpu() - before if gateway.tree else 0.0
    cpu = gateway.tree.quiet() - before if gateway.tree else 0.0
    items = found["requests"] * (cell.chunks or 1)
    rest = [total - first for total, first in zip(found["total"], found["first"], strict=True)]
    answer = {
        "rate": items / found["seconds"],
        "p50": share(found["first"], 0.5),
        "p99": share(found["first"], 0.99),
        "delayed first": sum(map(delayed, found["first"])),
        "delayed rest": sum(map(delayed, rest)),
        "samples": len(found["first"]),
        "usages": found["usages"] / found["requests"],
    }
    if gateway.tree:
        answer |= {"cpu": cpu / items * 1e6, "cores": meanwhile / found["seconds"], "before": memory}
        if watch.peak:
            answer |= {"peak": watch.peak, "each": max(0.0, watch.peak - memory) * 1024 / at_once}
    if found["late"]:
        answer |= {"late p50": found["late"][0], "late p99": found["late"][1]}
    return answer


COUNTS = ("delayed first", "delayed rest", "samples")


def cells_of(samples: dict[str, dict[str, list[dict[str, float]]]]) -> dict[str, dict[str, Any]]:
    """Medians and ranges; CPU as a share of the anchor's, times to the first token over those without a gateway."""
    cells: dict[str, dict[str, Any]] = {}
    for shape, found in samples.items():
        cells[shape] = {}
        base = found.get("direct", [])
        anchor = [each["cpu"] for each in found.get("tensorzero", [])]
        for name, rounds in found.items():
            cell: dict[str, Any] = {}
            for key in rounds[0]:
                values = [each[key] for each in rounds if key in each]
                if key in COUNTS:
                    cell[key] = int(sum(values))
                else:
                    cell[key] = measure.summary(values, anchor if key == "cpu" and len(anchor) == len(values) else ())
            if len(base) == len(rounds):
                for key in ("p50", "p99"):
                    cell[f"added {key}"] = measure.summary(
                        [each[key] - other[key] for each, other in zip(rounds, base, strict=True)]
                    )
            cells[shape][name] = cell
    return cells


def rows(cells: dict[str, Any], unit: str) -> str:
    """A cell as a table."""
    head = ["", f"us/{unit}", "min", "max", "ratio", f"{unit}s/s", "cores", "first ms", "p99", "35-60 ms", "MiB"]
    stamped = any("late p50" in cell for cell in cells.values())
    head += ["late ms", "p99 "] if stamped else []
    lines = []
    for name, cell in cells.items():
        cpu = cell.get("cpu")
        line = [name, *([measure.figure(cpu[key]) for key in ("median", "min", "max")] if cpu else ["", "", ""])]
        line += [measure.figure(cpu["share"]) if cpu and "share" in cpu else "", measure.figure(cell["rate"]["median"])]
        line += [measure.figure(cell["cores"]["median"]) if "cores" in cell else ""]
        line += [measure.figure(cell[key]["median"] / 1000) for key in ("p50", "p99")]
        line += [f"{cell['delayed first']}+{cell['delayed rest']} of {cell['samples']}"]
        line += [measure.figure(cell["peak"]["median"]) if "peak" in cell else ""]
        if stamped:
            line += [measure.figure(cell[key]["median"] / 1000) for key in ("late p50", "late p99") if key in cell]
            line += [""] * (len(head) - len(line))
        lines.append(line)
    return measure.table(head, lines)


def memory_rows(cells: dict[str, dict[str, Any]], idle: dict[str, float]) -> str:
    """Memory as a table: before anything was asked, and for each of the open streams, in the round that took most."""
    found = {name: cell["each"]["max"] for name, cell in cells.get(OPEN, {}).items() if "each" in cell}
    lines = [
        [name, measure.figure(held), measure.figure(found[name]) if name in found else ""]
        for name, held in idle.items()
    ]
    return measure.table(["", "idle MiB", "KiB per open stream"], lines)


def main() -> None:
    parser = measure.arguments(__doc__, rounds=5)
    parser.add_argument("--tensorzero", metavar="CONFIG", help="be that gateway")
    parser.add_argument("--cells", default="", help="measure only cells whose name contains one of these")
    parser.add_argument("--quick", action="store_true", help="one round with a tenth of the requests")
    parser.add_argument("--penstock", default=f"{shlex.quote(sys.executable)} -m penstock proxy", help="how it starts")
    options = parser.parse_args()
    if options.tensorzero:
        return asyncio.run(serve_tensorzero(options.tensorzero))
    if sys.platform != "linux":
        raise SystemExit("this one reads other processes' clocks, which is done so on Linux only")
    measure.raise_file_limit()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # and with it what it has started
    installed = measure.versions()
    shapes = {shape: cell for shape, cell in CELLS.items() if measure.wanted(shape, options.cells)}
    rounds = 1 if options.quick else options.rounds
    samples: dict[str, dict[str, list[dict[str, float]]]] = {shape: {} for shape in shapes}
    with (
        upstream.serve() as base,
        tempfile.TemporaryDirectory() as place,
        contextlib.ExitStack() as stack,
    ):
        folder = Path(place)
        starts: dict[str, Callable[[], AbstractContextManager[Gateway]]] = {
            "direct": lambda: direct(base),
            "relay": lambda: relay(base),
            "penstock": lambda: penstock(base, folder, options.penstock),
            "tensorzero": lambda: tensorzero(base, folder),
            "litellm": lambda: litellm(base, folder),
        }
        gateways = [
            stack.enter_context(start())
            for name, start in starts.items()
            if measure.wanted(name, options.only) and (name in ("direct", "relay") or name in installed)
        ]
        time.sleep(1)  # what they do right after the start is not idling
        idle = {gateway.name: gateway.tree.memory() for gateway in gateways if gateway.tree}
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            for shape, cell in shapes.items():
                for gateway in gateways:
                    if shape in gateway.failures:
                        continue
                    try:
                        answer = measured(gateway, cell, folder, quick=options.quick)
                    except (RuntimeError, subprocess.TimeoutExpired) as error:
                        alive(base)
                        gateway.failures[shape] = str(error)
                        samples[shape].pop(gateway.name, None)
                        continue
                    samples[shape].setdefault(gateway.name, []).append(answer)
        for gateway in gateways:
            if gateway.accounts is not None and not gateway.failures and gateway.accounts() != gateway.asked:
                raise SystemExit(
                    f"{gateway.name}: {gateway.accounts()} of {gateway.asked} requests are in its accounts"
                )
    cells = cells_of(samples)
    failures = {gateway.name: gateway.failures for gateway in gateways if gateway.failures}
    for shape, found in cells.items():
        print(f"\n{shape}: microseconds of the gateway's CPU, {rounds} rounds\n\n{rows(found, shapes[shape].unit)}")
    print(f"\nMemory\n\n{memory_rows(cells, idle)}")
    for name, failed in failures.items():
        for shape, message in failed.items():
            print(f"\n{name}, {shape}: {message[:500]}")
    result = {
        "bench": "gateway",
        "unit": "microseconds of CPU",
        "rounds": rounds,
        "units": {shape: cell.unit for shape, cell in shapes.items()},
        "anchor": "tensorzero",
        "slow": {"names": [gateway.name for gateway in gateways if gateway.slow], "share": SLOW},
        "load": statistics.mean(os.getloadavg()),
        "idle": idle,
        "cells": cells,
        "failures": failures,
    }
    path = measure.save("gateway", result, publish=options.publish)
    print(f"\n{measure.heading(json.loads(path.read_text(encoding='utf-8')))}\nwritten to {path}")
    return None


if __name__ == "__main__":
    main()
