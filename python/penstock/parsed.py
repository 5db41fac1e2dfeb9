"""Responses to `response_format=SomeType`: the classes of a complete response, with the message's content as a value.

    response.choices[0].message.parsed

The value is made when it is first asked for, so that an answer which does not fit is still there to be looked at.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from ._native import ChatCompletion, ChatCompletionMessage, Choice
from .errors import APIResponseValidationError
from .wire.schema import read

T_co = TypeVar("T_co", covariant=True)

QUOTED = 200
"""Characters of a text that does not fit which an error shows."""

CUT = {
    "length": "the answer was cut at its token limit before it was whole",
    "content_filter": "the answer was cut by a content filter",
}
"""By finish reason: what has no value though it may look like one."""

_UNREAD: Any = object()


class ParsedChatCompletionMessage(ChatCompletionMessage, Generic[T_co]):
    """The message of a complete response, with its content as a value of the type that was asked for."""

    __slots__ = ("_cls", "_finish_reason", "_value")
    _cls: "type[T_co]"
    _finish_reason: str | None
    _value: Any

    def __new__(cls, fields: Mapping[str, Any], type: "type[T_co]", finish_reason: str | None = None) -> Self:
        """Of a message's fields, the type, and the finish reason of its choice."""
        self = super().__new__(cls, fields)
        self._cls, self._finish_reason, self._value = type, finish_reason, _UNREAD
        return self

    @property
    def parsed(self) -> T_co | None:
        """The content as a value of the type; None where there is none: a refusal, tool calls. No key, never dumped.

        Raises:
            APIResponseValidationError: the content does not fit, or was cut. `body` is the whole of it.
        """
        if self._value is _UNREAD:
            self._value = self._read()
        value: T_co | None = self._value
        return value

    def _read(self) -> Any:
        wanted, text = self._cls, self.content
        if self._finish_reason in CUT:
            why = f"{CUT[self._finish_reason]} (finish_reason {self._finish_reason!r})"
        elif not text or self.refusal:
            return None
        else:
            try:
                return read(wanted, text)
            except Exception as error:  # noqa: BLE001  a type's own checks raise what they like
                why, cause = _reason(error), error
            raise _misfit(wanted, why, text) from cause
        raise _misfit(wanted, why, text)

    def __reduce__(self) -> tuple[Any, ...]:
        return ParsedChatCompletionMessage, (self.model_dump(), self._cls, self._finish_reason)


class ParsedChoice(Choice, Generic[T_co]):
    """One choice of a complete response, its message with a value."""

    __slots__ = ("_cls",)
    _cls: "type[T_co]"

    def __new__(cls, fields: Mapping[str, Any], type: "type[T_co]") -> Self:
        """Of a choice's fields and the type."""
        message: Any = ParsedChatCompletionMessage(fields["message"], type, fields.get("finish_reason"))
        self = super().__new__(cls, {**fields, "message": message})
        self._cls = type
        return self

    if TYPE_CHECKING:

        @property
        def message(self) -> ParsedChatCompletionMessage[T_co]:
            """The message."""

    def __reduce__(self) -> tuple[Any, ...]:
        return ParsedChoice, (self.model_dump(), self._cls)


class ParsedChatCompletion(ChatCompletion, Generic[T_co]):
    """A complete response in which `choices[i].message.parsed` is a value of the type that was asked for."""

    __slots__ = ("_cls",)
    _cls: "type[T_co]"

    def __new__(cls, fields: Mapping[str, Any], type: "type[T_co]") -> Self:
        """Of a response's fields and the type."""
        choices: Any = [ParsedChoice(choice, type) for choice in fields["choices"]]
        self = super().__new__(cls, {**fields, "choices": choices})
        self._cls = type
        return self

    if TYPE_CHECKING:

        @property
        def choices(self) -> list[ParsedChoice[T_co]]:  # type: ignore[override]  # nobody writes to a response's list
            """The choices."""

    def __reduce__(self) -> tuple[Any, ...]:
        return ParsedChatCompletion, (self.model_dump(), self._cls)


def _reason(error: Exception) -> str:
    """What does not fit, and where, in one line; pydantic has a page for it."""
    errors = getattr(error, "errors", None)
    found = errors() if callable(errors) else ()
    if not found:
        return str(error) or type(error).__name__
    where = ".".join(map(str, found[0]["loc"]))
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{where}: {found[0]['msg']}{more}" if where else f"{found[0]['msg']}{more}"


def _misfit(wanted: type, why: str, text: str | None) -> APIResponseValidationError:
    shown = f"; it begins {text[:QUOTED]!r}" if text else ""
    return APIResponseValidationError(f"the answer is no {wanted.__name__}: {why}{shown}", body=text)
