"""Whole examples for OpenAPI, put together from those of the fields."""

from collections.abc import Mapping
from typing import Any

_PLAIN: Mapping[str, Any] = {
    "uuid": "01a20b48-d9d8-77c9-9f13-d3234f8739ae",
    "date-time": "2026-11-24T06:30:00.123456Z",
    "binary": "(bytes)",
    "boolean": False,
    "integer": 1,
    "number": 0.5,
    "null": None,
}


def example_of(schema: Mapping[str, Any], components: Mapping[str, Any]) -> Any:
    """Return an example of `schema`: its own, else one made of its parts' examples.

    Raises:
        KeyError: a field whose type alone does not make an example, and that has none.
    """
    if schema.get("examples"):
        return schema["examples"][0]
    if "$ref" in schema:
        return example_of(components[schema["$ref"].rsplit("/", 1)[-1]], components)
    for name in ("example", "const", "default"):
        if name in schema:
            return schema[name]
    if "enum" in schema:
        return schema["enum"][0]
    for name in ("allOf", "anyOf", "oneOf"):
        if name in schema:
            return example_of(schema[name][0], components)
    return _by_type(schema, components)


def _by_type(schema: Mapping[str, Any], components: Mapping[str, Any]) -> Any:
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        fields = schema.get("properties", {})
        return {name: example_of(field, components) for name, field in fields.items()}
    if kind == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})]
        return [example_of(item, components) for item in items]
    if kind is None:  # anything at all
        return None
    plain = schema.get("format", kind)
    if plain not in _PLAIN:
        raise KeyError(f"{schema.get('title', schema)} has no example")
    return _PLAIN[plain]
