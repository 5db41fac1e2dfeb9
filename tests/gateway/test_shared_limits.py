"""Limits and budgets that several nodes share: a real server, nodes in one process and in two, replay behind them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest

from penstock.replay import Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

if sys.platform == "win32":
    pytest.skip("the gateway is for Unix", allow_module_level=True)

from penstock._native import Gateway

KEY = "sk-" + "k" * 43
OTHER = "sk-" + "o" * 43  # has no limits
ID = hashlib.sha256(KEY.encode()).hexdigest()
BODY = {"model": "fast", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 40}
ESTIMATE = len(json.dumps(BODY, separators=(",", ":"))) // 4 + 40
TOKENS = 106  # of replay's hello
PRICE = 1e-3
COST = TOKENS * PRICE
BILLIONTHS = 106_000_000  # the same
PATIENCE = 0.05
# What a machine with other things to do may add to a wait.
SLACK = 1.0


class Server:
    """A private Redis or Valkey server. One that `lasts` remembers what it was told when it is killed.

    tls: further settings, of one that speaks TLS too, on another port.
    """

    lasts = False
    tls: dict[str, Any] | None = None

    def __init__(self, binary: str, folder: Path) -> None:
        self.binary, self.folder = binary, folder
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        settings = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "save": ""}
        if self.lasts:
            settings |= {"appendonly": "yes", "appendfsync": "always"}
        settings |= self.tls or {}
        words = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([self.binary, *words], stdout=log, stderr=log)
        until = time.monotonic() + 20
        while True:
            try:
                if self.ask("PING") == "PONG":
                    return
            except (OSError, RuntimeError):
                pass
            if self.tls and self.process.poll() is not None:
                pytest.skip("external: this server is built without TLS")
            assert time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """As kill -9 does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def pause(self) -> None:
        """It is there and does not answer."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def ask(self, *words: str) -> Any:
        """One command's answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            parts = [f"*{len(words)}\r\n", *(f"${len(word.encode())}\r\n{word}\r\n" for word in words)]
            connection.sendall("".join(parts).encode())
            with connection.makefile("rb") as answer:
                return self._read(answer)

    def _read(self, answer: Any) -> Any:
        line = answer.readline().decode().rstrip("\r\n")
        kind, rest = line[:1], line[1:]
        match kind:
            case "+":
                return rest
            case ":":
                return int(rest)
            case "$":
                return None if rest == "-1" else answer.read(int(rest) + 2)[:-2].decode()
            case "*":
                return [self._read(answer) for _ in range(int(rest))]
            case _:
                raise RuntimeError(line)

    def table(self, name: str) -> dict[str, int]:
        """A hash of the key's."""
        found = self.ask("HGETALL", f"penstock:{{{ID}}}:{name}")
        return {field: int(value) for field, value in zip(found[::2], found[1::2], strict=True)}

    def under_way(self) -> int:
        """How many requests hold a lease."""
        return int(self.ask("ZCARD", f"penstock:{{{ID}}}:leases"))


@pytest.fixture
def lasting(server: Server) -> Server:
    """One that remembers."""
    server.kill()
    server.lasts = True
    server.start()
    return server


@pytest.fixture
def server(tmp_path: Path, redis_server: Path) -> Iterator[Server]:
    server = Server(str(redis_server), tmp_path)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


def tables(upstream: Any, url: str, model: str = "hello", **redis: Any) -> bytes:
    plain = {"url": upstream.base_url + "/chat/completions", "stream_options": True}
    deployment = {"id": "a", "model": model, "provider": "replay", "family": "chat", "plain": plain}
    price = {"input": PRICE, "output": PRICE}
    return json.dumps(
        {
            "groups": [{"name": "fast", "deployments": ["a"], "max_retries": 0}],
            "deployments": [{**deployment, "price": price}],
            # A machine with other things to do may not answer in 50 ms, and that is not what most tests are about.
            "settings": {"redis": {"url": url, "nodes": 2, "patience": 5.0, **redis}},
        }
    ).encode()


