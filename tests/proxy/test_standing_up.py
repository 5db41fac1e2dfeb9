"""Whoever means harm, or is merely slow: refused, held back or let go, and everybody else is served all the while."""

import contextlib
import hashlib
import json
import random
import re
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.replay import Upstream
from penstock.replay.cases.chat import HELLO

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="external: the proxy is tested where there are signals")

STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
MESSAGES = [{"role": "user", "content": "Hello"}]


def body_of(model: str, **fields: Any) -> bytes:
    return json.dumps({"model": model, "messages": MESSAGES, **fields}).encode()


def request(key: str, body: bytes, *lines: str, length: bool = True) -> bytes:
    """A request as it goes on the wire, with these lines in its head."""
    head = ["POST /v1/chat/completions HTTP/1.1", "host: x", f"authorization: Bearer {key}"]
    head += [f"content-length: {len(body)}"] if length else []
    return "\r\n".join([*head, "content-type: application/json", *lines, "", ""]).encode("latin-1") + body


def read(sock: socket.socket, seconds: float = 2.0) -> tuple[bytes, bool]:
    """What comes until the connection is closed or nothing came for so long; and whether it was closed."""
    sock.settimeout(seconds)
    found = b""
    try:
        while piece := sock.recv(65536):
            found += piece
    except TimeoutError:
        return found, False
    except ConnectionError:
        pass
    return found, True


def told(sock: socket.socket, seconds: float = 2.0) -> tuple[list[int], bool]:
    """The statuses of all answers, and whether the connection was closed after them."""
    found, closed = read(sock, seconds)
    return [int(status) for status in STATUS.findall(found)], closed


def serves(proxy: Any, key: str) -> None:
    """It is there, and answers as ever."""
    assert proxy.ask("fast", key=key).json()["choices"][0]["message"]["content"] == HELLO


def logged(proxy: Any, text: str) -> None:
    """It stands in the log, or will soon."""
    deadline = time.monotonic() + 5
    while text not in proxy.said():
        assert time.monotonic() < deadline, proxy.said()
        time.sleep(0.02)


# ---- who takes his time


@pytest.fixture
def hasty(start: Any, config: dict[str, Any]) -> Any:
    """A proxy that waits for nobody."""
    return start({**config, "general_settings": {"head_seconds": 1.0, "body_seconds": 1.0}})


def test_heads_that_drip(hasty: Any) -> None:
    key = hasty.key()
    slow = [hasty.connect() for _ in range(50)]
    began = time.monotonic()
    for number, sock in enumerate(slow):
        sock.sendall(b"POST /v1/" + b"x" * number)
    ended: dict[int, float] = {}
    while len(ended) < len(slow) and time.monotonic() - began < 20:
        serves(hasty, key)
        for number, sock in enumerate(slow):
            if number not in ended:
                try:
                    sock.settimeout(0.001)
                    if not sock.recv(4096):
                        ended[number] = time.monotonic() - began
                except TimeoutError:
                    with contextlib.suppress(OSError):
                        sock.sendall(b"x")
                except ConnectionError:
                    ended[number] = time.monotonic() - began
    assert len(ended) == len(slow), "some may drip on"
    assert min(ended.values()) > 0.8
    for sock in slow:
        sock.close()


def test_bodies_that_drip(hasty: Any) -> None:
    key = hasty.key()
    whole = request(key, body_of("fast"))
    with hasty.connect() as sock:
        sock.sendall(whole[:-20])
        began = time.monotonic()
        statuses, closed = told(sock, 10)
        assert (statuses, closed) == ([408], True)
        assert 0.8 < time.monotonic() - began < 8
    serves(hasty, key)


def test_connections_that_say_nothing(hasty: Any) -> None:
    key = hasty.key()
    silent = [hasty.connect() for _ in range(300)]
    serves(hasty, key)
    # Also those which have been served once and then say nothing more.
    served = hasty.connect()
    served.sendall(request(key, body_of("fast")))
    assert told(served, 15) == ([200], True)
    for sock in silent:
        assert read(sock, 15)[1], "it is still open"
        sock.close()
    served.close()


