"""The tool calls of a stream, each handed out when it is complete."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .errors import APIResponseValidationError
from .stream import Flow

QUOTED = 200
"""Characters of arguments that are no JSON object which an error shows."""


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A model's call of a function, complete.

    id: to answer it by. arguments: by name, as the model gave them: nobody has held them against the function's schema.
    index: its place among the tool calls of its message. choice: whose message that is.
    """

    id: str | None
    name: str | None
    arguments: dict[str, Any]
    index: int
    choice: int


class CallReader:
    """Chunks in, complete calls out. What the pieces amount to is the decoder's to say; here is when to ask it.

    A call is complete when its arguments are a whole JSON object, behind which nothing can follow, and another call or
    the end of its choice has come. So calls whose pieces are interleaved are right too.
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._given: dict[tuple[int, int], str] = {}
        self._last: tuple[int, Any] | None = None
        self._closed = False
        self._called = False

    def feed(self, chunk: Any) -> Iterator[FunctionCall]:
        """The calls that this chunk shows to be complete."""
        ends, moved = False, False
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or ():
                at = choice.index, call.index
                moved |= self._closed and at != self._last
                arguments = call.function.arguments if call.function is not None else None
                self._last, self._called = at, True
                self._closed |= (arguments or "").rstrip().endswith("}")
            ends |= choice.finish_reason is not None
        if self._called and (ends or moved):
            self._closed = False
            yield from self._complete()

    def finish(self) -> Iterator[FunctionCall]:
        """The calls that the end of the stream leaves.

        Raises:
            APIResponseValidationError: one of them never became complete.
        """
        if not self._called:
            return
        yield from self._complete()
        for choice in self._response().choices:
            for index, call in enumerate(choice.message.tool_calls or ()):
                if call.function is None:
                    continue
                text, given = call.function.arguments or "", self._given.get((choice.index, index))
                if given != text:
                    why = "went on behind their end" if given is not None else _problem(text)
                    cut = "; the answer was cut at its token limit" if choice.finish_reason == "length" else ""
                    raise self._flow.complete(
                        APIResponseValidationError(
                            f"the arguments of tool call {index} ({call.function.name}, {call.id}) {why}{cut}; "
                            f"they begin {text[:QUOTED]!r}",
                            body=text,
                        )
                    )

    def _response(self) -> Any:
        response = self._flow.decoder.response()
        if response is None:
            raise APIResponseValidationError("tool calls need what keep_partial=False, or reading text, does not keep")
        return response

    def _complete(self) -> Iterator[FunctionCall]:
        for choice in self._response().choices:
            for index, call in enumerate(choice.message.tool_calls or ()):
                place, function = (choice.index, index), call.function
                if function is None or place in self._given:
                    continue
                text = function.arguments or ""
                # Functions without parameters are called with no text at all by some.
                arguments = _object(text) if text or choice.finish_reason is None else {}
                if arguments is not None:
                    self._given[place] = text
                    yield FunctionCall(call.id, function.name, arguments, index, choice.index)


def _object(text: str) -> dict[str, Any] | None:
    """The object that the text is, None if it is none yet."""
    import orjson

    try:
        value = orjson.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _problem(text: str) -> str:
    import orjson

    try:
        orjson.loads(text)
    except ValueError as error:
        return f"are not JSON: {error}"
    return "are no JSON object"
