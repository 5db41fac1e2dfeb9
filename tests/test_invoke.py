"""The Invoke family through its row: where a model's own body goes, what is in it, and what comes back."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from penstock import (
    APIConnectionError,
    BadRequestError,
    InternalServerError,
    UnsupportedParamsError,
    acompletion,
    completion,
)
from penstock.replay import Upstream
from penstock.replay.cases.chat import ANSWER, HELLO, THOUGHT

MESSAGES: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": [{"type": "text", "text": "How"}, {"type": "text", "text": " high?"}]},
]
SAMPLING: dict[str, Any] = {"max_tokens": 64, "temperature": 0.2, "top_p": 0.9}
ASKED: dict[str, Any] = {
    "stream_options": {"include_usage": True},
    "api_key": "k",
    "aws_region_name": "us-east-1",
}
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"


def sent(model: str, messages: list[Any] | None = None, *, route: str = "invoke", **options: Any) -> httpx.Request:
    """The request of a call."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        whole = {"output": {"message": {"role": "assistant", "content": [{"text": "Hi"}]}}, "stopReason": "end_turn"}
        return httpx.Response(200, json=whole)

    place: dict[str, Any] = {"api_key": "k", "aws_region_name": "eu-west-1"}
    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        call: dict[str, Any] = {**place, **options}
        completion(f"bedrock/{route}/{model}", messages or MESSAGES, client=client, **call)
    return requests[-1]


def body(model: str, messages: list[Any] | None = None, **options: Any) -> Any:
    return json.loads(sent(model, messages, **options).content)


# Where it goes -------------------------------------------------------------------------------------------------------


def test_the_id_of_a_model_is_one_segment_of_the_path() -> None:
    request = sent(CLAUDE)
    assert request.url.raw_path == f"/model/{CLAUDE.replace(':', '%3A')}/invoke".encode()
    arn = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc"
    path = sent(arn).url.raw_path.decode()
    assert path == "/model/" + arn.replace(":", "%3A").replace("/", "%2F") + "/invoke"


def test_the_signature_escapes_the_path_once_more() -> None:
    auth = pytest.importorskip("botocore.auth", reason="external: no botocore")
    awsrequest = pytest.importorskip("botocore.awsrequest")
    keys: dict[str, Any] = {
        "aws_access_key_id": "AKIDEXAMPLE",
        "aws_secret_access_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    }
    request = sent(CLAUDE, api_key=None, **keys)
    date = request.headers["x-amz-date"]
    headers = {"content-type": request.headers["content-type"]}
    again = awsrequest.AWSRequest("POST", str(request.url), data=request.content, headers=headers)
    again.context["timestamp"] = date
    again.headers["X-Amz-Date"] = date
    credentials = pytest.importorskip("botocore.credentials").Credentials(*keys.values())
    signer = auth.SigV4Auth(credentials, "bedrock", "eu-west-1")
    canonical = signer.canonical_request(again)
    assert canonical.splitlines()[1] == f"/model/{CLAUDE.replace(':', '%253A')}/invoke"
    expected = signer.signature(signer.string_to_sign(again, canonical), again)
    assert request.headers["authorization"].endswith(f"Signature={expected}")


def test_streams_are_asked_for_by_the_path() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path.endswith("/invoke-with-response-stream")
        assert "stream" not in json.loads(request.content)
        return httpx.Response(400, headers={"x-amzn-errortype": "ValidationException:http://x"}, json={"message": "no"})

    with httpx.Client(transport=httpx.MockTransport(answer)) as client, pytest.raises(BadRequestError, match="no"):
        completion(f"bedrock/invoke/{CLAUDE}", MESSAGES, stream=True, client=client, **ASKED)


# What is in it -------------------------------------------------------------------------------------------------------


def test_claude_takes_messages_without_model_and_stream() -> None:
    assert body(CLAUDE, **SAMPLING, stop="END", top_k=5, reasoning_effort="none") == {
        "anthropic_version": "bedrock-2023-05-31",
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Hello."}]},
            {"role": "user", "content": [{"type": "text", "text": "How"}, {"type": "text", "text": " high?"}]},
        ],
        "stop_sequences": ["END"],
        "thinking": {"type": "disabled"},
        **SAMPLING,
        "top_k": 5,
    }


