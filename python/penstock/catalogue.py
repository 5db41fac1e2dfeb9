"""What is known of the providers, for people and programs: as plain data, and as the page docs/providers.md.

`python -m penstock.catalogue > docs/providers.md` writes the page.
"""

import os
import sys
from collections.abc import Iterator
from typing import Any

from .providers.registry import NEVER, NOT_SERVED, ROWS, Provider
from .providers.resolve import base_of, first_set, resolve, settings, vary
from .wire import Parameters

WHEN = {
    "chat": "after the finish reason, in a chunk of its own",
    "anthropic": "at the beginning and at the end",
    "cohere": "with the finish reason",
    "converse": "after the finish reason, in an event of its own",
    "gemini": "in every event",
    "invocations": "as the hosted server tells it",
    "invoke": "as the model's own family tells it",
    "ollama": "in the last line",
    "predictions": NEVER,
    "responses": "in the last event",
    "text": "with the finish reason",
}
"""When a stream of a family tells its usage, unless the row knows better."""


def list_providers() -> list[dict[str, Any]]:
    """Every provider as a dict of plain data, in alphabetical order; a new one at each call.

    slug, aliases: what stands before the slash in `model`. models: how bare names begin that mean it.
    family: its wire family. other_families: those that some of its models speak instead.
    base_url: up to the version, with `{setting}`s; None if it is known at the call only. needs_api_base: whether the
        caller, or a variable of base_env, must give it. path: what follows it.
    key_env, base_env: the variables for key and base URL, first set one wins. key_required: whether it is refused to
        call without a key. signed_as: the AWS service that requests are signed for where there is no key, or None.
        google_scope: what Google's credentials are asked for where there is no key, or None. signature: the settings
        of an RSA key that requests are signed with where there is no key.
    tokens: what may be given instead of a key: keyword (or None), env. grants: settings that are exchanged for one, and
        `api_key` where the key itself is exchanged.
    settings: keywords of its own: keyword, env, default.
    usage: asked: whether a stream is asked for it. when: the place in the stream where it comes.
    renames: parameters that are sent by another name. unsupported: parameters that it lacks.
    """
    return [_plain(row) for row in ROWS]


def supported_params(model: str, api_base: str | None = None) -> list[str]:
    """The parameters that may be given for a model, sorted: all that its provider is not known to lack.

    Args:
        model: as for `completion`.
        api_base: as for `completion`; without it the provider's variables count.

    Raises:
        BadRequestError: no such provider, or api_base is no URL.
    """
    provider, model = resolve(model)
    base = api_base or first_set(os.environ, provider.base_env)
    provider, _, values = vary(provider, model, base, settings(provider, {}, os.environ))
    if base:
        provider, _ = base_of(provider, base, values, {})
    return sorted(Parameters.__optional_keys__ - provider.unsupported)


def _plain(row: Provider) -> dict[str, Any]:
    others = {variant.family for variant in row.variants if variant.family is not None}
    return {
        "slug": row.slug,
        "aliases": list(row.aliases),
        "models": list(row.models),
        "family": row.family,
        "other_families": sorted(others),
        "base_url": row.base_url if isinstance(row.base_url, str) else None,
        "needs_api_base": row.base_url is None,
        "path": row.chat_path,
        "base_env": list(row.base_env),
        "key_env": list(row.key_env),
        "key_required": row.key_required,
        "signed_as": row.signed_as,
        "google_scope": row.google_scope,
        "signature": [row.signature.key, row.signature.key_file] if row.signature is not None else [],
        "tokens": [{"keyword": token.keyword, "env": list(token.env)} for token in row.tokens],
        "grants": [list(grant.needs) for grant in row.grants],
        "settings": [
            {"keyword": setting.keyword, "env": list(setting.env), "default": setting.default}
            for setting in row.settings
        ],
        "usage": {"asked": row.stream_options, "when": row.usage or WHEN[row.family]},
        "renames": dict(row.renames),
        "unsupported": sorted(row.unsupported),
    }


# The page

HEAD = """\
# Providers

<!-- Written by `python -m penstock.catalogue` from the rows in python/penstock/providers/registry.py. -->

{count} providers, called as `provider/model`. In Python this table is `penstock.list_providers()`, at a shell
`penstock providers`. Any other server that speaks chat completions is `openai/model` with `api_base`.

## Who is served

*Key*: the variables that it is read from, the first one set wins; `api_key` comes before all of them. *Usage*: when a
stream tells it, and whether it has to be asked; the caller gets it in the same place from all of them. Where no place
is named, nothing else was seen than what OpenAI does: after the finish reason, in a chunk of its own.

| Provider | Family | Key | Usage |
|---|---|---|---|
"""

LACKING = """
## What they lack

Parameters that a provider's documentation leaves out. They raise `UnsupportedParamsError`, unless `drop_params` leaves
them out or `allowed_openai_params` sends them. Providers that are not here judge for themselves.

| Provider | Lacks |
|---|---|
"""

REFUSED = """
## Who is not served

| Name | Why |
|---|---|
"""


def page() -> str:
    """The page docs/providers.md."""
    rows = list_providers()
    return "".join(
        [
            HEAD.format(count=len(rows)),
            *(_line(_names(row), _families(row), _key(row), _usage(row)) for row in rows),
            LACKING,
            *(_line(f"`{row['slug']}`", _code(row["unsupported"])) for row in rows if row["unsupported"]),
            REFUSED,
            *(_line(f"`{name}`", reason) for name, reason in NOT_SERVED.items()),
        ]
    )


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _code(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _names(row: dict[str, Any]) -> str:
    bare = [f"{beginning}..." for beginning in row["models"]]
    return _code([row["slug"], *row["aliases"]]) + (f"; bare {_code(bare)}" if bare else "")


def _families(row: dict[str, Any]) -> str:
    return f"{row['family']}; also {', '.join(row['other_families'])}" if row["other_families"] else str(row["family"])


def _key(row: dict[str, Any]) -> str:
    def ways() -> Iterator[str]:
        names = [*row["key_env"], *(name for token in row["tokens"] for name in token["env"])]
        if names:
            yield _code(names)
        known = {setting["keyword"]: setting["env"][:1] for setting in row["settings"]}
        for grant in row["grants"]:
            if "api_key" not in grant:
                yield "or " + " with ".join(_code(known[name]) for name in grant)
        if row["signed_as"]:
            yield "or AWS credentials" if names else "AWS credentials"
        elif row["google_scope"]:
            yield "or Google credentials"
        elif row["signature"]:
            yield "or an RSA key: " + ", ".join(_code(known[name]) for name in row["signature"])
        elif not row["key_required"]:
            yield "(needs none)" if names else "needs none"

    return " ".join(ways())


def _usage(row: dict[str, Any]) -> str:
    asked, when = ("asked" if row["usage"]["asked"] else "unasked"), row["usage"]["when"]
    if when == NEVER:
        return NEVER
    return asked if when == WHEN["chat"] else f"{asked}, {when}"


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]  # this one is a text file
    sys.stdout.write(page())
