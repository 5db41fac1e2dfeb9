"""The rules that keep the code in its rooms, as tests."""

import ast
import importlib
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock
from penstock.parser import FAMILIES

ROOT = Path(__file__).resolve().parent.parent
RUST = ROOT / "rust"
PYTHON = ROOT / "python" / "penstock"
COMMENT = re.compile(r'//[^\n]*|/\*.*?\*/|("(?:\\.|[^"\\])*")', re.DOTALL)


def rust_code(path: Path) -> str:
    """A Rust file without its comments: prose may name whom it likes."""
    return COMMENT.sub(lambda match: match[1] or " ", path.read_text(encoding="utf-8"))


# Pure and bound ------------------------------------------------------------------------------------------------------


def test_only_the_bindings_say_pyo3() -> None:
    sayers = {
        path.relative_to(RUST).parts[0]
        for path in [*RUST.rglob("*.rs"), *RUST.glob("*/Cargo.toml")]
        if "target" not in path.parts and "pyo3" in path.read_text(encoding="utf-8")
    }
    assert sayers <= {"bindings"}


def test_the_core_forbids_unsafe_code() -> None:
    assert "#![forbid(unsafe_code)]" in (RUST / "core" / "src" / "lib.rs").read_text(encoding="utf-8")


# Providers are rows --------------------------------------------------------------------------------------------------


def slugs() -> set[str]:
    """Every provider's name, without those that are also a wire family's: a family may be named anywhere."""
    from penstock.providers.registry import ROWS

    return {name for row in ROWS for name in (row.slug, *row.aliases)} - set(FAMILIES)


def named(text: str, names: set[str]) -> set[str]:
    """Which of the names stand in a text: as words, in snake_case, in CamelCase.

    `x_name` and `amazon-name` are fields that come on the wire, and whoever reads the wire must spell them.
    """
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text).lower()
    return {
        name
        for name in names
        if re.search(rf"(?<![a-z0-9])(?<!\bx_)(?<!\bamazon-){re.escape(name)}(?![a-z0-9])", spaced)
    }


# The vendor whose API the wire is named after, the room that has the name of its row, and a word of the language.
HOUSE_WORDS = {"openai", "replay", "meta"}


def test_framing_names_no_provider() -> None:
    names = slugs() | set(FAMILIES) - {"chat", "text"}  # words of the language
    for path in (RUST / "core" / "src" / "framing").glob("*.rs"):
        assert not named(rust_code(path), names), path


def test_rust_names_no_provider() -> None:
    found = {
        (str(path.relative_to(ROOT)), name)
        for path in RUST.glob("*/src/**/*.rs")
        for name in named(rust_code(path), slugs() - HOUSE_WORDS)
    }
    assert not found


def python_words(path: Path) -> Iterator[tuple[int, str]]:
    """What a Python file computes with: its names, and strings without white space; no comments, docstrings, prose."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Constant(value=str() as text) if not re.search(r"\s", text):
                yield node.lineno, text
            case ast.Name(id=text) | ast.Attribute(attr=text) | ast.arg(arg=text) | ast.keyword(arg=str() as text):
                yield node.lineno, text
            case ast.FunctionDef(name=text) | ast.AsyncFunctionDef(name=text) | ast.ClassDef(name=text):
                yield node.lineno, text


def test_python_names_no_provider_outside_the_registry() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in PYTHON.rglob("*.py")
        if path != PYTHON / "providers" / "registry.py"
        for line, text in python_words(path)
        if named(text, slugs() - HOUSE_WORDS)
    }
    assert not found


def test_a_family_has_the_same_name_in_rust_and_python() -> None:
    from penstock.providers.registry import ROWS

    readers = {path.stem for path in (RUST / "core" / "src" / "wire").glob("*.rs")}
    builders = {path.stem for path in (PYTHON / "wire").glob("*.py")}
    assert set(FAMILIES) <= readers
    assert {row.family for row in ROWS} <= builders & set(FAMILIES)


# Imports -------------------------------------------------------------------------------------------------------------


def imported_by(statement: str) -> set[str]:
    """The modules that a statement brings into a bare interpreter: no site, so no other package's start-up hooks."""
    assert penstock.__file__ is not None
    code = (
        "import sys; before = set(sys.modules); sys.path.append(sys.argv[1])\n"
        f"{statement}\n"
        "print(*sorted(set(sys.modules) - before), sep='\\n')"
    )
    home = Path(penstock.__file__).parent.parent
    command = [sys.executable, "-I", "-S", "-c", code, str(home)]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


HEAVY = {"typing", "dataclasses", "enum", "re", "logging", "asyncio", "orjson", "httpx", "ssl", "json", "inspect"}


def test_import_penstock_is_light() -> None:
    assert not imported_by("import penstock") & HEAVY


def test_the_parser_needs_no_http_library() -> None:
    assert not imported_by("import penstock.parser") & {"httpx", "httpx2", "asyncio", "ssl", "socket", "orjson"}


def test_the_parser_decodes_without_more() -> None:
    statement = "from penstock.parser import Decoder; Decoder().feed(b'data: [DONE]\\n\\n')"
    assert not imported_by(statement) & {"httpx", "httpx2", "asyncio", "ssl", "socket", "orjson"}


# The public face -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["penstock", "penstock.parser", "penstock.replay"])
def test_all_is_literal_sorted_and_importable(name: str) -> None:
    module = importlib.import_module(name)
    names = list(module.__all__)
    # CONSTANTS, then Classes, then functions: the order ruff keeps.
    assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert len(names) == len(set(names))
    for exported in names:
        assert getattr(module, exported) is not None, exported
    assert set(names) <= set(dir(module))


def test_one_version() -> None:
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    version = manifest["workspace"]["package"]["version"]
    assert penstock.__version__ == version
    assert importlib.metadata.version("penstock") == version
    assert f"## {version}" in (text := (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")) or "## Unreleased" in text


def test_the_package_is_typed() -> None:
    package = Path(penstock.__path__[0])
    assert (package / "py.typed").is_file()
    assert (package / "_native.pyi").is_file()


# The comments' honesty -----------------------------------------------------------------------------------------------


def test_no_forbidden_names() -> None:
    forbidden = re.compile(r"(?:class|struct|trait|enum)\s+\w*(?:Manager|Helper|Handler|Util)s?\b")
    for path in [*RUST.rglob("src/**/*.rs"), *PYTHON.rglob("*.py")]:
        assert not forbidden.search(path.read_text(encoding="utf-8")), path
        assert path.stem not in {"utils", "util", "helpers", "manager"}, path
