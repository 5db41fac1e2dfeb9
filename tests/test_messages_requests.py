"""What the Messages family sends, golden bodies; and what its answers become."""

import json
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from penstock import BadRequestError, UnsupportedParamsError, completion
from penstock.providers.registry import PROVIDERS
from penstock.wire import ANSWER_TOOL
from penstock.wire.anthropic import build

ROW = PROVIDERS["anthropic"]
USER = {"role": "user", "content": "Hello"}
PNG = "data:image/png;base64,aGk="


def body(messages: Any = (USER,), model: str = "claude-sonnet-4-5", *, stream: bool = False, **parameters: Any) -> Any:
    return build(ROW, model, list(messages), parameters, stream=stream)


def turns(*messages: Any) -> Any:
    return body(messages)["messages"]


def blocks(*parts: Any) -> Any:
    return turns({"role": "user", "content": list(parts)})[0]["content"]


def text(text: str, **more: Any) -> Any:
    return {"type": "text", "text": text, **more}


def call(id: str, name: str = "f", arguments: str = "{}") -> Any:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


# Messages -------------------------------------------------------------------------------------------------------------


def test_the_least() -> None:
    assert body() == {
        "model": "claude-sonnet-4-5",
        "max_tokens": 16384,
        "messages": [{"role": "user", "content": [text("Hello")]}],
    }
    assert body(stream=True)["stream"] is True


def test_system_messages_go_to_the_top() -> None:
    assert body([{"role": "system", "content": "Be brief."}, USER])["system"] == "Be brief."
    cached = {"role": "system", "content": [text("Long", cache_control={"type": "ephemeral"})]}
    assert body([cached, {"role": "developer", "content": "Be brief."}, USER])["system"] == [
        text("Long", cache_control={"type": "ephemeral"}),
        text("Be brief."),
    ]
    assert "system" not in body()


def test_neighbours_of_one_role_are_one_turn() -> None:
    assert turns(USER, {"role": "user", "content": "there"}, {"role": "assistant", "content": "Hi"}) == [
        {"role": "user", "content": [text("Hello"), text("there")]},
        {"role": "assistant", "content": [text("Hi")]},
    ]


def test_a_text_of_nothing_is_left_out() -> None:
    assert turns(USER, {"role": "assistant", "content": ""}) == [{"role": "user", "content": [text("Hello")]}]
    assert blocks(text(""), text("x")) == [text("x")]


def test_what_is_to_be_continued_has_no_space_at_its_end() -> None:
    assert turns(USER, {"role": "assistant", "content": "Once upon "})[1]["content"] == [text("Once upon")]


def test_images_and_documents() -> None:
    assert blocks(
        {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
        {"type": "image_url", "image_url": "https://example.com/a.png", "cache_control": {"type": "ephemeral"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,aGk=", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_data": "data:text/plain;base64,aGk="}},
        {"type": "file", "file": {"file_id": "https://example.com/a.pdf"}},
        {"type": "file", "file": {"file_id": "file_1"}},
        {"type": "search_result", "source": "s"},
    ) == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
        {
            "type": "image",
            "source": {"type": "url", "url": "https://example.com/a.png"},
            "cache_control": {"type": "ephemeral"},
        },
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="},
            "title": "a.pdf",
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}},
        {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
        {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "search_result", "source": "s"},
    ]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "a.png"}},
        {"type": "file", "file": {}},
        {"type": "input_audio", "input_audio": {}},
    ],
)
def test_parts_that_cannot_be_sent(part: Any) -> None:
    with pytest.raises(BadRequestError):
        blocks(part)


def test_calls_and_their_results() -> None:
    calls = [call("a", arguments='{"x": 1}'), call("b", "g")]
    assert turns(
        USER,
        {"role": "assistant", "content": "Let me see.", "tool_calls": calls},
        {"role": "user", "content": "Well?"},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": [text("2")], "is_error": True},
    )[1:] == [
        {
            "role": "assistant",
            "content": [
                text("Let me see."),
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "b", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "1"},
                {"type": "tool_result", "tool_use_id": "b", "content": [text("2")], "is_error": True},
                text("Well?"),
            ],
        },
    ]
    with pytest.raises(BadRequestError, match="not JSON"):
        turns({"role": "assistant", "tool_calls": [call("a", arguments="{")]})


def test_what_came_back_goes_back() -> None:
    thinking = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    redacted = {"type": "redacted_thinking", "data": "ENC"}
    search = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}
    result = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}
    pending = {"type": "server_tool_use", "id": "s2", "name": "web_search", "input": {}}
    message = {
        "role": "assistant",
        "content": "So",
        "reasoning_content": "hm",
        "thinking_blocks": [thinking, redacted, {"type": "thinking", "thinking": "unsigned", "signature": ""}],
        "content_blocks": [search, result, pending],
        "tool_calls": [call("a")],
    }
    use = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    assert turns(USER, message)[1]["content"] == [thinking, redacted, search, result, text("So"), pending, use]


