"""Requests of the chat completions family."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..providers.registry import MessageRules, Provider
from . import call_id, plain_data, response_format


def build(
    provider: Provider, model: str, messages: Sequence[Any], parameters: Mapping[str, Any], *, stream: bool
) -> dict[str, Any]:
    """The request body: OpenAI's, by definition."""
    rules = provider.messages
    if rules is not None:
        messages = [_ruled(rules, message) for message in plain_data(messages)]
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


def _ruled(rules: MessageRules, message: dict[str, Any]) -> dict[str, Any]:
    """A message as a strict server takes it."""
    role = "system" if message.get("role") == "developer" else message.get("role")
    known = rules.fields.get(role or "", message.keys())
    ruled = {name: value for name, value in {**message, "role": role}.items() if name in known}
    if rules.thinking and role == "assistant" and message.get("reasoning_content"):
        content = message.get("content") or []
        thought = {"type": "thinking", "thinking": [{"type": "text", "text": message["reasoning_content"]}]}
        ruled["content"] = [thought, *([{"type": "text", "text": content}] if isinstance(content, str) else content)]
    if message.get("tool_calls"):
        ruled["tool_calls"] = [{**call, "id": call_id(call.get("id"), rules.call_id)} for call in message["tool_calls"]]
    if "tool_call_id" in ruled:
        ruled["tool_call_id"] = call_id(ruled["tool_call_id"], rules.call_id)
    return ruled


def stream_options(provider: Provider, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The `stream_options` to send.

    The usage is asked for wherever it can be: `Stream.usage` has it in any case, and whether the caller sees it as a
    chunk is decided by the decoder. `include_obfuscation` stays the caller's: that padding hides the length of tokens
    from whoever watches the network.
    """
    if provider.stream_options:
        return {**asked, "include_usage": True}
    return {name: value for name, value in asked.items() if name != "include_usage"}
