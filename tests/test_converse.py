"""Converse: the requests it is sent, how they are signed, and its event stream against botocore's reading of it."""

import json
import random
import struct
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from penstock import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    RateLimitError,
    UnsupportedParamsError,
    completion,
)
from penstock.parser import Decoder
from penstock.providers import sign
from penstock.providers.registry import PROVIDERS
from penstock.providers.resolve import vary
from penstock.replay import Upstream
from penstock.replay.cases import FAMILIES
from penstock.wire import ANSWER_TOOL, select
from penstock.wire.converse import build

ROW = PROVIDERS["bedrock"]
SONNET_4 = "us.anthropic.claude-sonnet-4-20250514-v1:0"
HELLO = [{"role": "user", "content": "hi"}]


def body(messages: list[Any] = HELLO, model: str = "m", **given: Any) -> dict[str, Any]:
    """The request body for these messages and parameters."""
    return build(ROW, model, messages, select(ROW, given), stream=True)


def turns(*messages: dict[str, Any]) -> list[Any]:
    built: list[Any] = body(list(messages))["messages"]
    return built


# Messages -------------------------------------------------------------------------------------------------------------


def test_a_plain_request() -> None:
    assert body() == {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}


def test_system_and_developer_messages_stand_apart() -> None:
    built = body(
        [
            {"role": "system", "content": "one"},
            *HELLO,
            {"role": "developer", "content": [{"type": "text", "text": "two", "cache_control": {"type": "ephemeral"}}]},
        ]
    )
    assert built["system"] == [{"text": "one"}, {"text": "two"}, {"cachePoint": {"type": "default"}}]
    assert len(built["messages"]) == 1


def test_neighbours_of_one_role_are_one_turn_and_blank_texts_are_left_out() -> None:
    assert turns(
        {"role": "user", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": " \n"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": "c"},
    ) == [
        {"role": "user", "content": [{"text": "a"}, {"text": "b"}]},
        {"role": "assistant", "content": [{"text": "c"}]},
    ]


def test_a_conversation_with_tools_and_thinking_goes_back_as_it_came() -> None:
    thinking = [
        {"type": "thinking", "thinking": "hm", "signature": "S"},
        {"type": "redacted_thinking", "data": "b3A="},
    ]
    server = [{"toolUse": {"toolUseId": "s", "name": "code", "type": "server_tool_use", "input": {}}}]
    calls = [
        {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "t2", "type": "function", "function": {"name": "g", "arguments": ""}},
    ]
    assert turns(
        *HELLO,
        {
            "role": "assistant",
            "content": "Look",
            "reasoning_content": "hm",
            "thinking_blocks": thinking,
            "content_blocks": server,
            "tool_calls": calls,
        },
        {"role": "tool", "tool_call_id": "t1", "content": "42"},
        {"role": "tool", "tool_call_id": "t2", "content": [{"type": "text", "text": "now"}]},
        {"role": "user", "content": "and?"},
    )[1:] == [
        {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "S"}}},
                {"reasoningContent": {"redactedContent": "b3A="}},
                *server,
                {"text": "Look"},
                {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"x": 1}}},
                {"toolUse": {"toolUseId": "t2", "name": "g", "input": {}}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": "t1", "content": [{"text": "42"}]}},
                {"toolResult": {"toolUseId": "t2", "content": [{"text": "now"}]}},
                {"text": "and?"},
            ],
        },
    ]


def test_foreign_call_ids_are_rewritten_the_same_in_call_and_result() -> None:
    def ids(given: str) -> tuple[str, str]:
        call = {"id": given, "type": "function", "function": {"name": "f", "arguments": "{}"}}
        _, asked, answered = turns(
            *HELLO,
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": given, "content": "x"},
        )
        used: str = asked["content"][0]["toolUse"]["toolUseId"]
        answer: str = answered["content"][0]["toolResult"]["toolUseId"]
        return used, answer

    assert ids("call_1.a:b-C") == ("call_1.a:b-C", "call_1.a:b-C")
    one, other = ids("call|1"), ids("call/1")
    assert one[0] == one[1] != other[0] == other[1]
    for given in ("call|1", "x" * 65, "\u00e9", ""):
        used, answer = ids(given)
        assert used == answer
        assert 1 <= len(used) <= 64
        assert used.isascii()


