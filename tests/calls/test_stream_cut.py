"""`on_stream_cut`: an answer that breaks in the middle is begun again or gone on with; the caller sees one stream."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from penstock import (
    APIConnectionError,
    APIError,
    BadRequestError,
    InternalServerError,
    Timeout,
    Timeouts,
    acompletion,
    completion,
    retry,
    stream_chunk_builder,
)
from penstock.replay.cases import FAMILIES

MESSAGES = [{"role": "user", "content": "Hello"}]
USAGE = {"include_usage": True}
MADE = ("id", "created", "model")


@pytest.fixture(autouse=True)
def sleepless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)


@pytest.fixture(params=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def read(kind: str, model: str, into: list[Any] | None = None, **options: Any) -> tuple[list[Any], Any]:
    """The chunks and the stream."""
    options = {"stream": True, "stream_options": USAGE, **options}
    chunks: list[Any] = [] if into is None else into
    if kind == "blocking":
        stream: Any = completion(model, MESSAGES, **options)
        chunks.extend(stream)
        return chunks, stream

    async def main() -> Any:
        stream = await acompletion(model, MESSAGES, **options)
        async for chunk in stream:
            chunks.extend([chunk])  # one by one: an error may follow
        return stream

    return chunks, asyncio.run(main())


def said(response: Any) -> Any:
    """A response without what is made up anew each time."""
    fields = response.model_dump()
    for choice in fields["choices"]:
        for call in choice["message"].get("tool_calls") or ():
            call.pop("id")
    return {name: value for name, value in fields.items() if name not in MADE}


def partial_of(error: APIError) -> Any:
    return error.partial


def built(chunks: list[Any]) -> Any:
    return stream_chunk_builder(chunks)


# Begun again ----------------------------------------------------------------------------------------------------------

CASES = [
    (family, case)
    for family in FAMILIES
    for case in ("hello", "tools", "reasoning", "thinking")
    if case in FAMILIES[family].cases
]


@pytest.mark.parametrize(("family", "case"), CASES)
@pytest.mark.parametrize("fault", ["cut=1", "cut=4", "cut_bytes=700", "reset=3&delay=1", "error=2", "cut=finish"])
def test_a_stream_begun_again_is_the_whole_stream(kind: str, family: str, case: str, fault: str) -> None:
    model = f"replay/{family}/{case}"
    whole = completion(model, MESSAGES, stream=True, stream_options=USAGE).collect()
    chunks, stream = read(kind, f"{model}?{fault}&fail=1&tag={kind}{case}", on_stream_cut="restart")
    assert said(stream._collected()) == said(whole)
    assert said(built(chunks)) == said(whole)  # nothing came twice
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    roles = [choice.delta.role for chunk in chunks for choice in chunk.choices if choice.delta.role]
    assert roles == ["assistant"] * len(whole.choices)
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].usage == stream.usage == whole.usage
    assert stream.usage is None or stream.usage.complete
    *cut, last = stream.attempts
    assert len(cut) == 1 or case != "hello"  # calls of tools can be whole before that
    for first in cut:
        assert isinstance(first.error, APIError)
        assert first.error.partial is None or first.error.partial.id == chunks[0].id
    assert last.error is None
    ids = [call.id for choice in stream._collected().choices for call in choice.message.tool_calls or ()]
    assert ids == [
        call.id for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or () if call.id
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_silent_stream_is_begun_again(kind: str, family: str) -> None:
    patience = Timeouts(idle=0.2)
    _, stream = read(
        kind, f"replay/{family}/hello?stall=3&fail=1&tag={kind}", on_stream_cut="restart", timeout=patience
    )
    assert [type(attempt.error) for attempt in stream.attempts] == [Timeout, type(None)]
    assert stream._collected().choices[0].finish_reason == "stop"


def test_text_is_spliced_too() -> None:
    whole = completion("replay/chat/hello", MESSAGES).choices[0].message.content
    stream = completion("replay/chat/hello?cut=3&fail=1&tag=text", MESSAGES, stream=True, on_stream_cut="restart")
    assert "".join(stream.text()) == whole
    assert len(stream.attempts) == 2


def test_it_is_begun_again_as_often_as_a_call_is_tried() -> None:
    model = "replay/chat/hello?cut=3&tag=often"
    stream = completion(model, MESSAGES, stream=True, on_stream_cut="restart", max_retries=2)
    with pytest.raises(APIConnectionError) as caught:
        list(stream)
    assert [type(attempt.error) for attempt in stream.attempts] == [APIConnectionError] * 3
    assert partial_of(caught.value).choices[0].finish_reason is None
    stream = completion(model, MESSAGES, stream=True, on_stream_cut="restart", max_retries=0)
    with pytest.raises(APIConnectionError):
        list(stream)
    assert len(stream.attempts) == 1


def test_what_cannot_be_begun_again_raises_the_cut_with_a_note() -> None:
    stream = completion("replay/chat/audio?cut=4&tag=audio", MESSAGES, stream=True, on_stream_cut="restart")
    with pytest.raises(APIConnectionError, match="the stream") as caught:
        list(stream)
    assert "audio" in caught.value.__notes__[0]
    assert len(stream.attempts) == 1


def test_a_cut_is_raised_unless_asked_otherwise(kind: str) -> None:
    ways: list[dict[str, Any]] = [{}, {"on_stream_cut": "raise"}, {"on_stream_cut": None}]
    for number, options in enumerate(ways):
        with pytest.raises(APIConnectionError):
            read(kind, f"replay/chat/hello?cut=3&fail=1&tag=raise{kind}{number}", **options)


# Answers as they are scripted here ------------------------------------------------------------------------------------


class Cut(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that breaks."""

    def __init__(self, body: bytes, whole: bool) -> None:
        self.body = body
        self.whole = whole

    def __iter__(self) -> Iterator[bytes]:
        yield self.body
        if not self.whole:
            raise httpx.ReadError("reset")

    async def __aiter__(self) -> Any:
        for part in self:
            yield part


