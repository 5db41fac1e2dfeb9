"""Recorded responses of real servers, over real HTTP and through the parser alone: text, usage, errors.

The usage that is expected comes from the rules, written out once more below, applied to the recordings' index.
"""

import asyncio
import base64
import binascii
import hashlib
import json
import random
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from penstock import acompletion, completion
from penstock._native import decode_response
from penstock.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ContextWindowExceededError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
)
from penstock.parser import Decoder, aiter_chunks, iter_chunks
from penstock.replay import Upstream

Json = dict[str, Any]
MESSAGES = [{"role": "user", "content": "Hello"}]
STREAM: Json = {"messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}, "api_key": "any"}

BROKEN = {
    "openinference__instrumentor-agent.1.empty": (APIConnectionError, "before the first event"),
    "pydantic-ai__groq-tool-use-failed-error-streaming.0.sse": (BadRequestError, "Tool call validation failed"),
    "pydantic-ai__openrouter-openrouter-stream-error.sse": (BadRequestError, "Token limit reached"),
    "ruby-llm__chat-with-extended-thinking-gpustack-qwen3-streams-thinking-content-when-available.sse": (
        APIConnectionError,
        "failed to decode, try again",
    ),
    # Its finish reason is ERROR, its usage an empty object.
    "langchain-cohere__sql-agent.1.sse": (InternalServerError, "invalid tool generation"),
    # An `error` event, then `response.failed`: raised once.
    "vercel-ai__openai-error-1.jsonl": (RateLimitError, "exceeded your current quota"),
}
"""What ends badly, by the recordings' own account; all others end well."""


# ---- differences from the index, each with its reason


def content_as_json(body: Json) -> str:
    return json.dumps(body["choices"][0]["message"]["content"], separators=(",", ":"))


def with_cited_texts(body: Json) -> str:
    blocks = body["output"]["message"]["content"]
    pieces = [piece for block in blocks for piece in (block, *block.get("citationsContent", {}).get("content", ()))]
    return "".join(piece.get("text", "") for piece in pieces)


TEXTS: dict[str, Callable[[Json], str]] = {
    # `content` is a JSON object, which OpenAI's schema has no room for: it becomes its own JSON text.
    "chatlas__provider-cloudflare-cloudflare-data-extraction.2.json": content_as_json,
    # The index leaves out texts that citations are for; a reader of the answer does not.
    "langchain-aws__pdf-citations.json": with_cited_texts,
}
"""Single bodies whose text the index has otherwise, or not at all, and how to read it."""

UNREAD = {
    "other": "Assistants runs, Interactions, agents: no chat, and no family of the package's",
    "openllmetry__llama-replicate-llama-stream-legacy.0.json": "the first of two answers: where the other one is",
}
"""What the package does not read, by family or file."""

TEXTS_ONLY = re.compile(r".*/(completions|complete|generation/text)(\?.*)?")
"""Request paths at which a text is continued, whatever the index calls the family."""

BY_NAME = {
    "vercel-ai__openai-completion-text.jsonl": "text",
    "openllmetry__llms-custom-llm.json": "text",
}
"""Recordings without a request path that says it."""


class Recording:
    """A line of the index, and the body as its server framed it."""

    def __init__(self, line: Json, corpus: Path) -> None:
        self.line = line
        self.family = READ[family_of(line)]
        self.path = corpus / line["file"]
        self.name = self.path.name
        self.streaming: bool = line["streaming"]
        self.body = self.path.read_bytes()
        self.suffix = self.family.suffix if line["form"] in ("chunks", "empty") else self.path.suffix
        if line["form"] == "chunks":
            self.body = b"".join(self.family.frame(event) for event in self.body.splitlines() if event.strip())

    def is_text(self, text: str) -> bool:
        digest = self.line["text_sha256"]
        return digest is None or digest == hashlib.sha256(text.encode()).hexdigest()

    def documents(self) -> list[Json]:
        """The JSON in an event stream, or the one of a single body; read by other means than those under test."""
        if not self.streaming:
            return [json.loads(self.body)]
        found, body = [], self.body
        while body:
            total, headers = struct.unpack(">II", body[:8])
            document = json.loads(body[12 + headers : total - 4])
            found.append(json.loads(base64.b64decode(document["bytes"])) if "bytes" in document else document)
            body = body[total:]
        return found


def family_of(line: Json) -> str:
    """The key in READ, or UNREAD."""
    name, path = Path(line["file"]).name, line["request_path"] or ""
    if name in BY_NAME or (line["family"] == "other" and TEXTS_ONLY.fullmatch(path)):
        return "text"
    return name if name in UNREAD else str(line["family"])


def recordings(corpus: Path, *, streaming: bool) -> Iterator[Recording]:
    for text in (corpus / "index.jsonl").read_text().splitlines():
        line = json.loads(text)
        if line["streaming"] == streaming and family_of(line) not in UNREAD:
            yield Recording(line, corpus)


# ---- the counts that matter, by the rules: one function for each family


class Counts(NamedTuple):
    """None is what the provider does not say."""

    prompt: int | None
    completion: int | None
    cached: int | None = None
    written: int | None = None
    reasoning: int | None = None


def chat_usage(recording: Recording) -> Counts | None:
    # Of a single body the index names the last usage object, which may be one of a breakdown by model.
    raw = recording.line["usage_raw"] if recording.streaming else json.loads(recording.body).get("usage")
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
    return Counts(prompt, completion, cached, written, thought)


def anthropic_usage(recording: Recording) -> Counts | None:
    """message_delta overwrites message_start field by field; both caches and all compactions are added."""
    last, start = recording.line["usage_raw"], recording.line["usage_first"] or {}
    if last is None:
        return None
    compactions = [step for step in last.get("iterations") or () if step["type"] == "compaction"]

    def count(name: str) -> int | None:
        own = first(last.get(name), start.get(name))
        return None if own is None else own + sum(step.get(name) or 0 for step in compactions)

    new, read, written = map(count, ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"))
    prompt = None if new is None else new + (read or 0) + (written or 0)
    thought = (last.get("output_tokens_details") or {}).get("thinking_tokens")
    return Counts(prompt, count("output_tokens"), read, written, thought)


def responses_usage(recording: Recording) -> Counts | None:
    raw = recording.line["usage_raw"]
    if raw is None:
        return None
    given, spent = raw.get("input_tokens_details") or {}, raw.get("output_tokens_details") or {}
    cached, written = given.get("cached_tokens"), given.get("cache_write_tokens")
    prompt = raw["input_tokens"]
    if (cached or 0) + (written or 0) > prompt:
        prompt += (cached or 0) + (written or 0)
    return Counts(prompt, raw["output_tokens"], cached, written, spent.get("reasoning_tokens"))


def gemini_usage(recording: Recording) -> Counts | None:
    """Thoughts and the prompts of tools come beside; where the total says that thoughts are inside, they are."""
    raw = recording.line["usage_raw"]
    if raw is None:
        return None
    thought, said = raw.get("thoughtsTokenCount"), raw.get("candidatesTokenCount", 0)
    prompt = raw["promptTokenCount"] + raw.get("toolUsePromptTokenCount", 0)
    inside = prompt + said == raw["totalTokenCount"]
    completion = said if inside else said + (thought or 0)
    return Counts(prompt, completion, raw.get("cachedContentTokenCount"), None, thought)


def cohere_usage(recording: Recording) -> Counts | None:
    raw = recording.line["usage_raw"]
    if not raw:
        return None
    tokens = raw.get("tokens") or raw["billed_units"]
    cached = raw.get("cached_tokens")
    return Counts(tokens["input_tokens"], tokens["output_tokens"], cached, None, tokens.get("reasoning_tokens"))


def ollama_usage(recording: Recording) -> Counts | None:
    raw = recording.line["usage_raw"]
    return None if raw is None else Counts(raw.get("prompt_eval_count"), raw.get("eval_count"))


def converse_usage(recording: Recording) -> Counts | None:
    """Both caches are added. The one to bill counts tokens: a guardrail has a usage of its own."""
    given = [document["usage"] for document in recording.documents() if "inputTokens" in document.get("usage", {})]
    if not given:
        return None
    raw = given[-1]
    read, written = raw.get("cacheReadInputTokens"), raw.get("cacheWriteInputTokens")
    prompt = raw["inputTokens"] + (read or 0) + (written or 0)
    assert raw["totalTokens"] == prompt + raw["outputTokens"]
    return Counts(prompt, raw["outputTokens"], read, written)


INVOKED = {
    "prompt": ("input_tokens", "inputTokens", "prompt_token_count", "inputTextTokenCount", "prompt_tokens"),
    "completion": (
        "output_tokens",
        "outputTokens",
        "generation_token_count",
        "totalOutputTextTokenCount",
        "completion_tokens",
        "tokenCount",
    ),
    "cached": ("cache_read_input_tokens", "cacheReadInputTokenCount"),
    "written": ("cache_creation_input_tokens", "cacheWriteInputTokenCount"),
}


def invoke_usage(recording: Recording) -> Counts | None:
    """What the model itself counted, field by field; the metrics of the service only where it counted nothing."""
    counted: dict[str, int] = {}
    metrics: Json = {}
    for document in recording.documents():
        result = (document.get("results") or [{}])[0]
        places = [*(document.get(at, {}).get("usage") for at in ("message", "metadata")), document.get("usage")]
        for place in filter(None, [result, document, *places]):
            for field, names in INVOKED.items():
                said = first(*(place.get(name) for name in names))
                counted |= {} if said is None else {field: round(said)}
        metrics = document.get("amazon-bedrock-invocationMetrics", metrics)
    if "completion" not in counted:
        counted |= {
            field: metrics[name]
            for field, name in (("prompt", "inputTokenCount"), ("completion", "outputTokenCount"))
            if name in metrics
        }
    if not counted:
        return None
    prompt = counted.get("prompt")
    read, written = counted.get("cached"), counted.get("written")
    if prompt is not None:
        prompt += (read or 0) + (written or 0)
    return Counts(prompt, counted.get("completion"), read, written)


def text_usage(recording: Recording) -> Counts | None:
    raw = recording.line["usage_raw"]
    if raw is not None and "generated_token_count" in raw:
        return Counts(raw["input_token_count"], raw["generated_token_count"])
    if recording.body.startswith(b'[{"generated_text"'):
        # Not in the index: it stands beside the finish reason.
        return Counts(None, json.loads(recording.body)[0]["details"]["generated_tokens"])
    return chat_usage(recording)


def first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def counts(usage: Any) -> Counts | None:
    if usage is None:
        return None
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    found = Counts(
        usage.prompt_tokens,
        usage.completion_tokens,
        prompt.cached_tokens if prompt else None,
        prompt.cache_write_tokens if prompt else None,
        completion.reasoning_tokens if completion else None,
    )
    known = [count for count in found[:2] if count is not None]
    assert usage.total_tokens in (None, sum(known))
    assert usage.total_tokens is not None or len(known) < 2
    return found


# ---- how the families frame decoded events


def data_event(event: bytes) -> bytes:
    return b"data: " + event + b"\n\n"


def named_event(event: bytes) -> bytes:
    name: str = json.loads(event)["type"]
    return b"event: " + name.encode() + b"\n" + data_event(event)


def aws_message(event: bytes) -> bytes:
    """The event's name is the one key of what was recorded."""
    ((name, payload),) = json.loads(event).items()
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    block = b"".join(
        bytes([len(key)]) + key.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for key, value in headers.items()
    )
    data = json.dumps(payload).encode()
    start = struct.pack(">II", 16 + len(block) + len(data), len(block))
    start += struct.pack(">I", binascii.crc32(start)) + block + data
    return start + struct.pack(">I", binascii.crc32(start))


# ---- the table


class Family(NamedTuple):
    """How the recordings of one family are read."""

    decoder: str
    usage: Callable[[Recording], Counts | None]
    provider: str | None
    """Who speaks it, for calls over HTTP."""
    version: str = ""
    """What follows the host in this provider's base URL."""
    frame: Callable[[bytes], bytes] = data_event
    suffix: str = ".sse"
    """How files are called that hold such a stream."""


READ = {
    "chat-completions": Family("chat", chat_usage, "openai", "/v1"),
    "huggingface": Family("chat", chat_usage, "openai", "/v1"),
    "anthropic": Family("anthropic", anthropic_usage, "anthropic", frame=named_event),
    "openai-responses": Family("responses", responses_usage, "openai_responses", "/v1", frame=named_event),
    "gemini": Family("gemini", gemini_usage, "gemini", "/v1beta"),
    "cohere": Family("cohere", cohere_usage, "cohere", frame=named_event),
    "ollama": Family("ollama", ollama_usage, "ollama", suffix=".ndjson"),
    "bedrock-converse": Family("converse", converse_usage, "bedrock", frame=aws_message, suffix=".eventstream"),
    "bedrock-invoke": Family("invoke", invoke_usage, "bedrock/invoke", suffix=".eventstream"),
    "text": Family("text", text_usage, "text-completion-openai", "/v1"),
}


def by_http(recording: Recording) -> bool:
    """Whether some provider's row asks for bodies like this. Gemini's asks for events, never for an array of them."""
    return recording.family.provider is not None and recording.line["form"] != "json-array"


def is_another_usage(recording: Recording, raw: Json) -> bool:
    """Whether the index names the last usage object of all, and the one to bill is this other one in the body."""
    if recording.suffix != ".eventstream":
        return False
    # Bare texts have their counts beside the text, the prompt's in the first document and the answer's in the last.
    found = list(objects(recording.documents()))
    return all(any(value.get(name) == count for value in found) for name, count in raw.items())


def objects(value: Any) -> Iterator[Json]:
    """All JSON objects in a value."""
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(child)


def visible(chunks: list[Any]) -> str:
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == 0]
    return "".join(choice.delta.content or "" for choice in choices)


def check(recording: Recording, chunks: list[Any], usage: Any, error: Exception | None) -> None:
    name, raw = recording.name, recording.line["usage_raw"]
    assert recording.is_text(visible(chunks)), name
    assert counts(usage) == recording.family.usage(recording), name
    assert not raw or usage.raw == raw or is_another_usage(recording, usage.raw), name
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
            decoder = Decoder(recording.family.decoder, include_usage=True, keep_partial=True, model="asked")
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
    assert seen > 300


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
        blocking = list(iter_chunks(parts, recording.family.decoder, include_usage=True))
        check(recording, blocking, blocking[-1].usage, None)
        chunks = asyncio.run(several(aiter_chunks(later(parts), recording.family.decoder, include_usage=True)))
        check(recording, chunks, chunks[-1].usage, None)
        assert "".join(iter_chunks(parts, recording.family.decoder, depth="text")) == visible(chunks), recording.name
        decoder = Decoder(recording.family.decoder, depth="raw")
        assert [decoder.feed(part) for part in parts] == [None] * len(parts)
        assert decoder.finish() is None
        assert decoder.usage == chunks[-1].usage, recording.name


@pytest.fixture(scope="module")
def served(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Upstream, list[Recording]]]:
    """Every stream, on a local server, under the name `body-N`."""
    folder = tmp_path_factory.mktemp("bodies")
    bodies = list(filter(by_http, recordings(corpus, streaming=True)))
    for number, recording in enumerate(bodies):
        (folder / f"body-{number}{recording.suffix}").write_bytes(recording.body)
    with Upstream(bodies=folder.iterdir()) as upstream:
        yield upstream, bodies


