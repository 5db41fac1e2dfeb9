"""The gateway's process: what it says, what it refuses, signals, reloads."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

import penstock
from penstock.cli.commands import run as command
from penstock.gateway import serve
from penstock.replay import Upstream

SECRET = "sk-0d9f8e7c6b5a41322314a5b6c7d8e9f0"
HOME = str(Path(penstock.__file__).parent.parent)
MESSAGES = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def write(path: Path, **sections: Any) -> Path:
    given = {"model_list": [{"model_name": "hello", "litellm_params": {"model": "replay/hello"}}], **sections}
    path.write_text(json.dumps(given), encoding="utf-8")
    return path


class Process:
    """`penstock proxy` with these words."""

    def __init__(self, folder: Path, *words: str, **environ: str) -> None:
        self.err = folder / "err.txt"
        self.out = folder / "out.txt"
        code = "import sys; from penstock.cli import main; sys.exit(main())"
        with self.err.open("wb") as err, self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, "proxy", "--port", "0", *words],
                stdout=out,
                stderr=err,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": HOME, **environ},
            )
        self.wait("curl")
        found = re.search(r"curl (https?://\S+)/v1/chat/completions", self.said())
        assert found is not None
        self.url = found[1]

    def said(self) -> str:
        return self.err.read_text(encoding="utf-8")

    def wait(self, text: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def ask(self, model: str = "hello", **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {SECRET}"}
        body = {"model": model, "messages": MESSAGES, **more}
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, headers=headers, trust_env=False, timeout=30)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        return self.process.wait(60)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    running: list[Process] = []

    def start(*words: str, **environ: str) -> Process:
        running.append(Process(tmp_path, *words, **environ))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


# What does not start --------------------------------------------------------------------------------------------------


def test_check_shows_what_would_be_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(
        tmp_path / "config.yaml",
        router_settings={"model_group_alias": {"gpt-4": "hello"}},
        general_settings={"master_key": SECRET, "nonsense": 1},
    )
    assert command(["proxy", "--config", str(file), "--check"]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"hello\s+hello#0\s+replay/hello\s+127\.0\.0\.1:\d+\s+the native module", out)
    assert "gpt-4 is hello" in err
    assert "config.yaml:1: warning: general_settings.nonsense: unknown key" in err
    assert "it would listen on 0.0.0.0:4000, with a master key" in err
    assert SECRET not in out + err


def test_check_shows_all_that_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(
        tmp_path / "config.yaml",
        model_list=[{"model_name": "m", "litellm_params": {"model": "opnai/m"}}],
        general_settings={"master_key": "sk-1234"},
    )
    assert command(["proxy", "--config", str(file), "--check"]) == 2
    *problems, what, advice = capsys.readouterr().err.splitlines()
    assert len(problems) == 2
    assert what == "penstock: 2 errors in the config."
    assert advice == "docs/proxy-config.md has every key."


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to serve: --config FILE, or --model NAME"),
        (["--config", "a", "--model", "b"], "it is --config or --model, not both"),
        (["--model", "replay/hello", "--ssl-certfile", "a"], "--ssl-certfile and --ssl-keyfile belong together"),
    ],
)
def test_words_that_do_not_go_together(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["proxy", *words]) == 2
    assert capsys.readouterr().err.splitlines() == [f"penstock: {said}", "`penstock proxy --help` has the details."]


def test_without_a_master_key_other_machines_are_not_served(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["proxy", "--model", "replay/hello", "--host", "0.0.0.0"]) == 1
    what, advice = capsys.readouterr().err.splitlines()
    assert "there is no master key" in what
    assert "--allow-unauthenticated" in advice


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        assert command(["proxy", "--model", "replay/hello", "--port", port]) == 1
    what, advice = capsys.readouterr().err.splitlines()
    assert what.startswith(f"penstock: 127.0.0.1:{port} cannot be had: ")
    assert advice.startswith("--port chooses another one.")


def test_a_certificate_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key.pem").write_text("no key")
    words = ["proxy", "--model", "replay/hello", "--ssl-certfile", "none.pem", "--ssl-keyfile", "key.pem"]
    assert command([*words, "--port", "0"]) == 1
    what, advice = capsys.readouterr().err.splitlines()
    assert what.startswith("penstock: TLS: ")
    assert advice == "--ssl-certfile and --ssl-keyfile are files of PEM."


def test_a_database_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "config.yaml", general_settings={"database_url": "mysql://x"})
    assert command(["proxy", "--config", str(file)]) == 1
    what, advice = capsys.readouterr().err.splitlines()
    assert "mysql" in what
    assert "database_url" in advice


@pytest.mark.parametrize("module", ["yaml", "sqlalchemy"])
def test_without_the_extra(module: str) -> None:
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from penstock.cli.commands import run\nsys.exit(run(['proxy', '--model', 'replay/hello']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": HOME},
    )
    what, advice = done.stderr.splitlines()
    assert f"needs {module}, which is not installed." in what
    assert advice == 'pip install "penstock[proxy]"'
    assert done.returncode in (1, 2)


# What it says ---------------------------------------------------------------------------------------------------------


def said(models: list[str], host: str, port: int = 4000, *, key: str | None = None, **options: Any) -> str:
    chosen = serve.Options(models=tuple(models), **options)
    _, compiled = serve.load(chosen)
    return serve.banner(chosen, replace(compiled, settings={**compiled.settings, "master_key": key}), host, port)


def test_the_first_words() -> None:
    text = said(["replay/hello"], "127.0.0.1")
    assert text.startswith(f"penstock {penstock.__version__} at http://127.0.0.1:4000, for this machine alone")
    assert '"model": "replay/hello"' in text
    text = said(["replay/*"], "0.0.0.0", cert=("a", "b"), allow_unauthenticated=True)
    assert "at https://0.0.0.0:4000, for EVERYBODY" in text
    assert "curl https://localhost:4000/v1/chat/completions -H 'content-type" in text
    text = said(["replay/hello"], "::1", key=SECRET)
    assert "at http://[::1]:4000, for whoever has a key" in text
    assert "$PENSTOCK_MASTER_KEY" in text
    assert SECRET not in text


# What runs ------------------------------------------------------------------------------------------------------------


def test_models_alone_are_served_and_leave_nothing_behind(start: Any, tmp_path: Path) -> None:
    proxy = start("--model", "replay/hello")
    for name in ("replay/hello", "hello"):
        answer = proxy.ask(name)
        assert answer.json()["choices"][0]["message"]["content"].startswith("Hello!")
    proxy.signal(signal.SIGTERM)
    assert proxy.ended() == 0
    assert {path.name for path in tmp_path.iterdir()} == {"err.txt", "out.txt"}
    lines = proxy.out.read_text().splitlines()
    assert len(lines) == 2
    assert all("19+87 tokens" in line for line in lines)


def test_the_line_to_try_works(start: Any, tmp_path: Path) -> None:
    proxy = start("--model", "replay/hello")
    _, _, line = proxy.said().partition("try     ")
    done = subprocess.run(["sh", "-c", line], check=True, capture_output=True, text=True)
    assert done.stdout.endswith("data: [DONE]\n\n")
    assert '"choices":[],"usage":{' in done.stdout


def test_a_master_key_by_variable(start: Any, tmp_path: Path) -> None:
    proxy = start("--config", str(write(tmp_path / "config.yaml")), "--host", "127.0.0.1", PENSTOCK_MASTER_KEY=SECRET)
    assert proxy.ask().status_code == 200
    assert httpx.get(f"{proxy.url}/v1/models", trust_env=False).status_code == 401
    assert SECRET not in proxy.said()


def test_the_config_is_read_anew_whole_or_not_at_all(start: Any, tmp_path: Path) -> None:
    keyed = {"master_key": SECRET}
    file = write(tmp_path / "config.yaml", general_settings=keyed)
    proxy = start("--config", str(file), "--host", "127.0.0.1")
    others = [
        {"model_name": name, "litellm_params": {"model": "replay/anthropic/hello"}} for name in ("hello", "other")
    ]
    write(file, model_list=others, general_settings=keyed)
    proxy.signal(signal.SIGHUP)
    proxy.wait("the config was read anew: 2 deployments")
    assert proxy.ask("other").json()["id"].startswith("msg_")

    write(file, model_list=[*others, {"model_name": "x"}], general_settings={**keyed, "silence": "long"})
    proxy.signal(signal.SIGHUP)
    proxy.wait("the old config stays: ")
    assert "model_list[2]: expected litellm_params" in proxy.said()
    assert "general_settings.silence: got 'long', expected seconds" in proxy.said()
    assert proxy.ask("other").status_code == 200

    headers = {"authorization": f"Bearer {SECRET}"}
    answer = httpx.post(f"{proxy.url}/config/reload", headers=headers, trust_env=False)
    assert answer.status_code == 400
    assert "general_settings.silence" in answer.json()["error"]["message"]

    write(file, model_list=others, general_settings={**keyed, "log_format": "json", "own": 1})
    answer = httpx.post(f"{proxy.url}/config/reload", headers=headers, trust_env=False)
    assert answer.status_code == 200
    warnings = " ".join(answer.json()["warnings"])
    assert "general_settings.own: unknown key" in warnings
    assert "general_settings.log_format has effect with the next start" in warnings


def test_the_master_key_cannot_get_lost_in_service(start: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "config.yaml", general_settings={"master_key": SECRET})
    proxy = start("--config", str(file), "--host", "0.0.0.0")
    write(file)
    proxy.signal(signal.SIGHUP)
    proxy.wait("there is no master key any more")
    url = proxy.url.replace("localhost", "127.0.0.1")
    assert httpx.get(f"{url}/v1/models", trust_env=False).status_code == 401


def test_a_signal_lets_requests_end_and_every_row_is_written(start: Any, tmp_path: Path) -> None:
    file = write(
        tmp_path / "config.yaml",
        model_list=[{"model_name": "slow", "litellm_params": {"model": "replay/long-20?delay=100"}}],
        general_settings={"flush_seconds": 30, "database_url": f"sqlite:///{tmp_path}/spend.db"},
    )
    proxy = start("--config", str(file))
    body = {"model": "slow", "messages": MESSAGES, "stream": True}
    with httpx.stream("POST", f"{proxy.url}/v1/chat/completions", json=body, trust_env=False, timeout=30) as answer:
        lines = answer.iter_lines()
        next(lines)
        proxy.signal(signal.SIGTERM)
        proxy.wait("no new requests")
        assert list(lines)[-2:] == ["data: [DONE]", ""]
    assert proxy.ended() == 0
    with sqlite3.connect(tmp_path / "spend.db") as database:
        assert database.execute("select outcome, chunks > 20 from penstock_requests").fetchall() == [("complete", 1)]
    database.close()


def test_a_second_signal_ends_them_at_once(start: Any, tmp_path: Path) -> None:
    file = write(
        tmp_path / "config.yaml",
        model_list=[{"model_name": "slow", "litellm_params": {"model": "replay/long-2000?delay=50"}}],
        general_settings={"database_url": f"sqlite:///{tmp_path}/spend.db"},
    )
    proxy = start("--config", str(file))
    body = {"model": "slow", "messages": MESSAGES, "stream": True}
    with httpx.stream("POST", f"{proxy.url}/v1/chat/completions", json=body, trust_env=False, timeout=30) as answer:
        lines = answer.iter_lines()
        next(lines)
        proxy.signal(signal.SIGINT)
        proxy.wait("no new requests")
        proxy.signal(signal.SIGINT)
        rest = list(lines)
    assert "data: [DONE]" not in rest
    assert any('"error"' in line for line in rest)
    assert proxy.ended() == 0
    with sqlite3.connect(tmp_path / "spend.db") as database:
        assert len(database.execute("select outcome from penstock_requests").fetchall()) == 1
    database.close()


def test_hooks_of_the_config(start: Any, tmp_path: Path) -> None:
    (tmp_path / "my_hooks.py").write_text(
        "from pathlib import Path\n"
        "class Log:\n"
        "    def started(self, call):\n"
        "        self.input = call.input\n"
        "    def ended(self, call, end):\n"
        "        line = f'{end.how} {end.usage.total_tokens} {self.input[0][\"content\"]}\\n'\n"
        "        Path(__file__).with_name('told.txt').open('a').write(line)\n"
    )
    file = write(
        tmp_path / "config.yaml",
        litellm_settings={"hooks": ["my_hooks.Log"]},
        general_settings={"database_url": f"sqlite:///{tmp_path}/spend.db", "flush_seconds": 0.1},
    )
    proxy = start("--config", str(file))
    assert proxy.ask().status_code == 200
    proxy.signal(signal.SIGTERM)
    assert proxy.ended() == 0
    assert (tmp_path / "told.txt").read_text() == "complete 106 Say hello.\n"


def test_many_upstreams_by_one_name(start: Any, tmp_path: Path) -> None:
    with Upstream() as up:
        to = {"api_base": up.base_url, "api_key": "sk-nothing"}
        file = write(
            tmp_path / "config.yaml",
            model_list=[
                {"model_name": "m", "litellm_params": {"model": "openai/hello?status=500", "order": 1, **to}},
                {"model_name": "m", "litellm_params": {"model": "openai/hello", "order": 2, **to}},
                {"model_name": "n", "litellm_params": {"model": "openai/hello?status=401", **to}},
            ],
            router_settings={"fallbacks": [{"n": ["m"]}]},
        )
        proxy = start("--config", str(file))
        for name in ("m", "n"):
            answer = proxy.ask(name)
            assert answer.status_code == 200
            assert answer.headers["x-penstock-deployment"] == "m#1"
