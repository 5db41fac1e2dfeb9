"""The providers, one row each. Nothing but data: a row that needs an `if` becomes a wire family instead.

Adding a provider: put its row where its slug belongs in the alphabet, and its URL into the table of
tests/test_providers.py. `compatible` is a server that does as OpenAI's does, `classic` one that knows `max_tokens`
only:

    compatible("acme", "https://api.acme.example/v1", "ACME_API_KEY", "ACME_API_BASE"),

What else is different is a field of `Provider`, with its reason in a comment. A row says what the provider documents
or was seen to do, never what another client believes of it; a doubtful parameter is sent, for the server to judge.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A keyword of one provider's own, such as an account or a project.

    keyword: as the caller spells it; `{keyword}` in the row's `base_url` and `chat_path` stands for its value.
    env: variables to read it from when the caller does not give it, first set one wins.
    header: the request header that carries it, if one does.
    default: its value when nobody gives one.
    within: the setting that holds a JSON document, or the path of one, and the field of it that has the value too.
    """

    keyword: str
    env: tuple[str, ...] = ()
    header: str | None = None
    default: str | None = None
    within: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A credential of another kind than the key, sent in its place.

    keyword: as the caller spells it, None if it is passed as `api_key`.
    env: variables to read it from when there is no key, first set one wins.
    prefix: how an `api_key` begins that is one of these. It is not sent.
    auth: the header for it, and how it stands in it. `headers`: sent with it.
    called: whether the caller passes a function that gives it, as a bearer token, anew for each attempt.
    """

    keyword: str | None = None
    env: tuple[str, ...] = ()
    prefix: str = ""
    auth: tuple[str, str] = ("authorization", "Bearer {key}")
    headers: Mapping[str, str] = field(default_factory=dict)
    called: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """An exchange of secrets for a bearer token, made before the call and again when the token is about to expire.

    needs: what it takes, by keyword: settings, and `api_key` for the key. It is made where all of them are there.
    url, headers, form: what is posted, with `{keyword}`s. `{origin}` is the base URL without its path, `{uuid}` is
        new each time, and `{basic}` the `basic` pair of user and password, encoded. A setting that a URL begins with is
        a URL itself.
    token, expires: the fields of the answer. `expires` is in seconds from now, or since 1970, or in milliseconds.
    lifetime: seconds that a token lasts where the answer does not say.
    """

    needs: tuple[str, ...]
    url: str
    form: Mapping[str, str]
    headers: Mapping[str, str] = field(default_factory=dict)
    basic: tuple[str, str] | None = None
    token: str = "access_token"  # noqa: S105  the name of a field
    expires: str = "expires_in"
    lifetime: int = 1800


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """An RSA key that signs each request, as the eighth draft of HTTP Signatures says, where there is no other key.

    key_id: whose key it is, with `{setting}`s. key, key_file: the settings that hold it as PEM, or its path.
    """

    key_id: str
    key: str
    key_file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRules:
    """What messages have to be like where others than a family's usual ones are refused.

    call_id: how many letters and digits the id of a tool call has; another is replaced, in the call and in its result.
    fields: the fields that a message of each role may have; others are left out. In the chat family.
    thinking: `reasoning_content` goes back as the first part of the content, of type `thinking`. In the chat family.
    """

    call_id: int
    fields: Mapping[str, frozenset[str]] = field(default_factory=dict)
    thinking: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefill:
    """How to ask for the rest of an answer: by an assistant's message at the end, with the text so far.

    models: a regular expression that matches the whole of the ids of models which go on from it.
    message: what else is in that message. `body`: what else is in the request.
    """

    models: str = ".*"
    message: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Variant:
    """Where some calls to a provider go instead.

    base, model, key, settings: which calls: regular expressions that match the whole of the base URL given ("" if none
        is), of the model id, of the `api_key` given, and of settings ("" if not set). Named groups of `model` become
        settings.
    sends: the model id to send, with `{group}`s and `{model}`.

    All else is as of Provider; None is as the row says. Another chat_path brings its own stream_path, and another
    family leaves the row's dialect behind.
    """

    base: str = ".*"
    model: str = ".*"
    key: str = ".*"
    settings: Mapping[str, str] = field(default_factory=dict)
    sends: str | None = None
    family: str | None = None
    dialect: Mapping[str, str] | None = None
    base_url: str | None = None
    chat_path: str | None = None
    stream_path: str | None = None
    path_safe: str | None = None
    embed_path: str | None = None
    follow: tuple[str, ...] | None = None
    auth: tuple[str, str] | None = None
    headers: Mapping[str, str] | None = None
    fields: Mapping[str, str | None] | None = None
    stream_options: bool | None = None
    renames: Mapping[str, str] | None = None
    spellings: Mapping[str, Mapping[str, str]] | None = None
    unsupported: frozenset[str] | None = None
    messages: MessageRules | None = None
    prefill: Prefill | None = None
    body: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Provider:
    """One provider: where it is, how it is spoken to, and how it differs within its family.

    Rows are equal if they are the same one, so that what follows from a row can be cached by it.

    slug, aliases: what stands before the slash in `model`.
    models: how the bare names begin that mean this provider without a slash.
    family: the wire family; `dialect` is how its streams differ within it, as the Decoder takes it.
    chat_path, stream_path: what follows the base URL, with `{setting}`s and `{model}`; stream_path where streams are
        asked for elsewhere. `path_safe`: the characters of a model id that are not escaped there.
    embed_path: the same for embeddings; None where they are beside chat completions, or there are none.
    base_url: up to the version, with `{setting}`s; None where the caller must give `api_base`; a function where it is
        known only at the call, with the settings.
    hosts: further hosts of this vendor, as shell patterns: no other provider's key goes there.
    follow: the fields of an answer that lead to the URL of the stream, where the answer is not the stream itself. A
        second request gets it from there, also for calls that do not stream.
    base_env, key_env: variables for base URL and key, first set one wins.
    key_required: whether a call without a key is refused before it is sent.
    auth: the header for the key, and how the key stands in it. `tokens`: what may be given instead of a key.
    grants: exchanges of other secrets, or of the key, for a token.
    signed_as: the name of the service that requests are signed for where there is no key.
    google_scope: what Google's credentials are asked for where there is no key.
    signature: what requests are signed with where there is no key.
    headers: sent with every request.
    fields: of every body, with `{setting}`s and `{model}`; without a value for them, or as None, a field is left out.
    stream_options: whether it accepts this parameter, so that it can be asked for the usage of a stream.
    usage: when its streams tell it, in words, where that was seen to differ from its family. Decoders need not know.
    renames: parameters that it spells differently. `words`: those that it spells so only where the value is a word.
    spellings: values of parameters that it spells differently.
    unsupported: parameters that its documentation leaves out.
    messages: what it asks of messages beyond what its family does.
    prefill: how it is asked to go on from a part of an answer, where its documentation says that it does.
    body: which request body it takes, in families that have several.
    variants: calls that go elsewhere; the first that fits counts.
    price_list: its id in genai-prices, where that finds another or none by the slug; "" for none.
    telemetry: its name in the semantic conventions of OpenTelemetry, where that is not the slug.
    elsewhere: how to speak to a server at another base URL that is called by this provider's name.
    """

    slug: str
    aliases: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    family: str = "chat"
    dialect: Mapping[str, str] = field(default_factory=dict)
    base_url: str | Callable[[Mapping[str, str]], str] | None = None
    hosts: tuple[str, ...] = ()
    base_env: tuple[str, ...] = ()
    chat_path: str = "/chat/completions"
    stream_path: str | None = None
    path_safe: str = "/:@"
    embed_path: str | None = None
    follow: tuple[str, ...] = ()
    key_env: tuple[str, ...] = ()
    key_required: bool = True
    auth: tuple[str, str] = ("authorization", "Bearer {key}")
    tokens: tuple[Token, ...] = ()
    grants: tuple[Grant, ...] = ()
    signed_as: str | None = None
    google_scope: str | None = None
    signature: Signature | None = None
    settings: tuple[Setting, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str | None] = field(default_factory=dict)
    stream_options: bool = False
    usage: str | None = None
    renames: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    spellings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unsupported: frozenset[str] = frozenset()
    messages: MessageRules | None = None
    prefill: Prefill | None = None
    body: str = ""
    variants: tuple[Variant, ...] = ()
    price_list: str | None = None
    telemetry: str | None = None
    elsewhere: "Provider | None" = None

    def keywords(self) -> frozenset[str]:
        """The keywords of a call that only this provider, or few others, know."""
        tokens = (token.keyword for token in self.tokens if token.keyword is not None)
        return frozenset((*(setting.keyword for setting in self.settings), *tokens))


class RowOptions(TypedDict, total=False):
    """The keywords that rows declare, for those who check types: what each row knows is in the row."""

    access_token: str | None
    account_id: str | None
    app_name: str | None
    auth_token: str | None
    aws_access_key_id: str | None
    aws_profile_name: str | None
    aws_region_name: str | None
    aws_secret_access_key: str | None
    aws_session_token: str | None
    azure_ad_token: str | None
    azure_ad_token_provider: Callable[[], str] | Callable[[], Awaitable[str]] | None
    azure_authority_host: str | None
    azure_scope: str | None
    chat_id: str | None
    client_id: str | None
    client_secret: str | None
    gigachat_auth_url: str | None
    gigachat_scope: str | None
    model_id: str | None
    oci_compartment_id: str | None
    oci_fingerprint: str | None
    oci_key: str | None
    oci_key_file: str | None
    oci_region: str | None
    oci_tenancy: str | None
    oci_user: str | None
    project: str | None
    project_id: str | None
    site_url: str | None
    space_id: str | None
    tenant_id: str | None
    token: str | None
    vertex_credentials: str | Mapping[str, Any] | None
    vertex_location: str | None
    vertex_project: str | None
    watsonx_iam_url: str | None
    watsonx_region_name: str | None
    zen_api_key: str | None


# Shapes that several rows have

MAX_TOKENS: Mapping[str, str] = {"max_completion_tokens": "max_tokens"}
"""`renames` of the many servers that know the older name only."""

REQUIRED_IS_ANY: Mapping[str, Mapping[str, str]] = {"tool_choice": {"required": "any"}}
"""`spellings` of those that call it so."""

MISTRAL_MESSAGES = MessageRules(
    fields={
        "system": frozenset({"role", "content"}),
        "user": frozenset({"role", "content"}),
        "assistant": frozenset({"role", "content", "tool_calls", "prefix"}),
        "tool": frozenset({"role", "content", "tool_call_id", "name"}),
    },
    call_id=9,
    thinking=True,
)
"""Of Mistral's SDK; the server answers 422 to fields beyond, and 400 to ids of another form."""

