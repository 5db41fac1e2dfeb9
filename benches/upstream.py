"""The upstream of the benches: the load source of `benches/load`, serving the streams of `streams.py`."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import streams

SOURCE = Path(__file__).parent.parent / "target" / "release" / "penstock-load"
TEXTS = 2000  # a stream with more of them has them again


@contextlib.contextmanager
def serve(*words: str) -> Iterator[str]:
    """Starts it, and gives its address: of http, unless there is --tls among these words for it.

    `/plain` and `/padded` are the streams, what follows is the shape: `/plain/burst/N/v1`, `/plain/each/N/v1`,
    `/plain/pace/N/MS/v1`, and with the time of its writing before each text `/plain/pace/N/MS/stamped/v1`; `after/MS`
    behind the numbers holds the head back, and `apart` behind that gives each stream a place of its own in time.
    `/profile` is `/plain` with one text of 8 KiB, `/anthropic` the same answer in another family's events, `/answer/v1`
    one without streaming.
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
        with listening("serve", *words, *names) as port:
            yield f"{'https' if '--tls' in words else 'http'}://127.0.0.1:{port}"


@contextlib.contextmanager
def serve_all() -> Iterator[dict[str, str]]:
    """Three of them: `http`, `https` and `http2`, which is within TLS too.

    Clients started meanwhile trust the two authorities by SSL_CERT_FILE, which all that are measured heed.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        one, other, both = (str(Path(folder, name)) for name in ("one.pem", "other.pem", "both.pem"))
        bases = {
            "http": stack.enter_context(serve()),
            "https": stack.enter_context(serve("--tls", one)),
            "http2": stack.enter_context(serve("--tls", other, "--http2")),
        }
        Path(both).write_text(Path(one).read_text() + Path(other).read_text())
        before = os.environ.get("SSL_CERT_FILE")
        os.environ["SSL_CERT_FILE"] = both
        try:
            yield bases
        finally:
            del os.environ["SSL_CERT_FILE"]
            if before is not None:
                os.environ["SSL_CERT_FILE"] = before


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
