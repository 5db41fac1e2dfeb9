"""The gateway's process: what it says, what it refuses, signals, reloads."""

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
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
from penstock.gateway.spill import Spill
from penstock.gateway.store import Store
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
        self.wait(" at http")
        found = re.search(r"^.* at (https?://[^/,]+)", self.said(), re.MULTILINE)
        assert found is not None
        self.url = found[1].replace("0.0.0.0", "127.0.0.1")

    def said(self) -> str:
        return self.err.read_text(encoding="utf-8")

    def wait(self, text: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def ask(self, model: str = "hello", *, timeout: float = 30, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {SECRET}"}
        body = {"model": model, "messages": MESSAGES, **more}
        url = f"{self.url}/v1/chat/completions"
        return httpx.post(url, json=body, headers=headers, trust_env=False, timeout=timeout)

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


@pytest.mark.parametrize("words", [["--check"], ["--port", "0"]])
@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"general_settings": {"redis": "nonsense://x"}}, "redis: url: "),
        ({"general_settings": {"redis": {"url": "redis://127.0.0.1:1", "lease": 0}}}, "redis: lease is seconds"),
        ({"router_settings": {"default_litellm_params": {"proxy": f"htp://u:{SECRET}@h"}}}, "proxy: htp:// is none of"),
    ],
)
def test_what_the_native_module_cannot_take_is_wrong_in_the_config(
    sections: Any, said: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "config.yaml", **sections)
    assert command(["proxy", "--config", str(file), *words]) == 2
    *problems, what, _ = capsys.readouterr().err.splitlines()
    assert said in problems[-1]
    assert problems[-1].startswith(f"{file}: error: ")
    assert SECRET not in "".join(problems)
    assert what == "penstock: 1 error in the config."


def test_no_password_of_an_address_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = {"model": "openai/m", "api_key": "k", "api_base": f"https://u:{SECRET}@h.test:8/v1", "verify": False}
    file = write(tmp_path / "config.yaml", model_list=[{"model_name": "m", "litellm_params": params}])
    assert command(["proxy", "--config", str(file), "--check"]) == 0
    out, err = capsys.readouterr()
    assert "h.test:8" in out
    assert "anybody may answer in place of h.test:8" in err
    assert SECRET not in out + err
    file = write(
        tmp_path / "config.yaml",
        model_list=[{"model_name": "m", "litellm_params": {**params, "api_base": f"ftp://u:{SECRET}@h"}}],
    )
    assert command(["proxy", "--config", str(file), "--check"]) == 2
    assert "not 'ftp://...@h'" in (err := capsys.readouterr().err)
    assert SECRET not in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", ""], "--model '' names no model"),
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