# ---- what is too much, or no JSON


@pytest.fixture
def small(start: Any, config: dict[str, Any]) -> Any:
    """A proxy that takes small requests."""
    return start({**config, "general_settings": {"max_body": 100_000, "max_head": 16_384}})


def test_a_body_that_is_too_large(small: Any) -> None:
    key = small.key()
    big = body_of("fast", user="x" * 100_000)
    with small.connect() as sock:
        # It is enough to say so.
        sock.sendall(request(key, b"", "content-length: 100001", length=False))
        statuses, closed = told(sock)
        assert (statuses, closed) == ([413], True)
    with small.connect() as sock:
        head = request(key, b"", "transfer-encoding: chunked", length=False)
        with contextlib.suppress(ConnectionError):
            sock.sendall(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(big), big))
        assert told(sock)[0] == [413]
    response = small.client.post(
        f"{small.base_url}/chat/completions", headers={"authorization": f"Bearer {key}"}, content=big[:99_999]
    )
    assert response.status_code == 400, "as large as may be, and no JSON"
    serves(small, key)


def test_a_head_that_is_too_large(small: Any) -> None:
    key = small.key()
    for lines in (
        ["x-long: " + "x" * 17_000],
        ["x-long: " + "x" * 1_000_000],
        [f"x-{number}: {'y' * 400}" for number in range(60)],
        [f"x-{number}: y" for number in range(200_000)],
    ):
        with small.connect() as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(request(key, body_of("fast"), *lines))
            assert told(sock)[0] in ([431], [])  # []: it went away from what it was still being told
    with small.connect() as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n")
        assert told(sock)[0] in ([414], [431], [])
    with small.connect() as sock:
        sock.sendall(request(key, body_of("fast"), "x-long: " + "x" * 15_000))
        assert told(sock)[0] == [200]
    serves(small, key)


