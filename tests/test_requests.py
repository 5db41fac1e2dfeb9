"""What is sent: bodies, headers, URLs, and what is refused before anything is."""

import asyncio
import dataclasses
import enum
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import httpx
import pytest

from penstock import (
    AuthenticationError,
    BadRequestError,
    ChatCompletionMessage,
    UnsupportedParamsError,
    __version__,
    acompletion,
    completion,
)
from penstock.call import CHAT, Options, plan
from penstock.providers.registry import ROWS, RowOptions
from penstock.wire import Parameters
from penstock.wire.schema import strict_schema

MESSAGES = [{"role": "user", "content": "Hello"}]
WHOLE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}
EVENTS = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Sent:
    """What one call sent."""

    def __init__(self, request: httpx.Request) -> None:
        self.url = str(request.url)
        self.headers = request.headers
        self.body = json.loads(request.content)


Send = Callable[..., Sent]


@pytest.fixture
def send() -> Iterator[Send]:
    """Calls, and gives what was sent."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        if json.loads(request.content).get("stream"):
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=EVENTS)
        return httpx.Response(200, json=WHOLE)

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:

        def send(model: str = "openai/gpt-4o", messages: Any = MESSAGES, **options: Any) -> Sent:
            options = {"api_key": "k", "max_retries": 0, "client": client, **options}
            result = completion(model, messages, **options)
            if options.get("stream"):
                result.close()
            return Sent(requests[-1])

        yield send


def refused(error: type[Exception] = BadRequestError, **options: Any) -> Any:
    """The error that such a call ends with, before anything is sent."""

    def never(request: httpx.Request) -> httpx.Response:
        raise AssertionError("sent")

    client = httpx.Client(transport=httpx.MockTransport(never))
    arguments: dict[str, Any] = {"model": "openai/gpt-4o", "messages": MESSAGES, "api_key": "k", "client": client}
    with client, pytest.raises(error) as caught:
        completion(**{**arguments, **options})
    assert type(caught.value) is error
    return caught.value


# The body -------------------------------------------------------------------------------------------------------------


def test_a_plain_request(send: Send) -> None:
    sent = send()
    assert sent.url == "https://api.openai.com/v1/chat/completions"
    assert sent.body == {"model": "gpt-4o", "messages": MESSAGES}
    assert sent.headers["authorization"] == "Bearer k"
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["user-agent"] == f"penstock/{__version__}"
    assert sent.headers["accept"] == "application/json"


def test_a_streamed_request(send: Send) -> None:
    sent = send(stream=True)
    assert sent.body["stream"] is True
    assert sent.body["stream_options"] == {"include_usage": True}
    assert sent.headers["accept"] == "text/event-stream"
    assert sent.headers["accept-encoding"] == "identity"


GIVEN: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "n": 2,
    "stop": ["a"],
    "max_completion_tokens": 5,
    "modalities": ["text"],
    "prediction": {"type": "content", "content": "x"},
    "audio": {"voice": "v", "format": "wav"},
    "presence_penalty": 0.1,
    "frequency_penalty": 0.2,
    "logit_bias": {50256: -100},
    "user": "u",
    "reasoning_effort": "low",
    "verbosity": "low",
    "response_format": {"type": "json_object"},
    "seed": 1,
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "logprobs": True,
    "top_logprobs": 2,
    "functions": [{"name": "f"}],
    "function_call": "auto",
    "web_search_options": {},
    "service_tier": "flex",
    "store": False,
    "metadata": {"a": "b"},
    "safety_identifier": "s",
    "prompt_cache_key": "p",
    "thinking": {"type": "enabled"},
    "top_k": 3,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
}


def test_every_parameter_is_sent_as_given(send: Send) -> None:
    assert set(GIVEN) | {"max_tokens", "stream_options"} == set(Parameters.__optional_keys__)
    sent = send(api_base="http://localhost:8000/v1", **GIVEN)
    expected = {**GIVEN, "logit_bias": {"50256": -100}}
    assert sent.body == {"model": "gpt-4o", "messages": MESSAGES, **expected}


def test_none_is_not_given(send: Send) -> None:
    sent = send(**dict.fromkeys(Parameters.__optional_keys__), timeout=None, extra_body=None, fallbacks=None)
    assert set(sent.body) == {"model", "messages"}


def test_parameters_are_renamed_and_spelled_by_the_row(send: Send) -> None:
    assert send(max_tokens=5).body["max_completion_tokens"] == 5
    assert send(max_tokens=5, api_base="http://localhost/v1").body["max_tokens"] == 5
    sent = send("mistral/m", max_completion_tokens=5, seed=3, tool_choice="required")
    assert sent.body["max_tokens"] == 5
    assert sent.body["random_seed"] == 3
    assert sent.body["tool_choice"] == "any"
    assert send(max_tokens=5, max_completion_tokens=5).body["max_completion_tokens"] == 5
    assert "differ" in refused(max_tokens=5, max_completion_tokens=6).message


def test_a_strict_server_gets_messages_as_it_takes_them(send: Send) -> None:
    call = {"id": "call_abc_0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assistant: dict[str, Any] = {
        "role": "assistant",
        "content": "So.",
        "reasoning_content": "Hm.",
        "refusal": None,
        "annotations": [],
    }
    history: list[dict[str, Any]] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hello", "name": "ada"},
        {**assistant, "tool_calls": [call], "annotations": []},
        {"role": "tool", "tool_call_id": "call_abc_0", "content": "1", "cache_control": {"type": "ephemeral"}},
        {"role": "assistant", "tool_calls": [{**call, "id": "a1b2C3d4E"}]},
        {"role": "tool", "tool_call_id": "a1b2C3d4E", "content": "2"},
    ]
    system, user, thinks, first, second, result = send("mistral/m", history).body["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert user == {"role": "user", "content": "Hello"}
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    assert thinks["content"] == [thought, {"type": "text", "text": "So."}]
    assert thinks.keys() == {"role", "content", "tool_calls"}
    (made,) = thinks["tool_calls"]
    assert len(made["id"]) == 9
    assert made["id"].isalnum()
    assert first == {"role": "tool", "tool_call_id": made["id"], "content": "1"}
    assert second["tool_calls"][0]["id"] == result["tool_call_id"] == "a1b2C3d4E"
    assert history[3]["tool_call_id"] == "call_abc_0"  # the caller's own stay as they are


def test_stream_options_go_where_they_are_accepted(send: Send) -> None:
    asked = {"include_usage": True, "include_obfuscation": False}
    assert send(stream=True, stream_options=asked).body["stream_options"] == asked
    assert send(stream=True, api_base="http://localhost/v1").body["stream_options"] == {"include_usage": True}
    assert "stream_options" not in send("mistral/m", stream=True).body
    assert "stream_options" not in send("mistral/m", stream=True, stream_options={"include_usage": True}).body
    assert "stream=True" in refused(stream_options={"include_usage": True}).message


def test_extra_body_comes_last(send: Send) -> None:
    assert send(temperature=0.1, extra_body={"temperature": 0.9, "mine": [1]}).body["temperature"] == 0.9
    assert send(extra_body={"mine": [1]}).body["mine"] == [1]


def test_messages_may_be_objects(send: Send) -> None:
    @dataclasses.dataclass
    class Message:
        role: str
        content: str

    class Model:
        """As a pydantic model looks."""

        model_fields: Mapping[str, Any] = {}

        def model_dump(self, *, exclude_none: bool = False) -> dict[str, Any]:
            return {"role": "user", "content": "c"} if exclude_none else {"role": "user", "content": "c", "name": None}

    answer = ChatCompletionMessage({"role": "assistant", "content": "b"})
    sent = send(messages=(Message("user", "a"), answer, Model()))
    assert [message["content"] for message in sent.body["messages"]] == ["a", "b", "c"]
    assert "name" not in sent.body["messages"][2]


@pytest.mark.parametrize(
    ("messages", "word"),
    [
        ("Hello", "messages"),
        (None, "messages"),
        ([{"role": "user", "content": "\ud800"}], "JSON"),
        ([object()], "JSON"),
    ],
)
def test_messages_that_cannot_be_sent(messages: Any, word: str) -> None:
    assert word in refused(messages=messages).message


# Around it ------------------------------------------------------------------------------------------------------------


def test_extra_headers_and_query_come_last(send: Send) -> None:
    sent = send(extra_headers={"X-Mine": 1, "Authorization": "Custom"}, extra_query={"a": ["b c", 2]})
    assert sent.headers["x-mine"] == "1"
    assert sent.headers.get_list("authorization") == ["Custom"]
    assert sent.url == "https://api.openai.com/v1/chat/completions?a=b+c&a=2"


def test_settings_become_headers(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    assert send(organization="org", project="p").headers["openai-organization"] == "org"
    monkeypatch.setenv("OPENAI_PROJECT_ID", "mine")
    assert send().headers["openai-project"] == "mine"
    assert refused(UnsupportedParamsError, model="groq/x", organization="org").param == "organization"
    sent = send("snowflake/claude", account_id="a1")
    assert sent.url.startswith("https://a1.snowflakecomputing.com/")
    assert sent.headers["x-snowflake-authorization-token-type"] == "KEYPAIR_JWT"


def test_base_url_is_another_name_of_api_base(send: Send) -> None:
    assert send(base_url="http://localhost/v1/").url == "http://localhost/v1/chat/completions"
    assert "base_url" in refused(base_url="http://a", api_base="http://b").message
    assert "num_retries" in refused(max_retries=1, num_retries=2).message


def test_keys_come_from_the_variables(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "OPENAI_API_KEY" in refused(AuthenticationError, api_key=None).message
    monkeypatch.setenv("OPENAI_API_KEY", "from-env")
    assert send(api_key=None).headers["authorization"] == "Bearer from-env"
    assert "groq" in refused(AuthenticationError, api_key=None, api_base="https://api.groq.com/openai/v1").message


def test_no_cookie_stays(send: Send) -> None:
    from penstock.transport import Route
    from penstock.transport.clients import _pools

    client = _pools.client(Route())
    reply = httpx.Response(200, headers={"set-cookie": "session=1"}, request=httpx.Request("GET", "https://a.example"))
    client.cookies.extract_cookies(reply)
    assert not client.cookies


# Refused before anything is sent --------------------------------------------------------------------------------------


def test_an_unsupported_parameter_is_named_dropped_or_sent(send: Send) -> None:
    error = refused(UnsupportedParamsError, top_k=3)
    assert (error.param, error.provider) == ("top_k", "openai")
    assert "drop_params" in error.message
    assert "top_k" not in send(top_k=3, drop_params=True).body
    assert send(top_k=3, allowed_openai_params=["top_k"]).body["top_k"] == 3
    assert "seed" not in send(seed=3, additional_drop_params=["seed"]).body


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("temprature", "temperature"), ("max_token", "max_tokens"), ("stream_option", "stream_options")],
)
def test_a_misspelled_keyword_is_told_what_is_near(name: str, nearest: str) -> None:
    error = refused(BadRequestError, **{name: 1})
    assert f"did you mean {nearest}?" in error.message
    assert "extra_body" in error.message
    assert error.param == name


def test_a_keyword_of_another_provider() -> None:
    assert "snowflake" in refused(account_id="x").message


@pytest.mark.parametrize(
    "options",
    [{"max_retries": -1}, {"max_retries": "2"}, {"transport": "carrier pigeon"}, {"client": 3}, {"timeout": "x"}],
)
def test_arguments_that_cannot_be(options: dict[str, Any]) -> None:
    assert next(iter(options)) in refused(**options).message


def test_the_same_is_refused_asynchronously() -> None:
    with pytest.raises(BadRequestError, match="did you mean temperature"):
        asyncio.run(acompletion("openai/gpt-4o", MESSAGES, temprature=1))  # type: ignore[call-overload]


def test_options_and_parameters_are_told_apart() -> None:
    assert set(Parameters.__optional_keys__) < set(Options.__optional_keys__)
    assert not Parameters.__required_keys__
    assert not Options.__required_keys__


def test_the_keywords_of_every_row_have_types() -> None:
    declared = {name for row in ROWS for name in row.keywords()}
    assert set(RowOptions.__optional_keys__) == declared - {"api_version", "organization"}
    assert declared <= set(Options.__optional_keys__)
    assert not RowOptions.__optional_keys__ & CHAT.options  # nobody knows them but their providers


async def _typed() -> None:
    """Not run: mypy reads it."""
    completion("vertex_ai/gemini-2.5-flash", MESSAGES, vertex_project="p", vertex_location="eu")
    completion("bedrock/m", MESSAGES, aws_region_name="eu-west-1", stream=True)
    await acompletion("azure/m", MESSAGES, azure_ad_token_provider=lambda: "t", temperature=0)
    await acompletion("azure/m", MESSAGES, aws_region_nam="x")  # type: ignore[call-overload]


# Response formats -----------------------------------------------------------------------------------------------------


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


@dataclasses.dataclass
class Step:
    text: str
    next: "Step | None" = None


@dataclasses.dataclass
class Plan:
    """A plan."""

    steps: list[Step]
    mood: Mood
    how: Literal["fast", "slow"] = "fast"
    score: float | None = None


def test_a_dataclass_becomes_a_strict_schema(send: Send) -> None:
    sent = send(response_format=Plan).body["response_format"]
    assert sent["type"] == "json_schema"
    assert sent["json_schema"]["name"] == "Plan"
    assert sent["json_schema"]["strict"] is True
    schema = sent["json_schema"]["schema"]
    assert schema["required"] == ["steps", "mood", "how", "score"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["mood"] == {"enum": ["good", "bad"]}
    assert schema["properties"]["how"] == {"enum": ["fast", "slow"]}
    assert schema["properties"]["score"] == {"anyOf": [{"type": "number"}, {"type": "null"}]}
    assert schema["properties"]["steps"] == {"type": "array", "items": {"$ref": "#/$defs/Step"}}
    step = schema["$defs"]["Step"]
    assert step["properties"]["next"] == {"anyOf": [{"$ref": "#/$defs/Step"}, {"type": "null"}]}
    assert step["additionalProperties"] is False


def test_a_model_with_its_own_schema_is_made_strict() -> None:
    class Model:
        """As a pydantic model looks."""

        @classmethod
        def model_json_schema(cls) -> dict[str, Any]:
            inner = {"type": "object", "properties": {"default": {"type": "string", "default": ""}}}
            return {
                "title": "Model",
                "type": "object",
                "properties": {"title": {"type": "string", "title": "Title"}, "a": {"$ref": "#/$defs/A", "default": 1}},
                "required": ["title"],
                "$defs": {"A": inner},
            }

    schema = strict_schema(Model)
    assert schema["properties"] == {"title": {"type": "string"}, "a": {"$ref": "#/$defs/A"}}
    assert schema["required"] == ["title", "a"]
    assert schema["$defs"]["A"]["required"] == ["default"]


@pytest.mark.parametrize("wrong", [int, dict])
def test_a_type_without_a_schema(wrong: type) -> None:
    assert "response_format" in refused(response_format=wrong).message


def test_variables_count_as_they_are_when_a_call_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("1", "2"):
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://localhost/v{version}")
        monkeypatch.setenv("OPENAI_API_KEY", f"k{version}")
        monkeypatch.setenv("OPENAI_ORGANIZATION", f"o{version}")
        call = plan(CHAT, "openai/gpt-4o", [], False, {})
        assert call.url == f"http://localhost/v{version}/chat/completions"
        assert call.headers["authorization"] == f"Bearer k{version}"
        assert call.headers["openai-organization"] == f"o{version}"
