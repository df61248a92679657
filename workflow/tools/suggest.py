"""suggest_next_steps: what the person may want to do next, shown as buttons."""

from pydantic import Field

from workflow.core.errors import ToolError
from workflow.core.events import Effect, SuggestionsMade
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput

MAX_ITEMS = 4
MAX_CHARS = 200


class SuggestArgs(ToolArgs):
    items: tuple[str, ...] = Field(max_length=MAX_ITEMS, description="0 to 4 short, complete requests, best first")


class SuggestNextSteps(Tool[SuggestArgs]):
    name = "suggest_next_steps"
    effect = Effect.IDEMPOTENT
    changes_files = False
    description = (
        "Offers the person up to 4 next requests to choose from. Call it once, when the job is done and before the "
        "final answer; each item is an instruction the person could send as it is, best under 80 characters."
    )

    async def run(self, args: SuggestArgs, context: ToolContext) -> ToolOutput:
        """Kinds of error: `too_long`."""
        items = tuple(dict.fromkeys(" ".join(item.split()) for item in args.items if item.strip()))
        long = next((item for item in items if len(item) > MAX_CHARS), None)
        if long is not None:
            raise ToolError(
                f"A suggestion is at most {MAX_CHARS} characters; {long[:40]!r}… has {len(long)}. Shorten it.",
                kind="too_long",
            )
        text = f"{len(items)} suggestions are shown to the person." if items else "No suggestions are shown."
        return ToolOutput(
            text=f"{text} Now give the final answer.",
            data={"items": list(items)},
            events=(context.event(SuggestionsMade, items=items),),
        )
