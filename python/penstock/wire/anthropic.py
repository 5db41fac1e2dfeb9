"""Requests of the Messages family.

What came back as `thinking_blocks` and `content_blocks` of an assistant's message goes back as it came. Parts of a type
that OpenAI does not know are taken for blocks of this family and sent as they are.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import BadRequestError, UnsupportedParamsError
from ..providers.registry import Provider
from . import answer_by_tool, plain_data, response_format, split_data_url, turns_of

Json = dict[str, Any]

CLAUDE = re.compile(r"claude-(?:(?:opus|sonnet|haiku)-)?(\d+)(?:[-.](\d{1,2})(?!\d))?")
"""The version in a model's name: claude-3-5-haiku-20241022, claude-opus-4-6, claude-sonnet-4-20250514."""

BUDGETS = {"minimal": 1024, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 16384}
"""Tokens to think, by effort, for models that take a number: 1,024 is the least, and less than max_tokens."""


def build(
    provider: Provider, model: str, messages: Sequence[Any], parameters: Mapping[str, Any], *, stream: bool
) -> Json:
    """The request body.

    Raises:
        BadRequestError: a message or a parameter that cannot be said in this family.
        UnsupportedParamsError: a response format that it lacks.
    """
    rest = plain_data({**parameters, "response_format": response_format(parameters.get("response_format"))})
    rest.pop("stream_options", None)
    wanted = rest.pop("response_format") or {}
    system, turns = _conversation(plain_data(messages))
    body: Json = {"model": model, "max_tokens": rest.pop("max_tokens", None), "messages": turns}
    if system:
        body["system"] = system
    config: Json = {}
    if wanted.get("type", "text") != "text":
        _format(provider, model, wanted, rest, config)
    thinking = _thinking(model, rest, config)
    if thinking is not None:
        body["thinking"] = thinking
    body["max_tokens"] = _max_tokens(model, body["max_tokens"], thinking)
    if config:
        body["output_config"] = config
    temperature = rest.pop("temperature", None)
    # While the model thinks it takes no temperature but 1.
    if temperature is not None and (thinking is None or thinking.get("type") == "disabled"):
        body["temperature"] = min(temperature, 1)
    if "stop" in rest:
        stop = rest.pop("stop")
        body["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if tools := rest.pop("tools", None):
        body["tools"] = [_tool(tool) for tool in tools]
    choice = _tool_choice(rest.pop("tool_choice", None), rest.pop("parallel_tool_calls", None), bool(tools))
    if choice:
        body["tool_choice"] = choice
    if "user" in rest:
        body["metadata"] = {"user_id": rest.pop("user")}
    if stream:
        body["stream"] = True
    return {**rest, **body}


# Parameters


def _version(model: str) -> tuple[int, int] | None:
    found = CLAUDE.search(model)
    return (int(found[1]), int(found[2] or 0)) if found else None


def _thinking(model: str, rest: Json, config: Json) -> Json | None:
    """The `thinking` to send: the caller's, or what an effort amounts to; the effort itself goes into `config`."""
    given, effort = rest.pop("thinking", None), rest.pop("reasoning_effort", None)
    if effort is None or given is not None:
        thinking: Json | None = given
        if effort not in (None, "none") and given.get("type") == "adaptive":
            # It thinks as it sees fit, and this is how hard.
            config["effort"] = "low" if effort == "minimal" else effort
        return thinking
    if effort == "none":
        return {"type": "disabled"}
    if effort not in BUDGETS:
        raise BadRequestError(
            f"reasoning_effort must be one of none, {', '.join(BUDGETS)}, not {effort!r}", param="reasoning_effort"
        )
    version = _version(model)
    if version is not None and version >= (4, 6):
        config["effort"] = "low" if effort == "minimal" else effort
        return {"type": "adaptive"}
    return {"type": "enabled", "budget_tokens": BUDGETS[effort]}


def _max_tokens(model: str, given: int | None, thinking: Json | None) -> int:
    """`max_tokens` cannot be left out, and has to be more than the model may spend on thinking."""
    budget = (thinking or {}).get("budget_tokens") or 0
    if given is None:
        version = _version(model)
        # What the first models of each kind can write at most, or less: nobody waits an hour for an answer.
        most = 4096 if version is None or version < (3, 5) else 8192 if version < (3, 7) else 16384
        return int(budget) + most
    if thinking is not None and given <= budget:
        if given <= BUDGETS["low"]:
            raise BadRequestError(
                f"max_tokens={given} leaves no room to think: it takes at least {BUDGETS['low']} tokens, and an answer",
                param="max_tokens",
            )
        thinking["budget_tokens"] = given - 1
    return given


def _format(provider: Provider, model: str, wanted: Json, rest: Json, config: Json) -> None:
    """Asks for JSON: by a schema where the model takes one, else by a tool that it has to call."""
    kind = wanted["type"]
    if kind == "json_schema" and takes_schema(model):
        config["format"] = {"type": kind, "schema": wanted["json_schema"]["schema"]}
        return
    if kind not in ("json_object", "json_schema"):
        raise UnsupportedParamsError(
            f"{provider.slug} has no response_format of type {kind}: give it a json_schema",
            param="response_format",
            provider=provider.slug,
        )
    # The API refuses thinking together with a call that has to be made.
    if rest.get("reasoning_effort") not in (None, "none") or (rest.get("thinking") or {}).get("type") == "enabled":
        raise UnsupportedParamsError(
            f"{model} gives {kind} by a tool, which it cannot be told to call while it thinks: "
            "leave thinking and reasoning_effort out",
            param="response_format",
            provider=provider.slug,
        )
    rest["tools"], rest["tool_choice"] = answer_by_tool(provider, wanted, rest.get("tools"), rest.get("tool_choice"))


def takes_schema(model: str) -> bool:
    """Whether a model takes a JSON schema for its answer: Claude since 4.5, and Opus 4.1.

    Others that speak this wire have tools, and nothing is known of schemas.
    https://docs.claude.com/en/docs/build-with-claude/structured-outputs
    """
    version = _version(model)
    return "claude" in model and (version is None or version >= (4, 5) or "opus-4-1" in model)


def _tool(tool: Json) -> Json:
    """A function as a tool; a tool of the provider's own as it is."""
    function = tool.get("function")
    if tool.get("type") != "function" or function is None:
        return tool
    made: Json = {"name": function["name"]}
    if function.get("description"):
        made["description"] = function["description"]
    made["input_schema"] = {"type": "object", **(function.get("parameters") or {"properties": {}})}
    for name in ("strict", "cache_control", "eager_input_streaming"):
        value = tool.get(name, function.get(name))
        if value is not None:
            made[name] = value
    return made


def _tool_choice(choice: Any, parallel: bool | None, has_tools: bool) -> Json | None:
    made: Json | None
    match choice:
        case None:
            made = {"type": "auto"} if parallel is False and has_tools else None
        case "auto" | "none":
            made = {"type": choice}
        case "required":
            made = {"type": "any"}
        case {"type": "function", "function": {"name": name}}:
            made = {"type": "tool", "name": name}
        case {"type": "auto" | "any" | "tool" | "none"}:
            made = dict(choice)
        case _:
            raise BadRequestError(f"tool_choice cannot be {choice!r} here", param="tool_choice")
    if made is not None and parallel is False and made["type"] != "none":
        made["disable_parallel_tool_use"] = True
    return made


# Messages


def _conversation(messages: Sequence[Json]) -> tuple[str | list[Json], list[Json]]:
    """The system prompt, and the turns: neighbours of one role are one turn, with the results of tools at its head."""
    blocks = {"user": _content, "assistant": _assistant, "tool": lambda message: [_result(message)]}
    system, turns = turns_of(messages, blocks)
    for turn in turns:
        if turn["role"] == "user":
            turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    if turns and turns[-1]["role"] == "assistant":
        _strip_end(turns[-1])
    if [list(block) for block in system] == [["type", "text"]]:
        text: str = system[0]["text"]
        return text, turns
    return system, turns


def _strip_end(turn: Json) -> None:
    """White space at the very end of what the model is to go on with is refused."""
    last = turn["content"][-1]
    if last["type"] == "text":
        last["text"] = last["text"].rstrip() or last["text"]


def _content(message: Json) -> list[Json]:
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    blocks = [block for part in content or () if (block := _block(part)) is not None]
    if blocks and message.get("cache_control"):
        blocks[-1].setdefault("cache_control", message["cache_control"])
    return blocks


def _block(part: Any) -> Json | None:
    """A part of a message as a block; None for a text of nothing, which is refused."""
    if isinstance(part, str):
        part = {"type": "text", "text": part}
    match part.get("type"):
        case "text":
            block = {"type": "text", "text": part["text"]} if part.get("text") else None
        case "image_url":
            image = part["image_url"]
            block = _media(image if isinstance(image, str) else image["url"], None)
        case "file":
            block = _file(part["file"])
        case "refusal":
            block = {"type": "text", "text": part["refusal"]}
        case "input_audio":
            raise BadRequestError("audio cannot be sent to this provider", param="messages")
        case _:
            return dict(part)
    if block is not None and part.get("cache_control"):
        block["cache_control"] = part["cache_control"]
    return block


def _file(file: Json) -> Json:
    data, known = file.get("file_data"), file.get("file_id")
    if data:
        url = data if data.startswith(("data:", "http:", "https:")) else f"data:application/pdf;base64,{data}"
        return _media(url, file.get("filename"), default="document")
    if known and known.startswith(("http:", "https:")):
        return _media(known, file.get("filename"), default="document")
    if known:
        return {"type": "document", "source": {"type": "file", "file_id": known}}
    raise BadRequestError("a file needs file_data or file_id", param="messages")


def _media(url: str, title: str | None, *, default: str = "image") -> Json:
    """An image or a document, by data URL or by address."""
    split = split_data_url(url)
    if split is None:
        if not url.startswith(("http:", "https:")):
            raise BadRequestError("an image or a file needs an http(s) or base64 data URL", param="messages")
        return {"type": default, "source": {"type": "url", "url": url}}
    media_type, data = split
    if media_type.startswith("image/"):
        return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}
    source = {"type": "base64", "media_type": media_type, "data": data}
    if media_type.startswith("text/"):
        text = base64.b64decode(data).decode("utf-8", "replace")
        source = {"type": "text", "media_type": "text/plain", "data": text}
    return {"type": "document", "source": source, **({"title": title} if title else {})}


