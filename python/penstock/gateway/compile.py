"""A config becomes the tables that the native Gateway works by, and the deployments that the planner plans for.

Each deployment is planned once, as a call would be, to learn where its requests go and what they look like. Where
nothing of a request but its model has to be changed it is *plain*: the native module builds it from the tables, and
sends what a call of the Python API would have sent. Everything else is planned request by request.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson

from ..call import CHAT, Call, plan
from ..clocks import CONNECT, Timeouts
from ..cost import price_of
from ..endpoints import EMBEDDINGS
from ..errors import APIError, BadRequestError
from ..hooks import check as check_hooks
from ..providers.registry import ROWS, Provider, RowOptions
from ..providers.resolve import first_set, resolve
from ..router import ANY, FALLBACKS, STRATEGIES, weigh
from ..transport import Route, native
from ..transport.port import PRIOR_KNOWLEDGE
from .config import Config, Place
from .schema import COSTS, ROUTING

LINE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
"""What a header may be made of (RFC 9110, 5.5)."""

USERINFO = re.compile(r"//[^/@\s]*@")
"""Name and password in a URL."""

ASKED = [{"role": "user", "content": "?"}]
"""What deployments are planned with."""

OWN = ("model", "messages", "stream", "stream_options")
"""Fields of a chat request that the gateway writes itself."""

MESSAGES_FAMILY = "anthropic"
"""The family whose own requests are served too, on /v1/messages."""

SAME_IN_MESSAGES = frozenset({"max_tokens", "temperature", "top_p", "top_k"})
"""Parameters that are spelled alike there and here."""

NOT_THEIRS = CHAT.options | RowOptions.__optional_keys__ | set(OWN)
"""Fields that are not a client's to set: with which key, where, over which way, and what the gateway writes itself."""

LONGEST = frozenset({"max_tokens", "max_completion_tokens"})
"""One thing by two names, whatever a server makes of them: a client's goes before the config's."""