class Server:
    """Answers with these bodies in turn, all but the last of which break; keeps the requests."""

    def __init__(self, *answers: bytes | int) -> None:
        self.answers = list(answers)
        self.requests: list[Any] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(json.loads(request.content))
        answer = self.answers.pop(0)
        if isinstance(answer, int):
            return httpx.Response(answer, json={"error": {"message": f"status {answer}"}})
        body = Cut(answer, whole=not self.answers)
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=body)

    def client(self, kind: str) -> Any:
        transport = httpx.MockTransport(self)
        return httpx.Client(transport=transport) if kind == "blocking" else httpx.AsyncClient(transport=transport)


def events(*datas: Any) -> bytes:
    texts = (data if isinstance(data, bytes) else json.dumps(data).encode() for data in datas)
    return b"".join(b"data: " + text + b"\n\n" for text in texts)


def delta(finish: str | None = None, id: str = "a", **fields: Any) -> Any:
    choice = {"index": 0, "delta": fields, "finish_reason": finish}
    return {"id": id, "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def usage(prompt: int, completion: int) -> Any:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": counts}


def call(arguments: str, id: str = "call_1", name: str = "f") -> Any:
    return [{"index": 0, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}}]


DONE = b"[DONE]"
STOP = delta("stop")


def ask(kind: str, server: Server, model: str = "openai/m", into: list[Any] | None = None, **options: Any) -> Any:
    """As `read`, of a server."""
    options = {"on_stream_cut": "restart", "api_key": "k", "client": server.client(kind), **options}
    return read(kind, model, into, **options)


