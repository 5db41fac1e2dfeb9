"""What the engine does on the wire: every test speaks to a server that says exactly what the test wants."""

import _thread
import asyncio
import base64
import gc
import gzip
import multiprocessing
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import certifi
import httpx
import orjson
import pytest
import trustme

from penstock import APIConnectionError, APIResponseValidationError, BadRequestError, acompletion, completion, retry
from penstock.replay import Upstream
from penstock.transport import AsyncHTTPTransport, HTTPTransport, native

MESSAGES = [{"role": "user", "content": "Hello"}]
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n'
BODY = EVENT + b"data: [DONE]\n\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
WHOLE = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
JSON = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}'


def heard(connection: Any) -> bytes:
    """One request: its head, and as much of a body as it announces. Nothing, where the client went away."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return data


class Server:
    """Runs `serve(connection)` in a thread for each connection. `heads` are the requests it heard."""

    def __init__(self, serve: Callable[["Server", Any], None], context: ssl.SSLContext | None = None) -> None:
        self.serve = serve
        self.context = context
        self.met = 0
        self.heads: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.met += 1
                threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection: Any) -> None:
        with suppress(OSError), connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.context is not None:
                connection = self.context.wrap_socket(connection, server_side=True)
            with connection:
                self.serve(self, connection)

    def hear(self, connection: Any) -> bytes:
        request = heard(connection)
        if request:
            self.heads.append(request.partition(b"\r\n\r\n")[0])
        return request

    @property
    def url(self) -> str:
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}/v1"


Start = Callable[..., Server]


@pytest.fixture
def start() -> Iterator[Start]:
    servers: list[Server] = []

    def start(serve: Callable[[Server, Any], None], context: ssl.SSLContext | None = None) -> Server:
        servers.append(Server(serve, context))
        return servers[-1]

    yield start
    for server in servers:
        server.listener.close()


def says(*pieces: bytes, keep: bool = False) -> Callable[[Server, Any], None]:
    """Answers each request with these writes."""

    def serve(server: Server, connection: Any) -> None:
        while server.hear(connection):
            for piece in pieces:
                connection.sendall(piece)
            if not keep:
                return

    return serve


@pytest.fixture(params=["blocking", "asyncio"])
def ask(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The text of a streamed answer, or with stream=False of a whole one."""
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)

    def ask(url: str, *, stream: bool = True, content: str = "Hello", **more: Any) -> str:
        options: dict[str, Any] = {"api_base": url, "api_key": "k" * 20, "max_retries": 0, "timeout": 5} | more
        options |= {"messages": [{"role": "user", "content": content}], "transport": "native"}
        if request.param == "blocking":
            if stream:
                return "".join(completion("openai/any", stream=True, **options).text())
            return str(completion("openai/any", **options).choices[0].message.content)

        async def main() -> str:
            if stream:
                return "".join(
                    [text async for text in (await acompletion("openai/any", stream=True, **options)).text()]
                )
            return str((await acompletion("openai/any", **options)).choices[0].message.content)

        return asyncio.run(main())

    return ask


# Framing --------------------------------------------------------------------------------------------------------------


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end


