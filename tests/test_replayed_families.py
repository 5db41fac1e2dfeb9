"""The families anthropic and responses against the local upstream."""

import json
from typing import Any

import pytest

from penstock import APIConnectionError, APIError, RateLimitError, ServiceUnavailableError, completion
from penstock.replay import Upstream
from penstock.replay.cases import FAMILIES
from penstock.replay.cases.chat import ANSWER, HELLO, THOUGHT

USER = {"role": "user", "content": "Hello"}
PROVIDERS = {"anthropic": "anthropic", "responses": "openai_responses"}
ALL = [(family, name) for family in PROVIDERS for name in FAMILIES[family].cases]


@pytest.fixture(scope="module")
def replayed() -> Any:
    """Calls the case of a family."""
    with Upstream() as up:

        def call(family: str, case: str, **options: Any) -> Any:
            base = up.base_url.removesuffix("/v1") if family == "anthropic" else up.base_url
            options = {"api_base": base, "api_key": "k", "max_retries": 0, **options}
            return completion(f"{PROVIDERS[family]}/{case}", [USER], **options)

        yield call


@pytest.mark.parametrize(("family", "case"), ALL)
def test_a_stream_says_what_the_response_says(replayed: Any, family: str, case: str) -> None:
    whole = replayed(family, case)
    streamed = replayed(family, case, stream=True).collect()
    assert streamed.usage == whole.usage
    for name in ("content", "reasoning_content", "refusal", "annotations", "output_items", "content_blocks"):
        assert streamed.choices[0].message.get(name) == whole.choices[0].message.get(name), name
    calls = [
        [(call.id, call.function.name, json.loads(call.function.arguments)) for call in given.message.tool_calls or ()]
        for given in (streamed.choices[0], whole.choices[0])
    ]
    assert calls[0] == calls[1]
    assert streamed.choices[0].finish_reason == whole.choices[0].finish_reason
    blocks = [given.choices[0].message.get("thinking_blocks") for given in (streamed, whole)]
    assert blocks[0] == blocks[1]


def test_messages(replayed: Any) -> None:
    assert replayed("anthropic", "hello", stream=True).collect().choices[0].message.content == HELLO
    thinking = replayed("anthropic", "thinking", stream=True).collect()
    assert thinking.choices[0].message.reasoning_content == THOUGHT
    assert thinking.usage.completion_tokens_details.reasoning_tokens == 41
    assert replayed("anthropic", "server-tools", stream=True).collect().usage.prompt_tokens == 2404
    assert replayed("anthropic", "cut-short").choices[0].finish_reason == "length"


def test_responses(replayed: Any) -> None:
    assert replayed("responses", "hello", stream=True).collect().choices[0].message.content == HELLO
    reasoning = replayed("responses", "reasoning", stream=True).collect().choices[0].message
    assert reasoning.reasoning_content == THOUGHT.replace(". ", "\n\n")
    assert reasoning.content == ANSWER
    assert replayed("responses", "cut-short").choices[0].finish_reason == "length"


@pytest.mark.parametrize("family", PROVIDERS)
def test_faults(replayed: Any, family: str) -> None:
    with pytest.raises(APIConnectionError):
        replayed(family, "hello?cut=finish", stream=True).collect()
    with pytest.raises(RateLimitError):
        replayed(family, "hello?status=429")
    with pytest.raises(APIError):
        replayed(family, "hello?error=3", stream=True).collect()
    assert replayed(family, "hello?chunk=random:3", stream=True).collect().choices[0].message.content == HELLO


def test_overloaded(replayed: Any) -> None:
    with pytest.raises(ServiceUnavailableError):
        replayed("anthropic", "hello?status=529")