class Node:
    """A gateway, and a client of it."""

    def __init__(self, tables: bytes, **key: Any) -> None:
        self.gateway = Gateway(tables)
        self.put(**key)
        self.base = f"http://127.0.0.1:{self.gateway.listen('127.0.0.1', 0)}"
        self.client = httpx.Client(
            base_url=self.base, headers={"authorization": f"Bearer {KEY}"}, timeout=30, trust_env=False
        )

    def put(self, **key: Any) -> None:
        self.gateway.put_keys(json.dumps([{"id": ID, **key}]).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.gateway.close()

    def ask(self, key: str = KEY, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"}
        return self.client.post("/v1/chat/completions", json={**BODY, **more}, headers=headers)

    def rows(self) -> tuple[list[dict[str, Any]], list[str]]:
        """What is in the books, and what was said beside."""
        found = self.gateway.take_rows(100_000, 0)
        return [dict(row) for row in found if not isinstance(row, str)], [row for row in found if isinstance(row, str)]


@contextmanager
def two(tables: bytes, **key: Any) -> Iterator[list[Node]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Node(tables, **key)) for _ in range(2)]


def at_once(nodes: list[Node], count: int, **more: Any) -> list[httpx.Response]:
    """So many requests, by turns."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda number: nodes[number % len(nodes)].ask(**more), range(count)))


def wait_for(true: Callable[[], bool], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.01)


def statuses(responses: list[httpx.Response]) -> dict[int, int]:
    found = [response.status_code for response in responses]
    return {status: found.count(status) for status in sorted(set(found))}


def test_requests_a_minute_are_those_of_both_nodes(server: Server, upstream: Upstream) -> None:
    with two(tables(upstream, server.url), rpm=20) as nodes:
        responses = at_once(nodes, 40)
        assert statuses(responses) == {200: 20, 429: 20}
        refused = next(response for response in responses if response.status_code == 429)
        assert 50 < float(refused.headers["retry-after"]) <= 61
        assert refused.json()["error"]["code"] == "key_limited"
        wait_for(lambda: server.under_way() == 0)
        assert server.table("minute")["r"] == 20


def test_tokens_a_minute_are_those_of_both_nodes(server: Server, upstream: Upstream) -> None:
    limit = 10 * TOKENS
    with two(tables(upstream, server.url), tpm=limit) as nodes:
        answered = 0
        for number in range(20):
            if nodes[number % 2].ask().status_code != 200:
                break
            answered += 1
            # The estimate stands until the settlement has come.
            wait_for(lambda: server.under_way() == 0)
            assert server.table("minute")["t"] == answered * TOKENS
        assert answered == next(count for count in range(20) if count * TOKENS + ESTIMATE > limit)


def test_estimates_count_while_requests_are_under_way(server: Server, upstream: Upstream) -> None:
    with two(tables(upstream, server.url, "hello?delay=300"), tpm=5 * ESTIMATE) as nodes:
        assert statuses(at_once(nodes, 12)) == {200: 5, 429: 7}


def test_requests_at_once_are_those_of_both_nodes(server: Server, upstream: Upstream) -> None:
    with two(tables(upstream, server.url, "hello?delay=60"), max_parallel=3) as nodes:
        for _ in range(2):
            responses = at_once(nodes, 10, stream=True)
            assert statuses(responses) == {200: 3, 429: 7}
            wait_for(lambda: server.under_way() == 0)


def test_a_long_request_keeps_its_place(server: Server, upstream: Upstream) -> None:
    with two(tables(upstream, server.url, "long-60?delay=50", lease=0.6), max_parallel=1) as nodes:
        with nodes[0].client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as long:
            assert long.status_code == 200
            until = time.monotonic() + 2
            while time.monotonic() < until:
                assert nodes[1].ask().status_code == 429
                time.sleep(0.1)
        wait_for(lambda: server.under_way() == 0)


def test_who_leaves_gives_the_place_back(server: Server, upstream: Upstream) -> None:
    with two(tables(upstream, server.url, "long-60?delay=50"), max_parallel=1) as nodes:
        with nodes[0].client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as left:
            assert left.status_code == 200
            next(left.iter_bytes())
        wait_for(lambda: server.under_way() == 0, 3)


def test_a_budget_is_overspent_by_what_was_under_way_at_most(server: Server, upstream: Upstream) -> None:
    budget, clients = 3.0, 6
    with two(tables(upstream, server.url), budget=budget) as nodes:

        def spend(number: int) -> int:
            count = 0
            while (response := nodes[number % 2].ask()).status_code == 200:
                count += 1
            assert response.status_code == 429
            assert response.json()["error"]["code"] == "budget_exceeded"
            assert response.headers["x-should-retry"] == "false"
            return count

        with ThreadPoolExecutor(clients) as pool:
            answered = sum(pool.map(spend, range(clients)))
        wait_for(lambda: server.under_way() == 0)
        spent = server.table("purse")["spent"] / 1e9
        # Exactly what was answered; more than the budget by no more than what was under way when it was reached.
        assert spent == pytest.approx(answered * COST, abs=1e-9)
        assert budget <= spent < budget + clients * COST
        booked = sum(row["cost"] or 0.0 for node in nodes for row in node.rows()[0])
        assert booked == pytest.approx(spent)


@pytest.mark.parametrize("count", [10**19, 9_000_000_000_000_000_000])
def test_no_number_of_anybodys_is_too_large(server: Server, count: int) -> None:
    """Neither a client's nor an upstream's: the others go on as before, and so do settlements."""
    usage = {"prompt_tokens": count, "completion_tokens": count, "total_tokens": count}
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    answer = json.dumps({"id": "a", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()

    class Claims(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Claims) as up, ExitStack() as stack:
        threading.Thread(target=up.serve_forever).start()
        stack.callback(up.shutdown)
        named = SimpleNamespace(base_url=f"http://127.0.0.1:{up.server_port}")
        with Node(tables(named, server.url), rpm=100) as node:
            for _ in range(3):
                assert node.ask(max_tokens=count, n=count).status_code == 200
            wait_for(lambda: server.under_way() == 0)
            assert server.table("minute")["r"] == 3
            assert server.table("minute")["t"] > 1 << 40
            assert node.rows()[1] == []  # nobody says that the server is down
            node.put(budget=1.0)
            assert node.ask().json()["error"]["code"] == "budget_exceeded"
            assert node.rows()[1] == []


def test_what_was_spent_before_and_a_new_period(server: Server, upstream: Upstream) -> None:
    with two(tables(upstream, server.url), budget=1.0, spent=0.95, period=1000) as nodes:
        assert nodes[0].ask().status_code == 200
        wait_for(lambda: server.table("purse") == {"spent": 1_056_000_000, "period": 1000})
        assert nodes[1].ask().status_code == 429
        nodes[0].rows()  # what nobody has taken yet would be of the new period
        # The first that hears of it opens it for all.
        nodes[0].put(budget=1.0, spent=0.0, period=2000)
        assert nodes[0].ask().status_code == 200
        wait_for(lambda: server.table("purse") == {"spent": 106_000_000, "period": 2000})
        assert nodes[1].ask().status_code == 200
        # Set to less by hand.
        nodes[0].put(budget=0.2, spent=0.25, period=2000)
        nodes[1].put(budget=0.2, spent=0.25, period=2000)
        assert nodes[0].ask().status_code == 429
        nodes[0].rows()
        nodes[0].put(budget=0.2, spent=0.0, period=2000)
        assert nodes[0].ask().status_code == 200


def test_a_server_that_lost_everything_is_told_what_was_spent(server: Server, upstream: Upstream) -> None:
    with two(tables(upstream, server.url), budget=0.3) as nodes:
        assert statuses(at_once(nodes, 2)) == {200: 2}
        wait_for(lambda: server.under_way() == 0)
        assert nodes[0].ask().status_code == 200  # node 0 has heard of both
        wait_for(lambda: server.under_way() == 0)
        server.ask("FLUSHALL")
        server.ask("SCRIPT", "FLUSH")
        # The first question finds no script, and is a question to a server that is down.
        wait_for(lambda: nodes[0].ask().status_code == 429)


@pytest.mark.parametrize(("when_down", "answered"), [("share", 10), ("open", 20), ("closed", 0)])
def test_limits_while_it_is_down(server: Server, upstream: Upstream, when_down: str, answered: int) -> None:
    with two(tables(upstream, server.url, when_down=when_down), rpm=20) as nodes:
        server.kill()
        responses = at_once(nodes, 60)
        for number in (0, 1):
            found = statuses(responses[number::2])
            assert found.get(200, 0) == answered
            refused = next(response for response in responses[number::2] if response.status_code != 200)
            assert refused.status_code == (503 if when_down == "closed" else 429)
            assert float(refused.headers["retry-after"]) >= 1


def test_a_part_of_a_limit_is_one_at_least(server: Server, upstream: Upstream) -> None:
    server.kill()
    with two(tables(upstream, server.url, nodes=50), rpm=20) as nodes:
        assert statuses(at_once(nodes, 4)) == {200: 2, 429: 2}


@pytest.mark.parametrize(("budgets_when_down", "status"), [("closed", 503), ("open", 200)])
def test_budgets_while_it_is_down(lasting: Server, upstream: Upstream, budgets_when_down: str, status: int) -> None:
    with two(tables(upstream, lasting.url, budgets_when_down=budgets_when_down), budget=1.0) as nodes:
        assert nodes[0].ask().status_code == 200
        lasting.kill()
        assert nodes[0].ask().status_code == status
        lasting.start()
        wait_for(lambda: nodes[0].ask().status_code == 200)
        sent = 2 if status == 503 else 3
        wait_for(lambda: lasting.table("purse")["spent"] == sent * BILLIONTHS)


def test_keys_without_limits_ask_nobody(server: Server, upstream: Upstream) -> None:
    server.kill()
    with Node(tables(upstream, server.url, when_down="closed")) as node:
        assert node.ask().status_code == 200


def test_it_comes_and_goes_under_load(lasting: Server, upstream: Upstream) -> None:
    waits: dict[str, list[tuple[float, float]]] = {KEY: [], OTHER: []}
    stop = threading.Event()
    with two(
        tables(upstream, lasting.url, budgets_when_down="open", patience=PATIENCE), rpm=1_000_000, budget=1e6
    ) as nodes:
        for node in nodes:
            node.gateway.put_keys(json.dumps([{"id": hashlib.sha256(OTHER.encode()).hexdigest()}]).encode())

        def load(number: int) -> None:
            # Beside those who ask the server go as many who do not: they have the same machine.
            key = (KEY, OTHER)[number // 2 % 2]
            while not stop.is_set():
                begun = time.monotonic()
                assert nodes[number % 2].ask(key).status_code == 200
                waits[key].append((begun, time.monotonic() - begun))

        with ThreadPoolExecutor(8) as pool:
            loads = [pool.submit(load, number) for number in range(8)]
            try:
                time.sleep(1)
                killed = time.monotonic()
                lasting.kill()
                time.sleep(1)
                lasting.start()
                back = time.monotonic()
                wait_for(lambda: all(settled(lasting, node) for node in nodes), 30)
                time.sleep(0.5)
            finally:
                stop.set()
        for each in loads:
            each.result()
        books = [node.rows() for node in nodes]
        answered = len([row for rows, _ in books for row in rows if row["key"] == ID])
        wait_for(lambda: lasting.table("purse").get("spent") == answered * BILLIONTHS)
        assert lasting.under_way() == 0
        # What was asked when the server went may count twice, for a minute.
        assert answered <= lasting.table("minute")["r"] <= answered + 40
        down = {key: sorted(wait for begun, wait in found if killed <= begun < back) for key, found in waits.items()}
        print("down", told(down[KEY]), "beside", told(down[OTHER]))
        for part in (0.5, 0.9):
            mine, others = (down[key][int(len(down[key]) * part)] for key in (KEY, OTHER))
            assert mine < others + PATIENCE
        for _, notes in books:
            assert len([note for note in notes if "does not answer" in note]) >= 1, notes
            assert len([note for note in notes if "answers again" in note]) >= 1, notes
            assert len(notes) < 10, notes


def settled(server: Server, node: Node) -> bool:
    """Whether the server is asked again."""
    before = server.table("minute").get("r", 0)
    return node.ask().status_code == 200 and server.table("minute").get("r", 0) > before


def told(waits: list[float]) -> str:
    """A distribution in milliseconds."""
    places = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "most": 1.0}
    found = [f"{name} {1000 * waits[min(int(len(waits) * at), len(waits) - 1)]:.1f}" for name, at in places.items()]
    return f"({len(waits)}: {', '.join(found)} ms)"


def test_one_that_hangs_is_waited_for_once(server: Server, upstream: Upstream) -> None:
    with Node(tables(upstream, server.url, patience=PATIENCE), rpm=100_000) as node:
        usual = sorted(timed(node) for _ in range(50))
        server.pause()
        try:
            hung = [timed(node) for _ in range(200)]
        finally:
            server.go_on()
        print("usual", told(usual), "hung", told(sorted(hung)))
        # The first one waits its 50 ms, and the others do not.
        assert PATIENCE <= hung[0] < usual[-1] + PATIENCE + SLACK
        assert sorted(hung[1:])[len(hung) // 2] < usual[len(usual) // 2] + PATIENCE / 2


def timed(node: Node) -> float:
    begun = time.monotonic()
    assert node.ask().status_code == 200
    return time.monotonic() - begun


def test_requests_under_way_when_it_comes_back_are_counted(server: Server, upstream: Upstream) -> None:
    with two(tables(upstream, server.url, "long-60?delay=50"), max_parallel=2) as nodes:
        server.kill()
        with ExitStack() as stack:
            for node in nodes:
                stream = node.client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True})
                assert stack.enter_context(stream).status_code == 200
            server.start()
            wait_for(lambda: server.under_way() == 2)
            assert statuses(at_once(nodes, 2)) == {429: 2}
        wait_for(lambda: server.under_way() == 0)
        assert server.table("minute")["r"] == 2


class Line:
    """Stands between a node and its server, and can swallow an answer."""

    def __init__(self, port: int) -> None:
        self.to = port
        self.swallows = self.swallowed = 0
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.to))
            threading.Thread(target=self._carry, args=(client, server), daemon=True).start()
            threading.Thread(target=self._carry, args=(server, client, True), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket, answers: bool = False) -> None:
        try:
            while data := one.recv(65536):
                # What is swallowed was carried out.
                if answers and self.swallows > 0:
                    self.swallows -= 1
                    self.swallowed += 1
                    break
                other.sendall(data)
        except OSError:
            pass
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        one.close()


def test_a_settlement_that_comes_again_counts_once(server: Server, upstream: Upstream) -> None:
    with closing(Line(server.port)) as line:
        url = f"redis://127.0.0.1:{line.port}"
        with Node(tables(upstream, url, "hello?delay=200", budgets_when_down="open"), budget=100.0, tpm=10**6) as node:
            for count in range(1, 4):
                with ThreadPoolExecutor(1) as pool:
                    asked = pool.submit(node.ask)
                    wait_for(lambda: server.under_way() == 1)
                    time.sleep(0.05)
                    line.swallows = 1
                    assert asked.result().status_code == 200
                wait_for(lambda count=count: line.swallowed == count)  # type: ignore[misc]
                wait_for(lambda: "answers again" in "".join(node.rows()[1]))
                assert server.under_way() == 0
                assert server.table("purse")["spent"] == count * BILLIONTHS
                assert server.table("minute")["t"] == count * TOKENS


NODE = """
import sys
from penstock._native import Gateway

gateway = Gateway(sys.argv[1].encode())
gateway.put_keys(sys.argv[2].encode())
print(gateway.listen("127.0.0.1", 0), flush=True)
sys.stdin.read()
gateway.close()
"""


@contextmanager
def process(tables: bytes, **key: Any) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A node in a process of its own."""
    words = [sys.executable, "-c", NODE, tables.decode(), json.dumps([{"id": ID, **key}])]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        base = f"http://127.0.0.1:{int(node.stdout.readline())}/v1"
        try:
            with httpx.Client(base_url=base, headers={"authorization": f"Bearer {KEY}"}, trust_env=False) as client:
                yield node, client
        finally:
            node.kill()


def test_two_processes_and_one_that_dies(server: Server, upstream: Upstream) -> None:
    settings = tables(upstream, server.url, "long-100?delay=100", lease=1.0)
    streamed = {**BODY, "stream": True}
    with ExitStack() as nodes:
        dies, first = nodes.enter_context(process(settings, max_parallel=3))
        _, second = nodes.enter_context(process(settings, max_parallel=3))
        with ExitStack() as stack:
            for client in (first, first, second):
                stream = client.stream("POST", "/chat/completions", json=streamed)
                assert stack.enter_context(stream).status_code == 200
            for client in (first, second):
                assert client.post("/chat/completions", json=BODY).status_code == 429
            os.kill(dies.pid, signal.SIGKILL)
            killed = time.monotonic()
            assert second.post("/chat/completions", json=BODY).status_code == 429
            # Two places are free again, and the third is not.
            for _ in range(2):
                assert retried(second, stack, streamed).status_code == 200
            assert 0.3 < time.monotonic() - killed < 5
            assert second.post("/chat/completions", json=BODY).status_code == 429


def retried(client: httpx.Client, stack: ExitStack, body: dict[str, Any]) -> httpx.Response:
    """Asks until it is let in."""
    until = time.monotonic() + 10
    while True:
        response = stack.enter_context(client.stream("POST", "/chat/completions", json=body))
        if response.status_code != 429 or time.monotonic() > until:
            return response
        time.sleep(0.05)


def test_what_ends_with_the_gateway_is_settled(server: Server, upstream: Upstream) -> None:
    with Node(tables(upstream, server.url, "long-60?delay=50"), max_parallel=2) as node:
        stream = node.client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True})
        with ExitStack() as stack:
            assert stack.enter_context(stream).status_code == 200
            assert server.under_way() == 1
            node.gateway.close()
            assert server.under_way() == 0


