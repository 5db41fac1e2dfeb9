"""A config as tables: what is in them, and that a plain request is the one that the Python API would have sent."""

import json
import os
from itertools import chain
from typing import Any

import pytest

from penstock.call import CHAT, plan
from penstock.errors import APIError
from penstock.gateway.compile import Compiled, tables_of
from penstock.gateway.config import Config, parse
from penstock.gateway.planner import Planner
from penstock.providers.registry import ROWS, Provider

KEY = "sk-test-0123456789"
BASES = {
    "azure": "https://mine.openai.azure.com",
    "azure_ai": "https://mine.services.ai.azure.com",
    "azure_text": "https://mine.openai.azure.com",
    "databricks": "https://mine.cloud.databricks.com",
}
NO_EXCHANGE = {"gigachat": "access_token", "watsonx": "token", "watsonx_text": "token"}
TWO_STEPS = {row.slug for row in ROWS if row.follow}
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello, 世界"}]

# A value for each parameter that there is.
GIVEN: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "n": 2,
    "stop": ["END"],
    "max_tokens": 100,
    "max_completion_tokens": 200,
    "modalities": ["text"],
    "prediction": {"type": "content", "content": "Hello"},
    "audio": {"voice": "alloy", "format": "wav"},
    "presence_penalty": 0.1,
    "frequency_penalty": 0.2,
    "logit_bias": {"50256": -100},
    "user": "somebody",
    "reasoning_effort": "low",
    "verbosity": "low",
    "seed": 7,
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "logprobs": True,
    "top_logprobs": 3,
    "functions": [{"name": "f"}],
    "function_call": "auto",
    "web_search_options": {},
    "service_tier": "default",
    "store": False,
    "metadata": {"team": "a"},
    "safety_identifier": "s",
    "prompt_cache_key": "p",
    "thinking": {"type": "disabled"},
    "top_k": 40,
    "min_p": 0.05,
    "repetition_penalty": 1.1,
    "response_format": {"type": "json_object"},
}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's is known."""
    for row in ROWS:
        names = chain(row.key_env, row.base_env, *(token.env for token in row.tokens), *(s.env for s in row.settings))
        for name in names:
            monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.startswith(("AWS_", "PENSTOCK_", "SSL_CERT"))]:
        monkeypatch.delenv(name)
    for name in ("HOME", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "BOTO_CONFIG"):
        monkeypatch.setenv(name, os.devnull)


def config(text: str) -> Config:
    read = Config("config.yaml")
    parse(text, read, dict(os.environ))
    return read


def of(**sections: Any) -> Config:
    return config(json.dumps(sections))


def served(*entries: dict[str, Any], **sections: Any) -> tuple[Compiled, dict[str, Any]]:
    """What is compiled from a model_list that is good, and its tables."""
    read = of(model_list=list(entries), **sections)
    compiled = tables_of(read)
    assert compiled is not None, [str(problem) for problem in read.problems]
    return compiled, json.loads(compiled.tables)


