"""The parser alone, on bytes in memory: CPU time per chunk from the bytes to `choices[0].delta.content`.

Every subject reads the same stream and must find the same text (or the same usage), or the run stops. Subjects marked
"JSON only" are given payloads that somebody else has already cut out: they do less than the others.
"""

import importlib
import importlib.util
import json
from collections.abc import Callable, Iterator
from typing import Any

import measure
import streams

Subject = Callable[[list[bytes]], int]
ANCHOR = "split + orjson.loads"


def penstock_item(parts: list[bytes]) -> int:
    from penstock.parser import Decoder

    decoder = Decoder("chat", include_usage=True)
    found = 0
    for part in parts:
        for chunk in decoder.feed(part):
            if chunk["choices"]:
                found += len(chunk["choices"][0]["delta"].get("content") or "")
    decoder.finish()
    return found


def penstock_attribute(parts: list[bytes]) -> int:
    from penstock.parser import Decoder

    decoder = Decoder("chat", include_usage=True)
    found = 0
    for part in parts:
        for chunk in decoder.feed(part):
            if chunk.choices:
                found += len(chunk.choices[0].delta.content or "")
    decoder.finish()
    return found


def penstock_iter_chunks(parts: list[bytes]) -> int:
    from penstock.parser import iter_chunks

    found = 0
    for chunk in iter_chunks(parts, "chat", include_usage=True):
        if chunk["choices"]:
            found += len(chunk["choices"][0]["delta"].get("content") or "")
    return found


def penstock_text(parts: list[bytes]) -> int:
    from penstock.parser import Decoder

    decoder = Decoder("chat", depth="text")
    found = 0
    for part in parts:
        for piece in decoder.feed(part):
            found += len(piece)
    decoder.finish()
    return found


def penstock_usage(parts: list[bytes]) -> int:
    from penstock.parser import Decoder

    decoder = Decoder("chat", depth="raw")
    for part in parts:
        decoder.feed(part)
    decoder.finish()
    return decoder.usage.total_tokens if decoder.usage and decoder.usage.total_tokens else 0


def payloads(parts: list[bytes]) -> Iterator[bytes]:
    """What one writes by hand: split at blank lines, keep the rest, drop `data: `. Right here, not everywhere."""
    rest = b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n\n")
        for event in whole:
            if event != b"data: [DONE]":
                yield event[6:]


def split_and(loads: Callable[[bytes], Any]) -> Subject:
    def run(parts: list[bytes]) -> int:
        found = 0
        for payload in payloads(parts):
            chunk = loads(payload)
            if chunk["choices"]:
                found += len(chunk["choices"][0]["delta"].get("content") or "")
        return found

    return run


def only(loads: Callable[[bytes], Any], cut: list[bytes]) -> Subject:
    def run(_: list[bytes]) -> int:
        found = 0
        for payload in cut:
            chunk = loads(payload)
            if chunk["choices"]:
                found += len(chunk["choices"][0]["delta"].get("content") or "")
        return found

    return run


def msgspec_typed() -> Callable[[bytes], Any]:
    import msgspec

    delta: Any = msgspec.defstruct("Delta", [("role", str | None, None), ("content", str | None, None)])
    choice: Any = msgspec.defstruct("Choice", [("index", int), ("delta", delta), ("finish_reason", str | None, None)])
    chunk = msgspec.defstruct(
        "Chunk", [("id", str), ("model", str), ("choices", list[choice]), ("usage", dict[str, Any] | None, None)]
    )
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(chunk).decode
    return decode


def typed(cut: list[bytes] | None) -> Subject:
    decode = msgspec_typed()

    def run(parts: list[bytes]) -> int:
        found = 0
        for payload in payloads(parts) if cut is None else cut:
            chunk = decode(payload)
            if chunk.choices:
                found += len(chunk.choices[0].delta.content or "")
        return found

    return run


def openai_sdk() -> Subject:
    from openai._models import construct_type
    from openai._streaming import SSEDecoder
    from openai.types.chat import ChatCompletionChunk

    def run(parts: list[bytes]) -> int:
        found = 0
        for event in SSEDecoder().iter_bytes(iter(parts)):
            if event.data.startswith("[DONE]"):
                break
            chunk: Any = construct_type(type_=ChatCompletionChunk, value=event.json())
            if chunk.choices:
                found += len(chunk.choices[0].delta.content or "")
        return found

    return run