UNSENT = frozenset({"proxy", "verify", "cert", "http2", "timeout", "stream_timeout"})
"""Of litellm_params, what is about the connection and not in the request."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """What it takes to build a deployment's requests. Its repr shows no key.

    model: as `plan` takes it; where `open`, the client's name for it stands in the place of the `*` at its end.
    family: what its upstream speaks. options: what else `plan` takes. route: the way to its tokens. passes: fields of
        clients' that go as they are.
    """

    id: str
    model: str
    family: str
    open: str | None
    options: Mapping[str, Any] = field(repr=False)
    route: Route = field(repr=False)
    passes: frozenset[str]

    def model_for(self, named: str) -> str:
        """The `model` for what the upstream calls it."""
        return self.model if self.open is None else self.model.removesuffix(self.open) + named


@dataclass(frozen=True, slots=True)
class Served:
    """A line of what is served, for people."""

    group: str
    id: str
    provider: str
    model: str
    host: str
    plain: bool
    priced: bool


@dataclass(frozen=True, slots=True)
class Compiled:
    """A config, ready for use.

    tables: for the Gateway. deployments: for the planner, by id. settings: general_settings. hooks: the config's.
    """

    tables: bytes = field(repr=False)
    deployments: Mapping[str, Deployment] = field(repr=False)
    served: Sequence[Served]
    aliases: Mapping[str, str]
    settings: Mapping[str, Any] = field(repr=False)
    hooks: Sequence[Any]


@dataclass(slots=True)
class _Entry:
    """An entry of the model_list on its way into the tables."""

    place: Place
    group: str
    model: str
    params: Mapping[str, Any]
    info: Mapping[str, Any]
    id: str = ""
    host: str = ""
    row: dict[str, Any] = field(default_factory=dict)
    deployment: Deployment | None = None


def tables_of(config: Config, *, allow_unauthenticated: bool = False) -> Compiled | None:
    """The tables of a config; None if there are errors, all of which are then among its problems.

    Nothing is sent to anybody.
    """
    if not config.values:
        return None  # it could not be read
    hooks = _hooks(config)
    entries = list(_entries(config))
    _name(config, entries)
    wrong = {problem.place[:2] for problem in config.errors}
    for entry in entries:
        if entry.place not in wrong:  # else it would say the same again, in other words
            _compile(config, entry, hooks=bool(hooks))
    groups = _groups(config, entries)
    aliases = _aliases(config, groups)
    fallbacks = _fallbacks(config, groups, aliases)
    config.sort()
    general, router = config.values["general_settings"], config.values["router_settings"]
    if config.errors:
        return None
    tables = {
        "groups": [
            {
                "name": name,
                "deployments": [entry.id for entry in members],
                "strategy": STRATEGIES[router["routing_strategy"]],
                "max_retries": router["num_retries"],
                "retry_after": router["retry_after"],
                "all_tags": not router["tag_filtering_match_any"],
                **{table: others[name] for table, others in fallbacks.items() if name in others},
            }
            for name, members in groups.items()
        ],
        "aliases": aliases,
        "deployments": [entry.row for entry in entries],
        "settings": {
            **_settings(general, allow_unauthenticated=allow_unauthenticated),
            "retry_budget": router["retry_budget"],
        },
    }
    return Compiled(
        tables=orjson.dumps(tables),
        deployments={entry.id: entry.deployment for entry in entries if entry.deployment is not None},
        served=[_served(entry) for entry in entries],
        aliases=aliases,
        settings=general,
        hooks=hooks,
    )


def _served(entry: _Entry) -> Served:
    row = entry.row
    return Served(
        entry.group,
        entry.id,
        row["provider"],
        row["model"],
        entry.host,
        row["plain"] is not None and row["family"] == "chat",
        row["price"] is not None,
    )


# Entries


def _entries(config: Config) -> Iterator[_Entry]:
    """The deployments that the list names, those of `*` for each provider that there is a key for."""
    common = config.values["router_settings"]["default_litellm_params"]
    for index, given in enumerate(config.values["model_list"] or ()):
        place: Place = ("model_list", index)
        name, params = given["model_name"], given["litellm_params"]
        missing = [key for key in ("model_name", "litellm_params") if given[key] is None]
        if not missing and params.get("model") is None:
            missing = ["litellm_params.model"]
        if missing:
            known = set(config.lines) & {(*place, *key.split(".")) for key in missing}
            known |= {problem.place for problem in config.errors if problem.place == place}
            if not known:  # else it is there, and what is wrong with it has been said
                config.error(place, f"expected {' and '.join(missing)}")
            continue
        entry = _Entry(
            place,
            name,
            params["model"],
            {**common, **params, **{key: given[key] for key in ("rpm", "tpm") if given[key] is not None}},
            given["model_info"],
        )
        if ANY in name[:-1] or ANY in entry.model[:-1]:
            config.error(place, f"got {name!r} with {entry.model!r}: a * is at the end of a name")
        elif entry.model.endswith(ANY) and not name.endswith(ANY):
            config.error(place, f"got model {entry.model!r}, expected a * at the end of model_name too")
        elif entry.model == ANY:
            yield from _everybody(config, entry)
        else:
            yield entry


def _everybody(config: Config, entry: _Entry) -> Iterator[_Entry]:
    """`*`: all models of all providers whose key is in the environment."""
    if entry.group != ANY:
        config.error(entry.place, f"got {entry.group!r} with model '*', expected model_name '*'")
        return
    rows = [row for row in ROWS if first_set(os.environ, row.key_env)]
    if not rows:
        config.error(entry.place, "'*' is every provider whose key is in the environment, and there is none")
    for row in rows:
        for prefix in (f"{row.slug}/", *row.models):
            yield _Entry(entry.place, prefix + ANY, prefix + ANY, entry.params, entry.info)


def _name(config: Config, entries: Sequence[_Entry]) -> None:
    """Gives each deployment its id."""
    counts: dict[str, int] = {}
    taken: dict[str, Place] = {}
    for entry in entries:
        number = counts[entry.group] = counts.get(entry.group, -1) + 1
        entry.id = entry.info.get("id") or f"{entry.group}#{number}"
        if entry.id in taken:
            at = config.where(taken[entry.id])
            config.error((*entry.place, "model_info", "id"), f"{entry.id!r} is the id of another deployment, at {at}")
        taken[entry.id] = entry.place


# One deployment


def _compile(config: Config, entry: _Entry, *, hooks: bool) -> None:
    """Plans a deployment, for its row of the tables; what cannot be is noted."""
    params = entry.params
    place = (*entry.place, "litellm_params")
    wild = entry.model.endswith(ANY)
    try:
        orjson.dumps(params)
    except TypeError as error:
        config.error(place, f"it cannot be sent as JSON: {error}")
        return
    try:
        row, _ = resolve(entry.model, params.get("custom_llm_provider"))
        options = _options(config, entry, row)
        timeouts = _timeouts(params, config.values["router_settings"])
        calls = [
            plan(CHAT, model, ASKED, stream, {**options, "timeout": timeouts})
            for model in _probes(entry.model)
            for stream in (True, False)
        ]
    except APIError as error:
        at = (*place, error.param) if error.param is not None and error.param in params else place
        config.error(at, USERINFO.sub("//...@", error.message))
        return
    call = calls[0]
    for name, value in call.headers.items():
        if not LINE.fullmatch(f"{name}{value}"):
            given = next((each for each in params.get("extra_headers") or () if each.lower() == name.lower()), None)
            at = (*place, "extra_headers", given) if given is not None else place
            config.error(at, f"the header {name} has a line end or another character that no header can have")
    if call.provider.follow:
        config.error(
            (*place, "model"),
            f"{call.provider.slug} answers in two steps, which the gateway does not take: use the Python API",
        )
    route = _route(config, entry, call)
    pattern = resolve(entry.model, params.get("custom_llm_provider"))[1]
    dialect = call.provider.dialect
    limits = {"rpm": params.get("rpm"), "tpm": params.get("tpm")}
    limits["max_parallel"] = params.get("max_parallel_requests")
    router = config.values["router_settings"]
    if limits["max_parallel"] is None:
        limits["max_parallel"] = router["default_max_parallel_requests"]
    cooldown = params.get("cooldown_time")
    known = not hooks and _same(calls)
    entry.row = {
        "id": entry.id,
        "model": pattern if wild else call.model,
        "provider": call.provider.slug,
        "family": call.provider.family,
        "reasoning": dialect.get("reasoning", "inside"),
        "end": dialect.get("end", "finish"),
        "plain": _plain(calls, options, entry.model, pattern) if known else None,
        "embeddings": _embeddings(entry.model, options) if known else None,
        "route": route,
        "timeouts": {name: getattr(timeouts, name) for name in ("connect", "first_token", "idle", "total")},
        "limits": limits,
        "allowed_fails": None if router["disable_cooldowns"] else router["allowed_fails"],
        "cooldown": router["cooldown_time"] if cooldown is None else cooldown,
        "weight": params.get("weight"),
        "order": params.get("order") or 0,
        "tags": params.get("tags") or [],
        "max_prompt": entry.info.get("max_input_tokens") if router["enable_pre_call_checks"] else None,
        "price": _price(entry, wild=wild),
    }
    entry.host = _host(call.url)
    entry.deployment = Deployment(
        entry.id,
        entry.model,
        call.provider.family,
        pattern if wild else None,
        options,
        Route(params.get("proxy"), params.get("verify", True), _hashable(params.get("cert"))),
        frozenset(params.get("allowed_openai_params") or ()) - CHAT.parameters - NOT_THEIRS,
    )


def _probes(model: str) -> tuple[str, ...]:
    """Models to plan with: two where the client names it, to see whether anything depends on the name."""
    if not model.endswith(ANY):
        return (model,)
    another = "another/2" if "/" in model else "another-2"  # what is before a first slash is a provider
    return f"{model[:-1]}one-1", model[:-1] + another


def _options(config: Config, entry: _Entry, row: Provider) -> dict[str, Any]:
    """What `plan` takes of litellm_params. Keywords of another provider's have no effect, and are warned of."""
    routing = {key.name for key in (*ROUTING, *COSTS)} | UNSENT | {"model"}
    known = CHAT.parameters | CHAT.options | row.keywords()
    options = {}
    for name, value in entry.params.items():
        if name in routing or value is None:
            continue
        if name not in known:
            owners = ", ".join(each.slug for each in ROWS if name in each.keywords())
            config.warn(
                (*entry.place, "litellm_params", name), f"it has no effect: it is of {owners}, not of {row.slug}"
            )
            continue
        options[name] = value
    return options


