"""Requests of Anthropic's Messages API as chat completions: the inverse of `wire.anthropic`.

An upstream that takes blocks gets them as they came. Any other gets what OpenAI's API has a name for, and the client is
told of what has none. Marks for caches and thinking signed by somebody else are nobody's loss there, and left out.
"""

from collections.abc import Callable, Collection, Mapping
from hashlib import sha256
from typing import Any, NoReturn

import orjson

from ..errors import BadRequestError
from ..wire.anthropic import BUDGETS

Json = dict[str, Any]

BLOCKS = frozenset(("anthropic", "invoke"))
"""The families whose own parts of messages, and tools, are these."""

MARKS = BLOCKS | {"converse"}
"""Those that take signed thinking, failed results and marks for a cache."""

THINKING = MARKS | {"gemini", "cohere", "ollama"}
"""Those that take a `thinking`; the others know efforts."""

SAME = ("max_tokens", "temperature", "top_p", "top_k", "stream")

OURS = ("drop_params", "additional_drop_params", "allowed_openai_params")
"""What clients may say to this proxy, in either language."""

LEFT_OUT = ("model", "cache_control", "context_management", "diagnostics")
"""The model is not said here; the others are about how the service does it, and change nothing about what is asked."""

LONGEST_USER = 64
"""Characters: servers refuse a `user` that is longer."""


def chat_of(
    body: Mapping[str, Any], family: str = "anthropic", passes: Collection[str] = ()
) -> tuple[list[Json], Json]:
    """The messages of a request and its other parameters, for an upstream of this family.

    Fields named in `passes` go as they are.

    Raises:
        BadRequestError: what is not as the API has it, or cannot be said to this upstream; `param` says where it is.
    """
    given = {name: value for name, value in body.items() if value is not None}
    messages = []
    if given.get("system"):
        messages.append({"role": "system", "content": _content(given["system"], "system", family)})
    for place, turn in _places(given.get("messages"), "messages"):
        messages += _turn(_object(turn, place), place, family)
    parameters = {name: given[name] for name in (*SAME, *OURS, *passes) if name in given}
    for name, read in FIELDS.items():
        if name in given and name not in parameters:
            parameters.update(read(given[name], family))
    for name in given.keys() - {"system", "messages", *FIELDS, *LEFT_OUT, *parameters}:
        _cannot(name, "it has no equal in chat completions")
    return messages, parameters


# Parameters


def _stop(value: Any) -> Json:
    stop = _list(value, "stop_sequences")
    return {"stop": stop} if stop else {}


def _metadata(value: Any, family: str) -> Json:
    metadata = _object(value, "metadata")
    # The tags have chosen the deployment.
    for name in metadata.keys() - {"user_id", "tags"}:
        _cannot(f"metadata.{name}", "only user_id is known")
    user = metadata.get("user_id")
    if user is None:
        return {}
    text = _string(user, "metadata.user_id")
    if family not in BLOCKS and len(text) > LONGEST_USER:
        text = sha256(text.encode()).hexdigest()
    return {"user": text}


def _tier(value: Any, family: str) -> Json:
    return {"service_tier": "default" if value == "standard_only" and family not in BLOCKS else value}


def _thinking(value: Any, family: str) -> Json:
    thinking = _object(value, "thinking")
    kind = thinking.get("type")
    if kind not in ("enabled", "adaptive", "disabled"):
        _wrong("thinking.type", "enabled, adaptive or disabled", kind)
    if family in THINKING:
        return {"thinking": thinking}
    if kind != "enabled":
        return {}
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int):
        _wrong("thinking.budget_tokens", "a number", budget)
    return {
        "reasoning_effort": "low" if budget < BUDGETS["medium"] else "medium" if budget < BUDGETS["high"] else "high"
    }


def _output_config(value: Any, family: str) -> Json:
    config = _object(value, "output_config")
    for name in config.keys() - {"effort", "format"}:
        _cannot(f"output_config.{name}", "it has no equal in chat completions")
    made: Json = {}
    effort, form = config.get("effort"), config.get("format")
    if effort is not None:
        made["reasoning_effort"] = "xhigh" if effort == "max" and family not in THINKING else effort
    if form is not None:
        kind = _object(form, "output_config.format").get("type")
        if kind != "json_schema":
            _wrong("output_config.format.type", "json_schema", kind)
        schema = _object(form.get("schema"), "output_config.format.schema")
        described = {"name": "answer", "strict": True, "schema": schema}
        made["response_format"] = {"type": "json_schema", "json_schema": described}
    return made


