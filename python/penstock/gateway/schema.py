"""What a config file may say: one table, from which files are judged and docs/proxy-config.md is written.

Nothing but data: a key has a kind, a default, a line for the reference, and the names by which litellm has it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

from ..call import CHAT
from ..providers.registry import ROWS
from ..router import FALLBACKS, STRATEGIES
from ..transport.port import PRIOR_KNOWLEDGE


class Unfit(ValueError):
    """A value that a key cannot have.

    at: the way to the part of it that is wrong. part: what is there. says: what is expected there. Without them it is
    the value as a whole, and what its kind says.
    """

    def __init__(self, says: str = "", *at: str | int, part: Any = None) -> None:
        super().__init__(says)
        self.says = says
        self.at = at
        self.part = part


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value may be. `says` is for people, with its article. `read` gives the value, or raises Unfit."""

    says: str
    read: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the file.

    default: where the file says nothing. says: one line for the reference.
    like: other names of the same thing, which litellm has.
    """

    name: str
    kind: "Kind | Section"
    default: Any
    says: str
    like: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping whose keys are known, or a list of such.

    elsewhere: keys of litellm's that have no meaning here, with the reason or what to use instead.
    open: whether keys beside these are the user's own. lists: whether it is a list. also: another way to write it.
    """

    name: str
    keys: tuple[Key, ...]
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    open: bool = False
    lists: bool = False
    also: Kind | None = None

    @property
    def says(self) -> str:
        """For people, with its article."""
        what = "a list of mappings" if self.lists else "a mapping"
        return f"{what}, or {self.also.says}" if self.also is not None else what


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise Unfit
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unfit
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
        raise Unfit
    return value


LARGEST = (1 << 32) - 1
"""What the native module counts to. A limit that is larger would be none."""


def _seconds(value: Any) -> float:
    seconds = _number(value)
    if seconds > LARGEST:
        raise Unfit(f"up to {LARGEST} seconds")
    return seconds


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unfit
    if abs(value) > LARGEST:
        raise Unfit(f"a whole number up to {LARGEST}")
    return value


