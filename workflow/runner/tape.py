"""Recorded tools: each call gives back what the same call gave when the run was recorded, and touches nothing."""

import copy
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import ConfigDict

from workflow.core.errors import ToolError
from workflow.core.events import ToolCall
from workflow.core.ids import CallId
from workflow.llm.cassette import Cassette, ToolExchange
from workflow.llm.cassette_llm import as_recorded
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput
from workflow.tools.registry import ParsedCall, Registry


class Tape:
    """The recorded tool calls; each is given back once."""

    def __init__(self, cassette: Cassette, mismatches: list[str]) -> None:
        self._cassette = cassette
        self._mismatches = mismatches
        self._left = list(cassette.tools)

    def of(self, call_id: CallId) -> ToolExchange | None:
        """The recording of this very call, if it is still there."""
        return next((exchange for exchange in self._left if exchange.call_id == call_id), None)

    def refusal(self, call_id: CallId) -> ToolError | None:
        """What the model was told instead, if this call was refused before it ran."""
        exchange = self.of(call_id)
        if exchange is None or exchange.arguments is not None:
            return None
        return ToolError(exchange.output, kind=exchange.error)

    async def play(self, tool: str, args: ToolArgs, context: ToolContext) -> ToolOutput:
        """What the call gave back. Raises: what it raised; ToolError `not_recorded` for a call that was never made."""
        arguments = args.model_dump(mode="json", exclude_unset=True)
        exchange = self._find(tool, arguments, context)
        if exchange is None:
            text = f"turn {context.turn}: {tool} was called as it was not when recorded"
            self._mismatches.append(text)
            raise ToolError("There is no recording of this call.", kind="not_recorded")
        self._left.remove(exchange)
        if exchange.ok is None:
            raise as_recorded(self._cassette.end)
        if exchange.error:
            raise ToolError(exchange.output, kind=exchange.error, **exchange.data)
        data = dict(exchange.data)
        facts = data.pop("facts", {})
        return ToolOutput(exchange.output, data, events=exchange.events, facts=facts, ok=exchange.ok)

    def _find(self, tool: str, arguments: dict[str, Any], context: ToolContext) -> ToolExchange | None:
        alike = [one for one in self._left if one.tool == tool and one.arguments == arguments]
        return next((one for one in alike if one.call_id == context.call_id), alike[0] if alike else None)


class _AnyArgs(ToolArgs):
    model_config = ConfigDict(frozen=True, extra="allow")


class _Foreign(Tool[_AnyArgs]):
    """Stands for a tool of which only the recording is known."""

    description = "Known by its recording alone."

    async def run(self, args: _AnyArgs, context: ToolContext) -> ToolOutput:
        """Raises: ToolError; its recording is played instead."""
        raise ToolError("There is no such tool here.", kind="unknown_tool")


class TapeRegistry(Registry):
    """The tools as they are, but what they do comes from a tape."""

    def __init__(self, registry: Registry, tape: Tape) -> None:
        super().__init__(registry.get(name) for name in registry.names)
        self._tape = tape

    def parse(self, call: ToolCall, *, finish_reason: str = "") -> ParsedCall | ToolError:
        refused = self._tape.refusal(call.id)
        if refused is not None:
            return refused
        exchange = self._tape.of(call.id)
        if exchange is not None and exchange.tool == call.name and exchange.tool not in self.names:
            return self._foreign(call, exchange)
        parsed = super().parse(call, finish_reason=finish_reason)
        return parsed if isinstance(parsed, ToolError) else replace(parsed, tool=self._recorded(parsed.tool))

    def _foreign(self, call: ToolCall, exchange: ToolExchange) -> ParsedCall:
        """A recorded call of a plugin that is not installed here."""
        tool = type("Foreign", (_Foreign,), {"name": exchange.tool, "effect": exchange.effect})()
        arguments = exchange.arguments or {}
        args = _AnyArgs.model_validate(arguments)
        return ParsedCall(call, self._recorded(tool), args, arguments, exchange.effect)

    def _recorded(self, tool: Tool[Any]) -> Tool[Any]:
        recorded = copy.copy(tool)
        recorded.run = partial(self._tape.play, tool.name)  # type: ignore[method-assign]  # all else is the tool's own
        return recorded
