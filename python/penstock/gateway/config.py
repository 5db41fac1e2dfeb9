"""The config file: YAML in litellm's shape, read with the place of everything in it, so that errors can name it.

    config = read("config.yaml")
    config.values["general_settings"]["max_requests"]     # as given, else its default
    for problem in config.problems: print(problem)        # config.yaml:12: error: model_list[0].rpm: ...

`schema` is all that is known of the file; docs/proxy-config.md is written from it: `python -m penstock.gateway.config`.
"""

import os
import re
import sys
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import yaml

from ..router import ENVIRONMENT
from .schema import (
    BYTES,
    FLAG,
    HTTP2,
    INFO,
    INTEGER,
    KEYWORD,
    KEYWORDS,
    LARGEST,
    MODELS,
    NUMBER,
    PARAMETERS,
    PARAMS,
    REAL,
    REDIS,
    SCHEMA,
    SECONDS,
    SHARED,
    TEXT,
    TEXTS,
    TIMEOUT,
    VERIFY,
    WHOLE,
    Key,
    Kind,
    Section,
    Unfit,
    sections,
)

Place = tuple[str | int, ...]
"""Where something stands in the file: ("model_list", 0, "litellm_params", "rpm")."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a config that cannot be, or that has no effect.

    level: an error keeps the config from being used. where: file and line. path: the keys that lead to it.
    """

    level: Literal["error", "warning"]
    where: str
    path: str
    message: str
    place: Place = field(default=(), repr=False)

    def __str__(self) -> str:
        at = f"{self.path}: " if self.path else ""
        return f"{self.where}: {self.level}: {at}{self.message}"


# Reading


TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")

SECRET = re.compile(r"key|secret|token|password|credential|url|header", re.IGNORECASE)
"""What names values that no error shows."""

EXPONENT = re.compile(r"[-+]?\d+[eE][-+]?\d+")
"""A number that YAML 1.1 takes for a text: 1e-6."""

UNSET = object()


@dataclass(slots=True)
class Config:
    """A config file as it was read. With errors among its problems it is not to be used.

    values: what it says, with the defaults of the schema. lines: where each thing stands in it.
    """

    file: str
    values: dict[str, Any] = field(default_factory=dict, repr=False)
    lines: dict[Place, int] = field(default_factory=dict, repr=False)
    problems: list[Problem] = field(default_factory=list)

    def error(self, place: Place, message: str) -> None:
        """Notes what cannot be."""
        self.problems.append(Problem("error", self.where(place), shown(place), message, place))

    def warn(self, place: Place, message: str) -> None:
        """Notes what has no effect."""
        self.problems.append(Problem("warning", self.where(place), shown(place), message, place))

    @property
    def errors(self) -> list[Problem]:
        """The problems that keep it from being used."""
        return [problem for problem in self.problems if problem.level == "error"]

    def sort(self) -> None:
        """Puts the problems in the order of the file."""
        self.problems.sort(key=lambda problem: self.line(problem.place))

    def line(self, place: Place) -> int:
        """The line of a thing, or of what holds it; 0 for what is in no file."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 0)

    def where(self, place: Place) -> str:
        """File and line of a thing, or of what holds it."""
        line = self.line(place)
        return f"{self.file}:{line}" if line else self.file


def shown(place: Place) -> str:
    """`model_list[0].litellm_params.rpm`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def read(path: str | Path, environ: MutableMapping[str, str] = os.environ) -> Config:
    """The config in a file, with all its problems. `environ` gets its environment_variables."""
    config = Config(str(path))
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        config.error((), f"it cannot be read: {error.strerror or error}")
    except UnicodeDecodeError as error:
        config.error((), f"it is not UTF-8: {error.reason} at byte {error.start}")
    else:
        parse(text, config, environ)
    return config


def of_models(models: Iterable[str], environ: MutableMapping[str, str] = os.environ) -> Config:
    """The config for models alone, each under its full name and its bare one."""
    config = Config("--model")
    names = list(models)
    bare = {name.partition("/")[2]: name for name in names if "*" not in name and name.partition("/")[2]}
    given = {
        "model_list": [{"model_name": name, "litellm_params": {"model": name}} for name in names],
        "router_settings": {"model_group_alias": {alias: name for alias, name in bare.items() if alias not in names}},
    }
    _take(config, given, {}, environ)
    return config


