"""Published results into README.md, docs/benchmarks.md and docs/benchmarks.svg. Every figure there comes from here.

Usage: python report.py [--local]   (--local: read the results of the last unpublished runs, print, and write nothing)
"""

import argparse
import json
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import measure

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "benchmarks.md"
CHART = ROOT / "docs" / "benchmarks.svg"
MARKS = re.compile(r"(<!-- figures: begin [^>]*-->\n).*?(<!-- figures: end -->)", re.DOTALL)
MANY = "200 streams, a chunk each 10 ms"
Result = dict[str, Any]


def load(*, local: bool) -> dict[str, Result]:
    """The results there are, by bench."""
    paths = {name: measure.RESULTS / f"{'local-' if local else ''}{name}.json" for name in SECTIONS}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.is_file()}


def spread(cell: dict[str, float]) -> str:
    """A median with its range."""
    return f"{measure.figure(cell['median'])} ({measure.figure(cell['min'])}-{measure.figure(cell['max'])})"


def ratio(cell: dict[str, float], key: str) -> str:
    """How many times as fast (`times`) or as much (`share`) as the anchor."""
    return f"{measure.figure(cell[key])}x" if key in cell else ""


def across(cells: dict[str, dict[str, Any]], pick: str = "", *, key: str = "times") -> Iterator[list[str]]:
    """A row per subject: median and range, and the ratio, for each shape."""
    for name in dict.fromkeys(name for found in cells.values() for name in found):
        row = [name]
        for found in cells.values():
            cell = found.get(name, {})
            cell = cell.get(pick, {}) if pick else cell
            row += [spread(cell), ratio(cell, key)] if cell else ["", ""]
        yield row


def parser_section(result: Result) -> str:
    shapes = [heading for shape in result["cells"] for heading in (shape, "")]
    table = measure.table(["", *shapes], across(result["cells"]))
    return f"""## The parser alone

Microseconds of CPU per chunk, from bytes in memory to `choices[0].delta.content`: the median of {result["rounds"]}
rounds (and the range), and how many times faster than `{result["anchor"]}`. "JSON only" is given payloads that are
already cut out.

{table}
"""


def clients_section(result: Result) -> str:
    shapes = [heading for shape in result["cells"] for heading in (shape, "")]
    table = measure.table(["", *shapes], across(result["cells"], "cpu", key="share"))
    rates = "\n".join(
        f"\n{shape}:\n\n"
        + measure.table(
            ["", "chunks/s", "peak MiB"],
            [
                [name, measure.figure(cell["rate"]["median"]), measure.figure(cell["memory"])]
                for name, cell in found.items()
            ],
        )
        for shape, found in result["cells"].items()
        if shape.startswith("200")
    )
    return f"""## End to end

Microseconds of CPU per chunk of the whole client process, HTTP included, against a local upstream: the median of
{result["rounds"]} rounds (and the range), and how many times as much as `{result["anchor"]}`. Less is better.

{table}
{rates}
"""


def engine_section(result: Result) -> str:
    slow = result["slow"]
    notes = "".join(f" `{name}` gets one stream where others get {slow['share']}." for name in slow["names"])
    parts = []
    for shape, found in result["cells"].items():
        latency = any("p50" in cell for cell in found.values())
        head = ["", "us of CPU per chunk", "ratio", "chunks/s", "of the floor's", "peak MiB"]
        head += ["p50 us", "p99 us"] if latency else []
        lines = []
        for name, cell in found.items():
            if "failed" in cell:
                lines.append([name, cell["failed"], *[""] * (len(head) - 2)])
                continue
            kept = measure.figure(cell["kept"]) if "kept" in cell else ""
            figures = [measure.figure(cell["rate"]["median"]), kept, measure.figure(cell["memory"])]
            figures += [spread(cell[key]) for key in ("p50", "p99") if key in cell]
            lines.append([name, spread(cell["cpu"]), ratio(cell["cpu"], "share"), *figures])
        anchors = " or ".join(f"`{name}`" for name in result["anchors"][shape])
        parts.append(f"{shape[0].upper()}{shape[1:]} (ratio to {anchors}):\n\n{measure.table(head, lines)}\n")
    tables = "\n".join(parts)
    return f"""## Sockets to chunks

The whole client process against a load source in a process of its own: the median of {result["rounds"]} rounds (and
the range), CPU in user and system mode. Each is compared with the hand-written client on the same event loop; a
blocking client on a paced stream with a bare socket. "Of the floor's" is the share of the chunks per second that the
bare reader of the same cell gets. The request that begins each stream counts too: it is a good part of a short one.
"Bytes only" looks for nothing in what it reads: with `add_reader` that is the part of the kernel and of the event loop,
which no client that reads there can save. Latency is from the server's write to the text in the caller's hands.{notes}

{tables}"""