def test_a_host_that_is_not_here(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["proxy", "--model", "replay/hello", "--port", "0", "--host", "192.0.2.1", "--allow-unauthenticated"]
    assert command(words) == 1
    what, advice = capsys.readouterr().err.splitlines()
    assert what.startswith("penstock: 192.0.2.1:0 cannot be had: ")
    assert advice.startswith("--host is an address of this machine")


def test_a_certificate_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key.pem").write_text("no key")
    words = ["proxy", "--model", "replay/hello", "--ssl-certfile", "none.pem", "--ssl-keyfile", "key.pem"]
    assert command([*words, "--port", "0"]) == 1
    what, advice = capsys.readouterr().err.splitlines()
    assert what.startswith("penstock: TLS: ")
    assert advice == "--ssl-certfile and --ssl-keyfile are files of PEM."


@pytest.mark.parametrize("way", [["--check"], ["--port", "0"]])
def test_certificates_that_do_not_fit(way: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trustme = pytest.importorskip("trustme", reason="external: no trustme")
    for name in ("one", "other"):
        made = trustme.CA().issue_cert("localhost")
        made.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        made.private_key_pem.write_to_path(tmp_path / f"{name}.key")
    for certificate, key, said in (
        ("one.pem", "other.key", "other.key: it is not the key of the certificate in one.pem"),
        ("one.key", "one.key", "one.key: there is no certificate in it"),
        ("one.pem", "one.pem", "one.pem: there is no private key in it"),
    ):
        words = ["--ssl-certfile", certificate, "--ssl-keyfile", key, *way]
        assert command(["proxy", "--model", "replay/hello", *words]) == 1
        assert capsys.readouterr().err.splitlines()[-2] == f"penstock: TLS: {said}"


@pytest.mark.parametrize("way", [["--check"], ["--port", "0"]])
def test_a_database_that_is_none(way: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"database_url": "mysql://x", "master_key": SECRET}
    file = write(tmp_path / "config.yaml", general_settings=settings)
    assert command(["proxy", "--config", str(file), *way]) == 1
    what, advice = capsys.readouterr().err.splitlines()
    assert "mysql" in what
    assert "database_url" in advice


def test_check_shows_all_that_keeps_it_from_starting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "config.yaml", general_settings={"database_url": f"sqlite:///{tmp_path}/none/spend.db"})
    words = ["--ssl-certfile", "none.pem", "--ssl-keyfile", "none.key", "--host", "0.0.0.0"]
    assert command(["proxy", "--config", str(file), *words, "--check"]) == 1
    out, err = capsys.readouterr()
    assert "hello#0" in out
    assert [line for line in err.splitlines() if line.startswith("penstock: ")] == [
        "penstock: TLS: none.pem: I/O error: No such file or directory (os error 2)",
        f"penstock: {tmp_path}/none/spend.db: there is no folder {tmp_path}/none",
        "penstock: on 0.0.0.0 everybody who reaches it could spend your money: there is no master key",
    ]
    assert "it would listen" not in err


@pytest.mark.parametrize("words", [["--model", "replay/hello"], ["--config", "config.yaml"]])
def test_check_makes_no_database(words: list[str], tmp_path: Path) -> None:
    write(tmp_path / "config.yaml")
    assert command(["proxy", *words, "--check"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


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


@pytest.mark.parametrize("url", ["sqlite:///spend.db", "sqlite:///spend.db?timeout=5", "sqlite+pysqlite:///spend.db"])
def test_rows_wait_beside_the_file_or_where_the_config_says(url: str, tmp_path: Path) -> None:
    store = Store(url)
    assert serve._spill(store, None) == Path("spend.db.spill")
    assert serve._spill(store, f"{tmp_path}/a/b") == tmp_path / "a/b/spend.db.spill"
    assert (tmp_path / "a/b").is_dir()
    store.close()


def test_rows_that_cannot_be_taken_over_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    left = tmp_path / "spend.db.spill.1.jsonl"
    left.mkdir()  # as good as a file of somebody else's, which nothing is for root
    with caplog.at_level("ERROR", "penstock.gateway"):
        assert Spill(tmp_path / "spend.db.spill").adopt() == 0
    (record,) = caplog.records
    assert record.getMessage() == f"{left}: Is a directory. The spend rows in it stay there"


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    settings = {"spill_folder": f"{tmp_path}/file/below", "database_url": f"sqlite:///{tmp_path}/spend.db"}
    file = write(tmp_path / "config.yaml", general_settings=settings)
    assert command(["proxy", "--config", str(file)]) == 1
    what, advice = capsys.readouterr().err.splitlines()
    assert what.startswith(f"penstock: {tmp_path}/file/below: Not a directory. Rows of spend wait there")
    assert advice.startswith("general_settings.spill_folder")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_for_a_database(number: int, tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="external: no psycopg")
    with socket.create_server(("127.0.0.1", 0)) as server:  # one that says nothing
        url = f"postgresql://u@127.0.0.1:{server.getsockname()[1]}/x?connect_timeout=50&sslmode=disable"
        file = write(tmp_path / "config.yaml", general_settings={"database_url": url})
        words = [sys.executable, "-m", "penstock", "proxy", "--config", str(file), "--port", "0"]
        process = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": HOME}, stderr=subprocess.DEVNULL)
        server.settimeout(30)
        connection, _ = server.accept()
        with connection:
            process.send_signal(number)
            assert process.wait(10) == 130


# What it says ---------------------------------------------------------------------------------------------------------


def said(models: list[str], host: str, *, key: str | None = None, keys: bool = False, **options: Any) -> str:
    chosen = serve.Options(models=tuple(models), **options)
    _, compiled = serve.load(chosen)
    compiled = replace(compiled, settings={**compiled.settings, "master_key": key})
    return serve.banner(chosen, compiled, host, 4000, keys=keys)


def test_the_first_words() -> None:
    text = said(["replay/hello"], "127.0.0.1")
    assert text.startswith(f"penstock {penstock.__version__} at http://127.0.0.1:4000, for this machine alone")
    assert '"model": "replay/hello"' in text
    text = said(["replay/*"], "0.0.0.0", cert=("a", "b"), allow_unauthenticated=True)
    assert "at https://0.0.0.0:4000, for EVERYBODY" in text
    assert "curl https://localhost:4000/v1/chat/completions -H 'content-type" in text
    assert "EVERYBODY" in said(["replay/*"], "0.0.0.0", keys=True, allow_unauthenticated=True)
    text = said(["replay/hello"], "127.0.0.1", keys=True)
    assert "for whoever on this machine has a key: there is no master key" in text
    assert 'curl http://127.0.0.1:4000/v1/chat/completions -H "Authorization: Bearer $KEY"' in text
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
    # What is not there is not there in the words of the client's API.
    assert httpx.post(f"{proxy.url}/v1/messages/batches", trust_env=False).json()["type"] == "error"
    assert httpx.post(f"{proxy.url}/v1/responses", trust_env=False).json().keys() == {"error"}
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


@pytest.mark.skipif(sys.platform != "linux", reason="external: elsewhere the system's limit may be lower")
def test_many_may_connect_at_once(start: Any) -> None:
    proxy = start("--model", "replay/hello")
    port = int(proxy.url.rpartition(":")[2])
    proxy.signal(signal.SIGSTOP)
    with contextlib.ExitStack() as stack:
        stack.callback(proxy.signal, signal.SIGCONT)
        begun = time.monotonic()
        for _ in range(400):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        assert time.monotonic() - begun < 0.9  # one that found no room would try again after a second


def test_a_signal_that_comes_before_it_is_waited_for_is_not_lost() -> None:
    heard: list[int] = []
    before = {
        each: signal.signal(each, lambda got, _frame: heard.append(got)) for each in (signal.SIGHUP, signal.SIGUSR1)
    }
    try:
        with serve._Signals([signal.SIGHUP]) as signals:
            os.kill(os.getpid(), signal.SIGUSR1)
            heard.clear()
            os.kill(os.getpid(), signal.SIGHUP)
            assert heard == [signal.SIGHUP]
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGHUP)).start()
            assert [signals.next(), signals.next()] == [signal.SIGHUP, signal.SIGHUP]
            threading.Timer(0.05, signals.end).start()
            assert signals.next() is None
        signals.end()  # nobody waits any more
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_a_config_with_an_error_changes_no_variable_either(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REGION", "eu")
    monkeypatch.delenv("OTHER", raising=False)
    file = write(tmp_path / "config.yaml")
    options = serve.Options(config=str(file))
    _, compiled = serve.load(options)
    gateway = serve.gateway_of(options, compiled)
    server = serve.Server(options, compiled, gateway, "127.0.0.1")
    given = {"REGION": "us", "OTHER": "x"}
    for wrong in ({"silence": "long"}, {"redis": "nonsense://x"}):
        write(file, environment_variables=given, general_settings=wrong)
        with pytest.raises(serve.ConfigError):
            server.reload()
        assert (os.environ["REGION"], os.environ.get("OTHER")) == ("eu", None)
    write(file, environment_variables=given)
    server.reload()
    assert (os.environ.pop("REGION"), os.environ.pop("OTHER")) == ("us", "x")
    gateway.close()


def test_hooks_outlast_a_config_that_cannot_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "outlasting_hooks.py").write_text("class Hook:\n    def started(self, call): ...\n")
    hooks = {"hooks": ["outlasting_hooks.Hook"]}
    file = write(tmp_path / "config.yaml", litellm_settings=hooks)
    options = serve.Options(config=str(file))
    _, compiled = serve.load(options)
    gateway = serve.gateway_of(options, compiled)
    server = serve.Server(options, compiled, gateway, "127.0.0.1")
    write(file, general_settings={"redis": "nonsense://x"})
    with pytest.raises(serve.ConfigError, match="redis"):
        server.reload()
    assert server.planner._listener is server.telling
    gateway.close()


def test_what_has_effect_with_the_next_start_is_said_until_then(tmp_path: Path) -> None:
    file = write(tmp_path / "config.yaml")
    options = serve.Options(config=str(file))
    _, compiled = serve.load(options)
    gateway = serve.gateway_of(options, compiled)
    server = serve.Server(options, compiled, gateway, "127.0.0.1")
    write(file, general_settings={"spill_folder": "elsewhere"})
    for _ in range(2):
        assert server.reload() == ["general_settings.spill_folder has effect with the next start"]
    write(file)
    assert server.reload() == []
    gateway.close()


def test_a_log_of_json_has_nothing_else(start: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "config.yaml", general_settings={"log_format": "json", "nonsense": 1})
    proxy = start("--config", str(file))
    proxy.ask()
    proxy.signal(signal.SIGTERM)
    assert proxy.ended() == 0
    lines = [json.loads(line) for line in proxy.said().splitlines()]
    assert "general_settings.nonsense" in lines[0]["message"]
    assert " at http://127.0.0.1:" in lines[1]["message"]
    assert lines[2]["message"].startswith("no new requests")
    (request,) = map(json.loads, proxy.out.read_text().splitlines())
    for line in (*lines, request):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])


