"""`response_format=SomeType`: the value at `choices[0].message.parsed`, however the answer comes."""

import copy
import dataclasses
import enum
import json
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import pydantic
import pytest

from penstock import (
    APIResponseValidationError,
    ChatCompletion,
    ParsedChatCompletion,
    ParsedChoice,
    Router,
    Stream,
    acompletion,
    completion,
)
from penstock.replay import Upstream
from penstock.replay.cases.chat import _chat, _text
from penstock.wire.schema import read

USER = {"role": "user", "content": "Where?"}


class City(pydantic.BaseModel):
    name: str
    inhabitants: int | None = None


class CityStruct(msgspec.Struct):
    name: str
    inhabitants: int | None = None


@dataclasses.dataclass
class CityData:
    name: str
    inhabitants: int | None = None


KINDS = [City, CityStruct, CityData]
PARIS = '{"name":"Paris","inhabitants":2102650}'


def mock(content: str | None, finish_reason: str = "stop", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **more}
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}]}


def asked(wanted: type, given: Any) -> Any:
    """The message of an answer that is there already."""
    response: Any = completion("openai/gpt-4o", [USER], response_format=wanted, mock_response=given)
    return response.choices[0].message


def misfit(wanted: type, given: Any) -> APIResponseValidationError:
    message = asked(wanted, given)
    with pytest.raises(APIResponseValidationError) as caught:
        _ = message.parsed
    return caught.value


# Where it is ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_parsed_of_a_response_and_of_a_collected_stream(world: Any, kind: type) -> None:
    response = world.ask("gpt-4o", mock_response=PARIS, response_format=kind)
    _, stream = world.stream("gpt-4o", mock_response=PARIS, response_format=kind)
    for answer in (response, stream._collected()):
        assert answer.choices[0].message.parsed == kind(name="Paris", inhabitants=2102650)
        assert answer.choices[0].message.parsed is answer.choices[0].message.parsed


def test_parsed_off_the_wire(world: Any, up: Upstream) -> None:
    up.recorded["paris"] = _chat("paris", "JSON", _text(PARIS), prompt=1, completion=2)  # type: ignore[assignment]
    response = world.ask("paris", response_format=CityData)
    _, stream = world.stream("paris", response_format=CityData)
    assert response.choices[0].message.parsed == CityData("Paris", 2102650)
    assert stream._collected().choices[0].message.parsed == CityData("Paris", 2102650)
    assert response.usage.source == "reported"


def test_parsed_through_a_router() -> None:
    router = Router(
        model_list=[{"model_name": "m", "litellm_params": {"model": "openai/gpt-4o", "mock_response": PARIS}}]
    )
    response: ParsedChatCompletion[City] = router.completion("m", [USER], response_format=City)
    assert response.choices[0].message.parsed == City(name="Paris", inhabitants=2102650)


def test_parsed_is_no_field() -> None:
    response = completion("openai/gpt-4o", [USER], response_format=City, mock_response=PARIS)
    plain = completion("openai/gpt-4o", [USER], mock_response=PARIS)
    assert isinstance(response, ChatCompletion)
    message = response.choices[0].message
    assert message.parsed is not None
    assert "parsed" not in message
    assert list(message) == list(plain.choices[0].message) == ["role", "content"]
    assert response.model_dump()["choices"] == plain.model_dump()["choices"]
    assert "parsed" not in response.model_dump_json()
    assert not hasattr(plain.choices[0].message, "parsed")
    assert not hasattr(
        completion("openai/gpt-4o", [USER], response_format={"type": "json_object"}, mock_response=PARIS)
        .choices[0]
        .message,
        "parsed",
    )


def test_every_choice_has_its_own() -> None:
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": json.dumps({"name": name})},
            "finish_reason": "stop",
        }
        for index, name in enumerate(["Paris", "Rome"])
    ]
    response = completion("openai/gpt-4o", [USER], n=2, response_format=City, mock_response={"choices": choices})
    assert [choice.message.parsed for choice in response.choices] == [City(name="Paris"), City(name="Rome")]


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_know_the_type_too(again: Any) -> None:
    response = completion("openai/gpt-4o", [USER], response_format=CityData, mock_response=PARIS)
    copied = again(response)
    assert type(copied) is ParsedChatCompletion
    assert copied == response
    for choice in (copied.choices[0], again(response.choices[0])):
        assert type(choice) is ParsedChoice
        assert choice.message.parsed == CityData("Paris", 2102650)
    assert again(response.choices[0].message).parsed == CityData("Paris", 2102650)


def test_types_of_the_results() -> None:
    """As mypy sees them: it checks these assignments, and what runs is what it believes."""
    response: ParsedChatCompletion[City] = completion(
        "openai/gpt-4o", [USER], response_format=City, temperature=0, mock_response=PARIS
    )
    city: City | None = response.choices[0].message.parsed
    stream: Stream[ParsedChatCompletion[City]] = completion(
        "openai/gpt-4o", [USER], response_format=City, stream=True, mock_response=PARIS
    )
    assert city == stream.collect().choices[0].message.parsed
    plain: Stream = completion("openai/gpt-4o", [USER], stream=True, mock_response="Hi")
    whole: ChatCompletion = plain.collect()
    assert whole.choices[0].message.content == "Hi"


