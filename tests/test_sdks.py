"""The providers' own clients as judges: what replay serves they must read, and what is built here they must know.

A client that is not installed is skipped, and the last lines of the run say so.
"""

import gc
import inspect
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import httpx
import pytest

from penstock import completion
from penstock.providers.registry import PROVIDERS
from penstock.replay import Upstream
from penstock.replay.cases import FAMILIES
from penstock.wire import builder, plain_data, select

# Some of these clients leave their sockets to the garbage collector: their affair, and done with in their own tests.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(autouse=True, scope="module")
def collected() -> Iterator[None]:
    yield
    gc.collect()


Json = dict[str, Any]
USER = {"role": "user", "content": "Hello"}
PNG = "iVBORw0KGgo="


def sdk(name: str) -> ModuleType:
    """A client's package, or a skip that names it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: ModuleType = pytest.importorskip(name, reason=f"external: the client {name} is not installed")
        return module


# ---- what the clients read: the visible text of a case, streamed and not


class Texts(NamedTuple):
    streamed: str
    single: str


def chat_texts(base: str, model: str) -> Texts:
    create = sdk("openai").OpenAI(base_url=base, api_key="k", max_retries=0).chat.completions.create
    asked: Json = {"model": model, "messages": [USER]}
    events = [chunk for chunk in create(**asked, stream=True) if chunk.choices and chunk.choices[0].index == 0]
    single = create(**asked).choices[0].message.content
    return Texts(joined(chunk.choices[0].delta.content for chunk in events), single or "")


def responses_texts(base: str, model: str) -> Texts:
    create = sdk("openai").OpenAI(base_url=base, api_key="k", max_retries=0).responses.create
    asked: Json = {"model": model, "input": "Hello"}
    events = [event for event in create(**asked, stream=True) if event.type == "response.output_text.delta"]
    return Texts(joined(event.delta for event in events), create(**asked).output_text)


def anthropic_texts(base: str, model: str) -> Texts:
    messages = sdk("anthropic").Anthropic(base_url=base, api_key="k", max_retries=0).messages
    asked: Json = {"model": model, "messages": [USER], "max_tokens": 99}
    with messages.stream(**asked) as stream:
        streamed = joined(stream.text_stream)
        # What the client put together itself is what it was sent.
        assert streamed == joined(block.text for block in stream.get_final_message().content if block.type == "text")
    single = messages.create(**asked)
    return Texts(streamed, joined(block.text for block in single.content if block.type == "text"))


def gemini_texts(base: str, model: str) -> Texts:
    genai = sdk("google.genai")
    options = {"base_url": base, "api_version": "v1beta"}
    client = genai.Client(api_key="k", vertexai=False, http_options=options)

    def text(response: Any) -> str:
        parts = [part for one in response.candidates or () if one.content for part in one.content.parts or ()]
        return joined(part.text for part in parts if not part.thought)

    asked: Json = {"model": model, "contents": "Hello"}
    return Texts(
        joined(map(text, client.models.generate_content_stream(**asked))), text(client.models.generate_content(**asked))
    )


def cohere_texts(base: str, model: str) -> Texts:
    client = sdk("cohere").ClientV2(base_url=base, api_key="k")
    asked: Json = {"model": model, "messages": [USER]}
    events = [event for event in client.chat_stream(**asked) if event.type == "content-delta"]
    single = client.chat(**asked).message.content or ()
    return Texts(
        joined(event.delta.message.content.text for event in events),
        joined(part.text for part in single if part.type == "text"),
    )


def mistral_texts(base: str, model: str) -> Texts:
    chat = sdk("mistralai.client").Mistral(server_url=base.removesuffix("/v1"), api_key="k").chat

    def text(content: Any) -> str:
        parts = content if isinstance(content, list) else [content]
        return joined(part if isinstance(part, str) else getattr(part, "text", None) for part in parts)

    asked: Json = {"model": model, "messages": [USER]}
    with chat.stream(**asked) as events:
        choices = [choice for event in events for choice in event.data.choices if choice.index == 0]
    single = chat.complete(**asked).choices[0].message.content
    return Texts(joined(text(choice.delta.content) for choice in choices), text(single))


def ollama_texts(base: str, model: str) -> Texts:
    chat = sdk("ollama").Client(host=base).chat
    asked: Json = {"model": model, "messages": [USER]}
    events = chat(**asked, stream=True)
    return Texts(joined(event.message.content for event in events), chat(**asked).message.content or "")


def converse_texts(base: str, model: str) -> Texts:
    client = bedrock(base)
    asked: Json = {"modelId": model, "messages": [{"role": "user", "content": [{"text": "Hello"}]}]}
    deltas = [event.get("contentBlockDelta", {}) for event in client.converse_stream(**asked)["stream"]]
    blocks = client.converse(**asked)["output"]["message"]["content"]
    pieces = [piece for block in blocks for piece in (block, *block.get("citationsContent", {}).get("content", ()))]
    return Texts(
        joined(delta.get("delta", {}).get("text") for delta in deltas), joined(piece.get("text") for piece in pieces)
    )


def bedrock(base: str) -> Any:
    sdk("botocore")
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "s"}
    session = sdk("botocore.session").get_session()
    return session.create_client("bedrock-runtime", region_name="us-east-1", endpoint_url=base, **keys)


def joined(texts: Any) -> str:
    return "".join(text or "" for text in texts)


# ---- what the clients would send: their own types for it


def typed(type: Any, value: Any) -> set[str]:
    """The fields of a value of this type that the type does not know."""
    adapter = sdk("pydantic").TypeAdapter(type)  # the iterators use it, and do not hold it
    return set(lost(value, settled(adapter.validate_python(value))))


def settled(value: Any) -> Any:
    """With the iterators that pydantic makes of Iterable run to their ends: only there do they check."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, Mapping):
        return {name: settled(child) for name, child in value.items()}
    if isinstance(value, str | int | float | None):
        return value
    return [settled(child) for child in value]