def parse(text: str, config: Config, environ: MutableMapping[str, str]) -> None:
    """Reads the text of a config into `config`."""
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            tree = _Tree(config, loader)
            given = tree.plain(node, ()) if node is not None else None
        finally:
            loader.dispose()
    except RecursionError:
        config.error((), "it holds itself, or is nested too deeply")
        return
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if mark is not None:
            config.lines[()] = mark.line + 1
        said = ", ".join(each for each in (error.context, error.problem) if each)
        config.error((), f"this is not YAML: {said}")
        return
    except yaml.YAMLError as error:
        config.error((), f"this is not YAML: {' '.join(str(error).split())}")
        return
    if not isinstance(given, dict):
        config.error((), f"expected a mapping with model_list, got {_what(given, ())}")
        return
    _take(config, given, tree.written, environ)


class _Tree:
    """The nodes of a document as plain data, noting where they stand.

    `written` has the text of scalars that are something else to YAML: `api_version: 2024-10-21` is a date there.
    """

    def __init__(self, config: Config, loader: yaml.SafeLoader) -> None:
        self.config = config
        self.loader = loader
        self.written: dict[Place, str] = {}

    def plain(self, node: yaml.Node, place: Place) -> Any:
        self.config.lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(each, (*place, index)) for index, each in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, place)
        try:
            value = self.loader.construct_object(node)
        except yaml.MarkedYAMLError:
            self.config.error(place, f"there is no {node.tag} here: expected plain YAML")
            return None
        except (ValueError, LookupError, AttributeError):
            return node.value  # 2024-13-45 looks like a date, and `!!bool maybe` says that it is a flag
        if (
            isinstance(value, str)
            and isinstance(node, yaml.ScalarNode)
            and node.style is None
            and EXPONENT.fullmatch(value)
        ):
            value = float(value)
        if isinstance(value, int | float | date) and not isinstance(value, bool):
            self.written[place] = node.value
        return value

    def mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        made: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                parts = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for part in parts:
                    if isinstance(part, yaml.MappingNode):
                        merged = {**self.mapping(part, place), **merged}
                continue
            key = key_node.value
            here = (*place, key)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                self.config.error(place, f"line {line}: a key is a text")
                continue
            if key in made:
                self.config.error(here, f"it is here twice, in line {self.config.lines[here]} and in line {line}")
            self.config.lines[here] = line
            made[key] = self.plain(value_node, here)
        return {**merged, **made}


def _take(
    config: Config,
    given: dict[str, Any],
    written: Mapping[Place, str],
    environ: MutableMapping[str, str],
) -> None:
    """The values of a config out of plain data."""
    variables = given.get("environment_variables")
    if isinstance(variables, dict):
        for name, value in variables.items():
            place = ("environment_variables", name)
            text = _resolved(config, written.get(place, value), place, environ)
            if isinstance(text, bool):
                text = str(text).lower()
            if not name or "=" in name or "\0" in name:
                config.error(place, f"got {name!r}, expected the name of a variable")
            elif isinstance(text, str) and "\0" in text:
                config.error(place, "got a text with a zero byte in it, which no variable can hold")
            elif isinstance(text, str):
                environ[name] = text
            elif text is not UNSET:
                config.error(place, f"got {_what(text, place)}, expected a text")
    reader = _Reader(config, written, environ)
    config.values = reader.section(SCHEMA, given, ())
    if not config.values["model_list"] and not any(p.path.startswith("model_list") for p in config.problems):
        config.error((), "expected model_list with at least one deployment: model_name, and litellm_params with model")
    _settle(config, given)
    _check_master_key(config, environ)