def test_images_and_documents() -> None:
    assert turns(
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,QUJD"}},
                {"type": "image_url", "image_url": {"url": "s3://bucket/picture.png"}},
                {
                    "type": "file",
                    "file": {"filename": "my.report v2.pdf", "file_data": "data:application/pdf;base64,QUJD"},
                },
                {"guardContent": {"text": {"text": "kept"}}},
            ],
        }
    )[0]["content"] == [
        {"image": {"format": "jpeg", "source": {"bytes": "QUJD"}}},
        {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://bucket/picture.png"}}}},
        {"document": {"format": "pdf", "name": "my-report v2", "source": {"bytes": "QUJD"}}},
        {"guardContent": {"text": {"text": "kept"}}},
    ]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/tiff;base64,QUJD"}},
        {"type": "file", "file": {"file_id": "f"}},
        {"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}},
    ],
)
def test_content_without_a_form_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError):
        turns({"role": "user", "content": [part]})


# Parameters -----------------------------------------------------------------------------------------------------------


def test_inference_parameters() -> None:
    built = body(
        temperature=0.5,
        top_p=0.9,
        max_completion_tokens=5,
        stop="END",
        top_k=3,
        service_tier="auto",
        metadata={"a": "b"},
        stream_options={"include_usage": True},
    )
    del built["messages"]
    assert built == {
        "inferenceConfig": {"temperature": 0.5, "topP": 0.9, "maxTokens": 5, "stopSequences": ["END"]},
        "serviceTier": {"type": "default"},
        "requestMetadata": {"a": "b"},
        "additionalModelRequestFields": {"top_k": 3},
    }


TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "", "parameters": {"type": "object", "properties": {"x": {}}}},
}
SPEC = {"toolSpec": {"name": "f", "inputSchema": {"json": {"type": "object", "properties": {"x": {}}}}}}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, {"tools": [SPEC]}),
        ("auto", {"tools": [SPEC], "toolChoice": {"auto": {}}}),
        ("required", {"tools": [SPEC], "toolChoice": {"any": {}}}),
        ({"type": "function", "function": {"name": "f"}}, {"tools": [SPEC], "toolChoice": {"tool": {"name": "f"}}}),
        ("none", None),
    ],
)
def test_tools(choice: Any, expected: Any) -> None:
    assert body(tools=[TOOL], tool_choice=choice).get("toolConfig") == expected


def test_without_a_choice_of_tools_a_history_with_tools_still_has_them() -> None:
    call = {"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    history = [
        *HELLO,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t", "content": "x"},
    ]
    assert body(history, tools=[TOOL], tool_choice="none")["toolConfig"] == {"tools": [SPEC]}


def test_structured_output() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    given = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}
    form = body(response_format=given)["outputConfig"]["textFormat"]
    assert form["type"] == "json_schema"
    structure = form["structure"]["jsonSchema"]
    assert structure["name"] == "n"
    assert json.loads(structure["schema"]) == schema
    assert "outputConfig" not in body(response_format={"type": "text"})
    with pytest.raises(UnsupportedParamsError, match="give a json_schema"):
        body(response_format={"type": "json_object"})
    with pytest.raises(UnsupportedParamsError, match="leave thinking"):
        body(model=SONNET_4, response_format=given, reasoning_effort="low")


def test_ids_of_calls_in_the_letters_of_the_model() -> None:
    call = {"id": "call/1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    history = [*HELLO, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "call/1"}]
    for model, length in [("us.mistral.pixtral-large-2502-v1:0", 9), ("mistral.mistral-7b", 9), (SONNET_4, 23)]:
        row, model, _ = vary(ROW, model, None, {})  # noqa: PLW2901
        _, called, answered = build(row, model, history, {}, stream=True)["messages"]
        sent = called["content"][0]["toolUse"]["toolUseId"]
        assert sent == answered["content"][0]["toolResult"]["toolUseId"]
        assert len(sent) == length


@pytest.mark.parametrize("model", [SONNET_4, "us.amazon.nova-pro-v1:0"])
@pytest.mark.parametrize(
    ("wanted", "schema"),
    [
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}, {"type": "object"}),
    ],
)
def test_without_schemas_the_answer_is_a_tool(model: str, wanted: Any, schema: Any) -> None:
    sent = body(model=model, response_format=wanted)
    assert "outputConfig" not in sent
    (tool,) = sent["toolConfig"]["tools"]
    assert tool["toolSpec"]["name"] == ANSWER_TOOL
    assert tool["toolSpec"]["inputSchema"] == {"json": schema}
    assert sent["toolConfig"]["toolChoice"] == {"tool": {"name": ANSWER_TOOL}}


