"""The native gateway by itself: tables of its own, and an upstream that says, byte for byte, what a test has it say."""

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest

if sys.platform == "win32":
    pytest.skip("the gateway is for Unix", allow_module_level=True)

from penstock._native import Gateway

MESSAGES = [{"role": "user", "content": "hi"}]
ANSWER = {
    "id": "a",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}
EVENTS = (
    b'data: {"id":"a","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"role":"assistant","content":"Hello"},"finish_reason":null}]}\n\n'
    b'data: {"id":"a","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)

Say = Callable[[socket.socket, bytes], None]
"""What is said to a request with this body, on its connection, which is closed afterwards."""


def head(status: int = 200, kind: str = "text/event-stream", *more: str) -> bytes:
    return "\r\n".join(
        (f"HTTP/1.1 {status} Said", f"content-type: {kind}", "connection: close", *more, "", "")
    ).encode()


class Upstream:
    """Says what it is told to, to whoever asks; `asked` are the bodies, `heads` the headers of the requests."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.asked: list[dict[str, Any]] = []
        self.heads: list[list[str]] = []
        self._server = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            received = b""
            while b"\r\n\r\n" not in received:
                received += connection.recv(65536)
            start, _, body = received.partition(b"\r\n\r\n")
            length = next(
                int(line[15:]) for line in start.lower().split(b"\r\n") if line.startswith(b"content-length:")
            )
            while len(body) < length:
                body += connection.recv(65536)
            self.asked.append(json.loads(body))
            self.heads.append(start.decode().lower().split("\r\n")[1:])
            with suppress(OSError):  # the gateway may have gone
                self.say(connection, body)

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # whoever is in accept() would hold it open
        self._server.close()


class Proxy:
    """A gateway in front of it, and a client."""

    def __init__(self, upstream: Upstream, family: str, workers: int, settings: dict[str, Any]) -> None:
        self.upstream = upstream
        url = f"http://127.0.0.1:{upstream.port}/v1/chat/completions"
        deployment = {"model": "theirs", "provider": "raw", "family": family}
        plain = {"url": url, "headers": [], "stream_options": True}
        embeddings = {"url": url, "headers": []}
        self.tables: dict[str, Any] = {
            "groups": [
                {"name": "m", "deployments": ["plain"], "max_retries": 0},
                {"name": "planned", "deployments": ["planned"], "max_retries": 0},
            ],
            "deployments": [
                {**deployment, "id": "plain", "plain": plain, "embeddings": embeddings},
                {**deployment, "id": "planned"},
            ],
            "settings": settings,
        }
        self.url = url
        self.gateway = Gateway(json.dumps(self.tables).encode())
        self.port = self.gateway.listen("127.0.0.1", 0, workers=workers)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30, trust_env=False)

    def ask(self, path: str = "/v1/chat/completions", **more: Any) -> httpx.Response:
        return self.client.post(path, json={"model": "m", "messages": MESSAGES, **more})

    def rows(self, count: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        until = time.monotonic() + 10
        while len(rows) < count:
            assert time.monotonic() < until, rows
            rows += [dict(row) for row in self.gateway.take_rows(100, 0.1) if not isinstance(row, str)]
        return rows


Start = Callable[..., Proxy]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a gateway in front of what says this."""
    running: list[Proxy] = []

    def start(say: Say, family: str = "chat", workers: int = 1, **settings: Any) -> Proxy:
        running.append(Proxy(Upstream(say), family, workers, {"silence": 0.0, **settings}))
        return running[-1]

    yield start
    for proxy in running:
        proxy.client.close()
        proxy.gateway.close()
        proxy.upstream.close()


def answer(connection: socket.socket, body: bytes) -> None:
    """The answer that was asked for."""
    if json.loads(body).get("stream"):
        connection.sendall(head() + EVENTS)
    else:
        connection.sendall(head(200, "application/json") + json.dumps(ANSWER).encode())


# What is asked of the upstream ----------------------------------------------------------------------------------------


def picky(together: int) -> Say:
    """Does not know `stream_options`, and says so to so many at the same time."""
    barrier = threading.Barrier(together, timeout=20)
    error = {"error": {"message": "unknown field stream_options", "type": "invalid_request_error"}}

    def say(connection: socket.socket, body: bytes) -> None:
        if "stream_options" not in json.loads(body):
            answer(connection, body)
            return
        barrier.wait()
        connection.sendall(head(400, "application/json") + json.dumps(error).encode())

    return say


def plan(proxy: Proxy, jobs: int) -> threading.Thread:
    """Plans so many requests as Python would, with `stream_options` where they may be sent."""

    def work() -> None:
        for _ in range(jobs):
            job = proxy.gateway.next_job(10)
            assert job is not None
            body = json.loads(job.body)
            body.pop("stream_options", None)
            if job.stream_options:
                body["stream_options"] = {"include_usage": True}
            job.plan(proxy.url, [], json.dumps(body).encode(), family="chat")

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("model", ["m", "planned"])
def test_stream_options_are_refused_once(start: Start, model: str) -> None:
    """By however many requests at the same time; from then on nobody sends them, after a reload neither."""
    proxy = start(picky(4))
    planner = plan(proxy, 8 + 2) if model == "planned" else None
    options = {"include_usage": True, "include_obfuscation": False}
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(proxy.ask, model=model, stream=True, stream_options=options) for _ in range(4)]
        assert [each.result().status_code for each in asked] == [200] * 4
    assert ["stream_options" in each for each in proxy.upstream.asked].count(True) == 4
    proxy.upstream.asked.clear()
    assert proxy.ask(model=model, stream=True).status_code == 200
    proxy.tables["groups"][0]["max_retries"] = 1
    proxy.gateway.reload(json.dumps(proxy.tables).encode())
    assert proxy.ask(model=model, stream=True, stream_options=options).status_code == 200
    assert ["stream_options" in each for each in proxy.upstream.asked] == [False, False]
    if planner is not None:
        planner.join()