def dumped(model: Any, value: Any) -> set[str]:
    """The same for a pydantic model, by what it writes of what it has read."""
    return set(lost(value, model.model_validate(value).model_dump(mode="json", by_alias=True)))


def lost(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Where the two differ. What they have beside is a default of theirs."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name, value in ours.items():
            yield from lost(value, theirs.get(name, ...), f"{path}.{name}".removeprefix("."))
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for one, other in zip(ours, theirs, strict=True):
            yield from lost(one, other, path)
    elif ours != theirs:
        yield path


def is_chat(body: Json) -> set[str]:
    return typed(sdk("openai.types.chat.completion_create_params").CompletionCreateParams, body)


def is_responses(body: Json) -> set[str]:
    """A refusal is known only as an output of the API's own, with an id and a status."""
    items = [
        {"id": "msg_1", "type": "message", "status": "completed", **item}
        if item.get("role") == "assistant" and isinstance(item["content"], list)
        else item
        for item in body["input"]
    ]
    params = sdk("openai.types.responses.response_create_params").ResponseCreateParams
    return typed(params, {**body, "input": items})


def is_anthropic(body: Json) -> set[str]:
    return typed(sdk("anthropic.types.message_create_params").MessageCreateParams, body)


def is_gemini(body: Json) -> set[str]:
    types = sdk("google.genai.types")
    known = {
        "contents": types.Content,
        "systemInstruction": types.Content,
        "tools": types.Tool,
        "toolConfig": types.ToolConfig,
        "generationConfig": types.GenerationConfig,
    }
    found = set(body) - set(known)
    for name in set(body) & set(known):
        for one in body[name] if isinstance(body[name], list) else [body[name]]:
            found |= {f"{name}.{path}" for path in dumped(known[name], one)}
    return found


def is_cohere(body: Json) -> set[str]:
    cohere = sdk("cohere")
    known = {
        "tools": cohere.ToolV2,
        "response_format": cohere.ResponseFormatV2,
        "thinking": cohere.Thinking,
        "messages": cohere.ChatMessageV2,
    }
    found = set(body) - set(inspect.signature(cohere.ClientV2.chat_stream).parameters) - {"stream"}
    for name in set(body) & set(known):
        for one in body[name] if isinstance(body[name], list) else [body[name]]:
            read = sdk("pydantic").TypeAdapter(known[name]).validate_python(one)
            found |= {f"{name}.{path}" for path in extra(read)}
    return found


def extra(value: Any) -> Iterator[str]:
    """The fields that a model let pass without knowing them."""
    if hasattr(value, "model_extra"):
        yield from value.model_extra or ()
        for name in value.model_fields_set:
            yield from extra(getattr(value, name, None))
    elif isinstance(value, list):
        for child in value:
            yield from extra(child)


def is_mistral(body: Json) -> set[str]:
    models = sdk("mistralai.client.models")
    return dumped(models.ChatCompletionStreamRequest if body.get("stream") else models.ChatCompletionRequest, body)


def is_ollama(body: Json) -> set[str]:
    ollama = sdk("ollama")
    found = dumped(sdk("ollama._types").ChatRequest, body)
    for message in body["messages"]:
        for image in message.get("images", ()):
            assert ollama.Image(value=image).model_dump() == image
        found |= dumped(ollama.Message, {name: value for name, value in message.items() if name != "images"})
    return found


def is_converse(body: Json) -> set[str]:
    shape = bedrock("http://127.0.0.1").meta.service_model.operation_model("ConverseStream").input_shape
    report = sdk("botocore.validate").ParamValidator().validate({"modelId": "m", **body}, shape)
    assert not report.has_errors(), report.generate_report()
    return set()


# ---- the table


class Judge(NamedTuple):
    """A client: the family and the provider's row that it judges."""

    family: str
    provider: str
    model: str
    texts: Callable[[str, str], Texts]
    unknown: Callable[[Json], set[str]]
    """The fields of a request that its types do not know; an exception if they refuse the request."""
    version: str = ""
    """What follows the host in its base URL."""
    unread: Mapping[str, str] = {}
    """Cases that this client is not for, and why."""
    known: frozenset[str] = frozenset()
    """Fields that its types lack and that are sent nevertheless."""


MISTRAL_UNREAD = {
    "tools": "it wants a name in every piece of a call",
    "parallel-tools": "it wants a name in every piece of a call",
    "usage-zeros-last": "it wants a finish_reason, though null",
    "no-usage": "it wants a usage",
}
MISTRAL_UNKNOWN = frozenset(
    {
        # Doubtful parameters are sent, for the server to judge.
        *("user", "min_p", "store", "safety_identifier", "logit_bias", "verbosity", "repetition_penalty", "top_k"),
        # Answers go back as they came.
        *(f"messages.{name}" for name in ("refusal", "annotations", "function_call", "audio")),
        *(f"messages.{name}" for name in ("reasoning_content", "reasoning_details")),
    }
)
JUDGES = {
    "openai": Judge(
        "chat",
        "openai",
        "gpt-5",
        chat_texts,
        is_chat,
        "/v1",
        unread={"content-parts": "content as a list of parts is Mistral's"},
        # Answers go back as they came: what the compatible servers add is for them to read.
        known=frozenset(
            {
                "messages.reasoning_content",
                "messages.reasoning_details",
                "messages.annotations",
                "messages.audio.data",
                "messages.audio.expires_at",
                "messages.audio.transcript",
            }
        ),
    ),
    "openai-responses": Judge("responses", "openai_responses", "gpt-5", responses_texts, is_responses, "/v1"),
    "anthropic": Judge(
        "anthropic",
        "anthropic",
        "claude-sonnet-4-5",
        anthropic_texts,
        is_anthropic,
        # The client has dropped what the newest models refuse; this one takes it.
        known=frozenset({"temperature", "top_p", "top_k"}),
    ),
    "google-genai": Judge(
        "gemini", "gemini", "gemini-2.5-flash", gemini_texts, is_gemini, known=frozenset({"serviceTier"})
    ),
    "cohere": Judge(
        "cohere",
        "cohere",
        "command-a-reasoning",
        cohere_texts,
        is_cohere,
        unread={"failed": "an answer that is an error"},
    ),
    "mistralai": Judge(
        "chat",
        "mistral",
        "mistral-large",
        mistral_texts,
        is_mistral,
        "/v1",
        unread=MISTRAL_UNREAD,
        known=MISTRAL_UNKNOWN,
    ),
    "ollama": Judge(
        "ollama",
        "ollama",
        "qwen3",
        ollama_texts,
        is_ollama,
        unread={"hello": "it takes U+0085 for the end of a line"},
        # It knows a part of JSON schema only.
        known=frozenset({"tools.function.parameters.additionalProperties"}),
    ),
    "botocore": Judge("converse", "bedrock", "us.anthropic.claude-sonnet-4-5", converse_texts, is_converse),
}
EACH = [(client, case) for client, judge in JUDGES.items() for case in FAMILIES[judge.family].cases]
READ = [(client, case) for client, case in EACH if case not in JUDGES[client].unread]


@pytest.fixture(scope="module")
def up() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


def base_url(up: Upstream, judge: Judge) -> str:
    return up.base_url.removesuffix("/v1") + judge.version


def answer(up: Upstream, judge: Judge, case: str, **options: Any) -> Any:
    """The response of a case, by this package."""
    given = {"api_base": base_url(up, judge), "api_key": "k", "max_retries": 0, **options}
    return completion(f"{judge.provider}/{case}", [USER], **given)


@pytest.mark.parametrize(("client", "case"), READ)
def test_clients_read_what_replay_serves(up: Upstream, client: str, case: str) -> None:
    judge = JUDGES[client]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        texts = judge.texts(base_url(up, judge), case)
    ours = answer(up, judge, case, stream=True).collect().choices[0].message.content or ""
    assert texts == (ours, ours)


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "get_forecast", "description": "Weather", "parameters": SCHEMA}}
PLAIN_TOOL = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}
FULL: Json = {
    "temperature": 0.5,
    "top_p": 0.9,
    "n": 2,
    "stop": ["END"],
    "max_tokens": 4096,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.2,
    "logit_bias": {"50256": -100},
    "user": "u1",
    "verbosity": "low",
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
    "seed": 7,
    "tools": [TOOL, PLAIN_TOOL],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "logprobs": True,
    "top_logprobs": 2,
    "service_tier": "auto",
    "store": True,
    "metadata": {"a": "b"},
    "safety_identifier": "s",
    "prompt_cache_key": "k",
    "top_k": 5,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "stream_options": {"include_usage": True},
}