def _timeouts(*sections: Mapping[str, Any]) -> Timeouts:
    """The clocks: by name, or one number for the first token and each silence; of the first that says any."""
    for section in sections:
        given, streamed = section.get("timeout"), section.get("stream_timeout")
        if isinstance(given, Mapping):
            return Timeouts(**given)
        seconds = streamed if streamed is not None else given
        if seconds is not None:
            return Timeouts(connect=min(CONNECT, seconds), first_token=seconds, idle=seconds)
    return Timeouts()


def _host(url: str) -> str:
    """Host and port, for people: without the name and password that may stand before them."""
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2]


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _route(config: Config, entry: _Entry, call: Call) -> dict[str, Any]:
    """The way to a server: through which proxy, and whom to trust on it."""
    verify, cert = entry.params.get("verify", True), entry.params.get("cert")
    place = (*entry.place, "litellm_params")
    if verify is False:
        config.warn((*place, "verify"), f"anybody may answer in place of {_host(call.url)}, and is sent the key")
    environment = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if isinstance(verify, str) or cert is not None:
        try:
            native.trust(verify, _hashable(cert), *environment)
        except BadRequestError as error:
            config.error((*place, error.param or "verify"), error.message)
    paths = native.authorities(verify, *environment)
    return {
        "proxy": native.proxy_of(Route(entry.params.get("proxy")), call.url),
        "verify": verify if paths is None or verify is False else paths,
        "cert": native.identity(_hashable(cert)),
        "http2": {True: "negotiated", PRIOR_KNOWLEDGE: PRIOR_KNOWLEDGE}.get(entry.params.get("http2"), "never"),
    }