def test_retries_are_a_part_of_the_requests(start: Start) -> None:
    def say(connection: socket.socket, body: bytes) -> None:
        connection.sendall(head(500, "application/json", "retry-after-ms: 1") + b"{}")

    proxy = start(say, retry_budget=0.5)
    proxy.tables["groups"][0]["max_retries"] = 2
    proxy.tables["deployments"][0]["allowed_fails"] = None
    proxy.gateway.reload(json.dumps(proxy.tables).encode())
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(proxy.ask) for _ in range(80)]
        assert {each.result().status_code for each in asked} == {500}
    # 100 are everybody's.
    assert len(proxy.upstream.asked) == 80 + 40 + 100
    proxy.tables["settings"]["retry_budget"] = 2.0
    proxy.gateway.reload(json.dumps(proxy.tables).encode())
    for _ in range(5):
        proxy.ask()
    assert len(proxy.upstream.asked) == 80 + 40 + 100 + 5 * 3


def beside(proxy: Proxy, **parts: Any) -> dict[str, Any]:
    """Another deployment like the first one of `m`, before it in the list: by number it gets its id."""
    group, (first, *others) = proxy.tables["groups"][0], proxy.tables["deployments"]
    new = {**first, "id": "0", **parts}
    proxy.tables["deployments"] = [new, {**first, "id": "1"}, *others]
    group["deployments"] = ["0", "1"]
    return new


def test_a_deployment_that_stays_keeps_its_limits_when_others_change(start: Start) -> None:
    entered, over = threading.Semaphore(0), threading.Event()

    def say(connection: socket.socket, body: bytes) -> None:
        entered.release()
        assert over.wait(20)
        answer(connection, body)

    proxy = start(say)

    def reload() -> None:
        proxy.gateway.reload(json.dumps(proxy.tables).encode())

    def known() -> dict[str, tuple[int, int]]:
        found = json.loads(proxy.gateway.snapshot())["deployments"]
        return {each["id"]: (each["rpm"], each["in_flight"]) for each in found if each["group"] == "m"}

    proxy.tables["deployments"][0]["limits"] = {"rpm": 2, "max_parallel": 1}
    reload()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(proxy.ask)
        assert entered.acquire(timeout=20)
        new = beside(proxy, weight=0.0, limits={"rpm": 0})
        reload()
        assert known() == {"0": (0, 0), "1": (1, 1)}
        assert proxy.ask().status_code == 429  # one at once
        over.set()
        assert waiting.result().status_code == 200
    assert known() == {"0": (0, 0), "1": (1, 0)}
    new["model"] = "other"
    proxy.tables["groups"][0]["strategy"] = "least-busy"
    reload()
    assert proxy.ask().status_code == 200
    reload()
    assert proxy.ask().status_code == 429  # two a minute
    proxy.tables["deployments"][1]["limits"] = {"rpm": 3}
    reload()
    assert known() == {"0": (0, 0), "1": (0, 0)}  # one that was changed begins anew


