"""From the `model` a caller wrote to the provider's row, its base URL and its settings."""

import json
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from string import Formatter
from typing import Any
from urllib.parse import quote, urlsplit

from ..errors import BadRequestError
from .registry import NOT_SERVED, PROVIDERS, ROWS, Provider, Variant


def resolve(model: str, custom_llm_provider: str | None = None) -> tuple[Provider, str]:
    """The provider's row and the model id that it knows.

    `provider/model` is split at the first slash; a bare name belongs to the provider whose names begin so. With
    `custom_llm_provider` all of `model` is the model id, but for the provider's own name and slash before it.

    Raises:
        BadRequestError: no such provider; the message names the nearest ones.
    """
    if not (model and isinstance(model, str)):
        raise BadRequestError(f"model must be a name such as 'openai/gpt-4o', not {model!r}", param="model")
    named, slash, rest = model.partition("/")
    if custom_llm_provider is not None:
        row = PROVIDERS.get(custom_llm_provider)
        if row is None:
            raise _unknown(custom_llm_provider, "custom_llm_provider")
        return row, rest if slash and PROVIDERS.get(named) is row else model
    if slash and named in PROVIDERS:
        if not rest:
            raise BadRequestError(f"model {model!r} names a provider but no model", param="model", provider=named)
        return PROVIDERS[named], rest
    if not slash:
        for row in ROWS:
            if row.models and model.startswith(row.models):
                return row, model
    raise _unknown(model, "model")


def _unknown(name: str, param: str) -> BadRequestError:
    asked = name.partition("/")[0].lower()
    if asked in NOT_SERVED and (param != "model" or "/" in name):
        return BadRequestError(
            f"no provider for {param}={name!r}: {asked} is not served: {NOT_SERVED[asked]}", param=param
        )
    nearest = get_close_matches(asked, PROVIDERS, n=3, cutoff=0.5)
    if param == "model" and "/" not in name:
        # A bare name that begins like a known one was probably misspelled there: gtp-4o, grook-4.
        beginnings = {beginning.strip("-:"): row.slug for row in ROWS for beginning in row.models}
        close = get_close_matches(asked.partition("-")[0], beginnings, n=2, cutoff=0.5)
        nearest = list(dict.fromkeys([beginnings[beginning] for beginning in close] + nearest))
    hint = f"nearest: {', '.join(nearest)}" if nearest else f"{len(PROVIDERS)} others are known"
    return BadRequestError(
        f"no provider for {param}={name!r} ({hint}). Write provider/model; "
        "for any other OpenAI-compatible server openai/model with api_base",
        param=param,
    )


