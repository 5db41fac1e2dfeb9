"""Requests of the text family: a conversation as one text that a model goes on with, in the body that the row names."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..providers.registry import Provider
from . import chat
from .prompts import prompt

Json = dict[str, Any]

NEW_TOKENS = {"max_tokens": "max_new_tokens"}
SAMPLERS = frozenset({"temperature", "top_p", "top_k"})


def build(
    provider: Provider, model: str, messages: Sequence[Any], parameters: Mapping[str, Any], *, stream: bool
) -> Json:
    """The request body.

    Raises:
        BadRequestError: a message that has no place in a text.
    """
    if provider.body == "chat":
        return chat.build(provider, model, messages, parameters, stream=stream)
    text = prompt("plain", messages)
    if provider.body == "completions":
        body = chat.build(provider, model, (), parameters, stream=stream)
        del body["messages"]
        return {"prompt": text, **body}
    given = {name: value for name, value in parameters.items() if name != "stream_options"}
    if isinstance(given.get("stop"), str):
        given["stop"] = [given["stop"]]
    streaming = {"stream": True} if stream else {}
    match provider.body:
        case "generate":
            # Without it there is no finish reason.
            return {"inputs": text, "parameters": {"details": True, **_named(given, NEW_TOKENS)}, **streaming}
        case "generation":
            options = _named(given, {**NEW_TOKENS, "seed": "random_seed", "stop": "stop_sequences"})
            # The other way to choose tokens knows none of these.
            if SAMPLERS & given.keys():
                options["decoding_method"] = "sample"
            return {"input": text, "parameters": options}
    return {"text_input": text, "parameters": given, **streaming}


def _named(given: Mapping[str, Any], names: Mapping[str, str]) -> Json:
    return {names.get(name, name): value for name, value in given.items()}