def test_a_deployment_that_stays_is_left_alone_when_others_change(start: Start) -> None:
    def say(connection: socket.socket, body: bytes) -> None:
        connection.sendall(head(500, "application/json") + b"{}")

    proxy = start(say)
    proxy.tables["deployments"][0] |= {"allowed_fails": 0, "cooldown": 600.0}
    proxy.gateway.reload(json.dumps(proxy.tables).encode())
    assert proxy.ask().status_code == 500
    beside(proxy, model="other")
    proxy.gateway.reload(json.dumps(proxy.tables).encode())
    found = json.loads(proxy.gateway.snapshot())["deployments"]
    assert {each["id"]: each["health"] for each in found if each["group"] == "m"} == {"0": "up", "1": "cooling"}


def test_one_clock_for_all_attempts(start: Start) -> None:
    def say(connection: socket.socket, body: bytes) -> None:
        if len(proxy.upstream.asked) == 2:
            time.sleep(8)
        connection.sendall(head(500, "application/json", "retry-after-ms: 1500") + b"{}")

    proxy = start(say)
    proxy.tables["groups"][0]["max_retries"] = 5
    for total, attempts, status in ((1.0, 1, 500), (3.0, 2, 504)):
        proxy.upstream.asked.clear()
        proxy.tables["deployments"][0] |= {"timeouts": {"total": total}, "allowed_fails": None}
        proxy.gateway.reload(json.dumps(proxy.tables).encode())
        began = time.monotonic()
        assert proxy.ask().status_code == status
        assert time.monotonic() - began < total + 2
        assert len(proxy.upstream.asked) == attempts


def test_an_error_whose_body_does_not_end_is_an_error(start: Start) -> None:
    """What of it is there says whose fault it is; the next attempt does not wait for the rest."""
    error = json.dumps({"error": {"message": "slow down", "type": "rate_limit"}}).encode()

    def say(connection: socket.socket, body: bytes) -> None:
        if len(proxy.upstream.asked) > 1:
            answer(connection, body)
            return
        connection.sendall(head(429, "application/json", "content-length: 1000", "retry-after-ms: 1") + error)
        time.sleep(20)

    proxy = start(say)
    proxy.tables["groups"][0]["max_retries"] = 1
    proxy.gateway.reload(json.dumps(proxy.tables).encode())
    began = time.monotonic()
    assert proxy.ask().status_code == 200
    assert time.monotonic() - began < 15
    (row,) = proxy.rows(1)
    assert [attempt["error"] for attempt in row["attempts"]] == ["RateLimitError", None]


@pytest.mark.parametrize(("path", "model"), [("/v1/chat/completions", "planned"), ("/v1/embeddings", "m")])
def test_tags_choose_a_deployment(start: Start, path: str, model: str) -> None:
    proxy = start(answer)
    assert proxy.ask(metadata={"tags": ["a"]}).status_code == 200  # where there are none they mean nothing
    proxy.upstream.asked.clear()
    tagged = [{**each, "tags": [tag]} for each in proxy.tables["deployments"] for tag in ("a", "b", "default")]
    proxy.tables["deployments"] = [{**each, "id": f"{each['id']}-{each['tags'][0]}"} for each in tagged]
    for group, name in zip(proxy.tables["groups"], ("plain", "planned"), strict=True):
        group["deployments"] = [f"{name}-{tag}" for tag in ("a", "b", "default")]
    proxy.gateway.reload(json.dumps(proxy.tables).encode())
    planner = plan(proxy, 4) if model == "planned" else None
    for more, headers, tag in (
        ({"metadata": {"tags": ["b"]}}, {}, "b"),
        ({"metadata": {"tags": ["a"], "team": "x"}}, {}, "a"),
        ({"metadata": {"tags": ["a"]}}, {"x-penstock-tags": "b ,"}, "b"),
        ({}, {}, "default"),
    ):
        response = proxy.client.post(path, json={"model": model, "messages": MESSAGES, **more}, headers=headers)
        assert response.headers["x-penstock-deployment"].rpartition("-")[2] == tag
    if planner is not None:
        planner.join()
    else:
        sent = [asked.get("metadata") for asked in proxy.upstream.asked]
        assert sent == [None, {"team": "x"}, None, None]


# What is told to the client -------------------------------------------------------------------------------------------


def message_events(body: bytes) -> list[Any]:
    """The data of a stream of events, of which each must be whole."""
    assert body.endswith(b"\n\n"), body
    blocks = [[line for line in block.split(b"\n") if not line.startswith(b":")] for block in body.split(b"\n\n")[:-1]]
    found = []
    for block in filter(None, blocks):
        named, data = block
        found.append(json.loads(data.removeprefix(b"data: ")))
        assert named == b"event: " + found[-1]["type"].encode()
    return found


MESSAGE: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {"id": "a", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": {}},
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello, you"}},
]


def told(*events: dict[str, Any]) -> bytes:
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


