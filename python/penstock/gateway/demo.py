"""The proxy in front of the built-in upstream, asked once with curl: `python -m penstock.gateway.demo`."""

import json
import shutil
import subprocess
import sys
from typing import TextIO

from ..errors import APIConnectionError

MODEL = "replay/hello?delay=15"


def main(out: TextIO = sys.stdout) -> int:
    """Starts a proxy on a free port, streams one answer through it and ends it. Returns the exit status."""
    command = [sys.executable, "-m", "penstock", "proxy", "--model", MODEL, "--port", "0"]
    out.write("$ penstock proxy --model replay/hello\n")
    out.flush()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as proxy:  # noqa: S603  this interpreter
        try:
            return _ask(_address(proxy), out)
        finally:
            proxy.terminate()


def _address(proxy: "subprocess.Popen[str]") -> str:
    """Where it listens, which is in the first line that it writes."""
    assert proxy.stderr is not None  # noqa: S101  asked for above
    for line in proxy.stderr:
        words = line.split()
        if words[:1] == ["penstock"] and "at" in words:
            return words[words.index("at") + 1].rstrip(",")
    raise APIConnectionError(f"the proxy ended with {proxy.wait()} before it listened")


def _ask(address: str, out: TextIO) -> int:
    body = json.dumps(
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Say hello."}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )
    url = f"{address}/v1/chat/completions"
    out.write(f"$ curl {url} -d '{body}'\n")
    out.flush()
    curl = shutil.which("curl")
    if curl is not None:
        asked = [curl, "--silent", "--show-error", "--no-buffer", url, "-d", body]
        return subprocess.run(asked, check=False).returncode  # noqa: S603  the curl of the PATH
    import httpx

    with httpx.stream("POST", url, content=body) as answer:
        out.writelines(f"{line}\n" for line in answer.iter_lines())
    return 0


if __name__ == "__main__":
    sys.exit(main())