@pytest.mark.parametrize(
    ("model", "effort", "fields"),
    [
        (
            "us.anthropic.claude-3-7-sonnet-20250219-v1:0",
            "low",
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        ),
        (
            "anthropic.claude-sonnet-4-20250514-v1:0",
            "high",
            {"thinking": {"type": "enabled", "budget_tokens": 4096}},
        ),
        (
            "us.anthropic.claude-opus-4-6-v1",
            "medium",
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"}},
        ),
        (
            "us.anthropic.claude-sonnet-5",
            "max",
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}},
        ),
        ("us.amazon.nova-2-lite-v1:0", "low", {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}}),
        ("openai.gpt-oss-120b-1:0", "high", {"reasoning_effort": "high"}),
    ],
)
def test_reasoning_effort_in_the_words_of_the_model(model: str, effort: str, fields: dict[str, Any]) -> None:
    assert body(model=model, reasoning_effort=effort)["additionalModelRequestFields"] == fields


def test_samplers_do_not_go_with_thinking() -> None:
    model = "anthropic.claude-sonnet-4-5-20250929-v1:0"
    built = body(
        model=model, thinking={"type": "enabled", "budget_tokens": 2000}, temperature=1.0, top_k=2, max_tokens=9
    )
    assert built["inferenceConfig"] == {"maxTokens": 9}
    assert built["additionalModelRequestFields"] == {"thinking": {"type": "enabled", "budget_tokens": 2000}}
    assert "inferenceConfig" in body(model=model, reasoning_effort="none", temperature=1.0)


def test_a_parameter_let_through_is_a_field_of_the_model() -> None:
    parameters = select(ROW, {"seed": 7}, allowed_openai_params=["seed"])
    assert build(ROW, "m", HELLO, parameters, stream=False)["additionalModelRequestFields"] == {"seed": 7}
    with pytest.raises(UnsupportedParamsError):
        select(ROW, {"seed": 7})


# Signatures -----------------------------------------------------------------------------------------------------------

URL = "https://bedrock-runtime.us-east-1.amazonaws.com/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse-stream"
SIGNED = b'{"messages":[{"role":"user","content":[{"text":"hi"}]}]}'
GIVEN = {
    "aws_access_key_id": "AKIDEXAMPLE",
    "aws_secret_access_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "aws_region_name": "us-east-1",
}


