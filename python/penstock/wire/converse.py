"""Requests of the Converse family.

What came back as `thinking_blocks` and `content_blocks` of an assistant's message goes back as it came. A content part
without a `type` is taken for a block of Converse's own, and `cache_control` on a part, a message or a tool sets a cache
point behind it.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ..errors import BadRequestError, UnsupportedParamsError
from ..providers.registry import Provider
from . import answer_by_tool, call_id, plain, plain_data, response_format, turns_of
from .anthropic import takes_schema

Json = dict[str, Any]

INFERENCE = {"max_tokens": "maxTokens", "temperature": "temperature", "top_p": "topP"}
BUDGETS = {"minimal": 1024, "low": 1024, "medium": 2048, "high": 4096}
"""Tokens to think, by effort, for models that take a number."""
CLAUDE = re.compile(r"claude-(?:opus|sonnet|haiku)-(\d+)(?:-(\d{1,2})(?!\d))?")
FORCED = re.compile(r"claude|nova")
"""Models that can be told which tool to call."""
IMAGES = frozenset({"png", "jpeg", "gif", "webp"})
DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)[^,]*;base64,", re.ASCII)
CALL_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


def build(
    provider: Provider,
    model: str,
    messages: Sequence[Any],
    parameters: Mapping[str, Any],
    *,
    stream: bool,  # noqa: ARG001  said by the URL
) -> Json:
    """The request body. The model, and whether to stream, are in the URL.

    Raises:
        BadRequestError: content that Converse has no form for.
        UnsupportedParamsError: a response format that it lacks.
    """
    rest = dict(parameters)
    rest.pop("stream_options", None)
    identify = partial(call_id, length=provider.messages.call_id) if provider.messages else _call_id
    blocks: dict[str, Callable[[Json], list[Json]]] = {
        "user": _content,
        "assistant": partial(_assistant, identify),
        "tool": partial(_result, identify),
    }
    system, turns = turns_of([_dict(message) for message in messages], blocks)
    body: Json = {"messages": turns}
    if system:
        body["system"] = system
    more = _reasoning(model, rest)
    inference = {theirs: rest.pop(ours) for ours, theirs in INFERENCE.items() if ours in rest}
    if "stop" in rest:
        stop = rest.pop("stop")
        inference["stopSequences"] = [stop] if isinstance(stop, str) else list(stop)
    if inference:
        body["inferenceConfig"] = inference
    if text := _text_format(provider, model, rest, more):
        body["outputConfig"] = {"textFormat": text}
    config = _tools(rest.pop("tools", None) or (), rest.pop("tool_choice", None), turns)
    if config:
        body["toolConfig"] = config
    if "service_tier" in rest:
        tier = rest.pop("service_tier")
        body["serviceTier"] = {"type": "default" if tier == "auto" else tier}
    if "metadata" in rest:
        body["requestMetadata"] = dict(rest.pop("metadata"))
    # Whatever else was let through is a field of the model's own.
    more = {**rest, **more}
    if more:
        body["additionalModelRequestFields"] = more
    return body


def _dict(value: Any) -> Json:
    data = value if isinstance(value, Mapping) else plain(value)
    if not isinstance(data, Mapping):
        raise BadRequestError(f"expected an object with fields, not {type(value).__name__}", param="messages")
    return dict(data)


# Messages


def _assistant(identify: Callable[[Any], str], message: Json) -> list[Json]:
    blocks: list[Json] = []
    for block in message.get("thinking_blocks") or ():
        if block.get("type") == "redacted_thinking":
            blocks.append({"reasoningContent": {"redactedContent": block["data"]}})
        else:
            text = {"text": block.get("thinking", ""), "signature": block.get("signature")}
            said = {name: value for name, value in text.items() if value is not None}
            blocks.append({"reasoningContent": {"reasoningText": said}})
    blocks += [dict(block) for block in message.get("content_blocks") or ()]
    blocks += _content(message)
    for call in map(_dict, message.get("tool_calls") or ()):
        function = _dict(call["function"])
        use = {"toolUseId": identify(call.get("id")), "name": function["name"], "input": _arguments(function)}
        blocks.append({"toolUse": use})
    return blocks


def _arguments(function: Json) -> Any:
    import orjson

    text = function.get("arguments") or "{}"
    if not isinstance(text, str):
        return text
    try:
        return orjson.loads(text)
    except ValueError as error:
        raise BadRequestError(f"the arguments of {function['name']} are not JSON: {error}", param="messages") from None


def _result(identify: Callable[[Any], str], message: Json) -> list[Json]:
    # A cache point stands beside the result, not in it.
    blocks = _content(message)
    content = [block for block in blocks if "cachePoint" not in block]
    result = {"toolUseId": identify(message.get("tool_call_id")), "content": content}
    return [{"toolResult": result}, *(block for block in blocks if "cachePoint" in block)]


def _call_id(given: Any) -> str:
    """The id of a call from any provider in the letters that are allowed, the same each time."""
    text = str(given or "")
    if CALL_ID.fullmatch(text):
        return text
    from hashlib import sha256

    # Two ids may differ in no allowed letter.
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:47] + "-" + sha256(text.encode()).hexdigest()[:16]


def _content(message: Json) -> list[Json]:
    """The blocks of a message's `content`. Blank texts are refused by the server: they are left out."""
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else map(_dict, content or ())
    blocks: list[Json] = []
    for part in parts:
        if "type" not in part:
            blocks.append(part)
            continue
        block = _block(part)
        if block is not None:
            blocks += [block, *_cache_point(part)]
    return blocks + _cache_point(message) if blocks else blocks


