"""A little of everything that holds native memory, for valgrind: see `make memcheck`.

The upstream is in a process of its own, so that what is checked is this side alone.

Usage: python run.py          (starts the upstream, and itself under valgrind)
       python run.py BASE_URL (what the above starts)
"""

import asyncio
import gc
import os
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MESSAGES = [{"role": "user", "content": "Hello"}]
FAMILIES = ("chat", "anthropic", "gemini", "converse", "cohere", "ollama", "responses")


def blocking(options: dict[str, Any]) -> None:
    """Streams in all families, read whole, left, closed while they are read, and failing."""
    from penstock import APIError, completion

    for family in FAMILIES:
        model = f"replay/{family}/hello"
        for chunk in completion(model, MESSAGES, stream=True, **options):
            chunk.model_dump()
        completion(model, MESSAGES, **options)
        for script in ("cut=3", "reset=2", "error=2", "status=500", "malformed=2"):
            with suppress(APIError):
                list(completion(f"replay/{family}/hello?{script}", MESSAGES, stream=True, **options))
        next(completion(f"replay/{family}/hello?stall=2", MESSAGES, stream=True, **options))
    stream = completion("replay/chat/hello?stall=2", MESSAGES, stream=True, **options)
    closing = threading.Timer(1, stream.close)
    closing.start()
    with suppress(APIError):
        list(stream)
    closing.join()


async def asynchronous(options: dict[str, Any]) -> None:
    """The same under asyncio, cancelled here and there, and some left open at the loop's end."""
    from penstock import acompletion

    async def read(model: str) -> None:
        async for chunk in await acompletion(model, MESSAGES, stream=True, **options):
            chunk.to_dict()

    for family in FAMILIES:
        await asyncio.gather(*(read(f"replay/{family}/hello") for _ in range(3)))
        for turn in range(8):
            task = asyncio.ensure_future(read(f"replay/{family}/hello?stall=3"))
            await asyncio.sleep(turn / 10)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    kept.append(await acompletion("replay/chat/hello?stall=3", MESSAGES, stream=True, **options))
    await anext(kept[-1])


kept: list[Any] = []


def main() -> int:
    """What valgrind says, as an exit code: 0 for nothing."""
    if len(sys.argv) > 1:
        options: dict[str, Any] = {"api_base": sys.argv[1], "api_key": "k", "max_retries": 0, "timeout": 300}
        options["transport"] = "native"
        blocking(options)
        asyncio.run(asynchronous(options))
        kept.clear()
        gc.collect()
        print("run to its end", flush=True)
        return 0
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        print("valgrind is not installed")
        return 1
    from penstock.replay import Upstream

    with Upstream() as upstream:
        checked = [
            valgrind,
            "--quiet",
            "--error-exitcode=99",
            # Python leaves much behind at its end, but nothing that nobody knows of.
            "--leak-check=full",
            "--show-leak-kinds=definite",
            "--errors-for-leak-kinds=definite",
            "--num-callers=30",
            f"--suppressions={HERE / 'python.supp'}",
            "--gen-suppressions=all",
            sys.executable,
            "-I",
            str(HERE / "run.py"),
            upstream.base_url,
        ]
        environment = os.environ | {"PYTHONMALLOC": "malloc", "PYTHONFAULTHANDLER": "0"}
        return subprocess.run(checked, env=environment, check=False, timeout=1800).returncode


if __name__ == "__main__":
    sys.exit(main())
