"""Requests of the Gemini family: generateContent, of AI Studio and of Vertex AI."""

import json
from collections.abc import Mapping, Sequence
from mimetypes import guess_type
from typing import Any

from ..errors import BadRequestError
from ..providers.registry import Provider
from . import plain_data, response_format, split_data_url, text_of

CONFIG: Mapping[str, str] = {
    "max_tokens": "maxOutputTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "n": "candidateCount",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
}
"""Parameters that only have another name in `generationConfig`."""

BUDGETS: Mapping[str, int] = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576}
"""Thinking tokens for `reasoning_effort`, as the provider's own OpenAI-compatible surface has them."""

LOST_SIGNATURE = "skip_thought_signature_validator"
"""What stands in for a signature that was lost: without any, Gemini 3 refuses the call of an earlier turn."""


def build(
    provider: Provider,  # noqa: ARG001  the same arguments in each family
    model: str,
    messages: Sequence[Any],
    parameters: Mapping[str, Any],
    *,
    stream: bool,  # noqa: ARG001
) -> dict[str, Any]:
    """The request body. Whether to stream stands in the URL.

    Raises:
        BadRequestError: a message or a parameter that cannot be said in this family.
    """
    system, contents = _contents(model, plain_data(messages))
    body: dict[str, Any] = {"contents": contents}
    if system:
        body["systemInstruction"] = {"parts": system}
    tools = plain_data(parameters.get("tools") or [])
    if tools:
        body["tools"] = _tools(tools)
    mode = _tool_mode(parameters.get("tool_choice"), tools)
    if mode:
        body["toolConfig"] = {"functionCallingConfig": mode}
    config = _config(model, parameters)
    if config:
        body["generationConfig"] = config
    if "service_tier" in parameters:
        body["serviceTier"] = parameters["service_tier"]
    return body


