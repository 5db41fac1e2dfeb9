"""A config as tables: what is in them, and that a plain request is the one that the Python API would have sent."""

import json
import os
from hashlib import sha256
from itertools import chain
from pathlib import Path
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
        self.stream_options = True
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
    plain: set[str] = set()
    others: set[str] = set()
    for row in ROWS:
        if row.family == "chat":
            _, tables = served(entry("m", f"{row.slug}/m", **at_home(row)))
            (plain if tables["deployments"][0]["plain"] else others).add(row.slug)
    # Messages of their own, fields in the body, a token to be had first.
    assert others == {row.slug for row in ROWS if row.family == "chat" and (row.messages or row.fields)}
    assert len(plain) > 80


REPRESENTATIVES: list[dict[str, Any]] = [
    {"model": "openai/hello", "max_tokens": 50, "temperature": 0.25},
    {"model": "together_ai/hello", "max_completion_tokens": 50},
    {"model": "cerebras/hello", "extra_body": {"own": [1, None, "ü"], "top_p": 0.1}},
    {
        "model": "openrouter/hello",
        "drop_params": True,
        "additional_drop_params": ["seed"],
        "allowed_openai_params": ["o"],
    },
]


@pytest.mark.parametrize("params", REPRESENTATIVES, ids=lambda params: params["model"])
def test_the_native_module_splices_so(params: dict[str, Any]) -> None:
    import httpx

    from penstock._native import Gateway
    from penstock.replay import Upstream

    with Upstream() as up:
        _, tables = served(entry("m", api_key=KEY, **params))
        plain = tables["deployments"][0]["plain"]
        plain["url"] = f"{up.base_url}/chat/completions"
        gateway = Gateway(json.dumps(tables).encode())
        url = f"http://127.0.0.1:{gateway.listen('127.0.0.1', 0)}/v1/chat/completions"
        try:
            with httpx.Client(trust_env=False) as client:
                for body in bodies():
                    sent = spliced(plain, "hello", body)
                    if sent is None:
                        continue
                    up.reset()
                    answer = client.post(url, json={**body, "own": None, "o": 1} if "o" in plain["takes"] else body)
                    assert answer.status_code == 200, answer.text
                    (request,) = up.stats()["requests"]
                    assert request["body"] == ({**sent, "o": 1} if "o" in plain["takes"] else sent)
                    for name, value in headed(plain, body.get("stream") is True).items():
                        if name != "authorization":
                            assert request["headers"][name] == value
        finally:
            gateway.close()


def test_a_request_of_the_messages_api_goes_on_as_it_is() -> None:
    params = {"max_tokens": 5, "temperature": 0, "extra_body": {"service_tier": "auto"}}
    _, tables = served(
        entry("a", "anthropic/claude-sonnet-4-5", api_key=KEY, **params),
        entry("b", "anthropic/claude-sonnet-4-5", api_key=KEY, stop="END"),
    )
    first, second = (table["plain"] for table in tables["deployments"])
    assert first["url"] == "https://api.anthropic.com/v1/messages"
    assert dict(first["headers"]).items() >= {("x-api-key", KEY), ("anthropic-version", "2023-06-01")}
    assert first["set"] == {"max_tokens": 5, "temperature": 0, "service_tier": "auto"}
    assert {"api_key", "extra_headers", "service_tier"} <= set(first["refuses"])
    assert not {"messages", "model", "stream", "max_tokens", "metadata", "system"} & set(first["refuses"])
    assert "takes" not in first
    assert second is None  # `stop` has another name there


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"model": "azure/m", "api_base": BASES["azure"], "tenant_id": "t", "client_id": "c", "client_secret": "s"},
         "a token"),
        ({"model": "bedrock_mantle/m", "aws_access_key_id": "a", "aws_secret_access_key": "s"}, "a signature"),
        ({"model": "mistral/m", "api_key": KEY}, "messages of its own"),
        ({"model": "openai/m", "api_key": KEY, "extra_body": {"model": "other"}}, "a field that is the gateway's"),
    ],
)  # fmt: skip
def test_what_is_not_plain(params: dict[str, Any], why: str) -> None:
    _, tables = served(entry("m", **params))
    assert tables["deployments"][0]["plain"] is None


def test_hooks_hear_of_every_request(tmp_path: Path) -> None:
    (tmp_path / "told_of_all.py").write_text("class Hook:\n    def ended(self, call, end): ...\nhook = Hook()\n")
    read = Config(str(tmp_path / "config.yaml"))
    text = {"model_list": [entry("m", "openai/m", api_key=KEY)], "litellm_settings": {"hooks": ["told_of_all.Hook"]}}
    parse(json.dumps(text), read, {})
    compiled = tables_of(read)
    assert compiled is not None
    assert [type(hook).__name__ for hook in compiled.hooks] == ["Hook"]
    assert json.loads(compiled.tables)["deployments"][0]["plain"] is None


