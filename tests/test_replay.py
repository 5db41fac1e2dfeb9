"""The local upstream: what it says on the wire, well and badly, and what it remembers of its callers."""

import gzip
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from penstock import completion
from penstock.replay import Upstream, upstream
from penstock.replay.cases import FAMILIES
from penstock.replay.faults import KEYS, Script

CASES = FAMILIES["chat"].cases
MESSAGES = [{"role": "user", "content": "How does water get to the turbine? 水は?"}]


@pytest.fixture
def up() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=10, trust_env=False) as shared:
        yield shared


def request(model: str, *, stream: bool = True, usage: bool = True, **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "messages": MESSAGES, **more}
    if stream:
        body["stream"] = True
        if usage:
            body["stream_options"] = {"include_usage": True}
    return body


def say(client: httpx.Client, up: Upstream, model: str, **options: Any) -> httpx.Response:
    return client.post(f"{up.base_url}/chat/completions", json=request(model, **options))


def events(body: bytes) -> list[Any]:
    """The data of each event, by the rules of server-sent events; [DONE] as it is."""
    found = []
    for block in re.split(rb"\r\n\r\n|\n\n", body):
        data = [
            line.removeprefix(b"data:").strip() for line in re.split(rb"\r\n|\n", block) if line.startswith(b"data:")
        ]
        if data:
            found.append(data[0] if data == [b"[DONE]"] else json.loads(b"\n".join(data)))
    return found


def chunks(body: bytes) -> list[dict[str, Any]]:
    return [event for event in events(body) if event != b"[DONE]"]


def text(body: bytes, index: int = 0, field: str = "content") -> str:
    deltas = [choice["delta"] for chunk in chunks(body) for choice in chunk["choices"] if choice["index"] == index]
    return "".join(delta.get(field) or "" for delta in deltas)


def usages(body: bytes) -> list[dict[str, Any]]:
    """Every usage object in the stream, in order, wherever it is."""
    found = []
    for chunk in chunks(body):
        found += [place["usage"] for place in (chunk.get("x_groq", {}), chunk) if place.get("usage")]
    return found


def raw(up: Upstream, model: str, seconds: float = 10, **options: Any) -> socket.socket:
    """A request on a bare socket, for what an HTTP client hides."""
    body = json.dumps(request(model, **options)).encode()
    sock = socket.create_connection(("127.0.0.1", up.port), timeout=seconds)
    sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    return sock


def read_all(sock: socket.socket) -> bytes:
    received = b""
    while piece := sock.recv(65536):
        received += piece
    return received


# ---- cases


@pytest.mark.parametrize("name", CASES)
def test_stream_and_single_body_say_the_same(up: Upstream, client: httpx.Client, name: str) -> None:
    streamed = say(client, up, name)
    single = say(client, up, name, stream=False)
    assert streamed.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert streamed.headers["transfer-encoding"] == "chunked"
    assert single.headers["content-type"] == "application/json"
    assert 500 < len(streamed.content) < 40_000
    for choice in single.json()["choices"]:
        message = choice["message"]
        if not isinstance(message.get("content"), list):
            assert text(streamed.content, choice["index"]) == (message.get("content") or "")
        assert choice["finish_reason"]
    reported = [usage for usage in usages(streamed.content) if any(usage.values())]
    assert single.json().get("usage") == (reported[-1] if reported else None)


@pytest.mark.parametrize("name", CASES)
def test_bytes_are_the_same_each_time(up: Upstream, client: httpx.Client, name: str) -> None:
    first = say(client, up, name).content
    assert say(client, up, f"chat/{name}").content == first
    assert say(client, up, f"{name}?chunk=1").content == first
    assert say(client, up, f"{name}?chunk=random:7").content == first
    assert say(client, up, f"{name}?chunk=1m").content == first


@pytest.mark.parametrize("name", CASES)
def test_the_client_reads_each_case_the_same_streamed_and_whole(up: Upstream, name: str) -> None:
    # Two readers that know nothing of each other: the client's, and the one that makes a case's response here.
    def ask(model: str) -> Any:
        return partial(completion, model=f"openai/{model}", messages=MESSAGES, api_base=up.base_url)

    whole = ask(name)().model_dump()
    for script in ("", "?chunk=random:5", "?gzip"):
        stream = ask(name + script)(stream=True, stream_options={"include_usage": True})
        *_, last = stream
        streamed = stream.collect().model_dump()
        assert streamed["choices"] == whole["choices"]
        assert (last.choices, streamed.get("usage")) == ([], whole.get("usage"))