def test_other_tables_keep_the_connection(server: Server, upstream: Upstream) -> None:
    with Node(tables(upstream, server.url), rpm=3) as node:
        assert node.ask().status_code == 200
        before = server.ask("INFO", "clients")
        node.gateway.reload(tables(upstream, server.url, "long-10"))
        assert node.ask().status_code == 200
        assert server.ask("INFO", "clients").splitlines()[1] == before.splitlines()[1]
        # Another server knows nothing, and a table without one counts here.
        node.gateway.reload(tables(upstream, f"{server.url[:-1]}1"))
        assert statuses(at_once([node], 6)) == {200: 3, 429: 3}


@pytest.fixture
def certified(server: Server, tmp_path: Path) -> str:
    """The URL of one that speaks TLS. Its authority is in `authority.pem`, and nobody else knows it."""
    trustme = pytest.importorskip("trustme", reason="external: no trustme")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server.kill()
    server.tls = {
        "tls-port": port,
        "tls-cert-file": tmp_path / "server.pem",
        "tls-key-file": tmp_path / "server.key",
        "tls-ca-cert-file": tmp_path / "authority.pem",
        "tls-auth-clients": "no",
    }
    server.start()
    return f"rediss://localhost:{port}/0"


def test_a_server_that_speaks_tls(
    server: Server, upstream: Upstream, certified: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    with two(tables(upstream, certified), rpm=3) as nodes:
        assert statuses(at_once(nodes, 6)) == {200: 3, 429: 3}
        wait_for(lambda: server.under_way() == 0)
        assert server.table("minute")["r"] == 3
        assert all(node.rows()[1] == [] for node in nodes)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_server_whose_certificate_is_not_trusted_is_not_asked(
    server: Server, upstream: Upstream, certified: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    if host == "localhost":
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    else:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))  # of another name
    with Node(tables(upstream, certified.replace("localhost", host)), rpm=4) as node:
        assert statuses(at_once([node], 4)) == {200: 2, 429: 2}
        (note,) = node.rows()[1]
        assert "does not answer (invalid peer certificate" in note
    assert server.ask("DBSIZE") == 0


@pytest.mark.parametrize(
    "wrong",
    [{"url": "redis://:secret@"}, {"url": "http://:secret@x"}, {"budgets_when_down": "share"}, {"lease": 0}],
)
def test_tables_that_cannot_be(upstream: Upstream, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="redis") as error:
        Gateway(tables(upstream, **{"url": "redis://127.0.0.1:1", **wrong}))
    assert "secret" not in str(error.value)
