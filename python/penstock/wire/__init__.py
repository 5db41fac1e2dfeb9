"""Requests: one module per wire family, each with the same `build`. Here is what they share.

    build(provider, model, messages, parameters, *, stream) -> dict

`parameters` are the caller's, already judged by `select`; the result is the request body as plain data.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any, Literal, TypedDict

from ..errors import BadRequestError, UnsupportedParamsError
from ..providers.registry import Provider

type_of = type


class Unformatted(TypedDict, total=False):
    """Parameters without the response format, whose type is that of the result."""

    temperature: float | None
    top_p: float | None
    n: int | None
    stream_options: Mapping[str, Any] | None
    stop: str | Sequence[str] | None
    max_tokens: int | None
    max_completion_tokens: int | None
    modalities: Sequence[str] | None
    prediction: Mapping[str, Any] | None
    audio: Mapping[str, Any] | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Mapping[str, float] | Mapping[int, float] | None
    user: str | None
    reasoning_effort: str | None
    verbosity: Literal["low", "medium", "high"] | None
    seed: int | None
    tools: Sequence[Any] | None
    tool_choice: str | Mapping[str, Any] | None
    parallel_tool_calls: bool | None
    logprobs: bool | None
    top_logprobs: int | None
    functions: Sequence[Mapping[str, Any]] | None
    function_call: str | Mapping[str, Any] | None
    web_search_options: Mapping[str, Any] | None
    service_tier: str | None
    store: bool | None
    metadata: Mapping[str, Any] | None
    safety_identifier: str | None
    prompt_cache_key: str | None
    thinking: Mapping[str, Any] | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None


class Parameters(Unformatted, total=False):
    """What goes to the model: OpenAI's parameters, and samplers that several families share. None means not given."""

    response_format: Mapping[str, Any] | type | None


Build = Callable[..., dict[str, Any]]


@cache
def builder(family: str) -> Build:
    """The `build` of a wire family.

    Raises:
        BadRequestError: no request can be built for this family.
    """
    try:
        module = import_module(f"{__name__}.{family}")
    except ModuleNotFoundError:
        raise BadRequestError(f"no requests of the family {family!r}") from None
    build: Build = module.build
    return build


def select(
    provider: Provider,
    given: Mapping[str, Any],
    *,
    drop_params: bool = False,
    additional_drop_params: Iterable[str] = (),
    allowed_openai_params: Iterable[str] = (),
) -> dict[str, Any]:
    """The parameters to send, under the provider's names and with its spellings.

    Raises:
        UnsupportedParamsError: the provider lacks one of them, and neither drop_params nor allowed_openai_params says
            what to do about it.
        BadRequestError: two of them are the same parameter to this provider, and differ.
    """
    dropped, allowed = frozenset(additional_drop_params), frozenset(allowed_openai_params)
    chosen: dict[str, Any] = {}
    for name, value in given.items():
        if value is None or name in dropped:
            continue
        if name in provider.unsupported and name not in allowed:
            if drop_params:
                continue
            raise UnsupportedParamsError(
                f"{provider.slug} has no parameter {name}. drop_params=True leaves it out, "
                f"allowed_openai_params=[{name!r}] sends it all the same",
                param=name,
                provider=provider.slug,
            )
        named = provider.renames.get(name, name)
        if isinstance(value, str):
            named = provider.words.get(name, named)
        spelled = provider.spellings.get(name, {}).get(value, value) if isinstance(value, str) else value
        if chosen.setdefault(named, spelled) != spelled:
            raise BadRequestError(f"{name} and {named} differ, but are one to {provider.slug}", param=name)
    return chosen


def set_fields(body: dict[str, Any], provider: Provider, values: Mapping[str, str]) -> None:
    """The fields that the row adds to the body, or leaves out of it."""
    for name, template in provider.fields.items():
        body.pop(name, None)
        with suppress(KeyError):  # a setting that has no value
            if template is not None:
                body[name] = template.format_map(values)


def plain(value: Any) -> Any:
    """What orjson does not know as plain data: pydantic models, this package's own objects, other mappings.

    Raises:
        TypeError: something that has no JSON form.
    """
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        # Pydantic's own default writes every unset field as null, which several servers refuse in messages.
        return dump(exclude_none=True) if hasattr(type_of(value), "model_fields") else dump()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | bytearray | memoryview):
        return list(value)
    if hasattr(type_of(value), "__struct_fields__"):
        return {name: getattr(value, name) for name in type_of(value).__struct_fields__}
    raise TypeError(f"{type_of(value).__name__} has no JSON form")


