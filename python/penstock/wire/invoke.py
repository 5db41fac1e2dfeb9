"""Requests of the Invoke family: each model's own body, which the row names. The model is in the URL."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..providers.registry import Provider
from . import anthropic, chat, converse
from .prompts import prompt

Json = dict[str, Any]

NAMES: Mapping[str, Mapping[str, str]] = {
    "titan": {
        "max_tokens": "maxTokenCount",
        "temperature": "temperature",
        "top_p": "topP",
        "stop": "stopSequences",
    },
    "llama3": {"max_tokens": "max_gen_len"},
    "llama4": {"max_tokens": "max_gen_len"},
    "inst": {},
}
"""Parameters under the names that they have in the bodies with a prompt."""


def build(
    provider: Provider, model: str, messages: Sequence[Any], parameters: Mapping[str, Any], *, stream: bool
) -> Json:
    """The request body. Whether to stream is in the URL.

    Raises:
        BadRequestError: a message or a parameter that this model has no form for.
        UnsupportedParamsError: a response format that it lacks.
    """
    given = {name: value for name, value in parameters.items() if name != "stream_options"}
    match provider.body:
        case "messages":
            body = anthropic.build(provider, model, messages, given, stream=False)
            del body["model"]
            return body
        case "nova":
            return _nova(converse.build(provider, model, messages, given, stream=stream))
        case "chat":
            body = chat.build(provider, model, messages, given, stream=False)
            del body["model"]
            return body
    if isinstance(given.get("stop"), str):
        given["stop"] = [given["stop"]]
    options = {NAMES[provider.body].get(name, name): value for name, value in given.items()}
    text = prompt(provider.body, messages)
    if provider.body == "titan":
        return {"inputText": text, **({"textGenerationConfig": options} if options else {})}
    return {"prompt": text, **options}


def _nova(body: Json) -> Json:
    """What Converse takes, with the model's own fields in their places."""
    more = body.pop("additionalModelRequestFields", {})
    if "top_k" in more:
        body.setdefault("inferenceConfig", {})["topK"] = more.pop("top_k")
    return {"schemaVersion": "messages-v1", **body, **more}