def _tools(value: Any, family: str) -> Json:
    tools = [_tool(_object(tool, at), at, family) for at, tool in _places(value, "tools")]
    return {"tools": tools} if tools else {}


def _tool(tool: Json, at: str, family: str) -> Json:
    if family in BLOCKS:
        return tool
    if tool.get("type") not in (None, "custom"):
        _cannot(at, f"a tool of type {tool['type']} is the provider's own")
    known = {"type", "name", "description", "input_schema", "strict", "cache_control", "eager_input_streaming"}
    for name in tool.keys() - known:
        _cannot(f"{at}.{name}", "it has no equal in chat completions")
    function: Json = {"name": _string(tool.get("name"), f"{at}.name")}
    if tool.get("description"):
        function["description"] = tool["description"]
    function["parameters"] = _object(tool.get("input_schema"), f"{at}.input_schema")
    if tool.get("strict") is not None:
        function["strict"] = tool["strict"]
    return _marked({"type": "function", "function": function}, tool, family)


def _tool_choice(value: Any) -> Json:
    choice = _object(value, "tool_choice")
    kind = _string(choice.get("type"), "tool_choice.type")
    made: Json = {"parallel_tool_calls": False} if choice.get("disable_parallel_tool_use") else {}
    if kind == "tool":
        name = _string(choice.get("name"), "tool_choice.name")
        return {"tool_choice": {"type": "function", "function": {"name": name}}, **made}
    words = {"auto": "auto", "any": "required", "none": "none"}
    if kind not in words:
        _wrong("tool_choice.type", "auto, any, tool or none", kind)
    return {"tool_choice": words[kind], **made}


FIELDS: Mapping[str, Callable[[Any, str], Json]] = {
    "stop_sequences": lambda value, _: _stop(value),
    "metadata": _metadata,
    "service_tier": _tier,
    "thinking": _thinking,
    "output_config": _output_config,  # after it: its effort is the client's own
    "tools": _tools,
    "tool_choice": lambda value, _: _tool_choice(value),
}


# Messages


def _turn(turn: Json, at: str, family: str) -> list[Json]:
    content, inside = turn.get("content"), f"{at}.content"
    match turn.get("role"):
        case "user":
            return _user(content, inside, family)
        case "assistant":
            return [_assistant(content, inside, family)]
        case "system":
            return [{"role": "system", "content": _content(content, inside, family)}]
        case role:
            return _wrong(f"{at}.role", "user or assistant", role)


def _user(content: Any, at: str, family: str) -> list[Json]:
    """The results of tools are messages of their own, before what the user says."""
    results, said = [], []
    for place, block in _blocks(content, at):
        if block.get("type") == "tool_result":
            result, shown = _result(block, place, family)
            results.append(result)
            said += shown
        else:
            said.append(_part(block, place, family))
    return [*results, {"role": "user", "content": _merged(said)}] if said or not results else results


def _result(block: Json, at: str, family: str) -> tuple[Json, list[Json]]:
    """A result as a message; and what the user has to show instead, where results are texts."""
    message: Json = {"role": "tool", "tool_call_id": _string(block.get("tool_use_id"), f"{at}.tool_use_id")}
    content = block.get("content")
    parts = [_part(part, place, family) for place, part in _blocks("" if content is None else content, f"{at}.content")]
    if family not in MARKS:
        texts = [part["text"] for part in parts if part["type"] == "text"]
        return {**message, "content": "\n".join(texts)}, [part for part in parts if part["type"] != "text"]
    message["content"] = content if isinstance(content, str) else _merged(parts)
    if block.get("is_error"):
        message["is_error"] = True
    return _marked(message, block, family), []


def _assistant(content: Any, at: str, family: str) -> Json:
    said, calls, signed, others = [], [], [], []
    thoughts = []
    for place, block in _blocks(content, at):
        match block.get("type"):
            case "text":
                said.append(_part(block, place, family))
            case "tool_use":
                calls.append(_call(block, place, family))
            case "redacted_thinking":
                signed.append(block)
            case "thinking" if block.get("signature"):
                signed.append(block)
            case "thinking":
                # Nobody signs what came from a model of another family.
                thoughts.append(_string(block.get("thinking"), f"{place}.thinking"))
            case kind if family not in BLOCKS:
                _cannot(place, f"a block of type {kind} is the provider's own")
            case _:
                others.append(block)
    message: Json = {"role": "assistant", "content": _merged(said) if said else None if calls else ""}
    if family not in MARKS and isinstance(message["content"], list):
        message["content"] = "".join(part["text"] for part in said)
    found = {"tool_calls": calls, "content_blocks": others, "thinking_blocks": signed if family in MARKS else None}
    message.update((name, blocks) for name, blocks in found.items() if blocks)
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    return message