def _price(entry: _Entry, *, wild: bool) -> dict[str, Any] | None:
    """US dollars a token: the entry's own, else what is known of the model."""
    own = {key.name: entry.params.get(key.name, entry.info.get(key.name)) for key in COSTS}
    given, said, read, written = own.values()
    if given is not None or said is not None:
        return {"input": given or 0.0, "output": said or 0.0, "cached": read, "cache_write": written}
    if wild:
        return None  # each model's is looked up when it has answered
    with suppress(BadRequestError):
        price = price_of(entry.info.get("base_model") or entry.model)
        return {
            "input": price.input,
            "output": price.output,
            "cached": price.cached if read is None else read,
            "cache_write": price.cache_write if written is None else written,
        }
    return None


# Plain ones


def _same(calls: Sequence[Call]) -> bool:
    """Whether requests differ by nothing but model and messages: no token, no signature, no address of their own."""
    first = calls[0]
    return all(
        call.source is None and call.sign is None and (call.url, call.provider) == (first.url, first.provider)
        for call in calls
    )


def _plain(calls: Sequence[Call], options: Mapping[str, Any], model: str, pattern: str) -> dict[str, Any] | None:
    """How the native module builds the requests of a deployment; None where it cannot."""
    row = calls[0].provider
    if row.fields or row.messages is not None or set(options.get("extra_body") or ()) & set(OWN):
        return None
    if pattern.endswith(ANY):
        # What the client writes is what is sent, in the place of all that the pattern leaves open.
        beginning = pattern[:-1]
        probes = [beginning + probe.removeprefix(model[:-1]) for probe in _probes(model) for _ in (True, False)]
        if [call.model for call in calls] != probes or any(variant.model != ".*" for variant in row.variants):
            return None
    if row.family == MESSAGES_FAMILY:
        return _plain_messages(calls, options)
    return _plain_chat(calls, options) if row.family == "chat" else None