def gateway_section(result: Result) -> str:
    slow = result["slow"]
    parts = []
    for shape, found in result["cells"].items():
        stamped = any("late p50" in cell for cell in found.values())
        head = ["", f"us of CPU per {result['units'][shape]}", "ratio", f"{result['units'][shape]}s/s"]
        head += ["first token, ms", "added p50 ms", "added p99 ms", "35-60 ms", *(["late, ms", "late p99"] * stamped)]
        lines = []
        for name, cell in found.items():
            line = [name, *([spread(cell["cpu"]), ratio(cell["cpu"], "share")] if "cpu" in cell else ["", ""])]
            line += [measure.figure(cell["rate"]["median"]), measure.figure(cell["p50"]["median"] / 1000)]
            added = [cell.get(f"added {key}") for key in ("p50", "p99")] if name != "direct" else [None, None]
            line += ["" if one is None else measure.figure(one["median"] / 1000) for one in added]
            line += [f"{cell['delayed first']} + {cell['delayed rest']} of {cell['samples']}"]
            if stamped:
                line += [
                    measure.figure(cell[key]["median"] / 1000) if key in cell else ""
                    for key in ("late p50", "late p99")
                ]
            lines.append(line)
        parts.append(f"{shape[0].upper()}{shape[1:]}:\n\n{measure.table(head, lines)}\n")
    held = [
        [name, measure.figure(idle), *(measure.figure(cell["each"]["max"]) for cell in open_streams(result, name))]
        for name, idle in result["idle"].items()
    ]
    failed = "".join(
        f"- `{name}`, {shape}: {message}\n"
        for name, found in result["failures"].items()
        for shape, message in found.items()
    )
    tables = "\n".join(parts)
    return f"""## Gateways

The gateway's process and its children, one worker, against a load source and a load client in processes of their own:
the median of {result["rounds"]} rounds (and the range), CPU in user and system mode; ratios are to
`{result["anchor"]}`. `relay` hands on bytes without looking at them, `direct` is no gateway at all. penstock checks a
key of its store and writes a row for each request; `litellm` checks its master key and `tensorzero` none, and neither
keeps accounts here. "35-60 ms" counts first tokens, and rests of streams, that took so long: where streams are alone,
that is a delayed acknowledgement. "Late" is from the server's write of a text to the client's reading.
`{"`, `".join(slow["names"])}` gets one request where others get {slow["share"]}, and as many fewer streams at once.

{tables}
{measure.table(["", "idle MiB", "KiB per open stream"], held)}
{failed}"""


def open_streams(result: Result, name: str) -> list[dict[str, Any]]:
    """The figures of a gateway with many open streams, if it has any."""
    cells = [found for shape, found in result["cells"].items() if "open streams" in shape]
    return [found[name] for found in cells if "each" in found.get(name, {})] or [{"each": {"max": 0.0}}]


def imports_section(result: Result) -> str:
    rows = [
        [name, spread(cell["cpu"]), measure.figure(cell["memory"]["median"])] for name, cell in result["cells"].items()
    ]
    return f"""## Import

Over a bare interpreter, {result["rounds"]} rounds.

{measure.table(["import", "ms of CPU", "MiB"], rows)}
"""


def memory_section(result: Result) -> str:
    dropped = result.get("dropped", {})
    tables = "\n\n".join(
        f"KiB, {shape}:\n\n"
        + measure.table(
            ["", "median", "min", "max"],
            [[n, *(f"{c[k]:,.1f}" for k in ("median", "min", "max"))] for n, c in found.items()],
        )
        for shape, found in result["cells"].items()
    )
    lost = "".join(f" Of the slow streams of `{name}`, {count} were dropped." for name, count in dropped.items())
    return f"""## Memory

Bytes in use, after a collection; {result["text"]:.1f} KiB of text were delivered between chunk 100 and chunk 10,000.
{lost.strip()}

{tables}
"""


def callgrind_section(result: Result) -> str:
    names = dict.fromkeys(name for found in result["cells"].values() for name in found)
    rows = [
        [name, *(f"{found[name]:,.0f}" if name in found else "" for found in result["cells"].values())]
        for name in names
    ]
    return f"""## Instructions

Per chunk, counted by valgrind; start-up cancels out.

{measure.table(["", *result["cells"]], rows)}
"""


SECTIONS = {
    "parser": parser_section,
    "clients": clients_section,
    "engine": engine_section,
    "imports": imports_section,
    "memory": memory_section,
    "gateway": gateway_section,
    "callgrind": callgrind_section,
}