def test_usage_comes_in_a_chunk_of_its_own_if_asked_for(up: Upstream, client: httpx.Client) -> None:
    *others, last, done = events(say(client, up, "hello").content)
    assert done == b"[DONE]"
    assert last["choices"] == []
    assert last["usage"]["prompt_tokens"] == 19
    assert all(chunk["usage"] is None for chunk in others)
    assert all("usage" not in chunk for chunk in chunks(say(client, up, "hello", usage=False).content))


@pytest.mark.parametrize(
    ("name", "asked", "unasked"),
    [
        ("hello", 1, 0),
        ("reasoning", 1, 1),
        ("tools-whole", 1, 1),
        ("content-parts", 1, 1),
        ("usage-thrice", 3, 2),
        ("usage-after-finish", 1, 1),
        ("usage-zeros-last", 3, 1),
        ("no-usage", 0, 0),
    ],
)
def test_usage_is_reported_as_often_as_such_servers_do(
    up: Upstream, client: httpx.Client, name: str, asked: int, unasked: int
) -> None:
    assert len(usages(say(client, up, name).content)) == asked
    assert len(usages(say(client, up, name, usage=False).content)) == unasked
    assert usages(say(client, up, f"{name}?nousage").content) == []


def test_usage_quirks(up: Upstream, client: httpx.Client) -> None:
    assert set(usages(say(client, up, "usage-zeros-last").content)[-1].values()) == {0}

    after = chunks(say(client, up, "usage-after-finish").content)
    assert [chunk["choices"][0]["finish_reason"] for chunk in after[-2:]] == ["stop", "stop"]
    assert "usage" not in after[-2]
    assert after[-1]["usage"]["prompt_tokens"] == 52

    every = say(client, up, "usage-every-chunk").content
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks(every)]
    assert counts == list(range(1, len(counts) + 1))
    assert b"\n\n" not in every.replace(b"\r\n", b"")
    assert every.isascii()
    assert b"[DONE]" not in every
    assert chunks(every)[-1]["choices"][0]["message"]["content"] == text(every)

    *nulls, known = usages(say(client, up, "usage-null-counts").content)
    assert {usage["completion_tokens"] for usage in nulls} == {None}
    assert known["completion_tokens"] == 24


def test_tool_calls_join_by_index(up: Upstream, client: httpx.Client) -> None:
    arguments = {0: "", 1: ""}
    for chunk in chunks(say(client, up, "parallel-tools", usage=False).content):
        for call in chunk["choices"][0]["delta"].get("tool_calls", ()):
            arguments[call["index"]] += call["function"]["arguments"]
    single = say(client, up, "parallel-tools", stream=False).json()["choices"][0]["message"]["tool_calls"]
    assert [json.loads(value)["city"] for value in arguments.values()] == ["東京", "Tromsø"]
    assert [call["function"]["arguments"] for call in single] == list(arguments.values())


def test_reasoning_comes_under_both_names(up: Upstream, client: httpx.Client) -> None:
    thought = text(say(client, up, "reasoning").content, field="reasoning_content")
    assert "圧力が下がると" in thought
    assert text(say(client, up, "reasoning-alias").content, field="reasoning") == thought
    details = say(client, up, "reasoning-alias", stream=False).json()["choices"][0]["message"]["reasoning_details"]
    assert details[0]["text"] == thought
    assert details[0]["signature"]


def test_long_has_as_many_deltas_as_its_name_says(up: Upstream, client: httpx.Client) -> None:
    for count in (0, 1, 12, 1000):
        body = say(client, up, f"long-{count}").content
        assert len(chunks(body)) == count + 3  # role, finish, usage
        assert usages(body)[0]["completion_tokens"] == count


def test_any_prefix_will_do(up: Upstream, client: httpx.Client) -> None:
    url = f"http://127.0.0.1:{up.port}/openai/deployments/x/chat/completions?api-version=2025-01-01"
    assert b"[DONE]" in client.post(url, json=request("hello")).content


