"""Chat Completions: authored streams, one for each way in which servers of this family are known to answer.

Cases are named by behaviour. The texts mix scripts on purpose: a reader that cuts UTF-8 or counts UTF-16 shows it here.
"""

from __future__ import annotations

import base64
import json
import re
from functools import partial
from typing import Any, NamedTuple

from ..family import Asked, Family, Json, Problem, RefusedError, dump, sse

Event = Json | str
"""A chunk, or the text of a comment."""

DONE = b"data: [DONE]\n\n"


class Chat(NamedTuple):
    """A stream of chunks and what a server of this kind does about usage."""

    about: str
    events: list[Event]
    """Sent whatever the request says, in this order."""
    asked: tuple[Event, ...] = ()
    """Sent after them if the request asks for usage."""
    null_usage: bool = False
    """Whether the other chunks then say `"usage": null`."""
    usage: Json | None = None
    """Of the response without streaming."""
    done: bool = True
    """Whether the server ends with [DONE]."""
    newline: bytes = b"\n"
    ascii: bool = False
    """Whether the server escapes what is not ASCII."""

    def frames(self, *, asked: bool, usage: bool, done: bool) -> list[bytes]:
        """The stream; see `Case`."""
        events = self.events + list(self.asked) if asked and usage else self.events
        frames = []
        for event in events:
            if isinstance(event, str):
                frames.append(f": {event}\n\n".encode())
                continue
            chunk = event if usage else _without_usage(event)
            if asked and usage and self.null_usage and "usage" not in chunk:
                chunk = {**chunk, "usage": None}
            frames.append(sse(dump(chunk, ascii=self.ascii), newline=self.newline))
        if done and self.done:
            frames.append(b"data: [DONE]" + self.newline * 2)
        return frames

    def single(self, *, usage: bool) -> bytes:
        """The response; see `Case`."""
        response = _assemble([event for event in self.events if not isinstance(event, str)])
        if usage and self.usage is not None:
            response["usage"] = self.usage
        return dump(response, ascii=self.ascii)