def _assistant(message: Json) -> list[Json]:
    # Thinking that nobody signed is refused.
    thinking = [block for block in message.get("thinking_blocks") or () if block.get("signature") or "data" in block]
    others = message.get("content_blocks") or []
    answered = {block.get("tool_use_id") for block in others}
    # A turn that paused ends with the call of a tool of the server that is yet to run.
    pending = [block for block in others if block["type"].endswith("_tool_use") and block.get("id") not in answered]
    done = [block for block in others if block not in pending]
    calls = [_call(call) for call in message.get("tool_calls") or ()]
    said = _content(message)
    if not said and message.get("refusal"):
        said = [{"type": "text", "text": message["refusal"]}]
    return [*thinking, *done, *said, *pending, *calls]


def _call(call: Json) -> Json:
    function = call.get("function")
    if function is None:
        raise BadRequestError(f"a call of type {call.get('type')} cannot be sent here", param="messages")
    block: Json = {"type": "tool_use", "id": call["id"], "name": function["name"], "input": _input(function)}
    for name in ("caller", "cache_control"):
        if call.get(name):
            block[name] = call[name]
    return block


def _input(function: Json) -> Any:
    import orjson

    arguments = function.get("arguments") or {}
    if not isinstance(arguments, str):
        return arguments
    try:
        return orjson.loads(arguments)
    except ValueError as error:
        raise BadRequestError(f"the arguments of {function['name']} are not JSON: {error}", param="messages") from None


def _result(message: Json) -> Json:
    result: Json = {"type": "tool_result", "tool_use_id": message["tool_call_id"]}
    content = message.get("content")
    result["content"] = content if isinstance(content, str) else _content({"content": content})
    for name in ("is_error", "cache_control"):
        if message.get(name):
            result[name] = message[name]
    return result