def test_the_master_key_cannot_get_lost_in_service(start: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "config.yaml", general_settings={"master_key": SECRET})
    proxy = start("--config", str(file), "--host", "0.0.0.0")
    write(file)
    proxy.signal(signal.SIGHUP)
    proxy.wait("there is no master key any more")
    assert httpx.get(f"{proxy.url}/v1/models", trust_env=False).status_code == 401


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


@pytest.mark.parametrize("moment", ["started", "ended"])
def test_a_hook_that_does_not_return_keeps_no_row_and_no_end(start: Any, tmp_path: Path, moment: str) -> None:
    (tmp_path / "slow_hooks.py").write_text(
        "import time\n"
        "class Sleeps:\n"
        f"    def {moment}(self, call, *_):\n"
        "        if call.input[0]['content'] == 'sleep':\n"
        "            time.sleep(1000)\n"
    )
    file = write(
        tmp_path / "config.yaml",
        litellm_settings={"hooks": ["slow_hooks.Sleeps"]},
        general_settings={"database_url": f"sqlite:///{tmp_path}/spend.db", "flush_seconds": 0.1},
    )
    proxy = start("--config", str(file))
    assert proxy.ask().status_code == 200
    with contextlib.suppress(httpx.ReadTimeout):
        proxy.ask(messages=[{"role": "user", "content": "sleep"}], timeout=2)
    if moment == "ended":
        assert proxy.ask().status_code == 200
    proxy.signal(signal.SIGTERM)
    assert proxy.ended() == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "spend.db")) as database:
        outcomes = [
            outcome for (outcome,) in database.execute("select outcome from penstock_requests order by started")
        ]
    assert outcomes == (["complete", "left"] if moment == "started" else ["complete"] * 3)


def test_without_a_key_no_page_of_somebody_elses_may_ask(start: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "config.yaml", general_settings={"cors": ["https://ours.example"]})
    proxy = start("--config", str(file))
    asked = json.dumps({"model": "hello", "messages": MESSAGES})
    for origin, status in (
        ("https://elsewhere.example", 403),
        ("http://localhost.elsewhere.example:4000", 403),
        ("http://127.0.0.1.elsewhere.example", 403),
        ("null", 403),
        ("chrome-extension://abcdef", 403),
        ("https://ours.example", 200),
        ("http://localhost:3000", 200),
        ("http://127.0.0.1:4000", 200),
        ("http://[::1]", 200),
    ):
        # As a form could send it, for which no browser asks whether it may.
        headers = {"origin": origin, "content-type": "text/plain"}
        answer = httpx.post(f"{proxy.url}/v1/chat/completions", content=asked, headers=headers, trust_env=False)
        assert answer.status_code == status, origin
        assert httpx.get(f"{proxy.url}/live", headers=headers, trust_env=False).status_code == status


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