def test_an_unknown_role() -> None:
    with pytest.raises(BadRequestError, match="role"):
        turns({"role": "function", "content": "x"})


# Parameters -----------------------------------------------------------------------------------------------------------


def test_samplers_and_stops() -> None:
    sent = body(temperature=1.5, top_p=0.9, top_k=5, stop="END", max_tokens=7, user="u1", service_tier="auto")
    del sent["messages"], sent["model"]
    assert sent == {
        "temperature": 1,
        "top_p": 0.9,
        "top_k": 5,
        "stop_sequences": ["END"],
        "max_tokens": 7,
        "metadata": {"user_id": "u1"},
        "service_tier": "auto",
    }


def test_tools() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "number"}}}
    function = {"name": "f", "description": "d", "parameters": schema, "strict": True}
    server = {"type": "web_search_20250305", "name": "web_search"}
    tools = [
        {"type": "function", "function": function, "cache_control": {"type": "ephemeral"}},
        {"type": "function", "function": {"name": "g"}},
        server,
    ]
    assert body(tools=tools)["tools"] == [
        {
            "name": "f",
            "description": "d",
            "input_schema": schema,
            "strict": True,
            "cache_control": {"type": "ephemeral"},
        },
        {"name": "g", "input_schema": {"type": "object", "properties": {}}},
        server,
    ]


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (None, None, None),
        ("auto", None, {"type": "auto"}),
        ("required", None, {"type": "any"}),
        ("none", False, {"type": "none"}),
        ({"type": "function", "function": {"name": "f"}}, None, {"type": "tool", "name": "f"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        (None, True, None),
    ],
)
def test_tool_choice(choice: Any, parallel: Any, expected: Any) -> None:
    both = {"tool_choice": choice, "parallel_tool_calls": parallel}
    given = {name: value for name, value in both.items() if value is not None}
    sent = body(tools=[{"type": "function", "function": {"name": "f"}}], **given)
    assert sent.get("tool_choice") == expected


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "config"),
    [
        ("claude-sonnet-4-5", "low", {"type": "enabled", "budget_tokens": 1024}, None),
        ("claude-sonnet-4-20250514", "high", {"type": "enabled", "budget_tokens": 4096}, None),
        ("claude-3-7-sonnet-latest", "medium", {"type": "enabled", "budget_tokens": 2048}, None),
        ("claude-opus-4-6", "high", {"type": "adaptive"}, {"effort": "high"}),
        ("claude-sonnet-5", "minimal", {"type": "adaptive"}, {"effort": "low"}),
        ("claude-sonnet-4-5", "none", {"type": "disabled"}, None),
    ],
)
def test_effort(model: str, effort: str, thinking: Any, config: Any) -> None:
    sent = body(model=model, reasoning_effort=effort, temperature=0.2)
    assert (sent["thinking"], sent.get("output_config")) == (thinking, config)
    assert sent["max_tokens"] > thinking.get("budget_tokens", 0)
    # While it thinks it takes no temperature.
    assert ("temperature" in sent) == (effort == "none")


def test_thinking_is_sent_as_given() -> None:
    given = {"type": "enabled", "budget_tokens": 9000}
    sent = body(thinking=given, reasoning_effort="low")
    assert (sent["thinking"], sent["max_tokens"]) == (given, 9000 + 16384)
    assert "output_config" not in sent


def test_the_budget_leaves_room_for_an_answer() -> None:
    assert body(reasoning_effort="high", max_tokens=2000)["thinking"]["budget_tokens"] == 1999
    with pytest.raises(BadRequestError, match="no room to think"):
        body(reasoning_effort="low", max_tokens=1000)
    with pytest.raises(BadRequestError, match="reasoning_effort"):
        body(reasoning_effort="hard")


@pytest.mark.parametrize(
    ("model", "expected"),
    [("claude-3-haiku-20240307", 4096), ("claude-3-5-sonnet-latest", 8192), ("claude-opus-4-1", 16384), ("M2", 4096)],
)
def test_max_tokens_has_a_default(model: str, expected: int) -> None:
    assert body(model=model)["max_tokens"] == expected


def test_structured_output() -> None:
    schema = {"type": "object"}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    sent = body(response_format=wanted, model="claude-opus-4-6", reasoning_effort="low")
    assert sent["output_config"] == {"format": {"type": "json_schema", "schema": schema}, "effort": "low"}
    assert "output_config" not in body(response_format={"type": "text"})
    with pytest.raises(UnsupportedParamsError, match="grammar"):
        body(response_format={"type": "grammar"})


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}