def summary(results: dict[str, Result]) -> str:
    """The few rows for the first page: the parser and the clients chunk by chunk, many streams at once, the imports."""
    parts = []
    for name, title, pick, key, heading in (
        ("parser", "Parser alone, chunk by chunk", "", "times", "times as fast as"),
        ("clients", "End to end, chunk by chunk", "cpu", "share", "times as much as"),
    ):
        if name in results:
            result = results[name]
            rows = across({"": result["cells"]["chunk by chunk"]}, pick, key=key)
            parts.append(measure.table([title, "us of CPU per chunk", f"{heading} {result['anchor']}"], rows))
    if "engine" in results:
        cells = results["engine"]["cells"][MANY]
        lines = [
            [name, spread(cell["cpu"]), ratio(cell["cpu"], "share"), measure.figure(cell["rate"]["median"])]
            for name, cell in cells.items()
            if "failed" not in cell
        ]
        head = [MANY, "us of CPU per chunk", "times as much as by hand, on the same event loop", "chunks/s"]
        parts.append(measure.table(head, lines))
    if "gateway" in results:
        result = results["gateway"]
        shapes = ["chunk by chunk", "plain requests"]
        rows = across({shape: result["cells"][shape] for shape in shapes}, "cpu", key="share")
        head = ["Gateways", "us of CPU per chunk", "ratio", "per plain request", "ratio"]
        parts.append(measure.table(head, [row for row in rows if row[0] != "direct"]))
    if "imports" in results:
        cells = results["imports"]["cells"]
        lines = [[name, spread(cell["cpu"]), measure.figure(cell["memory"]["median"])] for name, cell in cells.items()]
        parts.append(measure.table(["Import, over bare Python", "ms of CPU", "MiB"], lines))
    # Commands that measured the same things in the same place share a line.
    commands: dict[str, list[str]] = {}
    for result in results.values():
        where, _, command = measure.heading(result).rpartition("; ")
        commands.setdefault(where, []).append(command)
    conditions = "\n".join(f"- {where}; {', '.join(made)}" for where, made in commands.items())
    chart = "![Microseconds of CPU per streamed chunk](docs/benchmarks.svg)"
    return "\n\n".join(
        [*parts, chart, f"{conditions}\n\nEverything, with what each row does: [benchmarks](docs/benchmarks.md)."]
    )


def chart(result: Result, shape: str = "chunk by chunk") -> str:
    """Bars for CPU per chunk end to end, on a logarithmic scale: the range spans three orders of magnitude."""
    from math import log10

    cells = sorted(result["cells"][shape].items(), key=lambda item: item[1]["cpu"]["median"])
    left, width, step, top = 270, 430, 22, 46
    low = 10 ** int(log10(cells[0][1]["cpu"]["median"]) - 1)
    span = log10(cells[-1][1]["cpu"]["median"]) - log10(low)
    height = top + step * len(cells) + 34
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 {height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="16" y="24" font-size="15">Microseconds of CPU per streamed chunk, {escape(shape)}</text>',
    ]
    for number, (name, cell) in enumerate(cells):
        y = top + number * step
        median = cell["cpu"]["median"]
        bar = width * (log10(median) - log10(low)) / span
        colour = "#0b7285" if name.startswith("penstock") else "#adb5bd"
        lines += [
            f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{left}" y="{y + 2}" width="{bar:.1f}" height="{step - 7}" rx="2" fill="{colour}"/>',
            f'<text x="{left + bar + 6:.1f}" y="{y + 13}">{measure.figure(median)}</text>',
        ]
    note = f"{result['date']}, {result['machine']}, {result['python']}; logarithmic; less is better"
    return "\n".join(
        [*lines, f'<text x="16" y="{height - 12}" fill="#495057" font-size="11">{escape(note)}</text>', "</svg>", ""]
    )


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--local", action="store_true", help="print what the last unpublished runs would give")
    local = options.parse_args().local
    results = load(local=local)
    if not results:
        raise SystemExit(
            f"no {'local ' if local else 'published '}results in {measure.RESULTS}: run the benches with --publish"
        )
    page = (
        "# Benchmarks\n\nWritten by `make report` from `benches/results/`; `make bench` measures again.\n\n"
        + "\n".join(f"{SECTIONS[name](result)}\n{measure.heading(result)}\n" for name, result in results.items())
    )
    if local:
        print(summary(results), page, sep="\n\n")
        return
    PAGE.parent.mkdir(exist_ok=True)
    if "clients" in results:
        CHART.write_text(chart(results["clients"]), encoding="utf-8")
        page += f"\n![CPU per chunk]({CHART.name})\n"
    PAGE.write_text(page, encoding="utf-8")
    readme, found = MARKS.subn(
        lambda marks: f"{marks[1]}{summary(results)}\n{marks[2]}", README.read_text(encoding="utf-8")
    )
    if not found:
        raise SystemExit("README.md has no place for the figures")
    README.write_text(readme, encoding="utf-8")
    print(f"written: {README.name}, {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
