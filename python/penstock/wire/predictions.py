"""Requests of the Predictions family: the inputs of some model, of which a text is one."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..providers.registry import Provider
from .prompts import prompt


def build(
    provider: Provider,  # noqa: ARG001  the same arguments in each family
    model: str,  # noqa: ARG001  it is in the URL
    messages: Sequence[Any],
    parameters: Mapping[str, Any],
    *,
    stream: bool,  # noqa: ARG001  the answer is read from a stream either way
) -> dict[str, Any]:
    """The request body.

    Raises:
        BadRequestError: a message that has no place in a text.
    """
    given = {name: value for name, value in parameters.items() if name != "stream_options"}
    stop = given.get("stop_sequences")
    if stop is not None and not isinstance(stop, str):
        given["stop_sequences"] = ",".join(stop)
    return {"input": {"prompt": prompt("plain", messages), **given}, "stream": True}
