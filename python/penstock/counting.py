"""Tokens counted here, not there: before a call, and for answers whose provider reports none. Always labelled.

With `penstock[tokens]` the tokenizers of OpenAI's models count, as tiktoken has them. Without it, and for all other
models, the count is rough, by the kinds of characters: 4 ASCII characters a token, 2 of the other alphabets, 1 beyond
them (Chinese, Japanese, Korean, emoji). For English prose that is right to about a fifth, for code and for other
languages to about a half.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any, Literal, Self

from ._native import ChatCompletion, ChatCompletionChunk, CompletionUsage
from .errors import APIConnectionError, BadRequestError
from .wire import encode, plain_data

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._native import Decoder

PER_MESSAGE, PER_NAME, PER_REPLY = 3, 1, 3
"""Tokens of the chat format itself: around each message, for a name in one, and before the reply."""

IMAGE, SMALL_IMAGE = 765, 85
"""Tokens of an image that nobody has looked at: of 1024 x 1024 pixels to gpt-4o, and with detail "low"."""

ALPHABETS, BEYOND = 0x80, 0x2E80
"""Where in Unicode the other alphabets begin, and where they end."""


class TokenCount(int):
    """A number of tokens that knows how it was counted.

    method: "tiktoken" or "rough". encoding: the tokenizer, such as o200k_base, or None.
    exact: whether the model itself counts so: plain text by its own tokenizer. Messages have tokens of a format that
        only OpenAI knows, and are near it.
    """

    method: Literal["tiktoken", "rough"]
    encoding: str | None
    exact: bool

    def __new__(cls, tokens: int, method: Literal["tiktoken", "rough"], encoding: str | None, exact: bool) -> Self:
        """A count and its label."""
        count = super().__new__(cls, tokens)
        count.method, count.encoding, count.exact = method, encoding, exact
        return count

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (int(self), self.method, self.encoding, self.exact)


def token_counter(
    model: str,
    messages: Sequence[Any] | None = None,
    text: str | Sequence[str] | None = None,
    tools: Sequence[Any] | None = None,
    *,
    method: Literal["tiktoken", "rough"] | None = None,
) -> TokenCount:
    """How many tokens a prompt has, about.

    Args:
        model: as for `completion`; unknown ones are counted roughly.
        messages: as for `completion`; or
        text: a text, or several.
        tools: those that go with the messages.
        method: how to count; by default "tiktoken" where it is installed and has the model's tokenizer, else "rough".

    Raises:
        BadRequestError: neither messages nor text, or both; tiktoken is asked for and is not there or does not know the
            model.
        APIConnectionError: tiktoken, which reads a tokenizer from the network when it first needs it, cannot.
    """
    if (messages is None) == (text is None):
        raise BadRequestError("token_counter counts either messages or text", param="messages")
    encoding = None if method == "rough" else _encoding(model, wanted=method == "tiktoken")
    count = rough if encoding is None else _counter(encoding)
    if text is not None:
        tokens = sum(map(count, [text] if isinstance(text, str) else text)) + _of_tools(tools, count)
    else:
        tokens = prompt_tokens(messages or (), tools, count)
    plain_text = text is not None and not tools
    if encoding is None:
        return TokenCount(tokens, "rough", None, exact=False)
    return TokenCount(tokens, "tiktoken", encoding.name, exact=plain_text)


def rough(text: str) -> int:
    """About how many tokens a text has: see the top of this file."""
    if text.isascii():
        return ceil(len(text) / 4)
    ascii_, letters = 0, 0
    for character in text:
        code = ord(character)
        ascii_ += code < ALPHABETS
        letters += ALPHABETS <= code < BEYOND
    return ceil(ascii_ / 4 + letters / 2) + len(text) - ascii_ - letters


def prompt_tokens(messages: Sequence[Any], tools: Sequence[Any] | None, count: "Callable[[str], int]" = rough) -> int:
    """The tokens of messages and tools."""
    tokens = PER_REPLY + _of_tools(tools, count)
    for message in plain_data(messages):
        tokens += PER_MESSAGE + (PER_NAME if message.get("name") else 0)
        tokens += sum(_of_value(name, value, count) for name, value in message.items())
    return tokens


def completion_tokens(response: ChatCompletion, count: "Callable[[str], int]" = rough) -> int:
    """The tokens of an answer, its reasoning too as far as it was shown."""
    tokens = 0
    for choice in response.choices:
        message = choice.message
        tokens += sum(count(part) for part in (message.content, message.reasoning_content, message.refusal) if part)
        tokens += _of_value("tool_calls", message.get("tool_calls"), count)
    return tokens


def _of_value(name: str, value: Any, count: "Callable[[str], int]") -> int:
    if isinstance(value, str):
        return count(value)
    if not value:
        return 0
    if name != "content" or not isinstance(value, list):
        return count(encode(value).decode())
    return sum(_of_part(part, count) for part in value)


def _of_part(part: Any, count: "Callable[[str], int]") -> int:
    if isinstance(part, str):
        return count(part)
    kind = part.get("type")
    if kind == "image_url":
        image = part.get("image_url")
        return SMALL_IMAGE if isinstance(image, Mapping) and image.get("detail") == "low" else IMAGE
    if isinstance(part.get("text"), str):
        return count(part["text"])
    return 0 if kind in ("input_audio", "file") else count(encode(part).decode())


def _of_tools(tools: Sequence[Any] | None, count: "Callable[[str], int]") -> int:
    return sum(count(encode(tool).decode()) for tool in tools or ())


def _encoding(model: str, *, wanted: bool) -> Any:
    """The model's tokenizer; None where tiktoken is not installed or does not know the model, unless it is `wanted`."""
    try:
        import tiktoken
    except ModuleNotFoundError as error:
        if wanted:
            raise BadRequestError(
                "tiktoken is not installed: pip install 'penstock[tokens]', or method='rough'", param="method"
            ) from error
        return None
    try:
        name = tiktoken.encoding_name_for_model(model.rpartition("/")[2])
    except KeyError as error:
        if wanted:
            raise BadRequestError(
                f"tiktoken has no tokenizer of {model}: method='rough' counts", param="model"
            ) from error
        return None
    try:
        return tiktoken.get_encoding(name)
    except Exception as error:
        raise APIConnectionError(
            f"tiktoken cannot read its tokenizer {name} ({type(error).__name__}): it comes from the network when it is "
            "first needed, and is kept in TIKTOKEN_CACHE_DIR. method='rough' counts without it",
            model=model,
        ) from error


