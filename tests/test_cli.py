"""The command line, as a user sees it: through pipes, at a terminal, and when something is wrong."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Self

import httpx
import pytest

import penstock
from penstock.replay import Upstream

pty = pytest.importorskip("pty", reason="external: no pseudo-terminals here")

# Ctrl-C must work though whoever runs the tests may have had it ignored.
MAIN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from penstock.cli import main
sys.exit(main())
"""
PENSTOCK = [sys.executable, "-c", MAIN]


@pytest.fixture
def up() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    return {**kept, "PYTHONIOENCODING": "utf-8", "COLUMNS": "100", **more}


def run(*arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PENSTOCK, *arguments],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        env=environment(**env),
        timeout=60,
        check=False,
    )


def start(*arguments: str, **env: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*PENSTOCK, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**env),
    )


def said(up: Upstream, case: str) -> str:
    """What a case says, from its response without streaming."""
    body = {"model": case, "messages": [{"role": "user", "content": "?"}]}
    answer = httpx.post(f"{up.base_url}/chat/completions", json=body, trust_env=False).json()
    up.reset()
    content: str = answer["choices"][0]["message"]["content"]
    return content


# ---- chat, through pipes


def test_the_answer_is_on_stdout_and_its_usage_on_stderr(up: Upstream) -> None:
    done = run("chat", "--model", "replay/hello", "How?")
    assert (done.returncode, done.stdout) == (0, said(up, "hello") + "\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith("19 prompt (8 cached) + 87 completion tokens, first token after ")
    assert line.endswith(" tokens/s")


def test_without_a_model_it_is_the_built_in_one_and_says_so() -> None:
    assert "replay/hello, the built-in local upstream" in run("chat", "How?").stderr
    done = run("chat", "How?", PENSTOCK_MODEL="replay/no-usage")
    assert (done.returncode, done.stderr.splitlines()) == (0, [done.stderr.strip()])
    assert done.stderr.startswith("no usage reported, first token after ")


def test_the_prompt_can_come_from_stdin(up: Upstream) -> None:
    options = ("--model", "openai/hello", "--api-base", up.base_url)
    assert run("chat", *options, stdin="Wie?\nUnd 何故?\n").returncode == 0
    assert up.stats()["requests"][0]["body"]["messages"] == [{"role": "user", "content": "Wie?\nUnd 何故?\n"}]
    empty = run("chat", *options, stdin=" \n")
    assert (empty.returncode, "prompt is empty" in empty.stderr) == (2, True)


def test_options_reach_the_wire(up: Upstream) -> None:
    done = run(
        "chat", "--model", "openai/hello", "--api-base", up.base_url, "--api-key", "sk-own", "--system", "Be brief.",
        "--max-tokens", "7", "--temperature", "0.5", "--timeout", "30", "How?",
    )  # fmt: skip
    assert done.returncode == 0
    sent = up.stats()["requests"][0]
    assert sent["body"]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert 7 in (sent["body"].get("max_tokens"), sent["body"].get("max_completion_tokens"))
    assert sent["body"]["temperature"] == 0.5
    assert sent["body"]["stream_options"] == {"include_usage": True}
    assert sent["headers"]["authorization"] == f"Bearer sha256:{sha256(b'sk-own').hexdigest()[:12]}"
    assert "sk-own" not in done.stdout + done.stderr


def test_json_is_a_line_for_each_chunk_and_the_usage_last() -> None:
    done = run("chat", "--json", "--model", "replay/long-5", "How?")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, "")
    assert [line["usage"] for line in lines[:-1]] == [None] * 7
    assert (lines[-1]["choices"], lines[-1]["usage"]["completion_tokens"]) == ([], 5)
    whole = run("chat", "--json", "--no-stream", "--model", "replay/long-5", "How?")
    assert json.loads(whole.stdout)["object"] == "chat.completion"


def test_no_stream_gives_the_same_answer(up: Upstream) -> None:
    done = run("chat", "--no-stream", "--model", "openai/reasoning", "--api-base", up.base_url, "How?")
    assert "stream" not in up.stats()["requests"][0]["body"]
    assert (done.returncode, done.stdout) == (0, said(up, "reasoning") + "\n")
    assert done.stderr.startswith("86 prompt (64 cached) + 67 completion (41 reasoning) tokens, ")


