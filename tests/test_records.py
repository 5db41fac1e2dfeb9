"""The value classes: one object, read like a dict and like the SDK's models."""

import copy
import json
import pickle
from collections.abc import Mapping
from typing import Any

import pytest

from penstock._native import ChatCompletion, ChatCompletionChunk, CompletionUsage, Record, ToolCall, decode_response
from penstock.parser import Decoder

HEAD = {"id": "c-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "m"}


def chunks(*events: object, **options: object) -> list[ChatCompletionChunk]:
    decoder = Decoder(**options)  # type: ignore[arg-type]
    found = [chunk for event in events for chunk in decoder.feed(b"data: " + json.dumps(event).encode() + b"\n\n")]
    return found + list(decoder.finish())


def event(delta: object, finish: str | None = None, **extra: object) -> dict[str, object]:
    return {**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **extra}


@pytest.fixture
def chunk() -> ChatCompletionChunk:
    return chunks(event({"content": "Hi"}, citations=[{"url": "u"}]), event({}, "stop"))[0]


def test_items_and_attributes_are_the_same_object(chunk: ChatCompletionChunk) -> None:
    assert chunk["choices"][0]["delta"]["content"] == chunk.choices[0].delta.content == "Hi"
    assert chunk["choices"] is chunk.choices
    assert chunk["citations"] == chunk.citations == [{"url": "u"}]
    assert chunk["citations"] is chunk.citations


def test_a_known_field_that_is_absent_reads_as_none_and_does_not_show(chunk: ChatCompletionChunk) -> None:
    delta = chunk.choices[0].delta
    assert delta.tool_calls is None
    assert delta["tool_calls"] is None
    assert delta.get("tool_calls") is None
    assert delta.get("tool_calls", 1) == 1
    assert "tool_calls" not in delta
    assert "usage" not in chunk
    assert list(delta) == ["role", "content"]


def test_a_null_that_was_sent_is_present() -> None:
    delta = chunks(event({"content": None, "refusal": None}), event({}, "stop"))[0].choices[0].delta
    assert "refusal" in delta
    assert delta.to_dict() == {"role": "assistant", "content": None, "refusal": None}


def test_an_unknown_name_is_a_key_error_or_an_attribute_error(chunk: ChatCompletionChunk) -> None:
    with pytest.raises(KeyError, match="nonsense"):
        chunk["nonsense"]
    with pytest.raises(AttributeError, match=r"ChatCompletionChunk.*nonsense"):
        _ = chunk.nonsense
    assert chunk.get("nonsense") is None
    assert chunk.get("nonsense", 1) == 1
    assert "nonsense" not in chunk
    with pytest.raises(KeyError):
        chunk[0]  # type: ignore[index]


def test_it_is_a_mapping(chunk: ChatCompletionChunk) -> None:
    assert isinstance(chunk, Mapping)
    plain = chunk.to_dict()
    assert len(chunk) == len(plain)
    assert list(chunk) == list(plain) == list(chunk.keys())
    assert {**chunk} == dict(chunk.items())
    assert next(iter(chunk.values())) == "c-1"
    assert type(plain) is dict
    assert type(plain["choices"][0]["delta"]) is dict
    match chunk:
        case {"choices": [{"delta": {"content": text}}]}:
            assert text == "Hi"
        case _:
            pytest.fail("a mapping pattern matches a Mapping")


def test_equality_is_by_content(chunk: ChatCompletionChunk) -> None:
    assert chunk == chunk.to_dict()
    assert chunk.to_dict() == chunk
    assert chunk == ChatCompletionChunk(chunk.to_dict())
    assert chunk != {"id": "other"}
    assert chunk != 1
    assert chunk.__eq__(chunk) is not NotImplemented
    with pytest.raises(TypeError, match="unhashable"):
        hash(chunk)


def test_it_is_frozen(chunk: ChatCompletionChunk) -> None:
    values: tuple[Any, ...] = (chunk, chunk.choices[0], chunk.choices[0].delta)
    for value in values:
        with pytest.raises(AttributeError):
            value.index = "x"
        with pytest.raises(TypeError):
            value["index"] = "x"


def test_dumps_do_not_share_what_can_change(chunk: ChatCompletionChunk) -> None:
    dump = chunk.model_dump()
    dump["citations"].append(1)
    dump["choices"].clear()
    assert len(chunk.citations) == 1
    assert len(chunk.choices) == 1


def test_copies_and_pickles_are_equal(chunk: ChatCompletionChunk) -> None:
    for twin in (copy.copy(chunk), copy.deepcopy(chunk), *(pickle.loads(pickle.dumps(chunk, p)) for p in range(2, 6))):
        assert twin == chunk
        assert type(twin) is ChatCompletionChunk
        assert twin.choices[0].delta.content == "Hi"
        assert twin.citations == [{"url": "u"}]


def test_json_text_is_compact_and_keeps_unicode() -> None:
    first = chunks(event({"content": '東京 "x"\n'}), event({}, "stop"))[0]
    assert json.loads(first.model_dump_json()) == first.to_dict()
    assert "東京" in first.model_dump_json()
    assert ": " not in first.model_dump_json()


def test_repr_names_the_class_and_the_fields(chunk: ChatCompletionChunk) -> None:
    assert repr(chunk).startswith("ChatCompletionChunk(id='c-1', object='chat.completion.chunk'")
    assert "ChunkChoice(index=0, delta=ChoiceDelta(role='assistant', content='Hi')" in repr(chunk)


def test_a_repr_is_short() -> None:
    shown = repr(
        Record({"text": "é" * 500, "vector": list(range(1000)), "deep": {"text": "x" * 500}, "fits": "y" * 200})
    )
    assert f"text='{'é' * 200}'…" in shown
    assert "vector=[0, 1, 2," in shown
    assert "19, …]" in shown
    assert f"deep=Record(text='{'x' * 200}'…)" in shown
    assert f"fits='{'y' * 200}')" in shown
    message = ChatCompletion({"choices": [{"index": 0, "message": {"role": "assistant", "content": "z" * 10_000}}]})
    assert len(repr(message)) < 400
    plain = chunks(event({"content": "Hi"}, citations=[{"url": "u" * 500, "n": [{}] * 30}]), event({}, "stop"))[0]
    assert f"citations=[{{'url': '{'u' * 200}'…, 'n': [{', '.join(['{}'] * 20)}, …]}}]" in repr(plain)


def test_the_repr_of_a_usage_says_when_it_is_not_the_last_word() -> None:
    assert repr(CompletionUsage({"total_tokens": 3})) == "CompletionUsage(total_tokens=3)"
    assert repr(CompletionUsage({"total_tokens": 3}, source="estimated", complete=False)) == (
        "CompletionUsage(total_tokens=3, source='estimated')"
    )
    assert repr(CompletionUsage({}, source="partial", complete=False)) == "CompletionUsage(source='partial')"


def test_numbers_of_any_size_survive() -> None:
    first = chunks(event({"content": "x"}, big=12345678901234567890123, real=1e-7, no=-0.0), event({}, "stop"))[0]
    assert first.big == 12345678901234567890123
    assert first.real == 1e-7
    assert str(first.no) == "-0.0"


def test_log_probabilities_and_annotations_have_attributes_all_the_way_down() -> None:
    logprobs = {
        "content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "b"}]}],
        "refusal": None,
    }
    note = {"type": "url_citation", "url_citation": {"url": "u", "title": "t"}}
    first = chunks(
        {**HEAD, "choices": [{"index": 0, "delta": {"content": "a", "annotations": [note]}, "logprobs": logprobs}]},
        event({}, "stop"),
    )[0]
    choice = first.choices[0]
    assert choice.logprobs == logprobs
    assert choice.logprobs is not None
    assert choice.logprobs.content[0].top_logprobs[0].token == "b"
    assert choice.logprobs["content"][0]["logprob"] == -0.5
    assert choice.delta.annotations is not None
    assert choice.delta.annotations[0].url_citation.title == "t"
    assert isinstance(choice.logprobs, Record)


def test_usage_has_provenance_as_attributes_only() -> None:
    raw = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "queue_time": 0.5}
    decoder = Decoder(include_usage=True)
    assert decoder.usage is None
    decoder.feed(b"data: " + json.dumps(event({"content": "x"}, usage=raw)).encode() + b"\n\n")
    assert decoder.usage is not None
    assert (decoder.usage.source, decoder.usage.complete) == ("partial", False)
    decoder.feed(b"data: " + json.dumps(event({}, "stop")).encode() + b"\n\n")
    last = decoder.finish()[-1]
    usage = last.usage
    assert usage.complete
    assert usage.source == "reported"
    assert usage.raw == raw
    assert usage == {**raw}
    assert "complete" not in usage
    assert usage.queue_time == 0.5
    assert usage.prompt_tokens_details is None
    for twin in (copy.copy(usage), copy.deepcopy(usage), pickle.loads(pickle.dumps(usage))):
        assert twin == usage
        assert (twin.source, twin.complete, twin.raw) == (usage.source, usage.complete, usage.raw)


