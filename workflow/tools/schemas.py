"""The JSON Schema of a tool's arguments, made small and byte-stable for the prompt.

Definitions are inlined, titles and `null` alternatives are dropped and keys are sorted: the same tools always
give the same bytes, which is what keeps a provider's prompt cache warm.
"""

from typing import Any

from pydantic import BaseModel


def parameters(args_type: type[BaseModel]) -> dict[str, Any]:
    """The schema object for the arguments of a tool. Raises: ValueError if the arguments refer to themselves."""
    schema = args_type.model_json_schema()
    definitions = schema.pop("$defs", {})
    small: dict[str, Any] = _small(schema, definitions, ())
    small.pop("description", None)  # the docstring of the arguments is for people; the tool has its own text
    return small


def _small(node: Any, definitions: dict[str, Any], inside: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_small(item, definitions, inside) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = node["$ref"].removeprefix("#/$defs/")
        if name in inside:
            raise ValueError(f"{name} refers to itself")
        target = {**definitions[name], **{k: v for k, v in node.items() if k != "$ref"}}
        if "description" not in node:
            target.pop("description", None)
        return _small(target, definitions, (*inside, name))
    node = _without_null(node)
    kept = {key: value for key, value in node.items() if not _is_noise(key, value)}
    if "properties" in kept:
        # Names of arguments are data, not keywords: an argument may be called `title`.
        kept["properties"] = {n: _small(s, definitions, inside) for n, s in sorted(kept["properties"].items())}
    return {
        key: value if key == "properties" else _small(value, definitions, inside) for key, value in sorted(kept.items())
    }


def _without_null(node: dict[str, Any]) -> dict[str, Any]:
    """`X or null` as plain `X`: leaving an optional argument out says the same in fewer words."""
    options = node.get("anyOf")
    if not isinstance(options, list):
        return node
    real = [option for option in options if option.get("type") != "null"]
    rest = {key: value for key, value in node.items() if key != "anyOf"}
    return {**real[0], **rest} if len(real) == 1 else {**rest, "anyOf": real}


def _is_noise(key: str, value: Any) -> bool:
    return (
        (key == "title" and isinstance(value, str))
        or (key == "default" and value in (None, "", [], False))
        or (key == "type" and value == "null")
    )
