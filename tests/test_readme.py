"""Every Python block of README.md and docs/*.md runs as it stands, in a process of its own, without key or network.

The text of a block is what users copy. What it takes to run it here is in the environment: each provider's own base URL
variable points at a local upstream, which answers to whatever model the block names.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from penstock import BadRequestError
from penstock.providers.registry import ROWS
from penstock.providers.resolve import resolve
from penstock.replay import Upstream
from penstock.replay.cases import FAMILIES

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A block of code in a page."""

    where: str
    code: str


def blocks() -> Iterator[Block]:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start(1)) + 1
            yield Block(f"{page.relative_to(ROOT).as_posix()}:{line}", match[1])


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


def environment(upstream: Upstream) -> dict[str, str]:
    """Keys that open nothing, and for each provider the address of the local upstream."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR") if name in os.environ}
    for row in ROWS:
        if row.family in FAMILIES and row.base_env:
            kept |= dict.fromkeys(row.key_env[:1], "sk-nothing") | {row.base_env[0]: upstream.base_url}
    return kept


def models(code: str) -> dict[str, str]:
    """The models that a block names, as its provider will be asked for them, with the provider's family."""
    strings = {node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)}
    found = {}
    for text in strings:
        if isinstance(text, str) and re.fullmatch(r"\S+", text):
            with suppress(BadRequestError):
                row, name = resolve(text)
                found[name] = row.family
    return found


@pytest.mark.parametrize("block", list(blocks()), ids=lambda block: block.where)
def test_block_runs(block: Block, upstream: Upstream, tmp_path: Path) -> None:
    cases = {name: FAMILIES[family].find("hello") for name, family in models(block.code).items() if family in FAMILIES}
    upstream.recorded.update({name: case for name, case in cases.items() if case and "?" not in name})  # type: ignore[misc]
    script = tmp_path / "block.py"
    script.write_text(block.code, encoding="utf-8")
    command = [sys.executable, "-W", "error", "-I", str(script)]
    ran = subprocess.run(
        command,
        check=False,
        cwd=tmp_path,
        env=environment(upstream),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
    )
    assert ran.returncode == 0, f"{block.where}\n{ran.stderr}"
    assert not ran.stderr, f"{block.where}\n{ran.stderr}"


def test_the_first_screen_is_code_that_works() -> None:
    """A sentence, how to install, and ten lines to run, before anybody has to scroll."""
    first = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40]
    assert "```python" in first
    assert any("pip install" in line for line in first)
