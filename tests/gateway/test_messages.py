"""Requests for messages as chat completions, for upstreams that take blocks and for those that do not."""

import contextlib
import copy
import json
from typing import Any

import pytest

from penstock import BadRequestError
from penstock.gateway.messages import chat_of
from penstock.providers.registry import PROVIDERS
from penstock.wire import builder

HELLO = {"role": "user", "content": "Hello"}
MARK = {"type": "ephemeral"}
PNG = {"type": "base64", "media_type": "image/png", "data": "aGk="}
IMAGE = {"type": "image", "source": PNG}
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}

TOOL = {"name": "f", "input_schema": SCHEMA}


def text(text: str, **more: Any) -> Any:
    return {"type": "text", "text": text, **more}


def body(*messages: Any, **more: Any) -> Any:
    return {"model": "claude-sonnet-4-6", "max_tokens": 100, "messages": list(messages or [HELLO]), **more}


def messages(*turns: Any, family: str = "chat", **more: Any) -> Any:
    return chat_of(body(*turns, **more), family)[0]


def parameters(family: str = "chat", **more: Any) -> Any:
    found = chat_of(body(**more), family)[1]
    assert found.pop("max_tokens") == 100
    return found


def refused(request: Any, family: str = "chat") -> tuple[str | None, str]:
    with pytest.raises(BadRequestError) as caught:
        chat_of(request, family)
    return caught.value.param, caught.value.message


# There and back -------------------------------------------------------------------------------------------------------

WHOLE = body(
    {"role": "user", "content": [text("Look", cache_control=MARK), IMAGE]},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Hm", "signature": "sig"},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
            {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
            text("Let me see."),
            {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}, "cache_control": MARK},
            {"type": "tool_use", "id": "b", "name": "g", "input": {}, "caller": {"type": "direct"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "a", "content": "1", "is_error": True, "cache_control": MARK},
            {"type": "tool_result", "tool_use_id": "b", "content": [text("2"), IMAGE]},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}, "title": "t",
             "context": "c", "citations": {"enabled": True}},
            {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
            {"type": "search_result", "source": "s", "title": "t", "content": [text("r")]},
            {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
            text("So?"),
        ],
    },
    {"role": "assistant", "content": [text("It is")]},
    system=[text("Be brief.", cache_control=MARK), text("Be kind.")],
    tools=[
        {"name": "f", "description": "d", "input_schema": SCHEMA, "strict": True, "defer_loading": True},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
    ],
    tool_choice={"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    stop_sequences=["###"],
    metadata={"user_id": "u" * 100},
    thinking={"type": "adaptive", "display": "summarized"},
    output_config={"effort": "max", "format": {"type": "json_schema", "schema": SCHEMA}},
    top_k=5,
    top_p=0.5,
    service_tier="standard_only",
    stream=True,
)  # fmt: skip


def rebuilt(request: Any, family: str = "anthropic") -> Any:
    asked, given = chat_of(request, family)
    stream = given.pop("stream", False)
    return builder("anthropic")(PROVIDERS["anthropic"], request["model"], asked, given, stream=stream)


def test_an_upstream_that_takes_blocks_gets_what_was_asked() -> None:
    assert rebuilt(WHOLE) == WHOLE


@pytest.mark.parametrize(
    "more",
    [
        {"system": "Be brief."},
        {"temperature": 0.5},
        {"tool_choice": {"type": "any"}, "tools": [TOOL]},
        {"tool_choice": {"type": "none"}, "tools": [TOOL]},
        {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}, "tools": [TOOL]},
        {"thinking": {"type": "enabled", "budget_tokens": 50}},
        {"thinking": {"type": "disabled"}, "temperature": 1},
        {"stream": True},
    ],
)  # fmt: skip
def test_each_field_there_and_back(more: Any) -> None:
    request = body({"role": "user", "content": [text("Hello")]}, **more)
    assert rebuilt(request) == request


