"""Every console block of docs/terminal.md is what a terminal shows: each command runs at one, and screens are compared.

Numbers differ from run to run, and `...` stands for whatever is there. `^C` is typed where the page has it.
"""

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import penstock

pty = pytest.importorskip("pty", reason="external: no pseudo-terminals here")

PAGE = Path(__file__).resolve().parent.parent / "docs" / "terminal.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SCRIPT = re.compile(r"^```python\n(# ask.py\n.*?)^```$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"\d+(?:\\?\.\d+)?")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
MAIN = """#!/bin/sh
exec {python} -c 'import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from penstock.cli import main
sys.exit(main())' "$@"
"""
PYTHON = '#!/bin/sh\nexec {python} "$@"\n'


class Command(NamedTuple):
    """A command of the page with what it shows, and its exit status if the page has it."""

    line: int
    text: str
    screen: str
    status: int | None


def commands() -> Iterator[Command]:
    page = PAGE.read_text("utf-8")
    for block in BLOCK.finditer(page):
        for part in re.finditer(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)(?:\$ echo \$\?\n(\d+)\n)?", block[1], re.MULTILINE):
            if part[1].split()[0] in ("penstock", "python"):
                line = page.count("\n", 0, block.start(1) + part.start()) + 1
                yield Command(line, part[1], part[2], int(part[3]) if part[3] else None)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, script in (("penstock", MAIN), ("python", PYTHON)):
        (programs / name).write_text(script.format(python=sys.executable))
        (programs / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    return {
        **kept,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(penstock.__file__).parent.parent),
        "PYTHONIOENCODING": "utf-8",
        "COLUMNS": "100",
        "TERM": "xterm",
    }


def shown(command: Command, environment: dict[str, str], place: Path) -> tuple[str, int]:
    """The screen after a command, and its exit status."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        ["sh", "-c", f"trap : INT; {command.text}"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        cwd=place,
        start_new_session=True,
    )
    os.close(slave)
    before, typed, _ = command.screen.partition("^C")
    screen, deadline = "", time.monotonic() + 30
    try:
        while time.monotonic() < deadline:
            if typed and pattern(before, end="").match(screen):
                os.killpg(process.pid, signal.SIGINT)
                screen, typed = screen + "^C", ""
            if not select.select([master], [], [], 0.05)[0]:
                continue
            try:
                data = os.read(master, 65536)
            except OSError:  # Linux says EIO where others say end of file
                break
            if not data:
                break
            screen += COLOUR.sub("", data.decode(errors="replace")).replace("\r\n", "\n")
        return screen, process.wait(10)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        os.close(master)


def pattern(text: str, end: str = r"\s*\Z") -> re.Pattern[str]:
    """What matches the screen that the page has."""
    escaped = NUMBER.sub(lambda _: r"\d+(?:\.\d+)?", re.escape(text.strip()))
    escaped = re.sub(r"(?:\\ |\\\t|\\\n|\s)+", lambda _: r"\s+", escaped)  # lines are cut to the width of the terminal
    return re.compile(escaped.replace(re.escape("..."), r"[\s\S]*?") + end)


@pytest.mark.parametrize("command", list(commands()), ids=lambda command: f"{command.line}: {command.text}")
def test_the_terminal_shows_what_the_page_has(command: Command, environment: dict[str, str], tmp_path: Path) -> None:
    (script,) = SCRIPT.findall(PAGE.read_text("utf-8"))
    (tmp_path / "ask.py").write_text(script)
    screen, status = shown(command, environment, tmp_path)
    assert pattern(command.screen).match(screen), screen
    if command.status is not None:
        assert status % 256 == command.status


def test_a_page_that_lies_is_noticed() -> None:
    assert pattern("a 1.5 b ... d").match("a 7 b c d\n")
    assert not pattern("a 1.5 b").match("a 1.5 c\n")
    assert not pattern("a b").match("a b and more\n")