def _real(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise Unfit
    return value


def _whole(value: Any) -> int:
    if _integer(value) < 0:
        raise Unfit
    return int(value)


def _texts(value: Any) -> list[str]:
    return [_text(each) for each in (value if isinstance(value, list) else [value])]


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unfit
    return value


def _named(value: Any) -> dict[str, str]:
    made = {}
    for alias, given in _mapping(value).items():
        name = given.get("model") if isinstance(given, dict) else given
        if not isinstance(name, str) or not name:
            raise Unfit("a name", alias, part=given)
        made[alias] = name
    return made


def _fallbacks(value: Any) -> list[dict[str, list[str]]]:
    """As litellm has them, a list of {name: [other]}; a mapping alone is one of them."""
    made = []
    for index, entry in enumerate(value if isinstance(value, list) else [value]):
        at = (index,) if isinstance(value, list) else ()
        if not isinstance(entry, dict):
            raise Unfit('a mapping like {"name": ["other"]}', *at, part=entry)
        for name, others in entry.items():
            names = others if isinstance(others, list) else [others]
            if not all(isinstance(other, str) and other for other in names):
                raise Unfit("a list of names", *at, name, part=others)
        made.append({name: _texts(others) for name, others in entry.items()})
    return made


CLOCKS = ("connect", "first_token", "idle", "total")


def _timeout(value: Any) -> Any:
    if isinstance(value, dict):
        if not value:
            raise Unfit
        for name, seconds in value.items():
            if name not in CLOCKS:
                raise Unfit(f"one of {', '.join(CLOCKS)}", name, part=name)
            if seconds is not None:
                _clock(seconds, name)
        return value
    return _clock(value)


def _clock(value: Any, *at: str) -> Any:
    says = "seconds above 0" if at else ""
    try:
        seconds = _seconds(value)
    except Unfit as error:
        raise Unfit(error.says or says, *at, part=value) from None
    if seconds == 0:
        raise Unfit(says, *at, part=value)
    return value


def _verify(value: Any) -> bool | str:
    return value if isinstance(value, bool) else _text(value)


def _cert(value: Any) -> str | list[str]:
    if isinstance(value, list) and len(value) != 2:
        raise Unfit
    return _texts(value) if isinstance(value, list) else _text(value)


def _http2(value: Any) -> bool | str:
    if not isinstance(value, bool) and value != PRIOR_KNOWLEDGE:
        raise Unfit
    return bool(value) and value


def _keyword(value: Any) -> Any:
    return value if isinstance(value, dict) else _text(value)


UNITS = {"s": 1 / 86400, "m": 1 / 1440, "h": 1 / 24, "d": 1.0, "w": 7.0, "mo": 30.0}


def _days(value: Any) -> float:
    if not isinstance(value, str):
        return _number(value)
    number, unit = value.rstrip("smhdwo"), value.lstrip("0123456789.")
    if unit not in UNITS or not number.replace(".", "", 1).isdecimal():
        raise Unfit
    return float(number) * UNITS[unit]


def _anything(value: Any) -> Any:
    return value


def choice(*names: str) -> Kind:
    """One of these words."""

    def read(value: Any) -> str:
        if value not in names:
            raise Unfit
        return str(value)

    return Kind(f"one of {', '.join(names)}", read)


TEXT = Kind("a text", _text)
FLAG = Kind("true or false", _flag)
NUMBER = Kind("a number from 0 on", _number)
SECONDS = Kind("seconds", _seconds)
WHOLE = Kind("a whole number from 0 on", _whole)
BYTES = Kind("a whole number of bytes", _whole)
INTEGER = Kind("a whole number", _integer)
REAL = Kind("a number", _real)
TEXTS = Kind("a list of texts", _texts)
MAPPING = Kind("a mapping", _mapping)
NAMES = Kind("a mapping of names to names", _named)
OTHERS = Kind('a list like [{"name": ["other"]}]', _fallbacks)
TIMEOUT = Kind(f"seconds above 0, or a mapping with some of {', '.join(CLOCKS)}", _timeout)
VERIFY = Kind("true, false or a path", _verify)
HTTP2 = Kind(f"true, false or {PRIOR_KNOWLEDGE}", _http2)
CERT = Kind("a path, or a list of two: certificate and key", _cert)
KEYWORD = Kind("a text, or the JSON document that it would be the path of", _keyword)
DAYS = Kind("a number of days, or a text such as 30d or 12h", _days)
ANYTHING = Kind("anything", _anything)

NO_CACHE = "there is no cache of responses"
NO_VERBOSE = "errors say what was tried; the log has a line for each request"
NO_CALLBACKS = (
    "/metrics is always there (prometheus), general_settings.otel sends spans, and hooks are Python of your own"
)
NO_TEAMS = "there are keys, without users and teams: `penstock keys`"
NO_POLICY = "errors say themselves whether to retry, and whose fault they are"
NO_SECRETS = "os.environ/NAME takes secrets from the environment, where every secret manager can put them"
NO_ALERTS = "alert on /metrics"
NO_CHECKS = "deployments are judged by their answers; /health says how they do"
NO_CONTENT = "messages and answers are never stored"
NO_ROUTES = "there are only the routes of docs/proxy.md"


def _each(reason: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), reason)


ROUTING = (
    Key("rpm", WHOLE, None, "Requests in any 60 seconds."),
    Key("tpm", WHOLE, None, "Tokens in any 60 seconds."),
    Key("max_parallel_requests", WHOLE, None, "Requests at once; a stream counts until it ends."),
    Key(
        "weight", NUMBER, None, "Its share of the requests; without it rpm, without that tpm, if all of a name have it."
    ),
    Key("order", INTEGER, 0, "The lowest are asked first, others while those cannot be."),
    Key("tags", TEXTS, (), 'Chosen by `metadata: {"tags": [...]}` in a request.'),
    Key("cooldown_time", SECONDS, None, "How long it is left alone after failures, instead of router_settings'."),
)

