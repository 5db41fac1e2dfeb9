"""The JSON schema of a Python type, in the strict form that structured outputs want."""

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