def test_reasoning_is_kept_out_of_pipes(up: Upstream) -> None:
    assert run("chat", "--model", "replay/reasoning", "How?").stdout == said(up, "reasoning") + "\n"


def test_tool_calls_and_refusals_are_shown() -> None:
    called = run("chat", "--model", "replay/parallel-tools", "How?")
    assert called.stdout == "Both at once: \n"
    assert 'calls get_forecast({"city": "東京", "days": 3})' in called.stderr
    assert 'calls get_forecast({"city": "Tromsø", "days": 3})' in called.stderr
    assert run("chat", "--model", "replay/refusal", "How?").stdout.startswith("I'm sorry")


def test_text_appears_as_it_arrives() -> None:
    process = start("chat", "--model", "replay/long-100?delay=50", "How?")
    assert process.stdout is not None
    with process:
        assert os.read(process.stdout.fileno(), 100).startswith(b" the")
        assert process.poll() is None
        process.kill()


def test_a_reader_that_leaves_is_no_error_to_talk_about() -> None:
    process = start("chat", "--model", "replay/long-2000?delay=1", "How?")
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        os.read(process.stdout.fileno(), 10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 1


# ---- Ctrl-C


def test_an_interrupt_stops_cleanly_and_shows_the_usage_so_far(up: Upstream) -> None:
    process = start("chat", "--model", "openai/usage-every-chunk?delay=40", "--api-base", up.base_url, "How?")
    assert process.stdout is not None
    with process:
        os.read(process.stdout.fileno(), 10)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 130
    assert up.wait(lambda stats: stats["requests"][0]["closed_early"])
    lines = errors.decode().splitlines()
    assert lines[0] == "interrupted"
    assert lines[1].startswith("9 prompt + ")
    assert " completion tokens so far" in lines[1]
    assert len(lines) == 2


@pytest.mark.parametrize("options", [(), ("--no-stream",)])
def test_an_interrupt_before_the_first_byte(up: Upstream, options: tuple[str, ...]) -> None:
    process = start("chat", *options, "--model", "openai/hello?first_byte=30", "--api-base", up.base_url, "How?")
    with process:
        up.wait(lambda stats: stats["requests"], seconds=20)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 130
    assert errors.decode() == "interrupted\n"


# ---- errors


def refused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


@pytest.mark.parametrize(
    ("model", "status", "what", "advice"),
    [
        ("replay/hello?status=401", 1, "AuthenticationError", "refused the key"),
        ("openai/gpt-4o", 1, "OPENAI_API_KEY", "Set OPENAI_API_KEY"),
        ("nowhere/x", 2, "nowhere/x", "penstock providers"),
        ("replay/nope", 1, "'nope' does not exist", "model's name"),
        ("replay/hello?code=context_length_exceeded", 1, "ContextWindowExceededError", "Shorten the prompt"),
        ("replay/hello?code=content_filter", 1, "ContentPolicyViolationError", "other words"),
        ("replay/hello?status=402", 1, "PaymentRequiredError", "Add credit"),
        ("replay/hello?status=403", 1, "PermissionDeniedError", "access"),
        ("replay/hello?status=429&retry_after=600", 1, "RateLimitError", "Wait 600 seconds"),
        ("replay/hello?code=insufficient_quota", 1, "RateLimitError", "billing"),
        ("replay/hello?status=500&should_retry=false", 1, "InternalServerError", "Try again later"),
        ("replay/hello?html", 1, "APIResponseValidationError", "--api-base"),
        ("replay/hello?malformed=3", 1, "APIResponseValidationError", "--api-base"),
        ("replay/hello?cut=finish", 1, "APIConnectionError", "ended the answer before it was complete"),
        ("replay/hello?error=5", 1, "InternalServerError", "Try again later"),
    ],
)
def test_errors_are_two_lines_with_what_to_do_next(model: str, status: int, what: str, advice: str) -> None:
    done = run("chat", "--model", model, "How?")
    assert done.returncode == status
    first, second = done.stderr.splitlines()
    assert first.startswith("penstock: ")
    assert what in first
    assert advice in second
    assert len(first) < 600


def test_a_dead_host_is_named() -> None:
    base = f"http://127.0.0.1:{refused_port()}/v1"
    done = run("chat", "--model", "openai/x", "--api-base", base, "How?")
    assert done.returncode == 1
    assert base in done.stderr.splitlines()[1]
    assert "Is it running?" in done.stderr


def test_a_timeout_says_which_clock() -> None:
    first = run("chat", "--model", "replay/hello?silent&tag=first", "--timeout", "0.2", "How?")
    idle = run("chat", "--model", "replay/hello?stall=4", "--timeout", "0.3", "How?")
    assert (first.returncode, idle.returncode) == (1, 1)
    assert "first token" in first.stderr.splitlines()[-1]
    assert "silence within the answer" in idle.stderr.splitlines()[-1]


def test_a_wrong_key_names_the_variable_it_came_from(up: Upstream) -> None:
    options = ("--model", "openai/hello?status=401", "--api-base", up.base_url)
    done = run("chat", *options, "How?", OPENAI_API_KEY="sk-wrong-key")
    assert "Check OPENAI_API_KEY" in done.stderr
    assert "sk-wrong-key" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("chat", "--timeout", "soon", "x"), ("chat", "--max-tokens", "0", "x"), ("tell", "x"), ("chat", "--oops")],
)
def test_a_wrong_command_line_is_two_lines_too(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith("penstock: ")
    assert "--help" in second


def test_what_was_written_before_an_error_stays() -> None:
    done = run("chat", "--model", "replay/hello?error_event=5", "How?")
    assert (done.returncode, done.stdout) == (1, "Hello! A penstock\n")


# ---- at a terminal


class Terminal:
    """A command at a pseudo-terminal of its own."""

    def __init__(self, *arguments: str, **env: str) -> None:
        self.screen = ""
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*PENSTOCK, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(TERM="xterm", **env),
            start_new_session=True,
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)

    def until(self, text: str, times: int = 1, seconds: float = 20) -> None:
        """Reads until the screen has this text so many times."""
        deadline = time.monotonic() + seconds
        while self.screen.count(text) < times:
            assert time.monotonic() < deadline, self.screen
            if select.select([self.master], [], [], 1)[0]:
                self.screen += os.read(self.master, 4096).decode(errors="replace")

    def end(self) -> int:
        """Reads to the end. Returns the exit status."""
        with contextlib.suppress(OSError):  # Linux says EIO where others say end of file
            while data := os.read(self.master, 4096):
                self.screen += data.decode(errors="replace")
        return self.process.wait(20)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())


