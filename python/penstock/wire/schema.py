"""The JSON schema of a Python type, in the strict form that structured outputs want, and values of it out of JSON."""

import dataclasses
import enum
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..errors import BadRequestError

SCALARS: Mapping[Any, str] = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def strict_schema(cls: type) -> dict[str, Any]:
    """The strict schema: every object lists all its properties as required and allows no other.

    Raises:
        BadRequestError: the type, or one inside it, has no JSON schema here.
    """
    if hasattr(cls, "model_json_schema"):
        schema = cls.model_json_schema()
    elif hasattr(cls, "__struct_fields__"):
        import msgspec

        schema, parts = msgspec.json.schema_components([cls], ref_template="#/$defs/{name}")
        schema = {**parts.pop(cls.__name__), "$defs": parts} if cls.__name__ in parts else {**schema[0], "$defs": parts}
    elif dataclasses.is_dataclass(cls):
        schema = _object(cls, {}, top=True)
    else:
        raise BadRequestError(
            f"response_format: {cls.__name__} is neither a pydantic model, nor a msgspec struct, nor a dataclass",
            param="response_format",
        )
    strict: dict[str, Any] = _strict(schema)
    return strict


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}  # the strict form allows nothing beside a reference
    strict: dict[str, Any] = {}
    for name, part in schema.items():
        if name in ("properties", "$defs"):
            strict[name] = {key: _strict(value) for key, value in part.items()}
        elif name not in ("default", "title"):
            strict[name] = part if name in ("enum", "const", "required") else _strict(part)
    if "properties" in strict:
        strict["required"] = list(strict["properties"])
        strict["additionalProperties"] = False
    return strict


def _object(cls: Any, known: dict[str, Any], *, top: bool = False) -> dict[str, Any]:
    """A dataclass by reference; the outermost one in place, with all the others under $defs."""
    name = cls.__name__
    if not top:
        if name in known:
            return {"$ref": f"#/$defs/{name}"}
        known[name] = None  # being made: a type may contain itself
    hints = get_type_hints(cls)
    properties = {field.name: _schema(hints[field.name], known) for field in dataclasses.fields(cls)}
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if top:
        return {**schema, "$defs": known} if known else schema
    known[name] = schema
    return {"$ref": f"#/$defs/{name}"}


def _schema(hint: Any, known: dict[str, Any]) -> dict[str, Any]:
    if hint in SCALARS:
        return {"type": SCALARS[hint]}
    if hint is Any:
        return {}
    if dataclasses.is_dataclass(hint):
        return _object(hint, known)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"enum": [member.value for member in hint]}
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"enum": list(parts)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(part, known) for part in parts]}
    if origin in (list, set, frozenset, Sequence):
        return {"type": "array", "items": _schema(parts[0], known)}
    if origin is tuple and len(parts) == 2 and parts[1] is ...:
        return {"type": "array", "items": _schema(parts[0], known)}
    if origin in (dict, Mapping) and parts[0] is str:
        return {"type": "object", "additionalProperties": _schema(parts[1], known)}
    raise BadRequestError(f"response_format: {hint!r} has no JSON schema", param="response_format")


# The other way


def read(cls: type, text: str) -> Any:
    """The value of the type that a JSON text holds.

    Fields that the type lacks are passed over, those that the text lacks have their defaults.

    Raises:
        ValueError: the text is no JSON, or its value does not fit; the message says where. Pydantic and msgspec raise
            errors of their own, and so may `__post_init__`.
    """
    if hasattr(cls, "model_validate_json"):
        return cls.model_validate_json(text)
    if hasattr(cls, "__struct_fields__"):
        import msgspec

        return msgspec.json.decode(text, type=cls)
    import orjson

    return _value(cls, orjson.loads(text), "")


def _value(hint: Any, data: Any, where: str) -> Any:
    if hint is Any:
        return data
    if hint in SCALARS:
        return _scalar(hint, data, where)
    if dataclasses.is_dataclass(hint):
        return _instance(hint, data, where)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(_among([member.value for member in hint], data, where))
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _among(parts, data, where)
    if origin in (Union, types.UnionType):
        return _one_of(parts, data, where)
    if origin in (dict, Mapping):
        entries = _expect(dict, data, where)
        return {name: _value(parts[1], item, _at(where, name)) for name, item in entries.items()}
    items = [_value(parts[0], item, f"{where}[{index}]") for index, item in enumerate(_expect(list, data, where))]
    return items if origin in (list, Sequence) else origin(items)


def _instance(cls: Any, data: Any, where: str) -> Any:
    hints = get_type_hints(cls)
    data = _expect(dict, data, where)
    given = {}
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        if field.name in data:
            given[field.name] = _value(hints[field.name], data[field.name], _at(where, field.name))
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise _misfit(_at(where, field.name), "is missing")
    return cls(**given)


def _scalar(hint: Any, data: Any, where: str) -> Any:
    if type(data) is hint:
        return data
    if hint is float and type(data) is int:
        return float(data)
    if hint is int and type(data) is float and data.is_integer():
        return int(data)
    raise _misfit(where, f"must be {_named(SCALARS[hint])}, not {_shown(data)}")


def _one_of(parts: tuple[Any, ...], data: Any, where: str) -> Any:
    """As the first of the types that fits; one that fits to the letter comes before one that is near."""
    if type(data) in parts:
        return data
    problems = []
    for part in parts:
        try:
            return _value(part, data, where)
        except ValueError as error:
            if part is not type(None):
                problems.append(str(error))
    raise ValueError(" or ".join(dict.fromkeys(problems)))


def _among(values: Sequence[Any], data: Any, where: str) -> Any:
    for value in values:
        if value == data and type(value) is type(data):
            return value
    raise _misfit(where, f"must be one of {', '.join(map(repr, values))}, not {_shown(data)}")


def _expect(kind: type, data: Any, where: str) -> Any:
    if isinstance(data, kind):
        return data
    raise _misfit(where, f"must be {'an object' if kind is dict else 'an array'}, not {_shown(data)}")


def _at(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _named(kind: str) -> str:
    return kind if kind == "null" else f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _shown(data: Any) -> str:
    if isinstance(data, dict | list):
        return "an object" if isinstance(data, dict) else "an array"
    shown = "null" if data is None else str(data).lower() if isinstance(data, bool) else repr(data)
    return shown if len(shown) <= 80 else f"{shown[:80]}…"


def _misfit(where: str, what: str) -> ValueError:
    return ValueError(f"{where} {what}" if where else f"it {what}")
