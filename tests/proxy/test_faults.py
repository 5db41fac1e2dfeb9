"""What goes wrong upstream, and what it does to the client, to the upstream and to the accounts.

The table docs/proxy-faults.md is what this run saw: `PENSTOCK_WRITE_DOCS=1 python -m pytest tests/proxy/test_faults.py`
writes it, and without the variable a test says when it is out of date.
"""

import asyncio
import contextlib
import json
import os
import random
import socket
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from penstock.replay import Upstream
from penstock.replay.cases import FAMILIES
from penstock.replay.cases.chat import HELLO
from penstock.replay.family import Case

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="external: the proxy is tested where there are signals")

MESSAGES = [{"role": "user", "content": "Hello"}]
USAGE = {"include_usage": True}
SPARE = "long-12"
"""The case that the fallback answers with: another text than the model's."""

CLOCK = 2.5
"""Seconds that the upstream is waited for: more than a busy machine takes for what is not meant to be late."""


class Fault(NamedTuple):
    """What goes wrong, by the script of replay that does it, and what comes of it."""

    name: str
    script: str
    sees: str
    upstream: str
    accounts: str
    whole: tuple[str, str, str] | None = None
    """The last three without streaming, where they are otherwise."""
    model: str = "openai/hello"

    def expected(self, stream: bool) -> tuple[str, str, str]:
        """What the client sees, what the upstream sees, what is accounted."""
        return (self.sees, self.upstream, self.accounts) if stream or self.whole is None else self.whole


SPARED = "200, the fallback's answer"
TWICE = "model 2x; fallback 1x"
LEFT = "model 2x, left 2x; fallback 1x"
ONCE = "model 1x; fallback 1x"


def spared(*errors: str) -> str:
    """The row where the fallback answered after these."""
    return f"complete; 19+12 tokens; {' '.join(errors)} ok"


FAULTS = [
    Fault("429 with retry-after", "status=429&retry_after=1", SPARED, TWICE, spared(*["RateLimitError"] * 2)),
    Fault(
        "a 500, and then none",
        "status=500&fail=1",
        "200, the model's answer",
        "model 2x",
        "complete; 19+87 tokens; InternalServerError ok",
    ),
    Fault("500 over and over", "status=500", SPARED, TWICE, spared(*["InternalServerError"] * 2)),
    Fault("silence after the head", "silent", SPARED, LEFT, spared(*["Timeout"] * 2)),
    Fault("the first token too late", "first_byte=9", SPARED, LEFT, spared(*["Timeout"] * 2)),
    Fault("cut before the first event", "cut=0", SPARED, TWICE, spared(*["APIConnectionError"] * 2)),
    Fault(
        "cut after the sixth event",
        "cut=6",
        "200, 6 chunks, then `APIConnectionError`, no [DONE]",
        "model 1x",
        "cut; no usage; ok",
        (SPARED, TWICE, spared(*["APIConnectionError"] * 2)),
    ),
    Fault(
        "the same, where the prompt was counted before",
        "cut=6",
        "200, 5 chunks, then `APIConnectionError`, no [DONE]",
        "model 1x",
        "cut; 27+? tokens, incomplete; ok",
        (SPARED, TWICE, spared(*["APIConnectionError"] * 2)),
        model="replay/anthropic/hello",
    ),
    Fault(
        "a stall in the middle",
        "stall=6",
        "200, 6 chunks, then `Timeout`, no [DONE]",
        "model 1x, left 1x",
        "cut; no usage; ok",
        (SPARED, LEFT, spared(*["Timeout"] * 2)),
    ),
    Fault(
        "a malformed event",
        "malformed=6&delay=5",
        "200, 6 chunks, then `APIResponseValidationError`, no [DONE]",
        "model 1x, left 1x",
        "cut; no usage; ok",
        ("502, `APIResponseValidationError`", "model 1x", "failed; no usage; APIResponseValidationError"),
    ),
    Fault("no [DONE]", "nodone", "200, the model's answer", "model 1x", "complete; 19+87 tokens; ok"),
    Fault("no usage", "nousage", "200, the model's answer, usage null", "model 1x", "complete; no usage; ok"),
    Fault(
        "a page of HTML",
        "html",
        "502, `APIResponseValidationError`",
        "model 1x",
        "failed; no usage; APIResponseValidationError",
    ),
    Fault(
        "a refused connection",
        "REFUSED",
        SPARED,
        "fallback 1x",
        spared(*["APIConnectionError"] * 2),
    ),
    Fault(
        "the content filter",
        "code=content_filter",
        "400, `ContentPolicyViolationError` (content_filter)",
        "model 1x",
        "failed; no usage; ContentPolicyViolationError",
    ),
    Fault("context overflow", "code=context_length_exceeded", SPARED, ONCE, spared("ContextWindowExceededError")),
    Fault("an expired key", "status=401", SPARED, ONCE, spared("AuthenticationError")),
    Fault("the model is gone", "status=404", SPARED, ONCE, spared("NotFoundError")),
    Fault("overload", "status=503", SPARED, TWICE, spared(*["ServiceUnavailableError"] * 2)),
]