@pytest.mark.parametrize("cut", [3, 30, 60])
def test_nothing_of_ours_stands_in_an_event_that_is_passed_on(start: Start, cut: int) -> None:
    """Neither the word that breaks a silence nor the error at the end."""

    def say(connection: socket.socket, body: bytes) -> None:
        *first, last = MESSAGE
        connection.sendall(head() + told(*first) + told(last)[:cut])
        time.sleep(0.5)
        connection.sendall(told(last)[cut:] + told(last)[:cut])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    proxy = start(say, "anthropic", silence=0.1)
    response = proxy.ask("/v1/messages", stream=True, max_tokens=10)
    assert response.status_code == 200
    *events, error = message_events(response.content)
    assert events == MESSAGE
    assert error["type"] == "error"
    assert b": keep-alive" in response.content


def test_what_a_client_asks_for_in_beta_goes_on_with_its_language(start: Start) -> None:
    def say(connection: socket.socket, body: bytes) -> None:
        connection.sendall(head() + told(*MESSAGE))

    proxy = start(say, "anthropic")
    proxy.client.headers = httpx.Headers([("anthropic-beta", "one,two"), ("anthropic-beta", "three"), ("x-own", "1")])
    assert proxy.ask("/v1/messages", stream=True, max_tokens=10).status_code == 200
    assert "anthropic-beta: one,two,three" in proxy.upstream.heads[-1]
    assert "x-own: 1" not in proxy.upstream.heads[-1]
    del proxy.client.headers["anthropic-beta"]
    assert proxy.ask("/v1/messages", stream=True, max_tokens=10).status_code == 200
    assert "anthropic-beta" not in " ".join(proxy.upstream.heads[-1])


def test_events_are_known_by_their_beginning_however_it_comes(start: Start) -> None:
    """Under a content type that says nothing."""

    def say(connection: socket.socket, body: bytes) -> None:
        connection.sendall(head(200, "text/plain") + b"\n" + EVENTS[:1])
        time.sleep(0.1)
        connection.sendall(EVENTS[1:])

    response = start(say).ask(stream=True)
    assert response.status_code == 200
    assert response.content.endswith(b"data: [DONE]\n\n")


# Limits ---------------------------------------------------------------------------------------------------------------


def test_a_body_in_pieces_has_the_same_limit(start: Start) -> None:
    proxy = start(answer, max_body=1000)
    whole = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 1500}]}).encode()

    def pieces() -> Iterator[bytes]:
        yield whole[:800]
        time.sleep(0.1)
        yield whole[800:]

    assert proxy.client.post("/v1/chat/completions", content=pieces()).status_code == 413


def test_a_limit_beyond_all_clocks_is_none(start: Start) -> None:
    proxy = start(answer, head_seconds=1e300, body_seconds=1e300, silence=1e300, drain_seconds=1e300)
    assert proxy.ask(stream=True).content.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("where", ["before", "after"])
def test_an_upstream_that_does_not_stop_leaves_time_for_others(start: Start, where: str) -> None:
    """One worker, and words without meaning that come faster than they can be read."""
    over = threading.Event()

    def say(connection: socket.socket, body: bytes) -> None:
        if json.loads(body)["messages"] == MESSAGES:
            answer(connection, body)
            return
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
        connection.sendall(head() + (EVENTS[:170] + b"\n\n" if where == "after" else b""))
        noise = b":\n" * (1 << 20)
        while not over.is_set():
            connection.sendall(noise)

    proxy = start(say)
    took = []
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            pool.submit(proxy.ask, stream=True, messages=[{"role": "user", "content": "go"}])
        time.sleep(0.5)
        try:
            for _ in range(5):
                began = time.monotonic()
                assert proxy.ask().status_code == 200
                took.append(time.monotonic() - began)
        finally:
            over.set()
    assert min(took) < 5.0, took


# The end --------------------------------------------------------------------------------------------------------------


def test_who_reads_slowly_gets_the_last_bytes_too(start: Start) -> None:
    """The answer is settled when the gateway has it, which is before the client does."""
    document = json.dumps({"data": "x" * (24 << 20), "usage": {"prompt_tokens": 3, "total_tokens": 3}}).encode()

    def say(connection: socket.socket, body: bytes) -> None:
        connection.sendall(head(200, "application/json") + document)

    proxy = start(say)
    with socket.create_connection(("127.0.0.1", proxy.port)) as client:
        body = json.dumps({"model": "m", "input": "hi"}).encode()
        client.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        received = client.recv(1000)
        proxy.rows(1)
        left: list[int] = []

        def end() -> None:
            left.append(proxy.gateway.drain(30))
            proxy.gateway.close()

        ending = threading.Thread(target=end)
        ending.start()
        time.sleep(0.5)
        while part := client.recv(1 << 20):
            received += part
        ending.join()
    assert received.partition(b"\r\n\r\n")[2] == document
    assert left == [0]