def _settle(config: Config, given: Mapping[str, Any]) -> None:
    """What can be said in two places is in one of them from here on."""
    router, litellm, general = (
        config.values[name] for name in ("router_settings", "litellm_settings", "general_settings")
    )
    said = _mapping(given, "router_settings")
    for key in SHARED:
        if key.name not in said and litellm[key.name] is not None:
            router[key.name] = litellm[key.name]
            for place, line in list(config.lines.items()):
                if place[:2] == ("litellm_settings", key.name):
                    config.lines["router_settings", *place[1:]] = line
    if router["timeout"] is None:
        router["timeout"] = litellm["request_timeout"]
    if router["default_max_parallel_requests"] is None:
        router["default_max_parallel_requests"] = general["max_parallel_requests"]
    defaults = {name: litellm[name] for name in ("drop_params", "additional_drop_params") if litellm[name]}
    if litellm["ssl_verify"] is not None:
        defaults["verify"] = litellm["ssl_verify"]
    router["default_litellm_params"] = {**defaults, **router["default_litellm_params"]}
    if litellm["json_logs"] and "log_format" not in _mapping(given, "general_settings"):
        general["log_format"] = "json"
    if general["max_request_size_mb"] is not None:
        general["max_body"] = min(int(general["max_request_size_mb"] * (1 << 20)), LARGEST)
    if general["redis"] is None:
        general["redis"] = _redis(router)
    elif general["redis"]["url"] is None:
        config.error(("general_settings", "redis"), "expected url: redis://host:6379/0")
        general["redis"] = None


