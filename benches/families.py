"""The families beside each other: CPU time per text chunk, from the bytes in memory to `choices[0].delta.content`.

Every family says the same text in its own events, as the replay upstream frames them, and must be read to that text.
Their events differ in size, so bytes stand beside the figures. No peers: none reads them all.
"""

import json
import re
from collections.abc import Callable

import measure
import streams
from penstock.parser import Decoder
from penstock.replay.cases import FAMILIES
from penstock.replay.cases.chat import HELLO

ANCHOR = "chat"


def texts(count: int) -> list[str]:
    """The pieces of an answer."""
    deltas = [document["choices"][0]["delta"] for document in streams.documents(count) if document["choices"]]
    return [delta["content"] for delta in deltas if delta.get("content")]


def told(family: str, event: bytes, place: int) -> bytes:
    """The event with what differs in each of its family's beside the text."""
    if family == "gemini":
        counts = {"promptTokenCount": 19, "candidatesTokenCount": place, "totalTokenCount": 19 + place}
        usage = json.dumps({**counts, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 19}]})
        return event.replace(b',"modelVersion"', b',"usageMetadata":' + usage.encode() + b',"modelVersion"')
    if family == "ollama":
        return re.sub(rb'("created_at": ?"[^".Z]*)[^"Z]*', rb"\1.%09d" % (place * 7919), event)
    return event


def body(family: str, pieces: list[str]) -> list[bytes]:
    """The events of the case `hello`, with these pieces in the middle of its text."""
    row = FAMILIES[family]
    frames = row.cases["hello"].frames(asked=True, usage=True, done=True)
    at = len(frames) // 2
    return [*frames[:at], *(told(family, row.text(piece), n) for n, piece in enumerate(pieces, 1)), *frames[at:]]


def chunks(family: str, parts: list[bytes]) -> int:
    decoder = Decoder(family, include_usage=True)
    found = 0
    for part in parts:
        for chunk in decoder.feed(part):
            if chunk["choices"]:
                found += len(chunk["choices"][0]["delta"].get("content") or "")
    decoder.finish()
    return found


def text(family: str, parts: list[bytes]) -> int:
    decoder = Decoder(family, depth="text")
    found = 0
    for part in parts:
        for piece in decoder.feed(part):
            found += len(piece)
    decoder.finish()
    return found


DEPTHS: dict[str, Callable[[str, list[bytes]], int]] = {"chunks": chunks, "text only": text}


def main() -> None:
    parser = measure.arguments(__doc__, rounds=7)
    parser.add_argument("--chunks", type=int, default=2000, help="chunks with text in the stream (%(default)s)")
    options = parser.parse_args()
    pieces = texts(options.chunks)
    expected = len(HELLO) + sum(map(len, pieces))
    bodies = {name: body(name, pieces) for name in FAMILIES}
    bodies = {name: events for name, events in bodies.items() if name == ANCHOR or measure.wanted(name, options.only)}
    size = {name: sum(map(len, events)) / len(events) for name, events in bodies.items()}
    cells: dict[str, dict[str, dict[str, float]]] = {}
    for depth, read in DEPTHS.items():
        samplers = {}
        for name, events in bodies.items():
            if (found := read(name, events)) != expected:
                raise SystemExit(f"{name}, {depth}: found {found} characters, not {expected}")
            samplers[name] = measure.cpu_per_item(
                lambda read=read, name=name, events=events: read(name, events),  # type: ignore[misc]
                len(events),
            )
        samples = measure.alternate(samplers, options.rounds)
        cells[depth] = {
            name: {**measure.summary(values, samples[ANCHOR]), "bytes": size[name]} for name, values in samples.items()
        }
        print(f"\n{depth}, event by event: microseconds of CPU per event, {options.rounds} rounds\n")
        rows = [
            [name, *(measure.figure(cell[key]) for key in ("bytes", "median", "min", "max", "share"))]
            for name, cell in cells[depth].items()
        ]
        print(measure.table(["family", "bytes an event", "median", "min", "max", f"of {ANCHOR}"], rows))
    result = {
        "bench": "families",
        "unit": "microseconds of CPU per event",
        "rounds": options.rounds,
        "anchor": ANCHOR,
        "cells": cells,
    }
    path = measure.save("families", result, publish=options.publish)
    print(f"\n{measure.heading(json.loads(path.read_text(encoding='utf-8')))}\nwritten to {path}")


if __name__ == "__main__":
    main()
