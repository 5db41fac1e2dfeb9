"""What goes wrong before there is an answer: names, ports and certificates."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
import trustme

from penstock import APIConnectionError, BadRequestError, completion, retry

MESSAGES = [{"role": "user", "content": "Hello"}]
BODY = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A server, over TLS if it has a certificate. `met` counts the connections."""

    def __init__(self, certificate: trustme.LeafCert | None) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.met = 0
        self.context: ssl.SSLContext | None = None
        if certificate is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(self.context)
        self.base_url = f"https://127.0.0.1:{self.server_port}/v1"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def finish_request(self, request: Any, address: Any) -> None:
        self.met += 1
        with suppress(OSError):  # the caller did not like the certificate
            if self.context is not None:
                request.settimeout(5)
                request = self.context.wrap_socket(request, server_side=True)
            super().finish_request(request, address)
            request.close()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def bundle(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="module")
def servers(authority: trustme.CA) -> Iterator[dict[str, Server]]:
    certificates = {
        "good": authority.issue_cert("127.0.0.1"),
        "misnamed": authority.issue_cert("elsewhere.example"),
        "expired": authority.issue_cert("127.0.0.1", not_after=datetime(2020, 1, 1, tzinfo=UTC)),
        "foreign": trustme.CA().issue_cert("127.0.0.1"),
        "plain": None,
    }
    running = {name: Server(certificate) for name, certificate in certificates.items()}
    yield running
    for server in running.values():
        server.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)


@pytest.mark.parametrize("kind", [str, Path, lambda path: ssl.create_default_context(cafile=path)])
def test_verify_names_whom_to_trust(world: Any, servers: dict[str, Server], bundle: Path, kind: Any) -> None:
    chunks, _ = world.stream("any", api_base=servers["good"].base_url, verify=kind(bundle))
    assert chunks[0].choices[0].delta.content == "Hi"


def test_without_verify_anything_is_trusted(world: Any, servers: dict[str, Server]) -> None:
    chunks, _ = world.stream("any", api_base=servers["misnamed"].base_url, verify=False)
    assert chunks


@pytest.mark.parametrize(
    ("name", "messages"),
    [
        ("misnamed", {"native": "certificate is not valid for 127.0.0.1", "httpx": "is not valid for '127.0.0.1'"}),
        ("expired", {"native": "certificate has expired", "httpx": "certificate has expired"}),
        ("foreign", {"native": "signed by nobody who is trusted", "httpx": "unable to get local issuer certificate"}),
        # WRONG_VERSION_NUMBER, or whatever the OpenSSL at hand calls it
        ("plain", {"native": "speaks no TLS", "httpx": "SSL"}),
    ],
)
def test_a_server_that_cannot_be_trusted_is_asked_once(
    world: Any, servers: dict[str, Server], bundle: Path, name: str, messages: dict[str, str]
) -> None:
    server = servers[name]
    server.met = 0
    raised = world.fails(APIConnectionError, "any", api_base=server.base_url, verify=bundle, max_retries=None)
    assert messages[world.by] in raised.message
    assert raised.message.startswith(f"no connection to 127.0.0.1:{server.server_port}: ")
    assert (raised.code, raised.status_code, raised.headers, raised.partial) == ("tls", None, None, None)
    assert server.met == 1


def test_a_fallback_may_have_a_better_certificate(world: Any, servers: dict[str, Server], bundle: Path) -> None:
    other = {"model": "openai/other", "api_base": servers["good"].base_url}
    chunks, stream = world.stream("any", api_base=servers["expired"].base_url, verify=bundle, fallbacks=[other])
    assert chunks
    assert [attempt.error is None for attempt in stream.attempts] == [False, True]


@pytest.mark.parametrize(
    ("base_url", "message"),
    [
        ("http://127.0.0.1:9/v1", "no connection to 127.0.0.1:9: "),
        ("http://nowhere.invalid/v1", "no connection to nowhere.invalid"),
    ],
)
def test_nobody_there(world: Any, hasty: None, base_url: str, message: str) -> None:
    raised = world.fails(APIConnectionError, "any", api_base=base_url, max_retries=None)
    assert raised.message.startswith(message)
    assert len(raised.message) > len(message)  # why, in the words of the system
    assert (raised.code, raised.status_code) == (None, None)
    assert [str(note)[:9] for note in getattr(raised, "__notes__", [])] == ["before it"] * 2  # two retries
    assert raised.provider == "openai"


# Under trio httpx leaves the generator of a request's body half-way when sending fails, and trio says so.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_http_to_a_port_that_speaks_tls(world: Any, servers: dict[str, Server]) -> None:
    raised = world.fails(APIConnectionError, "any", api_base=servers["good"].base_url.replace("https", "http"))
    assert raised.message


@pytest.mark.parametrize("name", ["verify", "cert"])
def test_a_file_that_is_not_there_is_named(world: Any, name: str) -> None:
    raised = world.fails(BadRequestError, "any", **{name: "/nowhere/bundle.pem"})
    assert raised.param == name
    assert "No such file" in raised.message


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_client_of_the_callers_own_has_its_own_trust(servers: dict[str, Server], bundle: Path, library: Any) -> None:
    options: Any = {"api_base": servers["good"].base_url, "api_key": "any", "stream": True}
    with library.Client(verify=ssl.create_default_context(cafile=bundle)) as client:
        assert list(completion("openai/any", MESSAGES, client=client, **options))
    with library.Client() as client, pytest.raises(APIConnectionError, match="certificate") as caught:
        completion("openai/any", MESSAGES, client=client, **options)
    assert caught.value.code == "tls"
