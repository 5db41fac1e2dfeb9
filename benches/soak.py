"""The gateway for an hour: streams, plain requests, clients that go, reloads; memory, threads and files every minute.

It fails if requests fail, if the accounts have other than what was asked, or if memory still grows after the first
sixth of the time. Not part of `make bench`: it is there for who changes the gateway.

Usage: python soak.py [--minutes N] [--growth MIB] [--penstock "python -m penstock proxy"]
"""

import argparse
import contextlib
import os
import random
import shlex
import signal
import socket
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gateway
import measure
import upstream
from gateway import Gateway, Tree

LOADS = {"each": (8, 200), "paced": (100, 200), "answer": (4, 1000), "translated": (4, 100), "profile": (20, 100)}
"""What a turn consists of, all of it at once: streams at a time, and how many in all."""

LEAVERS = 40
"""Clients of each turn that go away in the middle."""


class Minute:
    """What was seen in a minute."""

    def __init__(self, number: int, asked: int, tree: Tree) -> None:
        self.number = number
        self.asked = asked
        self.memory = tree.memory()
        place = Path(f"/proc/{tree.pid}")
        self.threads = len(list((place / "task").iterdir()))
        self.files = len(list((place / "fd").iterdir()))

    def __str__(self) -> str:
        figures = f"{self.memory:8.1f} MiB, {self.threads:3} threads, {self.files:4} files"
        return f"{self.number:4} min {self.asked:>12,} requests {figures}"


def leave(to: Gateway, request: bytes, dice: random.Random) -> None:
    """Reads some of an answer, and goes."""
    host, _, port = to.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        sock.sendall(request)
        left = dice.randrange(1, 20_000)
        while left > 0 and (piece := sock.recv(min(left, 4096))):
            left -= len(piece)


def turn(to: Gateway, folder: Path, dice: random.Random) -> int:
    """Everything once; how many requests that were."""

    def load(route: str) -> int:
        at_once, requests = LOADS[route]
        file = folder / f"{route}.http"
        file.write_bytes(to.request(route))
        gateway.drive(to, file, at_once, requests)
        return requests

    with ThreadPoolExecutor(len(LOADS) + 1) as threads:
        asked = sum(threads.map(load, LOADS))
        for _ in range(LEAVERS):
            leave(to, to.request("paced"), dice)
    return asked + LEAVERS


def soak(to: Gateway, process: int, folder: Path, minutes: float) -> tuple[list[Minute], int]:
    """Turns until the time is over; what was seen, and how many requests there were."""
    assert to.tree is not None
    seen: list[Minute] = []
    dice = random.Random(1)
    began = time.monotonic()
    asked = 0
    while (passed := time.monotonic() - began) < minutes * 60:
        asked += turn(to, folder, dice)
        os.kill(process, signal.SIGHUP)
        if passed >= len(seen) * 60:
            seen.append(Minute(len(seen), asked, to.tree))
            print(seen[-1], flush=True)
    return seen, asked


def settled(to: Gateway, asked: int) -> int:
    """The requests in its accounts, once there are as many as were asked."""
    assert to.accounts is not None
    deadline = time.monotonic() + 60
    while (found := to.accounts()) < asked and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--growth", type=float, default=8, help="MiB by which the end may be above the first half")
    parser.add_argument("--penstock", default=f"{shlex.quote(sys.executable)} -m penstock proxy", help="how it starts")
    options = parser.parse_args()
    measure.raise_file_limit()
    with (
        upstream.serve() as base,
        tempfile.TemporaryDirectory() as place,
        contextlib.ExitStack() as stack,
    ):
        to = stack.enter_context(gateway.penstock(base, Path(place), options.penstock))
        assert to.tree is not None
        seen, asked = soak(to, to.tree.pid, Path(place), options.minutes)
        accounted = settled(to, asked)

    held = [minute.memory for minute in seen[len(seen) // 6 :]]
    quarter = max(1, len(held) // 4)
    growth = statistics.median(held[-quarter:]) - statistics.median(held[: 2 * quarter])
    print(f"{asked:,} requests, {accounted:,} in the accounts; {growth:+.1f} MiB from the first half to the end")
    if accounted != asked:
        raise SystemExit("the accounts are wrong")
    if growth > options.growth:
        raise SystemExit(f"memory grows: {growth:.1f} MiB")


if __name__ == "__main__":
    main()