def _block(part: Json) -> Json | None:
    match part["type"]:
        case "text":
            return {"text": part["text"]} if part["text"].strip() else None
        case "refusal":
            return {"text": part["refusal"]} if part["refusal"].strip() else None
        case "image_url":
            image = part["image_url"]
            return _image(image if isinstance(image, str) else image["url"])
        case "file":
            return _document(_dict(part["file"]))
        case other:
            raise BadRequestError(f"Converse has no content of the type {other!r}", param="messages")


def _image(url: str) -> Json:
    if url.startswith("s3://"):
        form = url.rpartition(".")[2].lower().replace("jpg", "jpeg")
        source: Json = {"s3Location": {"uri": url}}
    else:
        media, data = _data(url, "an image")
        form, source = media.partition("/")[2].replace("jpg", "jpeg"), {"bytes": data}
    if form not in IMAGES:
        raise BadRequestError(f"an image must be {', '.join(sorted(IMAGES))}, not {form!r}", param="messages")
    return {"image": {"format": form, "source": source}}


def _document(file: Json) -> Json:
    if not file.get("file_data"):
        raise BadRequestError("a file must come as file_data: there are no stored files here", param="messages")
    media, data = _data(file["file_data"], "a file")
    if media not in DOCUMENTS:
        raise BadRequestError(f"no documents of the type {media!r}", param="messages")
    stem = str(file.get("filename") or "document").rpartition("/")[2]
    stem = stem.rpartition(".")[0] or stem
    # Allowed: letters, digits, single spaces, hyphens, parentheses and brackets.
    name = re.sub(r"\s+", " ", re.sub(r"[^A-Za-z0-9\s()\[\]-]", "-", stem)).strip() or "document"
    return {"document": {"format": DOCUMENTS[media], "name": name[:200], "source": {"bytes": data}}}


def _data(url: str, what: str) -> tuple[str, str]:
    """Media type and base64 of a data URL."""
    found = DATA_URL.match(url)
    if found is None:
        raise BadRequestError(
            f"{what} must come as a data: URL with base64: Converse fetches nothing from {url[:40]!r}", param="messages"
        )
    return found[1].lower(), url[found.end() :]


def _cache_point(part: Mapping[str, Any]) -> list[Json]:
    control = part.get("cache_control")
    if not control:
        return []
    ttl = {"ttl": control["ttl"]} if control.get("ttl") else {}
    return [{"cachePoint": {"type": "default", **ttl}}]


# Parameters