def built(judge: Judge, messages: list[Any] | None = None, *, stream: bool = False, **given: Any) -> Json:
    row = PROVIDERS[judge.provider]
    parameters = {name: value for name, value in given.items() if name not in row.unsupported}
    body: Json = plain_data(
        builder(row.family)(row, judge.model, messages or [USER], select(row, parameters), stream=stream)
    )
    return body


def judged(judge: Judge, body: Json) -> None:
    assert judge.unknown(body) <= judge.known


@pytest.mark.parametrize("client", JUDGES)
def test_requests_with_every_parameter(client: str) -> None:
    judge = JUDGES[client]
    for stream in (False, True):
        judged(judge, built(judge, stream=stream, **FULL))


@pytest.mark.parametrize("client", JUDGES)
@pytest.mark.parametrize("name", FULL)
def test_requests_with_one_parameter(client: str, name: str) -> None:
    judge = JUDGES[client]
    if name in PROVIDERS[judge.provider].unsupported:
        return
    more: Json = {"tools": [TOOL]} if name in ("tool_choice", "parallel_tool_calls") else {}
    more |= {"logprobs": True} if name == "top_logprobs" else {}
    judged(judge, built(judge, stream=True, **{name: FULL[name], **more}))


@pytest.mark.parametrize("client", JUDGES)
@pytest.mark.parametrize("effort", ["none", "low", "high"])
def test_requests_that_think(client: str, effort: str) -> None:
    judge = JUDGES[client]
    judged(judge, built(judge, max_tokens=8192, reasoning_effort=effort))