def httpx_sse() -> Subject:
    import codecs

    from httpx_sse._decoders import SSEDecoder, SSELineDecoder

    def run(parts: list[bytes]) -> int:
        found = 0
        text, lines, decoder = codecs.getincrementaldecoder("utf-8")(), SSELineDecoder(), SSEDecoder()
        for part in parts:
            for line in lines.decode(text.decode(part)):
                event = decoder.decode(line.rstrip("\n"))
                if event is None or event.data == "[DONE]":
                    continue
                chunk = json.loads(event.data)
                if chunk["choices"]:
                    found += len(chunk["choices"][0]["delta"].get("content") or "")
        return found

    return run


def subjects(cut: list[bytes]) -> dict[str, Callable[[], Subject]]:
    """How to make each subject that is installed here, by the name it has in the table."""

    def loads(module: str, name: str) -> Any:
        return getattr(importlib.import_module(module), name)

    rows: list[tuple[str, str, Callable[[], Subject]]] = [
        ("penstock, by item", "penstock", lambda: penstock_item),
        ("penstock, by attribute", "penstock", lambda: penstock_attribute),
        ("penstock, iter_chunks", "penstock", lambda: penstock_iter_chunks),
        ("penstock, text only", "penstock", lambda: penstock_text),
        ("penstock, usage only", "penstock", lambda: penstock_usage),
        (ANCHOR, "orjson", lambda: split_and(loads("orjson", "loads"))),
        ("split + jiter.from_json", "jiter", lambda: split_and(loads("jiter", "from_json"))),
        ("split + msgspec, typed", "msgspec", lambda: typed(None)),
        ("split + json.loads", "json", lambda: split_and(json.loads)),
        ("httpx-sse + json.loads", "httpx_sse", httpx_sse),
        ("openai SDK: its decoder + its model", "openai", openai_sdk),
        ("JSON only: orjson.loads", "orjson", lambda: only(loads("orjson", "loads"), cut)),
        ("JSON only: jiter.from_json", "jiter", lambda: only(loads("jiter", "from_json"), cut)),
        ("JSON only: msgspec, typed", "msgspec", lambda: typed(cut)),
    ]
    return {name: build for name, module, build in rows if importlib.util.find_spec(module)}


def main() -> None:
    parser = measure.arguments(__doc__, rounds=7)
    parser.add_argument("--chunks", type=int, default=2000, help="chunks with text in the stream (%(default)s)")
    options = parser.parse_args()
    shapes = {}
    for padded in (False, True):
        events = streams.events(options.chunks, padded=padded)
        suffix = ", padded" if padded else ""
        shapes[f"chunk by chunk{suffix}"] = events, events
        shapes[f"16 KiB reads{suffix}"] = events, streams.reads(events, 16384)
    cells: dict[str, dict[str, dict[str, float]]] = {}
    for shape, (events, parts) in shapes.items():
        cut = [event[6:-2] for event in events[:-1]]
        documents = [json.loads(payload) for payload in cut]
        text = sum(
            len(document["choices"][0]["delta"].get("content") or "") for document in documents if document["choices"]
        )
        samplers = {}
        for name, build in subjects(cut).items():
            if not measure.wanted(name, options.only):
                continue
            run = build()
            expected = documents[-1]["usage"]["total_tokens"] if "usage only" in name else text
            if (found := run(parts)) != expected:
                raise SystemExit(f"{name}, {shape}: found {found}, not {expected}")
            samplers[name] = measure.cpu_per_item(lambda run=run, parts=parts: run(parts), len(cut))  # type: ignore[misc]
        samples = measure.alternate(samplers, options.rounds)
        cells[shape] = {name: measure.summary(values, samples.get(ANCHOR, ())) for name, values in samples.items()}
        size = sum(map(len, events)) / len(events)
        print(f"\n{shape} ({size:.0f} bytes a chunk): microseconds of CPU per chunk, {options.rounds} rounds\n")
        print(
            measure.table(
                ["", "median", "min", "max", f"times faster than {ANCHOR}"],
                [
                    [
                        name,
                        *(measure.figure(cell[key]) for key in ("median", "min", "max")),
                        measure.figure(cell["times"]) if "times" in cell else "",
                    ]
                    for name, cell in cells[shape].items()
                ],
            )
        )
    result = {
        "bench": "parser",
        "unit": "microseconds of CPU per chunk",
        "rounds": options.rounds,
        "anchor": ANCHOR,
        "cells": cells,
    }
    path = measure.save("parser", result, publish=options.publish)
    print(f"\n{measure.heading(json.loads(path.read_text(encoding='utf-8')))}\nwritten to {path}")


if __name__ == "__main__":
    main()
