"""Which key goes where. No key is sent to the host of another vendor, unless the caller handed it over for the call."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from ..errors import AuthenticationError
from .registry import ROWS, Provider
from .resolve import first_set, own_host


def key_of(provider: Provider, api_key: str | None, base_url: str, environ: Mapping[str, str]) -> str | None:
    """The key for this call: the argument, else the provider's own variables; None where none is needed or known.

    The variables are left alone when `base_url` is the host of another provider: their key is not that vendor's.

    Raises:
        AuthenticationError: there is no key and the provider needs one. Nothing has been sent.
    """
    if api_key:
        return api_key
    host = urlsplit(base_url).hostname
    owner = next((row for row in ROWS if own_host(row) == host), None)
    if owner is not None and owner.slug != provider.slug:
        raise AuthenticationError(
            f"{host} is {owner.slug}'s: no key of {provider.slug} goes there. Pass api_key, or call {owner.slug}/",
            provider=provider.slug,
        )
    key = first_set(environ, provider.key_env)
    if key is None and provider.key_required:
        raise AuthenticationError(
            f"no key for {provider.slug}: pass api_key" + "".join(f" or set {name}" for name in provider.key_env),
            provider=provider.slug,
        )
    return key


def key_header(provider: Provider, key: str | None) -> dict[str, str]:
    """The header that carries the key, or nothing.

    Raises:
        AuthenticationError: a key that no header can carry (a line break, a letter outside ASCII).
    """
    if key is None:
        return {}
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise AuthenticationError("the key has characters that no HTTP header can carry", provider=provider.slug)
    name, form = provider.auth
    return {name: form.format(key=key)}
