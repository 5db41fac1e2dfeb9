"""Processes that come from others: by fork, before and after calls, by spawn and by a fork server; and their ends."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import errors
from penstock.replay import Upstream

COMMON = """
import asyncio, gc, multiprocessing, os, signal, sys, threading, time
from penstock import acompletion, completion

OPTIONS = dict(messages=[dict(role="user", content="x")], api_base=sys.argv[1], api_key="any", transport="native")

def streams(model, count):
    return [completion(model, stream=True, **OPTIONS) for _ in range(count)]

async def side_by_side(model, count):
    async def one():
        return len([chunk async for chunk in await acompletion(model, stream=True, **OPTIONS)])
    return set(await asyncio.gather(*(one() for _ in range(count))))

def work():
    "What a worker does: calls in threads, and many at once in a loop, twice, for the second has a pool to take from."
    for _ in range(2):
        threads = [threading.Thread(target=completion, args=("openai/hello",), kwargs=OPTIONS) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert asyncio.run(side_by_side("openai/long-50", 10)) == {52}
        for thread in threads:
            thread.join()
        assert len(list(completion("openai/long-50", stream=True, **OPTIONS))) == 52
"""


@pytest.fixture
def own() -> Iterator[Upstream]:
    """An upstream that nobody else has connections to."""
    with Upstream() as upstream:
        yield upstream


def run(code: str, own: Upstream, tmp_path: Path) -> str:
    """What a program prints, that ends well and complains of nothing."""
    file = tmp_path / "program.py"
    file.write_text(COMMON + code)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", str(file), own.base_url],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(Path(errors.__file__).parent.parent)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("method", sorted({"spawn", "forkserver", "fork"} & {*multiprocessing.get_all_start_methods()}))
def test_children_of_a_process_with_streams_open(own: Upstream, tmp_path: Path, method: str) -> None:
    code = f"""
if __name__ == "__main__":
    work()
    kept = streams("openai/long-100?delay=3", 3)
    for stream in kept:
        next(stream)
    children = [multiprocessing.get_context("{method}").Process(target=work) for _ in range(2)]
    for child in children:
        child.start()
    print([len(list(stream)) for stream in kept])
    for child in children:
        child.join()
        print(child.exitcode)
"""
    assert run(code, own, tmp_path) == "[101, 101, 101]\n0\n0\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="external: no fork on this system")
def test_workers_forked_beforehand(own: Upstream, tmp_path: Path) -> None:
    """As gunicorn does: the arbiter loads everything and calls before it forks, and replaces who dies."""
    code = """
work()
kept = streams("openai/long-100?delay=5", 2)
for stream in kept:
    next(stream)

def fork(ends):
    pid = os.fork()
    if pid:
        return pid
    work()
    mine = streams("openai/hello?stall=2", 3)  # open at the worker's end, whatever that is
    for stream in mine:
        next(stream)
    if ends == "exit":
        sys.exit(0)
    if ends == "raise":
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGKILL)

for ends in ("exit", "raise", "kill"):
    workers = [fork(ends) for _ in range(2)]
    print(ends, [os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) for worker in workers])
print([len(list(stream)) for stream in kept])
work()
"""
    expected = "exit [0, 0]\nraise [-15, -15]\nkill [-9, -9]\n[101, 101]\n"
    assert run(code, own, tmp_path) == expected
    own.wait(lambda stats: stats["connections"]["open"] == 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="external: no fork on this system")
def test_a_fork_within_a_loop_while_threads_read(own: Upstream, tmp_path: Path) -> None:
    """Locks may be held at that moment: the child begins with none of them."""
    code = """
def read():
    while not over.is_set():
        list(completion("openai/long-50", stream=True, **OPTIONS))
over = threading.Event()
threads = [threading.Thread(target=read) for _ in range(4)]
for thread in threads:
    thread.start()
async def main():
    reading = asyncio.ensure_future(side_by_side("openai/long-200?delay=2", 5))
    await asyncio.sleep(0.05)
    codes = []
    for _ in range(6):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                list(completion("openai/hello", stream=True, **OPTIONS))
                code = 0
            finally:
                os._exit(code)
        codes.append(await asyncio.to_thread(lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
    return codes, await reading
print(*asyncio.run(main()))
over.set()
for thread in threads:
    thread.join()
"""
    assert run(code, own, tmp_path) == "[0, 0, 0, 0, 0, 0] {202}\n"


def test_threads_that_read_when_the_interpreter_ends(own: Upstream, tmp_path: Path) -> None:
    code = """
def read(ready):
    for _ in completion("openai/long-500?delay=2", stream=True, **OPTIONS):
        ready.set()
def loop(ready):
    async def main():
        async for _ in await acompletion("openai/long-500?delay=2", stream=True, **OPTIONS):
            ready.set()
    asyncio.run(main())
for target in (read, loop) * 3:
    ready = threading.Event()
    threading.Thread(target=target, args=(ready,), daemon=True).start()
    assert ready.wait(20)
"""
    assert run(code, own, tmp_path) == ""
    own.wait(lambda stats: stats["connections"]["open"] == 0)
