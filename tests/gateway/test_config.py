"""The config file: what it may say, and what is said about what it may not."""

from pathlib import Path
from typing import Any

import pytest

from penstock.gateway.compile import tables_of
from penstock.gateway.config import Config, of_models, parse, read, reference, weakness
from penstock.gateway.schema import SCHEMA, Key, Section, sections
from penstock.router import STRATEGIES

ROOT = Path(__file__).resolve().parents[2]
SECRET = "sk-0d9f8e7c6b5a41322314a5b6c7d8e9f0"

LITELLM = f"""\
# As litellm's documentation has them.
environment_variables:
  REGION_KEY: some-key

model_list:
  - model_name: gpt-4o
    litellm_params:
      model: azure/gpt-4o-eu
      api_base: https://eu.openai.azure.com
      api_key: os.environ/REGION_KEY
      api_version: 2024-10-21
      rpm: 6
    model_info:
      id: eu
      base_model: gpt-4o
      anything: goes
  - model_name: gpt-4o
    litellm_params:
      model: openai/gpt-4o
      api_key: os.environ/OPENAI_API_KEY
      timeout: 30
      stream_timeout: 10

router_settings:
  routing_strategy: usage-based-routing-v2
  num_retries: 3
  redis_host: localhost
  redis_port: 6380
  redis_password: p@ss

litellm_settings:
  drop_params: true
  request_timeout: 60
  num_retries: 5
  fallbacks: [{{"gpt-4o": ["gpt-4o"]}}]
  json_logs: true

general_settings:
  master_key: {SECRET}
  database_url: postgresql://user@host/spend
  max_request_size_mb: 8
  max_parallel_requests: 20
"""


WEAK = (
    "it has 7 characters, and anybody can try all of that: expected 16 or more. `penstock keys secret` makes a good one"
)
ELSEWHERE = "litellm_params and litellm_settings has one"


def parsed(text: str, **environ: str) -> Config:
    config = Config("config.yaml")
    parse(text, config, environ)
    config.sort()
    return config


def said(text: str, **environ: str) -> list[str]:
    """The problems of a config that is good but for these lines."""
    base = "model_list: [{model_name: m, litellm_params: {model: replay/hello}}]\n"
    config = parsed(text if "model_list" in text else base + text, **environ)
    return [str(problem).removeprefix("config.yaml:") for problem in config.problems]


def general(text: str, **environ: str) -> dict[str, Any]:
    config = parsed(f"model_list: [{{model_name: m, litellm_params: {{model: replay/hello}}}}]\n{text}", **environ)
    assert not config.errors
    settings: dict[str, Any] = config.values["general_settings"]
    return settings


# What is read ---------------------------------------------------------------------------------------------------------


def test_a_file_of_litellms_is_read_as_it_is() -> None:
    config = parsed(LITELLM, OPENAI_API_KEY="sk-other")
    assert [str(problem) for problem in config.problems] == []
    first, second = config.values["model_list"]
    assert first["litellm_params"] == {
        "model": "azure/gpt-4o-eu",
        "api_base": "https://eu.openai.azure.com",
        "api_key": "some-key",
        "api_version": "2024-10-21",  # a date, to YAML
        "rpm": 6,
    }
    assert first["model_info"] == {"id": "eu", "base_model": "gpt-4o", "anything": "goes"}
    assert (second["litellm_params"]["api_key"], second["litellm_params"]["stream_timeout"]) == ("sk-other", 10)


def test_what_can_be_said_in_two_places_is_in_one() -> None:
    config = parsed(LITELLM, OPENAI_API_KEY="sk-other")
    router, settings = config.values["router_settings"], config.values["general_settings"]
    assert router["num_retries"] == 3  # its own before litellm_settings'
    assert router["fallbacks"] == [{"gpt-4o": ["gpt-4o"]}]
    assert router["timeout"] == 60
    assert router["default_max_parallel_requests"] == 20
    assert router["default_litellm_params"] == {"drop_params": True}
    assert (settings["log_format"], settings["max_body"]) == ("json", 8 << 20)
    assert settings["redis"]["url"] == "redis://:p%40ss@localhost:6380/0"