@pytest.mark.parametrize("client", JUDGES)
def test_requests_with_images(client: str) -> None:
    judge = JUDGES[client]
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]},
        {"role": "assistant", "content": "A drop."},
        {"role": "user", "content": "And this?"},
    ]
    judged(judge, built(judge, messages))


@pytest.mark.parametrize(("client", "case"), EACH)
def test_answers_go_back(up: Upstream, client: str, case: str) -> None:
    """Calls are answered, thoughts and whatever else came are sent again."""
    judge = JUDGES[client]
    if case in ("failed", "blocked"):
        return
    for response in (answer(up, judge, case), answer(up, judge, case, stream=True).collect()):
        message = response.choices[0].message
        results = [
            {"role": "tool", "tool_call_id": call.id, "content": "12 degrees"} for call in message.tool_calls or ()
        ]
        judged(judge, built(judge, [USER, message, *results, {"role": "user", "content": "And now?"}], tools=[TOOL]))


# ---- where the clients of Google Cloud go


def seen(ask: Callable[[Any], Any], http: Any = httpx) -> Any:
    """The request that a client sends by this library; no answer is good enough for it."""
    requests: list[Any] = []

    def refuse(request: Any) -> Any:
        requests.append(request)
        return http.Response(400, json={"error": {"message": "seen"}})

    with http.Client(transport=http.MockTransport(refuse)) as client, pytest.raises(Exception, match="seen"):
        ask(client)
    return requests[0]