def test_models_are_listed(up: Upstream, client: httpx.Client) -> None:
    listed = client.get(f"{up.base_url}/models").json()["data"]
    names = dict.fromkeys(name for family in FAMILIES.values() for name in family.cases)
    assert [row["id"] for row in listed] == list(names)
    assert all(row["description"] for row in listed)


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"{", 400, "parse"),
        (json.dumps({"model": "hello"}).encode(), 400, "messages"),
        (json.dumps({"model": "hello", "messages": []}).encode(), 400, "messages"),
        (json.dumps({"messages": MESSAGES, "stream_options": {"include_usage": True}}).encode(), 400, "stream_options"),
        (json.dumps({"model": "helo", "messages": MESSAGES}).encode(), 404, "hello"),
    ],
)
def test_wrong_requests_are_refused(up: Upstream, client: httpx.Client, body: bytes, status: int, word: str) -> None:
    answer = client.post(f"{up.base_url}/chat/completions", content=body)
    assert answer.status_code == status
    assert word in answer.json()["error"]["message"]


def test_unknown_paths_are_404(up: Upstream, client: httpx.Client) -> None:
    assert client.post(f"{up.base_url}/embeddings", json={}).status_code == 404
    assert client.get(f"{up.base_url}/chat/completions").status_code == 404


# ---- the grammar


def test_every_key_has_a_form_and_a_purpose() -> None:
    assert all(key["about"] for key in KEYS.values())
    assert Script.read("") == Script()


def test_header_wins_over_the_model(up: Upstream, client: httpx.Client) -> None:
    url = f"{up.base_url}/chat/completions"
    answer = client.post(url, json=request("hello?status=500&retry-after=1"), headers={"x-replay": "status=503"})
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("script", ["stauts=500", "status", "status=abc", "status=99", "chunk=0", "cut=later", "cut="])
def test_a_misspelled_script_is_refused(up: Upstream, client: httpx.Client, script: str) -> None:
    answer = say(client, up, f"hello?{script}")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "replay_script"
    assert script.partition("=")[0] in answer.json()["error"]["message"]


def test_places_count_from_start_end_and_finish() -> None:
    family = FAMILIES["chat"]
    frames = family.cases["hello"].frames(asked=True, usage=True, done=True)
    finish = len(frames) - 3
    for given, expected in [
        ("0", 0), ("3", 3), ("-1", len(frames) - 1), ("999", len(frames)), ("-999", 0),
        ("finish", finish), ("finish+1", finish + 1), ("finish-2", finish - 2), ("finish+99", len(frames)),
    ]:  # fmt: skip
        place = Script.read(f"cut={given}").cut
        assert place is not None
        assert place.after(frames, family) == expected