def test_the_least_is_as_the_api_of_openai_has_it() -> None:
    assert chat_of(body(stream=False), "chat") == ([HELLO], {"max_tokens": 100, "stream": False})
    assert messages(system="Be brief.") == [{"role": "system", "content": "Be brief."}, HELLO]
    assert messages(HELLO, {"role": "system", "content": "Now in French."})[1]["content"] == "Now in French."


# Upstreams that know OpenAI's fields alone ----------------------------------------------------------------------------


def test_marks_are_for_those_that_know_them() -> None:
    marked = body(
        {"role": "user", "content": [text("Look", cache_control=MARK)]},
        system=[text("Be brief.", cache_control=MARK)],
        tools=[{"name": "f", "input_schema": SCHEMA, "cache_control": MARK}],
        cache_control=MARK,
        context_management={"edits": []},
    )
    asked, given = chat_of(marked, "chat")
    assert "cache_control" not in json.dumps([asked, given])
    assert asked == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Look"}]
    asked, given = chat_of(marked, "converse")
    assert [message["content"] for message in asked] == [
        [text("Be brief.", cache_control=MARK)],
        [text("Look", cache_control=MARK)],
    ]
    assert given["tools"][0]["cache_control"] == MARK


def test_images_and_documents_are_parts() -> None:
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "aGk="}
    turn = {
        "role": "user",
        "content": [
            IMAGE,
            {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
            {"type": "document", "source": pdf, "title": "a.pdf"},
            {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
            {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}, "title": "t"},
            {"type": "document", "source": {"type": "content", "content": [text("one"), text("two")]}},
        ],
    }
    assert messages(turn)[0]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,aGk=", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_data": "https://example.com/a.pdf"}},
        {"type": "file", "file": {"file_id": "file_1"}},
        text("t\n\nd"),
        text("one\ntwo"),
    ]


def test_calls_and_their_results() -> None:
    found = messages(
        HELLO,
        {
            "role": "assistant",
            "content": [
                text("Let me "),
                text("see."),
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "b", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                text("Here:"),
                {"type": "tool_result", "tool_use_id": "a", "content": [text("1"), IMAGE]},
                {"type": "tool_result", "tool_use_id": "b", "is_error": True},
                text("So?"),
            ],
        },
    )
    assert found[1:] == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
                {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": ""},
        # What a result shows comes after it: there it may be a text only.
        {
            "role": "user",
            "content": [
                text("Here:"),
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
                text("So?"),
            ],
        },
    ]
    turn = {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]}
    assert messages(HELLO, turn)[1]["content"] is None
    only = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "1"}]}
    assert messages(only) == [{"role": "tool", "tool_call_id": "a", "content": "1"}]


def test_thinking_goes_back_to_those_that_made_it() -> None:
    turn = {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Signed", "signature": "sig"},
            {"type": "redacted_thinking", "data": "x"},
            # As this proxy writes what models of other families think.
            {"type": "thinking", "thinking": "Not ", "signature": ""},
            {"type": "thinking", "thinking": "signed"},
            text("Hi"),
        ],
    }
    assert messages(HELLO, turn)[1] == {"role": "assistant", "content": "Hi", "reasoning_content": "Not signed"}
    converse = messages(HELLO, turn, family="converse")[1]
    assert converse["thinking_blocks"] == turn["content"][:2]
    assert converse["reasoning_content"] == "Not signed"


def test_tools() -> None:
    tools = [
        {"type": "custom", "name": "f", "description": "d", "input_schema": SCHEMA, "strict": True},
        {"name": "g", "input_schema": {"type": "object"}, "eager_input_streaming": True},
    ]
    assert parameters(tools=tools)["tools"] == [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}},
        {"type": "function", "function": {"name": "g", "parameters": {"type": "object"}}},
    ]
    assert parameters(tools=[]) == {}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "f"}, {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
        (
            {"type": "auto", "disable_parallel_tool_use": True},
            {"tool_choice": "auto", "parallel_tool_calls": False},
        ),
    ],
)
def test_tool_choice(choice: Any, expected: Any) -> None:
    assert parameters(tool_choice=choice) == expected


