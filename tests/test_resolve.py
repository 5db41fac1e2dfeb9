"""From a model's name to a row, a base URL and a key."""

from typing import Any
from urllib.parse import urlsplit

import pytest

from penstock.errors import AuthenticationError, BadRequestError
from penstock.providers.auth import credential_of
from penstock.providers.registry import PROVIDERS, ROWS, Provider, Setting, Token, Variant
from penstock.providers.resolve import LOCAL, base_of, fill, owns, resolve, settings, vary
from penstock.wire import Parameters

OPENAI = PROVIDERS["openai"]
ACCOUNT = Provider(
    slug="acct",
    base_url="https://{account_id}.acct.example/v1",
    key_env=("ACCT_KEY", "ACCT_TOKEN"),
    settings=(
        Setting(keyword="account_id", env=("ACCT_ID",)),
        Setting(keyword="region", default="eu", header="x-region"),
    ),
    auth=("api-key", "{key}"),
)
HOSTED = Provider(slug="hosted", base_env=("HOSTED_BASE",), key_env=("HOSTED_KEY",), key_required=False)


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "slug", "known_as"),
    [
        ("openai/gpt-4o", "openai", "gpt-4o"),
        ("openrouter/meta-llama/llama-4", "openrouter", "meta-llama/llama-4"),
        ("together/x/y", "together_ai", "x/y"),
        ("gpt-4o", "openai", "gpt-4o"),
        ("o1", "openai", "o1"),
        ("o3-mini", "openai", "o3-mini"),
        ("o4-mini", "openai", "o4-mini"),
        ("chatgpt-4o-latest", "openai", "chatgpt-4o-latest"),
        ("ft:gpt-4o:acme::1", "openai", "ft:gpt-4o:acme::1"),
        ("mistral-large-latest", "mistral", "mistral-large-latest"),
        ("magistral-medium", "mistral", "magistral-medium"),
        ("codestral-latest", "mistral", "codestral-latest"),
        ("deepseek-chat", "deepseek", "deepseek-chat"),
        ("grok-4", "xai", "grok-4"),
    ],
)
def test_a_name_has_a_provider(model: str, slug: str, known_as: str) -> None:
    row, name = resolve(model)
    assert (row.slug, name) == (slug, known_as)


def test_the_provider_can_be_given_apart() -> None:
    assert resolve("a/b", "groq") == (PROVIDERS["groq"], "a/b")
    assert resolve("groq/b", "groq") == (PROVIDERS["groq"], "b")
    assert resolve("gpt-4o", "openrouter") == (PROVIDERS["openrouter"], "gpt-4o")


@pytest.mark.parametrize(
    ("model", "near"),
    [
        ("opnai/gpt-4o", "openai"),
        ("gtp-4o", "openai"),
        ("grok/x", "groq"),
        ("mistrel-large", "mistral"),
        ("xy", "known"),
    ],
)
def test_an_unknown_name_is_told_what_is_near(model: str, near: str) -> None:
    with pytest.raises(BadRequestError, match=near) as caught:
        resolve(model)
    assert caught.value.param == "model"
    assert model in caught.value.message
    assert "api_base" in caught.value.message


@pytest.mark.parametrize("model", ["", None, 3, "openai/"])
def test_no_name_at_all(model: Any) -> None:
    with pytest.raises(BadRequestError):
        resolve(model)


def test_a_wrong_provider_apart() -> None:
    with pytest.raises(BadRequestError, match="openai") as caught:
        resolve("x", "opnai")
    assert caught.value.param == "custom_llm_provider"


# Places ---------------------------------------------------------------------------------------------------------------


def test_the_base_is_the_rows_own_unless_told_otherwise() -> None:
    assert base_of(OPENAI, None, {}, {}) == (OPENAI, "https://api.openai.com/v1")
    assert base_of(OPENAI, None, {}, {"OPENAI_API_BASE": "http://b/v1/"})[1] == "http://b/v1"
    assert base_of(OPENAI, None, {}, {"OPENAI_BASE_URL": "http://a", "OPENAI_API_BASE": "http://b"})[1] == "http://a"
    assert base_of(OPENAI, "http://c/", {}, {"OPENAI_BASE_URL": "http://a"})[1] == "http://c"


def test_another_server_of_that_name_is_spoken_to_plainly() -> None:
    row, _ = base_of(OPENAI, "http://localhost:8000/v1", {}, {})
    assert row is OPENAI.elsewhere
    assert not row.renames
    assert not row.unsupported
    assert base_of(OPENAI, "https://api.openai.com/v1", {}, {})[0] is OPENAI


