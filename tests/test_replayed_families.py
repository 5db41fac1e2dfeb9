"""Every family against the local upstream: as `replay/FAMILY/CASE`, and two by their own rows."""

import asyncio
import json
from typing import Any

import pytest

from penstock import (
    APIConnectionError,
    APIError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
    ServiceUnavailableError,
    acompletion,
    completion,
)
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


# replay/FAMILY/CASE: no key, no base URL -----------------------------------------------------------------------------

EVERY = [f"replay/{name}/{case}" for name, family in FAMILIES.items() for case in family.cases]
REFUSED = {"replay/cohere/failed": InternalServerError}
SILENT = {"predictions"}
UNREPORTED = {"replay/chat/no-usage", "replay/text/text-output"}
UNREPORTED |= {f"replay/{family}/{case}" for family in SILENT for case in FAMILIES[family].cases}
ASKED = {"stream": True, "stream_options": {"include_usage": True}}


def streamed(world: str, model: str, **options: Any) -> list[Any]:
    """The chunks of a stream, to its end."""

    async def main() -> list[Any]:
        return [chunk async for chunk in await acompletion(model, [USER], max_retries=0, **options)]

    return asyncio.run(main()) if world == "asyncio" else list(completion(model, [USER], max_retries=0, **options))


def texts(chunks: list[Any]) -> dict[int, str]:
    """The text of each choice."""
    said: dict[int, str] = {}
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        said[choice.index] = said.get(choice.index, "") + (choice.delta.content or "")
    return said


@pytest.mark.parametrize("model", [model for model in EVERY if model not in REFUSED])
@pytest.mark.parametrize("world", ["blocking", "asyncio"])
def test_every_case_of_every_family_streams_without_a_key(model: str, world: str) -> None:
    whole = completion(model, [USER])
    *chunks, last = streamed(world, model, **ASKED)
    assert texts(chunks) == {choice.index: choice.message.content or "" for choice in whole.choices}
    assert all("usage" in chunk and chunk.usage is None for chunk in chunks)
    assert all(chunk.choices or "prompt_filter_results" in chunk for chunk in chunks)
    assert last.choices == []
    assert "usage" in last
    assert last.usage == whole.usage
    assert (last.usage is None) == (model in UNREPORTED)
    finishes = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert finishes == [choice.finish_reason for choice in whole.choices if choice.finish_reason]
    plain = streamed(world, model, stream=True)
    assert not any("usage" in chunk for chunk in plain)
    assert texts(plain) == texts(chunks)


@pytest.mark.parametrize("model", REFUSED)
@pytest.mark.parametrize("world", ["blocking", "asyncio"])
def test_a_case_that_fails_does_so_either_way(model: str, world: str) -> None:
    for options in ({}, ASKED):
        with pytest.raises(REFUSED[model]):
            streamed(world, model, **options)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("world", ["blocking", "asyncio"])
def test_usage_that_nobody_reports_is_null(family: str, world: str) -> None:
    *chunks, last = streamed(world, f"replay/{family}/hello?nousage", **ASKED)
    assert all("usage" in chunk and chunk.usage is None for chunk in chunks)
    assert all(chunk.choices for chunk in chunks)
    assert (last.choices, "usage" in last, last.usage) == ([], True, None)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("world", ["blocking", "asyncio"])
def test_faults_of_every_family(family: str, world: str) -> None:
    model = f"replay/{family}/hello"
    with pytest.raises(APIConnectionError):
        streamed(world, f"{model}?cut=finish", **ASKED)
    with pytest.raises(RateLimitError):
        streamed(world, f"{model}?status=429", **ASKED)
    with pytest.raises(BadRequestError):
        streamed(world, f"{model}?status=400", **ASKED)
    with pytest.raises(APIError):
        streamed(world, f"{model}?error=3", **ASKED)
    with pytest.raises(NotFoundError):
        streamed(world, f"replay/{family}/nope", **ASKED)
    assert texts(streamed(world, f"{model}?chunk=random:3", **ASKED)) == {0: HELLO}
    assert (streamed(world, f"{model}?chunk=1&gzip", **ASKED)[-1].usage is None) == (family in SILENT)
