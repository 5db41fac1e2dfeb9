"""Tokens counted here are labelled, and never stand in for a report."""

import asyncio
import pickle
import sys
from typing import Any

import pytest

from penstock import BadRequestError, acompletion, completion, token_counter
from penstock.counting import IMAGE, PER_MESSAGE, PER_NAME, PER_REPLY, SMALL_IMAGE, rough

MESSAGES = [{"role": "user", "content": "Hello"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


@pytest.fixture
def no_tiktoken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)


@pytest.fixture
def by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer of tiktoken's that is here: one token for each byte."""
    tiktoken = pytest.importorskip("tiktoken")
    from tiktoken.registry import ENCODINGS

    ranks = {bytes([byte]): byte for byte in range(256)}
    special = {"<|endoftext|>": 256}
    encoding = tiktoken.Encoding("o200k_base", pat_str=r"[\s\S]", mergeable_ranks=ranks, special_tokens=special)
    monkeypatch.setitem(ENCODINGS, "o200k_base", encoding)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("word", 1), ("words", 2), ("привет", 3), ("水が流れる", 5), ("🍝", 1), ("abcd привет", 5)],
)
def test_the_rough_count_is_as_documented(text: str, tokens: int) -> None:
    assert rough(text) == tokens


def test_a_rough_count_says_so(no_tiktoken: None) -> None:
    count = token_counter("gpt-4o", text="four" * 10)
    assert count == 10
    assert (count.method, count.encoding, count.exact) == ("rough", None, False)
    assert isinstance(count, int)


def test_a_count_by_the_models_tokenizer(by_bytes: None) -> None:
    count = token_counter("openai/gpt-4o", text=["Hello", "<|endoftext|>"])
    assert count == 5 + 13
    assert (count.method, count.encoding, count.exact) == ("tiktoken", "o200k_base", True)
    copy = pickle.loads(pickle.dumps(count))
    assert (copy, copy.method, copy.exact) == (count, "tiktoken", True)


def test_messages_are_never_called_exact(by_bytes: None) -> None:
    count = token_counter("gpt-4o", messages=[{"role": "user", "content": "Hello", "name": "ann"}])
    assert count == PER_REPLY + PER_MESSAGE + PER_NAME + len("user") + len("Hello") + len("ann")
    assert count.method == "tiktoken"
    assert not count.exact
    assert token_counter("gpt-4o", messages=MESSAGES, tools=TOOLS) > token_counter("gpt-4o", messages=MESSAGES)


def test_a_model_without_a_known_tokenizer_is_counted_roughly(by_bytes: None) -> None:
    assert token_counter("claude-sonnet-4-5", text="Hello").method == "rough"
    assert token_counter("gpt-4o", text="Hello", method="rough").method == "rough"
    with pytest.raises(BadRequestError, match="no tokenizer of claude-sonnet-4-5"):
        token_counter("claude-sonnet-4-5", text="Hello", method="tiktoken")


def test_a_tokenizer_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    import tiktoken

    def offline(name: str) -> Any:
        raise OSError("no route to host")

    monkeypatch.setattr(tiktoken, "get_encoding", offline)
    from penstock import APIConnectionError

    with pytest.raises(APIConnectionError, match="TIKTOKEN_CACHE_DIR"):
        token_counter("gpt-4o", text="Hello")


def test_tiktoken_that_is_not_there(no_tiktoken: None) -> None:
    with pytest.raises(BadRequestError, match=r"pip install 'penstock\[tokens\]'"):
        token_counter("gpt-4o", text="Hello", method="tiktoken")


def test_either_messages_or_text() -> None:
    with pytest.raises(BadRequestError, match="either messages or text"):
        token_counter("gpt-4o")
    with pytest.raises(BadRequestError, match="either messages or text"):
        token_counter("gpt-4o", MESSAGES, "Hello")


def test_images_have_a_flat_count() -> None:
    def of(image: dict[str, str]) -> int:
        content = [{"type": "text", "text": "four"}, {"type": "image_url", "image_url": image}]
        return (
            token_counter("any", [{"role": "user", "content": content}]) - PER_REPLY - PER_MESSAGE - rough("user") - 1
        )

    assert of({"url": "data:image/png;base64," + "A" * 100_000}) == IMAGE
    assert of({"url": "https://x.example/y.png", "detail": "low"}) == SMALL_IMAGE


# Estimates of usage


def test_a_stream_without_usage_gets_an_estimate() -> None:
    stream = completion("replay/hello?nousage=1", MESSAGES, stream=True, estimate_usage=True)
    response = stream.collect()
    for usage in (stream.usage, response.usage):
        assert usage is not None
        assert (usage.source, usage.complete) == ("estimated", False)
        assert usage.prompt_tokens == token_counter("any", MESSAGES, method="rough")
        assert usage.completion_tokens == rough(response.choices[0].message.content or "")
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_the_usage_chunk_has_it() -> None:
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(completion("replay/hello?nousage=1", MESSAGES, estimate_usage=True, **options))
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.source == "estimated"
    unasked = list(completion("replay/hello?nousage=1", MESSAGES, **options))
    assert unasked[-1].choices == []
    assert unasked[-1].usage is None


@pytest.mark.parametrize("stream", [True, False])
def test_a_report_is_never_replaced(stream: bool) -> None:
    answer: Any = completion("replay/hello", MESSAGES, stream=stream, estimate_usage=True)
    if stream:
        answer.collect()
    assert answer.usage.source == "reported"
    assert answer.usage == completion("replay/hello", MESSAGES).usage


def test_what_was_reported_before_a_cut_stays() -> None:
    stream = completion("replay/anthropic/hello", MESSAGES, stream=True, estimate_usage=True)
    with stream:
        next(stream)
    assert stream.usage is not None
    assert stream.usage.source == "partial"


def test_a_stream_that_was_left() -> None:
    with completion("replay/hello", MESSAGES, stream=True, estimate_usage=True) as stream:
        for _ in range(4):
            next(stream)
    assert stream.usage is not None
    assert stream.usage.source == "estimated"
    assert 0 < (stream.usage.completion_tokens or 0) < 20


def test_text_alone_is_counted_too() -> None:
    stream = completion("replay/hello?nousage=1", MESSAGES, stream=True, estimate_usage=True)
    text = "".join(stream.text())
    assert stream.usage is not None
    assert stream.usage.completion_tokens == rough(text)


def test_a_whole_response_and_asyncio() -> None:
    response = completion("replay/hello?nousage=1", MESSAGES, estimate_usage=True)
    assert response.usage is not None
    assert response.usage.source == "estimated"
    assert completion("replay/hello?nousage=1", MESSAGES).usage is None

    async def main() -> Any:
        stream = await acompletion("replay/hello?nousage=1", MESSAGES, stream=True, estimate_usage=True)
        return "".join([piece async for piece in stream.text()]), stream.usage

    text, usage = asyncio.run(main())
    assert text == response.choices[0].message.content
    assert usage.source == "estimated"


def test_an_estimate_needs_what_was_said() -> None:
    with pytest.raises(BadRequestError, match="keep_partial=False throws away"):
        completion("replay/hello", MESSAGES, stream=True, estimate_usage=True, keep_partial=False)


def test_tool_calls_count() -> None:
    stream = completion("replay/tools?nousage=1", MESSAGES, stream=True, estimate_usage=True, tools=TOOLS)
    stream.collect()
    assert stream.usage is not None
    assert (stream.usage.completion_tokens or 0) > 10
