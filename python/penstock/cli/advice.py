"""Errors in two lines: what went wrong, and what to do next."""

import os
from difflib import get_close_matches
from typing import TYPE_CHECKING

import click

from .. import errors
from ..errors import APIError
from ..providers.registry import PROVIDERS, ROWS, Provider
from ..providers.resolve import base_of, resolve, settings
from .talk import remark, tame

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH = 500
"""Characters of a provider's message that are shown."""


def say(what: str, advice: str) -> None:
    """Print the two lines on standard error."""
    what = " ".join(tame(what).split())
    if len(what) > WIDTH:
        what = what[:WIDTH] + " ..."
    click.echo(click.style("penstock: ", fg="red") + what, err=True)
    remark(advice)


def complain(error: APIError, model: str | None = None, api_base: str | None = None) -> None:
    """Print an error of the API and what to do about it."""
    advise = next((advise for kind, advise in ADVICE if isinstance(error, kind)), _other)
    say(f"{type(error).__name__}: {error}", advise(error, Target(model, api_base)))


class Target:
    """Who was called, as far as that can be told: an error may be about exactly that."""

    def __init__(self, model: str | None, api_base: str | None) -> None:
        self.row: Provider | None = None
        self.base: str | None = None
        try:
            if model is not None:
                self.row, _ = resolve(model)
                values = settings(self.row, {}, os.environ)
                self.row, self.base = base_of(self.row, api_base, values, os.environ)
        except APIError:
            pass  # the error to be explained says so itself

    @property
    def slug(self) -> str:
        """The provider's name, or words for it."""
        return self.row.slug if self.row else "the provider"

    @property
    def variables(self) -> str:
        """Where its key may come from."""
        return " or ".join(self.row.key_env) if self.row and self.row.key_env else "--api-key"

    @property
    def where(self) -> str:
        """Its base URL, or words for it."""
        return self.base or "the server"


def nearest(name: str) -> str:
    """The providers whose names look like this one, as a sentence."""
    close = get_close_matches(name, PROVIDERS, n=3, cutoff=0.5)
    return f"Nearest: {', '.join(close)}." if close else f"Known: {', '.join(row.slug for row in ROWS)}."


def _key(error: APIError, target: Target) -> str:
    given = [name for name in (target.row.key_env if target.row else ()) if os.environ.get(name)]
    if error.status_code is None:
        return f"Set {target.variables} to a key of {target.slug}."
    return f"{target.where} refused the key. Check {given[0] if given else target.variables}."


def _clock(error: APIError, target: Target) -> str:
    if error.status_code is not None:
        return f"{target.where} gave up by itself. Try again, or ask for less."
    meaning = {
        "connect": f"{target.where} did not accept a connection in time. Check the address and your network.",
        "first_token": "The clock for the first token ran out: --timeout SECONDS allows more.",
        "idle": "The clock for silence within the answer ran out: --timeout SECONDS allows more.",
        "total": "The clock for the whole answer ran out: --timeout SECONDS allows more.",
    }
    return meaning.get(str(error.code), "--timeout SECONDS allows more.")


def _connection(error: APIError, target: Target) -> str:
    if error.partial is not None or error.headers is not None:
        return f"{target.where} ended the answer before it was complete. Try again."
    if error.code == "tls":
        return f"Check {target.where}: http or https? SSL_CERT_FILE can name an authority of your own."
    given = ["--api-base", *(target.row.base_env if target.row else ())]
    return f"Nothing answers at {target.where}. Is it running? Check {' or '.join(given)}, and your network."


def _request(error: APIError, _target: Target) -> str:
    if error.status_code is None and error.param == "model":
        return "`penstock providers` lists them all."
    return f"Change the request: {error.param}." if error.param else "Change the request as the message says."


def _limit(error: APIError, target: Target) -> str:
    if error.code == "insufficient_quota":
        return f"Check the plan and the billing of your account at {target.slug}."
    wait = f"{error.retry_after:g} seconds" if error.retry_after else "a while"
    return f"Wait {wait} and try again: {target.slug} limits how often it may be asked."


def _missing(_error: APIError, target: Target) -> str:
    return f"Check the model's name, and that {target.where} has it. `penstock providers {target.slug}` shows the row."


def _validation(_error: APIError, target: Target) -> str:
    return f"{target.where} does not speak chat completions. Check --api-base: it often ends in /v1."


def _fixed(text: str) -> "Callable[[APIError, Target], str]":
    return lambda _error, target: text.format(slug=target.slug)


def _other(_error: APIError, target: Target) -> str:
    return f"The fault is on the side of {target.slug}. Try again later."


# The first class that fits: those below before those above in the tree.
ADVICE: "tuple[tuple[type[APIError], Callable[[APIError, Target], str]], ...]" = (
    (errors.AuthenticationError, _key),
    (errors.Timeout, _clock),
    (errors.APIConnectionError, _connection),
    (errors.APIResponseValidationError, _validation),
    (errors.ContextWindowExceededError, _fixed("Shorten the prompt, or take a model with a larger context window.")),
    (errors.ContentPolicyViolationError, _fixed("A filter of {slug} blocked this. Put it in other words.")),
    (errors.UnsupportedParamsError, _fixed("Leave that option out: {slug} does not have it.")),
    (errors.PaymentRequiredError, _fixed("Add credit to your account at {slug}.")),
    (errors.BadRequestError, _request),
    (errors.PermissionDeniedError, _fixed("Ask {slug} for access, or use another model.")),
    (errors.NotFoundError, _missing),
    (errors.RateLimitError, _limit),
)