WITH_FINISH, IN_EVERY_CHUNK = "with the finish reason", "in every chunk"
"""`usage` of those that are not asked, or tell before they would have to."""

IN_A_CHUNK, NEVER = "after the finish reason, in a chunk of its own", "never"
"""`usage` of those that differ from their family."""

Names = str | tuple[str, ...]


def compatible(slug: str, base_url: str | None, key_env: Names = (), base_env: Names = (), **rest: Any) -> Provider:
    """A server that does as OpenAI's does. `base_url` None is for the caller to give.

    It is asked for the usage of a stream: to be refused and ask again costs less than a usage that is never told.
    """
    rest = {"stream_options": True, **rest}
    return Provider(slug=slug, base_url=base_url, key_env=_each(key_env), base_env=_each(base_env), **rest)


def classic(slug: str, base_url: str | None, key_env: Names = (), base_env: Names = (), **rest: Any) -> Provider:
    """A compatible server that has `max_tokens` and not `max_completion_tokens`."""
    return compatible(slug, base_url, key_env, base_env, **{"renames": MAX_TOKENS, **rest})


def _each(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


WITH_VERSION = Variant(base=".*/v1", chat_path="/chat/completions")
"""For base URLs that may be given with the version or without."""

API_KEY = ("api-key", "{key}")
X_API_KEY = ("x-api-key", "{key}")

AZURE_HOSTS = (
    "*.openai.azure.com",
    "*.cognitiveservices.azure.com",
    "*.services.ai.azure.com",
    "*.models.ai.azure.com",
)
ENTRA: Mapping[str, Any] = {
    "tokens": (
        Token(keyword="azure_ad_token", env=("AZURE_AD_TOKEN",)),
        Token(keyword="azure_ad_token_provider", called=True),
    ),
    "grants": (
        Grant(
            needs=("tenant_id", "client_id", "client_secret"),
            url="{azure_authority_host}/{tenant_id}/oauth2/v2.0/token",
            form={
                "grant_type": "client_credentials",
                "client_id": "{client_id}",
                "client_secret": "{client_secret}",
                "scope": "{azure_scope}",
            },
        ),
    ),
}
ENTRA_SETTINGS = (
    Setting(keyword="tenant_id", env=("AZURE_TENANT_ID",)),
    Setting(keyword="client_id", env=("AZURE_CLIENT_ID",)),
    Setting(keyword="client_secret", env=("AZURE_CLIENT_SECRET",)),
    Setting(keyword="azure_authority_host", env=("AZURE_AUTHORITY_HOST",), default="https://login.microsoftonline.com"),
    Setting(keyword="azure_scope", env=("AZURE_SCOPE",), default="https://cognitiveservices.azure.com/.default"),
)

OPENAI_SETTINGS = (
    Setting(keyword="organization", env=("OPENAI_ORG_ID", "OPENAI_ORGANIZATION"), header="openai-organization"),
    Setting(keyword="project", env=("OPENAI_PROJECT_ID",), header="openai-project"),
)


AWS_SETTINGS = (
    Setting(keyword="aws_region_name", env=("AWS_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION")),
    # Without them the chain of all AWS clients decides, variables first.
    Setting(keyword="aws_access_key_id"),
    Setting(keyword="aws_secret_access_key"),
    Setting(keyword="aws_session_token"),
    Setting(keyword="aws_profile_name"),
)


ARN = r"arn:aws[a-z-]*:bedrock:(?P<aws_region_name>[a-z0-9-]+):.+"
"""A model id that belongs to its region, whatever else is set."""


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


# Claude goes on from a part of an answer up to version 4.5; the models after it refuse that with a 400.
CLAUDE_PREFILL = Prefill(
    models=r".*claude-(?:instant|2|3)\b.*|.*claude-(?:opus|sonnet|haiku)-4(?:-[0-5])?(?:[-@]\d{8})?(?:-v\d.*)?"
)

# What the rows of a family have in common, and calls to others that speak it

MESSAGES: Mapping[str, Any] = {
    "family": "anthropic",
    "chat_path": "/v1/messages",
    "headers": {"anthropic-version": "2023-06-01"},
    "prefill": CLAUDE_PREFILL,
    "renames": MAX_TOKENS,
    "spellings": {"service_tier": {"default": "standard_only"}},
    "unsupported": frozenset(
        {
            "n",
            "modalities",
            "prediction",
            "audio",
            "presence_penalty",
            "frequency_penalty",
            "logit_bias",
            "verbosity",
            "seed",
            "logprobs",
            "top_logprobs",
            "functions",
            "function_call",
            "web_search_options",
            "store",
            "metadata",
            "safety_identifier",
            "prompt_cache_key",
            "min_p",
            "repetition_penalty",
        }
    ),
}

CONVERSE: Mapping[str, Any] = {
    "family": "converse",
    "chat_path": "/model/{model}/converse",
    "stream_path": "/model/{model}/converse-stream",
    # An ARN with its slashes and colons is one segment of the path.
    "path_safe": "",
    "prefill": CLAUDE_PREFILL,
    "renames": MAX_TOKENS,
    "unsupported": frozenset(
        {
            "n",
            "modalities",
            "prediction",
            "audio",
            "presence_penalty",
            "frequency_penalty",
            "logit_bias",
            "user",
            "verbosity",
            "seed",
            "parallel_tool_calls",
            "logprobs",
            "top_logprobs",
            "functions",
            "function_call",
            "web_search_options",
            "store",
            "safety_identifier",
            "prompt_cache_key",
            "min_p",
            "repetition_penalty",
        }
    ),
}

COHERE: Mapping[str, Any] = {
    "family": "cohere",
    "chat_path": "/v2/chat",
    "embed_path": "/v2/embed",
    "renames": {**MAX_TOKENS, "top_p": "p", "top_k": "k", "stop": "stop_sequences"},
    "unsupported": OTHERS_LACK | {"n", "modalities", "top_logprobs", "service_tier", "min_p", "repetition_penalty"},
}

PLAIN_TEXT_LACKS = OTHERS_LACK | {
    "n",
    "modalities",
    "presence_penalty",
    "frequency_penalty",
    "response_format",
    "reasoning_effort",
    "seed",
    "tools",
    "tool_choice",
    "logprobs",
    "top_logprobs",
    "service_tier",
    "thinking",
    "top_k",
    "min_p",
    "repetition_penalty",
}
"""What models lack that continue a text: how long, how free and where to stop is all that can be said to them."""

INVOKE: Mapping[str, Any] = {
    "family": "invoke",
    "chat_path": "/model/{model}/invoke",
    "stream_path": "/model/{model}/invoke-with-response-stream",
    "path_safe": "",
    "renames": MAX_TOKENS,
    "unsupported": MESSAGES["unsupported"] | {"service_tier"},
    "body": "messages",
    "fields": {"anthropic_version": "bedrock-2023-05-31"},
}


def _invoked(models: str, body: str, unsupported: frozenset[str]) -> Variant:
    """Models that take a body of their own; the profile of a region may stand before their names."""
    return Variant(
        model=rf"invoke/(?P<name>(?:[\w-]+\.)?(?:{models}).*)",
        sends="{name}",
        **{**INVOKE, "body": body, "unsupported": unsupported, "fields": {}},
    )


GENERATE: Mapping[str, Any] = {
    "family": "gemini",
    "chat_path": "/models/{model}:generateContent",
    "embed_path": "/models/{model}:batchEmbedContents",
    "stream_path": "/models/{model}:streamGenerateContent?alt=sse",
    "renames": MAX_TOKENS,
    "unsupported": OTHERS_LACK | {"min_p", "repetition_penalty"},
}

OLLAMA: Mapping[str, Any] = {
    "family": "ollama",
    "chat_path": "/api/chat",
    "embed_path": "/api/embed",
    "renames": MAX_TOKENS,
    "unsupported": OTHERS_LACK | {"n", "modalities", "tool_choice", "service_tier"},
}

RESPONSES: Mapping[str, Any] = {
    "family": "responses",
    "chat_path": "/responses",
    "renames": {"max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens"},
    "unsupported": frozenset(
        {
            "n",
            "stop",
            "modalities",
            "prediction",
            "audio",
            "presence_penalty",
            "frequency_penalty",
            "logit_bias",
            "seed",
            "functions",
            "function_call",
            "web_search_options",
            "thinking",
            "top_k",
            "min_p",
            "repetition_penalty",
        }
    ),
}


TEXT: Mapping[str, Any] = {
    "family": "text",
    "chat_path": "/completions",
    "renames": MAX_TOKENS,
    "unsupported": PLAIN_TEXT_LACKS
    - {
        "n",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "user",
        "seed",
        "top_k",
        "min_p",
        "repetition_penalty",
    },
    "body": "completions",
}

TOKENS: Mapping[str, Any] = {
    "family": "text",
    "chat_path": "/generate",
    "stream_path": "/generate_stream",
    "renames": MAX_TOKENS,
    "unsupported": PLAIN_TEXT_LACKS - {"frequency_penalty", "seed", "top_k", "repetition_penalty"},
    "body": "generate",
}

INVOCATIONS: Mapping[str, Any] = {
    "family": "invocations",
    "chat_path": "/endpoints/{model}/invocations",
    "stream_path": "/endpoints/{model}/invocations-response-stream",
    "renames": MAX_TOKENS,
    "body": "chat",
}


def sagemaker(slug: str, **rest: Any) -> Provider:
    """An endpoint that hosts some model server; the row says whose body it takes."""
    return Provider(
        slug=slug,
        base_url="https://runtime.sagemaker.{aws_region_name}.amazonaws.com",
        key_required=False,
        signed_as="sagemaker",
        settings=(*AWS_SETTINGS, Setting(keyword="model_id", header="x-amzn-sagemaker-inference-component")),
        **{**INVOCATIONS, **rest},
    )


PREDICTIONS: Mapping[str, Any] = {
    "family": "predictions",
    "chat_path": "/v1/models/{model}/predictions",
    "follow": ("urls", "stream"),
    "renames": {**MAX_TOKENS, "stop": "stop_sequences"},
    "unsupported": PLAIN_TEXT_LACKS - {"presence_penalty", "frequency_penalty", "seed", "top_k"},
}

WATSONX: Mapping[str, Any] = {
    "base_url": "https://{watsonx_region_name}.ml.cloud.ibm.com",
    "key_env": ("WATSONX_APIKEY", "WATSONX_API_KEY", "WX_API_KEY"),
    "base_env": ("WATSONX_API_BASE", "WATSONX_URL", "WX_URL", "WML_URL"),
    "tokens": (
        Token(keyword="token", env=("WATSONX_TOKEN",)),
        Token(keyword="zen_api_key", env=("WATSONX_ZENAPIKEY",), auth=("authorization", "ZenApiKey {key}")),
    ),
    "grants": (
        Grant(
            needs=("api_key",),
            url="{watsonx_iam_url}",
            form={"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": "{api_key}"},
        ),
    ),
    "settings": (
        Setting(keyword="watsonx_region_name", env=("WATSONX_REGION",)),
        Setting(
            keyword="watsonx_iam_url",
            env=("WATSONX_IAM_URL",),
            default="https://iam.cloud.ibm.com/identity/token",
        ),
        Setting(keyword="project_id", env=("WATSONX_PROJECT_ID",)),
        Setting(keyword="space_id", env=("WATSONX_SPACE_ID", "WATSONX_DEPLOYMENT_SPACE_ID")),
        Setting(keyword="api_version", env=("WATSONX_API_VERSION",), default="2024-10-08"),
    ),
}


SHAPES = (COHERE, CONVERSE, GENERATE, INVOCATIONS, INVOKE, MESSAGES, OLLAMA, PREDICTIONS, RESPONSES, TEXT)


def _replay(_: Mapping[str, str]) -> str:
    """The base URL of the local replay server, which starts with the first call that needs it."""
    from penstock import replay

    base_url: str = replay.upstream().base_url
    return base_url


def _vertex(values: Mapping[str, str]) -> str:
    """The base URL of a location, which for some is a host of another form."""
    hosts = {"global": "aiplatform.googleapis.com"}
    hosts |= dict.fromkeys(("us", "eu"), "aiplatform.{vertex_location}.rep.googleapis.com")
    host = hosts.get(values["vertex_location"], "{vertex_location}-aiplatform.googleapis.com")
    return f"https://{host}/v1"


VERTEX = "/projects/{vertex_project}/locations/{vertex_location}"


def _generate(place: str) -> Mapping[str, Any]:
    """The paths of models that speak the family gemini, at a place below the base URL."""
    return {
        "chat_path": f"{place}/{{model}}:generateContent",
        "stream_path": f"{place}/{{model}}:streamGenerateContent?alt=sse",
    }


def _predict(publisher: str) -> Mapping[str, Any]:
    """The paths of models that are spoken to as their publishers do."""
    return {
        "chat_path": f"{VERTEX}/publishers/{publisher}/models/{{model}}:rawPredict",
        "stream_path": f"{VERTEX}/publishers/{publisher}/models/{{model}}:streamRawPredict",
    }


CLAUDE_ON_VERTEX: Mapping[str, Any] = {
    **MESSAGES,
    **_predict("anthropic"),
    # The model stands in the path and the version in the body.
    "headers": {},
    "fields": {"model": None, "anthropic_version": "vertex-2023-10-16"},
}


ROWS: tuple[Provider, ...] = (
    classic("abliteration", "https://api.abliteration.ai/v1", "ABLITERATION_API_KEY"),
    classic(
        "ai21_chat",
        "https://api.ai21.com/studio/v1",
        "AI21_API_KEY",
        "AI21_API_BASE",
        aliases=("ai21",),
        stream_options=False,
        usage="in the last chunk",
    ),
    classic("aihubmix", "https://aihubmix.com/v1", "AIHUBMIX_API_KEY", "AIHUBMIX_API_BASE"),
    classic("aiml", "https://api.aimlapi.com/v1", "AIML_API_KEY", "AIML_API_BASE"),
    classic("amazon_nova", "https://api.nova.amazon.com/v1", "AMAZON_NOVA_API_KEY", "AMAZON_NOVA_API_BASE"),
    Provider(
        slug="anthropic",
        models=("claude-",),
        base_url="https://api.anthropic.com",
        base_env=("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL"),
        key_env=("ANTHROPIC_API_KEY",),
        auth=X_API_KEY,
        tokens=(Token(keyword="auth_token", env=("ANTHROPIC_AUTH_TOKEN",)),),
        **MESSAGES,
    ),
    classic("apertis", "https://api.stima.tech/v1", "STIMA_API_KEY"),
    compatible("assemblyai", "https://llm-gateway.assemblyai.com/v1", "ASSEMBLYAI_API_KEY"),
    Provider(
        slug="azure",
        telemetry="azure.ai.openai",
        # AZURE_API_BASE is https://RESOURCE.openai.azure.com, and `model` the name of the deployment there.
        base_env=("AZURE_API_BASE",),
        hosts=AZURE_HOSTS,
        chat_path="/openai/deployments/{model}/chat/completions?api-version={api_version}",
        key_env=("AZURE_API_KEY", "AZURE_OPENAI_API_KEY"),
        auth=API_KEY,
        **ENTRA,
        settings=(
            Setting(keyword="api_version", env=("AZURE_API_VERSION",), default="2024-10-21"),
            *ENTRA_SETTINGS,
        ),
        stream_options=True,
        variants=(
            Variant(base=".*/openai/v1", chat_path="/chat/completions"),
            Variant(base=".*/openai/deployments/[^/]+", chat_path="/chat/completions?api-version={api_version}"),
            Variant(settings={"api_version": "v1|latest|preview"}, chat_path="/openai/v1/chat/completions"),
        ),
    ),
    Provider(
        slug="azure_ai",
        price_list="azure",
        telemetry="azure.ai.inference",
        # AZURE_AI_API_BASE is https://RESOURCE.services.ai.azure.com, or the endpoint of one serverless model.
        base_env=("AZURE_AI_API_BASE",),
        hosts=AZURE_HOSTS,
        key_env=("AZURE_AI_API_KEY",),
        **ENTRA,
        settings=(Setting(keyword="api_version", default="2024-05-01-preview"), *ENTRA_SETTINGS),
        stream_options=True,
        variants=(
            # Claude, by the name of its model or by the base URL of that family.
            Variant(
                base=r"https://[^/]+\.services\.ai\.azure\.com",
                model="claude-.+",
                auth=X_API_KEY,
                **{**MESSAGES, "chat_path": "/anthropic/v1/messages"},
            ),
            Variant(base=r"https://[^/]+\.services\.ai\.azure\.com/anthropic", auth=X_API_KEY, **MESSAGES),
            Variant(
                base=r"https://[^/]+\.services\.ai\.azure\.com",
                chat_path="/models/chat/completions?api-version={api_version}",
                auth=API_KEY,
            ),
            Variant(
                base=r"https://[^/]+\.services\.ai\.azure\.com/models",
                chat_path="/chat/completions?api-version={api_version}",
                auth=API_KEY,
            ),
            Variant(base=r"https://[^/]+\.azure\.com/openai/v1", auth=API_KEY),
            Variant(
                base=r"https://[^/]+\.(openai|cognitiveservices)\.azure\.com",
                chat_path="/openai/v1/chat/completions",
                auth=API_KEY,
            ),
        ),
    ),
    Provider(
        slug="azure_text",
        base_env=("AZURE_API_BASE",),
        hosts=AZURE_HOSTS,
        key_env=("AZURE_API_KEY", "AZURE_OPENAI_API_KEY"),
        auth=API_KEY,
        **ENTRA,
        settings=(
            Setting(keyword="api_version", env=("AZURE_API_VERSION",), default="2024-10-21"),
            *ENTRA_SETTINGS,
        ),
        stream_options=True,
        usage=IN_A_CHUNK,
        **{**TEXT, "chat_path": "/openai/deployments/{model}/completions?api-version={api_version}"},
    ),
    classic(
        "baseten",
        "https://inference.baseten.co/v1",
        "BASETEN_API_KEY",
        "BASETEN_API_BASE",
        hosts=("*.api.baseten.co",),
        # Eight letters and digits are a deployment of one's own.
        variants=(
            Variant(
                base="",
                model="[a-z0-9]{8}",
                base_url="https://model-{model}.api.baseten.co/environments/production/sync/v1",
            ),
        ),
    ),
    Provider(
        slug="bedrock",
        telemetry="aws.bedrock",
        base_url="https://bedrock-runtime.{aws_region_name}.amazonaws.com",
        base_env=("AWS_BEDROCK_RUNTIME_ENDPOINT",),
        key_env=("AWS_BEARER_TOKEN_BEDROCK",),
        key_required=False,
        signed_as="bedrock",
        settings=AWS_SETTINGS,
        # bedrock/invoke/MODEL takes the body of the model's own family: Claude's, where its id does not say which.
        variants=(
            _invoked(
                r"amazon\.nova-", "nova", CONVERSE["unsupported"] | {"response_format", "service_tier", "metadata"}
            ),
            _invoked(r"amazon\.titan-", "titan", PLAIN_TEXT_LACKS),
            _invoked(r"meta\.llama3-", "llama3", PLAIN_TEXT_LACKS | {"stop"}),
            _invoked(r"meta\.llama4-", "llama4", PLAIN_TEXT_LACKS | {"stop"}),
            _invoked(
                r"mistral\.(?:mistral-7b|mixtral|mistral-(?:large|small)-2402)-", "inst", PLAIN_TEXT_LACKS - {"top_k"}
            ),
            _invoked(r"mistral\.|openai\.|qwen\.", "chat", frozenset()),
            Variant(model=f"converse/(?P<name>{ARN})", sends="{name}"),
            Variant(model="converse/(?P<name>.+)", sends="{name}"),
            Variant(model=f"invoke/(?P<name>{ARN})", sends="{name}", **INVOKE),
            Variant(model="invoke/(?P<name>.+)", sends="{name}", **INVOKE),
            Variant(model=ARN),
            Variant(model=r"(.+\.)?mistral\..+", messages=MessageRules(call_id=9)),
        ),
        **CONVERSE,
    ),
    classic(
        "bedrock_mantle",
        "https://bedrock-mantle.{aws_region_name}.api.aws/v1",
        ("BEDROCK_MANTLE_API_KEY", "AWS_BEARER_TOKEN_BEDROCK"),
        "BEDROCK_MANTLE_API_BASE",
        key_required=False,
        signed_as="bedrock-mantle",
        settings=(
            Setting(
                keyword="aws_region_name",
                env=("BEDROCK_MANTLE_REGION", "AWS_REGION_NAME", "AWS_REGION"),
                default="us-east-1",
            ),
            *AWS_SETTINGS[1:],
        ),
    ),
    compatible(
        "cerebras",
        "https://api.cerebras.ai/v1",
        "CEREBRAS_API_KEY",
        "CEREBRAS_API_BASE",
        stream_options=False,
        usage=WITH_FINISH,
    ),
    classic("charity_engine", "https://api.charityengine.services/remotejobs/v2/inference", "CHARITY_ENGINE_API_KEY"),
    classic("chutes", "https://llm.chutes.ai/v1", "CHUTES_API_KEY"),
    compatible("clarifai", "https://api.clarifai.com/v2/ext/openai/v1", "CLARIFAI_API_KEY"),
    compatible(
        "cloudflare",
        "https://api.cloudflare.com/client/v4/accounts/{account_id}/ai/v1",
        "CLOUDFLARE_API_KEY",
        "CLOUDFLARE_API_BASE",
        hosts=("gateway.ai.cloudflare.com",),
        usage="with the finish reason, up to three times; the last may be all zeros",
        settings=(Setting(keyword="account_id", env=("CLOUDFLARE_ACCOUNT_ID",)),),
        # The native interface, by its own base URL: .../ai/run. It tells no finish reason.
        variants=(
            Variant(
                base=".*/ai/run",
                family="text",
                body="chat",
                chat_path="/{model}",
                fields={"model": None},
                stream_options=False,
                renames=MAX_TOKENS,
                unsupported=OTHERS_LACK
                | {"n", "modalities", "logprobs", "top_logprobs", "reasoning_effort", "thinking"},
            ),
        ),
    ),
    classic(
        "codestral",
        "https://codestral.mistral.ai/v1",
        "CODESTRAL_API_KEY",
        "CODESTRAL_API_BASE",
        price_list="mistral",
        telemetry="mistral_ai",
        stream_options=False,  # this and the rest as mistral, of which it is an endpoint with keys of its own
        usage=WITH_FINISH,
        renames={**MAX_TOKENS, "seed": "random_seed"},
        spellings=REQUIRED_IS_ANY,
        messages=MISTRAL_MESSAGES,
    ),
    compatible("cognition", "https://api.cognition.ai/v1", "COGNITION_API_KEY", "COGNITION_API_BASE"),
    Provider(
        slug="cohere",
        aliases=("cohere_chat",),
        models=("command-",),
        base_url="https://api.cohere.com",
        base_env=("COHERE_API_BASE",),
        key_env=("COHERE_API_KEY", "CO_API_KEY"),
        **COHERE,
    ),
    compatible("cometapi", "https://api.cometapi.com/v1", "COMETAPI_KEY", "COMETAPI_API_BASE"),
    compatible("compactifai", "https://api.compactif.ai/v1", "COMPACTIFAI_API_KEY"),
    compatible("cortecs", "https://api.cortecs.ai/v1", "CORTECS_API_KEY", "CORTECS_API_BASE"),
    classic("crusoe", "https://managed-inference-api-proxy.crusoecloud.com/v1", "CRUSOE_API_KEY", "CRUSOE_API_BASE"),
    # Any server: nothing is known of it, and no variable has its key.
    classic("custom_openai", None, aliases=("openai_like",), key_required=False, price_list=""),
    classic("darkbloom", "https://api.darkbloom.dev/v1", "DARKBLOOM_API_KEY", "DARKBLOOM_API_BASE"),
    compatible(
        "dashscope",
        "https://dashscope.aliyuncs.com/compatible-mode/v1",
        "DASHSCOPE_API_KEY",
        "DASHSCOPE_API_BASE",
        hosts=("dashscope*.aliyuncs.com",),
        prefill=Prefill(message={"partial": True}),
    ),
    classic(
        "databricks",
        None,
        ("DATABRICKS_TOKEN", "DATABRICKS_API_KEY"),
        ("DATABRICKS_API_BASE", "DATABRICKS_HOST"),
        hosts=("*.cloud.databricks.com", "*.gcp.databricks.com", "*.azuredatabricks.net"),
        grants=(
            Grant(
                needs=("client_id", "client_secret"),
                url="{origin}/oidc/v1/token",
                headers={"authorization": "Basic {basic}"},
                basic=("client_id", "client_secret"),
                form={"grant_type": "client_credentials", "scope": "all-apis"},
            ),
        ),
        settings=(
            Setting(keyword="client_id", env=("DATABRICKS_CLIENT_ID",)),
            Setting(keyword="client_secret", env=("DATABRICKS_CLIENT_SECRET",)),
        ),
        stream_options=False,
        usage=IN_EVERY_CHUNK,
        variants=(Variant(base="https?://[^/]+", chat_path="/serving-endpoints/chat/completions"),),
    ),
    classic(
        "datarobot",
        "https://app.datarobot.com/api/v2/genai/llmgw",
        "DATAROBOT_API_TOKEN",
        "DATAROBOT_ENDPOINT",
        hosts=("*.datarobot.com",),
        chat_path="/chat/completions/",
        variants=(
            Variant(base="https?://[^/]+", chat_path="/api/v2/genai/llmgw/chat/completions/"),
            Variant(base=".*/api/v2", chat_path="/genai/llmgw/chat/completions/"),
            Variant(base=".*/api/v2/deployments/[^/]+", chat_path="/"),
        ),
    ),
    classic(
        "deepinfra",
        "https://api.deepinfra.com/v1/openai",
        "DEEPINFRA_API_KEY",
        "DEEPINFRA_API_BASE",
        # Its Gemini and Gemma models leave reasoning out of the completion tokens, and out of the total.
        dialect={"reasoning": "beside"},
    ),
    classic(
        "deepseek",
        "https://api.deepseek.com/v1",
        "DEEPSEEK_API_KEY",
        "DEEPSEEK_API_BASE",
        models=("deepseek-",),
        usage=WITH_FINISH,
    ),
    classic(
        "docker_model_runner",
        "http://localhost:12434/engines/llama.cpp",
        "DOCKER_MODEL_RUNNER_API_KEY",
        "DOCKER_MODEL_RUNNER_API_BASE",
        key_required=False,
        chat_path="/v1/chat/completions",
        variants=(WITH_VERSION,),
    ),
    compatible("edenai", "https://api.edenai.run/v3", "EDENAI_API_KEY", "EDENAI_API_BASE"),
    classic("empiriolabs", "https://api.empiriolabs.ai/v1", "EMPIRIOLABS_API_KEY", "EMPIRIOLABS_API_BASE"),
    classic("empower", "https://app.empower.dev/api/v1", "EMPOWER_API_KEY", "EMPOWER_API_BASE"),
    classic(
        "featherless_ai",
        "https://api.featherless.ai/v1",
        ("FEATHERLESS_AI_API_KEY", "FEATHERLESS_API_KEY"),
        ("FEATHERLESS_AI_API_BASE", "FEATHERLESS_API_BASE"),
    ),
    classic(
        "fireworks_ai",
        "https://api.fireworks.ai/inference/v1",
        ("FIREWORKS_API_KEY", "FIREWORKS_AI_API_KEY", "FIREWORKSAI_API_KEY", "FIREWORKS_AI_TOKEN"),
        "FIREWORKS_API_BASE",
        price_list="fireworks",
        spellings=REQUIRED_IS_ANY,
        # A bare name is one of its own models; NAME#DEPLOYMENT is complete.
        variants=(Variant(model="[^/#]+", sends="accounts/fireworks/models/{model}"),),
    ),
    classic(
        "friendliai",
        "https://api.friendli.ai/serverless/v1",
        ("FRIENDLIAI_API_KEY", "FRIENDLI_TOKEN"),
        "FRIENDLI_API_BASE",
    ),
    classic("galadriel", "https://api.galadriel.com/v1", "GALADRIEL_API_KEY", "GALADRIEL_API_BASE"),
    Provider(
        slug="gemini",
        telemetry="gcp.gemini",
        models=("gemini-",),
        base_url="https://generativelanguage.googleapis.com/v1beta",
        base_env=("GEMINI_API_BASE",),
        key_env=("GOOGLE_API_KEY", "GEMINI_API_KEY", "PALM_API_KEY"),
        # In the query it would get into logs.
        auth=("x-goog-api-key", "{key}"),
        **GENERATE,
    ),
    classic(
        "gigachat",
        "https://gigachat.devices.sberbank.ru/api/v1",
        # What its console calls the authorization key: client id and secret in base64.
        ("GIGACHAT_CREDENTIALS", "GIGACHAT_API_KEY"),
        "GIGACHAT_API_BASE",
        hosts=("*.devices.sberbank.ru", "api.giga.chat"),
        tokens=(Token(keyword="access_token", env=("GIGACHAT_ACCESS_TOKEN",)),),
        grants=(
            Grant(
                needs=("api_key",),
                url="{gigachat_auth_url}",
                headers={"authorization": "Basic {api_key}", "rquid": "{uuid}"},
                form={"scope": "{gigachat_scope}"},
                expires="expires_at",
            ),
        ),
        settings=(
            Setting(
                keyword="gigachat_auth_url",
                env=("GIGACHAT_AUTH_URL",),
                default="https://ngw.devices.sberbank.ru:9443/api/v2/oauth",
            ),
            Setting(keyword="gigachat_scope", env=("GIGACHAT_SCOPE",), default="GIGACHAT_API_PERS"),
        ),
        stream_options=False,
        # It has `functions` and `function_call`.
        unsupported=frozenset({"tools", "tool_choice", "parallel_tool_calls"}),
    ),
    classic("github", "https://models.github.ai/inference", ("GITHUB_TOKEN", "GITHUB_API_KEY"), "GITHUB_API_BASE"),
    classic("gmi", "https://api.gmi-serving.com/v1", "GMI_API_KEY"),
    compatible(
        "gradient_ai",
        "https://inference.do-ai.run/v1",
        "GRADIENT_AI_API_KEY",
        "GRADIENT_AI_AGENT_ENDPOINT",
        hosts=("*.agents.do-ai.run",),
        # An agent's endpoint is given without the path.
        variants=(Variant(base=r"https://[^/]+\.agents\.do-ai\.run", chat_path="/api/v1/chat/completions"),),
    ),
    compatible(
        "groq",
        "https://api.groq.com/openai/v1",
        "GROQ_API_KEY",
        "GROQ_API_BASE",
        usage="with the finish reason, and once more after it",
    ),
    compatible("helicone", "https://ai-gateway.helicone.ai", "HELICONE_API_KEY"),
    compatible(
        "heroku",
        None,
        "HEROKU_API_KEY",
        "HEROKU_API_BASE",
        hosts=("*.inference.heroku.com",),
        chat_path="/v1/chat/completions",
        variants=(WITH_VERSION,),
    ),
    compatible(
        "hosted_vllm",
        None,
        "HOSTED_VLLM_API_KEY",
        "HOSTED_VLLM_API_BASE",
        aliases=("vllm",),
        key_required=False,
        prefill=Prefill(body={"continue_final_message": True, "add_generation_prompt": False}),
    ),
    compatible(
        "huggingface",
        "https://router.huggingface.co/v1",
        ("HF_TOKEN", "HUGGINGFACE_API_KEY"),
        ("HF_API_BASE", "HUGGINGFACE_API_BASE"),
        hosts=("*.endpoints.huggingface.cloud", "api-inference.huggingface.co"),
        variants=(
            # An endpoint's native interface.
            Variant(
                base=".+",
                model="text-generation-inference/(?P<name>.+)",
                sends="{name}",
                stream_options=False,
                **TOKENS,
            ),
            # A dedicated endpoint is given without the path.
            Variant(base="https?://[^/]+", chat_path="/v1/chat/completions"),
            # PROVIDER/ORGANISATION/NAME is written ORGANISATION/NAME:PROVIDER by now.
            Variant(
                base="",
                model="(?P<through>[^/]+)/(?P<organisation>[^/]+)/(?P<name>[^/]+)",
                sends="{organisation}/{name}:{through}",
            ),
        ),
    ),
    classic("hyperbolic", "https://api.hyperbolic.xyz/v1", "HYPERBOLIC_API_KEY", "HYPERBOLIC_API_BASE"),
    classic("inception", "https://api.inceptionlabs.ai/v1", "INCEPTION_API_KEY", "INCEPTION_API_BASE"),
    classic("lambda_ai", "https://api.lambda.ai/v1", "LAMBDA_API_KEY", "LAMBDA_API_BASE"),
    classic("lemonade", "http://localhost:8000/api/v1", "LEMONADE_API_KEY", "LEMONADE_API_BASE", key_required=False),
    classic("libertai", "https://api.libertai.io/v1", "LIBERTAI_API_KEY", "LIBERTAI_API_BASE"),
    # A proxy without a master key needs none.
    compatible("litellm_proxy", None, "LITELLM_PROXY_API_KEY", "LITELLM_PROXY_API_BASE", key_required=False),
    compatible("llamafile", "http://127.0.0.1:8080/v1", "LLAMAFILE_API_KEY", "LLAMAFILE_API_BASE", key_required=False),
    classic("llamagate", "https://api.llamagate.dev/v1", "LLAMAGATE_API_KEY"),
    compatible("lm_studio", "http://localhost:1234/v1", "LM_STUDIO_API_KEY", "LM_STUDIO_API_BASE", key_required=False),
    classic("maritalk", "https://chat.maritaca.ai/api", "MARITALK_API_KEY", "MARITALK_API_BASE"),
    compatible("meta", "https://api.meta.ai/v1", "META_API_KEY", "META_API_BASE"),
    compatible("meta_llama", "https://api.llama.com/compat/v1", "LLAMA_API_KEY", "LLAMA_API_BASE", price_list="meta"),
    compatible(
        "minimax",
        "https://api.minimax.io/v1",
        "MINIMAX_API_KEY",
        "MINIMAX_API_BASE",
        hosts=("api.minimaxi.com", "api.minimax.chat"),
    ),
    classic(
        "mistral",
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
        "MISTRAL_API_BASE",
        telemetry="mistral_ai",
        models=("mistral-", "magistral-", "codestral-"),
        prefill=Prefill(message={"prefix": True}),
        stream_options=False,  # it may refuse it
        usage=WITH_FINISH,
        renames={**MAX_TOKENS, "seed": "random_seed"},
        spellings=REQUIRED_IS_ANY,
        messages=MISTRAL_MESSAGES,
    ),
    compatible(
        "modelscope",
        "https://api-inference.modelscope.cn/v1",
        "MODELSCOPE_API_KEY",
        "MODELSCOPE_API_BASE",
        hosts=("*.modelscope.cn",),
    ),
    classic(
        "moonshot",
        "https://api.moonshot.ai/v1",
        "MOONSHOT_API_KEY",
        "MOONSHOT_API_BASE",
        telemetry="moonshot_ai",
        hosts=("api.moonshot.cn",),
        prefill=Prefill(message={"partial": True}),
    ),
    compatible("morph", "https://api.morphllm.com/v1", "MORPH_API_KEY", "MORPH_API_BASE"),
    classic("nadir", "https://api.getnadir.com/v1", "NADIR_API_KEY", "NADIR_API_BASE"),
    classic("nano-gpt", "https://nano-gpt.com/api/v1", "NANOGPT_API_KEY"),
    classic("nebius", "https://api.studio.nebius.ai/v1", "NEBIUS_API_KEY", "NEBIUS_API_BASE"),
    classic("neosantara", "https://api.neosantara.xyz/v1", "NEOSANTARA_API_KEY", "NEOSANTARA_API_BASE"),
    compatible(
        "novita",
        "https://api.novita.ai/v3/openai",
        "NOVITA_API_KEY",
        "NOVITA_API_BASE",
        headers={"x-novita-source": "penstock"},
    ),
    classic("nscale", "https://inference.api.nscale.com/v1", "NSCALE_API_KEY", "NSCALE_API_BASE"),
    classic(
        "nvidia_nim",
        "https://integrate.api.nvidia.com/v1",
        ("NVIDIA_NIM_API_KEY", "NVIDIA_API_KEY"),
        "NVIDIA_NIM_API_BASE",
    ),
    compatible(
        "oci",
        "https://inference.generativeai.{oci_region}.oci.oraclecloud.com/openai/v1",
        "OCI_GENAI_API_KEY",
        key_required=False,
        signature=Signature(
            key_id="{oci_tenancy}/{oci_user}/{oci_fingerprint}", key="oci_key", key_file="oci_key_file"
        ),
        settings=(
            Setting(keyword="oci_region", env=("OCI_REGION",)),
            Setting(keyword="oci_compartment_id", env=("OCI_COMPARTMENT_ID",), header="opc-compartment-id"),
            Setting(keyword="oci_tenancy", env=("OCI_TENANCY",)),
            Setting(keyword="oci_user", env=("OCI_USER",)),
            Setting(keyword="oci_fingerprint", env=("OCI_FINGERPRINT",)),
            Setting(keyword="oci_key", env=("OCI_KEY",)),
            Setting(keyword="oci_key_file", env=("OCI_KEY_FILE",)),
        ),
    ),
    Provider(
        slug="ollama",
        aliases=("ollama_chat",),
        base_url="http://localhost:11434",
        base_env=("OLLAMA_API_BASE",),
        key_env=("OLLAMA_API_KEY",),
        key_required=False,
        **OLLAMA,
    ),
    # The compatible side of Ollama.
    classic("ollama_v1", "http://localhost:11434/v1", "OLLAMA_API_KEY", key_required=False),
    compatible("oobabooga", None, key_required=False, chat_path="/v1/chat/completions", variants=(WITH_VERSION,)),
    Provider(
        slug="openai",
        aliases=("aiohttp_openai",),
        models=("gpt-", "o1", "o3", "o4", "chatgpt-", "ft:gpt-"),
        base_url="https://api.openai.com/v1",
        hosts=("*.api.openai.com",),
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
    Provider(
        slug="openai_responses",
        telemetry="openai",
        base_url="https://api.openai.com/v1",
        base_env=("OPENAI_BASE_URL", "OPENAI_API_BASE"),
        key_env=("OPENAI_API_KEY",),
        settings=OPENAI_SETTINGS,
        **RESPONSES,
    ),
    compatible(
        "openrouter",
        "https://openrouter.ai/api/v1",
        ("OPENROUTER_API_KEY", "OR_API_KEY"),
        "OPENROUTER_API_BASE",
        usage="after the finish reason, in a chunk that has a choice",
        settings=(
            Setting(keyword="site_url", env=("OR_SITE_URL",), header="http-referer"),
            Setting(keyword="app_name", env=("OR_APP_NAME",), header="x-title"),
        ),
    ),
    compatible("ovhcloud", "https://oai.endpoints.kepler.ai.cloud.ovh.net/v1", "OVHCLOUD_API_KEY", "OVHCLOUD_API_BASE"),
    compatible("parasail", "https://api.parasail.io/v1", "PARASAIL_API_KEY", "PARASAIL_API_BASE"),
    classic(
        "perplexity",
        "https://api.perplexity.ai",
        ("PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY"),
        "PERPLEXITY_API_BASE",
        dialect={"end": "finish"},  # it never sends [DONE]
        stream_options=False,
        usage=IN_EVERY_CHUNK,
    ),
    classic("pinstripes", "https://pinstripes.io/v1", "PINSTRIPES_API_KEY", "PINSTRIPES_API_BASE"),
    classic("poe", "https://api.poe.com/v1", "POE_API_KEY"),
    Provider(
        slug="predibase",
        base_url="https://serving.app.predibase.com/{tenant_id}/deployments/v2/llms",
        base_env=("PREDIBASE_API_BASE",),
        key_env=("PREDIBASE_API_KEY",),
        settings=(Setting(keyword="tenant_id", env=("PREDIBASE_TENANT_ID",)),),
        **{**TOKENS, "chat_path": "/{model}/generate", "stream_path": "/{model}/generate_stream"},
    ),
    compatible("prism", "https://api.prisminference.com/v1", "PRISM_API_KEY", "PRISM_API_BASE"),
    classic("publicai", "https://api.publicai.co/v1", "PUBLICAI_API_KEY", "PUBLICAI_API_BASE"),
    compatible(
        "qwen_ai_platform",
        "https://dashscope.aliyuncs.com/compatible-mode/v1",
        ("QWEN_AI_PLATFORM_API_KEY", "DASHSCOPE_API_KEY"),
        "QWEN_AI_PLATFORM_API_BASE",
    ),
    compatible(
        "qwencloud",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        ("QWENCLOUD_API_KEY", "DASHSCOPE_API_KEY"),
        "QWENCLOUD_API_BASE",
    ),
    compatible(
        "ragflow",
        None,
        "RAGFLOW_API_KEY",
        "RAGFLOW_API_BASE",
        # Chat or agent, its id, and the model: ragflow/chat/ID/MODEL, ragflow/agent/ID/MODEL.
        chat_path="/api/v1/chats_openai/{chat_id}/chat/completions",
        settings=(Setting(keyword="chat_id"),),
        variants=(
            Variant(model="chat/(?P<chat_id>[^/]+)/(?P<name>.+)", sends="{name}"),
            Variant(
                model="agent/(?P<agent_id>[^/]+)/(?P<name>.+)",
                chat_path="/api/v1/agents_openai/{agent_id}/chat/completions",
                sends="{name}",
            ),
        ),
    ),
    compatible("reka", "https://api.reka.ai/v1", "REKA_API_KEY", "REKA_API_BASE"),
    Provider(
        slug="replay",
        base_url=_replay,
        key_required=False,
        stream_options=True,
        # replay/FAMILY/CASE is that family's; a bare case is one of chat completions.
        variants=(
            Variant(model="text/text-output", dialect={"end": "eof"}, **TEXT),
            *(
                Variant(model=f"{shape['family']}/.+", **shape)
                for shape in (
                    COHERE,
                    CONVERSE,
                    GENERATE,
                    INVOCATIONS,
                    INVOKE,
                    MESSAGES,
                    OLLAMA,
                    PREDICTIONS,
                    RESPONSES,
                    TEXT,
                )
            ),
        ),
    ),
    Provider(
        slug="replicate",
        base_url="https://api.replicate.com",
        base_env=("REPLICATE_API_BASE",),
        hosts=("*.replicate.com", "*.replicate.net"),
        key_env=("REPLICATE_API_TOKEN", "REPLICATE_API_KEY"),
        usage=NEVER,
        variants=(
            # OWNER/NAME:VERSION, and deployments/OWNER/NAME.
            Variant(
                model="(?P<name>[^:]+):(?P<version>[0-9a-f]{64})",
                sends="{name}",
                chat_path="/v1/predictions",
                fields={"version": "{version}"},
            ),
            Variant(model="deployments/(?P<name>.+)", sends="{name}", chat_path="/v1/deployments/{model}/predictions"),
        ),
        **PREDICTIONS,
    ),
    sagemaker("sagemaker", **{**TOKENS, **INVOCATIONS, "body": "generate", "unsupported": TOKENS["unsupported"]}),
    sagemaker("sagemaker_chat", stream_options=True),
    sagemaker("sagemaker_nova", stream_options=True),
    compatible("sail", "https://api.sailresearch.com/v1", "SAIL_API_KEY", "SAIL_API_BASE"),
    classic("sambanova", "https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY", "SAMBANOVA_API_BASE"),
    classic("sarvam", "https://api.sarvam.ai/v1", "SARVAM_API_KEY"),
    compatible("scaleway", "https://api.scaleway.ai/v1", "SCW_SECRET_KEY"),
    classic("scx-ai", "https://api.scx.ai/v1", "SCX_API_KEY", "SCX_API_BASE"),
    compatible(
        "snowflake",
        "https://{account_id}.snowflakecomputing.com/api/v2/cortex/v1",
        "SNOWFLAKE_JWT",
        # Its streams of Claude models have no finish reason at all: [DONE] is their end.
        dialect={"end": "done"},
        settings=(Setting(keyword="account_id", env=("SNOWFLAKE_ACCOUNT_ID",)),),
        headers={"x-snowflake-authorization-token-type": "KEYPAIR_JWT"},
        variants=(
            # The older endpoint, of which nobody has seen how its streams end.
            Variant(base="https?://[^/]+/api/v2/cortex", chat_path="/inference:complete", dialect={"end": "eof"}),
            Variant(base="https?://[^/]+", chat_path="/api/v2/cortex/v1/chat/completions"),
        ),
        # A programmatic access token is written pat/TOKEN.
        tokens=(Token(prefix="pat/", headers={"x-snowflake-authorization-token-type": "PROGRAMMATIC_ACCESS_TOKEN"}),),
    ),
    classic("synthetic", "https://api.synthetic.new/openai/v1", "SYNTHETIC_API_KEY"),
    compatible("tencent", "https://tokenhub-intl.tencentcloudmaas.com/v1", "TENCENT_API_KEY", "TENCENT_API_BASE"),
    classic(
        "tensormesh",
        "https://serverless.tensormesh.ai/v1",
        "TENSORMESH_INFERENCE_API_KEY",
        "TENSORMESH_SERVERLESS_BASE_URL",
    ),
    Provider(
        slug="text-completion-codestral",
        base_url="https://codestral.mistral.ai/v1",
        base_env=("CODESTRAL_API_BASE",),
        key_env=("CODESTRAL_API_KEY",),
        usage=WITH_FINISH,
        # What follows the text to be written is `suffix`, in extra_body.
        **{
            **TEXT,
            "chat_path": "/fim/completions",
            "renames": {**MAX_TOKENS, "seed": "random_seed"},
            "unsupported": PLAIN_TEXT_LACKS - {"seed"},
        },
    ),
    Provider(
        slug="text-completion-inception",
        base_url="https://api.inceptionlabs.ai/v1",
        base_env=("INCEPTION_API_BASE",),
        key_env=("INCEPTION_API_KEY",),
        stream_options=True,
        usage=IN_A_CHUNK,
        **{**TEXT, "chat_path": "/fim/completions"},
    ),
    Provider(
        slug="text-completion-openai",
        base_url="https://api.openai.com/v1",
        base_env=("OPENAI_BASE_URL", "OPENAI_API_BASE"),
        key_env=("OPENAI_API_KEY",),
        settings=OPENAI_SETTINGS,
        stream_options=True,
        usage=IN_A_CHUNK,
        **TEXT,
    ),
    classic(
        "together_ai",
        "https://api.together.xyz/v1",
        ("TOGETHER_API_KEY", "TOGETHER_AI_API_KEY", "TOGETHERAI_API_KEY", "TOGETHER_AI_TOKEN"),
        "TOGETHER_AI_API_BASE",
        aliases=("together",),
        usage=WITH_FINISH,
        hosts=("api.together.ai",),
    ),
    Provider(
        slug="triton",
        family="text",
        # api_base is a model's: http://HOST:8000/v2/models/NAME. What ends an answer is not told.
        dialect={"end": "eof"},
        chat_path="/generate",
        stream_path="/generate_stream",
        key_required=False,
        usage=NEVER,
        renames=MAX_TOKENS,
        unsupported=OTHERS_LACK | {"n", "modalities", "response_format", "reasoning_effort", "tools", "tool_choice"},
        body="text_input",
        variants=(Variant(base=".*/generate", chat_path="", stream_path="_stream"),),
    ),
    compatible("v0", "https://api.v0.dev/v1", "V0_API_KEY", "V0_API_BASE"),
    classic("veniceai", "https://api.venice.ai/api/v1", "VENICE_AI_API_KEY"),
    compatible(
        "vercel_ai_gateway",
        "https://ai-gateway.vercel.sh/v1",
        ("VERCEL_AI_GATEWAY_API_KEY", "VERCEL_OIDC_TOKEN"),
        "VERCEL_AI_GATEWAY_API_BASE",
        settings=(
            Setting(keyword="site_url", env=("VERCEL_SITE_URL",), header="http-referer"),
            Setting(keyword="app_name", env=("VERCEL_APP_NAME",), header="x-title"),
        ),
    ),
    Provider(
        slug="vertex_ai",
        telemetry="gcp.vertex_ai",
        aliases=("vertex_ai_beta",),
        family="gemini",
        base_url=_vertex,
        hosts=("aiplatform.googleapis.com", "*-aiplatform.googleapis.com", "aiplatform.*.rep.googleapis.com"),
        base_env=("VERTEXAI_API_BASE",),
        **_generate(f"{VERTEX}/publishers/google/models"),
        # An OAuth access token, by the name that gcloud reads it from.
        key_env=("CLOUDSDK_AUTH_ACCESS_TOKEN",),
        google_scope="https://www.googleapis.com/auth/cloud-platform",
        settings=(
            Setting(
                keyword="vertex_project",
                env=("VERTEXAI_PROJECT", "GOOGLE_CLOUD_PROJECT"),
                within=("vertex_credentials", "project_id"),
            ),
            Setting(keyword="vertex_location", env=("VERTEXAI_LOCATION", "GOOGLE_CLOUD_LOCATION"), default="global"),
            # A JSON document or the path of one; without it the chain of all Google clients decides.
            Setting(keyword="vertex_credentials", env=("VERTEXAI_CREDENTIALS", "GOOGLE_APPLICATION_CREDENTIALS")),
        ),
        renames=MAX_TOKENS,
        unsupported=OTHERS_LACK | {"service_tier", "min_p", "repetition_penalty"},
        variants=(
            # Express mode: an API key, which knows its project.
            Variant(
                key=r"AIza.+|AQ\..+",
                base_url="https://aiplatform.googleapis.com/v1",
                auth=("x-goog-api-key", "{key}"),
                **_generate("/publishers/google/models"),
            ),
            Variant(model="(?:anthropic/)?(?P<name>claude-.+)", sends="{name}", **CLAUDE_ON_VERTEX),
            Variant(
                model="(?:mistralai/)?(?P<name>(?:mistral|ministral|magistral|codestral)-.+)",
                sends="{name}",
                family="chat",
                **_predict("mistralai"),
                renames={**MAX_TOKENS, "seed": "random_seed"},
                spellings=REQUIRED_IS_ANY,
                unsupported=frozenset(),
                messages=MISTRAL_MESSAGES,
            ),
            Variant(
                model="(?:ai21/)?(?P<name>jamba-.+)",
                sends="{name}",
                family="chat",
                **_predict("ai21"),
                unsupported=frozenset(),
            ),
            Variant(model="google/(?P<name>.+)", sends="{name}"),
            # A tuned model is an endpoint with a number.
            Variant(model=r"\d+", **_generate(f"{VERTEX}/endpoints")),
            # All other publishers: meta/, deepseek-ai/, qwen/, openai/gpt-oss- ...
            Variant(
                model="[^/]+/.+",
                family="chat",
                chat_path=f"{VERTEX}/endpoints/openapi/chat/completions",
                stream_options=True,
                unsupported=frozenset(),
            ),
        ),
    ),
    classic(
        "volcengine",
        "https://ark.cn-beijing.volces.com/api/v3",
        "VOLCENGINE_API_KEY",
        "VOLCENGINE_API_BASE",
        hosts=("ark.*.volces.com",),
    ),
    classic("wandb", "https://api.inference.wandb.ai/v1", "WANDB_API_KEY", "WANDB_API_BASE"),
    Provider(
        slug="watsonx",
        **WATSONX,
        chat_path="/ml/v1/text/chat?version={api_version}",
        stream_path="/ml/v1/text/chat_stream?version={api_version}",
        # Whether to stream stands in the path.
        fields={
            "model": None,
            "stream": None,
            "model_id": "{model}",
            "project_id": "{project_id}",
            "space_id": "{space_id}",
        },
        words={"tool_choice": "tool_choice_option"},
        stream_options=False,
        variants=(
            # A deployment knows its model and its project.
            Variant(
                model="deployment/(?P<deployment_id>[^/]+)",
                chat_path="/ml/v1/deployments/{deployment_id}/text/chat?version={api_version}",
                stream_path="/ml/v1/deployments/{deployment_id}/text/chat_stream?version={api_version}",
                fields={"model": None, "stream": None},
            ),
        ),
    ),
    Provider(
        slug="watsonx_text",
        **WATSONX,
        family="text",
        body="generation",
        chat_path="/ml/v1/text/generation?version={api_version}",
        stream_path="/ml/v1/text/generation_stream?version={api_version}",
        fields={"model_id": "{model}", "project_id": "{project_id}", "space_id": "{space_id}"},
        usage=IN_EVERY_CHUNK,
        renames=MAX_TOKENS,
        unsupported=PLAIN_TEXT_LACKS - {"seed", "top_k", "repetition_penalty"},
        variants=(
            Variant(
                model="deployment/(?P<deployment_id>[^/]+)",
                chat_path="/ml/v1/deployments/{deployment_id}/text/generation?version={api_version}",
                stream_path="/ml/v1/deployments/{deployment_id}/text/generation_stream?version={api_version}",
                fields={},
            ),
        ),
    ),
    classic(
        "xai",
        "https://api.x.ai/v1",
        "XAI_API_KEY",
        "XAI_API_BASE",
        models=("grok-",),
        telemetry="x_ai",
        hosts=("*.api.x.ai",),
        dialect={"reasoning": "beside"},
    ),
    classic("xiaomi_mimo", "https://api.xiaomimimo.com/v1", "XIAOMI_MIMO_API_KEY"),
    # Self-hosted: without authentication it needs no key.
    classic("xinference", None, "XINFERENCE_API_KEY", "XINFERENCE_API_BASE", key_required=False),
    classic(
        "zai",
        "https://api.z.ai/api/paas/v4",
        ("ZAI_API_KEY", "ZHIPUAI_API_KEY"),
        "ZAI_API_BASE",
        hosts=("open.bigmodel.cn",),
        usage=WITH_FINISH,
    ),
)

PROVIDERS: Mapping[str, Provider] = {name: row for row in ROWS for name in (row.slug, *row.aliases)}
"""The rows by slug and alias."""

NOT_SERVED: Mapping[str, str] = {
    "a2a": "speaks A2A, a JSON-RPC of agents",
    "anthropic_text": "text completions of 2023",
    "bytez": "raw text, no usage",
    "chatgpt": "login of a consumer subscription",
    "custom": "no format that anybody specified",
    "fal_ai": "does not stream",
    "gdc": "addresses and paths that nobody documents, and tokens of a service identity",
    "github_copilot": "login of a consumer subscription",
    "langflow": "a flow server, no chat",
    "langgraph": "an agent server, no chat",
    "nlp_cloud": "raw text, no usage",
    "petals": "runs in the process",
    "sap": "a format of its own, at deployments that have to be looked up before the call",
}
"""Who is called by name elsewhere and has no row here, with the reason."""