def test_settings_fill_the_base() -> None:
    values = settings(ACCOUNT, {"account_id": None}, {"ACCT_ID": "a1"})
    assert values == {"account_id": "a1", "region": "eu"}
    assert settings(ACCOUNT, {"account_id": "a2"}, {"ACCT_ID": "a1"})["account_id"] == "a2"
    assert base_of(ACCOUNT, None, values, {})[1] == "https://a1.acct.example/v1"
    with pytest.raises(BadRequestError, match="account_id or ACCT_ID"):
        base_of(ACCOUNT, None, {}, {})
    # A setting cannot lead the key to another host.
    for hostile in ("evil.example/", "evil.example#", "x@evil.example:80/"):
        base = base_of(ACCOUNT, None, {"account_id": hostile}, {})[1]
        assert urlsplit(base).netloc.endswith(".acct.example")
        assert "@" not in base


def test_a_base_that_must_be_given() -> None:
    with pytest.raises(BadRequestError, match="api_base or HOSTED_BASE"):
        base_of(HOSTED, None, {}, {})
    assert base_of(HOSTED, None, {}, {"HOSTED_BASE": "http://h"})[1] == "http://h"


@pytest.mark.parametrize(
    "base", ["localhost:8000", "ftp://x", "https://", "/v1", "http://h/v1?api-version=1", "http://h/#x"]
)
def test_a_base_that_is_no_url(base: str) -> None:
    with pytest.raises(BadRequestError, match="http"):
        base_of(OPENAI, base, {}, {})


# Keys -----------------------------------------------------------------------------------------------------------------

OWN = "https://api.openai.com/v1"


def key_of(row: Provider, api_key: str | None, base_url: str, environ: dict[str, str]) -> str | None:
    credential = credential_of(row, {"api_key": api_key}, base_url, environ)
    return credential.secret if credential is not None else None


def headers_of(row: Provider, **given: str) -> dict[str, str]:
    credential = credential_of(row, given, "https://x.example", {})
    return dict(credential.headers) if credential is not None else {}


def test_the_argument_wins_over_the_variables() -> None:
    assert key_of(OPENAI, "a", OWN, {"OPENAI_API_KEY": "b"}) == "a"
    assert key_of(OPENAI, None, OWN, {"OPENAI_API_KEY": "b"}) == "b"
    assert key_of(ACCOUNT, None, "https://x", {"ACCT_TOKEN": "t"}) == "t"
    assert key_of(ACCOUNT, None, "https://x", {"ACCT_KEY": "", "ACCT_TOKEN": "t"}) == "t"


def test_no_key_is_an_error_before_anything_is_sent() -> None:
    with pytest.raises(AuthenticationError, match="OPENAI_API_KEY") as caught:
        key_of(OPENAI, None, OWN, {})
    assert caught.value.status_code is None
    assert key_of(HOSTED, None, "http://h", {}) is None


def test_a_key_goes_to_no_other_vendor() -> None:
    environ = {"OPENAI_API_KEY": "b"}
    row, base = base_of(OPENAI, "https://api.groq.com/openai/v1", {}, {})
    with pytest.raises(AuthenticationError, match="groq"):
        key_of(row, None, base, environ)
    assert key_of(row, "given", base, environ) == "given"
    assert key_of(row, None, "http://localhost:8000", environ) == "b"
    assert key_of(row, None, "https://api.groq.com/openai/v1", {}) is None


def test_hosts_with_a_setting_in_their_name_are_a_vendors_own() -> None:
    assert owns(ACCOUNT, "a1.acct.example")
    assert owns(ACCOUNT, "a2.acct.example")
    assert not owns(ACCOUNT, "acct.example.org")
    assert owns(PROVIDERS["azure"], "mine.openai.azure.com")
    for base in ("https://mine.openai.azure.com/openai/v1", "https://a1.snowflakecomputing.com"):
        with pytest.raises(AuthenticationError, match=r"azure|snowflake"):
            key_of(OPENAI, None, base, {"OPENAI_API_KEY": "b"})


@pytest.mark.parametrize("host", sorted(LOCAL))
def test_nobody_owns_this_machine(host: str) -> None:
    assert not [row.slug for row in ROWS if owns(row, host)]


def test_how_a_key_is_sent() -> None:
    assert headers_of(OPENAI, api_key=" k\n") == {"authorization": "Bearer k"}
    assert headers_of(ACCOUNT, api_key="k") == {"api-key": "k"}
    assert headers_of(HOSTED) == {}
    for wrong in ("a\nb", "ключ", "a\0"):
        with pytest.raises(AuthenticationError) as caught:
            headers_of(OPENAI, api_key=wrong)
        assert wrong not in str(caught.value)


TOKENS = Provider(
    slug="tokens",
    key_env=("TOKENS_KEY",),
    auth=("api-key", "{key}"),
    tokens=(
        Token(keyword="ad_token", env=("TOKENS_AD",)),
        Token(prefix="pat/", auth=("authorization", "Pat {key}"), headers={"x-kind": "pat"}),
    ),
)


