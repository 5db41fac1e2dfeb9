"""Recorded responses of real servers, over real HTTP and through the parser alone: text, usage, errors.

The usage that is expected comes from the rules, written out once more below, applied to the recordings' index.
"""

import asyncio
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock import acompletion, completion
from penstock.errors import APIConnectionError, APIError, BadRequestError
from penstock.parser import Decoder, aiter_chunks, iter_chunks
from penstock.replay import Upstream

FAMILIES = ("chat-completions", "huggingface")
MESSAGES = [{"role": "user", "content": "Hello"}]
STREAM: dict[str, Any] = {
    "messages": MESSAGES,
    "stream": True,
    "stream_options": {"include_usage": True},
    "api_key": "any",
}

BROKEN = {
    "openinference__instrumentor-agent.1.empty": (APIConnectionError, "before the first event"),
    "pydantic-ai__groq-tool-use-failed-error-streaming.0.sse": (BadRequestError, "Tool call validation failed"),
    "pydantic-ai__openrouter-openrouter-stream-error.sse": (BadRequestError, "Token limit reached"),
    "ruby-llm__chat-with-extended-thinking-gpustack-qwen3-streams-thinking-content-when-available.sse": (
        APIConnectionError,
        "failed to decode, try again",
    ),
}
"""What ends badly, by the recordings' own account; all others end well."""

OBJECT_CONTENT = "chatlas__provider-cloudflare-cloudflare-data-extraction.2.json"
"""Its `content` is a JSON object, which OpenAI's schema has no room for: it becomes its own JSON text."""


class Recording:
    """A line of the index, and the body as its server framed it."""

    def __init__(self, line: dict[str, Any], corpus: Path) -> None:
        self.line = line
        self.path = corpus / line["file"]
        self.name = self.path.name
        self.streaming: bool = line["streaming"]
        self.body = self.path.read_bytes()
        if line["form"] == "chunks":
            self.body = b"".join(b"data: " + event + b"\n\n" for event in self.body.splitlines() if event.strip())

    def is_text(self, text: str) -> bool:
        digest = self.line["text_sha256"]
        return digest is None or digest == hashlib.sha256(text.encode()).hexdigest()


def recordings(corpus: Path, *, streaming: bool) -> Iterator[Recording]:
    for text in (corpus / "index.jsonl").read_text().splitlines():
        line = json.loads(text)
        if line["family"] in FAMILIES and line["streaming"] == streaming and line["form"] != "json-array":
            yield Recording(line, corpus)


def expected_usage(raw: dict[str, Any] | None) -> dict[str, Any] | None:
    """The five counts that matter, by the rules."""
    if raw is None:
        return None
    details, spent = raw.get("prompt_tokens_details") or {}, raw.get("completion_tokens_details") or {}
    prompt, completion, total = (raw.get(f"{part}_tokens") for part in ("prompt", "completion", "total"))
    cached = first(
        details.get("cached_tokens"),
        *(raw.get(f"{n}_tokens") for n in ("cached", "num_cached", "prompt_cache_hit", "cache_read_input")),
        (raw.get("prompt_token_details") or {}).get("cached_tokens"),
    )
    written = first(details.get("cache_write_tokens"), raw.get("cache_creation_input_tokens"))
    thought = first(spent.get("reasoning_tokens"), raw.get("reasoning_tokens"))
    if prompt is not None and completion is not None and thought is not None:
        if total != prompt + completion and total == prompt + completion + thought:
            completion += thought
        thought = min(thought, completion)
    if prompt is not None and (cached or 0) + (written or 0) > prompt:
        prompt += (cached or 0) + (written or 0)
    return {
        "prompt": prompt,
        "completion": completion,
        "total": prompt + completion if prompt is not None and completion is not None else None,
        "cached": cached,
        "reasoning": thought,
    }


def first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def counts(usage: Any) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "prompt": usage.prompt_tokens,
        "completion": usage.completion_tokens,
        "total": usage.total_tokens,
        "cached": usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None,
        "reasoning": usage.completion_tokens_details.reasoning_tokens if usage.completion_tokens_details else None,
    }


def visible(chunks: list[Any]) -> str:
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == 0]
    return "".join(choice.delta.content or "" for choice in choices)


