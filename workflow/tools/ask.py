"""ask_person: a question that the run waits on.

The agent loop answers this call itself: it commits an `approval.requested` event, waits for the answer and makes
it the tool's result. `run` is reached only where nobody can be asked.
"""

from pydantic import Field

from workflow.core.errors import ToolError
from workflow.core.events import Effect
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput


class AskArgs(ToolArgs):
    question: str = Field(min_length=1, max_length=2000)
    choices: tuple[str, ...] = Field((), max_length=6, description="answers to choose from; empty for free text")


class AskPerson(Tool[AskArgs]):
    name = "ask_person"
    effect = Effect.PURE
    description = (
        "Asks the person one question and waits for the answer. Only for decisions that the task, the files and "
        "sensible defaults leave open and that would be costly to get wrong."
    )

    async def run(self, args: AskArgs, context: ToolContext) -> ToolOutput:
        """Raises: ToolError with kind `unattended`, always."""
        raise ToolError(
            "Nobody can be asked in this run. Choose the most sensible option yourself, say in the final answer what "
            "you assumed, and go on.",
            kind="unattended",
        )