def _tools(tools: Iterable[Any], choice: Any, turns: list[Json]) -> Json:
    used = any("toolUse" in block or "toolResult" in block for turn in turns for block in turn["content"])
    if choice == "none" and not used:
        return {}
    listed: list[Json] = []
    for tool in map(_dict, tools):
        if "function" not in tool:
            listed.append(tool)
            continue
        function = _dict(tool["function"])
        spec: Json = {"name": function["name"]}
        if function.get("description"):
            spec["description"] = function["description"]
        spec["inputSchema"] = {"json": function.get("parameters") or {"type": "object", "properties": {}}}
        if function.get("strict") is not None:
            spec["strict"] = function["strict"]
        listed += [{"toolSpec": spec}, *_cache_point(tool)]
    if not listed:
        return {}
    match choice:
        # There is no form for `none`; without a choice, a history with tools in it is still read.
        case None | "none":
            return {"tools": listed}
        case "auto":
            chosen: Json = {"auto": {}}
        case "required":
            chosen = {"any": {}}
        case {"function": {"name": str(name)}}:
            chosen = {"tool": {"name": name}}
        case other:
            raise BadRequestError(f"tool_choice cannot be {other!r}", param="tool_choice")
    return {"tools": listed, "toolChoice": chosen}


def _text_format(provider: Provider, model: str, rest: Json, reasoning: Json) -> Json | None:
    """How to ask for JSON, taken out of `rest`: a schema, or a tool that the model has to call, which is put there."""
    import orjson

    form = plain_data(response_format(rest.pop("response_format", None))) or {}
    kind = form.get("type", "text")
    if kind == "text":
        return None
    if kind == "json_schema" and not _takes_tool(model):
        schema = form["json_schema"]
        described = {"description": schema["description"]} if schema.get("description") else {}
        structure = {"schema": orjson.dumps(schema["schema"]).decode(), "name": schema["name"], **described}
        return {"type": "json_schema", "structure": {"jsonSchema": structure}}
    by_tool = kind == "json_schema" or (kind == "json_object" and FORCED.search(model))
    thinking: Json = reasoning.get("thinking") or rest.get("thinking") or {}
    thinks = thinking.get("type") in ("enabled", "adaptive")
    if not by_tool or thinks:
        instead = "leave thinking and reasoning_effort out" if by_tool else "give a json_schema"
        raise UnsupportedParamsError(
            f"{provider.slug} has no response_format {kind!r} for {model} as called: {instead}",
            param="response_format",
            provider=provider.slug,
        )
    rest["tools"], rest["tool_choice"] = answer_by_tool(provider, form, rest.get("tools"), rest.get("tool_choice"))
    return None


def _takes_tool(model: str) -> bool:
    """Whether a model has to be given a tool for what others take a schema for."""
    return bool(FORCED.search(model)) and not takes_schema(model)


def _reasoning(model: str, rest: Json) -> Json:
    """How hard to think, in the words of the model, taken out of `rest` with what does not go with it."""
    effort = rest.pop("reasoning_effort", None)
    fields: Json = {}
    if effort is None:
        if (rest.get("thinking") or {}).get("type") not in ("enabled", "adaptive"):
            return fields
    elif "claude" in model:
        fields = _claude(model, effort)
    elif "nova" in model:
        on = {"type": "enabled", "maxReasoningEffort": "low" if effort == "minimal" else effort}
        return {"reasoningConfig": {"type": "disabled"} if effort == "none" else on}
    else:
        return {"reasoning_effort": effort}
    if fields.get("thinking", {}).get("type") != "disabled":
        for name in ("temperature", "top_p", "top_k"):
            rest.pop(name, None)
    return fields


def _claude(model: str, effort: str) -> Json:
    if effort == "none":
        return {"thinking": {"type": "disabled"}}
    found = CLAUDE.search(model)
    if found and (int(found[1]), int(found[2] or 0)) >= (4, 6):
        return {
            "thinking": {"type": "adaptive"},
            "output_config": {"effort": "low" if effort == "minimal" else effort},
        }
    if effort not in BUDGETS:
        raise BadRequestError(f"reasoning_effort cannot be {effort!r} for this model", param="reasoning_effort")
    return {"thinking": {"type": "enabled", "budget_tokens": BUDGETS[effort]}}