def test_usage_can_be_made_by_hand() -> None:
    usage = CompletionUsage(
        {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 1}}, source="estimated", complete=False
    )
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 1
    assert usage.completion_tokens is None
    assert usage.raw is None
    with pytest.raises(ValueError, match=r"reported.*partial.*estimated"):
        CompletionUsage({}, source="guessed")  # type: ignore[arg-type]


def test_a_class_takes_a_mapping_and_says_so() -> None:
    with pytest.raises(TypeError, match="ToolCall takes a mapping of its fields, not list"):
        ToolCall([])  # type: ignore[arg-type]
    call = ToolCall({"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}})
    assert call.function is not None
    assert call.function.name == "f"


def test_a_response_has_the_same_manners() -> None:
    body = {
        "id": "r",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "provider": "p",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi", "refusal": None},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }
    response = decode_response(json.dumps(body).encode())
    assert response == body
    assert response.choices[0].message.content == response["choices"][0]["message"]["content"] == "Hi"
    assert response.usage is not None
    assert response.usage.complete
    assert response.provider == "p"
    assert pickle.loads(pickle.dumps(response)) == response
    assert type(copy.deepcopy(response)) is ChatCompletion


def test_what_a_loop_keeps_stays_as_it_was() -> None:
    """Chunks of one stream are made from each other: changing one's list must not change the next."""
    decoder = Decoder()
    kept = []
    for text in ("a", "b", "c", "d"):
        for chunk in decoder.feed(b"data: " + json.dumps(event({"content": text})).encode() + b"\n\n"):
            kept.append(chunk)
            chunk.choices.clear()
    again = decoder.feed(b"data: " + json.dumps(event({"content": "e"})).encode() + b"\n\n")
    assert again[0].choices[0].delta.content == "e"
    assert len(kept) == 4