def test_what_is_not_said_has_its_default() -> None:
    config = parsed("model_list: [{model_name: m, litellm_params: {model: replay/hello}}]")
    for name in ("router_settings", "litellm_settings", "general_settings"):
        section = next(each for each in sections() if each.name == name)
        for key in section.keys:
            if key.default is not None:
                assert config.values[name][key.name] == key.default, key.name
    assert config.values["router_settings"]["allowed_fails"] == 3


def test_an_empty_key_is_as_if_it_were_not_there() -> None:
    assert general("general_settings:\n  max_requests:\n")["max_requests"] == 10000
    assert said("litellm_settings:\nrouter_settings:\n") == []


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("redis://a", {"url": "redis://a", "nodes": 1, "when_down": "share"}),
        ("{url: redis://a, nodes: 3}", {"url": "redis://a", "nodes": 3}),
    ],
)
def test_redis_is_a_url_or_a_mapping(given: str, read: dict[str, Any]) -> None:
    redis = general(f"general_settings: {{redis: {given}}}")["redis"]
    assert redis.items() >= read.items()


def test_numbers_that_yaml_takes_for_texts() -> None:
    config = parsed(
        "model_list: [{model_name: '1e5', litellm_params: {model: openai/a, input_cost_per_token: 1e-6, rpm: 1e3}}]"
    )
    (entry,) = config.values["model_list"]
    assert (entry["model_name"], entry["litellm_params"]["input_cost_per_token"]) == ("1e5", 1e-6)
    assert [problem.message for problem in config.problems] == ["got 1000.0, expected a whole number from 0 on"]


def test_anchors_and_merges() -> None:
    config = parsed(
        "x: &common {api_base: 'http://a/v1', rpm: 5}\n"
        "model_list:\n"
        "  - model_name: m\n    litellm_params: {<<: *common, model: openai/a, rpm: 6}\n"
    )
    assert config.values["model_list"][0]["litellm_params"] == {
        "api_base": "http://a/v1",
        "rpm": 6,
        "model": "openai/a",
    }
    assert [problem.path for problem in config.problems] == ["x"]


def test_models_without_a_file() -> None:
    config = of_models(["openai/gpt-4o", "replay/hello"], {})
    assert [entry["model_name"] for entry in config.values["model_list"]] == ["openai/gpt-4o", "replay/hello"]
    assert config.values["router_settings"]["model_group_alias"] == {"gpt-4o": "openai/gpt-4o", "hello": "replay/hello"}
    assert of_models(["gpt-4o"], {}).values["router_settings"]["model_group_alias"] == {}


# Variables ------------------------------------------------------------------------------------------------------------


def test_variables_stand_for_values_of_any_kind() -> None:
    text = "general_settings: {max_requests: os.environ/MOST, public_health: os.environ/OPEN, cors: os.environ/ORIGINS}"
    settings = general(text, MOST="5", OPEN="false", ORIGINS="https://a, https://b")
    assert (settings["max_requests"], settings["public_health"]) == (5, False)
    assert settings["cors"] == ["https://a", "https://b"]
    assert said("general_settings: {max_requests: os.environ/MOST}", MOST="many") == [
        "2: error: general_settings.max_requests: got 'many', expected a whole number from 0 on"
    ]


def test_a_variable_that_is_not_set_is_an_error() -> None:
    assert said("general_settings: {database_url: os.environ/DATABSE_URL}", DATABASE_URL="x") == [
        "2: error: general_settings.database_url: the variable DATABSE_URL is not set: did you mean DATABASE_URL?"
    ]


def test_the_files_own_variables_are_set_first() -> None:
    environ = {"THERE": "from outside"}
    config = Config("config.yaml")
    text = (
        "environment_variables: {A: 1, B: true, C: os.environ/THERE, D: [1]}\n"
        "model_list: [{model_name: os.environ/C, litellm_params: {model: x/y}}]"
    )
    parse(text, config, environ)
    assert environ == {"THERE": "from outside", "A": "1", "B": "true", "C": "from outside"}
    assert [problem.path for problem in config.problems] == ["environment_variables.D"]
    assert config.values["model_list"][0]["model_name"] == "from outside"