# ---- errors instead of an answer


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ("status=400", 400, "invalid_value"),
        ("code=context_length_exceeded", 400, "context_length_exceeded"),
        ("code=content_filter", 400, "content_filter"),
        ("status=401", 401, "invalid_api_key"),
        ("status=402", 402, "payment_required"),
        ("status=403", 403, "permission_denied"),
        ("status=404", 404, "model_not_found"),
        ("status=429", 429, "rate_limit_exceeded"),
        ("code=insufficient_quota", 429, "insufficient_quota"),
        ("status=500", 500, None),
        ("status=503", 503, "overloaded"),
        ("status=529", 529, "overloaded"),
        ("status=418", 418, None),
        ("status=400&code=own", 400, "own"),
    ],
)
def test_errors_have_the_body_that_servers_send(
    up: Upstream, client: httpx.Client, script: str, status: int, code: str | None
) -> None:
    answer = say(client, up, f"hello?{script}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["message"]
    assert set(error) == {"message", "type", "param", "code"}


def test_headers_about_retrying(up: Upstream, client: httpx.Client) -> None:
    answer = say(client, up, "hello?status=429&retry_after=0.5&retry_after_ms=250&should_retry=false")
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("0.5", "250")
    assert answer.headers["x-should-retry"] == "false"


def test_fail_stops_after_so_many(up: Upstream, client: httpx.Client) -> None:
    assert [say(client, up, "hello?fail=2").status_code for _ in range(4)] == [500, 500, 200, 200]
    assert [say(client, up, "hello?fail=1&tag=b").status_code for _ in range(2)] == [500, 200]
    assert [say(client, up, "hello?fail=1&status=429").status_code for _ in range(2)] == [429, 200]
    up.reset()
    assert say(client, up, "hello?fail=2").status_code == 500


def test_a_field_can_be_rejected(up: Upstream, client: httpx.Client) -> None:
    answer = say(client, up, "hello?rejects=stream_options")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "stream_options"
    assert say(client, up, "hello?rejects=stream_options&status=422").status_code == 422
    assert say(client, up, "hello?rejects=stream_options", usage=False).status_code == 200
    assert say(client, up, "hello?rejects=stream_options&status=422", usage=False).status_code == 200


def test_redirects_and_pages(up: Upstream, client: httpx.Client) -> None:
    moved = say(client, up, "hello?redirect=https%3A//example.org/a?b%26c")
    assert (moved.status_code, moved.headers["location"]) == (307, "https://example.org/a?b&c")
    assert say(client, up, "hello?redirect=/&status=301").status_code == 301
    page = say(client, up, "hello?html")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.text.startswith("<!DOCTYPE html>")
    assert say(client, up, "hello?html&status=502").status_code == 502


# ---- streams that are not what they should be


def test_stream_true_can_be_ignored(up: Upstream, client: httpx.Client) -> None:
    assert say(client, up, "hello?json").json() == say(client, up, "hello", stream=False).json()


def test_content_type_can_be_wrong(up: Upstream, client: httpx.Client) -> None:
    answer = say(client, up, "hello?content_type=text/plain;%20charset=latin-1")
    assert answer.headers["content-type"] == "text/plain; charset=latin-1"
    assert answer.content == say(client, up, "hello").content


def test_gzip_is_sent_event_by_event(up: Upstream, client: httpx.Client) -> None:
    plain = say(client, up, "hello").content
    answer = say(client, up, "hello?gzip")
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == plain
    assert say(client, up, "hello?gzip&chunk=random:1").content == plain
    with client.stream("POST", f"{up.base_url}/chat/completions", json=request("hello?gzip&stall=3")) as stalled:
        packed = next(stalled.iter_raw())
        assert packed[:2] == gzip.compress(b"")[:2]
    assert say(client, up, "hello?gzip", stream=False).json() == say(client, up, "hello", stream=False).json()


def test_done_can_be_missing(up: Upstream, client: httpx.Client) -> None:
    body = say(client, up, "hello").content
    assert say(client, up, "hello?nodone").content == body.removesuffix(b"data: [DONE]\n\n")


def test_malformed_breaks_one_event(up: Upstream, client: httpx.Client) -> None:
    good = say(client, up, "hello").content.split(b"\n\n")
    bad = say(client, up, "hello?malformed=3").content.split(b"\n\n")
    assert [at for at, (left, right) in enumerate(zip(good, bad, strict=True)) if left != right] == [3]
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(bad[3].removeprefix(b"data: "))
    with pytest.raises(ValueError, match="Expecting"):
        say(client, up, "hello?malformed=0", stream=False).json()


def test_errors_in_the_stream(up: Upstream, client: httpx.Client) -> None:
    *before, error, done = events(say(client, up, "hello?error=4").content)
    assert len(before) == 4
    assert error["error"]["code"] == "server_error"
    assert done == b"[DONE]"
    named = say(client, up, "hello?error_event=4&code=rate_limit_exceeded")
    assert named.status_code == 200
    assert named.content.count(b"event: error\ndata: ") == 1
    assert events(named.content)[-1]["error"]["code"] == "rate_limit_exceeded"
    assert len(events(named.content)) == 5
    assert b"[DONE]" not in say(client, up, "hello?error=4&nodone").content


def test_one_event_can_be_huge(up: Upstream, client: httpx.Client) -> None:
    body = say(client, up, "hello?event_bytes=2m").content
    assert text(body) == "x" * (2 << 20) + text(say(client, up, "hello").content)


def test_an_event_can_be_endless(up: Upstream) -> None:
    with raw(up, "hello?endless=1m") as sock:
        head, _, sent = read_all(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    body = b"".join(re.split(rb"(?:^|\r\n)[0-9a-f]+\r\n", sent)).removesuffix(b"\r\n")
    assert len(body) == 1 << 20
    assert b"\n" not in body


def test_the_last_bytes_can_be_missing(up: Upstream, client: httpx.Client) -> None:
    body = say(client, up, "hello").content
    assert say(client, up, "hello?trim=2").content == body[:-2]
    assert say(client, up, "hello?trim").content == body[:-1]


# ---- connections that break


@pytest.mark.parametrize("script", ["cut=0", "cut=5", "cut=finish", "cut=finish+1", "cut=-1", "cut_bytes=100"])
def test_a_cut_ends_without_the_last_chunk(up: Upstream, client: httpx.Client, script: str) -> None:
    body = say(client, up, "hello").content
    with raw(up, f"hello?{script}") as sock:
        received = read_all(sock)
    head, _, sent = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert not sent.endswith(b"0\r\n\r\n")
    pieces = b"".join(re.split(rb"(?:^|\r\n)[0-9a-f]+\r\n", sent)).removesuffix(b"\r\n")
    assert body.startswith(pieces)
    assert len(pieces) < len(body)
    assert (b'"finish_reason":"' in pieces) is (script in {"cut=finish+1", "cut=-1"})


def test_a_reset_is_a_reset(up: Upstream) -> None:
    with raw(up, "hello?reset=2") as sock, pytest.raises(ConnectionResetError):
        read_all(sock)
    with raw(up, "hello?reset=0", stream=False) as sock, pytest.raises(ConnectionResetError):
        read_all(sock)


def test_a_stall_keeps_the_connection(up: Upstream) -> None:
    with raw(up, "hello?stall=2", seconds=0.3) as sock:
        received = b""
        while received.count(b"data: ") < 2:
            received += sock.recv(65536)
        with pytest.raises(TimeoutError):
            sock.recv(65536)
        assert received.count(b"data: ") == 2
        assert up.stats()["connections"]["open"] == 1
    up.wait(lambda stats: stats["connections"]["open"] == 0)


def test_silence_after_the_headers(up: Upstream) -> None:
    with raw(up, "hello?silent", seconds=0.2) as sock:
        assert sock.recv(65536).endswith(b"\r\n\r\n")
        with pytest.raises(TimeoutError):
            sock.recv(65536)


def test_keepalives_while_nothing_else_is_sent(up: Upstream) -> None:
    with raw(up, "hello?stall=2&keepalive=20") as sock:
        received = b""
        while received.count(b": keep-alive\n\n") < 3:
            received += sock.recv(65536)
    assert received.index(b": keep-alive") > received.index(b"data: ")


def test_waits(up: Upstream, client: httpx.Client) -> None:
    for script, least in [
        ("first_byte=0.2&cut=1", 0.2),
        ("delay=10&cut=12", 0.12),
        ("delay=60&cut=2&keepalive=10", 0.12),
    ]:
        began = time.monotonic()
        with raw(up, f"hello?{script}") as sock:
            received = read_all(sock)
        assert least < time.monotonic() - began < least + 2
        assert (b": keep-alive" in received) is ("keepalive" in script)


# ---- what it remembers


def test_statistics_tell_what_was_asked(up: Upstream, client: httpx.Client) -> None:
    headers = {"authorization": "Bearer sk-secret", "api-key": "sk-other", "x-title": "here"}
    url = f"{up.base_url}/chat/completions?key=sk-third"
    answer = client.post(url, json=request("hello?tag=a", temperature=0.5), headers=headers)
    stats = up.wait(lambda stats: stats["requests"][0]["finished"])
    seen = stats["requests"][0]
    assert (seen["method"], seen["path"]) == ("POST", "/v1/chat/completions?key=...")
    assert (seen["model"], seen["script"], seen["status"]) == ("hello", "tag=a", 200)
    assert seen["body"]["temperature"] == 0.5
    assert seen["id"] == answer.headers["x-request-id"]
    assert seen["bytes"] == len(answer.content)
    assert seen["chunks"] == len(events(answer.content))
    assert seen["headers"]["x-title"] == "here"
    assert seen["headers"]["authorization"] == f"Bearer sha256:{sha256(b'sk-secret').hexdigest()[:12]}"
    assert "sk-" not in json.dumps(stats).replace(request("hello")["model"], "")
    assert stats["models"] == {
        "hello": {"requests": 1, "chunks": seen["chunks"], "bytes": seen["bytes"], "closed_early": 0}
    }


def test_statistics_over_http(up: Upstream, client: httpx.Client) -> None:
    say(client, up, "hello")
    stats = client.get(f"{up.base_url}/stats").json()
    assert [row["model"] for row in stats["requests"]] == ["hello"]
    assert client.delete(f"{up.base_url}/stats").json()["requests"] == []
    assert up.stats()["models"] == {}


def test_a_client_that_leaves_is_noticed_at_once(up: Upstream) -> None:
    with raw(up, "long-1000?delay=5") as sock:
        while b"data: " not in sock.recv(65536):
            pass
    began = time.monotonic()
    stats = up.wait(lambda stats: stats["requests"][0]["closed_early"])
    assert time.monotonic() - began < 1
    left = stats["requests"][0]
    assert left["finished"] is False
    assert 0 < left["chunks"] < 200
    assert 0 < left["seconds"] < 5
    assert stats["models"]["long-1000"]["closed_early"] == 1


def test_a_client_that_leaves_before_the_first_byte(up: Upstream) -> None:
    raw(up, "hello?first_byte=30").close()
    left = up.wait(lambda stats: stats["requests"] and stats["requests"][0]["closed_early"])["requests"][0]
    assert (left["status"], left["bytes"]) == (0, 0)


def test_a_cut_is_not_the_clients_doing(up: Upstream) -> None:
    with raw(up, "hello?cut=3") as sock:
        read_all(sock)
    row = up.wait(lambda stats: stats["connections"]["open"] == 0)["requests"][0]
    assert (row["finished"], row["closed_early"], row["chunks"]) == (True, False, 3)


def test_a_client_that_does_not_read_holds_the_writing_back(up: Upstream) -> None:
    with raw(up, "hello?event_bytes=64k&endless=256m") as sock:
        time.sleep(0.3)
        sent = up.stats()["requests"][0]["bytes"]
        assert sent < 64 << 20
        time.sleep(0.2)
        assert up.stats()["requests"][0]["bytes"] == sent
        assert sock.recv(100)


# ---- HTTP


def test_connections_are_kept(up: Upstream) -> None:
    with httpx.Client(trust_env=False) as own:
        for name in ("hello", "n2", "hello?status=500", "hello?gzip", "nope"):
            say(own, up, name)
        assert up.stats()["connections"] == {"opened": 1, "open": 1}
        say(own, up, "hello").close()
    up.wait(lambda stats: stats["connections"]["open"] == 0)


def test_chunked_and_announced_requests(up: Upstream, client: httpx.Client) -> None:
    body = json.dumps(request("hello")).encode()

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(body), 10):
            yield body[at : at + 10]

    assert b"[DONE]" in client.post(f"{up.base_url}/chat/completions", content=pieces()).content
    with socket.create_connection(("127.0.0.1", up.port), timeout=5) as sock:
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nexpect: 100-continue\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n" % len(body)
        )
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert read_all(sock).endswith(b"0\r\n\r\n")


