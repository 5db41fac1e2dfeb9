"""The examples that litellm's users know, as docs/from-litellm.md has them: what they print."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import penstock
from penstock.replay import Upstream
from penstock.replay.cases import FAMILIES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "from-litellm.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
STREAMED, WHOLE, ASYNCHRONOUS, USAGE = BLOCK.findall(PAGE.read_text("utf-8"))[:4]


@pytest.fixture
def up(up: Upstream) -> Upstream:
    case = FAMILIES["chat"].find("long-3")
    assert case is not None
    up.recorded["gpt-3.5-turbo"] = case  # type: ignore[assignment]
    return up


def printed(code: str, up: Upstream) -> list[str]:
    source = {"PYTHONPATH": str(Path(penstock.__file__).parent.parent), "PYTHONIOENCODING": "utf-8"}
    given = {"OPENAI_BASE_URL": up.base_url, "OPENAI_API_KEY": "sk-from-the-environment"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=False,
        capture_output=True,
        encoding="utf-8",
        env=os.environ | source | given,
        timeout=30,
    )
    assert not done.stderr, done.stderr.splitlines()[-1]
    return done.stdout.splitlines()


def test_completion_with_stream(up: Upstream) -> None:
    assert 'response = completion(model="gpt-3.5-turbo", messages=messages, stream=True)\n' in STREAMED
    assert "    print(part['choices'][0]['delta'])\n" in STREAMED
    lines = printed(STREAMED, up)
    assert [line for line in lines if "content=' water'" in line]
    assert len(lines) == 5  # the role, three pieces, the finish
    (sent,) = up.stats()["requests"]
    assert sent["body"]["messages"] == [{"content": "Hello, how are you?", "role": "user"}]


def test_acompletion(up: Upstream) -> None:
    (line,) = printed(WHOLE, up)
    assert line.startswith("ChatCompletion(id=")
    assert "content=' the water runs'" in line


def test_acompletion_with_stream(up: Upstream) -> None:
    title, response, *chunks = printed(ASYNCHRONOUS, up)
    assert (title, len(chunks)) == ("test acompletion + streaming", 5)
    assert "AsyncStream" in response
    assert all(chunk.startswith("ChatCompletionChunk(") for chunk in chunks)


def test_the_last_chunk_has_the_usage_and_no_choices(up: Upstream) -> None:
    *deltas, usage = printed(USAGE, up)
    assert len(deltas) == 5
    assert usage.startswith("CompletionUsage(prompt_tokens=19, completion_tokens=3, total_tokens=22")
    with pytest.raises(AssertionError, match="IndexError"):
        printed(USAGE.replace('if chunk["choices"]', "if True"), up)