def test_master_key_and_database_come_from_variables_too() -> None:
    settings = general("", PENSTOCK_MASTER_KEY=SECRET, PENSTOCK_DATABASE="spend.db")
    assert (settings["master_key"], settings["database_url"]) == (SECRET, "spend.db")


# What cannot be -------------------------------------------------------------------------------------------------------


def test_every_problem_is_told_at_once_in_the_order_of_the_file() -> None:
    text = """\
model_list:
  - model_name: fast
    litellm_params:
      model: openai/gpt-4o
      api_key: os.environ/NOT_THERE
      rpm: ten
      rmp: 10
router_settings:
  routing_strategy: least-bussy
  num_retries: -1
general_settings:
  master_key: sk-1234
  max_body: big
  drop_params: true
genral_settings: {}
"""
    strategies = ", ".join(STRATEGIES)
    assert said(text) == [
        f"{line}: {level}: {path}: {message}"
        for line, level, path, message in (
            (5, "error", "model_list[0].litellm_params.api_key", "the variable NOT_THERE is not set"),
            (6, "error", "model_list[0].litellm_params.rpm", "got 'ten', expected a whole number from 0 on"),
            (7, "warning", "model_list[0].litellm_params.rmp", "unknown key, without effect: did you mean rpm?"),
            (
                9,
                "error",
                "router_settings.routing_strategy",
                f"got 'least-bussy', expected one of {strategies}: did you mean least-busy?",
            ),
            (10, "error", "router_settings.num_retries", "got -1, expected a whole number from 0 on"),
            (12, "error", "general_settings.master_key", WEAK),
            (13, "error", "general_settings.max_body", "got 'big', expected a whole number of bytes"),
            (14, "warning", "general_settings.drop_params", f"unknown key, without effect; {ELSEWHERE}"),
            (15, "warning", "genral_settings", "unknown key, without effect: did you mean general_settings?"),
        )
    ]


CLOCKS = "seconds above 0, or a mapping with some of connect, first_token, idle, total"
WRONG = [
    ("general_settings: []", "", "got a list, expected a mapping"),
    ("general_settings: {silence: soon}", ".silence", "got 'soon', expected seconds"),
    ("general_settings: {silence: .inf}", ".silence", "got inf, expected seconds"),
    ("general_settings: {public_health: 1}", ".public_health", "got 1, expected true or false"),
    ("general_settings: {cors: {}}", ".cors", "got a mapping, expected a list of texts"),
    ("general_settings: {redis: {nodes: 2}}", ".redis", "expected url: redis://host:6379/0"),
    ("general_settings: {max_head: 1, max_head: 2}", ".max_head", "it is here twice, in line 2 and in line 2"),
    ("general_settings: {[a]: 2}", "", "line 2: a key is a text"),
    ("general_settings: {silence: !!python/name:os.system ''}", ".silence", "expected plain YAML"),
    ("general_settings: {retention_days: ever}", ".retention_days", "expected a number of days, or a text such as 30d"),
    (
        "general_settings: {on_disconnect: abbort}",
        ".on_disconnect",
        "expected one of abort, drain: did you mean abort?",
    ),
    (
        "general_settings: {global_max_parallel_requests: 1, max_requests: 2}",
        ".max_requests",
        "global_max_parallel_requests and max_requests are the same: leave one out",
    ),
    ("router_settings: {fallbacks: [m]}", ".fallbacks[0]", 'got \'m\', expected a mapping like {"name": ["other"]}'),
    ("router_settings: {fallbacks: [{m: [m, 5]}]}", ".fallbacks[0].m", "got a list, expected a list of names"),
    ("router_settings: {context_window_fallbacks: {m: 5}}", ".context_window_fallbacks.m", "got 5, expected a list"),
    ("router_settings: {model_group_alias: {a: m, b: 4}}", ".model_group_alias.b", "got 4, expected a name"),
    ("router_settings: {model_group_alias: {b: {modl: m}}}", ".model_group_alias.b", "got a mapping, expected a name"),
    ("router_settings: {timeout: 0}", ".timeout", f"got 0, expected {CLOCKS}"),
    (
        "router_settings: {timeout: {frist_token: 1}}",
        ".timeout.frist_token",
        "got 'frist_token', expected one of connect, first_token, idle, total: did you mean first_token?",
    ),
    ("router_settings: {timeout: {idle: 0}}", ".timeout.idle", "got 0, expected seconds above 0"),
    ("router_settings: {timeout: {idle: soon}}", ".timeout.idle", "got 'soon', expected seconds above 0"),
    ("router_settings: {timeout: 1e10}", ".timeout", "got 10000000000.0, expected up to 4294967295 seconds"),
    ("router_settings: {num_retries: 5000000000}", ".num_retries", "expected a whole number up to 4294967295"),
    ("general_settings: {max_body: 99999999999999999999}", ".max_body", "expected a whole number up to 4294967295"),
    ("general_settings: {flush_seconds: 1e300}", ".flush_seconds", "expected up to 4294967295 seconds"),
    ("general_settings: {cors: ''}", ".cors", "got an empty text, expected a list of texts"),
    ("general_settings: {database_url: ''}", ".database_url", "got an empty text, expected a text"),
    ("router_settings: 5", "", "got 5, expected a mapping"),
    ("environment_variables: {A=B: x}", ".A=B", "got 'A=B', expected the name of a variable"),
    ('environment_variables: {"": x}', ".", "got '', expected the name of a variable"),
    ('environment_variables: {A: "a\\0b"}', ".A", "got a text with a zero byte in it"),
    ("general_settings: {public_health: !!bool maybe}", ".public_health", "got 'maybe', expected true or false"),
    ("router_settings: {default_litellm_params: {rpm: x}}", ".default_litellm_params.rpm", "expected a whole number"),
]