@pytest.mark.parametrize(
    ("model", "wanted", "schema"),
    [
        ("claude-3-7-sonnet-20250219", JSON_SCHEMA, SCHEMA),
        ("MiniMax-M2", JSON_SCHEMA, SCHEMA),
        ("claude-sonnet-4-5", {"type": "json_object"}, {"type": "object"}),
    ],
)
def test_without_schemas_the_answer_is_a_tool_that_has_to_be_called(
    model: str, wanted: dict[str, Any], schema: dict[str, Any]
) -> None:
    sent = body(model=model, response_format=wanted)
    assert "output_config" not in sent
    assert [(tool["name"], tool["input_schema"]) for tool in sent["tools"]] == [(ANSWER_TOOL, schema)]
    assert sent["tool_choice"] == {"type": "tool", "name": ANSWER_TOOL}


def test_an_answer_tool_beside_others() -> None:
    model = "claude-3-5-haiku-latest"

    def choice(**given: Any) -> Any:
        sent = body(model=model, response_format=JSON_SCHEMA, tools=[WEATHER], **given)
        return [tool["name"] for tool in sent["tools"]], sent["tool_choice"]

    both = ["weather", ANSWER_TOOL]
    assert choice() == choice(tool_choice="auto") == choice(tool_choice="required") == (both, {"type": "any"})
    assert choice(tool_choice="none") == (both, {"type": "tool", "name": ANSWER_TOOL})
    weather = {"type": "function", "function": {"name": "weather"}}
    assert choice(tool_choice=weather) == (["weather"], {"type": "tool", "name": "weather"})


def test_what_an_answer_tool_cannot_do() -> None:
    with pytest.raises(UnsupportedParamsError, match="while it thinks"):
        body(model="claude-3-7-sonnet-latest", response_format=JSON_SCHEMA, reasoning_effort="low")
    array = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}}
    with pytest.raises(UnsupportedParamsError, match="'array'"):
        body(model="claude-3-7-sonnet-latest", response_format=array)


# The call -------------------------------------------------------------------------------------------------------------

START = {"id": "msg_1", "model": "m", "usage": {"input_tokens": 3, "output_tokens": 1}}
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": START},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]


def test_a_call_from_end_to_end() -> None:
    requests = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        events = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in EVENTS)
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, text=events)

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        options = {"include_usage": True}
        stream = completion(
            "claude-sonnet-4-5", [USER], stream=True, stream_options=options, api_key="k", client=client
        )
        chunks = list(stream)
    assert str(requests[0].url) == "https://api.anthropic.com/v1/messages"
    assert requests[0].headers["x-api-key"] == "k"
    assert requests[0].headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in requests[0].headers
    assert "stream_options" not in json.loads(requests[0].content)
    assert [chunk.choices[0].delta.content for chunk in chunks[:-1]] == [None, "Hi", None]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 5
    assert chunks[-2].choices[0]["provider_finish_reason"] == "end_turn"


@dataclass
class City:
    city: str


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("wanted", [{"type": "json_object"}, City])
def test_an_answer_by_a_tool_is_content(wanted: Any, stream: bool) -> None:
    pieces = ['{"city"', ':"Paris"', "}"]
    call_of_it: dict[str, Any] = {"type": "tool_use", "id": "t", "name": ANSWER_TOOL, "input": {}}
    events: list[dict[str, Any]] = [
        EVENTS[0],
        {"type": "content_block_start", "index": 0, "content_block": call_of_it},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": piece}}
            for piece in pieces
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 2}},
        EVENTS[-1],
    ]

    def answer(_: httpx.Request) -> httpx.Response:
        if stream:
            body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, text=body)
        content = [{**call_of_it, "input": {"city": "Paris"}}]
        return httpx.Response(200, json={**START, "type": "message", "content": content, "stop_reason": "tool_use"})

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        options: dict[str, Any] = {"response_format": wanted, "api_key": "k", "client": client}
        if stream:
            given = completion("claude-3-5-haiku-latest", [USER], stream=True, **options)
            assert list(given.text()) == pieces
            response = completion("claude-3-5-haiku-latest", [USER], stream=True, **options).collect()
        else:
            response = completion("claude-3-5-haiku-latest", [USER], **options)
    choice = response.choices[0]
    assert json.loads(choice.message.content or "") == {"city": "Paris"}
    assert choice.message.tool_calls is None
    assert choice.finish_reason == "stop"
    if wanted is City:
        assert choice.message.parsed == City("Paris")


def test_parameters_that_it_lacks() -> None:
    lacking: dict[str, Any] = {"n": 2, "seed": 1, "logprobs": True, "presence_penalty": 0.5, "logit_bias": {"1": 1}}
    for name, value in lacking.items():
        with pytest.raises(UnsupportedParamsError, match=name):
            completion("claude-sonnet-4-5", [USER], api_key="k", **{name: value})