def test_reasoning_is_dimmed_at_a_terminal(up: Upstream) -> None:
    with Terminal("chat", "--model", "openai/reasoning", "--api-base", up.base_url, "How?") as terminal:
        assert terminal.end() == 0
        screen = terminal.screen
    assert screen.startswith("\x1b[2mThe\x1b[0m\x1b[2m user\x1b[0m")
    assert "\r\n\r\n" + said(up, "reasoning") in screen
    assert "\x1b[2m86 prompt (64 cached)" in screen


def test_what_a_model_writes_does_not_steer_the_terminal(tmp_path: Path) -> None:
    delta = {"index": 0, "delta": {"content": "a\x1b]0;owned\x07b\x9b2Jc\td\r\n"}, "finish_reason": "stop"}
    body = tmp_path / "rude.sse"
    body.write_text(f"data: {json.dumps({'choices': [delta]})}\n\ndata: [DONE]\n\n")
    with Upstream(bodies=[body]) as up:
        options = ("chat", "--model", "openai/rude", "--api-base", up.base_url, "How?")
        with Terminal(*options) as terminal:
            assert terminal.end() == 0
            assert terminal.screen.startswith("a␛]0;owned␇b\ufffd2Jc\td␍\r\n")
        # A pipe gets what was sent.
        process = start(*options)
        assert process.communicate(timeout=20)[0] == "a\x1b]0;owned\x07b\x9b2Jc\td\r\n".encode()


def test_a_conversation_remembers(up: Upstream) -> None:
    with Terminal("chat", "--model", "openai/long-3", "--api-base", up.base_url) as terminal:
        terminal.until("> ")
        terminal.type("How does it begin?\n")
        terminal.until("> ", times=2)
        terminal.type("And then?\n")
        terminal.until("> ", times=3)
        terminal.type("\x04")
        assert terminal.end() == 0
    messages = up.stats()["requests"][1]["body"]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert [message["content"] for message in messages] == ["How does it begin?", " the water runs", "And then?"]