TOOL = {"name": "height", "description": "How high.", "parameters": {"type": "object", "properties": {}}}
ROUND = [
    {"role": "user", "content": "How high?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "height", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "3000 m"},
]


def test_tools_go_round() -> None:
    tools = [{"type": "function", "function": TOOL}]
    claude = body(CLAUDE, ROUND, tools=tools)
    assert claude["tools"][0]["input_schema"] == TOOL["parameters"]
    blocks = [part["type"] for turn in claude["messages"] for part in turn["content"]]
    assert blocks == ["text", "tool_use", "tool_result"]
    nova = body("amazon.nova-pro-v1:0", ROUND, tools=tools)
    assert nova["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"] == {"json": TOOL["parameters"]}
    assert [part.popitem()[0] for turn in nova["messages"] for part in turn["content"]] == [
        "text",
        "toolUse",
        "toolResult",
    ]
    mistral = body("mistral.mistral-large-2407-v1:0", ROUND, tools=tools)
    assert (mistral["messages"], mistral["tools"]) == (ROUND, tools)


def test_nova_takes_converse_with_its_own_fields_in_their_places() -> None:
    assert body("eu.amazon.nova-lite-v1:0", **SAMPLING, stop=["END"], top_k=5) == {
        "schemaVersion": "messages-v1",
        "system": [{"text": "Be brief."}],
        "messages": [
            {"role": "user", "content": [{"text": "Hi"}]},
            {"role": "assistant", "content": [{"text": "Hello."}]},
            {"role": "user", "content": [{"text": "How"}, {"text": " high?"}]},
        ],
        "inferenceConfig": {"maxTokens": 64, "temperature": 0.2, "topP": 0.9, "stopSequences": ["END"], "topK": 5},
    }


def test_models_that_continue_a_text_get_their_template() -> None:
    def block(role: str, text: str) -> str:
        return f"<|start_header_id|>{role}<|end_header_id|>\n\n{text}"

    assert body("meta.llama3-70b-instruct-v1:0", **SAMPLING) == {
        "prompt": "<|begin_of_text|>"
        + block("system", "Be brief.<|eot_id|>")
        + block("user", "Hi<|eot_id|>")
        + block("assistant", "Hello.<|eot_id|>")
        + block("user", "How high?<|eot_id|>")
        + block("assistant", ""),
        "max_gen_len": 64,
        "temperature": 0.2,
        "top_p": 0.9,
    }
    assert body("us.meta.llama4-scout-17b-instruct-v1:0", MESSAGES[1:2]) == {
        "prompt": "<|begin_of_text|><|header_start|>user<|header_end|>\n\nHi<|eot|>"
        "<|header_start|>assistant<|header_end|>\n\n"
    }
    assert body("mistral.mistral-7b-instruct-v0:2", **SAMPLING, stop="END", top_k=5) == {
        "prompt": "<s>[INST] Be brief.\n\nHi [/INST] Hello.</s>[INST] How high? [/INST]",
        **SAMPLING,
        "stop": ["END"],
        "top_k": 5,
    }
    assert body("amazon.titan-text-express-v1", **SAMPLING, stop="User:") == {
        "inputText": "Be brief.\nUser: Hi\nBot: Hello.\nUser: How high?\nBot:",
        "textGenerationConfig": {"maxTokenCount": 64, "temperature": 0.2, "topP": 0.9, "stopSequences": ["User:"]},
    }


def test_what_a_text_has_no_place_for_is_refused() -> None:
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]
    for messages in (image, ROUND):
        with pytest.raises(BadRequestError, match="continues a text"):
            sent("meta.llama3-8b-instruct-v1:0", messages)
    with pytest.raises(UnsupportedParamsError, match="stop"):
        sent("meta.llama3-8b-instruct-v1:0", stop="x")
    with pytest.raises(UnsupportedParamsError, match="tools"):
        sent("amazon.titan-text-lite-v1", tools=[{"type": "function", "function": TOOL}])


def test_converse_may_be_named_too() -> None:
    request = sent("amazon.nova-micro-v1:0", MESSAGES, route="converse")
    assert request.url.path == "/model/amazon.nova-micro-v1:0/converse"
    assert "inferenceConfig" not in json.loads(request.content)


# What comes back -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


CASES = [("hello", HELLO, 114), ("thinking", ANSWER, 94), ("converse-shaped", ANSWER, 37), ("generation", HELLO, None)]


@pytest.mark.parametrize(("case", "text", "total"), CASES)
@pytest.mark.parametrize("world", ["blocking", "asyncio"])
def test_a_stream_says_what_the_response_says(
    case: str, text: str, total: int | None, world: str, upstream: Upstream
) -> None:
    call: dict[str, Any] = {
        "model": f"bedrock/invoke/{case}?chunk=random:3",
        "messages": MESSAGES,
        "api_base": upstream.base_url,
        "api_key": "k",
        "aws_region_name": "us-east-1",
    }

    async def main() -> list[Any]:
        stream = await acompletion(stream=True, stream_options={"include_usage": True}, **call)
        return [chunk async for chunk in stream]

    if world == "asyncio":
        chunks = asyncio.run(main())
    else:
        chunks = list(completion(stream=True, stream_options={"include_usage": True}, **call))
    whole = completion(**call)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == text
    assert whole.choices[0].message.content == text
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert total is None or whole.usage.total_tokens == total
    if case == "thinking":
        assert whole.choices[0].message.reasoning_content == THOUGHT


def test_what_ends_a_stream_badly(upstream: Upstream) -> None:
    place: dict[str, Any] = {"api_base": upstream.base_url, "api_key": "k", "aws_region_name": "r", "max_retries": 0}
    for case in ("hello", "generation"):
        with pytest.raises(InternalServerError):
            completion(f"bedrock/invoke/{case}?error=3", MESSAGES, stream=True, **place).collect()
        with pytest.raises(APIConnectionError):
            completion(f"bedrock/invoke/{case}?cut=3", MESSAGES, stream=True, **place).collect()
