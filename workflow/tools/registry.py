"""The tools of a process: what the model is told about them, and its calls read as typed arguments."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from workflow.core.errors import ToolError
from workflow.core.events import Effect, ToolCall
from workflow.llm.base import ToolSpec
from workflow.tools import names
from workflow.tools.arguments import read_arguments
from workflow.tools.base import Tool, ToolArgs
from workflow.tools.fitting import fit
from workflow.tools.schemas import parameters

MAX_CALLS = 100
"""Calls of one answer that run: a model that has begun to repeat itself sends hundreds."""
_SCHEMA_CHARS = 1500
_PROBLEMS = 8


@dataclass(frozen=True, slots=True)
class ParsedCall:
    """A call that may run."""

    call: ToolCall
    """The model's call with the tool's exact name and valid JSON as arguments; this one belongs in the history."""
    tool: Tool[Any]
    args: ToolArgs
    arguments: dict[str, Any]
    """The arguments as JSON values, as given (defaults left out)."""
    effect: Effect
    note: str = ""
    """What was mended in name and arguments; empty when nothing was."""


class Registry:
    """Tools by name; made once per process by `build_registry` (`workflow/tools/build.py`)."""

    def __init__(self, tools: Iterable[Tool[Any]]) -> None:
        """Raises: ValueError if two tools share a name, or arguments cannot be described to a model."""
        self._tools: dict[str, Tool[Any]] = {}
        for tool in sorted(tools, key=lambda tool: tool.name):
            if tool.name in self._tools:
                raise ValueError(f"two tools are called {tool.name}")
            self._tools[tool.name] = tool
        self._specs = {
            name: ToolSpec(name=name, description=tool.description, parameters=parameters(tool.args_type))
            for name, tool in self._tools.items()
        }

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tools)

    def specs(self) -> tuple[ToolSpec, ...]:
        """What the model is told, sorted by name; the same bytes at every call."""
        return tuple(self._specs.values())

    def get(self, name: str) -> Tool[Any]:
        """The tool of that exact name. Raises: ToolError with kind `unknown_tool`."""
        if name not in self._tools:
            raise self._unknown(name)
        return self._tools[name]

    def nearest(self, name: str) -> tuple[str, ...]:
        """Up to three tools that `name` may stand for, best first."""
        return names.nearest(name, self._tools)

    def parse_all(self, calls: Sequence[ToolCall], *, finish_reason: str = "") -> list[ParsedCall | ToolError]:
        """Each call of one message as `parse` gives it; beyond `MAX_CALLS` an error of kind `too_many_calls`."""
        text = f"Not run: an answer may have {MAX_CALLS} calls. Look at the results of the first ones, then go on."
        parsed = [self.parse(call, finish_reason=finish_reason) for call in calls[:MAX_CALLS]]
        return [*parsed, *(ToolError(text, kind="too_many_calls") for _ in calls[MAX_CALLS:])]

    def parse(self, call: ToolCall, *, finish_reason: str = "") -> ParsedCall | ToolError:
        """The call ready to run, or what to tell the model instead.

        finish_reason: that of the message the call stands in.
        Kinds of error: `unknown_tool`, `cut_off`, `invalid_json`, `invalid_arguments`.
        """
        name = call.name if call.name in self._tools else names.tidy(call.name)
        if name not in self._tools:
            return self._unknown(call.name)
        if finish_reason == "refusal":
            # What a filter let through of an answer that it broke off is not what the model wanted to do.
            return ToolError(
                f"The model provider broke the answer off with a refusal, so {name} did not run.",
                kind="cut_off",
                tool=name,
            )
        tool, schema = self._tools[name], self._specs[name].parameters
        try:
            value, mended = read_arguments(call.arguments, finish_reason=finish_reason)
        except ToolError as error:
            return ToolError(_unreadable(name, error, schema), kind=error.kind, tool=name)
        value, fitted = fit(value, schema)
        try:
            args = tool.args_type.model_validate(value)
        except ValidationError as error:
            return _invalid(name, error, schema)
        renamed = () if name == call.name else (f"took the tool name {call.name[:60]!r} as {name}",)
        arguments = args.model_dump(mode="json", exclude_unset=True)
        return ParsedCall(
            call=ToolCall(id=call.id, name=name, arguments=json.dumps(arguments, ensure_ascii=False)),
            tool=tool,
            args=args,
            arguments=arguments,
            effect=tool.effect_of(args),
            note="; ".join((*renamed, *mended, *fitted)),
        )

    def _unknown(self, name: str) -> ToolError:
        near = self.nearest(name)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(self._tools)}."
        return ToolError(
            f"There is no tool {name[:60]!r}. {hint} Call one of them with its own arguments.",
            kind="unknown_tool",
            nearest=list(near),
        )


def history_arguments(text: str) -> str:
    """`text` if it is a JSON object, else one that stands for it: broken arguments poison every later request."""
    try:
        value, _ = read_arguments(text)
    except ToolError:
        return json.dumps({"unreadable_arguments": f"{len(text)} characters"})
    return json.dumps(value, ensure_ascii=False)


def _unreadable(name: str, error: ToolError, schema: dict[str, Any]) -> str:
    if error.kind == "cut_off":
        return (
            f"The arguments of {name} were cut off before their end (most likely by the output token limit), so "
            "nothing ran. Send less at a time: write a large file as a first part with files_creation and add the "
            "rest with file_edit, split many edits over several calls, put a long command into a script file."
        )
    return f"The arguments of {name} could not be read, so nothing ran: {error.message}. {_expected(schema)}"


def _invalid(name: str, error: ValidationError, schema: dict[str, Any]) -> ToolError:
    """Names the keys and what is wrong with them, never their values."""
    problems: list[str] = []
    keys = tuple(_keys(schema))
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in item["loc"]).lstrip(".")
        hint = ""
        if item["type"] == "extra_forbidden":
            near = names.nearest(str(item["loc"][-1]), keys)
            hint = f" (did you mean {near[0]}?)" if near else ""
        problems.append(f"{where or 'arguments'}: {item['msg']}{hint}")
    more = f"; and {len(problems) - _PROBLEMS} more" if len(problems) > _PROBLEMS else ""
    return ToolError(
        f"The arguments of {name} do not fit, so nothing ran. {'; '.join(problems[:_PROBLEMS])}{more}. "
        f"{_expected(schema)}",
        kind="invalid_arguments",
        tool=name,
        keys=[p.partition(":")[0] for p in problems[:_PROBLEMS]],
    )


def _keys(schema: dict[str, Any]) -> Iterator[str]:
    """The names of all arguments, those inside lists and objects too."""
    for name, inner in schema.get("properties", {}).items():
        yield name
        yield from _keys(inner.get("items", inner))


def _expected(schema: dict[str, Any]) -> str:
    text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    if len(text) > _SCHEMA_CHARS:
        shown = {"properties": sorted(schema.get("properties", ())), "required": schema.get("required", [])}
        text = json.dumps(shown, ensure_ascii=False, separators=(",", ":"))
    return f"Send one JSON object that fits this schema: {text}"
