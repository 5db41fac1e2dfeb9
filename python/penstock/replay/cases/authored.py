"""A stream of JSON documents, for families whose events need no more than a frame each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..family import Json, dump

if TYPE_CHECKING:
    from collections.abc import Callable


class Authored(NamedTuple):
    """Events, and the same as one response."""

    about: str
    events: list[Json]
    response: Json
    frame: Callable[[Json], bytes]
    """An event on the wire."""
    without_usage: Callable[[Json], Json]
    """An event or the response, less its usage."""
    mark: bytes = b""
    """What ends the stream, where something does."""

    def frames(self, *, asked: bool, usage: bool, done: bool) -> list[bytes]:  # noqa: ARG002  as `Case` has it
        """The stream; see `Case`. Usage comes unasked in these families."""
        frames = [self.frame(event if usage else self.without_usage(event)) for event in self.events]
        return [*frames, self.mark] if done and self.mark else frames

    def single(self, *, usage: bool) -> bytes:
        """The response; see `Case`."""
        return dump(self.response if usage else self.without_usage(self.response))