@pytest.fixture
def at_a_fixed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signatures of 2025-01-02T03:04:05Z."""
    auth = pytest.importorskip("botocore.auth")
    now = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
    if hasattr(auth, "get_current_datetime"):
        monkeypatch.setattr(auth, "get_current_datetime", lambda *_, **__: now.replace(tzinfo=None))
    else:
        monkeypatch.setattr(auth.datetime, "datetime", type("Then", (datetime,), {"utcnow": lambda: now}))


@pytest.mark.parametrize(
    ("token", "names", "signature"),
    [
        (None, "content-type;host;x-amz-date", "b95edb786b3cf262aeeb5ccfa74a005de34bd89111352c07e04e55a9ce5d38a5"),
        (
            "TESTSESSIONTOKEN",
            "content-type;host;x-amz-date;x-amz-security-token",
            "f20887868b80fb4d0272b92487892bf8949bf5597023e16d12ea3bcc64c469d9",
        ),
    ],
)
@pytest.mark.usefixtures("at_a_fixed_time")
def test_signatures(token: str | None, names: str, signature: str) -> None:
    values = GIVEN | ({"aws_session_token": token} if token else {})
    headers = {"content-type": "application/json", "accept": "*/*", "user-agent": "x"}
    signed = sign.signer(ROW, values)
    assert signed is not None
    added = signed(URL, headers, SIGNED)
    assert added["x-amz-date"] == "20250102T030405Z"
    assert added.get("x-amz-security-token") == token
    assert added["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20250102/us-east-1/bedrock/aws4_request, "
        f"SignedHeaders={names}, Signature={signature}"
    )


# Calls ----------------------------------------------------------------------------------------------------------------


def message(headers: dict[str, str], payload: bytes) -> bytes:
    """One message of the event stream."""
    block = b"".join(
        bytes([len(name)]) + name.encode() + b"\7" + struct.pack(">H", len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(block) + len(payload), len(block))
    start = prelude + struct.pack(">I", zlib.crc32(prelude)) + block + payload
    return start + struct.pack(">I", zlib.crc32(start))


def event(name: str, payload: dict[str, Any]) -> bytes:
    kind = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return message(kind, json.dumps(payload).encode())


EVENTS = [
    event("messageStart", {"role": "assistant"}),
    event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hel"}}),
    event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "lo"}}),
    event("contentBlockStop", {"contentBlockIndex": 0}),
    event("messageStop", {"stopReason": "end_turn"}),
    event("metadata", {"usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}, "metrics": {"latencyMs": 1}}),
]
WHOLE = {
    "output": {"message": {"role": "assistant", "content": [{"text": "Hello"}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5},
}


@pytest.fixture
def requests() -> list[httpx.Request]:
    return []


@pytest.fixture
def client(requests: list[httpx.Request]) -> Iterator[httpx.Client]:
    """A client that is answered as by the service."""

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        if request.url.path.endswith("-stream"):
            kind = {"content-type": "application/vnd.amazon.eventstream"}
            return httpx.Response(200, headers=kind, content=b"".join(EVENTS))
        if "throttled" in request.url.path:
            kind = {"x-amzn-errortype": "ThrottlingException:http://internal/", "x-amzn-requestid": "r"}
            return httpx.Response(429, headers=kind, json={"message": "Too many requests"})
        return httpx.Response(200, json=WHOLE)

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        yield client


@pytest.fixture(autouse=True)
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Nothing of this machine's AWS configuration, nor of the machine it runs on."""
    import os

    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


MODEL = "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0"