def check(recording: Recording, chunks: list[Any], usage: Any, error: Exception | None) -> None:
    name, raw = recording.name, recording.line["usage_raw"]
    assert recording.is_text(visible(chunks)), name
    assert counts(usage) == expected_usage(raw), name
    assert raw is None or usage.raw == raw, name
    if name in BROKEN:
        kind, message = BROKEN[name]
        assert type(error) is kind, (name, error)
        assert message in str(error), name
        assert chunks == [] or chunks[-1].choices, name
        return
    assert error is None, (name, error)
    # include_usage was asked for: null on each chunk, and one chunk of nothing else at the end.
    assert all("usage" in chunk and chunk.usage is None for chunk in chunks[:-1]), name
    assert chunks[-1].choices == [], name
    assert chunks[-1].usage == usage, name
    assert all(chunk.choices or set(chunk) - set(chunks[-1]) for chunk in chunks[:-1]), name
    heads = {(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}
    assert len(heads) == 1, name
    for index in {choice.index for chunk in chunks for choice in chunk.choices}:
        own = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
        assert ["role" in choice.delta for choice in own] == [True] + [False] * (len(own) - 1), name
        assert sum(choice.finish_reason is not None for choice in own) <= 1, name


def pieces(body: bytes, chance: random.Random) -> Iterator[bytes]:
    at = 0
    while at < len(body):
        size = chance.choice([1, 2, 3, 7, 40, 500, 5000])
        yield body[at : at + size]
        at += size


def test_streams_through_the_parser_alone(corpus: Path) -> None:
    seen = 0
    for recording in recordings(corpus, streaming=True):
        whole: list[Any] = []
        for seed in (None, 1, 2):
            decoder = Decoder(include_usage=True, keep_partial=True, model="asked")
            chunks: list[Any] = []
            error: Exception | None = None
            chance = random.Random(seed)
            try:
                for data in [recording.body] if seed is None else pieces(recording.body, chance):
                    chunks += decoder.feed(data)
                chunks += decoder.finish()
            except APIError as raised:
                error = raised
            check(recording, chunks, decoder.usage, error)
            if seed is None:
                whole = chunks
            identity = ("id", "created", "provider_id")
            plain, other = ([{k: v for k, v in c.items() if k not in identity} for c in cs] for cs in (whole, chunks))
            assert plain == other, recording.name
            response = decoder.response()
            if response is not None:
                contents = [choice.message.content or "" for choice in response.choices if choice.index == 0]
                assert contents == [] or contents == [visible(chunks)], recording.name
        seen += 1
    assert seen > 100


def test_streams_through_the_iterators(corpus: Path) -> None:
    async def several(chunks: Any) -> list[Any]:
        return [chunk async for chunk in chunks]

    async def later(parts: list[bytes]) -> Any:
        for part in parts:
            yield part

    for recording in recordings(corpus, streaming=True):
        if recording.name in BROKEN:
            continue
        parts = list(pieces(recording.body, random.Random(3)))
        blocking = list(iter_chunks(parts, include_usage=True))
        check(recording, blocking, blocking[-1].usage, None)
        chunks = asyncio.run(several(aiter_chunks(later(parts), include_usage=True)))
        check(recording, chunks, chunks[-1].usage, None)
        assert "".join(iter_chunks(parts, depth="text")) == visible(chunks), recording.name
        decoder = Decoder(depth="raw")
        assert [decoder.feed(part) for part in parts] == [None] * len(parts)
        assert decoder.finish() is None
        assert decoder.usage == chunks[-1].usage, recording.name


@pytest.fixture(scope="module")
def served(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Upstream, list[Recording]]]:
    """Every stream, on a local server, under the name `body-N`."""
    folder = tmp_path_factory.mktemp("bodies")
    bodies = list(recordings(corpus, streaming=True))
    for number, recording in enumerate(bodies):
        (folder / f"body-{number}.sse").write_bytes(recording.body)
    with Upstream(bodies=sorted(folder.iterdir())) as upstream:
        yield upstream, bodies


@pytest.mark.parametrize("chunking", ["random:1", "random:7", "4096"])
def test_streams_by_completion(served: tuple[Upstream, list[Recording]], chunking: str) -> None:
    upstream, bodies = served
    for number, recording in enumerate(bodies):
        chunks: list[Any] = []
        stream: Any = None
        error: Exception | None = None
        try:
            stream = completion(
                model=f"openai/body-{number}?chunk={chunking}", api_base=upstream.base_url, max_retries=0, **STREAM
            )
            chunks.extend(iter(stream))
        except APIError as raised:
            error = raised
        check(recording, chunks, stream.usage if stream else None, error)


@pytest.mark.parametrize("chunking", ["random:2", "4096"])
def test_streams_by_acompletion(served: tuple[Upstream, list[Recording]], chunking: str) -> None:
    upstream, bodies = served

    async def main() -> None:
        for number, recording in enumerate(bodies):
            chunks: list[Any] = []
            stream: Any = None
            error: Exception | None = None
            try:
                stream = await acompletion(
                    model=f"openai/body-{number}?chunk={chunking}", api_base=upstream.base_url, max_retries=0, **STREAM
                )
                async for chunk in stream:
                    chunks.append(chunk)  # noqa: PERF401  what came before an error is kept
            except APIError as raised:
                error = raised
            check(recording, chunks, stream.usage if stream else None, error)

    asyncio.run(main())


def test_single_bodies(corpus: Path) -> None:
    seen = 0
    for recording in recordings(corpus, streaming=False):
        status, name = recording.line["status"], recording.name

        def answer(_: httpx.Request, status: int = status, body: bytes = recording.body) -> httpx.Response:
            return httpx.Response(status, headers={"content-type": "application/json"}, content=body)

        def ask(answer: Any = answer) -> Any:
            client = httpx.Client(transport=httpx.MockTransport(answer))
            return completion(model="openai/asked", messages=MESSAGES, api_key="any", client=client, max_retries=0)

        def ask_later(answer: Any = answer) -> Any:
            client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
            return asyncio.run(
                acompletion(model="openai/asked", messages=MESSAGES, api_key="any", client=client, max_retries=0)
            )

        for world in (ask, ask_later):
            if status >= 400:
                with pytest.raises(APIError) as caught:
                    world()
                assert caught.value.status_code == status, name
                assert caught.value.message, name
                continue
            if "choices" not in json.loads(recording.body):
                # An error, kept without its status.
                with pytest.raises(APIError):
                    world()
                continue
            response = world()
            content = response.choices[0].message.content or ""
            if name == OBJECT_CONTENT:
                assert json.loads(content) == json.loads(recording.body)["choices"][0]["message"]["content"]
            else:
                assert recording.is_text(content), name
            # The index names the last usage object, which may be one of a breakdown by model.
            assert counts(response.usage) == expected_usage(json.loads(recording.body).get("usage")), name
        seen += 1
    assert seen > 30