DEEP = 200_000
BROKEN = {
    "arrays in arrays": b'{"model":"fast","messages":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "objects in objects": b'{"model":"fast","messages":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
    "an unknown field that is deep": b'{"model":"fast","messages":[],"x":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep, and never ended": b"[" * DEEP,
    "no object": b"[]",
    "nothing": b"",
    "no JSON": b"model=fast",
    "two documents": b'{"model":"fast","messages":[]}{}',
    "no UTF-8": b'{"model":"fast","messages":[{"role":"user","content":"\xff\xfe"}]}',
    "a byte order mark": b'\xef\xbb\xbf{"model":"fast","messages":[]}',
    "UTF-16": '{"model":"fast","messages":[]}'.encode("utf-16"),
    "a model that is no text": b'{"model":["fast"],"messages":[]}',
    "no model": b'{"messages":[]}',
    "messages that are none": b'{"model":"fast","messages":7}',
    "stream that is no flag": b'{"model":"fast","messages":[],"stream":"yes"}',
    "a number without end": b'{"model":"fast","messages":[{"role":"user","content":"x"}],"seed":' + b"9" * DEEP + b"}",
}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/embeddings"])
@pytest.mark.parametrize("case", BROKEN)
def test_json_that_is_none(shared: Any, key: str, case: str, path: str) -> None:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    response = shared.client.post(shared.url + path, headers=headers, content=BROKEN[case])
    # What is only odd goes to the upstream, which minds or not; this one has no embeddings.
    others = {404} if path.endswith("embeddings") else {200} if case == "a number without end" else set()
    assert response.status_code in {400, 422, *others}, response.text[:300]
    assert response.status_code == 200 or response.json()["error"]["message"]
    assert len(response.content) < 4096 or response.status_code == 200
    serves(shared, key)


def test_a_model_twice(shared: Any, up: Upstream) -> None:
    """A key that may ask one model asks no other by saying both."""
    limited = shared.key(models=["fast"])
    for body in (
        b'{"model":"fast","messages":[],"model":"chat/hello"}',
        b'{"model":"chat/hello","messages":[],"model":"fast"}',
        b'{"model":"fast","messages":[],"mod\\u0065l":"chat/hello"}',
    ):
        headers = {"authorization": f"Bearer {limited}", "content-type": "application/json"}
        response = shared.client.post(f"{shared.base_url}/chat/completions", headers=headers, content=body)
        assert response.status_code in (200, 400, 401, 403, 404)
    # The `fast` deployment asks for `hello`, as does chat/hello: what was asked is told by the key upstream.
    asked = {request["headers"].get("authorization") for request in up.stats()["requests"]}
    assert asked <= {shown(shared.upstream_key)}


def shown(secret: str) -> str:
    """How the local upstream shows a bearer."""
    return f"Bearer sha256:{hashlib.sha256(secret.encode()).hexdigest()[:12]}"


# ---- lines that are more than they seem


@pytest.mark.parametrize("evil", ["\r\nx-evil: 1", "\nx-evil: 1", "\r\n\r\nHTTP/1.1 200 OK", "\x00", "é\x7f"])
def test_what_a_client_says_makes_no_header(shared: Any, key: str, up: Upstream, evil: str) -> None:
    for model, fields in (
        (f"chat/hello?tag={evil}", {}),
        ("fast", {"user": evil}),
        ("fast", {"metadata": {evil: evil}}),
    ):
        response = shared.ask(model, key=key, **fields)
        assert "x-evil" not in response.headers
        assert response.status_code in (200, 400, 404)
    for exchange in up.stats()["requests"]:
        assert "x-evil" not in exchange["headers"]
        assert "x-evil" not in exchange["path"]
    serves(shared, key)


SMUGGLED = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
PROBES: dict[str, tuple[list[str], bytes]] = {
    "both lengths": (["content-length: 5", "transfer-encoding: chunked"], b"0\r\n\r\n" + SMUGGLED),
    "both lengths, the other way": (["transfer-encoding: chunked", "content-length: 5"], b"0\r\n\r\n" + SMUGGLED),
    "both lengths, and a body": (["transfer-encoding: chunked", "content-length: 5"], b"2\r\n{}\r\n0\r\n\r\n"),
    "two lengths": (["content-length: 0", f"content-length: {len(SMUGGLED)}"], SMUGGLED),
    "two lengths in one": ([f"content-length: 0, {len(SMUGGLED)}"], SMUGGLED),
    "a length with a sign": ([f"content-length: +{len(SMUGGLED)}"], SMUGGLED),
    "a negative length": (["content-length: -1"], SMUGGLED),
    "a length in hexadecimal": (["content-length: 0x10"], SMUGGLED),
    "a length with a space in it": (["content-length: 1 0"], SMUGGLED),
    "a length beyond all": (["content-length: 99999999999999999999"], SMUGGLED),
    "a folded line": (["x-folded: a", " transfer-encoding: chunked", "content-length: 0"], SMUGGLED),
    "a folded coding": (["transfer-encoding:", " chunked", "content-length: 0"], SMUGGLED),
    "a space before the colon": (["transfer-encoding : chunked", "content-length: 0"], SMUGGLED),
    "another coding": (["transfer-encoding: xchunked", "content-length: 0"], SMUGGLED),
    "a coding in vertical tabs": (["transfer-encoding: \x0bchunked", "content-length: 0"], SMUGGLED),
    "two codings": (["transfer-encoding: chunked, identity"], b"0\r\n\r\n" + SMUGGLED),
    "two lines of codings": (["transfer-encoding: chunked", "transfer-encoding: identity"], b"0\r\n\r\n" + SMUGGLED),
    "a name with a space": (["transfer encoding: chunked", "content-length: 0"], SMUGGLED),
    "a line without a colon": (["transfer-encoding", "content-length: 0"], SMUGGLED),
    "a nought in a value": (["x-nought: a\x00b", "content-length: 0"], SMUGGLED),
    "a return in a value": (["x-return: a\rb: c", "content-length: 0"], SMUGGLED),
    "a chunk of no size": (["transfer-encoding: chunked"], b"\r\n\r\n" + SMUGGLED),
    "a chunk of a size beyond all": (["transfer-encoding: chunked"], b"fffffffffffffffff\r\n" + SMUGGLED),
    "a chunk's size with a sign": (["transfer-encoding: chunked"], b"+0\r\n\r\n" + SMUGGLED),
    "a chunk's size in words": (["transfer-encoding: chunked"], b"0x0\r\n\r\n" + SMUGGLED),
    "a chunk that is longer than it says": (["transfer-encoding: chunked"], b"1\r\nabc\r\n0\r\n\r\n" + SMUGGLED),
    "chunks that end their lines alone": (["transfer-encoding: chunked"], b"0\n\n" + SMUGGLED),
}


@pytest.mark.parametrize("probe", PROBES)
def test_no_request_in_a_request(shared: Any, key: str, probe: str) -> None:
    """What could be read in two ways is refused, and what comes behind it is never a request."""
    lines, body = PROBES[probe]
    with shared.connect() as sock:
        sock.sendall(request(key, body, *lines, length=False))
        statuses, closed = told(sock, 3)
    assert len(statuses) <= 1, f"what was hidden in it was answered: {statuses}"
    assert not statuses or 400 <= statuses[0] < 600
    assert closed, "whoever sends this is not listened to any further"
    serves(shared, key)


def test_lines_that_end_alone(shared: Any, key: str) -> None:
    """A line feed without a return ends a line, if at all, for everything in it: nothing hides behind it."""
    body = body_of("fast")
    with shared.connect() as sock:
        sock.sendall(request(key, body, "x-alone: a\ntransfer-encoding: chunked") + SMUGGLED)
        statuses, closed = told(sock, 3)
    assert len(statuses) <= 1
    assert not statuses or statuses[0] == 400
    assert closed


def test_two_requests_at_once_are_two(shared: Any, key: str) -> None:
    with shared.connect() as sock:
        sock.sendall(request(key, body_of("fast")) * 2 + request(key, body_of("fast"), "connection: close"))
        found, closed = read(sock, 10)
    assert [int(status) for status in STATUS.findall(found)] == [200, 200, 200]
    assert closed


def test_noise(shared: Any, key: str) -> None:
    dice = random.Random(11)
    whole = request(key, body_of("fast"))
    for number in range(200):
        noise = bytearray(dice.randbytes(dice.randrange(1, 400)) if number % 2 else whole)
        for _ in range(dice.randrange(1, 6)):
            noise[dice.randrange(len(noise))] = dice.randrange(256)
        with shared.connect() as sock:
            with contextlib.suppress(OSError):
                sock.sendall(noise)
                sock.shutdown(socket.SHUT_WR)
            statuses, _ = told(sock, 5)
            assert all(status < 500 for status in statuses), (statuses, bytes(noise))
    serves(shared, key)


# ---- the wrong door


def test_tls_at_the_plain_door(start: Any, config: dict[str, Any]) -> None:
    proxy = start(config)
    context = ssl.create_default_context()
    began = time.monotonic()
    with proxy.connect() as sock, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(sock, server_hostname="localhost")
    assert time.monotonic() - began < 5
    logged(proxy, "TLS")
    serves(proxy, proxy.master)


def test_plain_at_the_tls_door(start: Any, config: dict[str, Any], tmp_path: Path) -> None:
    import trustme

    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.private_key_pem.write_to_path(key)
    certificate.cert_chain_pems[0].write_to_path(cert)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    proxy = start(config, certified=(cert, key), verify=context)
    with proxy.connect() as sock:
        sock.sendall(SMUGGLED)
        found, closed = read(sock)
    assert closed
    assert STATUS.findall(found) == [b"400"]
    assert b"https" in found
    logged(proxy, "https")
    with proxy.connect() as sock:  # half a hello, and then silence
        sock.sendall(b"\x16\x03\x01\x02\x00\x01")
    with proxy.connect() as sock, pytest.raises(ssl.SSLError):  # and one who does not trust
        ssl.create_default_context().wrap_socket(sock, server_hostname="127.0.0.1")
    serves(proxy, proxy.master)


# ---- who does not read, and who goes


@pytest.mark.skipif(sys.platform != "linux", reason="external: memory is looked at in /proc")
def test_who_does_not_read_is_held_back(start: Any, up: Upstream, config: dict[str, Any]) -> None:
    proxy = start(config)
    key = proxy.key()
    serves(proxy, key)
    before = proxy.memory()
    clients = []
    for number in range(10):
        sock = socket.socket()
        # Several segments of loopback, of 64 KiB each: where not one fits, the sender's kernel has a few KiB go every
        # 200 ms, by its persist timer, whatever the proxy does.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 512 << 10)
        sock.connect(("127.0.0.1", proxy.port))
        model = f"chat/long-200000?tag={number}"
        sock.sendall(request(key, body_of(model, stream=True), "connection: close"))
        clients.append(sock)

    def sent() -> int:
        return sum(exchange["bytes"] for exchange in up.stats()["requests"] if "long" in exchange["model"])

    deadline = time.monotonic() + 60
    last, now = -1, sent()
    while last != now or now == 0:
        assert time.monotonic() < deadline
        time.sleep(1)
        last, now = now, sent()
    # Of 60 MB each, what was taken from the upstream is what sockets hold: the system decides, up to 16 MiB or so.
    assert now < 10 * (20 << 20), f"{now >> 20} MiB taken"
    assert proxy.memory() - before < 10 << 10, "KiB more than before"
    serves(proxy, key)
    # Who reads again is served again.
    taken = 0
    while taken < 30 << 20:
        taken += len(clients[0].recv(1 << 16))
    assert sent() > now
    for sock in clients:
        sock.close()
    up.wait(lambda stats: all(each["seconds"] is not None for each in stats["requests"]), 20)
    rows = proxy.settled(len(up.stats()["requests"]))
    assert [row["outcome"] for row in rows].count("left") == 10


@pytest.mark.parametrize(
    "model", ["chat/long-5000?delay=20", "chat/hello?first_byte=60", "chat/hello?silent", "anthropic/hello?stall=5"]
)
@pytest.mark.parametrize("how", ["close", "reset"])
def test_who_goes_takes_the_upstream_along(shared: Any, key: str, up: Upstream, model: str, how: str) -> None:
    """Within a tenth of a second, at the best of five: the machine may have other things to do."""
    took = []
    for number in range(5):
        sock = shared.connect()
        sock.sendall(request(key, body_of(f"{model}&tag={how}-{number}", stream=True)))
        tag = f"{how}-{number}"
        while not any(tag in each["script"] for each in up.stats()["requests"]):
            time.sleep(0.002)
        if "delay" in model or "stall" in model:
            assert sock.recv(4096)
        time.sleep(0.05)
        if how == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        began = time.monotonic()
        sock.close()
        while not any(each["closed_early"] for each in up.stats()["requests"] if tag in each["script"]):
            assert time.monotonic() - began < 10
            time.sleep(0.002)
        took.append(time.monotonic() - began)
        if took[-1] < 0.1:
            break
    assert min(took) < 0.1, took


def test_too_many_at_once(start: Any, up: Upstream, config: dict[str, Any]) -> None:
    proxy = start({**config, "general_settings": {"max_requests": 4}})
    key = proxy.key()
    running = [proxy.connect() for _ in range(4)]
    for sock in running:
        sock.sendall(request(key, body_of("chat/long-5000?delay=20", stream=True)))
        assert STATUS.findall(sock.recv(4096)) == [b"200"]
    for _ in range(3):
        response = proxy.ask("fast", key=key)
        assert (response.status_code, response.headers["retry-after"]) == (429, "1")
        assert response.json()["error"]["message"]
    assert proxy.readiness() == 200
    for sock in running:
        sock.close()
    up.wait(lambda stats: stats["connections"]["open"] == 0 or all(each["seconds"] for each in stats["requests"]))
    deadline = time.monotonic() + 5
    while proxy.ask("fast", key=key).status_code == 429:
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ---- the end


@contextlib.contextmanager
def streaming(proxy: Any, key: str, model: str) -> Iterator[list[bytes]]:
    """A stream that is read while other things happen."""
    found: list[bytes] = []

    def work() -> None:
        body = {"model": model, "messages": MESSAGES, "stream": True}
        headers = {"authorization": f"Bearer {key}"}
        with (
            contextlib.suppress(httpx.TransportError),
            proxy.client.stream("POST", f"{proxy.base_url}/chat/completions", json=body, headers=headers) as response,
        ):
            found.extend(response.iter_bytes())

    thread = threading.Thread(target=work)
    thread.start()
    deadline = time.monotonic() + 20
    while not found:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield found
    thread.join()


def test_an_end_in_order(start: Any, config: dict[str, Any]) -> None:
    """First it says that it is not ready, then it takes nothing new, and what runs comes to its end."""
    proxy = start(config)
    key = proxy.key()
    with streaming(proxy, key, "chat/long-100?delay=30") as found:
        proxy.process.terminate()
        deadline = time.monotonic() + 2
        while proxy.readiness() != 503:
            assert time.monotonic() < deadline, "not ready: 503"
        response = proxy.ask("fast", key=key)
        assert response.status_code == 503
        assert response.headers["retry-after"]
        assert proxy.process.poll() is None
        assert not b"".join(found).endswith(b"[DONE]\n\n")
    assert b"".join(found).endswith(b"data: [DONE]\n\n")
    proxy.await_end()
    assert sorted(row["outcome"] for row in proxy.rows() if row["status"] == 200) == ["complete"]


def test_an_end_that_waits_no_longer(start: Any, config: dict[str, Any], up: Upstream, events: Any) -> None:
    proxy = start({**config, "general_settings": {"drain_seconds": 1.0}})
    key = proxy.key()
    with streaming(proxy, key, "chat/long-5000?delay=20") as found:
        began = time.monotonic()
        proxy.process.terminate()
    assert time.monotonic() - began > 0.9
    *_, last = events(b"".join(found))
    assert json.loads(last.data)["error"]["message"]
    proxy.await_end()
    assert time.monotonic() - began < 15
    (row,) = proxy.rows()
    assert row["outcome"] != "complete"
    up.wait(lambda stats: stats["requests"][0]["closed_early"])


def test_an_end_at_once_where_nothing_runs(start: Any, config: dict[str, Any]) -> None:
    proxy = start(config)
    serves(proxy, proxy.master)
    idle = [proxy.connect() for _ in range(3)]  # and three who say nothing
    began = time.monotonic()
    proxy.stop()
    assert time.monotonic() - began < 10
    for sock in idle:
        sock.close()
    assert len(proxy.rows()) == 1


# ---- what stays inside


FOREIGN = {
    "api_base": "http://127.0.0.1:{port}/v1",
    "base_url": "http://127.0.0.1:{port}/v1",
    "api_key": "sk-clients-own",
    "extra_headers": {"x-foreign": "1"},
    "headers": {"x-foreign": "1"},
    "extra_query": {"foreign": "1"},
    "proxy": "http://127.0.0.1:{port}",
    "verify": False,
    "custom_llm_provider": "anthropic",
    "fallbacks": ["chat/hello"],
    "mock_response": "mine",
    "organization": "foreign",
    "extra_body": {"model": "foreign"},
    "timeout": 0.001,
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["fast", "anthropic/hello"])
@pytest.mark.parametrize("field", FOREIGN)
def test_a_client_chooses_no_address(shared: Any, key: str, up: Upstream, field: str, model: str, stream: bool) -> None:
    """Where requests go, and what they carry beside the client's words, is the config's to say."""
    with Upstream() as other:
        value = json.loads(json.dumps(FOREIGN[field]).replace("{port}", str(other.port)))
        response = shared.ask(model, key=key, stream=stream, **{field: value})
        assert other.stats()["connections"]["opened"] == 0
    assert response.status_code in (200, 400)
    for exchange in up.stats()["requests"]:
        assert "foreign" not in json.dumps([exchange["path"], exchange["headers"]])
        assert exchange["model"].endswith("hello")
        assert exchange["headers"].get("authorization") in (None, shown(shared.upstream_key))
    assert "mine" not in response.text.replace("determine", "")


def test_nothing_of_a_clients_head_goes_upstream(shared: Any, key: str, up: Upstream) -> None:
    headers = {
        "authorization": f"Bearer {key}",
        "x-api-key": key,
        "cookie": "a=b",
        "x-replay": "status=500",
        "openai-organization": "mine",
        "x-forwarded-for": "10.0.0.1",
        "anthropic-beta": "mine",
    }
    response = shared.client.post(f"{shared.base_url}/chat/completions", headers=headers, content=body_of("fast"))
    assert response.status_code == 200
    (exchange,) = up.wait(lambda stats: stats["requests"])["requests"]
    assert exchange["headers"]["authorization"] == shown(shared.upstream_key)
    assert not exchange["headers"].keys() & (headers.keys() - {"authorization"})


@pytest.mark.parametrize("format", ["console", "json"])
def test_no_key_in_any_log_or_error(start: Any, up: Upstream, config: dict[str, Any], format: str) -> None:
    closed = {"api_base": "http://user:sk-password-0123456789@127.0.0.1:9/v1", "api_key": "sk-upstream-of-its-own"}
    models = [*config["model_list"], {"model_name": "closed", "litellm_params": {"model": "openai/hello", **closed}}]
    proxy = start({**config, "model_list": models, "general_settings": {"log_format": format}})
    proxy.given += ["sk-password-0123456789", "sk-upstream-of-its-own"]
    key, gone, wrong = proxy.key(), proxy.key(), "sk-" + "w" * 43
    proxy.given += [wrong, "sk-in-the-query"]
    proxy.admin("/key/delete", json={"keys": [gone]})
    keys = (key, gone, wrong, "sk-short", proxy.master, f"{key}x", "-")
    names = ("fast", "closed", "no-such-model", "chat/hello?status=401", "chat/hello?html", "anthropic/hello")
    said = [proxy.ask(model, key=each) for each in keys for model in names]
    headers = {"authorization": f"Basic {key}", "x-request-id": key}
    said.append(proxy.client.get(f"{proxy.url}/v1/models?key=sk-in-the-query", headers=headers))
    said.append(proxy.client.get(f"{proxy.url}/{key}", headers=headers))
    headers = {"authorization": f"Bearer {key}"}
    said += [proxy.client.get(proxy.url + path, headers=headers) for path in ("/health", "/metrics", "/", "/v1/models")]
    said.append(proxy.admin("/key/list"))
    said.append(proxy.admin("/spend/logs"))
    said.append(proxy.client.post(f"{proxy.url}/key/generate", headers=headers, json={}))
    for response in said:
        for secret in proxy.given:
            if secret not in response.request.url.path:
                assert secret not in response.text, response.text
                assert secret not in str(response.headers)
    assert {response.status_code for response in said} >= {200, 401, 403, 404, 502}
    proxy.stop()  # which reads the log
    for file in proxy.folder.iterdir():
        if file != proxy.file:
            content = file.read_bytes()
            assert not [secret for secret in proxy.given if secret.encode() in content], file