async def _typed() -> int | None:
    """Not run: mypy reads it."""
    stream = await acompletion("openai/gpt-4o", [USER], response_format=City, stream=True)
    whole: ParsedChatCompletion[City] = await stream.collect()
    city = whole.choices[0].message.parsed
    return city.inhabitants if city is not None else None


# What has none --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        mock(None, refusal="I must not."),
        mock('{"name": "half', refusal="I must not."),
        mock(None, "tool_calls", tool_calls=[{"id": "c", "type": "function", "function": {"name": "f"}}]),
        mock(""),
    ],
)
def test_a_refusal_and_a_tool_call_have_no_value(given: Any) -> None:
    assert asked(City, given).parsed is None


@pytest.mark.parametrize(("finish", "why"), [("length", "token limit"), ("content_filter", "content filter")])
def test_a_cut_answer_has_no_value(finish: str, why: str) -> None:
    error = misfit(CityData, mock(PARIS, finish))
    assert "no CityData" in error.message
    assert why in error.message
    assert f"finish_reason '{finish}'" in error.message


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_json_is_an_error_that_shows_its_beginning(kind: type) -> None:
    error = misfit(kind, "Paris, of course! " + "It is lovely. " * 100)
    assert f"no {kind.__name__}" in error.message
    assert "it begins 'Paris, of course! It is" in error.message
    assert len(error.message) < 600
    assert len(error.body) > 1000


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_fit_is_an_error_that_names_the_field(kind: type) -> None:
    message = asked(kind, '{"name": "Paris", "inhabitants": "many"}')
    with pytest.raises(APIResponseValidationError, match="inhabitants") as caught:
        _ = message.parsed
    assert "\n" not in caught.value.message
    assert caught.value.__cause__ is not None
    assert message.content == '{"name": "Paris", "inhabitants": "many"}'


# Dataclasses ----------------------------------------------------------------------------------------------------------


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


@dataclasses.dataclass
class Step:
    text: str
    next: "Step | None" = None


@dataclasses.dataclass(frozen=True)
class Everything:
    step: Step
    steps: list[Step]
    mood: Mood
    how: Literal["fast", 1]
    score: float
    count: int
    sure: bool
    nothing: None
    anything: Any
    either: int | str | Step
    by_name: dict[str, Step]
    mapped: Mapping[str, int]
    tags: set[str]
    frozen: frozenset[int]
    several: Sequence[int]
    pairs: tuple[int, ...]
    maybe: float | None = None
    made: list[int] = dataclasses.field(default_factory=list)
    derived: int = dataclasses.field(init=False, default=7)


DATA: dict[str, Any] = {
    "step": {"text": "a", "next": {"text": "b", "next": None}},
    "steps": [{"text": "c"}],
    "mood": "bad",
    "how": 1,
    "score": 1,
    "count": 2.0,
    "sure": True,
    "nothing": None,
    "anything": {"x": [1]},
    "either": {"text": "d"},
    "by_name": {"e": {"text": "f"}},
    "mapped": {"g": 1},
    "tags": ["h", "h"],
    "frozen": [1],
    "several": [1, 2],
    "pairs": [3, 4],
    "unknown": "passed over",
}


def test_a_dataclass_is_built_all_the_way_down() -> None:
    made = read(Everything, json.dumps(DATA))
    assert made == Everything(
        step=Step("a", Step("b")),
        steps=[Step("c")],
        mood=Mood.BAD,
        how=1,
        score=1.0,
        count=2,
        sure=True,
        nothing=None,
        anything={"x": [1]},
        either=Step("d"),
        by_name={"e": Step("f")},
        mapped={"g": 1},
        tags={"h"},
        frozen=frozenset({1}),
        several=[1, 2],
        pairs=(3, 4),
    )
    assert type(made.score) is float
    assert type(made.count) is int
    assert made.derived == 7


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"step": {"text": "a", "next": {"text": 1}}}, "step.next.text must be a string, not 1"),
        ({"steps": [{"text": "a"}, {}]}, "steps[1].text is missing"),
        ({"steps": {"text": "a"}}, "steps must be an array, not an object"),
        ({"mood": "so so"}, "mood must be one of 'good', 'bad', not 'so so'"),
        ({"how": True}, "how must be one of 'fast', 1, not true"),
        ({"count": 2.5}, "count must be an integer, not 2.5"),
        ({"count": True}, "count must be an integer, not true"),
        ({"score": "1"}, "score must be a number, not '1'"),
        ({"sure": None}, "sure must be a boolean, not null"),
        ({"nothing": 0}, "nothing must be null, not 0"),
        ({"by_name": {"e": []}}, "by_name.e must be an object, not an array"),
        ({"maybe": "x"}, "maybe must be a number, not 'x'"),
        ({"either": None}, "either must be an integer, not null or either must be a string, not null or either must"),
    ],
)
def test_what_does_not_fit_a_dataclass(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError) as caught:  # the message is what is tested
        read(Everything, json.dumps({**DATA, **change}))
    assert says in str(caught.value)


def test_a_type_that_checks_itself_is_heard() -> None:
    @dataclasses.dataclass
    class Even:
        number: int

        def __post_init__(self) -> None:
            if self.number % 2:
                raise ArithmeticError("odd")

    assert asked(Even, '{"number": 2}').parsed == Even(2)
    error = misfit(Even, '{"number": 3}')
    assert "no Even: odd" in error.message
    assert isinstance(error.__cause__, ArithmeticError)