def entry(name: str, model: str, **params: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": model, **params}}


def at_home(row: Provider) -> dict[str, Any]:
    """What it takes to serve a row: its settings, an address, a key."""
    texts = [row.base_url if isinstance(row.base_url, str) else "", row.chat_path]
    needed = {
        setting.keyword: "mine"
        for setting in row.settings
        if setting.default is None and any(f"{{{setting.keyword}}}" in text for text in texts)
    }
    if row.base_url is None:
        needed["api_base"] = BASES.get(row.slug, "http://localhost:9000")
    # What is exchanged for a token before the call is not what is sent.
    return {**needed, NO_EXCHANGE.get(row.slug, "api_key"): KEY}


# A plain request, and the same by the Python API ---------------------------------------------------------------------


def spliced(plain: dict[str, Any], model: str, body: dict[str, Any]) -> dict[str, Any] | None:
    """What the native module makes of a client's body; None where it asks the planner. As rust/gateway/src/ask.rs."""
    stream = body.get("stream") is True
    sent: dict[str, Any] = {"model": model}
    for name, value in body.items():
        if name in ("model", "stream_options") or value is None or (name, value) == ("stream", False):
            continue
        takes = plain.get("takes")
        if name in plain.get("refuses", ()) or not (name in ("messages", "stream") or takes is None or name in takes):
            return None
        name = plain.get("renames", {}).get(name, name)  # noqa: PLW2901
        if name in sent:
            return None
        sent[name] = value
    if stream:
        options = {name: value for name, value in (body.get("stream_options") or {}).items() if name != "include_usage"}
        options |= {"include_usage": True} if plain["stream_options"] else {}
        sent |= {"stream_options": options} if options else {}
    return {**plain.get("set", {}), **sent}


def headed(plain: dict[str, Any], stream: bool) -> dict[str, str]:
    """The headers of a plain request: those of the table, and the native module's own."""
    own = {"accept": "text/event-stream", "accept-encoding": "identity"} if stream else {"accept": "application/json"}
    return {**own, **dict(plain["headers"])}


def bodies() -> list[dict[str, Any]]:
    asked: dict[str, Any] = {"model": "m", "messages": MESSAGES}
    made = [asked, {**asked, "stream": False, "temperature": None}]
    for name, value in GIVEN.items():
        made += [{**asked, name: value}, {**asked, name: value, "stream": True}]
    for options in ({}, {"include_usage": True}, {"include_usage": False}, {"include_obfuscation": False}):
        made.append({**asked, "stream": True, "stream_options": options})
    made.append({**asked, "max_tokens": 5, "max_completion_tokens": 5})
    made.append({**asked, "tools": GIVEN["tools"], "tool_choice": "auto", "temperature": 0, "stream": True})
    return made


def test_every_parameter_has_a_value_here() -> None:
    assert GIVEN.keys() == CHAT.parameters - {"stream_options"}


@pytest.mark.parametrize("row", [row for row in ROWS if row.slug not in TWO_STEPS], ids=lambda row: row.slug)
def test_a_plain_request_is_the_one_of_the_python_api(row: Provider) -> None:
    home = at_home(row)
    defaults: dict[str, Any] = {} if "temperature" in row.unsupported else {"temperature": 0.25}
    if "max_tokens" not in row.unsupported:
        defaults["max_tokens"] = 50
    longest = {"max_tokens", "max_completion_tokens"}
    variations: list[dict[str, Any]] = [{}, defaults, {"extra_body": {"top_p": 0.1, "own": 1}}]
    for more in variations:
        _, tables = served(entry("m", f"{row.slug}/m", **home, **more))
        (table,) = tables["deployments"]
        if row.family != "chat":
            assert table["plain"] is None or row.family == "anthropic"
            continue
        plain = table["plain"]
        if plain is None:
            assert row.fields or row.messages or row.settings or row.tokens or row.stream_path, "why not?"
            continue
        for body in bodies():
            stream = body.get("stream") is True
            given = {name: value for name, value in body.items() if name in CHAT.parameters and value is not None}
            sent = spliced(plain, table["model"], body)
            if sent is None:
                continue
            # What a client says goes before what the config does, by whichever of its names.
            under = {name: value for name, value in more.items() if name != "max_tokens" or not longest & given.keys()}
            call = plan(CHAT, f"{row.slug}/m", MESSAGES, stream, {**home, **under, **given})
            request = call.request()
            assert sent == json.loads(request.content), body
            assert (plain["url"], headed(plain, stream)) == (request.url, request.headers)
            assert (table["family"], table["reasoning"], table["end"]) == (
                call.provider.family,
                call.provider.dialect.get("reasoning", "inside"),
                call.provider.dialect.get("end", "finish"),
            )


class Job:
    """A job as the native module has it."""

    def __init__(self, deployment: str, body: dict[str, Any], model: str = "m", operation: Any = "chat") -> None:
        self.id = "req_1"
        self.deployment = deployment
        self.operation = operation
        self.model = model
        self.body = json.dumps(body).encode()
        self.sent: tuple[str, dict[str, str], dict[str, Any]] | None = None
        self.refused: tuple[int, str] | None = None

    def plan(self, url: str, headers: Any, body: bytes, /, **_: Any) -> None:
        self.sent = url, dict(headers), json.loads(body)

    def refuse(self, status: int, message: str, /, *, name: str = "", **_: Any) -> None:
        self.refused = status, f"{name}: {message}"


@pytest.mark.parametrize("row", [row for row in ROWS if row.slug not in TWO_STEPS], ids=lambda row: row.slug)
def test_a_planned_request_is_the_one_of_the_python_api(row: Provider) -> None:
    home = at_home(row)
    compiled, _ = served(entry("m", f"{row.slug}/m", **home))
    planner = Planner(compiled.deployments)
    for body in bodies():
        stream = body.get("stream") is True
        given = {name: value for name, value in body.items() if name in CHAT.parameters and value is not None}
        job = Job("m#0", body)
        planner.plan(job)
        expected: Any = None
        refused: Any = None
        try:
            request = plan(CHAT, f"{row.slug}/m", MESSAGES, stream, {**home, **given}).request()
            expected = request.url, request.headers, json.loads(request.content)
        except APIError as error:
            refused = 400, f"{type(error).__name__}: {error.message}"
        assert (job.sent, job.refused) == (expected, refused), body
    planner.close()


def test_most_rows_are_plain() -> None:
    plain, others = set(), set()
    for row in ROWS:
        if row.family == "chat":
            _, tables = served(entry("m", f"{row.slug}/m", **at_home(row)))
            (plain if tables["deployments"][0]["plain"] else others).add(row.slug)
    # Messages of their own, fields in the body, a token to be had first.
    assert others == {row.slug for row in ROWS if row.family == "chat" and (row.messages or row.fields)}
    assert len(plain) > 80
