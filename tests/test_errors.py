"""The exception tree."""

import copy
import pickle
from typing import Any

import pytest

import penstock
from penstock import errors
from penstock.errors import APIError, Headers, Response

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, APIError)]


def tree() -> dict[str, str]:
    """Child and parent, as drawn at the top of the module."""
    assert errors.__doc__ is not None
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in errors.__doc__.splitlines():
        depth = (len(line) - len(line.lstrip(" │├└─")) - 4) // 4
        name = line.lstrip(" │├└─").split(" ")[0]
        if hasattr(errors, name) and line.startswith("    "):
            del above[depth:]
            if above:
                parents[name] = above[-1]
            above.append(name)
    return parents


def test_the_drawing_is_the_tree() -> None:
    drawn = tree()
    assert drawn == {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES if cls is not APIError}
    assert len(drawn) == 19


def test_the_drawing_says_what_is_retried() -> None:
    assert errors.__doc__ is not None
    for line in errors.__doc__.splitlines():
        name = line.lstrip(" │├└─").split(" ")[0]
        if name in tree():
            assert getattr(errors, name).retryable == ("  retried" in line), name


def test_all_of_them_are_exported() -> None:
    assert {cls.__name__ for cls in CLASSES} | {"APITimeoutError"} <= set(penstock.__all__)
    assert penstock.APITimeoutError is penstock.Timeout


@pytest.mark.parametrize("cls", CLASSES)
def test_errors_survive_copies(cls: type[APIError]) -> None:
    headers = Headers.of([("X-Request-Id", "r")])
    error: Any = cls(
        "no",
        status_code=418,
        provider="p",
        model="m",
        code="c",
        body={"error": {}},
        headers=headers,
        response=Response(418, headers),
    )
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is cls
        assert str(twin) == str(error)
        assert vars(twin)["response"].status_code == 418
        assert {**vars(twin), "response": None} == {**vars(error), "response": None}


def test_attributes_can_be_set_and_are_filled_once() -> None:
    error = APIError("no", model="m")
    error.fill(provider="p", model="other")
    assert (error.provider, error.llm_provider, error.model) == ("p", "p", "m")
    error.llm_provider = "q"
    assert error.provider == "q"


def test_the_message_comes_first() -> None:
    assert str(APIError("no")) == "no"
    error = APIError("no", provider="p", model="m", status_code=400, request_id="r")
    assert str(error) == "no (p/m, status 400, request r)"


def test_headers_are_found_in_any_case() -> None:
    headers = Headers.of([("X-A", "1"), ("x-a", "2"), ("Set-Cookie", "secret")])
    assert headers["X-a"] == headers.get("x-A") == "1, 2"
    assert "X-A" in headers
    assert "set-cookie" not in headers
    assert dict(headers) == {"x-a": "1, 2"}
    assert pickle.loads(pickle.dumps(headers)) == headers
