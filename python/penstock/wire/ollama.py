"""Requests of the Ollama family: the native chat."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import BadRequestError
from ..providers.registry import Provider
from . import plain_data, response_format, split_data_url, text_of

OPTIONS: Mapping[str, str] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "max_tokens": "num_predict",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repeat_penalty",
}
"""Parameters under their names in `options`."""

LEVELS: Mapping[str, bool | str] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
}
"""`think` for each `reasoning_effort`."""


def build(
    provider: Provider,  # noqa: ARG001  the same arguments in each family
    model: str,
    messages: Sequence[Any],
    parameters: Mapping[str, Any],
    *,
    stream: bool,
) -> dict[str, Any]:
    """The request body.

    Raises:
        BadRequestError: a message or a parameter that cannot be said in this family.
    """
    # Streaming is the default there: it is always said.
    body: dict[str, Any] = {"model": model, "messages": _messages(plain_data(messages)), "stream": stream}
    if parameters.get("tools"):
        body["tools"] = plain_data(parameters["tools"])
    wanted = plain_data(response_format(parameters.get("response_format")) or {})
    if wanted.get("type") == "json_object":
        body["format"] = "json"
    elif wanted.get("type") == "json_schema":
        body["format"] = wanted["json_schema"]["schema"]
    think = _think(parameters)
    if think is not None:
        body["think"] = think
    body.update({name: parameters[name] for name in ("logprobs", "top_logprobs") if name in parameters})
    options = {OPTIONS[name]: value for name, value in parameters.items() if name in OPTIONS}
    stop = parameters.get("stop")
    if stop is not None:
        options["stop"] = [stop] if isinstance(stop, str) else list(stop)
    if options:
        body["options"] = options
    return body


def _think(parameters: Mapping[str, Any]) -> bool | str | None:
    """`thinking` is on or off, `reasoning_effort` has grades."""
    wanted, effort = parameters.get("thinking"), parameters.get("reasoning_effort")
    if effort is not None:
        if effort not in LEVELS:
            raise BadRequestError(f"reasoning_effort must be one of {', '.join(LEVELS)}", param="reasoning_effort")
        return LEVELS[effort]
    return None if wanted is None else wanted.get("type") != "disabled"


def _messages(messages: Sequence[Any]) -> list[dict[str, Any]]:
    names: dict[str, str] = {}
    built = []
    for message in messages:
        role = message.get("role")
        if role not in ("system", "developer", "user", "assistant", "tool"):
            raise BadRequestError(f"messages: unknown role {role!r}", param="messages")
        turn: dict[str, Any] = {"role": "system" if role == "developer" else role, "content": text_of(message)}
        images = [_image(part) for part in _others(message.get("content"))]
        if images:
            turn["images"] = images
        if message.get("reasoning_content"):
            turn["thinking"] = message["reasoning_content"]
        if message.get("tool_calls"):
            turn["tool_calls"] = [_call(call) for call in message["tool_calls"]]
            names.update({call["id"]: call["function"]["name"] for call in message["tool_calls"]})
        if role == "tool":
            name = message.get("name") or names.get(message.get("tool_call_id") or "")
            if name:
                turn["tool_name"] = name
        built.append(turn)
    return built


def _others(content: Any) -> list[Any]:
    return [part for part in content if part.get("type") != "text"] if isinstance(content, list) else []


def _image(part: Mapping[str, Any]) -> str:
    """The base64 of an image, which is the only thing beside text that goes over."""
    if part.get("type") != "image_url":
        raise BadRequestError(
            f"messages: a content part of type {part.get('type')!r} cannot be said to Ollama", param="messages"
        )
    source = part["image_url"]
    data = split_data_url(source if isinstance(source, str) else source["url"])
    if data is None:
        raise BadRequestError("messages: Ollama takes images as data URLs only; it fetches none", param="messages")
    return data[1]


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    try:
        arguments = json.loads(call["function"].get("arguments") or "{}")
    except ValueError:
        raise BadRequestError(f"messages: the arguments of call {call['id']!r} are no JSON", param="messages") from None
    return {"function": {"name": call["function"]["name"], "arguments": arguments}}
