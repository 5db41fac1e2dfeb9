"""The proxy from outside: a process of its own in front of the local upstream, asked over sockets as anybody would."""

import contextlib
import gc
import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx
import pytest

from penstock.replay import Upstream
from penstock.replay.cases import FAMILIES

UPSTREAM_KEY = "sk-upstream-0123456789abcdefghijklmnop"
"""What the proxy shows the upstream, and nobody else."""

PROMPT = "A prompt that no log repeats: 7f3c19."
MESSAGES = [{"role": "user", "content": PROMPT}]

START, STOP = 60.0, 60.0
"""Seconds: a machine that does other things too takes its time."""

PROXIED = [family for family in FAMILIES if family != "predictions"]
"""Families that the proxy takes: those whose answer is one to the request itself."""

UNWANTED = ("Traceback", "panicked", "Exception ignored", "never awaited", "RUST_BACKTRACE", "ResourceWarning")
"""What no process of ours writes to standard error, whatever else it has to say there."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def resident(pid: int) -> int:
    """KiB that a process holds."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


class Event(NamedTuple):
    """One event of a stream, as it stood on the wire."""

    name: str
    data: str


def events(body: bytes) -> list[Event]:
    """The events of a stream, less its comments; nothing else may be in it, and the last one must be whole."""
    assert body == b"" or body.endswith(b"\n\n"), body[-200:]
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        name, data = "", None
        for line in block.split("\n"):
            field, _, value = line.partition(": ")
            match field:
                case "":
                    continue  # a comment
                case "event":
                    name = value
                case "data":
                    assert data is None, "one line of data for each event"
                    data = value
                case _:
                    raise AssertionError(f"not a field of ours: {line!r}")
        if data is not None:
            found.append(Event(name, data))
    return found


class Judged(NamedTuple):
    """What a spec-exact stream said."""

    chunks: list[dict[str, Any]]
    usage: dict[str, Any] | None

    @property
    def text(self) -> str:
        """Of choice 0."""
        choices = [choice for chunk in self.chunks for choice in chunk["choices"] if choice["index"] == 0]
        return "".join(choice["delta"].get("content") or "" for choice in choices)


UNTOLD = {"prompt_tokens", "total_tokens", "start_index", "end_index"}
"""What the specification requires and some wires do not say. It is left out, for nothing is made up."""

ENVELOPE = {"id", "object", "created", "model", "choices", "usage", "service_tier", "system_fingerprint"}


def valid(kind: Any, document: str | bytes) -> None:
    """Whether a model of the provider's own SDK takes it, strictly."""
    from pydantic import ValidationError

    try:
        kind.model_validate_json(document, strict=True)
    except ValidationError as error:
        wrong = [each for each in error.errors() if each["type"] != "missing" or each["loc"][-1] not in UNTOLD]
        assert not wrong, wrong


def judge(body: bytes, *, usage: bool, model: str | None = None) -> Judged:
    """A stream of chunks, held against the specification to the letter.

    The models of the provider's own SDK read every chunk strictly; ids, roles, reasons and usage are where they belong.
    """
    from openai.types.chat import ChatCompletionChunk

    *told, last = events(body)
    assert last == Event("", "[DONE]")
    assert all(event.name == "" for event in told)
    chunks = [json.loads(event.data) for event in told]
    for event, chunk in zip(told, chunks, strict=True):
        valid(ChatCompletionChunk, event.data)
        assert chunk["object"] == "chat.completion.chunk"
        # What a filter says of the prompt belongs to no choice.
        assert chunk["choices"] or "prompt_filter_results" in chunk or (usage and chunk is chunks[-1]), chunk
        for choice in chunk["choices"]:
            said = choice["finish_reason"] or choice["delta"] or len(choice) > 3 or chunk.keys() - ENVELOPE
            assert said, f"it says nothing: {chunk}"
    for field in ("id", "created", "model"):
        assert len({chunk[field] for chunk in chunks}) == 1, field
    assert chunks[0]["id"]
    assert chunks[0]["created"] > 0
    assert model is None or chunks[0]["model"] == model
    if usage:
        assert chunks[-1]["choices"] == []
        assert all(chunk["usage"] is None for chunk in chunks[:-1])
    else:
        assert all("usage" not in chunk for chunk in chunks)
    _judge_choices([choice for chunk in chunks for choice in chunk["choices"]])
    return Judged(chunks, chunks[-1]["usage"] if usage else None)