class Course(NamedTuple):
    """One request to its end."""

    status: int
    answered: str
    chunks: int
    usage: Any
    done: bool
    error: dict[str, Any] | None
    row: dict[str, Any]
    requests: dict[str, list[dict[str, Any]]]

    @property
    def sees(self) -> str:
        """For the table: what the client is told."""
        said = [f"{self.status}"]
        if self.answered:
            said.append(f"{self.answered}'s answer")
        elif self.chunks:
            said.append(f"{self.chunks} chunks")
        if self.error is not None:
            kind = f"`{self.row['error']}`" + (f" ({self.error['code']})" if self.error["code"] else "")
            said.append(f"{'then ' if self.status == 200 else ''}{kind}{', no [DONE]' if self.status == 200 else ''}")
        elif self.usage is None:
            said.append("usage null")
        return ", ".join(said)

    @property
    def saw(self) -> str:
        """For the table: what the upstream was asked."""
        said = []
        for name, requests in self.requests.items():
            if requests:
                left = sum(request["closed_early"] for request in requests)
                said.append(f"{name} {len(requests)}x" + (f", left {left}x" if left else ""))
        return "; ".join(said) or "nothing"

    @property
    def accounts(self) -> str:
        """For the table: the row."""
        row = self.row
        tokens = "no usage"
        if row["prompt_tokens"] is not None or row["completion_tokens"] is not None:
            counts = ["?" if row[name] is None else row[name] for name in ("prompt_tokens", "completion_tokens")]
            tokens = f"{counts[0]}+{counts[1]} tokens"
            tokens += "" if row["usage_complete"] else ", incomplete"
        tried = " ".join(each["error"] or "ok" for each in row["attempts"])
        return f"{row['outcome']}; {tokens}; {tried}"


def name_of(number: int, stream: bool) -> str:
    return f"fault-{number}-{'streamed' if stream else 'whole'}"


@pytest.fixture(scope="module")
def courses(
    tmp_path_factory: pytest.TempPathFactory, upstream: Upstream, proxy_class: Any, events: Any
) -> dict[str, Course]:
    """Every fault, streamed and not, each with a model and a fallback of its own."""
    models, fallbacks = [], []
    with socket.create_server(("127.0.0.1", 0)) as server:
        refused = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
    for number, fault in enumerate(FAULTS):
        for stream in (True, False):
            name = name_of(number, stream)
            script, base = (fault.script, upstream.base_url) if fault.script != "REFUSED" else ("", refused)
            # A whole answer is one event.
            script = script if stream else script.replace("malformed=6", "malformed=0")
            clocks = {"connect": CLOCK, "first_token": CLOCK, "idle": CLOCK}
            pair = (f"{fault.model}?{script}&tag={name}", f"openai/{SPARE}?tag={name}")
            for group, model in zip((name, f"{name}-spare"), pair, strict=True):
                parameters = {"model": model, "api_base": base, "api_key": "sk-x", "timeout": clocks}
                models.append({"model_name": group, "litellm_params": parameters, "model_info": {"id": group}})
                base = upstream.base_url
            fallbacks.append({name: [f"{name}-spare"]})
    settings = {"num_retries": 1, "fallbacks": fallbacks}
    folder = tmp_path_factory.mktemp("faults")
    proxy = proxy_class(folder, {"model_list": models, "router_settings": settings}).start()
    upstream.reset()

    def ask(name: str) -> httpx.Response:
        options: dict[str, Any] = {"stream": True, "usage": True} if name.endswith("streamed") else {}
        found: httpx.Response = proxy.stream(name, usage=True) if options else proxy.ask(name)
        return found

    names = [name_of(number, stream) for number in range(len(FAULTS)) for stream in (True, False)]
    with ThreadPoolExecutor(len(names)) as threads:
        responses = dict(zip(names, threads.map(ask, names), strict=True))
    rows = {row["model_group"]: row for row in proxy.settled(len(names))}
    proxy.stop()
    stats = upstream.stats()["requests"]
    found = {}
    for name, response in responses.items():
        asked = {
            who: [each for each in stats if f"tag={name}" in each["script"].split("&") and each["model"] in cases]
            for who, cases in (("model", ("hello", "anthropic/hello")), ("fallback", (SPARE,)))
        }
        found[name] = course(response, rows[name], asked, events)
    return found


