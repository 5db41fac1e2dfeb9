"""The upstream of the benches: the load source of `benches/load`, serving the streams of `streams.py`."""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import streams

SOURCE = Path(__file__).parent.parent / "target" / "release" / "penstock-load"
TEXTS = 2000  # a stream with more of them has them again


@contextlib.contextmanager
def serve() -> Iterator[str]:
    """Starts it, and gives its address.

    `/plain` and `/padded` are the streams, what follows is the shape: `/plain/burst/N/v1`, `/plain/each/N/v1`,
    `/plain/pace/N/MS/v1`, and with the time of its writing before each text `/plain/pace/N/MS/stamped/v1`; `after/MS`
    behind the numbers holds the head back. `/profile` is `/plain` with one text of 8 KiB, `/anthropic` the same answer
    in another family's events, `/answer/v1` one without streaming.
    """
    with tempfile.TemporaryDirectory() as folder:
        recordings = {
            "plain.sse": b"".join(streams.events(TEXTS)),
            "padded.sse": b"".join(streams.events(TEXTS, padded=True)),
            "profile.sse": b"".join(streams.events(30, large=10)),
            "anthropic.sse": b"".join(streams.anthropic_events(TEXTS)),
            "answer.json": streams.encode(streams.answer()),
        }
        for name, content in recordings.items():
            Path(folder, name).write_bytes(content)
        # Two events come before the first text in one of them.
        names = [f"{folder}/{name}{':2' if name == 'anthropic.sse' else ''}" for name in recordings]
        with listening("serve", *names) as port:
            yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def listening(*words: str) -> Iterator[int]:
    """Starts the load source with these words, and gives the port that it prints."""
    if not SOURCE.is_file():
        raise SystemExit(f"{SOURCE} is not there: `make load` builds it")
    with subprocess.Popen([SOURCE, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = process.stdout.readline().strip()
            if not port:
                raise SystemExit(f"{SOURCE}: ended with {process.wait()}")
            yield int(port)
        finally:
            process.terminate()