def test_a_token_stands_in_for_the_key() -> None:
    assert headers_of(TOKENS, ad_token="t") == {"authorization": "Bearer t"}
    assert headers_of(TOKENS, ad_token="t", api_key="k") == {"api-key": "k"}
    assert headers_of(TOKENS, api_key="pat/k") == {"authorization": "Pat k", "x-kind": "pat"}
    given, environ = {"ad_token": "t"}, {"TOKENS_KEY": "k", "TOKENS_AD": "e"}
    for expected, asked, known in [("t", given, environ), ("k", {}, environ), ("e", {}, {"TOKENS_AD": "e"})]:
        credential = credential_of(TOKENS, asked, "https://x.example", known)
        assert credential is not None
        assert credential.secret == expected
    with pytest.raises(AuthenticationError, match="pass api_key or ad_token or set TOKENS_KEY or set TOKENS_AD"):
        headers_of(TOKENS)
    with pytest.raises(AuthenticationError, match="openai"):
        credential_of(TOKENS, {}, OWN, {"TOKENS_AD": "e"})


def test_a_credential_does_not_show() -> None:
    assert "secret" not in repr(credential_of(OPENAI, {"api_key": "secret-1"}, OWN, {})).replace("secret=", "")


# Variants -------------------------------------------------------------------------------------------------------------

VARIED = Provider(
    slug="varied",
    base_url="https://varied.example/v1",
    variants=(
        Variant(base="", model="own-(?P<part>.+)", base_url="https://{part}.varied.example", sends="{part}"),
        Variant(settings={"version": "v1|v2"}, chat_path="/other"),
        Variant(base=".*/api", auth=("x-key", "{key}")),
        Variant(model="other-.+", family="anthropic", chat_path="/messages", headers={"x-version": "1"}),
    ),
    settings=(Setting(keyword="version", header="x-v"),),
    stream_path="/stream",
    dialect={"end": "done"},
)


def test_the_first_variant_that_fits_counts() -> None:
    row, model, values = vary(VARIED, "own-a", None, {"version": "v1"})
    assert (row.base_url, row.chat_path, model) == ("https://{part}.varied.example", VARIED.chat_path, "a")
    assert values == {"version": "v1", "part": "a"}
    row, model, _ = vary(VARIED, "own-a", "http://h/api/", {"version": "v2"})
    assert (row.base_url, row.chat_path, row.auth, model) == (VARIED.base_url, "/other", VARIED.auth, "own-a")
    assert vary(VARIED, "own-a", "http://h/api/", {})[0].auth == ("x-key", "{key}")
    assert row.settings == VARIED.settings
    assert vary(VARIED, "m", "http://h", {"version": "v3"}) == (VARIED, "m", {"version": "v3"})


def test_a_variant_may_be_of_another_family() -> None:
    row, model, _ = vary(VARIED, "other-m", None, {})
    assert (row.family, row.chat_path, row.headers, model) == ("anthropic", "/messages", {"x-version": "1"}, "other-m")
    assert (row.stream_path, row.dialect) == (None, {}), "the other family's streams are not the row's"
    assert (row.base_url, row.settings, row.auth) == (VARIED.base_url, VARIED.settings, VARIED.auth)


# Rows -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.slug)
def test_a_row_makes_sense(row: Provider) -> None:
    known = set(Parameters.__optional_keys__)
    assert row.unsupported <= known
    assert set(row.renames) <= known
    assert set(row.spellings) <= known
    assert row.key_env or row.tokens or not row.key_required
    assert all(token.keyword or token.env or token.prefix for token in row.tokens)
    assert all(name == name.lower() for name in row.headers)
    assert row.chat_path.startswith("/")
    assert "{key}" in row.auth[1]
    if isinstance(row.base_url, str):
        values = {setting.keyword: "x" for setting in row.settings}
        filled = urlsplit(fill(row, row.base_url, values))
        assert filled.scheme == ("http" if filled.hostname in LOCAL else "https")
        # What listens on this machine may do without a key; nobody else is known to, but where it is signed.
        keyless = row.signed_as is None and row.signature is None
        assert (row.key_required or not keyless) == (filled.hostname not in LOCAL)
        assert not row.base_url.endswith("/")


def test_rows_stand_in_the_alphabet() -> None:
    assert [row.slug for row in ROWS] == sorted(row.slug for row in ROWS)


def test_names_of_rows_are_their_own() -> None:
    names = [name for row in ROWS for name in (row.slug, *row.aliases)]
    assert len(names) == len(set(names))
    beginnings = [beginning for row in ROWS for beginning in row.models]
    assert not [(a, b) for a in beginnings for b in beginnings if a != b and a.startswith(b)]
