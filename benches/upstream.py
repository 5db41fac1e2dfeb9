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
    `/plain/pace/N/MS/v1`, and with the time of its writing before each text `/plain/pace/N/MS/stamped/v1`.
    """
    if not SOURCE.is_file():
        raise SystemExit(f"{SOURCE} is not there: `make load` builds it")
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, "plain.sse"), Path(folder, "padded.sse")]
        for file in files:
            file.write_bytes(b"".join(streams.events(TEXTS, padded=file.stem == "padded")))
        with subprocess.Popen([SOURCE, *files], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                port = process.stdout.readline().strip()
                if not port:
                    raise SystemExit(f"{SOURCE}: ended with {process.wait()}")
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()