def _counter(encoding: Any) -> "Callable[[str], int]":
    def count(text: str) -> int:
        # Marks of the chat format are plain text within a message.
        return len(encoding.encode(text, disallowed_special=()))

    return count


class Estimate:
    """What a call's usage is guessed to be where nobody reports it. Roughly: no answer shall wait for a tokenizer."""

    def __init__(self, model: str, messages: Sequence[Any], tools: Sequence[Any] | None) -> None:
        self.model = model
        self.prompt = prompt_tokens(messages, tools)

    def usage(self, response: ChatCompletion | None) -> CompletionUsage:
        """The estimate, for as much of the answer as there is."""
        completion = 0 if response is None else completion_tokens(response)
        counts = {"prompt_tokens": self.prompt, "completion_tokens": completion}
        total = self.prompt + completion
        return CompletionUsage({**counts, "total_tokens": total}, source="estimated", complete=False)

    def respond(self, response: ChatCompletion) -> ChatCompletion:
        """The response, with the estimate where it has no usage."""
        if response.usage is not None:
            return response
        return ChatCompletion({**response, "usage": self.usage(response)})

    def decoder(self, decoder: "Decoder") -> "EstimatingDecoder":
        """A decoder whose usage is never unknown."""
        return EstimatingDecoder(decoder, self)


class EstimatingDecoder:
    """A Decoder that estimates the usage where none was reported."""

    def __init__(self, decoder: "Decoder", estimate: Estimate) -> None:
        self._decoder = decoder
        self._estimate = estimate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    @property
    def usage(self) -> CompletionUsage:
        """The best that was reported so far, else the estimate."""
        return self._decoder.usage or self._estimate.usage(self._decoder.response())

    def feed(self, data: Any) -> list[Any]:
        """As of a Decoder."""
        return self._labelled(self._decoder.feed(data))

    def finish(self) -> list[Any]:
        """As of a Decoder."""
        return self._labelled(self._decoder.finish())

    def read_text(self) -> None:
        """Not here: the estimate needs what would be thrown away. Whoever wants text takes it from the chunks."""

    def response(self) -> ChatCompletion | None:
        """As of a Decoder, with the usage."""
        response: ChatCompletion | None = self._decoder.response()
        return None if response is None else self._estimate.respond(response)

    def _labelled(self, chunks: list[Any]) -> list[Any]:
        """The chunk that says in the end that the usage is unknown says what it may be."""
        last = chunks[-1] if chunks else None
        if last is not None and not last.choices and "usage" in last and last.usage is None and self._ended():
            chunks[-1] = ChatCompletionChunk({**last, "usage": self.usage})
        return chunks

    def _ended(self) -> bool:
        """Whether the last chunk has come: before it, every choice has its finish reason."""
        response = self._decoder.response()
        choices = [] if response is None else response.choices
        return bool(choices) and all(choice.finish_reason for choice in choices)