# Deployments ----------------------------------------------------------------------------------------------------------


def test_what_is_known_of_a_deployment() -> None:
    _, tables = served(
        {
            "model_name": "m",
            "litellm_params": {
                "model": "azure/gpt-4o",
                "api_base": BASES["azure"],
                "api_key": KEY,
                "rpm": 10,
                "max_parallel_requests": 3,
                "order": 2,
                "tags": ["eu"],
                "cooldown_time": 9,
                "timeout": {"connect": 1, "first_token": 20, "total": 300},
                "proxy": "http://proxy:3128",
                "input_cost_per_token": 1e-6,
                "output_cost_per_token": 2e-6,
            },
            "model_info": {"id": "eu-1", "max_input_tokens": 1000, "cache_read_input_token_cost": 1e-7},
            "tpm": 100,
        },
        router_settings={"enable_pre_call_checks": True, "allowed_fails": 1},
    )
    (table,) = tables["deployments"]
    del table["plain"], table["embeddings"]["headers"]
    assert table == {
        "id": "eu-1",
        "model": "gpt-4o",
        "provider": "azure",
        "family": "chat",
        "reasoning": "inside",
        "end": "finish",
        "embeddings": {
            "url": "https://mine.openai.azure.com/openai/deployments/gpt-4o/embeddings?api-version=2024-10-21"
        },
        "route": {"proxy": "http://proxy:3128", "verify": True, "cert": None, "http2": "never"},
        "timeouts": {"connect": 1, "first_token": 20, "idle": 600.0, "total": 300},
        "limits": {"rpm": 10, "tpm": 100, "max_parallel": 3},
        "allowed_fails": 1,
        "cooldown": 9,
        "weight": 10.0,
        "order": 2,
        "tags": ["eu"],
        "max_prompt": 1000,
        "price": {"input": 1e-6, "output": 2e-6, "cached": 1e-7, "cache_write": None},
    }


def test_prices_that_nobody_gave_are_looked_up() -> None:
    _, tables = served(
        entry("a", "openai/gpt-4o", api_key=KEY),
        entry("b", "openai/nobody-knows-it", api_key=KEY),
        {**entry("c", "openai/mine", api_key=KEY), "model_info": {"base_model": "openai/gpt-4o"}},
        entry("openai/*", "openai/*", api_key=KEY),
    )
    prices = [table["price"] for table in tables["deployments"]]
    assert prices[0] == prices[2] == {"input": 2.5e-06, "output": 1e-05, "cached": 1.25e-06, "cache_write": None}
    assert prices[1] is prices[3] is None


@pytest.mark.parametrize(
    ("params", "router", "clocks"),
    [
        ({}, {}, (5.0, 600.0, 600.0, None)),
        ({"timeout": 3}, {}, (3, 3, 3, None)),
        ({"timeout": 60, "stream_timeout": 10}, {}, (5.0, 10, 10, None)),
        ({}, {"timeout": 30}, (5.0, 30, 30, None)),
        ({"timeout": {"idle": None}}, {"timeout": 30}, (5.0, 600.0, None, None)),
    ],
)
def test_clocks(params: dict[str, Any], router: dict[str, Any], clocks: tuple[Any, ...]) -> None:
    _, tables = served(entry("m", "openai/m", api_key=KEY, **params), router_settings=router)
    assert tuple(tables["deployments"][0]["timeouts"].values()) == clocks


def test_the_way_to_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trustme = pytest.importorskip("trustme", reason="external: no trustme")
    authority = trustme.CA()
    bundle, own = tmp_path / "ca.pem", tmp_path / "own.pem"
    authority.cert_pem.write_to_path(bundle)
    authority.issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(own)
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    _, tables = served(
        entry("a", "openai/m", api_key=KEY, verify=str(bundle), cert=str(own)),
        entry("b", "openai/m", api_key=KEY, api_base="http://localhost:1/v1", http2=True),
        entry("c", "openai/m", api_key=KEY, api_base="http://localhost:1/v1", http2="prior-knowledge"),
    )
    first, *others = (table["route"] for table in tables["deployments"])
    own_route = {"verify": [str(bundle)], "cert": [str(own), str(own)], "http2": "never"}
    assert first == {"proxy": "http://proxy.example:3128", **own_route}
    usual = {"proxy": None, "verify": True, "cert": None}
    assert others == [{**usual, "http2": "negotiated"}, {**usual, "http2": "prior-knowledge"}]
    read = of(model_list=[entry("a", "openai/m", api_key=KEY, http2="h2")])
    assert [problem.path for problem in read.errors] == ["model_list[0].litellm_params.http2"]
    read = of(model_list=[entry("a", "openai/m", api_key=KEY, verify=str(tmp_path / "none.pem"))])
    assert tables_of(read) is None
    assert [problem.path for problem in read.errors] == ["model_list[0].litellm_params.verify"]
    read = of(model_list=[entry("a", "openai/m", api_key=KEY, verify=False)])
    assert tables_of(read) is not None
    (warning,) = read.problems
    assert "anybody may answer in place of api.openai.com" in warning.message