def text(chunks: list[Any]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_pieces_may_be_cut_otherwise(kind: str) -> None:
    server = Server(
        events(delta(role="assistant", content=""), delta(content="Hel"), delta(content="lo wo")),
        events(delta(id="b", content="H"), delta(id="b", content="ello"), delta(id="b", content=" world"), STOP, DONE),
    )
    chunks, stream = ask(kind, server)
    assert [choice.delta.content for chunk in chunks for choice in chunk.choices] == ["", "Hel", "lo wo", "rld", None]
    assert {chunk.id for chunk in chunks} == {"a"}
    assert stream._collected().choices[0].message.content == "Hello world"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([delta(content="Hello")], [delta(content="Hallo"), STOP]),
        ([delta(content="Hello")], [delta(content="Hell"), STOP]),
        ([delta(content="Hello")], [delta(content="Hell"), DONE]),
        ([delta(tool_calls=call('{"a'))], [delta(tool_calls=call('{"b":1}')), delta("tool_calls")]),
        ([delta(tool_calls=call('{"a'))], [delta(tool_calls=call('{"a":1}', name="g")), delta("tool_calls")]),
        ([delta(tool_calls=call('{"a'))], [delta(content="No."), STOP]),
        ([delta(reasoning_content="Hm")], [delta(content="Hm"), STOP]),
    ],
)
def test_another_answer_is_not_spliced(kind: str, before: list[Any], after: list[Any]) -> None:
    chunks: list[Any] = []
    with pytest.raises(APIConnectionError) as caught:
        ask(kind, Server(events(*before), events(*after)), into=chunks, max_retries=1)
    assert len(chunks) == len(before)
    whole = built(chunks)
    assert whole is not None
    assert partial_of(caught.value).choices == whole.choices
    assert caught.value.code == "diverged"


def test_a_tool_call_begun_is_finished_under_its_first_id(kind: str) -> None:
    server = Server(
        events(delta(tool_calls=call('{"cit', id="call_1"))),
        events(
            delta(tool_calls=call("", id="call_2")),
            delta(tool_calls=call('{"city":1}', id="")),
            delta("tool_calls"),
            DONE,
        ),
    )
    chunks, stream = ask(kind, server)
    (made,) = stream._collected().choices[0].message.tool_calls
    assert (made.id, made.function.name, made.function.arguments) == ("call_1", "f", '{"city":1}')
    assert built(chunks).choices == stream._collected().choices


def test_usage_of_the_cut_attempt_is_in_no_total(kind: str) -> None:
    server = Server(
        events(delta(content="Hel"), usage(9, 2)),
        events(delta(content="Hello"), STOP, usage(9, 5), DONE),
    )
    chunks, stream = ask(kind, server)
    assert chunks[-1].usage.total_tokens == 14
    assert [attempt.usage and attempt.usage.total_tokens for attempt in stream.attempts] == [11, None]
    assert stream.usage.total_tokens == 14


def test_a_refusal_of_the_second_request_raises_the_cut(kind: str) -> None:
    server = Server(events(delta(content="Hel")), 401)
    with pytest.raises(APIConnectionError, match="cut") as caught:
        ask(kind, server)
    assert "status 401" in caught.value.__notes__[0]
    assert partial_of(caught.value).choices[0].message.content == "Hel"


def test_the_second_request_is_tried_again_as_the_first_is(kind: str) -> None:
    whole = events(delta(content="Hello"), STOP, DONE)
    _, stream = ask(kind, Server(events(delta(content="Hel")), 500, whole))
    assert [type(attempt.error) for attempt in stream.attempts] == [APIConnectionError, InternalServerError, type(None)]
    assert stream._collected().choices[0].message.content == "Hello"


# Gone on with ---------------------------------------------------------------------------------------------------------


def said_by_claude(*texts: str, stop: str | None = "end_turn") -> bytes:
    start: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "claude",
        "stop_reason": None,
    }
    parts: list[Any] = [
        {"type": "message_start", "message": {**start, "usage": {"input_tokens": 9, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": said}} for said in texts),
    ]
    if stop is not None:
        parts += [
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 7}},
            {"type": "message_stop"},
        ]
    return b"".join(f"event: {part['type']}\ndata: {json.dumps(part)}\n\n".encode() for part in parts)


@pytest.mark.parametrize("rest", [" big", "big"])
def test_claude_goes_on(kind: str, rest: str) -> None:
    server = Server(said_by_claude("Hello ", stop=None), said_by_claude(rest, " world"))
    chunks, stream = ask(kind, server, "anthropic/claude-sonnet-4-5", on_stream_cut="continue", api_key="k")
    assert text(chunks) == "Hello big world"
    assert server.requests[1]["messages"][-1] == {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]}
    response = stream._collected()
    assert response.choices[0].message.content == "Hello big world"
    assert (response.id, response.choices[0].finish_reason) == ("msg_1", "stop")
    # The total is the last request's, which was told what the first had said; that one's is with its attempt.
    assert stream.usage is None or stream.usage.complete
    assert stream.usage == chunks[-1].usage
    assert stream.attempts[0].usage.complete is False
    assert stream.attempts[0].usage.prompt_tokens == 9


