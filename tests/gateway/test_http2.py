"""The gateway's own connections by HTTP/2: streams of many clients and threads on one. The other side is hypercorn."""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

if sys.platform == "win32":
    pytest.skip("the gateway is for Unix", allow_module_level=True)
pytest.importorskip("hypercorn", reason="external: no hypercorn to speak HTTP/2 with")

from penstock._native import Gateway

MESSAGES = [{"role": "user", "content": "hi"}]
SERVER = Path(__file__).parent.parent / "http2_upstream.py"


class Proxy:
    """hypercorn in a process of its own, and a gateway in front of it."""

    def __init__(self, limit: int = 100, route: dict[str, Any] | None = None, *files: Path, workers: int = 2) -> None:
        command = [sys.executable, str(SERVER), str(limit), *map(str, files)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        upstream = (
            f"{'https' if files else 'http'}://127.0.0.1:{int(self.process.stdout.readline())}/v1/chat/completions"
        )
        deployment = {
            "id": "a",
            "model": "*",
            "provider": "raw",
            "family": "chat",
            "plain": {"url": upstream, "headers": [], "stream_options": True},
            "route": {"http2": "prior-knowledge", **(route or {})},
        }
        tables = {"groups": [{"name": "*", "deployments": ["a"], "max_retries": 0}], "deployments": [deployment]}
        self.gateway = Gateway(json.dumps(tables).encode())
        self.port = self.gateway.listen("127.0.0.1", 0, workers=workers)
        self.url = f"http://127.0.0.1:{self.port}/v1/chat/completions"

    def close(self) -> None:
        self.gateway.close()
        self.process.kill()
        self.process.communicate()

    def ask(self, model: str, *, stream: bool = True) -> str:
        """The text of an answer, which must be whole."""
        body = {"model": model, "messages": MESSAGES, "stream": stream}
        response = httpx.post(self.url, json=body, timeout=60, trust_env=False)
        assert response.status_code == 200, response.text
        if not stream:
            return str(response.json()["choices"][0]["message"]["content"])
        assert response.text.endswith("data: [DONE]\n\n"), response.text[-300:]
        return "".join(re.findall(r'"content":"([^"]*)"', response.text))

    def many(self, model: str, count: int) -> list[str]:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(self.ask, [model] * count))

    def open(self, model: str, receive: int = 8192) -> socket.socket:
        """A client that says what it wants, and reads nothing."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        sock.connect(("127.0.0.1", self.port))
        body = json.dumps({"model": model, "messages": MESSAGES, "stream": True}).encode()
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        return sock


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with closing(Proxy()) as proxy:
        yield proxy


def test_streams_share_a_connection(proxy: Proxy) -> None:
    [text] = set(proxy.many("drip-50", 30))
    assert text.startswith("2 ")
    assert text.endswith(" 48 49")


@pytest.mark.parametrize("workers", [1, 3])
def test_a_full_connection_gets_company(workers: int) -> None:
    with closing(Proxy(4, workers=workers)) as proxy:
        texts = proxy.many("drip-50", 20)
        assert all(text.endswith(" 48 49") for text in texts)
        assert 1 < len(set(texts)) < 20


def test_answers_that_do_not_stream(proxy: Proxy) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: proxy.ask("any", stream=False), range(16))) == {"x" * 300_000}


@pytest.mark.parametrize("workers", [1, 2])
def test_who_does_not_read_holds_up_nobody_else(workers: int) -> None:
    with closing(Proxy(workers=workers)) as proxy:
        connections = {proxy.ask("drip-3").split()[1]}
        idle = [proxy.open("flood-20000") for _ in range(5)]
        time.sleep(1)
        for _ in range(3):
            texts = proxy.many("drip-50", 8)
            assert all(text.endswith(" 48 49") for text in texts)
            connections |= {text.split()[1] for text in texts}
        assert len(connections) == 1
        for sock in idle:
            sock.close()
        assert proxy.ask("drip-3").endswith(" 2")


def test_who_goes_leaves_the_others_be(proxy: Proxy) -> None:
    with ThreadPoolExecutor(10) as pool:
        staying = [pool.submit(proxy.ask, "drip-300") for _ in range(8)]
        for _ in range(40):
            sock = proxy.open("drip-300", 1 << 16)
            sock.recv(1000)
            sock.close()
        assert all(each.result().endswith(" 298 299") for each in staying)
        assert len({each.result().split()[1] for each in staying}) == 1


@pytest.mark.parametrize(("http2", "version"), [("negotiated", "2"), ("prior-knowledge", "2"), ("never", "1.1")])
def test_within_tls_the_server_chooses(http2: str, version: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = tmp_path / "server.pem", tmp_path / "server.key"
    certificate.cert_chain_pems[0].write_to_path(str(files[0]))
    certificate.private_key_pem.write_to_path(str(files[1]))
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    with closing(Proxy(100, {"http2": http2, "verify": [str(tmp_path / "authority.pem")]}, *files)) as proxy:
        texts = proxy.many("drip-50", 10)
        assert all(text.startswith(f"{version} ") and text.endswith(" 48 49") for text in texts)
        assert len(set(texts)) == (1 if version == "2" else 10)


def test_without_tls_it_has_to_be_known() -> None:
    with closing(Proxy(100, {"http2": "negotiated"})) as proxy:
        assert proxy.ask("drip-3").startswith("1.1 ")