def _judge_choices(choices: list[dict[str, Any]]) -> None:
    """A choice has its role first and once, and one reason to finish."""
    for index in {choice["index"] for choice in choices}:
        own = [choice for choice in choices if choice["index"] == index]
        assert [choice["delta"].get("role") for choice in own] == ["assistant"] + [None] * (len(own) - 1)
        reasons = [choice["finish_reason"] for choice in own if choice["finish_reason"]]
        assert len(reasons) == 1, reasons


class Proxy:
    """A running `penstock proxy`.

    Args:
        folder: for its config, its database and its logs.
        config: as in the file, less what is filled in here: the master key, the database.
        options: further words of the command.
        certified: the names of certificate and key, for TLS.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        *options: str,
        certified: tuple[Path, Path] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.file = folder / "config.yaml"
        self.log = folder / "stderr.log"
        self.database = folder / "penstock.db"
        self.upstream_key = UPSTREAM_KEY
        self.master = "sk-" + secrets.token_urlsafe(32)
        self.port = free_port()
        self.scheme = "https" if certified else "http"
        self.options = [*options] if "--host" in options else ["--host", "127.0.0.1", *options]
        if certified:
            self.options += ["--ssl-certfile", str(certified[0]), "--ssl-keyfile", str(certified[1])]
        self.environment = environment or {}
        self.given: list[str] = [self.master, UPSTREAM_KEY, PROMPT]
        self.write(config)

    def write(self, config: dict[str, Any]) -> None:
        """Writes its config; it is read at the start, and when it is told to."""
        general = {
            "master_key": self.master,
            "database_url": f"sqlite:///{self.database}",
            "flush_seconds": 0.1,
            **config.get("general_settings", {}),
        }
        # JSON is YAML.
        self.file.write_text(json.dumps({**config, "general_settings": general}, indent=1), encoding="utf-8")

    def start(self, *, verify: Any = True) -> Self:
        """Starts it, and waits until it is ready."""
        # One for all: to read the authorities takes longer than a request. What it keeps open no test waits for.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self.client = httpx.Client(verify=verify, limits=limits, timeout=60, trust_env=False)
        command = [sys.executable, "-m", "penstock", "proxy", "--config", str(self.file), "--port", str(self.port)]
        with self.log.open("ab") as log, (self.folder / "stdout.log").open("ab") as out:
            self.process = subprocess.Popen(
                [*command, *self.options],
                stdout=out,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, "PYTHONWARNINGS": "default", **self.environment},
            )
        deadline = time.monotonic() + START
        while self.readiness() != 200:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(f"it did not come up: {self.said()}")
            time.sleep(0.02)
        return self

    def readiness(self) -> int:
        """What it says to whom distributes requests; 0 where nobody listens."""
        try:
            return self.client.get(f"{self.url}/health/readiness").status_code
        except httpx.TransportError:
            return 0

    def stop(self, *, status: int = 0) -> None:
        """Tells it to end, and looks at how it did."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.await_end(status=status)

    def await_end(self, *, status: int = 0) -> None:
        try:
            ended = self.process.wait(STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"it does not end: {self.said()}") from None
        finally:
            self.client.close()
        assert ended == status, self.said()
        self.judge_log()

    def judge_log(self) -> None:
        """Nothing stands in the log that should not."""
        said = self.said()
        for text in UNWANTED:
            assert text not in said, said
        for secret in self.given:
            assert secret not in said, f"{secret} is in the log"
            assert secret not in (self.folder / "stdout.log").read_text(encoding="utf-8", errors="replace")

    def said(self) -> str:
        """Its log so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def reload(self) -> None:
        """Tells it to read its config again."""
        self.process.send_signal(signal.SIGHUP)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def key(self, **fields: Any) -> str:
        """A new key."""
        found: str = self.admin("/key/generate", json=fields).json()["key"]
        self.given.append(found)
        return found

    def admin(self, path: str, **options: Any) -> httpx.Response:
        """What the master key is answered; a POST if there is a body."""
        headers = {"authorization": f"Bearer {self.master}"}
        method = "POST" if "json" in options else "GET"
        response = self.client.request(method, self.url + path, headers=headers, **options)
        assert response.status_code == 200, response.text
        return response

    def ask(
        self, model: str, *, path: str = "/v1/chat/completions", key: str | None = None, **body: Any
    ) -> httpx.Response:
        """One request, read to its end."""
        headers = {"authorization": f"Bearer {key or self.master}"}
        return self.client.post(self.url + path, headers=headers, json={"model": model, "messages": MESSAGES, **body})

    def stream(self, model: str, *, usage: bool = False, **body: Any) -> httpx.Response:
        """One streamed request, read to its end."""
        options: dict[str, Any] = {"stream_options": {"include_usage": True}} if usage else {}
        return self.ask(model, stream=True, **options, **body)

    def connect(self) -> socket.socket:
        """A socket to it, for what no client would send."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def rows(self) -> list[dict[str, Any]]:
        """What was accounted, in the order of the requests."""
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)) as database:
            database.row_factory = sqlite3.Row
            found = [dict(row) for row in database.execute("SELECT * FROM penstock_requests ORDER BY started, id")]
        for row in found:
            row["attempts"] = json.loads(row["attempts"] or "[]")
        return found

    def settled(self, count: int, seconds: float = 20.0) -> list[dict[str, Any]]:
        """The rows, once there are so many; more is wrong too."""
        deadline = time.monotonic() + seconds
        while len(rows := self.rows()) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(rows) == count, f"{len(rows)} rows, not {count}: {rows[-3:]}"
        return rows

    def memory(self) -> int:
        """KiB that it holds."""
        return resident(self.process.pid)


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def up(upstream: Upstream) -> Iterator[Upstream]:
    """The local upstream, with nothing remembered of other tests."""
    upstream.reset()
    yield upstream
    gc.collect()