@pytest.mark.parametrize(
    ("model", "message", "body"),
    [
        ("mistral/mistral-large-latest", {"prefix": True}, {}),
        ("moonshot/kimi-k2", {"partial": True}, {}),
        ("dashscope/qwen-plus", {"partial": True}, {}),
        ("hosted_vllm/qwen", {}, {"continue_final_message": True, "add_generation_prompt": False}),
    ],
)
def test_each_row_says_how(kind: str, model: str, message: dict[str, Any], body: dict[str, Any]) -> None:
    server = Server(
        events(delta(content="Hel")),
        events(delta(content="lo"), delta(content=" wo")),
        events(delta(content="rld"), STOP, DONE),
    )
    chunks, stream = ask(kind, server, model, on_stream_cut="continue", api_base="http://x/v1", extra_body={"x": 1})
    assert text(chunks) == "Hello world"
    assert len(stream.attempts) == 3
    first, second, third = server.requests
    assert first["messages"] == MESSAGES
    assert second["messages"] == [*MESSAGES, {"role": "assistant", "content": "Hel", **message}]
    assert third["messages"] == [*MESSAGES, {"role": "assistant", "content": "Hello wo", **message}]
    for asked, more in ((first, {}), (second, body), (third, body)):
        assert {
            name: asked[name] for name in asked if name in ("continue_final_message", "add_generation_prompt")
        } == more
        assert asked["x"] == 1


@pytest.mark.parametrize(
    "before",
    [
        [delta(content="Hel"), delta(tool_calls=call("{"))],
        [delta(reasoning_content="Hm")],
        [delta(refusal="No")],
        [delta(content=" ")],
        [delta(role="assistant", content="")],
    ],
)
def test_what_is_not_text_alone_is_not_gone_on_with(kind: str, before: list[Any]) -> None:
    server = Server(events(*before), b"")
    with pytest.raises(APIConnectionError) as caught:
        ask(kind, server, "mistral/m", on_stream_cut="continue")
    assert "on_stream_cut='continue'" in caught.value.__notes__[0]
    assert len(server.requests) == 1


# What is refused at the call ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("gpt-4o", {"on_stream_cut": "continue"}, "openai does not document"),
        ("claude-opus-4-6", {"on_stream_cut": "continue"}, "claude-opus-4-6"),
        ("claude-sonnet-5", {"on_stream_cut": "continue"}, "does not document"),
        ("gemini-2.5-flash", {"on_stream_cut": "continue"}, "does not document"),
        ("mistral/m", {"on_stream_cut": "continue", "n": 2}, "one choice"),
        ("mistral/m", {"on_stream_cut": "continue", "response_format": {"type": "json_object"}}, "response_format"),
        ("gpt-4o", {"on_stream_cut": "restart", "logprobs": True}, "logprobs"),
        ("gpt-4o", {"on_stream_cut": "restart", "keep_partial": False}, "keep_partial"),
        ("gpt-4o", {"on_stream_cut": "restart", "stream": False}, "stream=True"),
        ("gpt-4o", {"on_stream_cut": "again"}, "'again'"),
    ],
)
def test_what_cannot_be_is_refused_at_the_call(model: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequestError, match=words) as caught:
        completion(model, MESSAGES, **{"stream": True, "api_key": "k", **options})
    assert caught.value.param == "on_stream_cut"


@pytest.mark.parametrize(
    "model",
    [
        "claude-sonnet-4-5",
        "claude-3-5-haiku-20241022",
        "claude-opus-4-1-20250805",
        "claude-sonnet-4-20250514",
        "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    ],
)
def test_claude_up_to_4_5_goes_on(model: str) -> None:
    own: dict[str, Any] = {"aws_region_name": "us-east-1"} if model.startswith("bedrock") else {}
    stream: Any = completion(model, MESSAGES, stream=True, on_stream_cut="continue", mock_response="Hi", **own)
    assert "".join(stream.text()) == "Hi"
