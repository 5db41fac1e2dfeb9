"""One way to set defaults: a value that is swapped whole, for the process or for a block."""

import asyncio
import dataclasses
import threading
from collections.abc import Iterator
from unittest.mock import patch

import pytest

import penstock
from penstock import BadRequestError, Defaults, Timeouts, UnsupportedParamsError, completion, configuration
from penstock.configuration import current

MESSAGES = [{"role": "user", "content": "Hello"}]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = configuration._process
    yield
    configuration._process = before


def test_a_call_takes_what_it_does_not_say() -> None:
    with pytest.raises(UnsupportedParamsError):
        completion("claude-sonnet-4-5", MESSAGES, seed=1, mock_response="hi")
    penstock.configure(drop_params=True)
    assert completion("claude-sonnet-4-5", MESSAGES, seed=1, mock_response="hi").choices[0].message.content == "hi"
    with pytest.raises(UnsupportedParamsError):
        completion("claude-sonnet-4-5", MESSAGES, seed=1, mock_response="hi", drop_params=False)


def test_what_is_not_named_stays() -> None:
    penstock.configure(timeout=3, max_retries=0)
    assert penstock.configure(drop_params=True) == Defaults(timeout=3, max_retries=0, drop_params=True)


def test_a_value_is_swapped_and_never_changed() -> None:
    before = current()
    after = penstock.configure(timeout=Timeouts(total=9))
    assert current() is after
    assert before.timeout is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        after.timeout = 3  # type: ignore[misc]


def test_for_a_block() -> None:
    penstock.configure(timeout=3)
    with penstock.configured(max_retries=0) as inner:
        assert current() is inner == Defaults(timeout=3, max_retries=0)
    assert current() == Defaults(timeout=3)


def test_a_block_is_of_its_task_and_thread() -> None:
    seen = []

    async def main() -> None:
        async def inside() -> None:
            with penstock.configured(timeout=1):
                await asyncio.sleep(0.01)
                seen.append(current().timeout)

        async def outside() -> None:
            await asyncio.sleep(0.005)
            seen.append(current().timeout)

        await asyncio.gather(inside(), outside())

    asyncio.run(main())
    with penstock.configured(timeout=2):
        thread = threading.Thread(target=lambda: seen.append(current().timeout))
        thread.start()
        thread.join()
    assert seen == [None, 1, None]


KNOWN = frozenset({"max_retries", "num_retries"})


def test_both_names_of_a_keyword() -> None:
    filled = Defaults(max_retries=5).under({"num_retries": 1}, KNOWN)
    assert "max_retries" not in filled
    assert Defaults(max_retries=5).under({"num_retries": None}, KNOWN)["max_retries"] == 5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"drop_parms": True}, "did you mean drop_params"),
        ({"api_key": "sk-x"}, "all else is given with each call"),
        ({"timeout": "soon"}, "timeout must be"),
        ({"hooks": "otel"}, "list of hooks"),
    ],
)
def test_defaults_that_cannot_be(changes: dict[str, object], says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        penstock.configure(**changes)


@pytest.mark.parametrize("flag", ["drop_params", "num_retries", "api_key", "success_callback", "set_verbose"])
def test_there_are_no_flags(flag: str) -> None:
    with pytest.raises(AttributeError, match=rf"no flag {flag}.*penstock\.configure"):
        setattr(penstock, flag, True)
    assert not hasattr(penstock, flag)


def test_what_is_there_can_be_replaced() -> None:
    with patch("penstock.completion", lambda **_: "mocked"):
        assert penstock.completion(model="gpt-4o", messages=[]) == "mocked"
    assert penstock.completion is completion
