"""Which key goes where. No key is sent to the host of another vendor, unless the caller handed it over for the call."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ..errors import AuthenticationError
from .registry import Provider, Token
from .resolve import first_set, owner, owns


@dataclass(frozen=True, slots=True)
class Credential:
    """What a call proves its right with, and the headers that carry it. Its repr shows neither."""

    secret: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


def credential_of(
    provider: Provider, given: Mapping[str, Any], base_url: str, environ: Mapping[str, str]
) -> Credential | None:
    """The credential for this call: an argument, else from the provider's own variables; None where none is needed.

    The variables are left alone when `base_url` is at a host of another provider: their key is not that vendor's.

    Raises:
        AuthenticationError: there is no key and the provider needs one, or it has characters that no header can carry.
            Nothing has been sent.
    """
    for key, token in _candidates(provider, given):
        if key:
            return _credential(provider, key, token)
    for names, token in ((provider.key_env, None), *((token.env, token) for token in provider.tokens)):
        key = first_set(environ, names)
        if key is not None:
            _stays_home(provider, base_url)
            return _credential(provider, key, token)
    if provider.key_required:
        keywords = ["api_key", *(token.keyword for token in provider.tokens if token.keyword)]
        variables = [*provider.key_env, *(name for token in provider.tokens for name in token.env)]
        raise AuthenticationError(
            f"no key for {provider.slug}: pass {' or '.join(keywords)}"
            + "".join(f" or set {name}" for name in variables),
            provider=provider.slug,
        )
    return None


def _stays_home(provider: Provider, base_url: str) -> None:
    """Refuses to send a key that the caller did not pass for this call to the host of another vendor."""
    host = urlsplit(base_url).hostname or ""
    vendor = None if owns(provider, host) else owner(host)
    if vendor is not None and vendor != provider.slug:
        raise AuthenticationError(
            f"{host} is {vendor}'s: no key of {provider.slug} goes there. Pass api_key, or call {vendor}/",
            provider=provider.slug,
        )


def _candidates(provider: Provider, given: Mapping[str, Any]) -> list[tuple[str | None, Token | None]]:
    """What the caller passed, the key first."""
    tokens = [(given.get(token.keyword), token) for token in provider.tokens if token.keyword]
    return [(given.get("api_key"), None), *tokens]


def _credential(provider: Provider, key: str, token: Token | None) -> Credential:
    """The key as it is sent: a key that begins as one of the provider's tokens do is that token."""
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise AuthenticationError("the key has characters that no HTTP header can carry", provider=provider.slug)
    if token is None:
        token = next((one for one in provider.tokens if one.prefix and key.startswith(one.prefix)), None)
    if token is not None:
        key = key.removeprefix(token.prefix)
    name, form = provider.auth if token is None else token.auth
    return Credential(key, {**({} if token is None else token.headers), name: form.format(key=key)})