def test_large_requests(up: Upstream, client: httpx.Client) -> None:
    answer = client.post(f"{up.base_url}/chat/completions", json=request("hello", user="u" * (5 << 20)))
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "junk", [b"\r\n\r\n", b"x" * 200_000, b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n", b"\x16\x03\x01"]
)
def test_junk_does_no_harm(up: Upstream, client: httpx.Client, junk: bytes) -> None:
    # It may hang up before it has read all of this.
    with socket.create_connection(("127.0.0.1", up.port), timeout=5) as sock, suppress(OSError):
        sock.sendall(junk)
        sock.shutdown(socket.SHUT_WR)
        read_all(sock)
    assert say(client, up, "hello").status_code == 200


def test_many_at_once(up: Upstream) -> None:
    sizes = []

    def one() -> None:
        with httpx.Client(trust_env=False) as own:
            sizes.append(len(say(own, up, "hello?delay=1").content))

    threads = [threading.Thread(target=one) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sizes) == 20
    assert len(set(sizes)) == 1


# ---- recorded bodies


def test_a_body_from_a_file_is_sent_as_it_is(tmp_path: Path, client: httpx.Client) -> None:
    body = b': hi\r\n\r\ndata: {"choices":[]}\r\n\r\ndata:[DONE]'
    (tmp_path / "odd.sse").write_bytes(body)
    (tmp_path / "hello.json").write_bytes(b'{"own": true}')
    (tmp_path / "lines.ndjson").write_bytes(b'{"a":1}\n{"b":2}\n')
    with Upstream(bodies=sorted(tmp_path.iterdir())) as up:
        answer = say(client, up, "odd")
        assert (answer.content, answer.headers["content-type"]) == (body, "text/event-stream; charset=utf-8")
        assert say(client, up, "odd", stream=False).content == body
        assert say(client, up, "hello").content == b'{"own": true}'
        assert say(client, up, "lines?trim=8&chunk=3").content == b'{"a":1}\n'
        with raw(up, "lines?cut=1") as sock:
            assert read_all(sock).endswith(b'8\r\n{"a":1}\n\r\n')
        ids = [row["id"] for row in client.get(f"{up.base_url}/models").json()["data"]]
        assert {"odd", "lines"} <= set(ids)