COSTS = (
    Key("input_cost_per_token", NUMBER, None, "US dollars for a token of the prompt; else what genai-prices knows."),
    Key("output_cost_per_token", NUMBER, None, "US dollars for a token of the answer."),
    Key("cache_read_input_token_cost", NUMBER, None, "US dollars for a token read from the provider's cache."),
    Key("cache_creation_input_token_cost", NUMBER, None, "US dollars for a token written to it."),
)

CONNECTION = (
    Key("model", TEXT, None, "`provider/model`, or a bare name such as gpt-4o; with a `*` at its end see below."),
    Key("api_key", TEXT, None, "The provider's key; without it the provider's own variable."),
    Key("api_base", TEXT, None, "Another base URL, for any compatible server.", like=("base_url",)),
    Key("api_version", TEXT, None, "Where the provider has versions by date."),
    Key("organization", TEXT, None, "Where the provider has organisations."),
    Key("custom_llm_provider", TEXT, None, "The provider, where `model` does not say it."),
    Key("timeout", TIMEOUT, None, "Seconds to the first token and for each silence; or each clock by its name."),
    Key("stream_timeout", SECONDS, None, "The same for streams alone, where `timeout` is for whole answers."),
    Key("extra_headers", MAPPING, None, "Headers that are added to each request.", like=("headers",)),
    Key("extra_query", MAPPING, None, "Parameters that are added to the URL."),
    Key("extra_body", MAPPING, None, "Fields that are set in each request's body, whatever the client says."),
    Key("proxy", TEXT, None, "The HTTP or SOCKS proxy on the way to the provider."),
    Key("verify", VERIFY, None, "Whom to trust: the path of an authority's certificate.", like=("ssl_verify",)),
    Key("cert", CERT, None, "The client's certificate."),
    Key(
        "http2",
        HTTP2,
        None,
        "Whether HTTP/2 is spoken, where the server chooses it within TLS; prior-knowledge: without TLS too. Streams "
        "then share connections; one for each costs less.",
    ),
    Key("drop_params", FLAG, None, "Leave out parameters that the provider lacks, instead of an error."),
    Key("additional_drop_params", TEXTS, None, "Parameters to leave out in any case."),
    Key(
        "allowed_openai_params",
        TEXTS,
        None,
        "Fields of a client's request to send though they are unknown here, or not in the provider's documentation.",
    ),
)

SIMPLE = {
    **dict.fromkeys(("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty"), REAL),
    **dict.fromkeys(("repetition_penalty", "max_tokens", "max_completion_tokens", "n", "seed"), REAL),
    **dict.fromkeys(("top_k", "top_logprobs"), REAL),
    **dict.fromkeys(("logprobs", "parallel_tool_calls", "store"), FLAG),
}
"""Parameters of which more is known than that they are the provider's to judge."""

PARAMETERS = tuple(
    Key(name, SIMPLE.get(name, ANYTHING), None, "Sent where the client says nothing.")
    for name in sorted(CHAT.parameters - {"metadata", "stream_options"})
)

KEYWORDS = tuple(
    Key(keyword, KEYWORD, None, f"Of {', '.join(owners)}.")
    for keyword, owners in sorted(
        {
            keyword: [row.slug for row in ROWS if keyword in row.keywords()]
            for row in ROWS
            for keyword in row.keywords()
            if not any(token.called and token.keyword == keyword for token in row.tokens)
        }.items()
    )
    if keyword not in {key.name for key in CONNECTION}
)
"""What rows declare themselves; the functions among them cannot stand in a file."""