@pytest.mark.parametrize(
    "answer",
    [
        WHOLE,
        HEAD + b"\r\n" + BODY,  # up to the end of the connection
        HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunked(BODY),
        HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunked(BODY[:7], BODY[7:], end=b"0;last\r\nTrailer: x\r\n\r\n"),
        HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunked(*(bytes([byte]) for byte in BODY)),
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + WHOLE,
        WHOLE.replace(b"HTTP/1.1 200 OK", b"HTTP/1.0 200 "),
    ],
    ids=["length", "close", "chunked", "trailers", "byte-chunks", "1xx", "1.0"],
)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_every_framing_however_it_is_cut(ask: Any, start: Start, answer: bytes, size: int) -> None:
    pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
    assert ask(start(says(*pieces)).url) == "Hi"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n", "no HTTP response"),
        (HEAD + b"x: " + b"y" * 200_000 + b"\r\n\r\n", "head is over"),
        (HEAD + b"".join(b"x-%d: y\r\n" % number for number in range(300)) + b"\r\n", "more than 256 headers"),
        (HEAD + b"content-length: 5, 6\r\n\r\nHello", "content-length"),
        (HEAD + b"transfer-encoding: gzip\r\n\r\n", "transfer-encoding"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\nxyz\r\n", "a chunk must begin with its size"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "switches protocols"),
        (b"", "without an answer"),
    ],
)
def test_what_is_no_answer_is_named(ask: Any, start: Start, answer: bytes, words: str) -> None:
    server = start(says(answer))
    with pytest.raises(APIConnectionError, match=words) as caught:
        ask(server.url)
    assert caught.value.code is None


def test_a_body_cut_short_is_no_answer(ask: Any, start: Start) -> None:
    server = start(says(WHOLE.replace(b"data: [DONE]\n\n", b"").replace(b'"stop"', b"null  ")))
    with pytest.raises(APIConnectionError, match=f"127.0.0.1:{server.port} closed the connection in the middle"):
        ask(server.url)


def deflated(data: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-15)
    return squeeze.compress(data) + squeeze.flush()