def test_a_recorded_event_stream_is_cut_between_its_messages(tmp_path: Path, client: httpx.Client) -> None:
    messages = FAMILIES["converse"].cases["hello"].frames(asked=True, usage=True, done=True)
    (tmp_path / "whole.eventstream").write_bytes(b"".join(messages))
    (tmp_path / "broken.eventstream").write_bytes(messages[0] + b"\xff\xff\xff\xffrest")
    asked = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
    with Upstream(bodies=tmp_path.iterdir()) as up:

        def answered(model: str) -> httpx.Response:
            return client.post(f"{up.base_url}/model/{quote(model, safe='')}/converse-stream", json=asked)

        whole = answered("whole")
        assert whole.headers["content-type"] == "application/vnd.amazon.eventstream"
        assert whole.content == b"".join(messages)
        assert answered("whole?error_event=2").content.startswith(b"".join(messages[:2]))
        assert up.stats()["requests"][0]["chunks"] == len(messages)
        assert answered("broken").content == messages[0] + b"\xff\xff\xff\xffrest"


def test_recordings_survive_any_cut_of_the_bytes(corpus: Path, client: httpx.Client) -> None:
    files = sorted((corpus / "streams" / "chat-completions").glob("*.sse"), key=lambda file: file.stat().st_size)[:40]
    with Upstream(bodies=files) as up:
        for file in files:
            assert say(client, up, file.stem).content == file.read_bytes()
            assert say(client, up, f"{file.stem}?chunk=random:3&gzip").content == file.read_bytes()


