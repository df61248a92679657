"""todo_read and todo_write: a short list of small things, beside the plan."""

from pydantic import Field

from workflow.core.errors import ToolError
from workflow.core.events import Effect, Todo, TodoUpdated
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput

MAX_ITEMS = 100
MARKS: dict[str, str] = {"pending": "[ ]", "in_progress": "[>]", "completed": "[x]", "cancelled": "[-]"}


class TodoReadArgs(ToolArgs):
    pass


class TodoWriteArgs(ToolArgs):
    items: tuple[Todo, ...] = Field(max_length=MAX_ITEMS, description="the whole list, in order; [] clears it")


class TodoRead(Tool[TodoReadArgs]):
    name = "todo_read"
    effect = Effect.PURE
    description = "Shows the todo list of this thread."

    async def run(self, args: TodoReadArgs, context: ToolContext) -> ToolOutput:
        items = context.state.todos
        text = render(items) if items else "The todo list is empty. Write one with todo_write if it helps."
        return ToolOutput(text=text, data=_data(items))


class TodoWrite(Tool[TodoWriteArgs]):
    name = "todo_write"
    effect = Effect.IDEMPOTENT
    changes_files = False
    description = (
        "Replaces the todo list: small items below the level of the plan. Give the whole list each time; at most one "
        "item in_progress. Not needed for a job of one or two actions."
    )

    def resources(self, args: TodoWriteArgs) -> frozenset[str]:
        return frozenset({"todos"})

    async def run(self, args: TodoWriteArgs, context: ToolContext) -> ToolOutput:
        """Kinds of error: `two_active`, `empty_item`."""
        active = [item.content for item in args.items if item.status == "in_progress"]
        if len(active) > 1:
            raise ToolError("Only one todo may be in_progress. Set the others to pending.", kind="two_active")
        if any(not item.content.strip() for item in args.items):
            raise ToolError("A todo needs a text in `content`.", kind="empty_item")
        text = f"{_changes(context.state.todos, args.items)}\n{render(args.items)}" if args.items else "List cleared."
        return ToolOutput(text=text, data=_data(args.items), events=(context.event(TodoUpdated, items=args.items),))


def render(items: tuple[Todo, ...]) -> str:
    """The list as lines: `[x] text`."""
    return "\n".join(f"{MARKS[item.status]} {item.content}" for item in items)


def _changes(before: tuple[Todo, ...], after: tuple[Todo, ...]) -> str:
    """What is new since the last list, in one line."""
    old = {item.content: item.status for item in before}
    done = [i.content for i in after if i.status == "completed" and old.get(i.content) not in (None, "completed")]
    left = sum(item.status in ("pending", "in_progress") for item in after)
    finished = f"Completed: {'; '.join(done)}. " if done else ""
    return f"{finished}{left} of {len(after)} left." if left else f"{finished}All {len(after)} finished."


def _data(items: tuple[Todo, ...]) -> dict[str, object]:
    return {"items": [item.model_dump(mode="json") for item in items]}
