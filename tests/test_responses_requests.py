"""What the Responses family sends, golden bodies; and what its answers become."""

import json
from typing import Any

import httpx
import pytest

from penstock import BadRequestError, UnsupportedParamsError, completion
from penstock.providers.registry import PROVIDERS
from penstock.wire.responses import build

ROW = PROVIDERS["openai_responses"]
USER = {"role": "user", "content": "Hello"}


def body(messages: Any = (USER,), model: str = "gpt-4o", *, stream: bool = False, **parameters: Any) -> Any:
    return build(ROW, model, list(messages), parameters, stream=stream)


def items(*messages: Any) -> Any:
    return body(messages)["input"]


def test_the_least() -> None:
    assert body() == {
        "model": "gpt-4o",
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hello"}]}],
        "store": False,
    }
    sent = body(stream=True, stream_options={"include_usage": True, "include_obfuscation": False})
    assert (sent["stream"], sent["stream_options"]) == (True, {"include_obfuscation": False})


def test_parts() -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
        {"type": "image_url", "image_url": "data:image/png;base64,aGk="},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,aGk=", "filename": "a.pdf"}},
    ]
    assert items({"role": "user", "content": parts})[0]["content"] == [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "low"},
        {"type": "input_image", "image_url": "data:image/png;base64,aGk=", "detail": "auto"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,aGk=", "filename": "a.pdf"},
    ]


def test_a_conversation() -> None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "ENC"}
    message = {
        "role": "assistant",
        "content": "Let me see.",
        "reasoning_content": "hm",
        "output_items": [reasoning],
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
            {"id": "b", "type": "custom", "custom": {"name": "sql", "input": "select 1"}},
        ],
    }
    assert items(
        {"role": "system", "content": "Be brief."},
        message,
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "2"}]},
        {"role": "assistant", "refusal": "no"},
    ) == [
        {"role": "system", "content": [{"type": "input_text", "text": "Be brief."}]},
        reasoning,
        {"role": "assistant", "content": "Let me see."},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": '{"x":1}'},
        {"type": "custom_tool_call", "call_id": "b", "name": "sql", "input": "select 1"},
        {"type": "function_call_output", "call_id": "a", "output": "1"},
        {"type": "custom_tool_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "2"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    ]
    with pytest.raises(BadRequestError, match="role"):
        items({"role": "function", "content": "x"})


def test_tools() -> None:
    function = {"name": "f", "parameters": {"type": "object"}, "strict": True}
    sent = body(
        tools=[{"type": "function", "function": function}, {"type": "web_search"}],
        tool_choice={"type": "function", "function": {"name": "f"}},
        parallel_tool_calls=False,
    )
    assert sent["tools"] == [{"type": "function", **function}, {"type": "web_search"}]
    assert sent["tool_choice"] == {"type": "function", "name": "f"}
    assert sent["parallel_tool_calls"] is False
    # Functions are strict in this family unless they say otherwise, in chat completions only if they say so.
    [plain] = body(tools=[{"type": "function", "function": {"name": "g"}}])["tools"]
    assert plain == {"type": "function", "name": "g", "parameters": None, "strict": False}
    assert body(tool_choice="required")["tool_choice"] == "required"


def test_text_and_reasoning() -> None:
    schema = {"name": "n", "schema": {"type": "object"}, "strict": True}
    wanted = {"type": "json_schema", "json_schema": schema}
    sent = body(response_format=wanted, verbosity="low", reasoning_effort="high", logprobs=True, top_logprobs=2)
    assert sent["text"] == {"format": {"type": "json_schema", **schema}, "verbosity": "low"}
    assert sent["reasoning"] == {"effort": "high"}
    assert sent["include"] == ["reasoning.encrypted_content", "message.output_text.logprobs"]
    assert sent["top_logprobs"] == 2
    assert body(response_format={"type": "json_object"})["text"] == {"format": {"type": "json_object"}}


@pytest.mark.parametrize(
    ("model", "more", "included"),
    [
        ("gpt-4o", {}, False),
        ("gpt-5-mini", {}, True),
        ("gpt-5-chat-latest", {}, False),
        ("openai/o3", {}, True),
        ("o3", {"store": True}, False),
        ("grok-4", {"reasoning_effort": "low"}, True),
        ("gpt-5.1", {"reasoning_effort": "none"}, False),
    ],
)
def test_reasoning_comes_back_where_nothing_is_stored(model: str, more: Any, included: bool) -> None:
    assert ("include" in body(model=model, **more)) == included


def test_a_call_from_end_to_end() -> None:
    requests = []
    response = {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "model": "m",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}],
        "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    }

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, json=response)

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        result = completion("openai_responses/gpt-4o", [USER], max_tokens=9, api_key="k", client=client)
    assert str(requests[0].url) == "https://api.openai.com/v1/responses"
    assert requests[0].headers["authorization"] == "Bearer k"
    assert json.loads(requests[0].content)["max_output_tokens"] == 9
    assert result.choices[0].message.content == "Hi"
    assert result.usage is not None
    assert result.usage.total_tokens == 3


def test_parameters_that_it_lacks() -> None:
    lacking: dict[str, Any] = {"n": 2, "seed": 1, "stop": "x", "presence_penalty": 0.5, "logit_bias": {"1": 1}}
    for name, value in lacking.items():
        with pytest.raises(UnsupportedParamsError, match=name):
            completion("openai_responses/gpt-4o", [USER], api_key="k", **{name: value})
