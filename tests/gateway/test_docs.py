"""What docs/proxy.md shows works: its configs are good ones, its commands run."""

import configparser
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

import penstock
from penstock.cli.proxy import proxy
from penstock.gateway import serve
from penstock.gateway.compile import tables_of
from penstock.gateway.config import Config, parse
from penstock.gateway.schema import GENERAL

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "proxy.md").read_text(encoding="utf-8")
HOME = str(Path(penstock.__file__).parent.parent)
SECRET = "sk-0d9f8e7c6b5a41322314a5b6c7d8e9f0"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def configs() -> Iterator[str]:
    for block in blocks("yaml"):
        for document in yaml.safe_load_all(block):
            if document.get("kind") == "ConfigMap":
                yield document["data"]["config.yaml"]
            elif "kind" not in document:
                yield block


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("text", list(configs()))
def test_the_configs_are_good(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "MISTRAL_API_KEY"):
        monkeypatch.setenv(name, "sk-nothing-at-all")
    for name in re.findall(r"os\.environ/(\w+)", text):
        monkeypatch.setenv(name, SECRET)
    config = Config("config.yaml")
    parse(text, config, dict(os.environ))
    assert tables_of(config) is not None
    assert [str(problem) for problem in config.problems] == []


def commands() -> Iterator[str]:
    """What supervisors are told to run."""
    yield from re.findall(r"ExecStart=/opt/penstock/bin/penstock proxy (.*)", PAGE)
    for line in re.findall(r"^CMD (\[.*\])", PAGE, re.MULTILINE):
        yield " ".join(yaml.safe_load(line))


def test_the_command_lines_are_good() -> None:
    lines = list(commands())
    assert len(lines) == 2
    for line in lines:
        context = proxy.make_context("proxy", line.split())
        assert context.params["config"] == "/etc/penstock/config.yaml"
        assert isinstance(context, click.Context)


def test_the_deployment_of_kubernetes() -> None:
    (block,) = (block for block in blocks("yaml") if "kind: Deployment" in block)
    documents = {document["kind"]: document for document in yaml.safe_load_all(block)}
    pod = documents["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert documents["Deployment"]["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert documents["Service"]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert {mount["name"] for mount in container["volumeMounts"]} == {each["name"] for each in pod["spec"]["volumes"]}
    paths = {mount["mountPath"] for mount in container["volumeMounts"]}
    config = yaml.safe_load(documents["ConfigMap"]["data"]["config.yaml"])
    assert {"/etc/penstock", config["general_settings"]["spill_folder"]} == paths
    assert config["general_settings"]["redis"]["nodes"] == documents["Deployment"]["spec"]["replicas"]
    # It is only known to be nobody's root by its number.
    assert container["securityContext"]["runAsNonRoot"]
    (user,) = re.findall(r"^USER (.*)$", PAGE, re.MULTILINE)
    assert user.isdecimal()


def test_the_unit_of_systemd() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    (block,) = blocks("ini")
    unit.read_string(block)
    assert unit["Service"]["WorkingDirectory"] == f"/var/lib/{unit['Service']['StateDirectory']}"
    # Draining, what is cut after that, hooks, the last rows.
    default = next(key.default for key in GENERAL.keys if key.name == "drain_seconds")
    assert int(unit["Service"]["TimeoutStopSec"]) > default + 2 + 2 * serve.PATIENCE + serve.FLUSH


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.mark.parametrize("script", [block for block in blocks("bash") if "penstock proxy --model" in block])
def test_the_quick_start_runs(script: str, tmp_path: Path) -> None:
    bash = shutil.which("bash") or pytest.skip("external: no bash")
    if "openai" in script:
        pytest.importorskip("openai", reason="external: no openai")
    port = free_port()
    lines = [line for line in script.splitlines() if not line.startswith("pip install")]
    # Slower machines than a reader's take longer to begin.
    waits = f"for i in $(seq 600); do curl -so /dev/null http://127.0.0.1:{port}/ && break; sleep 0.1; done"
    script = "set -m\n" + "\n".join(waits if line.startswith("sleep") else line for line in lines)
    script = script.replace("4000", str(port)).replace("penstock proxy", f"penstock proxy --port {port}")
    (tmp_path / "penstock").write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; from penstock.cli import main; sys.exit(main())" "$@"\n'
    )
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for name in ("penstock", "python"):
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [bash, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": HOME, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stderr
    assert "data: [DONE]" in done.stdout or "106 tokens" in done.stdout, (done.stdout, done.stderr)
    assert "Hello! A penstock is" in done.stdout.replace('"', "") or '"content":"Hello' in done.stdout


def test_the_commands_of_keys_and_spend_run(tmp_path: Path) -> None:
    from penstock.cli.commands import run

    (block,) = (block for block in blocks("bash") if "penstock keys make" in block)
    for line in block.splitlines():
        words = [word.strip("'") for word in line.split()]
        assert run(words[1:]) == 0, line
    assert (tmp_path / "spend.csv").is_file()
