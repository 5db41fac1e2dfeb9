"""`stream.tool_calls()`: each call when it is complete, parsed."""

import asyncio
import json
from typing import Any

import pytest

from penstock import APIConnectionError, APIResponseValidationError, FunctionCall, acompletion, completion
from penstock.replay import Upstream

USER = {"role": "user", "content": "Weather?"}


def delta(finish: str | None = None, index: int = 0, **delta: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {"id": "c", "created": 1, "model": "m", "choices": [choice]}


def piece(index: int, arguments: str | None, name: str | None = None, choice: int = 0) -> dict[str, Any]:
    call: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
    if name is not None:
        call |= {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": arguments}}
    return delta(index=choice, tool_calls=[call])


END = delta("tool_calls")


def calls(*chunks: Any, **options: Any) -> list[FunctionCall]:
    stream = completion("openai/gpt-4o", [USER], stream=True, mock_response=list(chunks), **options)
    return list(stream.tool_calls())


def fails(*chunks: Any, **options: Any) -> APIResponseValidationError:
    with pytest.raises(APIResponseValidationError) as caught:
        calls(*chunks, **options)
    return caught.value


@pytest.mark.parametrize("family", ["chat", "anthropic", "gemini", "cohere", "ollama", "responses"])
def test_the_calls_of_every_family_are_those_of_its_response(family: str, up: Upstream) -> None:
    options: dict[str, Any] = {"api_base": up.base_url, "api_key": "k", "stream": True}
    stream = completion(f"replay/{family}/tools", [USER], **options)
    found = list(stream.tool_calls())
    message = stream.collect().choices[0].message
    assert found
    assert [(call.id, call.name, call.arguments) for call in found] == [
        (call.id, call.function and call.function.name, json.loads(call.function.arguments or "{}"))
        for call in message.tool_calls or ()
        if call.function
    ]

    async def main() -> list[FunctionCall]:
        stream = await acompletion(f"replay/{family}/tools", [USER], **options)
        return [call async for call in stream.tool_calls()]

    assert [call.arguments for call in asyncio.run(main())] == [call.arguments for call in found]


def test_interleaved_calls(up: Upstream) -> None:
    options: dict[str, Any] = {"api_base": up.base_url, "api_key": "k", "stream": True}
    stream = completion("replay/parallel-tools", [USER], **options)
    found = list(stream.tool_calls())
    assert {call.arguments["city"] for call in found} == {"東京", "Tromsø"}
    assert {call.id for call in found} == {"call_replayA1", "call_replayB2"}
    assert stream.collect().choices[0].message.content == "Both at once: "


def test_a_call_is_handed_out_when_the_next_one_begins() -> None:
    read = []

    class Chunks(list[Any]):
        def __iter__(self) -> Any:
            for item in list.__iter__(self):
                read.append(item)
                yield item

    given = Chunks([piece(0, "", "f"), piece(0, '{"a":'), piece(0, " 1}"), piece(1, "", "g"), piece(1, "{}"), END])
    found = completion("openai/gpt-4o", [USER], stream=True, mock_response=given).tool_calls()
    read.clear()
    assert next(found) == FunctionCall("call_0", "f", {"a": 1}, 0, 0)
    assert given[4] not in read
    assert list(found) == [FunctionCall("call_1", "g", {}, 1, 0)]


def test_a_call_without_text_has_no_arguments() -> None:
    assert calls(piece(0, "", "f"), piece(1, None, "g"), END) == [
        FunctionCall("call_0", "f", {}, 0, 0),
        FunctionCall("call_1", "g", {}, 1, 0),
    ]


def test_calls_of_every_choice() -> None:
    found = calls(piece(0, '{"a": 1}', "f"), piece(0, '{"a": 2}', "f", choice=1), END, delta("tool_calls", index=1))
    assert [(call.choice, call.arguments["a"]) for call in found] == [(0, 1), (1, 2)]


def test_a_stream_without_calls() -> None:
    assert calls(delta(content="Hi"), delta("stop")) == []


@pytest.mark.parametrize(
    ("text", "finish", "says"),
    [
        ('{"a": ', "tool_calls", "are not JSON: "),
        ('{"a": ', "length", "cut at its token limit"),
        ('{"a": 1}{}', "tool_calls", "are not JSON: "),
        ("[1]", "tool_calls", "are no JSON object"),
        ("null", "tool_calls", "are no JSON object"),
    ],
)
def test_arguments_that_are_no_object(text: str, finish: str, says: str) -> None:
    error = fails(piece(0, text, "f"), delta(finish))
    assert "tool call 0 (f, call_0)" in error.message
    assert says in error.message
    assert f"they begin {text!r}" in error.message
    assert error.partial is not None
    assert error.provider == "openai"


def test_what_is_right_comes_before_the_error() -> None:
    chunks = [piece(0, '{"a":', "f"), piece(1, '{"b": 2}', "g"), END]
    found = completion("openai/gpt-4o", [USER], stream=True, mock_response=chunks).tool_calls()
    assert next(found).arguments == {"b": 2}
    with pytest.raises(APIResponseValidationError, match="tool call 0"):
        next(found)


def test_arguments_that_go_on_behind_their_end() -> None:
    error = fails(piece(0, "{}", "f"), piece(1, "{}", "g"), piece(0, '{"a": 1}'), END)
    assert "tool call 0 (f, call_0) went on behind their end" in error.message


def test_a_cut_stream_raises_behind_the_calls_that_are_complete() -> None:
    chunks = [piece(0, "{}", "f"), piece(1, '{"a', "g"), APIConnectionError("gone")]
    found = completion("openai/gpt-4o", [USER], stream=True, mock_response=chunks).tool_calls()
    assert next(found).name == "f"
    with pytest.raises(APIConnectionError, match="gone"):
        next(found)


def test_calls_need_what_is_kept() -> None:
    assert "keep_partial" in fails(piece(0, "{}", "f"), END, keep_partial=False).message
