"""Requests of the chat completions family."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..providers.registry import Provider
from . import response_format


def build(
    provider: Provider, model: str, messages: Sequence[Any], parameters: Mapping[str, Any], *, stream: bool
) -> dict[str, Any]:
    """The request body: OpenAI's, by definition."""
    body: dict[str, Any] = {"model": model, "messages": messages, **parameters}
    if "response_format" in body:
        body["response_format"] = response_format(body["response_format"])
    asked = body.pop("stream_options", None) or {}
    if stream:
        body["stream"] = True
        options = stream_options(provider, asked)
        if options:
            body["stream_options"] = options
    return body


def stream_options(provider: Provider, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The `stream_options` to send.

    The usage is asked for wherever it can be: `Stream.usage` has it in any case, and whether the caller sees it as a
    chunk is decided by the decoder. `include_obfuscation` stays the caller's: that padding hides the length of tokens
    from whoever watches the network.
    """
    if provider.stream_options:
        return {**asked, "include_usage": True}
    return {name: value for name, value in asked.items() if name != "include_usage"}