def ours(model: str, **options: Any) -> Any:
    options = {"messages": [USER], "api_key": "token", "vertex_project": "p", **options}
    return seen(lambda client: completion(f"vertex_ai/{model}", client=client, **options))


LOCATIONS = ["global", "us", "eu", "us-central1"]


@pytest.mark.parametrize("location", LOCATIONS)
@pytest.mark.parametrize("stream", [False, True])
def test_claude_is_asked_where_its_own_client_asks(location: str, stream: bool) -> None:
    vertex = sdk("anthropic").AnthropicVertex

    def ask(client: Any) -> Any:
        theirs = vertex(region=location, project_id="p", access_token="token", http_client=client, max_retries=0)
        return theirs.messages.create(model="claude-m@1", max_tokens=9, messages=[USER], stream=stream)

    expected = seen(ask, sdk("httpx2"))
    asked = ours("claude-m@1", max_tokens=9, stream=stream, vertex_location=location)
    assert str(asked.url) == str(expected.url)
    assert asked.headers["authorization"] == expected.headers["authorization"]
    said, wanted = json.loads(asked.content), json.loads(expected.content)
    said["messages"] = [{**message, "content": message["content"][0]["text"]} for message in said["messages"]]
    # Newer clients name a newer version of the API; the one named here is that of the wire that is read here.
    assert said.pop("anthropic_version") == "vertex-2023-10-16"
    assert wanted.pop("anthropic_version")
    assert said == {name: value for name, value in wanted.items() if value is not False}


@pytest.mark.parametrize("location", LOCATIONS)
@pytest.mark.parametrize("stream", [False, True])
def test_gemini_is_asked_where_its_own_client_asks(location: str, stream: bool) -> None:
    genai = sdk("google.genai")
    credentials = sdk("google.oauth2.credentials").Credentials("token")

    def ask(client: httpx.Client) -> Any:
        options = {"api_version": "v1", "httpx_client": client}
        theirs = genai.Client(
            vertexai=True, project="p", location=location, credentials=credentials, http_options=options
        )
        if stream:
            return list(theirs.models.generate_content_stream(model="gemini-m", contents="Hello"))
        return theirs.models.generate_content(model="gemini-m", contents="Hello")

    expected, asked = seen(ask), ours("gemini-m", stream=stream, vertex_location=location)
    assert str(asked.url) == str(expected.url)
    assert asked.headers["authorization"] == expected.headers["authorization"]
    assert json.loads(asked.content) == json.loads(expected.content)


def test_an_api_key_is_sent_where_googles_own_client_sends_it() -> None:
    genai = sdk("google.genai")

    def ask(client: httpx.Client) -> Any:
        options = {"api_version": "v1", "httpx_client": client}
        theirs = genai.Client(vertexai=True, api_key="AIzaExample", http_options=options)
        return theirs.models.generate_content(model="gemini-m", contents="Hello")

    expected, asked = seen(ask), ours("gemini-m", api_key="AIzaExample", vertex_project=None)
    assert str(asked.url) == str(expected.url)
    assert asked.headers["x-goog-api-key"] == expected.headers["x-goog-api-key"]