@pytest.mark.parametrize(
    ("settings", "path", "said"),
    [
        ({"model_group_alias": {"e*": "a"}}, "model_group_alias.e*", "got 'e*', expected one name"),
        ({"fallbacks": [{"a": ["b"]}, {"a": ["c"]}]}, "fallbacks[1].a", "'a' has some already, at config.yaml:1"),
        (
            {"fallbacks": [{"a": ["b"]}, {"x": ["c"]}], "model_group_alias": {"x": "a"}},
            "fallbacks[1].x",
            "'x' has some already",
        ),
    ],
)
def test_names_that_mean_two_things(settings: Any, path: str, said: str) -> None:
    read = of(model_list=[entry(name, "openai/m", api_key=KEY) for name in "abc"], router_settings=settings)
    assert tables_of(read) is None
    (problem,) = read.errors
    assert problem.path == f"router_settings.{path}"
    assert said in problem.message


# Names ----------------------------------------------------------------------------------------------------------------


def test_groups_have_their_deployments_and_shares() -> None:
    _, tables = served(
        entry("a", "openai/m", api_key=KEY, rpm=10, tags=["x"]),
        entry("b", "openai/m", api_key=KEY),
        entry("a", "openai/m", api_key=KEY, rpm=30),
        router_settings={
            "routing_strategy": "cost-based-routing",
            "num_retries": 1,
            "retry_after": 2,
            "retry_budget": 0.5,
        },
    )
    first, second = tables["groups"]
    assert first == {
        "name": "a",
        "deployments": ["a#0", "a#1"],
        "strategy": "lowest-cost",
        "max_retries": 1,
        "retry_after": 2,
        "all_tags": False,
    }
    assert second["deployments"] == ["b#0"]
    assert {table["id"]: table["weight"] for table in tables["deployments"]} == {"a#0": 10, "b#0": 1, "a#1": 30}
    assert tables["settings"]["retry_budget"] == 0.5
    assert [table["tags"] for table in tables["deployments"]] == [["x"], [], []]
    _, tables = served(entry("a", "openai/m", api_key=KEY, tags=["x"]), router_settings={"enable_tag_filtering": False})
    assert tables["deployments"][0]["tags"] == []


def test_fallbacks_are_resolved() -> None:
    _, tables = served(
        *(entry(name, "openai/m", api_key=KEY) for name in "abc"),
        entry("openai/*", "openai/*", api_key=KEY),
        router_settings={
            "model_group_alias": {"z": "c"},
            "fallbacks": [{"a": ["b", "z"]}, {"*": ["c", "openai/gpt-4o"]}],
            "context_window_fallbacks": [{"z": ["a"]}],
            "default_fallbacks": ["b"],
        },
    )
    groups = {group["name"]: group for group in tables["groups"]}
    assert groups["a"]["fallbacks"] == ["b", "c"]
    assert groups["b"]["fallbacks"] == ["c", "openai/gpt-4o"]
    assert groups["c"]["fallbacks"] == ["openai/gpt-4o"]
    assert groups["c"]["context_window_fallbacks"] == ["a"]
    assert "content_policy_fallbacks" not in groups["a"]
    assert tables["aliases"] == {"z": "c"}


def test_a_star_is_any_model_of_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, tables = served(
        entry("openai/*", "openai/*", api_key=KEY),
        entry("fast-*", "together_ai/org/*", api_key=KEY),
        entry("azure/*", "azure/*", api_key=KEY, api_base=BASES["azure"]),
        entry("fireworks/*", "fireworks_ai/*", api_key=KEY),
    )
    first, second, *_ = tables["deployments"]
    assert (first["model"], second["model"]) == ("*", "org/*")
    assert [table["plain"] is not None for table in tables["deployments"]] == [True, True, False, False]
    deployments = compiled.deployments
    assert deployments["openai/*#0"].model_for("gpt-4o") == "openai/gpt-4o"
    assert deployments["fast-*#0"].model_for("org/m") == "together_ai/org/m"
    assert deployments["azure/*#0"].model_for("d") == "azure/d"
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    compiled, tables = served(entry("*", "*"))
    assert {"groq/*", "openai/*", "gpt-*"} <= {group["name"] for group in tables["groups"]}
    assert compiled.deployments["gpt-*#0"].model_for("gpt-4o") == "gpt-4o"
    assert "anthropic/*" not in {group["name"] for group in tables["groups"]}


