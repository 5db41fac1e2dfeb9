"""Requests of the Responses family.

What came back as `output_items` of an assistant's message (reasoning, tools of the server) goes back as it came.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import BadRequestError
from ..providers.registry import Provider
from . import plain_data, response_format

Json = dict[str, Any]

REASONS = re.compile(r"(?:^|/)(?:o\d|gpt-5(?!.*-chat)|codex)")
"""Models that reason unasked: others refuse to include reasoning."""


def build(
    provider: Provider,  # noqa: ARG001  the same items in each family
    model: str,
    messages: Sequence[Any],
    parameters: Mapping[str, Any],
    *,
    stream: bool,
) -> Json:
    """The request body. Unless the caller says otherwise nothing is stored, as with chat completions.

    Raises:
        BadRequestError: a message that cannot be said in this family.
    """
    rest = plain_data({**parameters, "response_format": response_format(parameters.get("response_format"))})
    options = rest.pop("stream_options", None) or {}
    body: Json = {"model": model, "input": _input(plain_data(messages)), "store": rest.pop("store", False)}
    include = []
    effort = rest.pop("reasoning_effort", None)
    if effort is not None:
        body["reasoning"] = {"effort": effort}
    # Without a store the reasoning has to come back from the caller.
    if not body["store"] and (effort not in (None, "none") or (effort is None and REASONS.search(model))):
        include.append("reasoning.encrypted_content")
    if rest.pop("logprobs", None):
        include.append("message.output_text.logprobs")
    if include:
        body["include"] = include
    text: Json = {}
    if form := rest.pop("response_format"):
        text["format"] = {"type": form["type"], **(form.get("json_schema") or {})}
    if "verbosity" in rest:
        text["verbosity"] = rest.pop("verbosity")
    if text:
        body["text"] = text
    if tools := rest.pop("tools", None):
        body["tools"] = [_tool(tool) for tool in tools]
    if "tool_choice" in rest:
        body["tool_choice"] = _flat(rest.pop("tool_choice"))
    if stream:
        body["stream"] = True
        if "include_obfuscation" in options:
            body["stream_options"] = {"include_obfuscation": options["include_obfuscation"]}
    return {**rest, **body}


def _flat(tool: Any) -> Any:
    """A tool, or the choice of one, without the object inside that chat completions have; others as they are."""
    if isinstance(tool, str):
        return tool
    inner = tool.get(tool.get("type"))
    if tool.get("type") not in ("function", "custom") or not isinstance(inner, dict):
        return tool
    return {"type": tool["type"], **inner}


def _tool(tool: Any) -> Any:
    """A tool; a function is strict here unless it says otherwise, and in chat completions only if it says so."""
    flat = _flat(tool)
    if flat.get("type") != "function":
        return flat
    return {**flat, "parameters": flat.get("parameters"), "strict": flat.get("strict") or False}


# Messages


def _input(messages: Sequence[Json]) -> list[Json]:
    items: list[Json] = []
    custom: set[str] = set()
    for message in messages:
        match message.get("role"):
            case "system" | "developer" | "user" as role:
                items.append({"role": role, "content": _content(message)})
            case "assistant":
                items += message.get("output_items") or ()
                if said := _said(message):
                    items.append({"role": "assistant", "content": said})
                for call in message.get("tool_calls") or ():
                    items.append(_call(call))
                    if "custom" in call:
                        custom.add(call["id"])
            case "tool":
                kind = "custom_tool_call_output" if message["tool_call_id"] in custom else "function_call_output"
                content = message.get("content")
                output = content if isinstance(content, str) else _content(message)
                items.append({"type": kind, "call_id": message["tool_call_id"], "output": output})
            case other:
                raise BadRequestError(f"no message may have the role {other!r}", param="messages")
    return items


def _said(message: Json) -> str | list[Json]:
    """What the assistant said: bare, for its parts are known only as those of an item with an id of the API's own."""
    content = message.get("content") or []
    if isinstance(content, str):
        if not message.get("refusal"):
            return content
        content = [{"type": "text", "text": content}]
    parts = [
        {"type": "output_text", "text": part["text"]} if part.get("type") == "text" else dict(part) for part in content
    ]
    if message.get("refusal"):
        parts.append({"type": "refusal", "refusal": message["refusal"]})
    return parts


def _call(call: Json) -> Json:
    if "custom" in call:
        custom = call["custom"]
        return {"type": "custom_tool_call", "call_id": call["id"], "name": custom["name"], "input": custom["input"]}
    function = call["function"]
    return {
        "type": "function_call",
        "call_id": call["id"],
        "name": function["name"],
        "arguments": function.get("arguments") or "{}",
    }


def _content(message: Json) -> list[Json]:
    content = message.get("content") or []
    if isinstance(content, str):
        return [{"type": "input_text", "text": content}]
    return [_part(part) for part in content]


def _part(part: Any) -> Json:
    if isinstance(part, str):
        return {"type": "input_text", "text": part}
    match part.get("type"):
        case "text":
            return {"type": "input_text", "text": part["text"]}
        case "image_url":
            image = part["image_url"]
            image = {"url": image} if isinstance(image, str) else image
            # The schema requires the detail, and servers built upon it insist.
            return {"type": "input_image", "image_url": image["url"], "detail": image.get("detail") or "auto"}
        case "file":
            return {"type": "input_file", **part["file"]}
        case _:
            return dict(part)
