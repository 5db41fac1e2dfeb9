"""HTTP/2: several streams on one connection, read by whichever of them waits. The other side is hypercorn."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import util
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from penstock import APIConnectionError, BadRequestError, Timeout, acompletion, completion, configured
from penstock._native import Transfer
from penstock.transport import AsyncHTTPTransport, HTTPTransport, Route, native

pytest.importorskip("hypercorn", reason="external: no hypercorn to speak HTTP/2 with")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="external: hypercorn takes no socket there")
MESSAGES = [{"role": "user", "content": "Hello"}]
SERVER = Path(__file__).parent.parent / "http2_upstream.py"


class Server:
    """hypercorn in a process of its own."""

    def __init__(self, limit: int, *files: Path) -> None:
        command = [sys.executable, str(SERVER), str(limit), *map(str, files)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.base_url = f"{'https' if files else 'http'}://127.0.0.1:{self.port}/v1"

    def options(self, **more: Any) -> dict[str, Any]:
        known: dict[str, Any] = {"api_base": self.base_url, "api_key": "k" * 20, "http2": "prior-knowledge"}
        return known | {"messages": MESSAGES, "max_retries": 0, "timeout": 20, "stream": True} | more

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    started: dict[Any, Server] = {}

    def get(limit: int = 100, *files: Path) -> Server:
        if (limit, files) not in started:
            started[limit, files] = Server(limit, *files)
        return started[limit, files]

    yield get
    for server in started.values():
        server.stop()


@pytest.fixture
def server(servers: Callable[..., Server]) -> Server:
    server: Server = servers()
    return server


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def secure(authority: trustme.CA, servers: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Server, str]:
    """A server within TLS, and whom to trust for it."""
    place = tmp_path_factory.mktemp("tls")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(str(place / "server.pem"))
    certificate.private_key_pem.write_to_path(str(place / "server.key"))
    authority.cert_pem.write_to_path(str(place / "authority.pem"))
    return servers(100, place / "server.pem", place / "server.key"), str(place / "authority.pem")


async def whole(model: str, options: dict[str, Any]) -> str:
    return "".join([text async for text in (await acompletion(model, **options)).text()])


def gathered(model: str, options: dict[str, Any], count: int) -> list[str]:
    async def main() -> list[str]:
        return await asyncio.gather(*(whole(model, options) for _ in range(count)))

    return asyncio.run(main())


def in_threads(model: str, options: dict[str, Any], count: int) -> list[str]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: "".join(completion(model, **options).text()), range(count)))


@pytest.mark.parametrize("run", [gathered, in_threads])
def test_streams_share_a_connection(server: Server, run: Any) -> None:
    texts = run("openai/drip-50", server.options(), 30)
    [text] = set(texts)  # one connection
    assert text.startswith("2 ")
    assert text.endswith(" 48 49")


@pytest.mark.parametrize("run", [gathered, in_threads])
def test_a_full_connection_gets_company(servers: Any, run: Any) -> None:
    texts = run("openai/drip-50", servers(4).options(), 20)
    assert all(text.endswith(" 48 49") for text in texts)
    each = [texts.count(text) for text in set(texts)]
    assert max(each) <= 4 or len(each) >= 5  # where one ends, another may take its place
    assert len(each) < 20


def test_uvloop(server: Server) -> None:
    uvloop = pytest.importorskip("uvloop", reason="external: no uvloop")

    async def main() -> list[str]:
        return await asyncio.gather(*(whole("openai/drip-50", server.options()) for _ in range(30)))

    assert len(set(uvloop.run(main()))) == 1


@pytest.mark.parametrize("transport", ["native", "httpx"])
def test_within_tls_the_server_chooses(secure: tuple[Server, str], transport: str) -> None:
    server, bundle = secure
    for http2, version in [(True, "2"), ("prior-knowledge", "2"), (False, "1.1"), (None, "1.1")]:
        options = server.options(http2=http2, verify=bundle, transport=transport)
        assert gathered("openai/hello", options, 1)[0].startswith(version)
        assert in_threads("openai/hello", options, 1)[0].startswith(version)


def test_without_tls_it_has_to_be_known(server: Server) -> None:
    assert gathered("openai/hello", server.options(http2=True), 1)[0].startswith("1.1")
    assert gathered("openai/hello", server.options(transport="httpx"), 1)[0].startswith("2 ")


def test_defaults_have_it_too(server: Server) -> None:
    options = server.options()
    del options["http2"]
    with configured(http2="prior-knowledge"):
        assert gathered("openai/hello", options, 1)[0].startswith("2 ")
    for wrong in ["yes", 2, "h2"]:
        with pytest.raises(BadRequestError, match=r"http2 must be True, False or 'prior-knowledge'") as caught:
            completion("openai/hello", **server.options(http2=wrong))
        assert caught.value.param == "http2"


def test_httpx_without_the_package_it_needs(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "h2" else find(name))
    with pytest.raises(BadRequestError, match="package h2") as caught:
        completion("openai/hello", **server.options(transport="httpx", cert=None, verify=True, http2=True))
    assert caught.value.param == "http2"


def test_as_a_transport_of_httpx(server: Server, secure: tuple[Server, str]) -> None:
    body = {"model": "hello", "stream": True}
    with httpx.Client(transport=HTTPTransport(http2="prior-knowledge")) as client:
        response = client.post(server.base_url, json=body)
        assert (response.http_version, response.text.count("data: ")) == ("HTTP/2", 6)
    with httpx.Client(transport=HTTPTransport()) as client:
        assert client.post(server.base_url, json=body).http_version == "HTTP/1.1"

    async def main() -> None:
        async with httpx.AsyncClient(transport=AsyncHTTPTransport(http2=True, verify=secure[1])) as client:
            responses = await asyncio.gather(*(client.post(secure[0].base_url, json=body) for _ in range(10)))
            assert {response.http_version for response in responses} == {"HTTP/2"}
            assert len({response.text.partition("2 ")[2][:5] for response in responses}) == 1

    asyncio.run(main())
    with pytest.raises(BadRequestError):
        HTTPTransport(http2="h2")


# Ends -----------------------------------------------------------------------------------------------------------------


def test_whoever_is_cancelled_takes_nobody_along(server: Server) -> None:
    async def main() -> None:
        kept = asyncio.ensure_future(whole("openai/drip-300", server.options()))
        for turn in range(300):
            task = asyncio.ensure_future(whole("openai/hold", server.options()))
            await asyncio.sleep(turn % 7 / 1000)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        text = await kept
        assert text.endswith(" 298 299")
        later = await whole("openai/hello", server.options())
        assert later.split()[1] == text.split()[1]  # the same connection

    asyncio.run(main())


def test_streams_that_are_left_take_nobody_along(server: Server) -> None:
    async def main() -> None:
        kept = await acompletion("openai/drip-300", **server.options())
        for way in range(60):
            stream = await acompletion("openai/hold", **server.options())
            if way % 3 == 0:
                await anext(stream)
            if way % 2 == 0:
                await stream.aclose()
            del stream
        assert len([text async for text in kept.text()]) == 301

    asyncio.run(main())
    gc.collect()
    kept = completion("openai/drip-300", **server.options())
    for way in range(60):
        stream = completion("openai/hold", **server.options())
        if way % 3 == 0:
            next(stream)
        if way % 2 == 0:
            stream.close()
        del stream
    assert len(list(kept.text())) == 301


def test_one_who_reads_slowly_holds_up_nobody(server: Server) -> None:
    async def main() -> None:
        slow = await acompletion("openai/drip-400", **server.options())
        await anext(slow)  # it has the connection in hand, and turns to something else
        started = time.monotonic()
        assert (await whole("openai/drip-20", server.options())).endswith(" 18 19")
        assert time.monotonic() - started < 15
        assert len([chunk async for chunk in slow]) == 401

    asyncio.run(main())
    slow = completion("openai/drip-400", **server.options())
    next(slow)
    assert in_threads("openai/drip-20", server.options(), 3)[0].endswith(" 18 19")
    assert len(list(slow)) == 401


def test_closed_by_another_thread_while_it_reads(server: Server) -> None:
    kept = completion("openai/drip-300", **server.options())
    stream = completion("openai/hold", **server.options())
    next(stream)
    closing = threading.Timer(0.2, stream.close)
    closing.start()
    started = time.monotonic()
    with suppress(APIConnectionError):
        list(stream)
    assert time.monotonic() - started < 10
    closing.join()
    assert len(list(kept.text())) == 301


def test_time_runs_out_for_one_alone(server: Server) -> None:
    async def main() -> None:
        kept = asyncio.ensure_future(whole("openai/drip-200", server.options()))
        stream = await acompletion("openai/hold", **server.options(timeout=0.2))
        with pytest.raises(Timeout):
            async for _ in stream:
                pass
        assert (await kept).endswith(" 198 199")

    asyncio.run(main())


def test_a_loop_that_ends_with_streams_open(server: Server) -> None:
    kept: list[Any] = []

    async def main() -> None:
        kept.extend([await acompletion("openai/hold", **server.options()) for _ in range(20)])
        tasks = [asyncio.ensure_future(anext(stream)) for stream in kept]
        await asyncio.sleep(0.05)
        del tasks

    asyncio.run(main())
    kept.clear()
    gc.collect()
    assert gathered("openai/hello", server.options(), 3)


def test_a_loop_that_is_dropped_with_streams_open(server: Server) -> None:
    kept: list[Any] = []

    async def main() -> None:
        kept.extend([await acompletion("openai/hold", **server.options()) for _ in range(3)])
        for stream in kept:
            await anext(stream)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    del loop
    kept.clear()
    gc.collect()
    assert gathered("openai/hello", server.options(), 3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="external: no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_leaves_the_connection_to_its_parent(server: Server) -> None:
    streams = [completion("openai/drip-100", **server.options()) for _ in range(4)]
    for stream in streams:
        next(stream)
    children = []
    for way in range(4):
        child = os.fork()
        if child == 0:
            status = 1
            with suppress(BaseException):
                if way % 2:
                    streams[0].close()
                del stream
                streams.clear()
                gc.collect()
                assert list(completion("openai/hello", **server.options()))
                status = 0
            os._exit(status)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    assert [len(list(stream)) for stream in streams] == [101] * 4


def test_the_version_is_known(server: Server) -> None:
    connections = native.blocking_connections(Route(http2="prior-knowledge"), server.base_url)
    transfer = Transfer(connections, server.base_url, [], b'{"model": "hello"}')
    assert transfer.version is None
    transfer.send()
    assert transfer.version == "HTTP/2"
    transfer.close()