def first_set(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    """The value of the first of these variables that is set and not empty."""
    for name in names:
        if value := environ.get(name):
            return value
    return None


def settings(provider: Provider, given: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """The provider's settings that have a value: given by keyword, by variable, within another one, or by default.

    Raises:
        BadRequestError: what should hold a JSON document does not.
    """
    values: dict[str, str] = {}
    for setting in provider.settings:
        value = given.get(setting.keyword) or first_set(environ, setting.env) or setting.default
        if value is not None:
            values[setting.keyword] = json.dumps(dict(value)) if isinstance(value, Mapping) else str(value)
    for setting in provider.settings:
        if setting.within is None or setting.keyword in values:
            continue
        holder, name = setting.within
        if holder in values:
            value = document(values[holder], holder).get(name)
            if isinstance(value, str):
                values[setting.keyword] = value
    return values


def document(text: str, param: str) -> dict[str, Any]:
    """The JSON object that a setting is, or is the path of.

    Raises:
        BadRequestError: no such file, or no JSON object in it. The message shows nothing of it.
    """
    written = text.lstrip().startswith("{")
    where = param if written else f"{param}: {text}"
    try:
        found = json.loads(text if written else Path(text).expanduser().read_bytes())
    except OSError as error:
        raise BadRequestError(f"{where}: {error.strerror or error}", param=param) from None
    except ValueError:
        raise BadRequestError(f"{where}: not JSON", param=param) from None
    if not isinstance(found, dict):
        raise BadRequestError(f"{where}: not a JSON object", param=param)
    return found


def setting_headers(provider: Provider, values: Mapping[str, str]) -> dict[str, str]:
    """The settings that travel as headers."""
    return {
        setting.header: values[setting.keyword]
        for setting in provider.settings
        if setting.header is not None and setting.keyword in values
    }


VARIED = tuple(item.name for item in fields(Variant) if item.name not in ("base", "model", "key", "settings", "sends"))
"""What a variant may change of its row: all but what says which calls it is for, and what is sent."""


def vary(
    provider: Provider, model: str, base: str | None, values: Mapping[str, str], key: str | None = None
) -> tuple[Provider, str, Mapping[str, str]]:
    """The row, the model id and the settings after the first of the row's variants that fits this call, if one does.

    `base` is the base URL that the caller or a variable gives, None for the row's own; `key` the `api_key` given.
    """
    given = (base or "").rstrip("/")
    for variant in provider.variants:
        found = re.fullmatch(variant.model, model)
        if (
            found is None
            or not re.fullmatch(variant.base, given)
            or not re.fullmatch(variant.key, (key or "").strip())
            or not all(re.fullmatch(form, values.get(name, "")) for name, form in variant.settings.items())
        ):
            continue
        if variant.sends is not None:
            model = variant.sends.format(**found.groupdict(), model=model)
        return _varied(provider, variant), model, {**values, **found.groupdict()}
    return provider, model, values


@lru_cache(maxsize=256)
def _varied(provider: Provider, variant: Variant) -> Provider:
    changes = {name: value for name in VARIED if (value := getattr(variant, name)) is not None}
    if "chat_path" in changes:
        changes.setdefault("stream_path", None)
    if "family" in changes:
        changes.setdefault("dialect", {})
    return replace(provider, **changes)


def base_of(
    provider: Provider, api_base: str | None, values: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[Provider, str]:
    """Where to call, without a final slash, and the row to speak by there: `elsewhere` if that is not its own host.

    Raises:
        BadRequestError: no base URL known, a setting that it needs is missing, or it is no plain http(s) URL.
    """
    base = api_base or first_set(environ, provider.base_env)
    if base is None:
        if provider.base_url is None:
            wanted = "api_base" + "".join(f" or {name}" for name in provider.base_env)
            raise BadRequestError(
                f"{provider.slug} has no base URL of its own: set {wanted}", param="api_base", provider=provider.slug
            )
        own = provider.base_url if isinstance(provider.base_url, str) else provider.base_url(values)
        return provider, fill(provider, own, values)
    return _at(provider, base.rstrip("/"))


@lru_cache(maxsize=256)
def _at(provider: Provider, base: str) -> tuple[Provider, str]:
    """The row to speak by at a base URL that was given."""
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise BadRequestError(
            f"api_base must be an http(s) URL, not {base!r}", param="api_base", provider=provider.slug
        )
    if parts.query or parts.fragment:
        raise BadRequestError(
            "api_base must be an http(s) URL without a query: extra_query is for that",
            param="api_base",
            provider=provider.slug,
        )
    if provider.elsewhere is not None and not owns(provider, parts.hostname or ""):
        provider = provider.elsewhere
    return provider, base


def fill(provider: Provider, template: str, values: Mapping[str, str], *, safe: str = "") -> str:
    """The template with the settings in their places, quoted for a URL: none can lead to another host or path.

    Raises:
        BadRequestError: a setting without a value.
    """
    names = _named(template)
    for name in names:
        if name not in values:
            env = next((setting.env for setting in provider.settings if setting.keyword == name), ())
            wanted = name + "".join(f" or {variable}" for variable in env)
            raise BadRequestError(f"{provider.slug} needs {wanted}", param=name, provider=provider.slug)
    return template.format_map({name: quote(values[name], safe=safe) for name in names})


@lru_cache(maxsize=256)
def _named(template: str) -> tuple[str, ...]:
    """The settings that have a place in a template."""
    return tuple(name for _, name, _, _ in Formatter().parse(template) if name)


LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
"""Hosts that are nobody's: whatever listens there is the caller's own."""


def owns(provider: Provider, host: str) -> bool:
    """Whether this is a host of the provider's: that of its own base URL, or one of its other `hosts`."""
    if host in LOCAL:
        return False
    own = urlsplit(provider.base_url).hostname if isinstance(provider.base_url, str) else None
    patterns = provider.hosts if own is None else (re.sub(r"\{\w+\}", "*", own), *provider.hosts)
    return any(fnmatchcase(host, pattern) for pattern in patterns)


@lru_cache(maxsize=256)
def owner(host: str) -> str | None:
    """The slug of the first provider whose host this is. Cached: to ask all rows takes 0.2 ms."""
    return next((row.slug for row in ROWS if owns(row, host)), None)