# ---- its life


def test_one_for_the_process() -> None:
    assert upstream() is upstream()
    assert upstream().base_url.startswith("http://127.0.0.1:")


def test_it_can_come_back_on_the_same_port(client: httpx.Client) -> None:
    up = Upstream().start()
    port = up.port
    say(client, up, "hello")
    up.stop()
    up.stop()
    with pytest.raises(httpx.HTTPError):
        say(client, up, "hello")
    assert up.stats()["models"]["hello"]["requests"] == 1
    with up:
        assert up.port == port
        assert say(client, up, "hello").status_code == 200


def test_stopping_ends_what_is_running() -> None:
    with Upstream() as up:
        sock = raw(up, "hello?silent")
        up.wait(lambda stats: stats["requests"] and stats["requests"][0]["status"] == 200)
    with sock:
        read_all(sock)
    assert up.stats()["connections"]["open"] == 0
    assert up.stats()["requests"][0]["closed_early"] is False


def test_a_taken_port_is_an_error(up: Upstream) -> None:
    with pytest.raises(OSError, match="in use"):
        Upstream(port=up.port).start()


def test_it_may_be_stopped_at_once() -> None:
    for _ in range(20):
        upstream = Upstream().start()
        upstream.stop()
        assert upstream.start().names()
        upstream.stop()


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_import_starts_nothing() -> None:
    code = "import threading, penstock.replay; print(threading.active_count())"
    assert run(code) == "1\n"


def test_exit_is_quiet_while_a_stream_is_running() -> None:
    code = """
import socket
from penstock.replay import upstream
up = upstream()
sock = socket.create_connection(("127.0.0.1", up.port))
body = b'{"model":"hello?stall=1","messages":[{}],"stream":true}'
sock.sendall(b"POST /v1/chat/completions HTTP/1.1\\r\\ncontent-length: %d\\r\\n\\r\\n%b" % (len(body), body))
sock.recv(10)
sock.close()
"""
    assert run(code) == ""


@pytest.mark.skipif(not hasattr(sys, "getswitchinterval") or sys.platform == "win32", reason="external: no fork here")
def test_a_forked_child_has_its_own() -> None:
    code = """
import os, sys, urllib.request, warnings
warnings.simplefilter("ignore")  # that it has threads when it forks is the point
from penstock.replay import upstream
parent = upstream()
if (child := os.fork()) == 0:
    own = upstream()
    assert own is not parent and own.port != parent.port
    assert b'"hello"' in urllib.request.urlopen(own.base_url + "/models").read()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert b'"hello"' in urllib.request.urlopen(parent.base_url + "/models").read()
print(parent.stats()["connections"]["opened"])
"""
    assert run(code) == "1\n"
