"""The providers, one row each. Nothing but data: a row that needs an `if` becomes a wire family instead."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A keyword of one provider's own, such as an account or a project.

    keyword: as the caller spells it; `{keyword}` in the row's `base_url` and `chat_path` stands for its value.
    env: variables to read it from when the caller does not give it, first set one wins.
    header: the request header that carries it, if one does.
    default: its value when nobody gives one.
    """

    keyword: str
    env: tuple[str, ...] = ()
    header: str | None = None
    default: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One provider: where it is, how it is spoken to, and how it differs within its family.

    slug, aliases: what stands before the slash in `model`.
    models: how the bare names begin that mean this provider without a slash.
    family: the wire family; `dialect` is how its streams differ within it, as the Decoder takes it.
    base_url: up to the version, with `{setting}`s; None where the caller must give `api_base`; a function where it is
        known only at the call, with the settings.
    chat_path, stream_path: what follows the base URL, with `{setting}`s and `{model}`; stream_path where streams are
        asked for elsewhere. `path_safe`: the characters of a model id that are not escaped there.
    base_env, key_env: variables for base URL and key, first set one wins.
    key_required: whether a call without a key is refused before it is sent.
    auth: the header for the key, and how the key stands in it.
    headers: sent with every request.
    stream_options: whether it accepts this parameter, so that it can be asked for the usage of a stream.
    renames: parameters that it spells differently. `spellings`: values of parameters that it spells differently.
    unsupported: parameters that its documentation leaves out.
    elsewhere: how to speak to a server at another base URL that is called by this provider's name.
    """

    slug: str
    aliases: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    family: str = "chat"
    dialect: Mapping[str, str] = field(default_factory=dict)
    base_url: str | Callable[[Mapping[str, str]], str] | None = None
    base_env: tuple[str, ...] = ()
    chat_path: str = "/chat/completions"
    stream_path: str | None = None
    path_safe: str = "/:@"
    key_env: tuple[str, ...] = ()
    key_required: bool = True
    auth: tuple[str, str] = ("authorization", "Bearer {key}")
    settings: tuple[Setting, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    stream_options: bool = False
    renames: Mapping[str, str] = field(default_factory=dict)
    spellings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unsupported: frozenset[str] = frozenset()
    elsewhere: "Provider | None" = None


def _replay(_: Mapping[str, str]) -> str:
    """The base URL of the local replay server, which starts with the first call that needs it."""
    from penstock import replay

    base_url: str = replay.upstream().base_url
    return base_url


def _vertex(values: Mapping[str, str]) -> str:
    """The base URL of a location, which for some is a host of another form."""
    location = values["vertex_location"]
    hosts = {"global": "aiplatform.googleapis.com"}
    hosts |= {name: f"aiplatform.{name}.rep.googleapis.com" for name in ("us", "eu")}
    return f"https://{hosts.get(location, f'{location}-aiplatform.googleapis.com')}/v1"


MAX_TOKENS: Mapping[str, str] = {"max_completion_tokens": "max_tokens"}
"""`renames` of the many servers that know the older name only."""

OPENAI_SETTINGS = (
    Setting(keyword="organization", env=("OPENAI_ORG_ID", "OPENAI_ORGANIZATION"), header="openai-organization"),
    Setting(keyword="project", env=("OPENAI_PROJECT_ID",), header="openai-project"),
)

OTHERS_LACK = frozenset(
    {
        "prediction",
        "audio",
        "logit_bias",
        "user",
        "verbosity",
        "parallel_tool_calls",
        "functions",
        "function_call",
        "web_search_options",
        "store",
        "metadata",
        "safety_identifier",
        "prompt_cache_key",
    }
)
"""Parameters that the families gemini, cohere and ollama have nothing for."""

ROWS: tuple[Provider, ...] = (
    Provider(
        slug="openai",
        models=("gpt-", "o1", "o3", "o4", "chatgpt-", "ft:gpt-"),
        base_url="https://api.openai.com/v1",
        base_env=("OPENAI_BASE_URL", "OPENAI_API_BASE"),
        key_env=("OPENAI_API_KEY",),
        settings=OPENAI_SETTINGS,
        stream_options=True,
        renames={"max_tokens": "max_completion_tokens"},
        unsupported=frozenset({"top_k", "min_p", "repetition_penalty", "thinking"}),
        # Any server that speaks chat completions: it gets what the caller wrote, and judges for itself.
        elsewhere=Provider(
            slug="openai",
            key_env=("OPENAI_API_KEY",),
            key_required=False,
            settings=OPENAI_SETTINGS,
            stream_options=True,
        ),
    ),
    Provider(slug="replay", base_url=_replay, key_required=False, stream_options=True),
    Provider(
        slug="cerebras",
        base_url="https://api.cerebras.ai/v1",
        base_env=("CEREBRAS_API_BASE",),
        key_env=("CEREBRAS_API_KEY",),
        # As openai without stream_options: it reports the usage unasked, with the finish reason.
    ),
    Provider(
        slug="cohere",
        aliases=("cohere_chat",),
        models=("command-",),
        family="cohere",
        base_url="https://api.cohere.com",
        base_env=("COHERE_API_BASE",),
        chat_path="/v2/chat",
        key_env=("COHERE_API_KEY", "CO_API_KEY"),
        renames={**MAX_TOKENS, "top_p": "p", "top_k": "k", "stop": "stop_sequences"},
        unsupported=OTHERS_LACK | {"n", "modalities", "top_logprobs", "service_tier", "min_p", "repetition_penalty"},
    ),
    Provider(
        slug="deepseek",
        models=("deepseek-",),
        base_url="https://api.deepseek.com/v1",
        base_env=("DEEPSEEK_API_BASE",),
        key_env=("DEEPSEEK_API_KEY",),
        stream_options=True,
        renames=MAX_TOKENS,
    ),
    Provider(
        slug="fireworks_ai",
        base_url="https://api.fireworks.ai/inference/v1",
        base_env=("FIREWORKS_API_BASE",),
        key_env=("FIREWORKS_API_KEY", "FIREWORKS_AI_API_KEY", "FIREWORKSAI_API_KEY", "FIREWORKS_AI_TOKEN"),
        stream_options=True,
        renames=MAX_TOKENS,
    ),
    Provider(
        slug="gemini",
        models=("gemini-",),
        family="gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta",
        base_env=("GEMINI_API_BASE",),
        chat_path="/models/{model}:generateContent",
        stream_path="/models/{model}:streamGenerateContent?alt=sse",
        key_env=("GOOGLE_API_KEY", "GEMINI_API_KEY", "PALM_API_KEY"),
        # In the query it would get into logs.
        auth=("x-goog-api-key", "{key}"),
        renames=MAX_TOKENS,
        unsupported=OTHERS_LACK | {"min_p", "repetition_penalty"},
    ),
    Provider(
        slug="groq",
        base_url="https://api.groq.com/openai/v1",
        base_env=("GROQ_API_BASE",),
        key_env=("GROQ_API_KEY",),
        stream_options=True,
    ),
    Provider(
        slug="mistral",
        models=("mistral-", "magistral-", "codestral-"),
        base_url="https://api.mistral.ai/v1",
        base_env=("MISTRAL_API_BASE",),
        key_env=("MISTRAL_API_KEY",),
        # It reports the usage unasked and may refuse the parameter.
        stream_options=False,
        renames={**MAX_TOKENS, "seed": "random_seed"},
        spellings={"tool_choice": {"required": "any"}},
    ),
    Provider(
        slug="ollama",
        aliases=("ollama_chat",),
        family="ollama",
        base_url="http://localhost:11434",
        base_env=("OLLAMA_API_BASE",),
        chat_path="/api/chat",
        key_env=("OLLAMA_API_KEY",),
        key_required=False,
        renames=MAX_TOKENS,
        unsupported=OTHERS_LACK | {"n", "modalities", "tool_choice", "service_tier"},
    ),
    Provider(
        slug="openrouter",
        base_url="https://openrouter.ai/api/v1",
        base_env=("OPENROUTER_API_BASE",),
        key_env=("OPENROUTER_API_KEY", "OR_API_KEY"),
        settings=(
            Setting(keyword="site_url", env=("OR_SITE_URL",), header="http-referer"),
            Setting(keyword="app_name", env=("OR_APP_NAME",), header="x-title"),
        ),
        stream_options=True,
    ),
    Provider(
        slug="perplexity",
        dialect={"end": "finish"},
        base_url="https://api.perplexity.ai",
        base_env=("PERPLEXITY_API_BASE",),
        key_env=("PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY"),
        renames=MAX_TOKENS,
    ),
    Provider(
        slug="snowflake",
        # Its streams of Claude models have no finish reason at all: [DONE] is their end.
        dialect={"end": "done"},
        base_url="https://{account_id}.snowflakecomputing.com/api/v2/cortex/v1",
        key_env=("SNOWFLAKE_JWT",),
        settings=(Setting(keyword="account_id", env=("SNOWFLAKE_ACCOUNT_ID",)),),
        headers={"x-snowflake-authorization-token-type": "KEYPAIR_JWT"},
    ),
    Provider(
        slug="together_ai",
        aliases=("together",),
        base_url="https://api.together.xyz/v1",
        base_env=("TOGETHER_AI_API_BASE",),
        key_env=("TOGETHER_API_KEY", "TOGETHER_AI_API_KEY", "TOGETHERAI_API_KEY", "TOGETHER_AI_TOKEN"),
        stream_options=True,
        renames=MAX_TOKENS,
    ),
    Provider(
        slug="vertex_ai",
        family="gemini",
        base_url=_vertex,
        base_env=("VERTEXAI_API_BASE",),
        chat_path="/projects/{vertex_project}/locations/{vertex_location}/publishers/google/models/{model}:generateContent",
        stream_path="/projects/{vertex_project}/locations/{vertex_location}/publishers/google"
        "/models/{model}:streamGenerateContent?alt=sse",
        # An OAuth access token, by the name that gcloud reads it from.
        key_env=("CLOUDSDK_AUTH_ACCESS_TOKEN",),
        settings=(
            Setting(keyword="vertex_project", env=("VERTEXAI_PROJECT", "GOOGLE_CLOUD_PROJECT")),
            Setting(keyword="vertex_location", env=("VERTEXAI_LOCATION", "GOOGLE_CLOUD_LOCATION"), default="global"),
        ),
        renames=MAX_TOKENS,
        unsupported=OTHERS_LACK | {"service_tier", "min_p", "repetition_penalty"},
    ),
    Provider(
        slug="xai",
        models=("grok-",),
        dialect={"reasoning": "beside"},
        base_url="https://api.x.ai/v1",
        base_env=("XAI_API_BASE",),
        key_env=("XAI_API_KEY",),
        stream_options=True,
        renames=MAX_TOKENS,
    ),
)

PROVIDERS: Mapping[str, Provider] = {name: row for row in ROWS for name in (row.slug, *row.aliases)}
"""The rows by slug and alias."""
