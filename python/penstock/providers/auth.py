"""Which key goes where. No key is sent to the host of another vendor, unless the caller handed it over for the call."""

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

from ..errors import AuthenticationError, BadRequestError
from .registry import Grant, Provider, Token
from .resolve import fill, first_set, owner, owns, settings


@dataclass(frozen=True, slots=True)
class Exchange:
    """Secrets that are exchanged for a bearer token before the call: equal ones get the same. Its repr shows none."""

    url: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    content: bytes = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    token: str
    expires: str
    lifetime: int

    def posted(self) -> dict[str, str]:
        """The headers to post with."""
        fresh = str(uuid4())
        return {name: value.replace("{uuid}", fresh) for name, value in self.headers}


@dataclass(frozen=True, slots=True)
class GoogleAuth:
    """A bearer token that google-auth gets: for these credentials (a JSON document, or its path), or for its chain's.

    `ways` is what else the caller could do who has none.
    """

    scope: str
    document: str | None = field(repr=False)
    ways: str
    secrets: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Called:
    """A bearer token that a function of the caller's gives, anew for each attempt."""

    keyword: str
    function: Callable[[], Any] = field(repr=False)
    secrets: tuple[str, ...] = ()


Source = Exchange | GoogleAuth | Called
"""Where a bearer token comes from that is not there yet. `secrets`: what no error may show."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What a call proves its right with, and the headers that carry it. Its repr shows neither.

    `source` is where a token has to be had from before the call; then there is no secret and no header yet.
    """

    secret: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    source: Source | None = field(default=None, repr=False)

    def secrets(self) -> set[str]:
        """What no error may show."""
        return {self.secret, *(self.source.secrets if self.source is not None else ())}


def credential_of(
    provider: Provider, given: Mapping[str, Any], base_url: str, environ: Mapping[str, str]
) -> Credential | None:
    """The credential for this call: an argument, else from the provider's own variables; None where none is needed.

    The variables are left alone when `base_url` is at a host of another provider: their key is not that vendor's.

    Raises:
        AuthenticationError: there is no key and the provider needs one, or it has characters that no header can carry.
            Nothing has been sent.
    """
    values = settings(provider, given, environ) if provider.grants or provider.google_scope else {}
    grant = _grant(provider, values)
    for key, token in _passed(provider, given):
        if key:
            return _credential(provider, key, token, values, base_url)
    if grant is not None and any(given.get(name) for name in grant.needs):
        if not all(given.get(name) for name in grant.needs):
            _stays_home(provider, base_url)
        return _exchanged(provider, grant, values, base_url)
    if provider.google_scope is not None and given.get("vertex_credentials"):
        return _google(provider, values)
    for key, token in _own(provider, environ):
        if key:
            _stays_home(provider, base_url)
            return _credential(provider, key, token, values, base_url)
    if grant is not None:
        _stays_home(provider, base_url)
        return _exchanged(provider, grant, values, base_url)
    if provider.google_scope is not None:
        _stays_home(provider, base_url)
        return _google(provider, values)
    if provider.key_required:
        raise AuthenticationError(f"no key for {provider.slug}: {_ways(provider)}", provider=provider.slug)
    return None


def _ways(provider: Provider) -> str:
    """What the caller can do who has no key there."""
    exchanged = (" and ".join(grant.needs) for grant in provider.grants if "api_key" not in grant.needs)
    keywords = ["api_key", *(token.keyword for token in provider.tokens if token.keyword), *exchanged]
    variables = [*provider.key_env, *(name for token in provider.tokens for name in token.env)]
    return f"pass {' or '.join(keywords)}" + "".join(f" or set {name}" for name in variables)


@lru_cache(maxsize=256)
def _stays_home(provider: Provider, base_url: str) -> None:
    """Refuses to send a key that the caller did not pass for this call to the host of another vendor."""
    host = urlsplit(base_url).hostname or ""
    vendor = None if owns(provider, host) else owner(host)
    if vendor is not None and vendor != provider.slug:
        raise AuthenticationError(
            f"{host} is {vendor}'s: no key of {provider.slug} goes there. Pass api_key, or call {vendor}/",
            provider=provider.slug,
        )


