"""Requests made from the OpenAPI document, so that a new route is asked like all others."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Operation:
    """One method of one path, with the smallest body that it takes.

    names: the parameters in the path and those of the query that are required.
    """

    method: str
    path: str
    names: frozenset[str]
    required_query: tuple[str, ...]
    json: Any
    takes_bytes: bool

    def url(self, values: Mapping[str, str]) -> str:
        """The address with `values` in place of the parameters."""
        query = "&".join(f"{name}={values[name]}" for name in self.required_query)
        return self.path.format_map(values) + (f"?{query}" if query else "")


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    """All operations of an OpenAPI document."""
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parameters = operation.get("parameters", [])
            in_path = {one["name"] for one in parameters if one["in"] == "path"}
            query = tuple(one["name"] for one in parameters if one["in"] == "query" and one.get("required"))
            content = operation.get("requestBody", {}).get("content", {})
            schema = content.get("application/json", {}).get("schema")
            body = None if schema is None else smallest(schema, schemas)
            takes_bytes = bool(content) and schema is None
            yield Operation(method.upper(), path, frozenset(in_path | set(query)), query, body, takes_bytes)


def smallest(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Any:
    """A value that fits: an example where there is one, required members only."""
    if "$ref" in schema:
        return smallest(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if examples := schema.get("examples"):
        return examples[0]
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return smallest(schema[word][0], schemas)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            members = schema.get("properties", {})
            return {name: smallest(members[name], schemas) for name in schema.get("required", ())}
        case "array":
            return [smallest(schema["items"], schemas)] * schema.get("minItems", 0)
        case "string":
            return "x" * max(1, schema.get("minLength", 1))
        case "integer" | "number":
            return schema.get("minimum", 1)
        case kind:
            return {"boolean": True}.get(str(kind))
