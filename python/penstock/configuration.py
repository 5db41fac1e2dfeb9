"""Defaults for every call: one frozen value, swapped whole. A call reads it once, when it begins."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

from .clocks import Timeouts
from .errors import BadRequestError

ALIASES = {"num_retries": "max_retries"}
"""Other names of a keyword: a call that gives one of the two needs no default for the other."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a call does where its own arguments say nothing. None is as if it were not here.

    timeout, max_retries, drop_params, additional_drop_params, fallbacks, content_policy_fallbacks, proxy, verify,
        cert, http2, keep_partial, estimate_usage: as `completion` takes them.
    hooks: told of every call, before those that the call brings itself.
    prices: the caller's own prices, by model, as `completion_cost` takes them.
    """

    timeout: "float | Timeouts | Any" = None
    max_retries: int | None = None
    drop_params: bool | None = None
    additional_drop_params: Sequence[str] | None = None
    fallbacks: "Sequence[str | Mapping[str, Any]] | None" = None
    content_policy_fallbacks: "Sequence[str | Mapping[str, Any]] | None" = None
    proxy: Any = None
    verify: Any = None
    cert: Any = None
    http2: bool | str | None = None
    keep_partial: bool | None = None
    estimate_usage: bool | None = None
    hooks: Sequence[Any] = ()
    prices: "Mapping[str, Mapping[str, Any]] | None" = None

    def changed(self, changes: Mapping[str, Any]) -> "Defaults":
        """The same with other values.

        Raises:
            BadRequestError: there is no such default, or it cannot have this value.
        """
        names = [item.name for item in fields(self)]
        for name in changes:
            if name not in names:
                nearest = get_close_matches(name, names, n=1)
                hint = f"did you mean {nearest[0]}? " if nearest else ""
                raise BadRequestError(
                    f"no default {name}: {hint}There are {', '.join(names)}; all else is given with each call",
                    param=name,
                )
        Timeouts.of(changes.get("timeout"), stream=True)
        hooks = changes.get("hooks", ())
        if isinstance(hooks, str) or not isinstance(hooks, Sequence):
            raise BadRequestError("hooks must be a list of hooks", param="hooks")
        return replace(self, **changes)

    def under(self, options: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
        """The options of a call, with these where it says nothing; those alone that are `known` to its kind."""
        filled = dict(options)
        if self is _nothing:
            return filled
        given = {ALIASES.get(name, name) for name, value in options.items() if value is not None}
        for item in fields(self):
            name, value = item.name, getattr(self, item.name)
            if name in known and name != "hooks" and value is not None and name not in given:
                filled[name] = value
        if self.hooks:
            filled["hooks"] = (*self.hooks, *(options.get("hooks") or ()))
        return filled


_process = _nothing = Defaults()
_here: ContextVar[Defaults | None] = ContextVar("penstock_defaults", default=None)


def current() -> Defaults:
    """The defaults that hold here: of the nearest `configured` around, else of the process."""
    return _here.get() or _process


def configure(**changes: Any) -> Defaults:
    """Sets defaults for the calls of this process, and returns all that hold now; what is not named stays.

    Calls that have begun keep theirs. `configured` does the same for a block.

    Args:
        changes: fields of Defaults.

    Raises:
        BadRequestError: no such default.
    """
    global _process  # noqa: PLW0603  the one place: a value that never changes, swapped whole
    _process = _process.changed(changes)
    return _process


@contextmanager
def configured(**changes: Any) -> Iterator[Defaults]:
    """As `configure`, for the calls within a `with` block alone: this task or thread, and the tasks that it starts.

    Raises:
        BadRequestError: no such default.
    """
    defaults = current().changed(changes)
    token = _here.set(defaults)
    try:
        yield defaults
    finally:
        _here.reset(token)