PARAMS = Section(
    "litellm_params",
    (*CONNECTION, *ROUTING, *COSTS, *KEYWORDS, *PARAMETERS),
    elsewhere={
        "mock_response": "model: replay/hello answers without a provider",
        **_each("they cannot be named in a file", "client hooks transport"),
        "max_retries": "router_settings.num_retries",
        "num_retries": "router_settings.num_retries",
        **dict.fromkeys(FALLBACKS, "router_settings has them, by model_name"),
        **_each("the gateway answers what the provider said", "on_stream_cut estimate_usage keep_partial"),
        **_each(NO_TEAMS, "max_budget budget_duration"),
        "metadata": "it is a request's",
        "stream_options": "the usage is asked for wherever it can be",
        "litellm_credential_name": NO_SECRETS,
        **_each(NO_CACHE, "cache cache_control_injection_points"),
        "configurable_clientside_auth_params": "keys and addresses are never the client's",
        **_each("the provider's wire is chosen by its name", "use_in_pass_through use_litellm_proxy"),
        "merge_reasoning_content_in_choices": "reasoning stays apart, as reasoning_content",
        "mock_timeout": "replay/hello?delay=MILLISECONDS is slow",
    },
)

INFO = Section(
    "model_info",
    (
        Key("id", TEXT, None, "What the deployment is called in logs, metrics and spend; else its name and a number."),
        *COSTS,
        Key("max_input_tokens", WHOLE, None, "For enable_pre_call_checks: longer prompts go to other deployments."),
    ),
    open=True,
)

MODELS = Section(
    "model_list",
    (
        Key(
            "model_name", TEXT, None, "What clients ask for; several entries may have one name. `openai/*`: see below."
        ),
        Key("litellm_params", PARAMS, None, "What is called, and how."),
        Key("model_info", INFO, {}, "What is known of it; other keys are yours."),
        Key("rpm", WHOLE, None, "As in litellm_params, where older files have it."),
        Key("tpm", WHOLE, None, "Likewise."),
    ),
    lists=True,
)

SHARED = (
    Key("num_retries", WHOLE, 2, "Further attempts after a failed one, with another deployment if there is one."),
    Key("fallbacks", OTHERS, (), "Names to ask in turn when one fails; `*` is every name without its own."),
    Key("context_window_fallbacks", OTHERS, (), "The same, after prompts that are too long."),
    Key("content_policy_fallbacks", OTHERS, (), "The same, after refusals by a content filter, and only after those."),
    Key("default_fallbacks", TEXTS, (), "For names without fallbacks of their own."),
    Key("allowed_fails", WHOLE, 3, "Failures in a row that are put up with."),
    Key("cooldown_time", SECONDS, 5.0, "How long a deployment is left alone after one more."),
)
"""Of router_settings and litellm_settings, where the former go first."""