# What cannot be -------------------------------------------------------------------------------------------------------


def problems(*entries: dict[str, Any], **sections: Any) -> list[str]:
    read = of(model_list=list(entries), **sections)
    assert tables_of(read) is None
    return [f"{problem.path}: {problem.message}" for problem in read.errors]


def test_every_error_names_its_place() -> None:
    found = problems(
        entry("a", "opnai/m", api_key=KEY),
        entry("b", "openai/m"),
        entry("c", "azure/m", api_key=KEY),
        {"model_name": "d"},
        entry("e", "openai/m", api_key=KEY, top_k=3),
        entry("f", "openai/*", api_key=KEY),
        entry("g", "replicate/owner/name", api_key=KEY),
        {**entry("h", "openai/m", api_key=KEY), "model_info": {"id": "e#0"}},
        router_settings={"fallbacks": [{"a": ["nobody"]}], "model_group_alias": {"a": "b"}},
        litellm_settings={"hooks": ["no.such.hook"]},
    )
    expected = [
        "model_list[0].litellm_params.model: no provider for model='opnai/m' (nearest: openai",
        "model_list[1].litellm_params: no key for openai: pass api_key or set OPENAI_API_KEY",
        "model_list[2].litellm_params: azure has no base URL of its own: set api_base or AZURE_API_BASE",
        "model_list[3]: expected litellm_params",
        "model_list[4].litellm_params.top_k: openai has no parameter top_k.",
        "model_list[5]: got model 'openai/*', expected a * at the end of model_name too",
        "model_list[6].litellm_params.model: replicate answers in two steps",
        "model_list[7].model_info.id: 'e#0' is the id of another deployment, at config.yaml:1",
        "router_settings.fallbacks[0].a: got 'nobody', which is no model_name, expected one of a, b, c",
        "router_settings.model_group_alias.a: 'a' is a model_name itself",
        "litellm_settings.hooks[0]: got 'no.such.hook', expected the import path of a hook: ModuleNotFoundError",
    ]
    for line in expected:
        assert any(each.startswith(line) for each in found), (line, found)
    assert len(found) == len(expected)


def test_what_is_wrong_is_said_once() -> None:
    assert problems(entry("a", "openai/m", api_key="os.environ/NOT_THERE")) == [
        "model_list[0].litellm_params.api_key: the variable NOT_THERE is not set"
    ]


def test_keywords_of_another_provider_have_no_effect() -> None:
    read = of(model_list=[entry("a", "openai/m", api_key=KEY, vertex_project="p")])
    assert tables_of(read) is not None
    (warning,) = read.problems
    assert (warning.level, warning.path) == ("warning", "model_list[0].litellm_params.vertex_project")
    assert warning.message == "it has no effect: it is of vertex_ai, not of openai"


# The server -----------------------------------------------------------------------------------------------------------


def test_the_settings_are_the_native_modules() -> None:
    from penstock._native import Gateway

    key = "sk-0d9f8e7c6b5a41322314a5b6c7d8e9f0"
    compiled, tables = served(
        entry("m", "openai/m", api_key=KEY),
        general_settings={"master_key": key, "cors": ["*"], "silence": 3, "on_disconnect": "drain"},
    )
    settings = tables["settings"]
    assert settings["master_key"] == sha256(key.encode()).hexdigest()
    assert (settings["cors"], settings["silence"], settings["on_disconnect"]) == (["*"], 3, "drain")
    assert key not in compiled.tables.decode()
    assert KEY not in repr(compiled) + repr(list(compiled.deployments.values()))
    Gateway(compiled.tables).close()


def test_tables_of_every_row_are_taken() -> None:
    from penstock._native import Gateway

    compiled, _ = served(
        *(entry(row.slug, f"{row.slug}/m", **at_home(row)) for row in ROWS if row.slug not in TWO_STEPS),
        entry("openai/*", "openai/*", api_key=KEY),
        router_settings={"disable_cooldowns": True, "default_fallbacks": ["openai"]},
    )
    Gateway(compiled.tables).close()
