"""bash_output and bash_kill: what became of a command that runs in the background."""

from pydantic import Field

from workflow.core.errors import ToolError
from workflow.core.events import Effect, ToolResulted
from workflow.sandboxes.base import BackgroundProcess
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput
from workflow.tools.offloop import off_loop
from workflow.tools.output import readable, show

MAX_WAIT_S = 60.0


class OutputArgs(ToolArgs):
    job: int
    wait_s: float = Field(0.0, ge=0, le=MAX_WAIT_S, description="wait this long for the job to end")
    after: int | None = Field(None, ge=0, description="byte to start from; default: where the last reading ended")


class KillArgs(ToolArgs):
    job: int


class BashOutput(Tool[OutputArgs]):
    name = "bash_output"
    effect = Effect.PURE
    description = "Shows what a background job printed since it was last read, and whether it still runs."

    async def run(self, args: OutputArgs, context: ToolContext) -> ToolOutput:
        """Kinds of error: `no_such_process`."""
        process = await _find(args.job, context)
        if args.wait_s:
            await process.wait(timeout_s=args.wait_s)
        after = args.after if args.after is not None else _last_position(args.job, context)
        raw, position = await process.output(after=after)
        text = await off_loop(len(raw), lambda: readable(raw))
        shown = await show(context, text.rstrip("\n") or "(no new output)")
        status = process.exit_code
        if status is None:
            note = f"Job {args.job} still runs. To wait for more: bash_output(job={args.job}, wait_s=30)."
        else:
            note = f"Job {args.job} ended with exit status {status}."
        return ToolOutput(
            text=shown.with_note(note),
            data={"job": args.job, "next": position, "running": status is None, "exit_code": status},
            ok=status in (None, 0),
        )


class BashKill(Tool[KillArgs]):
    name = "bash_kill"
    effect = Effect.IDEMPOTENT
    description = "Ends a background job and everything it started."

    async def run(self, args: KillArgs, context: ToolContext) -> ToolOutput:
        """Kinds of error: `no_such_process`."""
        process = await _find(args.job, context)
        if process.exit_code is not None:
            text = f"Job {args.job} had already ended with exit status {process.exit_code}."
        else:
            await process.kill()
            text = f"Job {args.job} was ended. Its last output: bash_output(job={args.job})."
        return ToolOutput(text=text, data={"job": args.job, "running": False})


async def _find(job: int, context: ToolContext) -> BackgroundProcess:
    try:
        return await context.sandbox.process(job)
    except ToolError as error:
        known = sorted(_positions(context))
        hint = f"Jobs of this thread: {', '.join(map(str, known))}" if known else "No job was started in this thread"
        raise ToolError(
            f"There is no background job {job}. {hint}; jobs end with their sandbox. Start it again with "
            "bash(background=true) if it is still needed.",
            kind="no_such_process",
            jobs=known,
        ) from error


def _last_position(job: int, context: ToolContext) -> int:
    """The byte after the last one that was shown, as the log knows it."""
    return _positions(context).get(job, 0)


def _positions(context: ToolContext) -> dict[int, int]:
    found: dict[int, int] = {}
    for event in context.state.transcript:
        if isinstance(event, ToolResulted) and event.tool in ("bash", "bash_output"):
            job, position = event.data.get("job"), event.data.get("next")
            if isinstance(job, int) and isinstance(position, int):
                found[job] = position
    return found