@pytest.mark.parametrize(
    ("coding", "code"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", deflated), ("identity", bytes)],
)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_codings_are_undone(ask: Any, start: Start, coding: str, code: Any, size: int) -> None:
    body = code(JSON)
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\ncontent-length: {len(body)}\r\n\r\n"
    server = start(says(head.encode(), *(body[at : at + size] for at in range(0, len(body), size))))
    assert ask(server.url, stream=False) == "Hi"
    assert b"accept-encoding: gzip, deflate, br, zstd" in server.heads[0]


def test_a_coding_that_is_none_is_refused(ask: Any, start: Start) -> None:
    server = start(says(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\nHello"))
    with pytest.raises(APIResponseValidationError, match="decompressed: gzip"):
        ask(server.url, stream=False)


# Connections ----------------------------------------------------------------------------------------------------------


def in_a_row(url: str, count: int) -> list[str]:
    """Streams one after the other in one loop."""

    async def main() -> list[str]:
        options: dict[str, Any] = {"api_base": url, "api_key": "k", "max_retries": 0, "timeout": 5, "stream": True}
        return [
            "".join([t async for t in (await acompletion("openai/x", MESSAGES, **options)).text()])
            for _ in range(count)
        ]

    return asyncio.run(main())


def test_a_connection_is_used_again(start: Start) -> None:
    server = start(says(WHOLE, keep=True))
    assert in_a_row(server.url, 5) == ["Hi"] * 5
    assert server.met == 1


@pytest.mark.parametrize("answer", [WHOLE + b"more", WHOLE.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)])
def test_a_connection_that_cannot_be_used_again_is_not(start: Start, answer: bytes) -> None:
    server = start(says(answer, keep=True))
    assert in_a_row(server.url, 3) == ["Hi"] * 3
    assert server.met == 3


def test_a_connection_closed_at_its_second_use_is_replaced_once(start: Start) -> None:
    def serve(server: Server, connection: Any) -> None:
        server.hear(connection)
        connection.sendall(WHOLE)
        if server.met == 1:
            server.hear(connection)  # the second request is heard and not answered

    server = start(serve)
    assert in_a_row(server.url, 2) == ["Hi"] * 2
    assert (server.met, len(server.heads)) == (2, 3)


def test_an_answer_that_has_begun_is_not_asked_for_again(start: Start) -> None:
    def serve(server: Server, connection: Any) -> None:
        server.hear(connection)
        connection.sendall(WHOLE)
        server.hear(connection)
        connection.sendall(HEAD[:20])

    server = start(serve)
    with pytest.raises(APIConnectionError, match="without an answer"):
        in_a_row(server.url, 2)
    assert server.met == 1


def test_an_answer_before_the_request_is_all_sent(ask: Any, start: Start) -> None:
    def serve(server: Server, connection: Any) -> None:
        connection.recv(1000)
        body = b'{"error":{"message":"too much","code":"large"}}'
        connection.sendall(b"HTTP/1.1 413 Large\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    with pytest.raises(BadRequestError, match="too much") as caught:
        ask(start(serve).url, content="x" * 20_000_000)
    assert caught.value.status_code == 413


@pytest.mark.parametrize("header", ["x-bad: a\r\nx: b", "x\ny"])
def test_no_header_is_smuggled(ask: Any, start: Start, header: str) -> None:
    name, _, value = header.partition(": ")
    server = start(says(WHOLE))
    with pytest.raises(BadRequestError, match="header"):
        ask(server.url, extra_headers={name: value})
    assert server.met == 0


# Proxies --------------------------------------------------------------------------------------------------------------


def relay(one: Any, other: Any) -> None:
    def pump(source: Any, sink: Any) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=pump, args=(other, one), daemon=True)
    back.start()
    pump(one, other)
    back.join()


def http_proxy(credentials: str | None = None, status: bytes = b"200 OK") -> Callable[[Server, Any], None]:
    def serve(server: Server, connection: Any) -> None:
        line, *_ = (head := server.hear(connection)).split(b"\r\n")
        method, target, _ = line.split(b" ")
        if credentials and b"Basic " + base64.b64encode(credentials.encode()) not in head:
            connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
        elif method != b"CONNECT":
            connection.sendall(WHOLE)  # as the server that was named
        elif status != b"200 OK":
            connection.sendall(b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n" % status)
        else:
            host, _, port = target.decode().rpartition(":")
            with socket.create_connection((host, int(port))) as server_side:
                connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                relay(connection, server_side)

    return serve


def socks_proxy(credentials: tuple[bytes, bytes] | None = None, reply: int = 0) -> Callable[[Server, Any], None]:
    def exactly(connection: Any, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += connection.recv(count - len(data))
        return data

    def serve(server: Server, connection: Any) -> None:
        methods = exactly(connection, exactly(connection, 2)[1])
        if credentials is None:
            connection.sendall(b"\x05\x00")
        elif 2 not in methods:
            connection.sendall(b"\x05\xff")
            return
        else:
            connection.sendall(b"\x05\x02")
            name = exactly(connection, exactly(connection, 2)[1])
            password = exactly(connection, exactly(connection, 1)[0])
            connection.sendall(b"\x01\x00" if (name, password) == credentials else b"\x01\x01")
        kind = exactly(connection, 4)[3]
        host = exactly(connection, 4 if kind == 1 else exactly(connection, 1)[0])
        port = int.from_bytes(exactly(connection, 2))
        server.heads.append(host)
        connection.sendall(bytes([5, reply, 0, 1, 0, 0, 0, 0, 0, 0]))
        if reply == 0:
            name_or_address = socket.inet_ntoa(host) if kind == 1 else host.decode()
            with socket.create_connection((name_or_address, port)) as server_side:
                relay(connection, server_side)

    return serve


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def bundle(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_through_an_http_proxy(ask: Any, start: Start, context: Any, bundle: Path, scheme: str) -> None:
    server = start(says(WHOLE), context)
    proxy = start(http_proxy("me:p@ss"), context if scheme == "https" else None)
    place = f"{scheme}://me:p%40ss@127.0.0.1:{proxy.port}"
    assert ask(server.url, proxy=place, verify=str(bundle)) == "Hi"
    assert proxy.heads[0].startswith(b"CONNECT 127.0.0.1:%d HTTP/1.1" % server.port)
    assert b"authorization: Bearer" in server.heads[0]
    assert b"Bearer" not in proxy.heads[0]


def test_plain_requests_are_relayed_whole(ask: Any, start: Start) -> None:
    proxy = start(http_proxy("me:pass"))
    assert ask("http://far.example/v1", proxy=f"http://me:pass@127.0.0.1:{proxy.port}") == "Hi"
    assert proxy.heads[0].startswith(b"POST http://far.example/v1/chat/completions HTTP/1.1\r\nhost: far.example\r\n")


def test_a_proxy_that_refuses_says_so(ask: Any, start: Start, context: Any, bundle: Path) -> None:
    for serve, words in [
        (http_proxy("me:pass"), "wants some credentials"),
        (http_proxy(status=b"403 Forbidden"), "does not connect to 127.0.0.1:.*403 Forbidden"),
        (says(b"nonsense\r\n\r\n"), "is no HTTP proxy"),
        (says(b""), "closed the connection"),
    ]:
        proxy = start(serve)
        with pytest.raises(APIConnectionError, match=f"the proxy 127.0.0.1:{proxy.port} {words}"):
            ask("https://127.0.0.1:9/v1", proxy=f"http://127.0.0.1:{proxy.port}", verify=str(bundle))


def test_through_a_socks_proxy(ask: Any, start: Start, context: Any, bundle: Path) -> None:
    server = start(says(WHOLE), context)
    proxy = start(socks_proxy((b"me", b"pass")))
    for scheme, host in [("socks5", "127.0.0.1"), ("socks5h", "localhost")]:
        place = f"{scheme}://me:pass@127.0.0.1:{proxy.port}"
        assert ask(f"https://{host}:{server.port}/v1", proxy=place, verify=str(bundle)) == "Hi"
    assert proxy.heads == [b"\x7f\x00\x00\x01", b"localhost"]  # names are the proxy's to resolve
    for serve, words in [
        (socks_proxy((b"me", b"other")), "does not accept these credentials"),
        (socks_proxy(reply=5), "does not connect to 127.0.0.1:9: connection refused"),
    ]:
        place = f"socks5://me:pass@127.0.0.1:{start(serve).port}"
        with pytest.raises(APIConnectionError, match=words):
            ask("http://127.0.0.1:9/v1", proxy=place)


def test_a_proxy_of_no_kind_is_refused(ask: Any) -> None:
    with pytest.raises(BadRequestError, match="socks4:// is none of") as caught:
        ask("http://127.0.0.1:9/v1", proxy="socks4://127.0.0.1")
    assert caught.value.param == "proxy"


@pytest.mark.parametrize(
    ("exempt", "direct"),
    [("", False), ("other.example", False), ("127.0.0.1", True), ("*", True), ("127.0.0.0/8", True), ("a,b", False)],
)
def test_the_environment_names_proxies(
    ask: Any, start: Start, monkeypatch: pytest.MonkeyPatch, exempt: str, direct: bool
) -> None:
    server, proxy = start(says(WHOLE)), start(http_proxy())
    monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.port}")
    monkeypatch.setenv("NO_PROXY", exempt)
    assert ask(server.url) == "Hi"
    assert (server.met, proxy.met) == ((1, 0) if direct else (0, 1))


# Trust ----------------------------------------------------------------------------------------------------------------


def test_a_client_certificate(ask: Any, start: Start, authority: trustme.CA, bundle: Path, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    server = start(says(WHOLE), context)
    mine = authority.issue_cert("me@example.org")
    both = tmp_path / "both.pem"
    mine.private_key_and_cert_chain_pem.write_to_path(str(both))
    assert ask(server.url, verify=bundle, cert=str(both)) == "Hi"
    with pytest.raises(APIConnectionError):
        ask(server.url, verify=bundle)


def test_the_environment_names_whom_to_trust(
    ask: Any, start: Start, context: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(says(WHOLE), context)
    for name, place in [("SSL_CERT_FILE", bundle), ("SSL_CERT_DIR", bundle.parent)]:
        with monkeypatch.context() as patch:
            patch.setenv(name, str(place))
            assert ask(server.url) == "Hi"
    with pytest.raises(APIConnectionError) as caught:
        ask(server.url)
    assert caught.value.code == "tls"


def test_a_machine_without_authorities_trusts_those_that_come_along(monkeypatch: pytest.MonkeyPatch) -> None:
    trusted = []
    monkeypatch.setattr(native, "STORES", ())
    monkeypatch.setattr(native, "Trust", lambda paths, **_: trusted.append(paths))
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    native.trust(True, None, None, None)
    assert trusted == [[certifi.where()]]


def test_a_file_that_holds_no_certificate_is_named(ask: Any, tmp_path: Path) -> None:
    (tmp_path / "bundle.pem").write_text("nothing")
    with pytest.raises(BadRequestError, match=r"bundle\.pem.*PEM"):
        ask("https://127.0.0.1:9/v1", verify=str(tmp_path / "bundle.pem"))


def test_no_more_files(up: Upstream) -> None:
    """In a process of its own, whose limit is lowered."""
    script = f"""
import resource
from penstock import APIConnectionError, completion
options = {{"api_base": "{up.base_url}", "api_key": "k", "transport": "native", "max_retries": 0}}
messages = [{{"role": "user", "content": "Hello"}}]
completion("openai/hello", messages, **options)
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
held = []
try:
    while len(held) < 60:
        held.append(completion("openai/hello?stall=2", messages, stream=True, **options))
except APIConnectionError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert "ulimit -n" in done.stdout, done.stderr


# What chooses it ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"verify": ssl.create_default_context()}, "verify=SSLContext"),
        ({"proxy": httpx.Proxy("http://127.0.0.1")}, "proxy=Proxy"),
        ({"cert": ("a", "b", "password")}, "password"),
        ({"client": httpx.Client()}, "client"),
    ],
)
def test_what_the_engine_cannot_do_is_named(options: Any, words: str) -> None:
    with pytest.raises(BadRequestError, match=words) as caught:
        completion("openai/any", MESSAGES, api_key="k", transport="native", **options)
    assert caught.value.param == "transport"


def test_httpx_can_be_chosen(up: Upstream, by: str) -> None:
    for transport in ("native", "httpx"):
        completion("openai/hello", MESSAGES, api_base=up.base_url, api_key="k", transport=transport)
    agents = [exchange["headers"].get("connection") for exchange in up.stats()["requests"]]
    assert agents == [None if by == "native" else "keep-alive", "keep-alive"]  # the engine leaves the default unsaid


# Loops, threads, processes --------------------------------------------------------------------------------------------


def test_many_loops_in_many_threads(start: Start) -> None:
    server = start(says(WHOLE, keep=True))
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.extend(in_a_row(server.url, 20))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["Hi"] * 160


def test_uvloop(up: Upstream) -> None:
    uvloop = pytest.importorskip("uvloop", reason="external: no uvloop")

    async def main() -> set[int]:
        async def one() -> int:
            options: Any = {"api_base": up.base_url, "api_key": "k", "stream": True}
            return len([chunk async for chunk in await acompletion("openai/long-100?delay=1", MESSAGES, **options)])

        return set(await asyncio.gather(*(one() for _ in range(20))))

    assert len(uvloop.run(main())) == 1


@pytest.fixture
def only() -> Iterator[Upstream]:
    """An upstream for tests that look into the engine itself: `up` would have them run over httpx too."""
    with Upstream() as upstream:
        yield upstream


@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
def test_a_loop_that_is_dropped_unclosed_is_collected_with_its_streams(only: Upstream) -> None:
    async def main() -> Any:
        options: Any = {"api_base": only.base_url, "api_key": "k", "stream": True}
        stream = await acompletion("openai/hello?stall=3", MESSAGES, **options)

        async def read() -> None:
            async for _ in stream:
                pass

        waiting = asyncio.create_task(read())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        return stream, waiting

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # the task is destroyed while it waits, and that is meant
    stream, waiting = loop.run_until_complete(main())
    remains = [weakref.ref(loop), weakref.ref(stream._flow.answer.transfer)]
    del loop, stream, waiting
    for _ in range(3):
        gc.collect()
    assert [each() for each in remains] == [None, None]
    deadline = time.monotonic() + 5
    while only.stats()["connections"]["open"] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert only.stats()["connections"]["open"] == 0


def test_a_task_is_cancelled_once_and_the_stream_goes_on(only: Upstream) -> None:
    async def main() -> list[int]:
        options: Any = {"api_base": only.base_url, "api_key": "k", "stream": True}
        stream = await acompletion("openai/long-20?delay=50", MESSAGES, **options)
        transfer: Any = stream._flow.answer.transfer
        await anext(stream)
        pull, counts = stream._flow.answer.chunks(stream._flow.decoder), []

        async def wait() -> Any:
            given = pull()
            return given if isinstance(given, list) else await given

        for _ in range(3):
            task = asyncio.create_task(wait())
            await asyncio.sleep(0)
            assert task.cancel("enough")
            assert task.cancel("enough")
            with pytest.raises(asyncio.CancelledError, match="enough"):
                await task
        while chunks := await wait():
            counts.append(len(chunks))
            if stream._flow.decoder.ended:
                break
        assert not transfer.cancel()  # nobody waits
        return counts

    counts = asyncio.run(main())
    assert sum(counts) >= 20
    uvloop = pytest.importorskip("uvloop", reason="external: no uvloop")
    assert sum(uvloop.run(main())) == sum(counts)


def test_two_tasks_do_not_wait_for_one_stream(only: Upstream) -> None:
    async def main() -> None:
        options: Any = {"api_base": only.base_url, "api_key": "k", "stream": True}
        stream = await acompletion("openai/hello?stall=3", MESSAGES, **options)
        pull = stream._flow.answer.chunks(stream._flow.decoder)

        async def wait() -> None:
            given: Any = []
            while given is not None:  # up to the stall, whose end is the connection's
                given = pull()
                if given is not None and type(given) is not list:
                    given = await given

        task = asyncio.create_task(wait())
        await asyncio.sleep(0.05)
        with pytest.raises(RuntimeError, match="one reader at a time"):
            await wait()
        stream._flow.answer.transfer.close()  # wakes the one that waits
        await task

    asyncio.run(main())


def one_call(url: str) -> None:
    options: Any = {"api_base": url, "api_key": "k", "stream": True, "timeout": 10}
    assert list(completion("openai/hello", MESSAGES, **options))
    asyncio.run(acompletion("openai/hello", MESSAGES, api_base=url, api_key="k"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_children_by_fork_have_connections_of_their_own(up: Upstream) -> None:
    one_call(up.base_url)
    options: Any = {"api_base": up.base_url, "api_key": "k", "stream": True}

    async def main() -> int:
        stream = await acompletion("openai/long-200?delay=2", MESSAGES, **options)
        await anext(stream)
        children = [multiprocessing.get_context("fork").Process(target=one_call, args=(up.base_url,)) for _ in range(2)]
        for child in children:
            child.start()
        chunks = len([chunk async for chunk in stream])
        for child in children:
            child.join()
            assert child.exitcode == 0
        return chunks

    assert asyncio.run(main()) >= 200


def test_a_stream_dropped_in_another_thread_is_closed(up: Upstream) -> None:
    async def main() -> None:
        options: Any = {"api_base": up.base_url, "api_key": "k", "stream": True}
        kept = [await acompletion("openai/long-200?delay=20", MESSAGES, **options)]
        thread = threading.Thread(target=kept.clear)
        thread.start()
        thread.join()
        await asyncio.sleep(0.05)
        up.wait(lambda stats: stats["requests"][-1]["closed_early"])

    asyncio.run(main())


# As a transport of httpx ----------------------------------------------------------------------------------------------


def test_httpx_over_the_engine(start: Start, context: Any, bundle: Path) -> None:
    body = gzip.compress(b"Hello")
    server = start(
        says(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body) + body), context
    )
    with httpx.Client(transport=HTTPTransport(verify=str(bundle))) as client:
        assert client.post(server.url, content=iter([b"a", b"b"])).text == "Hello"
        assert b"content-length: 2" in server.heads[0].lower()
        assert client.get(server.url, params={"q": "x y"}).text == "Hello"
        assert server.heads[1].startswith(b"GET /v1?q=x")
        with pytest.raises(httpx.ConnectError, match=r"no connection to 127\.0\.0\.1:9"):
            client.get("http://127.0.0.1:9/")

    async def main() -> None:
        async with httpx.AsyncClient(transport=AsyncHTTPTransport(verify=str(bundle))) as client:
            assert (await client.post(server.url, content=b"ab")).text == "Hello"
            async with client.stream("GET", server.url) as response:
                assert b"".join([data async for data in response.aiter_bytes()]) == b"Hello"
            with pytest.raises(httpx.ConnectError):
                await client.get("http://127.0.0.1:9/")

    asyncio.run(main())


def test_an_sdk_over_the_engine(up: Upstream) -> None:
    openai = pytest.importorskip("openai", reason="external: no openai")
    sdk = openai.OpenAI(base_url=up.base_url, api_key="k", http_client=httpx.Client(transport=HTTPTransport()))
    messages: Any = MESSAGES
    with sdk, sdk.chat.completions.create(model="hello", messages=messages, stream=True) as stream:
        assert [chunk for chunk in stream if chunk.choices]


def test_time_runs_out_over_the_engine_too(up: Upstream) -> None:
    body = {"model": "hello?first_byte=5", "messages": MESSAGES, "stream": True}
    with httpx.Client(transport=HTTPTransport(), timeout=0.2) as client, pytest.raises(httpx.ReadTimeout):
        client.post(f"{up.base_url}/chat/completions", json=body)


def test_what_comes_while_nobody_waits_is_not_lost(tmp_path: Path) -> None:
    """The end of a stream may be there before the reader has taken what stands before it."""
    words = [f"w{number} " for number in range(432)]
    choices: list[dict[str, Any]] = [{"index": 0, "delta": {"content": word}, "finish_reason": None} for word in words]
    choices[-1]["finish_reason"] = "stop"
    events = [b"data: " + orjson.dumps({"choices": [choice]}) + b"\n\n" for choice in choices]
    body = b"".join(events) + b"data: [DONE]\n\n"
    (tmp_path / "many.sse").write_bytes(body)

    async def read(base_url: str) -> set[str]:
        found = set()
        options: dict[str, Any] = {"api_base": base_url, "api_key": "k", "stream": True}
        for _ in range(400):
            stream = await acompletion("openai/many?chunk=4096", MESSAGES, **options)
            found.add("".join([chunk.choices[0].delta.content or "" async for chunk in stream]))
        return found

    with Upstream(bodies=tmp_path.iterdir()) as upstream:
        assert asyncio.run(read(upstream.base_url)) == {"".join(words)}


@pytest.mark.parametrize("silent", ["first_byte=20", "stall=3"], ids=["before the head", "in the stream"])
def test_a_signal_that_does_not_end_the_wait_is_heard_all_the_same(silent: str) -> None:
    # It may come in the moment before the wait begins. Here it comes without anything that could end one.
    interrupt = threading.Timer(0.3, _thread.interrupt_main)
    with Upstream() as upstream:
        begun = time.monotonic()
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            list(completion(f"openai/hello?{silent}", MESSAGES, stream=True, api_base=upstream.base_url, api_key="sk"))
        assert time.monotonic() - begun < 5