def case_of(family: str, name: str) -> Case:
    found = FAMILIES[family].find(name)
    assert found is not None
    return found


def course(response: httpx.Response, row: dict[str, Any], requests: Any, events: Any) -> Course:
    """What a response says, in short."""
    spare = json.loads(case_of("chat", SPARE).single(usage=True))["choices"][0]["message"]["content"]
    texts = {HELLO: "the model", spare: "the fallback"}
    if not response.headers["content-type"].startswith("text/event-stream"):
        body = response.json()
        text = body["choices"][0]["message"]["content"] if "choices" in body else ""
        answered = texts.get(text, "")
        return Course(response.status_code, answered, 0, body.get("usage"), True, body.get("error"), row, requests)
    told = events(response.content)
    done = told[-1].data == "[DONE]"
    said = [json.loads(event.data) for event in told[: -1 if done else None]]
    error = next((each["error"] for each in said if "error" in each), None)
    chunks = [each for each in said if "error" not in each]
    text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    usage = chunks[-1].get("usage") if chunks else None
    return Course(response.status_code, texts.get(text, ""), len(chunks), usage, done, error, row, requests)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("number", range(len(FAULTS)), ids=[fault.name for fault in FAULTS])
def test_a_fault(courses: dict[str, Course], number: int, stream: bool) -> None:
    fault, course = FAULTS[number], courses[name_of(number, stream)]
    assert (course.sees, course.saw, course.accounts) == fault.expected(stream)
    assert course.done is (course.error is None or course.status != 200)
    row = course.row
    assert (row["stream"], row["status"], row["usage_complete"]) == (
        stream,
        course.status,
        row["outcome"] == "complete" and course.usage is not None,
    )
    assert (row["outcome"] == "complete") is (row["error"] is None) is (course.error is None)
    if course.usage:
        assert [course.usage[field] for field in ("prompt_tokens", "completion_tokens")] == [
            row["prompt_tokens"],
            row["completion_tokens"],
        ]


PAGE = """# What goes wrong, and what comes of it

Written by the tests (`make faults`), from what they saw: a proxy in front of an upstream that fails on purpose, one
retry and one fallback for each model, usage asked for. For each fault: what the client is told, how often the upstream
was asked, and the one row that was accounted: its outcome, its tokens, and how each attempt ended.

As long as nothing has been sent, an attempt that fails is made again, and then the fallback is asked: the client does
not notice. Once something has been sent that is over: the stream ends with an error event in the client's dialect, and
never with `[DONE]`. What was counted until then is accounted, and marked as incomplete.

{streamed}

Without streaming nothing is sent before the answer is whole. So it differs in these:

{whole}
"""


def table(courses: dict[str, Course], stream: bool) -> str:
    """A line for each fault; without streaming for those in which that matters."""
    lines = ["| the upstream | the client sees | the upstream saw | accounted |", "|---|---|---|---|"]
    for number, fault in enumerate(FAULTS):
        if stream or fault.whole is not None:
            course = courses[name_of(number, stream)]
            lines.append(f"| {fault.name} | {course.sees} | {course.saw} | {course.accounts} |")
    return "\n".join(lines)