@pytest.mark.parametrize(
    ("family", "more", "expected"),
    [
        ("chat", {"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"reasoning_effort": "low"}),
        ("chat", {"thinking": {"type": "enabled", "budget_tokens": 2048}}, {"reasoning_effort": "medium"}),
        ("responses", {"thinking": {"type": "enabled", "budget_tokens": 31999}}, {"reasoning_effort": "high"}),
        ("chat", {"thinking": {"type": "adaptive"}}, {}),
        ("chat", {"thinking": {"type": "disabled"}}, {}),
        ("chat", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, {"reasoning_effort": "xhigh"}),
        (
            "chat",
            {"output_config": {"effort": "low"}, "thinking": {"type": "enabled", "budget_tokens": 9000}},
            {"reasoning_effort": "low"},
        ),
        (
            "gemini",
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        ),
        ("chat", {"stop_sequences": ["a", "b"]}, {"stop": ["a", "b"]}),
        ("chat", {"stop_sequences": []}, {}),
        ("chat", {"metadata": {"user_id": "me"}}, {"user": "me"}),
        ("chat", {"metadata": {"user_id": None}}, {}),
        ("chat", {"metadata": None, "system": None}, {}),
        ("chat", {"service_tier": "standard_only"}, {"service_tier": "default"}),
        ("chat", {"service_tier": "auto"}, {"service_tier": "auto"}),
        ("chat", {"top_k": 5, "top_p": 0.5, "temperature": 0}, {"top_k": 5, "top_p": 0.5, "temperature": 0}),
    ],
)
def test_parameters(family: str, more: Any, expected: Any) -> None:
    assert parameters(family, **more) == expected


def test_a_form_for_the_answer() -> None:
    config = {"format": {"type": "json_schema", "schema": SCHEMA}, "effort": None}
    described = {"name": "answer", "strict": True, "schema": SCHEMA}
    assert parameters(output_config=config) == {"response_format": {"type": "json_schema", "json_schema": described}}


def test_a_user_too_long_for_others_is_the_same_each_time() -> None:
    user = parameters(metadata={"user_id": "u" * 200})["user"]
    assert len(user) == 64
    assert (
        parameters(metadata={"user_id": "u" * 200})["user"]
        == user
        != parameters(metadata={"user_id": "v" * 200})["user"]
    )


def test_what_is_said_to_the_proxy_and_what_is_let_through() -> None:
    assert parameters(drop_params=True, metadata={"tags": ["a"], "user_id": "me"}) == {
        "drop_params": True,
        "user": "me",
    }
    request = body(container="c", context_management={"edits": []}, thinking={"type": "disabled"})
    passed = chat_of(request, "anthropic", {"container", "context_management"})[1]
    assert passed["container"] == "c"
    assert passed["context_management"] == {"edits": []}


# What cannot be said --------------------------------------------------------------------------------------------------


def turn(*blocks: Any, role: str = "user") -> Any:
    return {"role": role, "content": list(blocks)}


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (body(container="c"), "container"),
        (body(mcp_servers=[]), "mcp_servers"),
        (body(temprature=1), "temprature"),
        (body(metadata={"tag": "x"}), "metadata.tag"),
        (body(metadata="x"), "metadata"),
        (body(output_config={"task_budget": {}}), "output_config.task_budget"),
        (body(output_config={"format": {"type": "grammar"}}), "output_config.format.type"),
        (body(output_config={"format": {"type": "json_schema"}}), "output_config.format.schema"),
        (body(thinking={"type": "hard"}), "thinking.type"),
        (body(thinking={"type": "enabled"}), "thinking.budget_tokens"),
        (body(tool_choice={"type": "some"}), "tool_choice.type"),
        (body(tool_choice={"type": "tool"}), "tool_choice.name"),
        (body(tools=[{"type": "web_search_20250305", "name": "web_search"}]), "tools[0]"),
        (body(tools=[{"name": "f", "input_schema": {}, "defer_loading": True}]), "tools[0].defer_loading"),
        (body(tools=[{"name": "f"}]), "tools[0].input_schema"),
        (body(tools={}), "tools"),
        (body(stop_sequences="###"), "stop_sequences"),
        ({"max_tokens": 1}, "messages"),
        (body("Hello"), "messages[0]"),
        (body({"role": "tool", "content": ""}), "messages[0].role"),
        (body({"role": "user"}), "messages[0].content"),
        (body(HELLO, turn("Hi")), "messages[1].content[0]"),
        (body(turn({"type": "text"})), "messages[0].content[0].text"),
        (body(turn({"type": "search_result", "source": "s"})), "messages[0].content[0]"),
        (body(turn({"type": "image", "source": {"type": "file", "file_id": "f"}})), "messages[0].content[0].source"),
        (body(turn({"type": "image"})), "messages[0].content[0].source"),
        (body(turn({"type": "image", "source": {"type": "url"}})), "messages[0].content[0].source.url"),
        (body(turn({"type": "document", "source": {"type": "tape"}})), "messages[0].content[0].source.type"),
        (
            body(turn({"type": "document", "source": {"type": "content", "content": [IMAGE]}})),
            "messages[0].content[0].source",
        ),
        (body(turn({"type": "tool_result"})), "messages[0].content[0].tool_use_id"),
        (body(turn({"type": "tool_use", "id": "a", "name": "f"}, role="assistant")), "messages[0].content[0].input"),
        (body(turn({"type": "server_tool_use", "id": "s"}, role="assistant")), "messages[0].content[0]"),
        (body(system=1), "system"),
        (body(system=[{"type": "image", "source": {}}]), "system[0].source"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_named(request_: Any, param: str) -> None:
    named, message = refused(request_)
    assert named == param
    assert message.startswith(param)


ALL = body(
    turn(
        text("Look", cache_control=MARK),
        IMAGE,
        {"type": "document", "source": {"type": "text", "data": "d"}, "title": "t", "context": "c"},
        {"type": "document", "source": {"type": "content", "content": [text("a")]}},
        {"type": "document", "source": PNG, "title": "t"},
    ),
    turn(
        {"type": "thinking", "thinking": "Hm", "signature": "sig"},
        {"type": "thinking", "thinking": "Hm"},
        text("Let me see."),
        {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
        role="assistant",
    ),
    turn({"type": "tool_result", "tool_use_id": "a", "content": [text("r"), IMAGE], "is_error": True}),
    system=[text("s", cache_control=MARK)],
    tools=[{**TOOL, "type": "custom", "description": "d", "strict": True, "cache_control": MARK}],
    tool_choice={"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    thinking={"type": "enabled", "budget_tokens": 2000},
    output_config={"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    stop_sequences=["a"],
    metadata={"user_id": "u", "tags": ["a"]},
    service_tier="auto",
)
JUNK: tuple[Any, ...] = (None, True, 5, 1.5, "x", "", [], {}, [[]], [5], {"a": 1}, {"type": []}, [{"type": {}}])


def places(value: Any, at: tuple[Any, ...] = ()) -> Any:
    """The ways to all that is in a document."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield (*at, name)
        yield from places(part, (*at, name))


@pytest.mark.parametrize("family", ["chat", "anthropic", "converse", "gemini"])
def test_whatever_stands_somewhere_is_taken_or_refused(family: str) -> None:
    for *way, last in places(ALL):
        for junk in JUNK:
            request = copy.deepcopy(ALL)
            part = request
            for name in way:
                part = part[name]
            part[last] = junk
            with contextlib.suppress(BadRequestError):
                chat_of(request, family)


def test_nothing_of_an_upstream_with_blocks_is_refused_but_unknown_fields() -> None:
    assert chat_of(body(turn({"type": "search_result", "source": "s"})), "anthropic")
    assert refused(body(container="c"), "anthropic")[0] == "container"
    assert refused(body({"role": "tool"}), "invoke")[0] == "messages[0].role"
