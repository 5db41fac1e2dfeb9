"""Predictions: an answer in two requests, the second one at the place that the first one's answer tells."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock import (
    APIConnectionError,
    APIResponseValidationError,
    AuthenticationError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
    Timeout,
    acompletion,
    completion,
)
from penstock.replay import Upstream
from penstock.replay.cases.chat import HELLO
from penstock.replay.cases.predictions import CASES

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
STREAM = "https://stream.replicate.com/v1/streams/abc"
EVENTS = b"".join(CASES["hello"].frames(asked=False, usage=False, done=True))
WORLDS = pytest.mark.parametrize("world", ["blocking", "asyncio"])


def announced(url: str = STREAM) -> httpx.Response:
    return httpx.Response(201, json={"id": "p", "status": "starting", "output": None, "urls": {"stream": url}})


def events(body: bytes = EVENTS) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)


def call(world: str, *answers: httpx.Response, model: str = "meta/llama", **options: Any) -> tuple[Any, Any]:
    """The requests of a call, and what it gave: the chunks of a stream, or the response."""
    requests: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return answers[len(requests) - 1]

    transport = httpx.MockTransport(respond)
    call: dict[str, Any] = {"api_key": "r8_0123456789", "max_retries": 0, **options}

    async def main() -> Any:
        async with httpx.AsyncClient(transport=transport) as client:
            given = await acompletion(f"replicate/{model}", MESSAGES, client=client, **call)
            return [chunk async for chunk in given] if options.get("stream") else given

    if world == "asyncio":
        return requests, asyncio.run(main())
    with httpx.Client(transport=transport) as client:
        given = completion(f"replicate/{model}", MESSAGES, client=client, **call)
        return requests, list(given) if options.get("stream") else given


def said(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@WORLDS
def test_a_stream_in_two_requests(world: str) -> None:
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    (first, second), chunks = call(world, announced(), events(), **options, max_tokens=9, stop=["a", "b"], seed=1)
    assert (first.method, str(first.url)) == ("POST", "https://api.replicate.com/v1/models/meta/llama/predictions")
    prompt = "Be brief.\n\nUser: Hi\n\nAssistant:"
    given = {"max_tokens": 9, "stop_sequences": "a,b", "seed": 1}
    assert json.loads(first.content) == {"input": {"prompt": prompt, **given}, "stream": True}
    assert (second.method, str(second.url), second.content) == ("GET", STREAM, b"")
    assert second.headers["accept"] == "text/event-stream"
    assert second.headers["authorization"] == "Bearer r8_0123456789"
    assert "content-type" not in second.headers
    *chunks, last = chunks
    assert said(chunks) == HELLO
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
    assert (last.choices, last.usage) == ([], None)


@WORLDS
def test_a_call_that_does_not_stream_gets_all_of_it(world: str) -> None:
    requests, whole = call(world, announced(), events(), keep_partial=False)
    assert [request.method for request in requests] == ["POST", "GET"]
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (HELLO, "stop")
    assert whole.usage is None
    assert whole.model == "meta/llama"


def test_other_places_to_begin() -> None:
    version = "0" * 64
    (first, _), _ = call("blocking", announced(), events(), model=f"meta/llama:{version}")
    assert first.url.path == "/v1/predictions"
    assert json.loads(first.content)["version"] == version
    (first, _), _ = call("blocking", announced(), events(), model="deployments/me/mine")
    assert first.url.path == "/v1/deployments/me/mine/predictions"
    assert "version" not in json.loads(first.content)


@WORLDS
def test_an_answer_that_is_there_already_needs_no_second_request(world: str) -> None:
    document = httpx.Response(201, content=CASES["hello"].single(usage=True))
    requests, whole = call(world, document)
    assert (len(requests), whole.choices[0].message.content, whole.usage.total_tokens) == (1, HELLO, 106)
    document = httpx.Response(201, content=CASES["hello"].single(usage=True))
    _, chunks = call(world, document, stream=True, stream_options={"include_usage": True})
    assert (said(chunks), chunks[-1].usage.total_tokens) == (HELLO, 106)
    failed = httpx.Response(201, json={"status": "failed", "error": "no GPU", "output": None, "urls": {}})
    with pytest.raises(InternalServerError, match="no GPU"):
        call(world, failed)


# Where the key goes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "stream", "goes"),
    [
        (None, "https://streaming-api.svc.us.c.replicate.net/v1/streams/abc", True),
        (None, "https://stream.example/v1/streams/abc", False),
        (None, "https://replicate.com.example/abc", False),
        ("https://gateway.example", "https://gateway.example/streams/abc", True),
        # The key of a gateway is not the provider's.
        ("https://gateway.example", STREAM, False),
        ("https://gateway.example", "https://gateway.example:8443/streams/abc", False),
        ("http://localhost:9", "http://localhost:9/streams/abc", True),
    ],
)
def test_the_key_goes_no_further_than_it_should(base: str | None, stream: str, goes: bool) -> None:
    extra = {"x-secret": "s-123"}
    (_, second), whole = call("blocking", announced(stream), events(), api_base=base, extra_headers=extra)
    assert str(second.url) == stream
    assert ("authorization" in second.headers) == ("x-secret" in second.headers) == goes
    assert whole.choices[0].message.content == HELLO


@pytest.mark.parametrize("stream", ["http://stream.replicate.com/abc", "file:///etc/passwd", "streams/abc"])
def test_no_place_to_ask(stream: str) -> None:
    with pytest.raises(APIResponseValidationError, match="no place to ask"):
        call("blocking", announced(stream))


def test_the_key_does_not_show() -> None:
    for answers in (
        [httpx.Response(401, json={"detail": "r8_0123456789 is unknown"})],
        [announced(), events(b"r8_0123456789")],
    ):
        with pytest.raises((AuthenticationError, APIConnectionError)) as caught:
            call("blocking", *answers)
        assert "r8_0123456789" not in f"{caught.value} {caught.value.body!r}"


# What goes wrong -----------------------------------------------------------------------------------------------------


@WORLDS
@pytest.mark.parametrize("stream", [False, True])
def test_errors_of_either_request(world: str, stream: bool) -> None:
    with pytest.raises(RateLimitError, match="slower") as caught:
        call(world, httpx.Response(429, json={"detail": "slower", "status": 429}), stream=stream)
    assert caught.value.provider == "replicate"
    gone = httpx.Response(404, headers={"x-request-id": "second"}, json={"detail": "expired"})
    with pytest.raises(NotFoundError, match="expired") as second:
        call(world, announced(), gone, stream=stream)
    assert (second.value.status_code, second.value.request_id) == (404, "second")
    with pytest.raises(APIResponseValidationError, match="not JSON"):
        call(world, httpx.Response(200, content=b"<html>"), stream=stream)


@WORLDS
@pytest.mark.parametrize("stream", [False, True])
def test_streams_that_end_badly(world: str, stream: bool) -> None:
    some = b"event: output\ndata: Hel\n\n"
    for rest, error in (
        (b"event: error\ndata: out of memory\n\n", InternalServerError),
        (b'event: done\ndata: {"reason":"canceled"}\n\n', InternalServerError),
        (b"", APIConnectionError),
    ):
        with pytest.raises(error) as caught:
            call(world, announced(), events(some + rest), stream=stream)
        partial: Any = caught.value.partial
        assert partial.choices[0].message.content == "Hel"


@WORLDS
def test_a_failed_attempt_begins_anew(world: str) -> None:
    answers = [announced(), httpx.Response(503, json={}), announced(), events()]
    requests, whole = call(world, *answers, max_retries=1)
    assert [request.method for request in requests] == ["POST", "GET", "POST", "GET"]
    assert whole.choices[0].message.content == HELLO


@pytest.mark.parametrize("stream", [False, True])
def test_the_clocks_go_on_over_both_requests(stream: bool) -> None:
    with Upstream() as upstream:
        place: dict[str, Any] = {"api_base": upstream.base_url, "api_key": "k", "max_retries": 0, "stream": stream}
        for fault in ("silent", "first_byte=5", "stall=3"):
            with pytest.raises(Timeout):
                list(completion(f"replicate/hello?{fault}", MESSAGES, timeout=0.3, **place))
        given = completion("replicate/hello?chunk=random:3", MESSAGES, timeout=5, **place)
        text = said(list(given)) if stream else given.choices[0].message.content
        assert text == HELLO


def test_the_recorded_first_answer(corpus: Path) -> None:
    body = (corpus / "streams/other/openllmetry__llama-replicate-llama-stream-legacy.0.json").read_bytes()
    place = json.loads(body)["urls"]["stream"]
    (_, second), whole = call("blocking", httpx.Response(201, content=body), events())
    assert (str(second.url), second.headers["authorization"]) == (place, "Bearer r8_0123456789")
    assert whole.choices[0].message.content == HELLO
