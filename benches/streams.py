"""The stream that every bench reads: OpenAI chunks of about 300 bytes, text that varies, usage asked for.

Text varies because one peer raises when a model repeats itself, and because a cache would like it too much.
"""

import json
import random
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


def documents(count: int, *, padded: bool = False, seed: int = 1) -> list[dict[str, Any]]:
    """A whole answer: the role, `count` pieces of text, the finish reason, and the usage in a chunk without choices.

    Args:
        count: chunks with text.
        padded: with an `obfuscation` field that makes all chunks equally long, as providers do by default.
        seed: of the text.
    """
    source = random.Random(seed)
    words = WORDS.split()

    def padding(used: int) -> str:
        return "".join(
            source.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=max(1, 16 - used))
        )

    found = [chunk({"role": "assistant", "content": "", "refusal": None}, padding=padding(0) if padded else "")]
    for number in range(count):
        common, odd = " " + source.choice(words), source.choice(ODD)
        text = odd if source.random() < 0.12 else f"{common}{number}" if source.random() < 0.05 else common
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


def events(count: int, *, padded: bool = False) -> list[bytes]:
    """The same answer as server-sent events, with the [DONE] at the end."""
    return [b"data: " + encode(document) + b"\n\n" for document in documents(count, padded=padded)] + [
        b"data: [DONE]\n\n"
    ]


def reads(parts: list[bytes], size: int) -> list[bytes]:
    """The same bytes, cut as a socket would that always had `size` bytes waiting."""
    whole = b"".join(parts)
    return [whole[start : start + size] for start in range(0, len(whole), size)]