def encode(body: Any) -> bytes:
    """The request body, or a part of it, as JSON.

    Raises:
        BadRequestError: something in it has no JSON form.
    """
    import orjson

    try:
        return orjson.dumps(body, default=plain, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as error:
        raise BadRequestError(f"the request cannot be written as JSON: {error.__cause__ or error}") from None


def response_format(value: Any) -> Any:
    """A `response_format` as the API takes it: a type becomes its strict JSON schema, anything else stays.

    Pydantic models, msgspec structs and dataclasses are understood.

    Raises:
        BadRequestError: a type whose JSON schema nobody here knows.
    """
    if not isinstance(value, type):
        return value
    from .schema import strict_schema

    return {
        "type": "json_schema",
        "json_schema": {"name": value.__name__, "strict": True, "schema": strict_schema(value)},
    }


ANSWER_TOOL = "json_answer"
"""The tool that a model is told to call with its answer where it has no other way to give JSON. Decoders that know its
name give the arguments as content."""


def answer_by_tool(provider: Provider, wanted: Mapping[str, Any], tools: Sequence[Any] | None, choice: Any) -> Any:
    """Tools and choice with the answer as a tool of its own, in OpenAI's words; `wanted` is the response_format.

    A choice of one of the caller's own functions leaves no room for an answer, and stays.

    Raises:
        UnsupportedParamsError: a schema of something else than an object, which no tool takes.
    """
    given = list(tools or ())
    if isinstance(choice, Mapping):
        return given, choice
    described = wanted.get("json_schema") or {}
    schema = described.get("schema") or {"type": "object"}
    if schema.get("type", "object") != "object":
        raise UnsupportedParamsError(
            f"{provider.slug} gives JSON by a tool, whose schema must be an object's, not that of {schema['type']!r}",
            param="response_format",
            provider=provider.slug,
        )
    function = {
        "name": ANSWER_TOOL,
        "description": described.get("description") or "Gives the final answer, in the form that the user asked for.",
        "parameters": schema,
    }
    alone = {"type": "function", "function": {"name": ANSWER_TOOL}}
    return [*given, {"type": "function", "function": function}], "required" if given and choice != "none" else alone


def plain_data(value: Any) -> Any:
    """Messages, tools and the like as dicts and lists all the way down, whatever objects they were made of.

    Raises:
        BadRequestError: something in it has no JSON form.
    """
    import orjson

    return orjson.loads(encode(value))


def call_id(given: Any, length: int) -> str:
    """The id of a tool call from any provider as so many letters and digits, the same each time."""
    text = str(given or "")
    if len(text) == length and text.isascii() and text.isalnum():
        return text
    from hashlib import sha256

    return sha256(text.encode()).hexdigest()[:length]


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message, its content a string or parts of which only the texts count."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part["text"] for part in content if part.get("type") == "text")


def turns_of(
    messages: Iterable[dict[str, Any]], blocks: Mapping[str, Callable[[dict[str, Any]], list[dict[str, Any]]]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The system blocks, and the turns, for families in which roles alternate: neighbours of one role are one turn.

    `blocks` makes a message's blocks, by its role: user (system and developer too), assistant, tool.

    Raises:
        BadRequestError: a message of another role.
    """
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = message.get("role")
        if role in ("system", "developer"):
            system += blocks["user"](message)
            continue
        if not isinstance(role, str) or role not in blocks:
            raise BadRequestError(f"no message may have the role {role!r}", param="messages")
        given = blocks[role](message)
        if not given:
            continue
        # What a tool answers is the user's to say.
        speaker = "assistant" if role == "assistant" else "user"
        if turns and turns[-1]["role"] == speaker:
            turns[-1]["content"] += given
        else:
            turns.append({"role": speaker, "content": given})
    return system, turns


def split_data_url(url: str) -> tuple[str, str] | None:
    """The media type and the base64 of a data URL; None for any other."""
    head, comma, data = url.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        return None
    return head.removeprefix("data:").removesuffix(";base64").partition(";")[0], data