def _config(model: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    config = {CONFIG[name]: value for name, value in parameters.items() if name in CONFIG}
    stop = parameters.get("stop")
    if stop is not None:
        config["stopSequences"] = [stop] if isinstance(stop, str) else list(stop)
    if parameters.get("modalities"):
        config["responseModalities"] = [name.upper() for name in parameters["modalities"]]
    wanted = plain_data(response_format(parameters.get("response_format")) or {})
    if wanted.get("type") in ("json_object", "json_schema"):
        config["responseMimeType"] = "application/json"
        if wanted["type"] == "json_schema":
            config["responseJsonSchema"] = wanted["json_schema"]["schema"]
    thinking = _thinking(model, parameters)
    if thinking:
        config["thinkingConfig"] = thinking
    return config


def _thinking(model: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The `thinkingConfig`: `thinking` says more than `reasoning_effort`."""
    wanted, effort = parameters.get("thinking"), parameters.get("reasoning_effort")
    if wanted is not None:
        if wanted.get("type") == "disabled":
            return {"thinkingBudget": 0}
        # -1 leaves it to the model.
        return {"thinkingBudget": wanted.get("budget_tokens", -1), "includeThoughts": True}
    if effort is None:
        return {}
    if effort not in BUDGETS:
        raise BadRequestError(f"reasoning_effort must be one of {', '.join(BUDGETS)}", param="reasoning_effort")
    shown = {} if effort == "none" else {"includeThoughts": True}
    if not _has_levels(model):
        return {"thinkingBudget": BUDGETS[effort], **shown}
    # These models cannot but think; the larger ones do not know the lowest level.
    level = {"none": "minimal", "xhigh": "high"}.get(effort, effort)
    return {"thinkingLevel": "low" if level == "minimal" and "pro" in model else level, **shown}


def _has_levels(model: str) -> bool:
    """Whether the model is of Gemini 3 or later, which has levels of thinking instead of budgets, and signed calls."""
    _, _, version = model.rpartition("gemini-")
    major = version.partition("-")[0].partition(".")[0]
    return major.isdigit() and int(major) >= 3


# Tools


def _tools(tools: Sequence[Any]) -> list[dict[str, Any]]:
    """All functions in one entry; the provider's own tools as they are."""
    functions, others = [], []
    for tool in tools:
        if tool.get("type") != "function":
            others.append(tool)
            continue
        function = tool["function"]
        declaration = {name: function[name] for name in ("name", "description") if function.get(name)}
        if function.get("parameters"):
            declaration["parametersJsonSchema"] = function["parameters"]
        functions.append(declaration)
    return ([{"functionDeclarations": functions}] if functions else []) + others


def _tool_mode(choice: Any, tools: Sequence[Any]) -> dict[str, Any] | None:
    strict = any(tool.get("type") == "function" and tool["function"].get("strict") for tool in tools)
    if choice is None:
        return {"mode": "VALIDATED"} if strict else None
    if isinstance(choice, str):
        modes = {"auto": "VALIDATED" if strict else "AUTO", "none": "NONE", "required": "ANY", "any": "ANY"}
        if choice in modes:
            return {"mode": modes[choice]}
    elif plain_data(choice).get("type") == "function":
        return {"mode": "ANY", "allowedFunctionNames": [choice["function"]["name"]]}
    raise BadRequestError(f"tool_choice {choice!r} cannot be said to Gemini", param="tool_choice")


# Messages


def _contents(model: str, messages: Sequence[Any]) -> tuple[list[Any], list[dict[str, Any]]]:
    """The parts of the system instruction, and the turns: those of one role in a row are one."""
    system: list[Any] = []
    contents: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for message in messages:
        match message.get("role"):
            case "system" | "developer":
                system += [{"text": text_of(message)}]
                continue
            case "user":
                role, parts = "user", _parts(message.get("content"))
            case "assistant":
                role, parts = "model", _model_parts(model, message)
                names.update({call["id"]: call["function"]["name"] for call in _calls(message)})
            case "tool":
                role, parts = "user", _result(message, names)
            case role:
                raise BadRequestError(f"messages: unknown role {role!r}", param="messages")
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        elif parts:
            contents.append({"role": role, "parts": parts})
    return system, contents


def _calls(message: Mapping[str, Any]) -> list[Any]:
    return message.get("tool_calls") or []


def _model_parts(model: str, message: Mapping[str, Any]) -> list[Any]:
    """An earlier answer. What the tools on the server's side did goes back as it came, and so do all signatures."""
    parts: list[Any] = list(message.get("content_parts") or [])
    parts += _parts(message.get("content"))
    for image in message.get("images") or []:
        part = _part(image)
        if image.get("thought_signature"):
            part["thoughtSignature"] = image["thought_signature"]
        parts.append(part)
    if message.get("thought_signature"):
        texts = [part for part in parts if "text" in part]
        if not texts:
            texts = [{"text": ""}]
            parts += texts
        texts[-1]["thoughtSignature"] = message["thought_signature"]
    for place, call in enumerate(_calls(message)):
        part = {"functionCall": {"name": call["function"]["name"], "args": _arguments(call), **_id(call["id"])}}
        signature = call.get("thought_signature") or _foreign_signature(call)
        if signature is None and place == 0 and _has_levels(model):
            signature = LOST_SIGNATURE
        if signature:
            part["thoughtSignature"] = signature
        parts.append(part)
    return parts


def _foreign_signature(call: Mapping[str, Any]) -> str | None:
    """The signature where the OpenAI-compatible surface of the same models puts it."""
    extra = call.get("extra_content") or {}
    signature: str | None = (extra.get("google") or {}).get("thought_signature")
    return signature


def _arguments(call: Mapping[str, Any]) -> Any:
    try:
        return json.loads(call["function"].get("arguments") or "{}")
    except ValueError:
        raise BadRequestError(f"messages: the arguments of call {call['id']!r} are no JSON", param="messages") from None


def _id(call: str) -> dict[str, str]:
    """An id that the provider gave; one that was made up here means nothing there."""
    return {} if call.startswith("call_") else {"id": call}


def _result(message: Mapping[str, Any], names: Mapping[str, str]) -> list[Any]:
    """The result of a call, which needs the function's name; what is not text stands beside it."""
    call = message.get("tool_call_id") or ""
    name = message.get("name") or names.get(call)
    if name is None:
        raise BadRequestError(f"messages: no tool call before has the id {call!r}", param="messages")
    parts = _parts(message.get("content"))
    text = "".join(part["text"] for part in parts if "text" in part)
    try:
        response = json.loads(text)
    except ValueError:
        response = None
    if not isinstance(response, dict):
        response = {"output": text}
    result = {"functionResponse": {"name": name, "response": response, **_id(call)}}
    return [result, *(part for part in parts if "text" not in part)]


def _parts(content: Any) -> list[Any]:
    if content is None:
        return []
    if isinstance(content, str):
        return [{"text": content}] if content else []
    return [_part(part) for part in content]


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    match part.get("type"):
        case "text":
            return {"text": part["text"]}
        case "image_url" | "video_url" as kind:
            source = part[kind]
            return _media(source if isinstance(source, str) else source["url"])
        case "input_audio":
            audio = part["input_audio"]
            return {"inlineData": {"mimeType": f"audio/{audio['format']}", "data": audio["data"]}}
        case "file":
            file = part["file"]
            return _media(file.get("file_data") or file.get("file_id") or "", file.get("format"), file.get("filename"))
        case None:
            return dict(part)  # a part as the family itself has it
        case kind:
            raise BadRequestError(
                f"messages: a content part of type {kind!r} cannot be said to Gemini", param="messages"
            )


def _media(source: str, mime_type: str | None = None, filename: str | None = None) -> dict[str, Any]:
    """Data in place for a data URL, else a reference that the provider follows itself."""
    data = split_data_url(source)
    if data is not None:
        return {"inlineData": {"mimeType": data[0], "data": data[1]}}
    mime_type = mime_type or guess_type(filename or source.partition("?")[0])[0]
    if "://" not in source:
        return {"inlineData": {"mimeType": mime_type or "application/octet-stream", "data": source}}
    return {"fileData": {**({"mimeType": mime_type} if mime_type else {}), "fileUri": source}}