def through(upstream: Upstream, **settings: Any) -> dict[str, Any]:
    """A config for all of the upstream's families: `FAMILY/CASE`, and `fast` for the simplest, with a price."""
    to = {"api_base": upstream.base_url, "api_key": UPSTREAM_KEY}
    price = {"input_cost_per_token": 0.001, "output_cost_per_token": 0.002}
    named = [{"model_name": "fast", "litellm_params": {"model": "openai/hello", **to, **price}}]
    families = [
        {"model_name": f"{family}/*", "litellm_params": {"model": f"replay/{family}/*", "api_base": upstream.base_url}}
        for family in PROXIED
    ]
    return {"model_list": [*named, *families], "router_settings": {"num_retries": 0}, **settings}


@pytest.fixture
def config(upstream: Upstream) -> dict[str, Any]:
    return through(upstream)


Start = Callable[..., Proxy]


@pytest.fixture
def start(tmp_path: Path, upstream: Upstream) -> Iterator[Start]:
    """Starts proxies that are stopped at the end, each with a config of its own."""
    started: list[Proxy] = []

    def begin(config: dict[str, Any], *options: str, verify: Any = True, **others: Any) -> Proxy:
        folder = tmp_path / f"proxy-{len(started)}"
        folder.mkdir()
        proxy = Proxy(folder, config, *options, **others)
        started.append(proxy)
        return proxy.start(verify=verify)

    yield begin
    with contextlib.ExitStack() as stack:
        for proxy in started:
            stack.callback(proxy.stop)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Proxy]:
    """One proxy for all tests that leave no traces in it."""
    proxy = Proxy(tmp_path_factory.mktemp("shared"), through(upstream)).start()
    yield proxy
    proxy.stop()


@pytest.fixture(scope="session")
def key(shared: Proxy) -> str:
    """A key of the shared proxy."""
    return shared.key(key_alias="tests")


class Load:
    """Threads that do the same over and over, until they are told to stop; what they return is kept."""

    def __init__(self, work: Callable[[int], Any], threads: int) -> None:
        self.work = work
        self.over = threading.Event()
        self.found: list[Any] = []
        self.threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]

    def _run(self, number: int) -> None:
        while not self.over.is_set():
            try:
                found = self.work(number)
            except Exception as error:  # noqa: BLE001  whatever it was, it is the test's to judge
                found = error
            self.found.append(found)

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()


@pytest.fixture(name="judge")
def judge_fixture() -> Callable[..., Judged]:
    """What holds a stream against the specification."""
    return judge


@pytest.fixture(name="events", scope="session")
def events_fixture() -> Callable[[bytes], list[Event]]:
    """What reads the events of a stream."""
    return events


@pytest.fixture
def load() -> Callable[..., Load]:
    """Threads that do the same over and over."""
    return Load


@pytest.fixture
def through_config(upstream: Upstream) -> Callable[..., dict[str, Any]]:
    """A config for all of the upstream's families, with these settings."""
    return lambda **settings: through(upstream, **settings)


@pytest.fixture(name="valid")
def valid_fixture() -> Callable[[Any, str | bytes], None]:
    """Whether a model of the provider's own SDK takes a document."""
    return valid


@pytest.fixture(scope="session")
def proxy_class() -> type[Proxy]:
    """For tests that start and stop it themselves."""
    return Proxy