ROUTER = Section(
    "router_settings",
    (
        Key("routing_strategy", choice(*STRATEGIES), "simple-shuffle", "Which deployment of a name is asked."),
        *SHARED,
        Key("timeout", TIMEOUT, None, "For deployments without their own: seconds, or each clock by its name."),
        Key("stream_timeout", SECONDS, None, "The same for streams alone."),
        Key("disable_cooldowns", FLAG, False, "Never leave a deployment alone."),
        Key("retry_after", SECONDS, 0.0, "Seconds before each retry at least."),
        Key(
            "retry_budget",
            NUMBER,
            0.2,
            "In any minute retries may be this part of all requests, and 100 more; num_retries is as good as no limit.",
        ),
        Key("default_max_parallel_requests", WHOLE, None, "For deployments without max_parallel_requests."),
        Key("default_litellm_params", PARAMS, {}, "litellm_params of all deployments that do not say otherwise."),
        Key("model_group_alias", NAMES, {}, "Other names: {alias: model_name}."),
        Key("enable_pre_call_checks", FLAG, False, "Leave out deployments whose max_input_tokens a prompt exceeds."),
        Key("enable_tag_filtering", FLAG, None, "Whether tags choose deployments; by default where any has tags."),
        Key("tag_filtering_match_any", FLAG, True, "Whether one of a request's tags is enough; else all are needed."),
        Key("redis_url", TEXT, None, "As general_settings.redis."),
        Key("redis_host", TEXT, None, "Likewise, in parts."),
        Key("redis_port", WHOLE, None, "Likewise."),
        Key("redis_password", TEXT, None, "Likewise."),
        Key("redis_db", WHOLE, None, "Likewise."),
    ),
    elsewhere={
        **_each(NO_CACHE, "cache_responses caching_groups client_ttl cache_kwargs"),
        **_each(NO_VERBOSE, "set_verbose debug_level"),
        **_each(NO_POLICY, "retry_policy model_group_retry_policy allowed_fails_policy"),
        "routing_strategy_args": "strategies have no arguments",
        "max_fallbacks": "no model is asked twice",
        **_each("there is no queue by priority; `order` is for deployments", "polling_interval default_priority"),
        "provider_budget_config": "budgets are those of keys: `penstock keys`",
        "alerting_config": NO_ALERTS,
        **_each("there is none of it here", "router_general_settings assistants_config optional_pre_call_checks"),
        "enable_pre_call_check": "it is spelled enable_pre_call_checks",
        "ignore_invalid_deployments": "a config is used whole or not at all",
        "deployment_affinity_ttl_seconds": "deployments are chosen anew for each request",
    },
)

LITELLM = Section(
    "litellm_settings",
    (
        Key("drop_params", FLAG, False, "Leave out parameters that a provider lacks, instead of an error."),
        Key("additional_drop_params", TEXTS, None, "Parameters to leave out in any case."),
        Key("request_timeout", TIMEOUT, None, "As router_settings.timeout."),
        *(replace(key, default=None) for key in SHARED),
        Key("ssl_verify", VERIFY, None, "As verify of all deployments."),
        Key("json_logs", FLAG, None, "As general_settings.log_format."),
        Key(
            "hooks",
            TEXTS,
            (),
            "Hooks of penstock's, by import path (`package.module.name`); every request waits for them.",
        ),
    ),
    elsewhere={
        **_each(NO_CALLBACKS, "callbacks success_callback failure_callback service_callbacks"),
        **_each(NO_CONTENT, "turn_off_message_logging redact_messages_in_exceptions langfuse_default_tags"),
        "redact_user_api_key_info": "logs have the name of a key, never the key",
        **_each(NO_CACHE, "cache cache_params"),
        **_each(NO_VERBOSE, "set_verbose suppress_debug_info"),
        "modify_params": "drop_params and additional_drop_params say what is left out",
        "force_ipv4": "the first address that answers is taken (RFC 8305)",
        **_each(NO_TEAMS, "max_budget budget_duration max_internal_user_budget default_team_settings"),
        **_each(
            "`penstock keys` says what a key may do",
            "key_generation_settings upperbound_key_generate_params default_key_generate_params "
            "default_internal_user_params default_team_params enable_key_alias_format_validation",
        ),
        **_each(
            "/metrics has no users", "disable_end_user_cost_tracking disable_end_user_cost_tracking_prometheus_only"
        ),
        **_each("there is none of it here", "mcp_aliases guardrails enable_preview_features telemetry"),
        "enable_json_schema_validation": "response_format is the provider's to keep",
        "public_model_groups": "/v1/models shows a key what it may use",
        "require_auth_for_metrics_endpoint": "general_settings.public_health",
        "return_response_headers": "cost, deployment and the upstream's request id are in the headers of each answer",
        "disable_hf_tokenizer_download": "nothing is downloaded",
        "use_chat_completions_url_for_anthropic_messages": "/v1/messages takes the wire of the deployment that answers",
    },
)