def asked(upstream: Upstream, recording: Recording, model: str) -> Json:
    """The arguments of a call that this recording answers."""
    family = recording.family
    base = upstream.base_url.removesuffix("/v1") + family.version
    return {**STREAM, "model": f"{family.provider}/{model}", "api_base": base, "max_retries": 0}


@pytest.mark.parametrize("chunking", ["random:1", "random:7", "4096"])
def test_streams_by_completion(served: tuple[Upstream, list[Recording]], chunking: str) -> None:
    upstream, bodies = served
    for number, recording in enumerate(bodies):
        chunks: list[Any] = []
        stream: Any = None
        error: Exception | None = None
        try:
            stream = completion(**asked(upstream, recording, f"body-{number}?chunk={chunking}"))
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
                stream = await acompletion(**asked(upstream, recording, f"body-{number}?chunk={chunking}"))
                async for chunk in stream:
                    chunks.append(chunk)  # noqa: PERF401  what came before an error is kept
            except APIError as raised:
                error = raised
            check(recording, chunks, stream.usage if stream else None, error)

    asyncio.run(main())


def answers(recording: Recording) -> Iterator[Callable[[], Any]]:
    """The calls that this single body answers: by both worlds over HTTP, or by the decoder where no row asks for it.

    The errors of the latter come through another door, decode_error, which knows no families.
    """
    status, body, family = recording.line["status"], recording.body, recording.family
    if family.provider is None:
        if status < 400:
            yield lambda: decode_response(body, family=family.decoder)
        return

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers={"content-type": "application/json"}, content=body)

    asked: Json = {"model": f"{family.provider}/asked", "messages": MESSAGES, "api_key": "any", "max_retries": 0}
    asked |= {"aws_region_name": "us-east-1"} if family.provider.startswith("bedrock") else {}
    transport = httpx.MockTransport(answer)
    yield lambda: completion(**asked, client=httpx.Client(transport=transport))
    yield lambda: asyncio.run(acompletion(**asked, client=httpx.AsyncClient(transport=transport)))


