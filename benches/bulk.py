"""Many at once: rows a second, CPU time per row, and the growth of memory, beside loops written by hand.

Every subject asks the same rows, 32 at a time, and writes a line of JSON for each answer; each in a process of its own,
one after the other. The upstream costs as little as possible; `--replay` asks the package's own instead. litellm gets
fewer rows, for it holds all of them and all answers; the figures are per row.

Usage: python bulk.py [--rows N] [--only penstock,httpx] [--replay] [--publish]
       python bulk.py --client NAME BASE ROWS   (what the above starts; it prints a line of JSON)
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import measure
from clients import Process

HERE = Path(__file__).parent
AT_ONCE = 32
FIRST = 10_000
"""Rows after which memory is looked at for the first time: pools, caches and the first limit are there then."""

LITELLM = 2_000
ANSWER = json.dumps(
    {
        "id": "chatcmpl-0123456789",
        "object": "chat.completion",
        "created": 1763800000,
        "model": "hello",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hello! " * 40}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 80, "total_tokens": 92},
    }
).encode()


class Upstream(asyncio.Protocol):
    """One connection of an upstream that always gives the same answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.waiting = transport, b""

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        while True:
            head, found, body = self.waiting.partition(b"\r\n\r\n")
            at = head.lower().find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if not found or len(body) < length:
                return
            self.waiting = body[length:]
            answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)
            assert isinstance(self.transport, asyncio.Transport)
            self.transport.write(answer + ANSWER)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


def rows(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield {"custom_id": f"row-{number}", "messages": [{"role": "user", "content": f"Say hello, number {number}."}]}


def memory() -> float:
    """What this process holds now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / (1 << 20)


class Meter:
    """Counts rows as they come, and looks at the memory now and then."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.count = 0
        self.held: dict[int, float] = {}
        self.begin()

    def begin(self) -> None:
        """From here on time counts: what was before was imports."""
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def row(self) -> None:
        self.count += 1
        if self.count == min(FIRST, self.total // 2) or self.count % 50_000 == 0:
            self.look()

    def look(self) -> None:
        self.held[self.count] = memory()
        print(f"{self.count:>10,} rows, {self.held[self.count]:.1f} MiB", file=sys.stderr, flush=True)

    def report(self) -> dict[str, Any]:
        cpu, wall = time.process_time() - self.cpu, time.perf_counter() - self.wall
        self.look()
        held = list(self.held.values())
        return {
            "rows": self.count,
            "cpu": cpu / self.count * 1e6,
            "rate": self.count / wall,
            "growth": max(held) - held[0],
            "memory": measure.peak_memory(),
        }


def penstock_bulk(base: str, meter: Meter, out: Path, **options: Any) -> None:
    from penstock import bulk

    meter.begin()
    for row in bulk(rows(meter.total), model="openai/hello", api_base=base, api_key="none", output=out, **options):
        assert row.response is not None, row.error
        meter.row()


def penstock_32(base: str, meter: Meter, out: Path) -> None:
    penstock_bulk(base, meter, out, max_in_flight=AT_ONCE)


def penstock_auto(base: str, meter: Meter, out: Path) -> None:
    penstock_bulk(base, meter, out)


Ask = Callable[[dict[str, Any]], Awaitable[Any]]


async def by_hand(ask: Ask, meter: Meter, file: TextIO) -> None:
    """The loop that everybody writes: workers over one iterator."""
    given = rows(meter.total)

    async def work() -> None:
        for row in given:
            answer = await ask(row["messages"][0])
            file.write(json.dumps({"custom_id": row["custom_id"], "response": answer}) + "\n")
            meter.row()

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


def httpx_by_hand(base: str, meter: Meter, out: Path) -> None:
    import httpx

    meter.begin()

    async def main() -> None:
        async with httpx.AsyncClient() as client:

            async def ask(message: dict[str, Any]) -> Any:
                response = await client.post(f"{base}/chat/completions", json={"model": "hello", "messages": [message]})
                response.raise_for_status()
                return response.json()

            with out.open("w", encoding="utf-8") as file:
                await by_hand(ask, meter, file)

    asyncio.run(main())


def aiohttp_by_hand(base: str, meter: Meter, out: Path) -> None:
    import aiohttp

    meter.begin()

    async def main() -> None:
        async with aiohttp.ClientSession() as session:

            async def ask(message: dict[str, Any]) -> Any:
                body = {"model": "hello", "messages": [message]}
                async with session.post(f"{base}/chat/completions", json=body) as response:
                    response.raise_for_status()
                    return await response.json()

            with out.open("w", encoding="utf-8") as file:
                await by_hand(ask, meter, file)

    asyncio.run(main())


def litellm_batch(base: str, meter: Meter, out: Path) -> None:
    import litellm

    meter.begin()

    messages = [row["messages"] for row in rows(meter.total)]
    answers = litellm.batch_completion(
        model="openai/hello", messages=messages, max_workers=AT_ONCE, api_base=base, api_key="none"
    )
    with out.open("w", encoding="utf-8") as file:
        for answer in answers:
            file.write(answer.model_dump_json() + "\n")
            meter.row()


SUBJECTS: dict[str, Callable[[str, Meter, Path], None]] = {
    "penstock bulk, 32 at once": penstock_32,
    "penstock bulk, auto": penstock_auto,
    "httpx, by hand": httpx_by_hand,
    "aiohttp, by hand": aiohttp_by_hand,
    "litellm batch_completion": litellm_batch,
}


def main() -> None:
    parser = measure.arguments(__doc__, rounds=1)
    parser.add_argument("--rows", type=int, default=100_000, help="how many (%(default)s)")
    parser.add_argument("--replay", action="store_true", help="ask the package's own upstream")
    parser.add_argument("--client", nargs=3, metavar=("NAME", "BASE", "ROWS"), help="be this client")
    parser.add_argument("--serve", action="store_true", help="be the upstream")
    options = parser.parse_args()
    if options.serve:
        return asyncio.run(serve())
    if options.client:
        name, base, count = options.client
        meter = Meter(int(count))
        with tempfile.TemporaryDirectory() as folder:
            SUBJECTS[name](base, meter, Path(folder) / "out.jsonl")
            print(json.dumps(meter.report()), flush=True)
        return None

    installed = measure.versions()
    found: dict[str, dict[str, Any]] = {}
    command = ("-m", "penstock", "replay", "--port", "0") if options.replay else (str(HERE / "bulk.py"), "--serve")
    with Process(*command) as upstream:
        base = upstream.ask()
        for name in SUBJECTS:
            if name.split()[0].strip(",") not in installed or not measure.wanted(name, options.only):
                continue
            count = min(options.rows, LITELLM) if name.startswith("litellm") else options.rows
            child = [sys.executable, str(HERE / "bulk.py"), "--client", name, base, str(count)]
            found[name] = json.loads(subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout)
    head = ["", "rows", "us of CPU a row", "rows/s", "growth, MiB", "peak MiB"]
    keys = ("rows", "cpu", "rate", "growth", "memory")
    print(measure.table(head, [[name, *(measure.figure(row[key]) for key in keys)] for name, row in found.items()]))
    path = measure.save("bulk", {"bench": "bulk", "cells": found}, publish=options.publish)
    print(f"\n{measure.heading(json.loads(path.read_text(encoding='utf-8')))}\nwritten to {path}")
    return None


if __name__ == "__main__":
    main()