def _mapping(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section as it was given; what is none has been told of."""
    section = given.get(name)
    return section if isinstance(section, dict) else {}


def _redis(router: Mapping[str, Any]) -> dict[str, Any] | None:
    """The Redis that router_settings names, in one piece or in parts."""
    url = router["redis_url"]
    if url is None and router["redis_host"] is None:
        return None
    if url is None:
        password = f":{quote(router['redis_password'], safe='')}@" if router["redis_password"] else ""
        url = f"redis://{password}{router['redis_host']}:{router['redis_port'] or 6379}/{router['redis_db'] or 0}"
    return {**{key.name: key.default for key in REDIS.keys}, "url": url}


class _Reader:
    """Plain data against the schema."""

    def __init__(self, config: Config, written: Mapping[Place, str], environ: Mapping[str, str]) -> None:
        self.config = config
        self.written = written
        self.environ = environ

    def section(self, section: Section, given: Any, place: Place) -> dict[str, Any]:
        """The values of a mapping, with defaults; what cannot be is noted and left out."""
        names = {name: key for key in section.keys for name in (key.name, *key.like)}
        made: dict[str, Any] = {}
        said: dict[str, str] = {}
        if section.also is not None and isinstance(given, str):
            given = {section.keys[0].name: given}
        if given is not None and not isinstance(given, dict):
            wanted = "a mapping" if isinstance(place[-1], int) else section.says
            self.config.error(place, f"got {_what(given, place)}, expected {wanted}")
            given = None
        for name, value in (given or {}).items():
            here = (*place, name)
            key = names.get(name)
            if key is None:
                if not section.open:
                    self.unknown(section, name, here)
                else:
                    made[name] = value
                continue
            if value is None:
                continue  # as if it were not there
            if key.name in said:
                self.config.error(here, f"{said[key.name]} and {name} are the same: leave one out")
                continue
            said[key.name] = name
            read = self.value(key, value, here)
            if read is not UNSET:
                made[key.name] = read
        for key in section.keys:
            if isinstance(key.kind, Section) and not key.kind.lists and key.name not in made and key.default == {}:
                made[key.name] = self.section(key.kind, {}, (*place, key.name))
            elif section not in (PARAMS, INFO):
                made.setdefault(key.name, key.default)
        return made

    def value(self, key: Key, value: Any, place: Place) -> Any:
        """The value of a key; UNSET if it cannot be, which is noted."""
        kind = key.kind
        if isinstance(kind, Section):
            if not kind.lists:
                return self.section(kind, value, place)
            if not isinstance(value, list):
                self.config.error(place, f"got {_what(value, place)}, expected {kind.says}")
                return UNSET
            return [self.section(kind, each, (*place, index)) for index, each in enumerate(value)]
        resolved = _resolved(self.config, value, place, self.environ)
        if resolved is UNSET:
            return UNSET
        if kind in (TEXT, KEYWORD, VERIFY) and place in self.written:
            resolved = self.written[place]
        elif isinstance(value, str) and isinstance(resolved, str) and value.startswith(ENVIRONMENT):
            resolved = _typed(resolved, kind)
        try:
            return kind.read(resolved)
        except Unfit as unfit:
            says, wrong = unfit.says or kind.says, unfit.part if unfit.at else resolved
            hint = ""
            if isinstance(wrong, str) and says.startswith("one of"):
                hint = _nearest(wrong, says.removeprefix("one of ").split(", "))
            came = f"got {_what(wrong, place)}"
            if wrong == "" and isinstance(value, str) and value.startswith(ENVIRONMENT):
                came = f"the variable {value.removeprefix(ENVIRONMENT)} is empty"
            self.config.error((*place, *unfit.at), f"{came}, expected {says}{hint}")
            return UNSET

    def unknown(self, section: Section, name: str, place: Place) -> None:
        """Notes a key that has no meaning here."""
        if name in section.elsewhere:
            self.config.warn(place, f"it has no effect: {section.elsewhere[name]}")
            return
        holders = [each for each in sections() if any(key.name == name for key in each.keys) and each is not section]
        hint = _nearest(name, [key.name for key in section.keys])
        if holders and not hint:
            hint = f"; {' and '.join(each.name or 'the file' for each in holders)} has one"
        elif section is PARAMS and not hint:
            hint = "; extra_body sets fields of the request that are not known here"
        self.config.warn(place, f"unknown key, without effect{hint}")


def _resolved(config: Config, value: Any, place: Place, environ: Mapping[str, str]) -> Any:
    """The value with those of variables for `os.environ/NAME`; UNSET where one is missing, which is noted."""
    if isinstance(value, dict):
        made = {name: _resolved(config, each, (*place, name), environ) for name, each in value.items()}
        return UNSET if UNSET in made.values() else made
    if isinstance(value, list):
        items = [_resolved(config, each, (*place, index), environ) for index, each in enumerate(value)]
        return UNSET if UNSET in items else items
    if not isinstance(value, str) or not value.startswith(ENVIRONMENT):
        return value
    name = value.removeprefix(ENVIRONMENT)
    if name not in environ:
        close = get_close_matches(name, list(environ), n=1, cutoff=0.8)
        config.error(place, f"the variable {name} is not set" + (f": did you mean {close[0]}?" if close else ""))
        return UNSET
    return environ[name]


def _typed(text: str, kind: Kind) -> Any:
    """What a variable holds, as the kind of value that is wanted, if it can be read so."""
    if kind is FLAG or (kind in (VERIFY, HTTP2) and text.lower() in ("true", "false")):
        return True if text.lower() in TRUE else False if text.lower() in FALSE else text
    if kind in (NUMBER, SECONDS, WHOLE, BYTES, INTEGER, TIMEOUT, REAL):
        try:
            whole = kind in (WHOLE, BYTES, INTEGER) or (kind is REAL and text.strip().lstrip("-").isdecimal())
            return int(text) if whole else float(text)
        except ValueError:
            return text
    if kind is TEXTS:
        return [each.strip() for each in text.split(",") if each.strip()]
    return text


def _what(value: Any, place: Place) -> str:
    """A value for people, without what may be secret."""
    if value is None:
        return "nothing"
    kinds = ((bool, "a flag"), (str, "a text"), (int | float, "a number"), (list, "a list"), (dict, "a mapping"))
    kind = next((name for cls, name in kinds if isinstance(value, cls)), f"a {type(value).__name__}")
    if value == "":
        return "an empty text"
    if isinstance(value, list | dict) or any(SECRET.search(str(part)) for part in place[1:]):
        return kind
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _nearest(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f": did you mean {close[0]}?" if close else ""


# The master key


WELL_KNOWN = frozenset(
    {
        "sk-1234567890abcdef",
        "sk-litellm-master-key",
        "sk-my-special-key",
        "sk-my_special_key",
        "sk-master-key-1234",
        "your-master-key-here",
        "sk-your-master-key",
        "sk-your-master-key-here",
        "sk-change-me-please",
        "changeme-changeme",
        "my-secret-master-key",
        "sk-0123456789abcdef",
        "sk-litellm-1234567890",
    }
)
"""Keys of examples, which whoever tries doors tries first; those shorter than SHORTEST are not even listed."""

SHORTEST, FEWEST = 16, 8
"""Characters that a master key has, and how many different ones."""

MASTER_KEY, DATABASE = "PENSTOCK_MASTER_KEY", "PENSTOCK_DATABASE"


def _check_master_key(config: Config, environ: Mapping[str, str]) -> None:
    """The master key, from the file or the variable, unless anybody could guess it."""
    general = config.values["general_settings"]
    place: Place = ("general_settings", "master_key")
    if general["master_key"] is None:
        general["master_key"] = environ.get(MASTER_KEY) or None
    if general["database_url"] is None:
        general["database_url"] = environ.get(DATABASE) or None
    key = general["master_key"]
    if key is None:
        return
    why = weakness(key)
    if why is not None:
        config.error(place, f"{why}. `penstock keys secret` makes a good one")


def weakness(key: str) -> str | None:
    """Why a master key is none; None for a good one."""
    if not key.isascii() or not key.isprintable() or " " in key:
        return "it has characters that no HTTP header can carry"
    if len(key) < SHORTEST:
        return f"it has {len(key)} characters, and anybody can try all of that: expected {SHORTEST} or more"
    if key.lower() in WELL_KNOWN or len(set(key)) < FEWEST:
        return "it is one that anybody would try first"
    return None


# The reference


HEAD = """\
# The gateway's config file

Generated from the schema by `python -m penstock.gateway.config`; [proxy.md](proxy.md) has examples. The shape is
litellm's, and most of its files can be used as they are: what has no meaning here is warned of, with the reason.
`penstock proxy --config FILE --check` tells what would be served, and all problems at once.

`os.environ/NAME` in place of any value stands for that of a variable. A key with no value is as if it were not there.
"""

WILDCARDS = """
A `model_name` with a `*` at its end stands for all names that begin so, and a `*` at the end of `model` for what the
client wrote in its place: `openai/*` with `model: openai/*` serves all models of that provider, and `*` with
`model: "*"` those of every provider whose key is in the environment.
"""

PARAMETERS_SAY = """
Parameters of the model are sent where a client says nothing: {parameters}.

Keywords of providers:
"""


def reference() -> str:
    """docs/proxy-config.md."""
    parts = [HEAD]
    for section in sections():
        title = section.name or "The file"
        parts.append(f"\n## {title}\n\n")
        common = [key for key in section.keys if key not in (*PARAMETERS, *KEYWORDS)]
        parts.append(_table(common))
        if section is PARAMS:
            parts.append(PARAMETERS_SAY.format(parameters=", ".join(f"`{key.name}`" for key in PARAMETERS)))
            parts.append("\n| key | of |\n|---|---|\n")
            parts += [f"| `{key.name}` | {key.says.removeprefix('Of ').rstrip('.')} |\n" for key in KEYWORDS]
        if section is MODELS:
            parts.append(WILDCARDS)
        if section.open:
            parts.append("\nAll other keys are yours.\n")
        if section.elsewhere:
            reasons: dict[str, list[str]] = {}
            for name, reason in section.elsewhere.items():
                reasons.setdefault(reason, []).append(f"`{name}`")
            parts.append("\nOf litellm's, without effect:\n\n")
            parts += [f"- {', '.join(names)}: {reason}\n" for reason, names in reasons.items()]
    return "".join(parts)


def _table(keys: Sequence[Key]) -> str:
    rows = ["| key | value | default | |\n|---|---|---|---|\n"]
    for key in keys:
        names = ", ".join(f"`{name}`" for name in (key.name, *key.like))
        kind = key.kind.says if isinstance(key.kind, Kind) else f"{key.kind.says}, see below"
        default = "" if key.default in (None, {}, ()) else f"`{_default(key.default)}`"
        rows.append(f"| {names} | {kind} | {default} | {key.says} |\n".replace("||", "| |"))
    return "".join(rows)


def _default(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.stdout.write(reference())