REFUSED: dict[str, type[APIError]] = {
    "dd-trace-py__v1-response-create-error.json": NotFoundError,
    "mirascope__authentication-error-google-gemini-2-5-flash.json": AuthenticationError,
    "otel-contrib__converse-stream-with-invalid-model.json": NotFoundError,
    "ruby-llm__chat-error-handling-with-xai-grok-4-1-fast-non-reasoning-raises-appropriate-auth-error.json": (
        AuthenticationError
    ),
    "ruby-llm__chat-real-error-scenarios-cohere-command-a-03-2025-handles-context-length-exceeded-errors.json": (
        ContextWindowExceededError
    ),
    "ruby-llm__chat-real-error-scenarios-vertexai-gemini-2-5-flash-handles-context-length-exceeded-errors.1.json": (
        ContextWindowExceededError
    ),
}
"""Errors whose body says more than their status does."""

STATUSES: dict[int, type[APIError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: AuthenticationError,
    404: NotFoundError,
    429: RateLimitError,
    500: InternalServerError,
}


def test_single_bodies(corpus: Path) -> None:
    seen = 0
    for recording in recordings(corpus, streaming=False):
        status, name = recording.line["status"], recording.name
        for call in answers(recording):
            if status >= 400:
                with pytest.raises(APIStatusError) as caught:
                    call()
                assert caught.value.status_code == status, name
                assert caught.value.message, name
                assert type(caught.value) is REFUSED.get(name, STATUSES[status]), name
                continue
            if recording.family.decoder == "chat" and "choices" not in json.loads(recording.body):
                # An error, kept without its status.
                with pytest.raises(APIError):
                    call()
                continue
            response = call()
            content = response.choices[0].message.content or ""
            if name in TEXTS:
                assert content == TEXTS[name](json.loads(recording.body)), name
            else:
                assert recording.is_text(content), name
            assert counts(response.usage) == recording.family.usage(recording), name
        seen += 1
    assert seen > 100


def message(response: Any) -> Any:
    return response.choices[0].message


def arguments(response: Any) -> list[str]:
    return [call.function.arguments for call in message(response).tool_calls]


ODDITIES: list[tuple[str, Callable[[Any], Any], Any]] = [
    # An assistant's turn of one empty text block is a good answer that says nothing.
    ("anthropic-empty-response", lambda r: (message(r).content or "", r.choices[0].finish_reason), ("", "stop")),
    # Zeros in message_start, the cost in message_delta, [DONE] after message_stop.
    ("gateway-message-delta-metadata", lambda r: (r.usage.prompt_tokens, r.usage["cost"]), (32, 0.000112)),
    ("message-delta-input-tokens", lambda r: r.usage.prompt_tokens, 61),
    # A finished call inside message_start, and nothing more.
    ("programmatic-tool-calling-1.1", lambda r: (arguments(r), r.usage.total_tokens), (['{"player":"player2"}'], 0)),
    ("compaction-usage-with-cache-streaming", lambda r: r.usage.prompt_tokens, 100 + 55096 + 181),
    # Arguments by JSON path, in pieces.
    ("google-stream-tool-call-arguments", arguments, ['{"location":"Boston"}', '{"location":"San Francisco"}']),
    (
        "missing-terminal-function-call",
        lambda r: json.loads(arguments(r)[0])["operations"][1]["description"],
        "Ripe yellow banana",
    ),
    # The guardrail's own usage stands beside the tokens: kept, not counted.
    (
        "guardrail-converse-stream.",
        lambda r: (r.choices[0].finish_reason, *r["trace"]),
        ("content_filter", "guardrail"),
    ),
    # 11 + 1028 + 236: input and output leave the cache out.
    ("converse-stream-prompt-caching.0", lambda r: r.usage.total_tokens, 1275),
    # Cut at its limit of tokens; all zeros are what was reported.
    ("stream-incomplete", lambda r: (r.choices[0].finish_reason, r.usage.total_tokens), ("length", 0)),
    # Every id changes from event to event.
    ("github-copilot-id-rotation", lambda r: len(message(r).content), 138),
    ("apply-patch-tool", lambda r: message(r)["output_items"][0]["type"], "apply_patch_call"),
]
"""What the corpus is known for: a part of a stream's name, a look at its response, and what is seen."""


@pytest.mark.parametrize(("part", "look", "expected"), ODDITIES, ids=[part for part, *_ in ODDITIES])
def test_oddities(corpus: Path, part: str, look: Callable[[Any], Any], expected: Any) -> None:
    [recording, *_] = [one for one in recordings(corpus, streaming=True) if part in one.name]
    decoder = Decoder(recording.family.decoder, keep_partial=True)
    decoder.feed(recording.body)
    decoder.finish()
    assert look(decoder.response()) == expected


def test_every_recorded_family_is_read(corpus: Path) -> None:
    lines = [json.loads(line) for line in (corpus / "index.jsonl").read_text().splitlines()]
    assert {family_of(line) for line in lines} == {*READ, *UNREAD}
    hosts = {line["provider"].partition(".")[0] for line in lines if family_of(line) == "other"}
    assert hosts == {"generativelanguage", "bedrock-agent-runtime", "api"}
    assert sum(family_of(line) == "text" for line in lines) == 15