def _passed(provider: Provider, given: Mapping[str, Any]) -> list[tuple[Any, Token | None]]:
    """What the caller passed, the key first."""
    tokens = [(given.get(token.keyword), token) for token in provider.tokens if token.keyword]
    return [(given.get("api_key"), None), *tokens]


def _own(provider: Provider, environ: Mapping[str, str]) -> list[tuple[str | None, Token | None]]:
    """What the provider's variables hold, the key first."""
    tokens = [(first_set(environ, token.env), token) for token in provider.tokens]
    return [(first_set(environ, provider.key_env), None), *tokens]


def _credential(
    provider: Provider, key: Any, token: Token | None, values: Mapping[str, str], base_url: str
) -> Credential:
    """The key as it is sent: a key that begins as one of the provider's tokens do is that token.

    A key that is exchanged before the call is not sent at all.
    """
    if token is not None and token.called:
        if not callable(key):
            raise BadRequestError(f"{token.keyword} must be a function that gives a token", param=token.keyword)
        return Credential("", {}, Called(str(token.keyword), key))
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise AuthenticationError("the key has characters that no HTTP header can carry", provider=provider.slug)
    if token is None:
        token = next((one for one in provider.tokens if one.prefix and key.startswith(one.prefix)), None)
    if token is None:
        grant = next((grant for grant in provider.grants if "api_key" in grant.needs), None)
        if grant is not None:
            return _exchanged(provider, grant, {**values, "api_key": key}, base_url)
    else:
        key = key.removeprefix(token.prefix)
    name, form = provider.auth if token is None else token.auth
    return Credential(key, {**({} if token is None else token.headers), name: form.format(key=key)})


# Tokens that are had before the call


def _grant(provider: Provider, values: Mapping[str, str]) -> Grant | None:
    """The first exchange that takes no key and for which everything is there."""
    return next((grant for grant in provider.grants if all(name in values for name in grant.needs)), None)


def _exchanged(provider: Provider, grant: Grant, known: Mapping[str, str], base_url: str) -> Credential:
    """The exchange as it is posted, secrets and all."""
    parts = urlsplit(base_url)
    values = {**known, "origin": f"{parts.scheme}://{parts.netloc}", "uuid": "{uuid}"}
    secrets = {values[name] for name in grant.needs}
    if grant.basic is not None:
        values["basic"] = b64encode(":".join(values[name] for name in grant.basic).encode()).decode()
        secrets.add(values["basic"])
    headers = {name: form.format_map(values) for name, form in grant.headers.items()}
    if not all(value.isascii() and value.isprintable() for value in headers.values()):
        raise AuthenticationError("the key has characters that no HTTP header can carry", provider=provider.slug)
    headers |= {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
    form = {name: template.format_map(values) for name, template in grant.form.items()}
    exchange = Exchange(
        _url(provider, grant.url, values),
        tuple(headers.items()),
        urlencode(form).encode(),
        tuple(secrets),
        grant.token,
        grant.expires,
        grant.lifetime,
    )
    return Credential("", {}, exchange)


def _url(provider: Provider, template: str, values: Mapping[str, str]) -> str:
    """The URL of an exchange; the setting that it begins with is one itself, without a final slash."""
    name, brace, rest = template.removeprefix("{").partition("}")
    if not (brace and template.startswith("{")):
        return fill(provider, template, values)
    url = values[name].rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise BadRequestError(f"{name} must be an http(s) URL, not {url!r}", param=name, provider=provider.slug)
    return url + fill(provider, rest, values)


def _google(provider: Provider, values: Mapping[str, str]) -> Credential:
    """Google's credentials, which the extra `google` knows how to find and to use."""
    try:
        import google.auth  # noqa: F401  whether it is there
    except ImportError:
        raise AuthenticationError(
            f"no key for {provider.slug}: {_ways(provider)}; for Google's credentials, pip install 'penstock[google]'",
            provider=provider.slug,
        ) from None
    document = values.get("vertex_credentials", "")
    written = document.lstrip().startswith("{")
    ways = f"{_ways(provider)} or vertex_credentials"
    source = GoogleAuth(str(provider.google_scope), document or None, ways, (document,) if written else ())
    return Credential("", {}, source)