def test_a_streamed_call_with_an_api_key(
    client: httpx.Client, requests: list[httpx.Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    stream = completion(MODEL, HELLO, stream=True, stream_options={"include_usage": True}, client=client)
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "Hello"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 5
    assert stream.collect().choices[0].message.content == "Hello"
    (request,) = requests
    assert str(request.url) == URL
    assert request.headers["authorization"] == "Bearer secret"
    assert json.loads(request.content) == {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}


@pytest.mark.usefixtures("at_a_fixed_time")
def test_a_call_with_credentials(client: httpx.Client, requests: list[httpx.Request]) -> None:
    answer = completion(MODEL, HELLO, client=client, **GIVEN)  # type: ignore[call-overload]
    assert answer.choices[0].message.content == "Hello"
    assert answer.usage.prompt_tokens == 3
    (request,) = requests
    assert str(request.url) == URL.removesuffix("-stream")
    assert request.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20250102/us-east-1/")
    assert request.headers["x-amz-date"] == "20250102T030405Z"


def test_a_key_goes_before_credentials(client: httpx.Client, requests: list[httpx.Request]) -> None:
    completion(MODEL, HELLO, client=client, api_key="k", **GIVEN)  # type: ignore[call-overload]
    assert requests[0].headers["authorization"] == "Bearer k"
    assert "x-amz-date" not in requests[0].headers


def test_an_arn_is_one_segment(client: httpx.Client, requests: list[httpx.Request]) -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.x-v1:0"
    completion(f"bedrock/{arn}", HELLO, client=client, api_key="k", aws_region_name="us-east-1")
    path = requests[0].url.raw_path.decode()
    assert path == "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2Fus.x-v1%3A0/converse"


def test_without_region_or_credentials_nothing_is_sent(client: httpx.Client, requests: list[httpx.Request]) -> None:
    with pytest.raises(BadRequestError, match="aws_region_name"):
        completion(MODEL, HELLO, client=client, api_key="k")
    with pytest.raises(AuthenticationError, match="AWS_BEARER_TOKEN_BEDROCK"):
        completion(MODEL, HELLO, client=client, aws_region_name="us-east-1")
    assert requests == []


def test_an_http_error_goes_by_its_header(client: httpx.Client) -> None:
    with pytest.raises(RateLimitError, match="Too many requests") as caught:
        completion("bedrock/throttled", HELLO, client=client, api_key="k", aws_region_name="r", max_retries=0)
    assert caught.value.request_id == "r"


# Replay ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


def replayed(upstream: Upstream, model: str, **options: Any) -> Any:
    base = upstream.base_url.removesuffix("/v1")
    options = {"api_key": "k", "api_base": base, "max_retries": 0, **options}
    return completion(f"bedrock/{model}", HELLO, **options)


@pytest.mark.parametrize("name", FAMILIES["converse"].cases)
def test_a_stream_collects_to_what_a_single_body_says(upstream: Upstream, name: str) -> None:
    streamed = replayed(upstream, f"converse/{name}?chunk=1", stream=True).collect().model_dump()
    single = replayed(upstream, f"converse/{name}").model_dump()
    # Latency is not worth a chunk of its own.
    for answer in (streamed, single):
        for own in ("id", "created", "model", "metrics"):
            answer.pop(own, None)
    assert streamed == single
    assert single["usage"]["total_tokens"] > 0


def test_the_conversation_goes_on_with_what_was_collected(upstream: Upstream) -> None:
    said = replayed(upstream, "converse/reasoning", stream=True).collect().choices[0].message
    assert turns(*HELLO, said)[1]["content"] == FAMILIES["converse"].cases["reasoning"].content  # type: ignore[attr-defined]


def test_failures_of_the_stream(upstream: Upstream) -> None:
    def failing(script: str) -> type[BaseException]:
        with pytest.raises(APIError) as caught:
            replayed(upstream, f"converse/hello?{script}", stream=True).collect()
        return caught.type

    assert failing("status=429") is RateLimitError
    assert failing("error=5") is InternalServerError
    assert failing("malformed=5") is APIResponseValidationError
    assert failing("cut=finish") is APIConnectionError
    assert failing("trim=900") is APIConnectionError
    assert failing("endless=100000") is APIResponseValidationError


# The event stream against botocore's ----------------------------------------------------------------------------------


def botocores(data: bytes, chance: random.Random) -> tuple[list[tuple[str, bytes]], bool]:
    """Names and payloads of the messages that botocore finds, and whether it found the bytes broken."""
    eventstream = pytest.importorskip("botocore.eventstream")
    buffer = eventstream.EventStreamBuffer()
    found = []
    try:
        while data:
            at = chance.randint(1, 40)
            buffer.add_data(data[:at])
            data = data[at:]
            found += [(one.headers.get(":event-type", ""), one.payload) for one in buffer]
    except eventstream.ParserError:
        return found, True
    return found, False


def ours(data: bytes, chance: random.Random) -> tuple[str, bool]:
    """The text that we find in the same bytes."""
    decoder = Decoder("converse", depth="text")
    text = ""
    try:
        while data:
            at = chance.randint(1, 40)
            text += "".join(decoder.feed(data[:at]) or [])
            data = data[at:]
        # An error waits for the next call, behind what came before it.
        decoder.feed(b"")
    except APIResponseValidationError:
        return text, True
    return text, False


@pytest.mark.parametrize("seed", range(60))
def test_damaged_and_whole_streams_are_read_as_botocore_reads_them(seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(b"".join(chance.choices(EVENTS[1:3], k=5)))
    if seed % 3:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    if seed % 5 == 0:
        del data[chance.randrange(len(data)) :]
    found, broken = botocores(bytes(data), chance)
    text = "".join(json.loads(payload)["delta"]["text"] for _, payload in found)
    assert ours(bytes(data), chance) == (text, broken)