REDIS = Section(
    "redis",
    (
        Key("url", TEXT, None, "redis://[user:password@]host:port/db, rediss:// for TLS."),
        Key("prefix", TEXT, "penstock", "How its keys there begin."),
        Key("nodes", WHOLE, 1, "How many gateways share it: with Redis down each has this part of every limit."),
        Key(
            "when_down",
            choice("share", "open", "closed"),
            "share",
            "Limits while it is down: each gateway's part, the whole on each, or all refused.",
        ),
        Key("budgets_when_down", choice("closed", "open"), "closed", "Budgets while it is down."),
        Key("lease", SECONDS, 30.0, "After which the requests of a node that has died no longer count as under way."),
    ),
    also=TEXT,
)

GENERAL = Section(
    "general_settings",
    (
        Key(
            "master_key",
            TEXT,
            None,
            "The key that may do everything: `penstock keys secret` makes one. Without it only this machine is served. "
            "Else by the variable PENSTOCK_MASTER_KEY.",
        ),
        Key(
            "database_url",
            TEXT,
            None,
            "Where keys and spend are kept: sqlite:///FILE, or postgresql://... Else by the variable "
            "PENSTOCK_DATABASE, else penstock.db in the working directory.",
        ),
        Key(
            "spill_folder",
            TEXT,
            None,
            "Where rows of spend wait while the database is away: a folder of this node's own, which outlives the "
            "process. By default that of the SQLite file; with PostgreSQL the working directory.",
        ),
        Key(
            "max_requests",
            WHOLE,
            10000,
            "At once; beyond it 429 and retry-after: 1.",
            like=("global_max_parallel_requests",),
        ),
        Key("max_parallel_requests", WHOLE, None, "As router_settings.default_max_parallel_requests."),
        Key("max_body", BYTES, 32 << 20, "Of a request, in bytes."),
        Key("max_request_size_mb", NUMBER, None, "The same in MiB."),
        Key("max_head", BYTES, 64 << 10, "Of a request's line and headers, in bytes."),
        Key("head_seconds", SECONDS, 10.0, "Within which a request's headers must be there."),
        Key("body_seconds", SECONDS, 30.0, "Within which its body must be."),
        Key(
            "send_seconds",
            SECONDS,
            300.0,
            "Without the client's taking any of an answer that waits for it, after which its connection is closed.",
        ),
        Key(
            "silence",
            SECONDS,
            15.0,
            "Without an event from upstream, after which the answer begins all the same, with `: keep-alive`; until "
            "then its status is open, and so are fallbacks. 0: never.",
        ),
        Key(
            "on_disconnect",
            choice("abort", "drain"),
            "abort",
            "When a client has gone: end the upstream's answer, or read on to its usage.",
        ),
        Key(
            "drain_seconds",
            SECONDS,
            60.0,
            "How long a drained answer may go on; and, at the end of the process, all that still run.",
        ),
        Key("cors", TEXTS, (), "Origins whose pages may call the gateway; `*`: all."),
        Key("public_health", FLAG, True, "Whether /health and /metrics need no key."),
        Key("proxy_headers", FLAG, True, "Whether answers have x-penstock-... headers: deployment, attempts, cost."),
        Key("redis", REDIS, None, "Limits and budgets of keys, shared by several gateways."),
        Key(
            "flush_seconds",
            SECONDS,
            1.0,
            "At most so long a row of spend waits to be written.",
            like=("proxy_batch_write_at",),
        ),
        Key(
            "retention_days",
            DAYS,
            None,
            "After which rows of single requests are deleted; the sums of days stay. By default never.",
            like=("maximum_spend_logs_retention_period",),
        ),
        Key(
            "log_format",
            choice("console", "json"),
            "console",
            "How the log is written: a line for each request, on standard output.",
        ),
        Key(
            "otel",
            FLAG,
            False,
            "Whether requests are spans of OpenTelemetry; its own variables (OTEL_...) say where they go.",
        ),
    ),
    elsewhere={
        **_each(
            "requests name their model",
            "completion_model embedding_model moderation_model image_generation_model infer_model_from_keys",
        ),
        **_each(NO_CONTENT, "store_prompts_in_spend_logs disable_spend_logs disable_spend_updates"),
        **_each(
            "the master key is nowhere shown or stored",
            "disable_master_key_return disable_adding_master_key_hash_to_db",
        ),
        **_each(NO_SECRETS, "key_management_system key_management_settings use_google_kms use_azure_key_vault"),
        **_each(
            NO_TEAMS,
            "default_team_disabled enforce_user_param enforced_params service_account_settings "
            "allow_user_auth ui_access_mode",
        ),
        **_each(
            "keys are the gateway's own",
            "custom_auth custom_sso custom_key_generate enable_jwt_auth litellm_jwtauth "
            "enable_oauth2_auth enable_oauth2_proxy_auth oauth2_config_mappings "
            "litellm_key_header_name",
        ),
        **_each(
            "keys are known to the process; new ones come with the next look at the database",
            "user_api_key_cache_ttl allow_requests_on_db_unavailable",
        ),
        **_each(
            "budgets begin anew when their key's --period ends: `penstock keys`",
            "disable_reset_budget proxy_budget_rescheduler_min_time proxy_budget_rescheduler_max_time",
        ),
        **_each(
            "rows of spend are written in batches: flush_seconds",
            "proxy_batch_polling_interval use_redis_transaction_buffer",
        ),
        **_each(
            "database_url takes the options of the driver", "database_connection_pool_limit database_connection_timeout"
        ),
        **_each(
            "the config is this file: SIGHUP or POST /config/reload",
            "store_model_in_db supported_db_objects disable_prisma_schema_update",
        ),
        **_each(
            NO_ALERTS,
            "alerting alerting_threshold alerting_args alert_types alert_to_webhook_url spend_report_frequency",
        ),
        **_each(NO_CHECKS, "background_health_checks health_check_interval health_check_details"),
        **_each(
            NO_ROUTES,
            "pass_through_endpoints use_client_credentials_pass_through_routes allowed_routes "
            "admin_only_routes public_routes",
        ),
        **_each("keys and addresses are never the client's", "allow_client_side_credentials"),
        **_each(
            "nothing of a client's headers goes upstream", "forward_client_headers_to_llm_api forward_openai_org_id"
        ),
        "reject_clientside_metadata_tags": "tags choose among deployments, and nothing else",
        "allowed_ips": "a firewall knows addresses better",
        "use_x_forwarded_for": "addresses are in no decision",
        "max_response_size_mb": "answers are passed on as they come, not held",
        "maximum_spend_logs_retention_interval": "old rows are looked for every hour",
        "disable_retry_on_max_parallel_request_limit_error": NO_POLICY,
        **_each("there is none of it here", "litellm_license user_mcp_management_mode disable_responses_id_security"),
    },
)

SCHEMA = Section(
    "",
    (
        Key("model_list", MODELS, None, "The deployments."),
        Key("router_settings", ROUTER, {}, "Which of them is asked, and what happens when it fails."),
        Key("litellm_settings", LITELLM, {}, "What holds for all calls."),
        Key("general_settings", GENERAL, {}, "The server itself."),
        Key(
            "environment_variables",
            MAPPING,
            {},
            "Variables of this process, set before `os.environ/NAME` is looked up.",
        ),
    ),
    elsewhere={
        "include": "one file holds all of it",
        **_each(NO_SECRETS, "credential_list"),
        **_each(NO_CALLBACKS, "callback_settings"),
        **_each(
            "there is none of it here",
            "assistant_settings files_settings finetune_settings vector_store_registry guardrails "
            "mcp_servers mcp_tools prompts search_tools",
        ),
    },
)


def sections() -> list[Section]:
    """All sections, outermost first."""
    found: list[Section] = []

    def visit(section: Section) -> None:
        if section not in found:
            found.append(section)
            for key in section.keys:
                if isinstance(key.kind, Section):
                    visit(key.kind)

    visit(SCHEMA)
    return found