def test_an_interrupt_in_a_conversation_stops_the_answer_only(up: Upstream) -> None:
    with Terminal("chat", "--model", "openai/long-500?delay=30", "--api-base", up.base_url) as terminal:
        terminal.until("> ")
        terminal.type("How?\n")
        terminal.until("water")
        terminal.process.send_signal(signal.SIGINT)
        terminal.until("> ", times=2)
        assert "interrupted" in terminal.screen
        time.sleep(0.3)  # between its prompt and its wait for a key, Python's `input` is deaf to signals
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 130
        assert "Traceback" not in terminal.screen


def test_an_error_in_a_conversation_is_not_its_end(up: Upstream) -> None:
    model = "openai/hello?fail=1&status=400"
    with Terminal("chat", "--model", model, "--api-base", up.base_url) as terminal:
        terminal.until("> ")
        terminal.type("One\n")
        terminal.until("> ", times=2)
        assert "Change the request" in terminal.screen
        terminal.type("Two\n")
        terminal.until("> ", times=3)
        terminal.type("\x04")
        assert terminal.end() == 0
    assert [len(row["body"]["messages"]) for row in up.stats()["requests"]] == [1, 1]


# ---- the other commands


def test_providers_are_listed() -> None:
    done = run("providers")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert {"openai", "replay"} <= {row[0] for row in rows}
    assert ["openai", "chat", "https://api.openai.com/v1", "OPENAI_API_KEY"] in [row[:4] for row in rows]
    with Terminal("providers") as terminal:
        assert terminal.end() == 0
        assert "base URL" in terminal.screen


def test_one_provider_in_full() -> None:
    done = run("providers", "openai")
    rows = dict(line.split("\t") for line in done.stdout.splitlines())
    assert rows["base_url"] == "https://api.openai.com/v1"
    assert rows["key_env"] == "OPENAI_API_KEY"
    assert rows["usage"] == "asked=yes when=after the finish reason, in a chunk of its own"
    assert run("providers", "together").stdout == run("providers", "together_ai").stdout
    refused = run("providers", "fal_ai")
    assert (refused.returncode, "fal_ai is not served: does not stream" in refused.stderr) == (2, True)
    unknown = run("providers", "opnai")
    assert (unknown.returncode, "Nearest: openai" in unknown.stderr) == (2, True)


def test_replay_serves_cases_and_files(tmp_path: Path) -> None:
    (tmp_path / "mine.sse").write_bytes(b"data: [DONE]\n\n")
    process = start("replay", "--port", "0", str(tmp_path / "mine.sse"))
    assert process.stdout is not None
    with process:
        base = process.stdout.readline().decode().strip()
        body = {"model": "mine", "messages": [{"role": "user", "content": "?"}], "stream": True}
        answer = httpx.post(f"{base}/chat/completions", json=body, trust_env=False)
        assert answer.content == b"data: [DONE]\n\n"
        taken = run("replay", "--port", base.rpartition(":")[2].removesuffix("/v1"))
        assert (taken.returncode, "--port 0" in taken.stderr) == (2, True)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 130
    assert b"mine, hello" in errors
    assert b"Traceback" not in errors


def test_replay_help_has_the_whole_grammar() -> None:
    from penstock.replay.faults import KEYS

    text = run("replay", "--help").stdout
    assert all(f"\n    {name}" in text for name in KEYS)
    assert "130  interrupted" in text


def test_version_and_help() -> None:
    assert run("--version").stdout == f"penstock {penstock.__version__}\n"
    module = subprocess.run([sys.executable, "-m", "penstock", "--version"], capture_output=True, text=True, check=True)
    assert module.stdout == f"penstock {penstock.__version__}\n"
    assert "Exit status:" in run("chat", "--help").stdout
    bare = run()
    assert (bare.returncode, bare.stdout, "Commands:" in bare.stderr) == (2, "", True)


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_it_says_what_to_install(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None\nfrom penstock.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[1] == 'pip install "penstock[cli]"'
    assert len(done.stderr.splitlines()) == 2