def _plain_chat(calls: Sequence[Call], options: Mapping[str, Any]) -> dict[str, Any]:
    """A chat request that goes on as one: what has to be done to any of its fields makes that request another's."""
    row = calls[0].provider
    allowed = frozenset(options.get("allowed_openai_params") or ())
    changed = {
        *(row.unsupported - allowed),
        *row.words,
        *row.spellings,
        *_left_out(options),
        "metadata",  # whose tags are the gateway's
    }
    added = {name: value for name, value in calls[-1].body.items() if name not in OWN}
    if LONGEST & added.keys():
        changed |= LONGEST - added.keys() - row.renames.keys()
    takes = (CHAT.parameters | allowed) - changed
    return {
        "url": calls[0].url,
        "headers": _headers(calls),
        "set": added,
        "renames": {name: other for name, other in row.renames.items() if name in takes},
        "takes": sorted(takes),
        "stream_options": row.stream_options,
    }


def _plain_messages(calls: Sequence[Call], options: Mapping[str, Any]) -> dict[str, Any] | None:
    """A request of the Messages API that goes on as one. The caller's fields are the server's to judge."""
    given = {name: value for name, value in options.items() if name in CHAT.parameters}
    if not given.keys() <= SAME_IN_MESSAGES:
        return None
    return {
        "url": calls[0].url,
        "headers": _headers(calls),
        "set": {**given, **(options.get("extra_body") or {})},
        "refuses": sorted(_left_out(options) - set(OWN)),
    }


def _left_out(options: Mapping[str, Any]) -> set[str]:
    """Fields that are not the client's to set, or are not sent."""
    return {
        *NOT_THEIRS,
        *(options.get("additional_drop_params") or ()),
        *(options.get("extra_body") or ()),
    }


def _headers(calls: Sequence[Call]) -> list[tuple[str, str]]:
    """The headers that every request has. Whether events are wanted, the native module says itself."""
    first, *others = (call.headers for call in calls)
    return [(name, value) for name, value in first.items() if all(each.get(name) == value for each in others)]