class Long:
    """`long-N`: N text deltas, then finish and usage as in `hello`. Frames repeat, so a long one costs little."""

    about = "as many text deltas as the name says, long-N"

    def __init__(self, deltas: int) -> None:
        self.deltas = deltas

    def frames(self, *, asked: bool, usage: bool, done: bool) -> list[bytes]:
        """The stream; see `Case`."""
        words = self._chat([_delta(content=word) for word in WORDS])
        first, *cycle, last = words._replace(asked=()).frames(asked=asked, usage=usage, done=False)
        frames = [first, *(cycle * (self.deltas // len(cycle) + 1))[: self.deltas], last]
        if asked and usage:
            frames += [sse(dump(event)) for event in words.asked]
        return [*frames, DONE] if done else frames

    def single(self, *, usage: bool) -> bytes:
        """The response; see `Case`."""
        text = "".join((WORDS * (self.deltas // len(WORDS) + 1))[: self.deltas])
        return self._chat([_delta(content=text)]).single(usage=usage)

    def _chat(self, deltas: list[Json]) -> Chat:
        return _chat("long", self.about, deltas, prompt=19, completion=self.deltas)


# ---- pieces of which the cases are made


def _pieces(text: str) -> list[str]:
    """Text in the sizes in which models send it: up to seven characters, a space in front."""
    return re.findall(r"\s?\S{1,6}|\s", text)


def _delta(index: int = 0, *, finish: str | None = None, **delta: Any) -> Json:
    return {"choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}]}


def _usage(prompt: int, completion: int, *, cached: int = 0, reasoning: int = 0, **extra: Any) -> Json:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
        **extra,
    }


def _envelope(name: str, **extra: Any) -> Json:
    return {
        "id": f"chatcmpl-replay-{name}",
        "object": "chat.completion.chunk",
        "created": 1763800000,
        "model": f"replay-{name}-2025-11-22",
        "service_tier": "default",
        "system_fingerprint": "fp_5e1f0c0de5",
        **extra,
    }


def _chat(
    name: str, about: str, deltas: list[Json], *, prompt: int, completion: int, finish: str = "stop", **details: Any
) -> Chat:
    """The reference behaviour: role first, then the deltas, then the finish; usage on request in a chunk of its own.

    The first delta's content is "" where text follows, else null.
    """
    head = _envelope(name)
    usage = _usage(prompt, completion, **details)
    content = "" if any(delta["choices"][0]["delta"].get("content") for delta in deltas) else None
    events: list[Event] = [{**head, **_delta(role="assistant", content=content, refusal=None)}]
    events += [{**head, **delta} for delta in deltas]
    events.append({**head, **_delta(finish=finish)})
    return Chat(about, events, asked=({**head, "choices": [], "usage": usage},), null_usage=True, usage=usage)


def _text(text: str) -> list[Json]:
    return [_delta(content=piece) for piece in _pieces(text)]


def _call(index: int, id: str, name: str, *arguments: str) -> list[Json]:
    """One tool call in fragments, as deltas' `tool_calls` items."""
    first = {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}
    return [first, *({"index": index, "function": {"arguments": piece}} for piece in arguments)]


def _without_usage(event: Json) -> Json:
    """The event less every usage object that this family is known to carry, wherever it hides."""
    event = {key: value for key, value in event.items() if key != "usage"}
    if "x_groq" in event:
        event["x_groq"] = {key: value for key, value in event["x_groq"].items() if key != "usage"}
    return event


# ---- from chunks to one response


def _assemble(chunks: list[Json]) -> Json:
    """The response that a stream amounts to; knows only what the cases above use."""
    response: Json = {}
    choices: dict[int, Json] = {}
    for chunk in chunks:
        response.update({key: value for key, value in chunk.items() if value and key not in ("choices", "usage")})
        for choice in chunk["choices"]:
            whole = choices.setdefault(choice["index"], {"index": choice["index"], "message": {}})
            for key, value in choice.items():
                if key == "delta":
                    _add(whole["message"], value)
                elif key == "logprobs" and value:
                    whole[key] = whole.get(key) or {}
                    _add(whole[key], value)
                elif key != "message" and (value is not None or key not in whole):
                    whole[key] = value
    for choice in choices.values():
        message = choice["message"]
        message.setdefault("content", None)
        for call in message.get("tool_calls", ()):
            call.pop("index", None)
    response |= {"object": "chat.completion", "choices": [choices[index] for index in sorted(choices)]}
    return response


# Fields whose pieces make one text. All others have their value from the start, or from whoever says it last.
_TEXTS = {
    "content",
    "refusal",
    "reasoning",
    "reasoning_content",
    "arguments",
    "text",
    "signature",
    "data",
    "transcript",
}


def _add(whole: Json, delta: Json) -> None:
    """Adds one delta to what came before: text is appended, lists are extended or merged by index."""
    for key, value in delta.items():
        old = whole.get(key)
        if value is None:
            whole.setdefault(key, None)
        elif isinstance(value, dict):
            whole[key] = old or {}
            _add(whole[key], value)
        elif isinstance(value, list):
            whole[key] = _extended(old or [], value)
        elif isinstance(old, list):
            whole[key] = _extended(old, [{"type": "text", "text": value}] if value else [])
        elif key in _TEXTS:
            whole[key] = (old or "") + value
        else:
            whole[key] = value


def _extended(parts: list[Json], added: list[Json]) -> list[Json]:
    for part in added:
        same = _same(parts, part)
        if same is None:
            parts.append(json.loads(dump(part)))
        else:
            _add(same, part)
    return parts


def _same(parts: list[Json], part: Json) -> Json | None:
    """The part of the list that this one continues: of the same index, or the last one if of the same type of text."""
    if "index" in part:
        return next((old for old in parts if old.get("index") == part["index"]), None)
    if parts and part.get("type") in ("text", "thinking") and parts[-1].get("type") == part["type"]:
        return parts[-1]
    return None


# ---- the cases

HELLO = (
    "Hello! A penstock is the pipe that carries water from the dam down to the turbine. "
    "水は高い所から低い所へ流れる。"
    "Вода находит путь, el agua encuentra su camino, 물은 길을 찾는다. 🌊👩🏽‍🔧 "
    "That is all it does, and it never stops: "
    '"naïve" quotes, back\\slashes, tabs\tand\nnew lines go through unchanged, '
    "as do U+2028 (\u2028) and U+0085 (\u0085)."
)
THOUGHT = (
    "The user asks for the boiling point at altitude. 圧力が下がると沸点も下がる。 "
    "Roughly 1 °C per 300 m, so 3000 m → 90 °C."
)
ANSWER = "At 3 000 m water boils at about 90 °C (194 °F). 高地ではパスタに時間がかかります 🍝."
FORECAST = '{"city": "東京", "days": 3, "unit": "celsius"}'
WORDS = [" the", " water", " runs", " down", " the", ' "lazy"', " pipe", ".\n", " naïve", " 東京", " 🌊", " and"]


def _reasoning() -> Chat:
    head = _envelope("reasoning", system_fingerprint="fp_replay_0414")
    del head["service_tier"]
    usage = _usage(86, 67, cached=64, reasoning=41, prompt_cache_hit_tokens=64, prompt_cache_miss_tokens=22)
    events: list[Event] = [{**head, **_delta(role="assistant", content=None, reasoning_content="")}]
    events += [{**head, **_delta(content=None, reasoning_content=piece)} for piece in _pieces(THOUGHT)]
    events += [{**head, **_delta(content=piece, reasoning_content=None)} for piece in _pieces(ANSWER)]
    events.append({**head, **_delta(content="", reasoning_content=None, finish="stop"), "usage": usage})
    return Chat("reasoning_content before content; usage beside the finish reason, asked or not", events, usage=usage)


def _reasoning_alias() -> Chat:
    head = _envelope("reasoning-alias")
    usage = _usage(31, 58, reasoning=39)
    detail = {"type": "reasoning.text", "format": "unknown", "index": 0}
    events: list[Event] = [
        {**head, **_delta(role="assistant", content="", reasoning=piece, reasoning_details=[{**detail, "text": piece}])}
        for piece in _pieces(THOUGHT)
    ]
    signed = {**detail, "text": "", "signature": "UmVwbGF5IHNpZ25hdHVyZSDinJM="}
    events.append({**head, **_delta(role="assistant", content="", reasoning=None, reasoning_details=[signed])})
    events += [{**head, **_delta(role="assistant", content=piece)} for piece in _pieces(ANSWER)]
    events.append({**head, **_delta(content="", finish="stop")})
    last = {**head, "choices": [], "usage": usage}
    return Chat("`reasoning` with signed details; the role in every chunk", events, asked=(last,), usage=usage)


def _tools() -> Chat:
    pieces = _call(0, "call_replay7F2a", "get_forecast", *re.findall(r".{1,5}", FORECAST))
    deltas = [_delta(tool_calls=[piece]) for piece in pieces]
    about = "one tool call, its arguments in fragments"
    return _chat("tools", about, deltas, prompt=72, completion=24, finish="tool_calls")


def _tools_whole() -> Chat:
    head = _envelope("tools-whole", p="abcdefgh")
    usage = {"prompt_tokens": 81, "completion_tokens": 27, "total_tokens": 108}
    call = {"id": "q7Xw2LrT9", "function": {"name": "get_forecast", "arguments": FORECAST}}
    events: list[Event] = [
        {**head, **_delta(role="assistant", content="")},
        {**head, **_delta(content="", tool_calls=[call], finish="tool_calls"), "usage": usage},
    ]
    about = "a whole tool call in one delta, without index, beside finish reason and usage"
    return Chat(about, events, usage=usage)


def _parallel_tools() -> Chat:
    tokyo = _call(0, "call_replayA1", "get_forecast", '{"city":', ' "東京"', ', "days": 3}')
    oslo = _call(1, "call_replayB2", "get_forecast", '{"city":', ' "Tromsø"', ', "days": 3}')
    calls = [*tokyo[:2], *oslo[:2], tokyo[2], oslo[2], oslo[3], tokyo[3]]
    deltas = _text("Both at once: ") + [_delta(tool_calls=[call]) for call in calls]
    deltas[-1]["obfuscation"] = "x8KqPz"
    about = "text, then two tool calls whose fragments interleave"
    return _chat("parallel-tools", about, deltas, prompt=95, completion=52, finish="tool_calls")


def _n2() -> Chat:
    head = _envelope("n2")
    texts = ("Water flows downhill. 水は低きに流れる。", "Wasser fließt bergab → immer, überall, ohne Eile. 💧")
    deltas = [[_delta(index, content=piece) for piece in _pieces(text)] for index, text in enumerate(texts)]
    longest = max(map(len, deltas))
    events: list[Event] = [{**head, **_delta(index, role="assistant", content="", refusal=None)} for index in (0, 1)]
    for step in range(longest + 1):
        for index, choice in enumerate(deltas):
            if step < len(choice):
                events.append({**head, **choice[step]})
            elif step == len(choice):
                events.append({**head, **_delta(index, finish="length" if index else "stop")})
    usage = _usage(14, 33)
    last = {**head, "choices": [], "usage": usage}
    about = "two choices, interleaved; one ends with stop, one with length"
    return Chat(about, events, asked=(last,), null_usage=True, usage=usage)


def _logprobs() -> Chat:
    deltas = []
    for step, token in enumerate(["Down", "hill", ",", " 水", " 🌊", "."]):
        entry = {"token": token, "logprob": -0.0625 * step, "bytes": list(token.encode())}
        other = {"token": token.upper(), "logprob": -4.5, "bytes": list(token.upper().encode())}
        delta = _delta(content=token)
        delta["choices"][0]["logprobs"] = {"content": [{**entry, "top_logprobs": [entry, other]}], "refusal": None}
        deltas.append(delta)
    return _chat("logprobs", "logprobs with two alternatives for each token", deltas, prompt=11, completion=7)


def _refusal() -> Chat:
    pieces = _pieces("I'm sorry, but I can't help with opening someone else's dam. 申し訳ありません。")
    return _chat(
        "refusal", "a refusal instead of content", [_delta(refusal=piece) for piece in pieces], prompt=23, completion=21
    )


def _annotations() -> Chat:
    text = "The Bieudron penstock drops 1 869 m, the highest head in use."
    citation = {
        "title": "Bieudron → Kraftwerk",
        "url": "https://example.org/bieudron?lang=de&q=höhe",
        "start_index": 4,
        "end_index": 31,
    }
    sources = [{"type": "url_citation", "url_citation": citation}]
    deltas = [*_text(text), _delta(content="", annotations=sources)]
    return _chat("annotations", "a url_citation after the text", deltas, prompt=412, completion=19, cached=384)


def _legacy_function() -> Chat:
    deltas = [_delta(function_call={"name": "get_forecast", "arguments": ""})]
    deltas += [_delta(function_call={"arguments": piece}) for piece in re.findall(r".{1,6}", FORECAST)]
    about = "function_call, as before tools"
    return _chat("legacy-function", about, deltas, prompt=66, completion=18, finish="function_call")


def _audio() -> Chat:
    # Each piece is a multiple of three bytes of PCM, so that base64 pieces join without padding between them.
    samples = bytes((step * 37) % 256 for step in range(960))
    deltas = [_delta(audio={"id": "audio_replay68a1", "transcript": ""})]
    for step, piece in enumerate(_pieces("The valve is open. 水門が開きました。")):
        deltas.append(_delta(audio={"data": base64.b64encode(samples[step * 96 : step * 96 + 96]).decode()}))
        deltas.append(_delta(audio={"transcript": piece}))
    deltas.append(_delta(audio={"expires_at": 1763803600}))
    return _chat("audio", "spoken answer: base64 PCM and transcript in turn", deltas, prompt=28, completion=61)


def _empty_first_chunk() -> Chat:
    safe = {"filtered": False, "severity": "safe"}
    verdict = {"hate": safe, "self_harm": safe, "sexual": safe, "violence": safe}
    prompt = {
        "prompt_index": 0,
        "content_filter_results": {**verdict, "jailbreak": {"filtered": False, "detected": False}},
    }
    events: list[Event] = [
        {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": [prompt]}
    ]
    head = _envelope("empty-first-chunk")
    deltas = [_delta(role="assistant", content="", refusal=None), *_text(ANSWER), _delta(finish="stop")]
    for delta in deltas:
        delta["choices"][0]["content_filter_results"] = verdict if delta["choices"][0]["delta"].get("content") else {}
        events.append({**head, **delta})
    usage = _usage(24, 26)
    last = {**head, "choices": [], "usage": usage}
    about = "first chunk without choices or id; content_filter_results on each choice"
    return Chat(about, events, asked=(last,), null_usage=True, usage=usage)


def _usage_thrice() -> Chat:
    head = _envelope("usage-thrice")
    usage = _usage(37, 29, queue_time=0.021, prompt_time=0.0019, completion_time=0.0571, total_time=0.059)
    first = {**head, **_delta(role="assistant", content=""), "x_groq": {"id": "req_replay01", "seed": 42}}
    finish = {**head, **_delta(finish="stop"), "x_groq": {"id": "req_replay01", "usage": usage}, "usage": usage}
    events: list[Event] = [first, *({**head, **delta} for delta in _text(ANSWER)), finish]
    last = {**head, "choices": [], "usage": usage}
    return Chat(
        "the same usage three times: twice beside the finish reason, once after", events, asked=(last,), usage=usage
    )


def _usage_after_finish() -> Chat:
    head = _envelope("usage-after-finish", provider="Replay")
    usage = _usage(52, 31, cached=16, cost=0.000183, is_byok=False)
    role: Json = {"role": "assistant"}
    finish = _delta(**role, content="", finish="stop")
    finish["choices"][0]["native_finish_reason"] = "end_turn"
    events: list[Event] = ["REPLAY PROCESSING", "REPLAY PROCESSING"]
    events += [{**head, **_delta(**role, content=piece)} for piece in _pieces(ANSWER)]
    events += ["REPLAY PROCESSING", {**head, **finish}, {**head, **finish, "usage": usage}]
    return Chat("comments; the finish reason twice, usage beside the second", events, usage=usage)


def _usage_zeros_last() -> Chat:
    head = {"id": "id-1763800000123", "created": 1763800000, "model": "@replay/usage-zeros-last"}
    head["object"] = "chat.completion.chunk"
    usage = {"prompt_tokens": 45, "completion_tokens": 12, "total_tokens": 57}
    zeros = dict.fromkeys(usage, 0)
    events: list[Event] = [
        {**head, "choices": [{"index": 0, "delta": {"content": piece}}]} for piece in _pieces(ANSWER)
    ]
    finish = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    events.append({**finish, "usage": usage})
    asked = ({**finish, "usage": usage}, {**finish, "usage": zeros})
    return Chat(
        "no role; on request two more finish reasons, the last with a usage of zeros", events, asked, usage=usage
    )


def _usage_every_chunk() -> Chat:
    head = _envelope("usage-every-chunk", citations=["https://example.org/höhe", "https://example.org/沸点"])
    text = "<think>Look it up: 沸点.</think>" + ANSWER
    events: list[Event] = []
    said = ""
    pieces = _pieces(text)
    for count, piece in enumerate(pieces, 1):
        said += piece
        last = count == len(pieces)
        cost = {"input_tokens_cost": 0.0001, "total_cost": 0.0051 if last else 0}
        usage = {"prompt_tokens": 9, "completion_tokens": count, "total_tokens": 9 + count, "cost": cost}
        chunk = {**head, "usage": usage, **_delta(role="assistant", content=piece, finish="stop" if last else None)}
        chunk["choices"][0]["message"] = {"role": "assistant", "content": said}
        if last:
            chunk["object"] = "chat.completion.done"
        events.append(chunk)
    about = "growing usage and the whole message so far in every chunk; CRLF, escapes, no [DONE]"
    return Chat(about, events, usage=usage, done=False, newline=b"\r\n", ascii=True)


def _usage_null_counts() -> Chat:
    head = _envelope("usage-null-counts")
    known = {"prompt_tokens": 33, "completion_tokens": None, "total_tokens": None}
    final = {"prompt_tokens": 33, "completion_tokens": 24, "total_tokens": 57, "cache_read_input_tokens": 0}
    events: list[Event] = [
        {**head, **_delta(role="assistant", content=piece), "usage": known} for piece in _pieces(ANSWER)
    ]
    events.append({**head, **_delta(role="assistant", content="", finish="stop"), "usage": final})
    return Chat("usage in every chunk, its counts null until the end", events, usage=final)


def _content_parts() -> Chat:
    head = _envelope("content-parts", p="abcdefghij")
    usage = {
        "prompt_tokens": 17,
        "completion_tokens": 63,
        "total_tokens": 80,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    thoughts = [[{"type": "thinking", "thinking": [{"type": "text", "text": piece}]}] for piece in _pieces(THOUGHT)]
    first, *rest = _pieces(ANSWER)
    contents: list[Any] = [*thoughts, [{"type": "thinking", "thinking": [], "closed": True}]]
    contents += [[{"type": "text", "text": first}], *rest]
    events: list[Event] = [{**head, **_delta(role="assistant", content="")}]
    events += [{**head, **_delta(content=content)} for content in contents]
    events.append({**head, **_delta(content="", finish="stop"), "usage": usage})
    return Chat("content as lists of thinking and text parts, then as strings; usage unasked", events, usage=usage)


CASES: dict[str, Chat | Long] = {
    "hello": _chat("hello", "text in many scripts; usage on request", _text(HELLO), prompt=19, completion=87, cached=8),
    "reasoning": _reasoning(),
    "reasoning-alias": _reasoning_alias(),
    "tools": _tools(),
    "tools-whole": _tools_whole(),
    "parallel-tools": _parallel_tools(),
    "n2": _n2(),
    "logprobs": _logprobs(),
    "refusal": _refusal(),
    "annotations": _annotations(),
    "legacy-function": _legacy_function(),
    "audio": _audio(),
    "empty-first-chunk": _empty_first_chunk(),
    "content-parts": _content_parts(),
    "usage-thrice": _usage_thrice(),
    "usage-after-finish": _usage_after_finish(),
    "usage-zeros-last": _usage_zeros_last(),
    "usage-every-chunk": _usage_every_chunk(),
    "usage-null-counts": _usage_null_counts(),
    "no-usage": _chat("no-usage", "no usage, asked or not", _text(ANSWER), prompt=0, completion=0)._replace(
        asked=(), null_usage=False, usage=None
    ),
    "long-100": Long(100),
}


def _find(name: str) -> Chat | Long | None:
    if name.startswith("long-") and name[5:].isdecimal():
        return Long(int(name[5:]))
    return CASES.get(name)


# ---- the family's row


def _read(path: str, body: Json) -> Asked:
    if not isinstance(body.get("messages"), list) or not body["messages"]:
        message = "Invalid value for 'messages': expected a list with at least one message."
        raise RefusedError(Problem(400, "invalid_request_error", "invalid_value", message, "messages"))
    options = body.get("stream_options")
    if options is not None and not body.get("stream"):
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise RefusedError(Problem(400, "invalid_request_error", None, message, "stream_options"))
    # Some servers have other words for the model, and say in the path whether to stream.
    model, stream = body.get("model") or body.get("model_id"), body.get("stream") or path.endswith("_stream")
    return Asked(model or "hello", bool(stream), bool((options or {}).get("include_usage")))


def _problem(problem: Problem) -> bytes:
    fields = {"message": problem.message, "type": problem.type, "param": problem.param, "code": problem.code}
    return dump({"error": fields})


FAMILY = Family(
    name="chat",
    paths=("/chat/completions", "/text/chat", "/text/chat_stream"),
    content_type="text/event-stream; charset=utf-8",
    read=_read,
    find=_find,
    cases=CASES,
    frame=partial(sse, newline=b"\n"),
    text=lambda text: sse(dump({**_envelope("hello"), **_delta(content=text)})),
    problem=_problem,
    done=DONE,
    keepalive=b": keep-alive\n\n",
    endless=(
        b'data: {"id":"chatcmpl-replay-endless","choices":[{"index":0,"delta":{"content":"',
        b"water \xe6\xb0\xb4 ",
    ),
    finish=re.compile(rb'"finish_reason": ?"'),
)
