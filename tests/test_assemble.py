"""A response that is cut into chunks and put together again is the response: for any response there can be."""

import base64
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import ChatCompletion, completion, stream_chunk_builder
from penstock.parser import Decoder, iter_chunks

Json = dict[str, Any]

HEAD = {"id": "chatcmpl-1", "created": 1763800000, "model": "m"}

# No surrogates: JSON has them, str of Python that can be encoded has not.
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
names = st.text("abcdefgh_", min_size=1, max_size=8)

calls: st.SearchStrategy[Json] = st.builds(
    lambda number, name, arguments: {
        "id": f"call_{number}",
        "type": "function",
        "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)},
    },
    st.integers(0, 10**9),
    names,
    st.dictionaries(names, texts, max_size=3),
)
tokens = st.builds(
    lambda token, logprob: {"token": token, "logprob": logprob, "bytes": list(token.encode()), "top_logprobs": []},
    texts,
    st.floats(-100, 0).map(lambda value: round(value, 6)),
)
annotations = st.builds(
    lambda url, start: {"type": "url_citation", "url_citation": {"url": url, "title": url, "start_index": start}},
    texts,
    st.integers(0, 10**6),
)
audios = st.builds(
    lambda number, data, transcript: {
        "id": f"audio_{number}",
        "data": base64.b64encode(data).decode(),
        "transcript": transcript,
        "expires_at": 1763900000,
    },
    st.integers(0, 10**9),
    st.binary(min_size=1, max_size=60),
    texts,
)


def identity(call: Json) -> str:
    name: str = call["id"]
    return name


@st.composite
def choices(draw: st.DrawFn, index: int) -> Json:
    message: Json = {"role": "assistant", "content": draw(st.none() | texts)}
    for name, values in {"reasoning_content": texts, "refusal": texts, "audio": audios}.items():
        if draw(st.booleans()):
            message[name] = draw(values)
    if draw(st.booleans()):
        message["tool_calls"] = draw(st.lists(calls, min_size=1, max_size=3, unique_by=identity))
    if draw(st.booleans()):
        message["annotations"] = draw(st.lists(annotations, min_size=1, max_size=3))
    reasons = ["tool_calls"] if "tool_calls" in message else ["stop", "length", "content_filter"]
    choice = {"index": index, "message": message, "finish_reason": draw(st.sampled_from(reasons))}
    if draw(st.booleans()):
        choice["logprobs"] = {
            "content": draw(st.lists(tokens, min_size=1, max_size=4)),
            "refusal": draw(st.none() | st.lists(tokens, min_size=1, max_size=2)),
        }
    return choice


@st.composite
def responses(draw: st.DrawFn) -> Json:
    count = draw(st.integers(1, 3))
    response: Json = {
        **HEAD,
        "object": "chat.completion",
        "choices": [draw(choices(index)) for index in range(count)],
    }
    if draw(st.booleans()):
        prompt, answer = draw(st.integers(0, 10**6)), draw(st.integers(1, 10**6))
        response["usage"] = {
            "prompt_tokens": prompt,
            "completion_tokens": answer,
            "total_tokens": prompt + answer,
        }
    for name in ("service_tier", "system_fingerprint"):
        if draw(st.booleans()):
            response[name] = draw(names)
    return response


@st.composite
def streamed(draw: st.DrawFn) -> tuple[Json, list[Json]]:
    """A response, and chunks that it can come in."""
    response = draw(responses())
    waiting = [list(deltas(draw, choice)) for choice in response["choices"]]
    more: Json = {name: response[name] for name in ("service_tier", "system_fingerprint") if name in response}
    chunks: list[Json] = []
    while any(waiting):  # the choices come between one another, each in its order
        index = draw(st.sampled_from([index for index, rest in enumerate(waiting) if rest]))
        chunks.append({**HEAD, "object": "chat.completion.chunk", **more, "choices": [waiting[index].pop(0)]})
    if "usage" in response:
        chunks.append({**HEAD, "object": "chat.completion.chunk", **more, "choices": [], "usage": response["usage"]})
    return response, chunks


def parts(draw: st.DrawFn, text: str) -> list[str]:
    """The text in pieces, none of them empty."""
    cuts = sorted(draw(st.sets(st.integers(1, max(len(text) - 1, 1)), max_size=3)) | {0, len(text)})
    return [text[start:end] for start, end in pairwise(cuts)]


def deltas(draw: st.DrawFn, choice: Json) -> Iterator[Json]:
    """The choice of a response as those of chunks."""
    message, index = choice["message"], choice["index"]

    def one(delta: Json, **more: Any) -> Json:
        return {"index": index, "delta": delta, "finish_reason": None, **more}

    yield one({"role": "assistant"})
    for name in ("reasoning_content", "content", "refusal"):
        for piece in parts(draw, message.get(name) or ""):
            yield one({name: piece})
    if "audio" in message:
        whole = message["audio"]
        yield one({"audio": {"id": whole["id"]}})
        for piece in parts(draw, whole["transcript"]):
            yield one({"audio": {"transcript": piece}})
        data = whole["data"]
        cut = draw(st.integers(0, len(data) // 4)) * 4
        for piece in filter(None, (data[:cut], data[cut:])):
            yield one({"audio": {"data": piece}})
        yield one({"audio": {"expires_at": whole["expires_at"]}})
    for place, call in enumerate(message.get("tool_calls", ())):
        function = {"name": call["function"]["name"], "arguments": ""}
        yield one({"tool_calls": [{"index": place, "id": call["id"], "type": "function", "function": function}]})
        for piece in parts(draw, call["function"]["arguments"]):
            yield one({"tool_calls": [{"index": place, "function": {"arguments": piece}}]})
    for annotation in message.get("annotations", ()):
        yield one({"annotations": [annotation]})
    if "logprobs" in choice:
        for name in ("content", "refusal"):
            for token in choice["logprobs"][name] or ():
                yield one({}, logprobs={"content": None, "refusal": None, name: [token]})
    yield {"index": index, "delta": {}, "finish_reason": choice["finish_reason"]}


def events(chunks: list[Json]) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


@settings(max_examples=200, deadline=None)
@given(streamed())
def test_what_is_put_together_is_the_response(case: tuple[Json, list[Json]]) -> None:
    response, chunks = case
    whole = ChatCompletion(response)
    assert stream_chunk_builder(chunks) == whole
    decoder = Decoder(keep_partial=True, include_usage=True)
    given = [*decoder.feed(events(chunks)), *decoder.finish()]
    assert decoder.response() == whole
    # Once more, from what was handed out.
    assert stream_chunk_builder(given) == whole
    assert stream_chunk_builder([chunk.model_dump() for chunk in given]) == whole


@settings(max_examples=50, deadline=None)
@given(streamed())
def test_a_call_collects_the_response(case: tuple[Json, list[Json]]) -> None:
    response, chunks = case
    stream = completion("openai/m", [], stream=True, mock_response=chunks)
    assert stream.collect() == ChatCompletion(response)
    # A server that does not stream gives its response as one event.
    stream = completion("openai/m", [], stream=True, mock_response=response)
    assert stream.collect() == ChatCompletion(response)
    assert completion("openai/m", [], mock_response=response) == ChatCompletion(response)


@settings(max_examples=50, deadline=None)
@given(streamed(), st.integers(1, 50))
def test_however_the_bytes_are_cut(case: tuple[Json, list[Json]], size: int) -> None:
    response, chunks = case
    body = events(chunks)
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    assert stream_chunk_builder(iter_chunks(pieces, include_usage=True)) == ChatCompletion(response)