@pytest.mark.parametrize(("line", "path", "message"), WRONG, ids=[line for line, *_ in WRONG])
def test_wrong_values(line: str, path: str, message: str) -> None:
    section = line.partition(":")[0]
    assert any(problem.startswith(f"2: error: {section}{path}: ") and message in problem for problem in said(line))


def test_what_is_no_config_at_all(tmp_path: Path) -> None:
    assert said("model_list: [\n  {a: b") == [
        "2: error: this is not YAML: while parsing a flow mapping, expected ',' or '}', but got '<stream end>'"
    ]
    assert said("- model_list") == ["1: error: expected a mapping with model_list, got a list"]
    (problem,) = parsed("").problems
    assert str(problem) == "config.yaml: error: expected a mapping with model_list, got nothing"
    (problem,) = parsed("general_settings: {}").problems
    assert "expected model_list with at least one deployment" in problem.message
    (problem,) = read(tmp_path / "none.yaml", {}).problems
    assert problem.message == "it cannot be read: No such file or directory"
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe4")
    (problem,) = read(tmp_path / "latin.yaml", {}).problems
    assert "not UTF-8" in problem.message
    # Nothing that could not be read has tables.
    for text in ("", "- model_list", "model_list: [", "model_list: 7", "model_list: &a [*a]", "[" * 5000 + "]" * 5000):
        assert tables_of(parsed(text)) is None


def test_parameters_of_the_model_have_the_kind_that_they_must_have() -> None:
    params = "temperature: hot, max_tokens: 4k, logprobs: 1, seed: 12345678901234567890, stop: 5, presence_penalty: -1"
    config = parsed(f"model_list: [{{model_name: m, litellm_params: {{model: replay/hello, {params}}}}}]")
    assert [(problem.path.rpartition(".")[2], problem.message) for problem in config.problems] == [
        ("temperature", "got 'hot', expected a number"),
        ("max_tokens", "got a text, expected a number"),
        ("logprobs", "got 1, expected true or false"),
    ]
    params = "max_tokens: os.environ/A, top_p: os.environ/B"
    text = f"model_list: [{{model_name: m, litellm_params: {{model: replay/hello, {params}}}}}]"
    config = parsed(text, A="4096", B="0.5")
    read = config.values["model_list"][0]["litellm_params"]
    assert (repr(read["max_tokens"]), read["top_p"]) == ("4096", 0.5)