def test_the_table_is_what_was_seen(courses: dict[str, Course], root: Path) -> None:
    page = PAGE.format(streamed=table(courses, stream=True), whole=table(courses, stream=False))
    file = root / "docs" / "proxy-faults.md"
    if os.environ.get("PENSTOCK_WRITE_DOCS"):
        file.write_text(page, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == page, "make faults"


# ---- a thousand random points: each request is accounted once, and what is accounted is what was served

CASE = "long-40"
EVENTS = 40 + 4  # the role, the texts, the finish reason, the usage, [DONE]


def counts(name: str) -> tuple[int, int]:
    """Tokens of prompt and answer that a case of chat completions reports."""
    usage = json.loads(case_of("chat", name).single(usage=True))["usage"]
    return usage["prompt_tokens"], usage["completion_tokens"]


async def leave(port: int, key: str, model: str, after: int) -> int:
    """Reads so many bytes of a streamed answer, and goes away, be it in the middle of a chunk; how many came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"model": model, "messages": MESSAGES, "stream": True, "stream_options": USAGE}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
    writer.write(f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    came = 0
    with contextlib.suppress(ConnectionError):
        while came < after and (piece := await reader.read(min(after - came, 4096))):
            came += len(piece)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return came


def all_leave(port: int, key: str, plans: list[tuple[str, int]]) -> None:
    """Many clients, some at a time."""

    async def main() -> None:
        gate = asyncio.Semaphore(40)

        async def one(model: str, after: int) -> None:
            async with gate:
                await leave(port, key, model, after)

        await asyncio.gather(*(one(model, after) for model, after in plans))

    asyncio.run(main())


def sums(rows: list[dict[str, Any]]) -> tuple[int, int]:
    """Tokens over all rows."""
    return sum(row["prompt_tokens"] or 0 for row in rows), sum(row["completion_tokens"] or 0 for row in rows)


def settled_upstream(up: Upstream, requests: int) -> dict[str, Any]:
    """The upstream's counts of all models together, once all is over."""

    def total(stats: dict[str, Any], field: str) -> int:
        return sum(model[field] for model in stats["models"].values())

    stats = up.wait(lambda stats: total(stats, "requests") >= requests, 60)
    return {field: total(stats, field) for field in ("requests", "chunks", "closed_early")}


def test_clients_that_leave(start: Any, up: Upstream, config: dict[str, Any]) -> None:
    """400 clients go at random bytes, and the upstream is left with them."""
    proxy = start(config)
    dice = random.Random(7)
    plans = [(f"chat/{CASE}?delay=2&tag={number}", dice.randrange(1, 14_000)) for number in range(400)]
    all_leave(proxy.port, proxy.key(), plans)
    seen = settled_upstream(up, 400)
    rows = proxy.settled(400)
    assert len({row["id"] for row in rows}) == 400
    assert seen["requests"] == sum(len(row["attempts"]) for row in rows) == 400
    outcomes = Counter(row["outcome"] for row in rows)
    assert set(outcomes) == {"left", "complete"}
    # Whom the upstream lost before its end, the proxy has lost too.
    assert 0 < seen["closed_early"] <= outcomes["left"]
    complete = [row for row in rows if row["usage_complete"]]
    assert len(complete) >= outcomes["complete"]
    prompt, answer = counts(CASE)
    assert sums(rows) == (prompt * len(complete), answer * len(complete))
    assert all(row["chunks"] <= EVENTS - 1 for row in rows)
    assert sum(row["chunks"] for row in rows) <= seen["chunks"]


def test_clients_that_leave_are_counted_to_the_end(start: Any, up: Upstream, config: dict[str, Any]) -> None:
    """300 clients go, and what they asked for is read on: the sums are those of the upstream."""
    proxy = start({**config, "general_settings": {"on_disconnect": "drain"}})
    dice = random.Random(8)
    plans = [(f"chat/{CASE}?delay=2&tag={number}", dice.randrange(1, 14_000)) for number in range(300)]
    all_leave(proxy.port, proxy.key(), plans)
    seen = settled_upstream(up, 300)
    rows = proxy.settled(300)
    assert seen["closed_early"] == 0
    assert {row["outcome"] for row in rows} == {"left", "complete"}
    assert all(row["usage_complete"] for row in rows)
    prompt, answer = counts(CASE)
    assert sums(rows) == (300 * prompt, 300 * answer)


def test_an_upstream_that_is_cut(start: Any, up: Upstream, config: dict[str, Any]) -> None:
    """300 answers are cut at random bytes, of two families; the second one counts the prompt at the beginning."""
    proxy = start({**config, "router_settings": {"num_retries": 0, "disable_cooldowns": True}})
    dice = random.Random(9)
    plans = []
    for number in range(300):
        family, case = (("chat", CASE), ("anthropic", "hello"))[number % 2]
        frames = case_of(family, case).frames(asked=True, usage=True, done=True)
        plans.append((f"{family}/{case}?cut_bytes={dice.randrange(1, sum(map(len, frames)))}&tag={number}", 1 << 20))
    all_leave(proxy.port, proxy.key(), plans)
    seen = settled_upstream(up, 300)
    rows = proxy.settled(300)
    assert seen["requests"] == len({row["id"] for row in rows}) == 300
    outcomes = Counter(row["outcome"] for row in rows)
    assert set(outcomes) <= {"cut", "failed", "complete"}
    assert outcomes["cut"] > 200
    for row in rows:
        family = row["model_group"].partition("/")[0]
        known = (row["prompt_tokens"], row["completion_tokens"])
        if family == "chat":
            assert known == (counts(CASE) if row["usage_complete"] else (None, None))
        elif row["usage_complete"]:
            assert known == (27, 87)
        else:
            assert known in ((None, None), (27, None), (27, 1), (27, 87))
        assert (row["error"] is None) is (row["outcome"] == "complete")


# ---- while it changes, and while it ends


def test_reloads_under_load_lose_nothing(start: Any, up: Upstream, config: dict[str, Any], load: Any) -> None:
    """A hundred reloads, among them some of a file that cannot be."""
    proxy = start(config)
    key = proxy.key()
    other = {**config, "model_list": [*config["model_list"], {**config["model_list"][0], "model_name": "more"}]}

    def ask(number: int) -> int:
        streamed = number % 2 == 0
        response = proxy.stream("chat/long-20?delay=3", key=key) if streamed else proxy.ask("fast", key=key)
        assert not streamed or response.text.endswith("[DONE]\n\n")
        return int(response.status_code)

    with load(ask, 8) as running:
        for number in range(100):
            if number % 10 == 9:
                proxy.file.write_text("model_list: 7\n", encoding="utf-8")
            else:
                proxy.write(other if number % 2 else config)
            if number % 2:
                proxy.reload()
            else:
                headers = {"authorization": f"Bearer {proxy.master}"}
                answer = proxy.client.post(f"{proxy.url}/config/reload", headers=headers)
                assert answer.status_code == (400 if number % 10 == 9 else 200), answer.text
            time.sleep(0.02)
        proxy.write(other)
        deadline = time.monotonic() + 20
        while "more" not in (names := [each["id"] for each in proxy.admin("/v1/models").json()["data"]]):
            assert time.monotonic() < deadline, names
            proxy.reload()
            time.sleep(0.2)
    assert [found for found in running.found if found != 200] == []
    rows = proxy.settled(len(running.found))
    assert {row["outcome"] for row in rows} == {"complete"}


@pytest.mark.parametrize("seed", range(3))
def test_an_end_under_load_loses_no_row(start: Any, up: Upstream, config: dict[str, Any], load: Any, seed: int) -> None:
    """Whatever a client was told anything of has its row, and the rest was never begun."""
    proxy = start({**config, "general_settings": {"drain_seconds": 0.5}})
    key = proxy.key()
    dice = random.Random(seed)
    begun: dict[str, bytes] = {}

    def ask(number: int) -> None:
        body = {"model": f"chat/long-{dice.choice((5, 50, 500))}?delay=10", "messages": MESSAGES, "stream": True}
        headers = {"authorization": f"Bearer {key}"}
        with proxy.client.stream("POST", f"{proxy.base_url}/chat/completions", json=body, headers=headers) as response:
            if response.status_code != 200:
                assert response.status_code == 503, response.read()
                return
            request = response.headers["x-request-id"]
            begun[request] = b""
            for piece in response.iter_bytes():
                begun[request] += piece

    with load(ask, 16) as running:
        time.sleep(1 + dice.random())
        proxy.process.terminate()
        proxy.await_end()
    rows = {row["id"]: row for row in proxy.rows()}
    assert len(begun) > 16
    assert begun.keys() <= rows.keys()
    assert len([row for row in rows.values() if row["outcome"] != "refused"]) == len(begun)
    for request, text in begun.items():
        whole = text.endswith(b"[DONE]\n\n")
        assert (rows[request]["outcome"] == "complete") is whole
        # Who was cut off has been told so.
        assert whole or b'"error"' in text[-400:], text[-400:]
    assert any(rows[request]["outcome"] == "complete" for request in begun)
    assert any(isinstance(found, httpx.TransportError) for found in running.found)
