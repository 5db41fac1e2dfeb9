"""Calls to providers whose wire is not chat completions, against the local upstream."""

from typing import Any

import pytest

from penstock import BadRequestError, InternalServerError
from penstock.replay.cases.chat import ANSWER, FORECAST, HELLO, THOUGHT

MODELS = ["gemini", "cohere", "ollama"]
USAGE = {"stream_options": {"include_usage": True}}


def plain(completion: Any) -> Any:
    """The choices, less ids of calls, which are made up where the wire has none."""
    choices = completion.model_dump()["choices"]
    for choice in choices:
        for call in choice["message"].get("tool_calls", ()):
            call.pop("id")
    return choices


@pytest.mark.parametrize("case", ["hello", "reasoning", "tools"])
@pytest.mark.parametrize("provider", MODELS)
def test_what_is_collected_is_the_whole_response(world: Any, provider: str, case: str) -> None:
    whole = world.ask(f"{provider}/{case}")
    _, stream = world.stream(f"{provider}/{case}")
    collected = stream._collected()
    assert plain(collected) == plain(whole)
    message = collected.choices[0].message
    if case == "hello":
        assert message.content == HELLO
    elif case == "reasoning":
        assert (message.reasoning_content, message.content) == (THOUGHT, ANSWER)
    else:
        assert collected.choices[0].finish_reason == "tool_calls"
        assert len({call.id for call in message.tool_calls}) == 2


@pytest.mark.parametrize("provider", MODELS)
def test_usage_comes_last_in_a_chunk_of_its_own(world: Any, provider: str) -> None:
    chunks, stream = world.stream(f"{provider}/reasoning", **USAGE)
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage == stream.usage
    usage = chunks[-1].usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert (usage.source, usage.complete) == ("reported", True)
    chunks, stream = world.stream(f"{provider}/hello")
    assert not any("usage" in chunk for chunk in chunks)
    assert stream.usage.completion_tokens == (9 * -(-len(HELLO) // 40) if provider == "gemini" else 87)


def test_where_a_wire_leaves_a_count_out_it_stays_unknown(world: Any) -> None:
    _, stream = world.stream("ollama/cached-prompt")
    usage = stream.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (None, 26, 26)


def test_a_blocked_prompt_ends_with_content_filter(world: Any) -> None:
    chunks, _ = world.stream("gemini/blocked")
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices] == ["content_filter"]


def test_an_answer_that_ends_in_error_raises(world: Any) -> None:
    chunks: list[Any] = []
    error = world.fails(InternalServerError, "cohere/failed", into=chunks)
    assert error.type == "INVALID_TOOL_GENERATION"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER


def test_arguments_are_json(world: Any) -> None:
    calls = world.ask("cohere/tools").choices[0].message.tool_calls
    assert [call.function.arguments for call in calls] == [FORECAST, "{}"]


@pytest.mark.parametrize("provider", ["gemini", "cohere"])
def test_a_refused_request_has_its_message(world: Any, provider: str) -> None:
    error = world.fails(BadRequestError, f"{provider}/hello", messages=[])
    assert error.status_code == 400
    assert "specified" in error.message or "non-empty" in error.message