def _call(block: Json, at: str, family: str) -> Json:
    name, given = _string(block.get("name"), f"{at}.name"), _object(block.get("input"), f"{at}.input")
    function = {"name": name, "arguments": orjson.dumps(given).decode()}
    call: Json = {"id": _string(block.get("id"), f"{at}.id"), "type": "function", "function": function}
    if family in BLOCKS and block.get("caller"):
        call["caller"] = block["caller"]
    return _marked(call, block, family)


# Parts


def _content(content: Any, at: str, family: str) -> str | list[Json]:
    return _merged([_part(block, place, family) for place, block in _blocks(content, at)])


def _merged(parts: list[Json]) -> str | list[Json]:
    """One text that nothing is said about is a string."""
    if not parts:
        return ""
    if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
        text: str = parts[0]["text"]
        return text
    return parts


def _blocks(content: Any, at: str) -> list[tuple[str, Json]]:
    """The blocks of a content and where they stand."""
    if isinstance(content, str):
        return [(at, {"type": "text", "text": content})]
    return [(place, _object(block, place)) for place, block in _places(content, at)]


def _part(block: Json, at: str, family: str) -> Json:
    if family in BLOCKS:
        return block
    match block.get("type"):
        case "text":
            part: Json = {"type": "text", "text": _string(block.get("text"), f"{at}.text")}
        case "image":
            part = {"type": "image_url", "image_url": {"url": _image(block, f"{at}.source")}}
        case "document":
            part = _document(block, at, family)
        case kind:
            _cannot(at, f"a block of type {kind} is the provider's own")
    return _marked(part, block, family)


def _image(block: Json, at: str) -> str:
    source = _object(block.get("source"), at)
    match source.get("type"):
        case "base64":
            return _data_url(source, at)
        case "url":
            return _string(source.get("url"), f"{at}.url")
        case kind:
            return _cannot(at, f"an image of type {kind} is known to the provider alone: give its data or its address")


def _document(block: Json, at: str, family: str) -> Json:
    source, inside = _object(block.get("source"), f"{at}.source"), f"{at}.source"
    file: Json = {}
    match source.get("type"):
        case "base64":
            file["file_data"] = _data_url(source, inside)
        case "url":
            file["file_data"] = _string(source.get("url"), f"{inside}.url")
        case "file":
            file["file_id"] = _string(source.get("file_id"), f"{inside}.file_id")
        case "text":
            return _text(block, _string(source.get("data"), f"{inside}.data"), at)
        case "content":
            parts = [_part(part, place, family) for place, part in _blocks(source.get("content"), f"{inside}.content")]
            if any(part["type"] != "text" for part in parts):
                _cannot(inside, "a document may hold texts only")
            return _text(block, "\n".join(part["text"] for part in parts), at)
        case kind:
            _wrong(f"{inside}.type", "base64, url, file, text or content", kind)
    if block.get("title"):
        file["filename"] = block["title"]
    return {"type": "file", "file": file}


def _text(block: Json, text: str, at: str) -> Json:
    """A document of plain text: files are for others."""
    titles = [_string(block[name], f"{at}.{name}") for name in ("title", "context") if block.get(name)]
    return {"type": "text", "text": "\n\n".join([*titles, text])}


def _data_url(source: Json, at: str) -> str:
    media_type, data = (_string(source.get(name), f"{at}.{name}") for name in ("media_type", "data"))
    return f"data:{media_type};base64,{data}"


def _marked(made: Json, given: Json, family: str) -> Json:
    """With the mark for a cache, where it means something."""
    if family in MARKS and given.get("cache_control"):
        made["cache_control"] = given["cache_control"]
    return made


# What has to be as the API has it


def _places(value: Any, at: str) -> list[tuple[str, Any]]:
    return [(f"{at}[{place}]", item) for place, item in enumerate(_list(value, at))]


def _list(value: Any, at: str) -> list[Any]:
    return value if isinstance(value, list) else _wrong(at, "a list", value)


def _object(value: Any, at: str) -> Json:
    return value if isinstance(value, dict) else _wrong(at, "an object", value)


def _string(value: Any, at: str) -> str:
    return value if isinstance(value, str) else _wrong(at, "a string", value)


def _wrong(at: str, expected: str, value: Any) -> NoReturn:
    given = "nothing" if value is None else repr(value) if isinstance(value, str) else type(value).__name__
    raise BadRequestError(f"{at} must be {expected}, not {given}", param=at)


def _cannot(at: str, reason: str) -> NoReturn:
    raise BadRequestError(f"{at} cannot be sent to this model: {reason}", param=at)
