"""Tools whose every execution is written down by the outside: what chaos counts as effects."""

import os
from pathlib import Path

from workflow.core.events import Effect
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput


class EffectArgs(ToolArgs):
    what: str = ""


def _write(kind: str, context: ToolContext) -> None:
    """One appended line is one execution; a line this short is written whole or not at all."""
    path = Path(os.environ["CHAOS_EFFECTS"])
    with path.open("ab", buffering=0) as file:
        file.write(f"{kind} {context.effect_key}\n".encode())


class Ring(Tool[EffectArgs]):
    """An effect whose receiver knows its key."""

    name = "ring"
    description = "Rings once per key."
    effect = Effect.KEYED

    async def run(self, args: EffectArgs, context: ToolContext) -> ToolOutput:
        _write("ring", context)
        return ToolOutput("rang")


class Shout(Tool[EffectArgs]):
    """An effect that nobody can take back or recognise."""

    name = "shout"
    description = "Shouts."
    effect = Effect.UNSAFE

    async def run(self, args: EffectArgs, context: ToolContext) -> ToolOutput:
        _write("shout", context)
        return ToolOutput("shouted")