def _embeddings(model: str, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Where embeddings are asked for, of servers that take OpenAI's requests for them."""
    row = resolve(model, options.get("custom_llm_provider"))[0]
    known = {name: value for name, value in options.items() if name in EMBEDDINGS.options | row.keywords()}
    try:
        calls = [plan(EMBEDDINGS, each, "?", None, known) for each in _probes(model)]
    except APIError:
        return None
    if calls[0].provider.family != "chat" or not _same(calls):
        return None
    return {"url": calls[0].url, "headers": _headers(calls)}


# Groups


def _groups(config: Config, entries: Sequence[_Entry]) -> dict[str, list[_Entry]]:
    """The deployments by name, with their weights and tags as they count there."""
    groups: dict[str, list[_Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.group, []).append(entry)
    wanted = config.values["router_settings"]["enable_tag_filtering"]
    for members in groups.values():
        rows = [entry.row for entry in members if entry.row]
        filters = wanted if wanted is not None else any(row["tags"] for row in rows)
        weighed = [{**row["limits"], "weight": row["weight"]} for row in rows]
        weigh(weighed)
        for row, each in zip(rows, weighed, strict=True):
            row["weight"] = each["weight"]
            row["tags"] = row["tags"] if filters else []
    return groups


def _aliases(config: Config, groups: Mapping[str, Any]) -> dict[str, str]:
    aliases: dict[str, str] = {}
    for alias, name in config.values["router_settings"]["model_group_alias"].items():
        place: Place = ("router_settings", "model_group_alias", alias)
        if alias in groups:
            config.error(place, f"{alias!r} is a model_name itself")
        elif ANY in alias:
            config.error(place, f"got {alias!r}, expected one name: a * is for model_name")
        elif _known(config, place, name, groups, {}):
            aliases[alias] = name
    return aliases


def _known(config: Config, place: Place, name: str, groups: Mapping[str, Any], aliases: Mapping[str, str]) -> bool:
    """Whether requests can be made by this name; if not, that is noted."""
    if not groups:
        return False  # which has been said
    wild = [group for group in groups if group.endswith(ANY)]
    if name in groups or name in aliases or any(name.startswith(group[:-1]) for group in wild):
        return True
    close = get_close_matches(name, [*groups, *aliases], n=1)
    hint = f": did you mean {close[0]}?" if close else f", expected one of {', '.join([*groups, *aliases])}"
    config.error(place, f"got {name!r}, which is no model_name{hint}")
    return False


def _fallbacks(
    config: Config, groups: Mapping[str, Any], aliases: Mapping[str, str]
) -> dict[str, dict[str, list[str]]]:
    """By table and name, whom to ask next."""
    router = config.values["router_settings"]
    tables: dict[str, dict[str, list[str]]] = {}
    for table in FALLBACKS:
        made: dict[str, list[str]] = {}
        common: list[str] = []
        known: dict[str, Place] = {}
        for index, entry in enumerate(router[table]):
            for source, others in entry.items():
                place: Place = ("router_settings", table, index, source)
                if source != ANY and source not in groups and source not in aliases:
                    _known(config, place, source, {name: None for name in groups if not name.endswith(ANY)}, aliases)
                    continue
                first = known.setdefault(aliases.get(source, source), place)
                if first != place:
                    config.error(place, f"{source!r} has some already, at {config.where(first)}")
                targets = [aliases.get(name, name) for name in others if _known(config, place, name, groups, aliases)]
                if source == ANY:
                    common = targets
                else:
                    made[aliases.get(source, source)] = targets
        if table == "fallbacks" and not common:
            place = ("router_settings", "default_fallbacks")
            named = router["default_fallbacks"]
            common = [aliases.get(name, name) for name in named if _known(config, place, name, groups, aliases)]
        for name in groups:
            others = [other for other in made.get(name, common) if other != name]
            if others:
                tables.setdefault(table, {})[name] = others
    return tables


# The server


def _settings(general: Mapping[str, Any], *, allow_unauthenticated: bool) -> dict[str, Any]:
    same = (
        "max_requests",
        "max_body",
        "max_head",
        "head_seconds",
        "body_seconds",
        "send_seconds",
        "silence",
        "on_disconnect",
        "drain_seconds",
        "public_health",
        "proxy_headers",
        "redis",
    )
    key = general["master_key"]
    return {
        "master_key": None if key is None else sha256(key.encode()).hexdigest(),
        "allow_unauthenticated": allow_unauthenticated,
        "cors": list(general["cors"]),
        **{name: general[name] for name in same},
    }


def _hooks(config: Config) -> list[Any]:
    """The hooks that the config names, imported: a class is made one by calling it."""
    found = []
    named = config.values["litellm_settings"]["hooks"]
    folder = str(Path(config.file).absolute().parent)
    if named and folder not in sys.path:
        sys.path.append(folder)  # they may stand beside the file
    for index, path in enumerate(named):
        place: Place = ("litellm_settings", "hooks", index)
        module, _, name = path.rpartition(".")
        try:
            hook = getattr(import_module(module), name)
            hook = hook() if isinstance(hook, type) else hook
            check_hooks([hook])
        except Exception as error:  # noqa: BLE001  the module may raise whatever it likes
            config.error(place, f"got {path!r}, expected the import path of a hook: {type(error).__name__}: {error}")
            continue
        found.append(hook)
    return found