@pytest.mark.parametrize(
    ("value", "said"), [("99999999999999999999", "Integer exceeds 64-bit range"), ("!!binary aGk=", "bytes")]
)
def test_what_is_no_json_cannot_be_sent(value: str, said: str) -> None:
    params = f"model: replay/hello, extra_body: {{x: {value}}}"
    config = parsed(f"model_list: [{{model_name: m, litellm_params: {{{params}}}}}]")
    assert tables_of(config) is None
    (problem,) = config.problems
    assert problem.path == "model_list[0].litellm_params"
    assert problem.message.startswith("it cannot be sent as JSON: ")
    assert said in problem.message


def test_what_holds_itself() -> None:
    assert said("a: &a [*a]\nmodel_list: *a") == ["1: error: it holds itself, or is nested too deeply"]


def test_no_section_has_to_be_one() -> None:
    text = "router_settings: 5\ngeneral_settings: 6\nlitellm_settings: {json_logs: true}"
    assert said(text) == [
        "2: error: router_settings: got 5, expected a mapping",
        "3: error: general_settings: got 6, expected a mapping",
    ]


def test_what_is_no_entry_is_told_once() -> None:
    config = parsed("model_list: [{model_name: m, litellm_params: {model: replay/hello}}, just]")
    assert tables_of(config) is None
    assert [str(problem) for problem in config.problems] == [
        "config.yaml:1: error: model_list[1]: got 'just', expected a mapping"
    ]


def test_a_variable_that_is_empty() -> None:
    (line,) = said("general_settings: {database_url: os.environ/DATABASE}", DATABASE="")
    assert line == "2: error: general_settings.database_url: the variable DATABASE is empty, expected a text"


def test_no_size_is_too_large() -> None:
    assert general("general_settings: {max_request_size_mb: 1e300}")["max_body"] == 2**32 - 1


def test_no_problem_shows_a_secret() -> None:
    text = f"""\
model_list:
  - model_name: m
    litellm_params: {{model: openai/m, api_key: [{SECRET}], azure_ad_token: {{a: {SECRET}}}, extra_headers: {SECRET}}}
general_settings: {{database_url: [{SECRET}], master_key: [{SECRET}], redis: [{SECRET}]}}
environment_variables: {{A_KEY: [{SECRET}]}}
"""
    problems = said(text)
    assert len(problems) == 7
    assert SECRET not in "".join(problems)


def test_keys_of_litellms_without_a_meaning_here_say_why() -> None:
    (line,) = said("litellm_settings: {success_callback: [langfuse]}")
    assert line.startswith("2: warning: litellm_settings.success_callback: it has no effect: /metrics is always there")
    (line,) = said("general_settings: {store_model_in_db: true}")
    assert "SIGHUP" in line


# The master key -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["sk-1234", "sk-1234567890abcdef", "aaaaaaaaaaaaaaaaaaaaaaaa", "sk-schlüssel-1234567", "a b c d e f g h i"]
)
def test_weak_master_keys_are_refused(key: str) -> None:
    assert weakness(key) is not None
    (problem,) = said("", PENSTOCK_MASTER_KEY=key)
    assert problem.endswith("`penstock keys secret` makes a good one")
    assert key not in problem


def test_a_good_master_key() -> None:
    assert weakness(SECRET) is None


# The table ------------------------------------------------------------------------------------------------------------


def test_the_page_is_what_the_schema_says() -> None:
    page = (ROOT / "docs" / "proxy-config.md").read_text(encoding="utf-8")
    assert page == reference(), "python -m penstock.gateway.config > docs/proxy-config.md"


def test_every_key_is_explained() -> None:
    for section in sections():
        names = [name for key in section.keys for name in (key.name, *key.like)]
        assert len(names) == len(set(names)), section.name
        assert not section.elsewhere.keys() & set(names), section.name
        for key in section.keys:
            assert key.says.endswith((".", ":")), key.name
            assert isinstance(key.kind, Section) or key.default is None or fits(key), key.name


def fits(key: Key) -> bool:
    assert not isinstance(key.kind, Section)
    return key.default in ((), {}) or key.kind.read(key.default) == key.default


def test_the_schema_knows_its_sections() -> None:
    assert [section.name for section in sections()] == [
        "",
        "model_list",
        "litellm_params",
        "model_info",
        "router_settings",
        "litellm_settings",
        "general_settings",
        "redis",
    ]
    assert sections()[0] is SCHEMA
