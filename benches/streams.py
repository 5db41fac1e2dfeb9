"""The stream that every bench reads: OpenAI chunks of about 300 bytes, text that varies, usage asked for.

Text varies because one peer raises when a model repeats itself, and because a cache would like it too much.
"""

import json
import random
from collections.abc import Iterator
from typing import Any

WORDS = """
the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one you
were all her she there would their we him been has when who will no more if out so up said what its about than into them
can only other time new some could these two may first then do
"""
ODD = [
    "\n\n",
    ",",
    ".",
    ":",
    ' "',
    '"',
    " naïve",
    " 東京",
    "です",
    " 👋",
    "`",
    "**",
    " {",
    "}",
    "\\",
    "\t",
    " Zürich",
    "—",
]


def chunk(delta: dict[str, Any], finish: str | None = None, *, padding: str = "", **extra: Any) -> dict[str, Any]:
    """One chunk as the provider sends it when usage was asked for."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    document = {
        "id": "chatcmpl-9aBcDeFgHiJkLmNoPqRsTuVwXyZ01",
        "object": "chat.completion.chunk",
        "created": 1763800000,
        "model": "gpt-4o-2024-08-06",
        "service_tier": "default",
        "system_fingerprint": "fp_cbf1785567",
        "choices": [choice],
        "usage": None,
        **extra,
    }
    return document | {"obfuscation": padding} if padding else document


def texts(count: int, source: random.Random) -> Iterator[str]:
    """Pieces of text as models send them."""
    words = WORDS.split()
    for number in range(count):
        common, odd = " " + source.choice(words), source.choice(ODD)
        yield odd if source.random() < 0.12 else f"{common}{number}" if source.random() < 0.05 else common


def documents(count: int, *, padded: bool = False, large: int | None = None, seed: int = 1) -> list[dict[str, Any]]:
    """A whole answer: the role, `count` pieces of text, the finish reason, and the usage in a chunk without choices.

    Args:
        count: chunks with text.
        padded: with an `obfuscation` field that makes all chunks equally long, as providers do by default.
        large: which of the texts has 8 KiB.
        seed: of the text.
    """
    source = random.Random(seed)

    def padding(used: int) -> str:
        return "".join(
            source.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=max(1, 16 - used))
        )

    found = [chunk({"role": "assistant", "content": "", "refusal": None}, padding=padding(0) if padded else "")]
    for number, text in enumerate(texts(count, source)):
        if number == large:
            text = (" ".join(WORDS.split()) * 100)[: 8 << 10]
        found.append(chunk({"content": text}, padding=padding(len(text)) if padded else ""))
    found.append(chunk({}, "stop", padding=padding(0) if padded else ""))
    usage = {
        "prompt_tokens": 19,
        "completion_tokens": count,
        "total_tokens": count + 19,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
    return [*found, chunk({}, padding=padding(0) if padded else "", usage=usage) | {"choices": []}]


def encode(document: dict[str, Any]) -> bytes:
    """Compact JSON in UTF-8."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def events(count: int, *, padded: bool = False, large: int | None = None) -> list[bytes]:
    """The same answer as server-sent events, with the [DONE] at the end."""
    return [b"data: " + encode(document) + b"\n\n" for document in documents(count, padded=padded, large=large)] + [
        b"data: [DONE]\n\n"
    ]


def anthropic_events(count: int, *, seed: int = 1) -> list[bytes]:
    """An answer with as many texts as events of the messages family: two, the texts, three."""
    usage = {"input_tokens": 19, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    message: dict[str, Any] = {
        "id": "msg_013Zva2CMHLNnXjNJJKqJ2EF",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**usage, "output_tokens": 1},
    }
    documents: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
            for text in texts(count, random.Random(seed))
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {**usage, "output_tokens": count},
        },
        {"type": "message_stop"},
    ]
    return [b"event: " + document["type"].encode() + b"\ndata: " + encode(document) + b"\n\n" for document in documents]


def answer(tokens: int = 9) -> dict[str, Any]:
    """An answer without streaming."""
    usage = documents(tokens)[-1]["usage"]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "Hello! How can I help you today?",
        "refusal": None,
        "annotations": [],
    }
    return {
        "id": "chatcmpl-9aBcDeFgHiJkLmNoPqRsTuVwXyZ01",
        "object": "chat.completion",
        "created": 1763800000,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": usage,
        "service_tier": "default",
        "system_fingerprint": "fp_cbf1785567",
    }


def reads(parts: list[bytes], size: int) -> list[bytes]:
    """The same bytes, cut as a socket would that always had `size` bytes waiting."""
    whole = b"".join(parts)
    return [whole[start : start + size] for start in range(0, len(whole), size)]
