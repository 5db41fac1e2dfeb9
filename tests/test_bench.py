"""`penstock bench` runs from what is installed, and says what it measured. How fast it was is nobody's to assert."""

import json
import os
import subprocess
import sys


def test_it_measures_and_says_what() -> None:
    command = [sys.executable, "-m", "penstock", "bench", "--rounds", "1", "--json"]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=100, env=dict(os.environ))
    result = json.loads(ran.stdout)
    assert list(result["parser"]) == ["split + orjson.loads", "penstock, chunks", "penstock, text", "penstock, raw"]
    assert list(result["http"]) == ["httpx, bytes only", "completion", "acompletion"]
    assert all(len(figures) == 1 for part in ("parser", "http") for figures in result[part].values())
    assert set(result["versions"]) == {"penstock", "httpx", "orjson"}
    assert result["unit"] == "microseconds of CPU per chunk"
