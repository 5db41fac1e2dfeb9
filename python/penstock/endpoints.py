"""What is asked of models besides chat: embeddings, and completions of plain text. All else is as of `completion`."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from . import transport
from ._native import Record
from .api import open_blocking, perform
from .call import CHAT, Call, Operation
from .errors import APIResponseValidationError, BadRequestError
from .providers.registry import Provider
from .stream import AsyncStream, Flow, Stream
from .transport import run
from .wire import embeddings

CHAT_PATH = "/chat/completions"
"""What ends the path of chat completions, in whose place those of the other endpoints stand."""

NOT_FOR_TEXT = frozenset({"mock_response", "estimate_usage", "on_stream_cut"})
NOT_FOR_EMBEDDINGS = NOT_FOR_TEXT | {"keep_partial", "content_policy_fallbacks"}
"""Options of `completion` that have no meaning there."""


def embedding(model: str, input: Any, **options: Any) -> Record:
    """The vectors of texts, as OpenAI's embeddings: `data[i].embedding`, `usage`, `model`.

    Args:
        model: as for `completion`.
        input: a text, or a list of them; for providers that do as OpenAI does also lists of tokens.
        options: dimensions, encoding_format ("float" or "base64"), user; input_type, what the vectors are for, where
            the provider knows it ("search_document", "search_query", ...); and those of `completion` that are not for
            the model.

    Raises:
        BadRequestError: the provider has no embeddings, or something is wrong with the request.
        APIError: see penstock.errors for all of them.
    """
    response: Record = run(perform(EMBEDDINGS, open_blocking, model, input, None, options, blocking=True))
    return response


async def aembedding(model: str, input: Any, **options: Any) -> Record:
    """`embedding` for asyncio and trio."""
    response: Record = await perform(EMBEDDINGS, transport.async_port, model, input, None, options, blocking=False)
    return response


def text_completion(model: str, prompt: Any, *, stream: bool | None = None, **options: Any) -> "Record | TextStream":
    """What comes after a text, as OpenAI's legacy completions: `choices[i].text`. For servers that have them.

    Args:
        model: as for `completion`.
        prompt: a text, a list of them, or tokens.
        stream: whether to stream: a TextStream of objects of the same shape.
        options: best_of, echo, frequency_penalty, logit_bias, logprobs, max_tokens, n, presence_penalty, seed, stop,
            stream_options, suffix, temperature, top_p, user, top_k, min_p, repetition_penalty; and those of
            `completion` that are not for the model.

    Raises:
        BadRequestError: the provider has no text completions, or something is wrong with the request.
        APIError: see penstock.errors for all of them.
    """
    answer = run(perform(TEXT, open_blocking, model, prompt, stream, options, blocking=True))
    return TextStream(answer) if isinstance(answer, Flow) else answer


async def atext_completion(
    model: str, prompt: Any, *, stream: bool | None = None, **options: Any
) -> "Record | AsyncTextStream":
    """`text_completion` for asyncio and trio."""
    answer = await perform(TEXT, transport.async_port, model, prompt, stream, options, blocking=False)
    return AsyncTextStream(answer) if isinstance(answer, Flow) else answer


class TextStream(Stream):
    """As Stream, of text completions: `chunk.choices[0].text`."""

    def __init__(self, flow: Flow) -> None:
        super().__init__(flow)
        self._chunks = (Record(_as_text(chunk, "delta")) for chunk in self._chunks)

    def text(self) -> Iterator[str]:
        """The text of choice 0: a non-empty str per chunk."""
        for chunk in self._chunks:
            if text := _text_of(chunk):
                yield text

    def collect(self) -> Any:
        """The complete response, a text completion too."""
        return Record(_as_text(super().collect(), "message"))


class AsyncTextStream(AsyncStream):
    """As AsyncStream, of text completions: `chunk.choices[0].text`."""

    def __init__(self, flow: Flow) -> None:
        super().__init__(flow)
        self._chunks = (Record(_as_text(chunk, "delta")) async for chunk in self._chunks)

    async def text(self) -> AsyncIterator[str]:
        """The text of choice 0: a non-empty str per chunk."""
        async for chunk in self._chunks:
            if text := _text_of(chunk):
                yield text

    async def collect(self) -> Any:
        """The complete response, a text completion too."""
        return Record(_as_text(await super().collect(), "message"))


def _as_text(answer: Any, said: str) -> dict[str, Any]:
    """A chunk or a response of chat in the shape of text completions: that is how their decoder gives them."""
    fields = {name: value for name, value in answer.items() if name not in ("choices", "object")}
    choices = [
        {"text": choice[said].content or "", **{name: value for name, value in choice.items() if name != said}}
        for choice in answer.choices
    ]
    return {**fields, "object": "text_completion", "choices": choices}


def _text_of(chunk: Any) -> str:
    return "".join(choice.text for choice in chunk.choices if choice.index == 0)


def _beside(provider: Provider, name: str) -> str | None:
    """The path of an endpoint beside chat completions."""
    if provider.family != "chat" or CHAT_PATH not in provider.chat_path:
        return None
    return provider.chat_path.replace(CHAT_PATH, f"/{name}", 1)


def _document(body: bytes) -> Any:
    import orjson

    try:
        return orjson.loads(body)
    except ValueError as error:
        shown = body[:200].decode("utf-8", "replace")
        raise APIResponseValidationError(f"the answer is no JSON, beginning {shown!r}", body=shown) from error


def _no_stream(*_: Any) -> Any:
    raise BadRequestError("embeddings do not stream", param="stream")


# Embeddings


def _check_input(given: Any) -> None:
    if not given or not isinstance(given, str | Sequence):
        raise BadRequestError("input must be a text or a list of texts", param="input")


@lru_cache(maxsize=256)
def _embed_row(provider: Provider) -> Provider:
    lacks = embeddings.LACKS.get(provider.family, frozenset())
    return replace(provider, renames={}, spellings={}, unsupported=lacks)


def _embed_path(provider: Provider, stream: bool) -> str | None:
    if stream or provider.family not in embeddings.LACKS:
        return None
    return provider.embed_path or _beside(provider, "embeddings")


def _embed_body(provider: Provider, model: str, given: Any, parameters: Mapping[str, Any], **_: bool) -> dict[str, Any]:
    return embeddings.build(provider.family, model, given, parameters)


def _embeddings(call: Call, body: bytes) -> Record:
    return Record(embeddings.read(call.provider.family, _document(body), call.model))


EMBEDDINGS = Operation(
    name="embeddings",
    subject="input",
    parameters=embeddings.PARAMETERS,
    options=CHAT.options - NOT_FOR_EMBEDDINGS,
    check=_check_input,
    row=_embed_row,
    path=_embed_path,
    build=_embed_body,
    decode=_embeddings,
    decoder=_no_stream,
    as_stream=_no_stream,
)


# Text completions


def _check_prompt(prompt: Any) -> None:
    if not isinstance(prompt, str | Sequence):
        raise BadRequestError("prompt must be a text, a list of texts, or tokens", param="prompt")


@lru_cache(maxsize=256)
def _text_row(provider: Provider) -> Provider:
    # The older endpoint has its own names: what a row renames and lacks is that of chat.
    return replace(provider, renames={}, spellings={}, unsupported=frozenset())


def _text_path(provider: Provider, _: bool) -> str | None:
    return _beside(provider, "completions")


def _text_body(
    provider: Provider, model: str, prompt: Any, parameters: Mapping[str, Any], *, stream: bool
) -> dict[str, Any]:
    from .wire.chat import stream_options

    body = {"model": model, "prompt": prompt, **parameters}
    asked = body.pop("stream_options", None) or {}
    if stream:
        body["stream"] = True
        options = stream_options(provider, asked)
        if options:
            body["stream_options"] = options
    return body


def _text_response(call: Call, body: bytes) -> Record:
    document = _document(body)
    if not isinstance(document, Mapping) or not isinstance(document.get("choices"), list):
        raise APIResponseValidationError("the answer has no list of texts in `choices`", body=document)
    return Record({"object": "text_completion", "model": call.model, **document})


def _text_as_stream(call: Call, body: bytes) -> tuple[bytes, Any]:
    return b"data: " + body + b"\n\ndata: [DONE]\n\n", CHAT.decoder(call)


TEXT = Operation(
    name="text_completion",
    subject="prompt",
    parameters=frozenset(
        {
            "best_of",
            "echo",
            "frequency_penalty",
            "logit_bias",
            "logprobs",
            "max_tokens",
            "min_p",
            "n",
            "presence_penalty",
            "repetition_penalty",
            "seed",
            "stop",
            "stream_options",
            "suffix",
            "temperature",
            "top_k",
            "top_p",
            "user",
        }
    ),
    options=CHAT.options - NOT_FOR_TEXT,
    check=_check_prompt,
    row=_text_row,
    path=_text_path,
    build=_text_body,
    decode=_text_response,
    decoder=CHAT.decoder,
    as_stream=_text_as_stream,
)