def test_who_does_not_read_is_not_waited_for_longer(start: Start) -> None:
    document = json.dumps({"data": "x" * (24 << 20)}).encode()

    def say(connection: socket.socket, body: bytes) -> None:
        connection.sendall(head(200, "application/json") + document)

    proxy = start(say)
    with (
        socket.create_connection(("127.0.0.1", proxy.port)) as client,
        socket.create_connection(("127.0.0.1", proxy.port)),
    ):
        body = json.dumps({"model": "m", "input": "hi"}).encode()
        client.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        client.recv(1000)
        proxy.rows(1)
        began = time.monotonic()
        assert proxy.gateway.drain(0.5) == 0
        proxy.gateway.close()
        assert time.monotonic() - began < 5


def test_who_reads_on_for_a_client_waits_for_the_first_token_once(start: Start) -> None:
    """A client that goes before it: the clock ends with it all the same."""
    first, usage = EVENTS.split(b"\n\n")[:2], b'{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}'
    role = first[0].replace(b',"content":"Hello"', b"")

    def say(connection: socket.socket, body: bytes) -> None:
        connection.sendall(head() + role + b"\n\n")
        time.sleep(0.4)
        connection.sendall(first[0] + b"\n\n")
        time.sleep(2.5)
        connection.sendall(first[1].replace(b"}]}", b'}],"usage":' + usage + b"}") + b"\n\ndata: [DONE]\n\n")

    proxy = start(say, on_disconnect="drain")
    proxy.tables["deployments"][0]["timeouts"] = {"first_token": 2.0}
    proxy.gateway.reload(json.dumps(proxy.tables).encode())
    with proxy.client.stream("POST", "/v1/chat/completions", json={"model": "m", "messages": MESSAGES, "stream": True}):
        pass
    (row,) = proxy.rows(1)
    assert (row["outcome"], row["total_tokens"], row["usage_complete"]) == ("left", 5, True)
    assert 0.3 < row["first_token"] < 2


@pytest.mark.parametrize("stream", [False, True])
def test_who_is_cut_at_the_end_did_not_go(start: Start, stream: bool) -> None:
    """An answer that has not begun when the time for it is over."""
    asked = threading.Event()

    def say(connection: socket.socket, body: bytes) -> None:
        asked.set()
        connection.recv(1)  # until the gateway goes

    proxy = start(say)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(proxy.ask, stream=stream)
        assert asked.wait(20)
        assert proxy.gateway.drain(0.1) == 1
        proxy.gateway.close()
        with suppress(httpx.TransportError):
            assert waiting.result(20).status_code == 503
    [row] = proxy.rows(1)
    assert (row["outcome"], row["status"], row["error"]) == ("cut", 503, "ServiceUnavailableError")


def test_why_nobody_answered_is_in_the_books(start: Start) -> None:
    proxy = start(answer)
    proxy.upstream.close()
    answered = proxy.ask()
    assert answered.status_code == 502
    [row] = proxy.rows(1)
    [tried] = row["attempts"]
    assert (tried["error"], tried["status"]) == ("APIConnectionError", None)
    assert str(proxy.upstream.port) in tried["reason"]
    assert tried["reason"] in answered.json()["error"]["message"]


@pytest.mark.parametrize("on_disconnect", ["abort", "drain"])
def test_who_takes_nothing_for_too_long_is_not_waited_for(start: Start, on_disconnect: str) -> None:
    """Who takes a little now and then is."""
    piece = EVENTS[: EVENTS.index(b"\n\n") + 2]

    def say(connection: socket.socket, body: bytes) -> None:
        connection.sendall(head() + piece * 100_000 + EVENTS)

    proxy = start(say, send_seconds=1.0, on_disconnect=on_disconnect)
    content = json.dumps({"model": "m", "messages": MESSAGES, "stream": True}).encode()
    request = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as client:
        client.sendall(request + f"content-length: {len(content)}\r\n\r\n".encode() + content)
        until = time.monotonic() + 3
        while time.monotonic() < until:  # 64 KiB at a time take longer than the whole limit
            assert client.recv(1 << 20)
            time.sleep(0.3)
        assert proxy.gateway.take_rows(1, 0) == []
        [row] = proxy.rows(1)
        assert (row["outcome"], row["seconds"] > 3.5) == ("left", True)
        with suppress(ConnectionResetError):
            while client.recv(1 << 20):
                pass
