"""Requests of the Cohere family: chat, version 2."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import BadRequestError, UnsupportedParamsError
from ..providers.registry import Provider
from . import plain_data, response_format, text_of

SAME = ("temperature", "max_tokens", "p", "k", "seed", "frequency_penalty", "presence_penalty", "logprobs")
"""Parameters that go over as they are, once the row has given them their names."""


def build(
    provider: Provider, model: str, messages: Sequence[Any], parameters: Mapping[str, Any], *, stream: bool
) -> dict[str, Any]:
    """The request body.

    Raises:
        BadRequestError: a message or a parameter that cannot be said in this family.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(message) for message in plain_data(messages)],
        "stream": stream,
        **{name: parameters[name] for name in SAME if name in parameters},
    }
    stop = parameters.get("stop_sequences")
    if stop is not None:
        body["stop_sequences"] = [stop] if isinstance(stop, str) else list(stop)
    tools = plain_data(parameters.get("tools") or [])
    if tools:
        body["tools"] = [_tool(tool) for tool in tools]
        if any((tool.get("function") or {}).get("strict") for tool in tools):
            body["strict_tools"] = True
    choice = _tool_choice(provider, parameters.get("tool_choice"))
    if choice:
        body["tool_choice"] = choice
    wanted = plain_data(response_format(parameters.get("response_format")) or {})
    if wanted.get("type") == "json_object":
        body["response_format"] = wanted
    elif wanted.get("type") == "json_schema":
        body["response_format"] = {"type": "json_object", "json_schema": wanted["json_schema"]["schema"]}
    thinking = _thinking(parameters)
    if thinking:
        body["thinking"] = thinking
    return body


def _thinking(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """`thinking` says more than `reasoning_effort`, whose grades are unknown here."""
    wanted, effort = parameters.get("thinking"), parameters.get("reasoning_effort")
    if wanted is None:
        return {} if effort is None else {"type": "disabled" if effort == "none" else "enabled"}
    budget = wanted.get("budget_tokens")
    return {"type": wanted.get("type", "enabled"), **({} if budget is None else {"token_budget": budget})}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise BadRequestError(f"tools: one of type {tool.get('type')!r} cannot be said to Cohere", param="tools")
    function = {name: value for name, value in tool["function"].items() if name != "strict"}
    return {"type": "function", "function": function}


def _tool_choice(provider: Provider, choice: Any) -> str | None:
    if choice in (None, "auto"):
        return None
    if choice in ("required", "none"):
        return str(choice).upper()
    raise UnsupportedParamsError(
        f"{provider.slug} cannot be told which tool to call: tool_choice is auto, required or none",
        param="tool_choice",
        provider=provider.slug,
    )


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    match message.get("role"):
        case "system" | "developer":
            return {"role": "system", "content": text_of(message)}
        case "user":
            return {"role": "user", "content": _content(message.get("content"))}
        case "assistant":
            return _answer(message)
        case "tool":
            return {"role": "tool", "tool_call_id": message.get("tool_call_id"), "content": text_of(message)}
        case role:
            raise BadRequestError(f"messages: unknown role {role!r}", param="messages")


def _content(content: Any) -> Any:
    if content is None or isinstance(content, str):
        return content or ""
    for part in content:
        if part.get("type") not in ("text", "image_url"):
            raise BadRequestError(
                f"messages: a content part of type {part.get('type')!r} cannot be said to Cohere", param="messages"
            )
    return content


def _answer(message: Mapping[str, Any]) -> dict[str, Any]:
    """An earlier answer. What it thought before a tool call was its plan."""
    answer: dict[str, Any] = {"role": "assistant"}
    reasoning, calls = message.get("reasoning_content"), message.get("tool_calls")
    content = _content(message.get("content"))
    if calls:
        answer["tool_calls"] = [{name: call[name] for name in ("id", "type", "function")} for call in calls]
        if reasoning:
            answer["tool_plan"] = reasoning
    elif reasoning:
        texts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        content = [{"type": "thinking", "thinking": reasoning}, *texts]
    if content:
        answer["content"] = content
    if message.get("citations"):
        answer["citations"] = message["citations"]
    return answer
