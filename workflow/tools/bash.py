"""bash: one command at a time, in a shell whose folder and variables last for the whole thread."""

from pydantic import Field

from workflow.core.errors import ToolError
from workflow.core.events import Effect
from workflow.sandboxes.base import BackgroundProcess, ExecResult
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput
from workflow.tools.offloop import off_loop
from workflow.tools.output import colours, readable, show
from workflow.tools.shell import Ended, run_script, start_script
from workflow.tools.statuses import hints, is_harmless

MAX_COMMAND_CHARS = 200_000
_FAST_FAIL_S = 1.0
_STOPPED_BY = {
    "memory": "It used more memory than the sandbox has. Work on less at a time",
    "output": "It printed more than the sandbox allows. Redirect the output to a file and look at parts of it",
    "disk": "It wrote more than the sandbox's disk allows. Delete what is not needed",
    "cancel": "It was cancelled",
}


class BashArgs(ToolArgs):
    command: str = Field(min_length=1, max_length=MAX_COMMAND_CHARS, description="may have many lines")
    timeout_s: float | None = Field(None, gt=0, le=86_400)
    background: bool = Field(False, description="start it and go on: for servers and watchers")


class Bash(Tool[BashArgs]):
    name = "bash"
    effect = Effect.KEYED

    def __init__(self, *, timeout_s: float = 120.0, max_timeout_s: float = 1800.0, network: str = "off") -> None:
        """network: of the sandbox; with any network a command may have effects that nobody can see or take back."""
        self._network = network
        self.description = (
            "Runs a bash command in the sandbox; folder and exported variables last from call to call. Output is "
            "stdout and stderr as they came; standard input is empty, so give answers by flags (-y) or a pipe. Ends "
            f"after timeout_s (default {timeout_s:g}, at most {max_timeout_s:g}). Start servers with background=true, "
            "then use bash_output and bash_kill. To read, search and change files use file_read, grep, glob and "
            "file_edit instead of cat, grep, find and sed."
        )

    def resources(self, args: BashArgs) -> frozenset[str]:
        return frozenset({"shell"})

    def effect_of(self, args: BashArgs) -> Effect:
        """`keyed` without network: everything it can do stays in the workspace, whose ledger knows each call."""
        return Effect.KEYED if self._network == "off" else Effect.UNSAFE

    async def run(self, args: BashArgs, context: ToolContext) -> ToolOutput:
        """Kinds of error: `bad_command`. A status other than 0 is a result with `ok` false."""
        if "\0" in args.command:
            raise ToolError("A command cannot hold a NUL character. Write such data with printf.", kind="bad_command")
        if args.background:
            return await _started(await start_script(context, args.command), context)
        settings = context.settings
        timeout_s = min(args.timeout_s or settings.bash_timeout_s, settings.bash_max_timeout_s)
        ended = await run_script(context, args.command, timeout_s=timeout_s, keyed=self.effect_of(args) is Effect.KEYED)
        if ended.outcome in ("repeated", "interrupted"):
            return _seen_before(ended)
        return await _report(args, ended, timeout_s, context)


async def _report(args: BashArgs, ended: Ended, timeout_s: float, context: ToolContext) -> ToolOutput:
    result = ended.result
    text = (await off_loop(len(result.stdout), lambda: readable(result.stdout))).rstrip("\n")
    if result.stderr:
        text = f"{text}\n{readable(result.stderr).rstrip()}".lstrip("\n")
    shown = await show(context, text or "(no output)")
    notes = [_status_line(result, ended, context.sandbox.info.workdir)]
    if result.timed_out:
        notes.append(
            f"Timed out after {timeout_s:g} s; the command and everything it started were ended. Give a larger "
            f"timeout_s (at most {context.settings.bash_max_timeout_s:g}) or start it with background=true."
        )
    elif result.killed_by:
        notes.append(f"{_STOPPED_BY.get(result.killed_by, f'Stopped: {result.killed_by}')}.")
    if ended.outcome == "lost":
        notes.append("The folder of the last call no longer exists: this command ran in the workspace root.")
    if result.dropped_bytes:
        notes.append(f"{result.dropped_bytes:,} bytes in the middle of the output are lost; redirect it to a file.")
    screen = await off_loop(len(result.stdout), lambda: colours(result.stdout + result.stderr))
    harmless = is_harmless(args.command, result.exit_code, text)
    notes += hints(args.command, result.exit_code, text, timed_out=result.timed_out)
    return ToolOutput(
        text=shown.with_note(*notes),
        data={
            "exit_code": result.exit_code,
            "duration_s": round(result.duration_s, 3),
            "timed_out": result.timed_out,
            "killed_by": result.killed_by,
            "cwd": ended.cwd,
            "output_file": shown.file,
            **({"screen": screen} if screen else {}),
        },
        ok=result.exit_code == 0 or harmless,
    )


def _status_line(result: ExecResult, ended: Ended, workdir: str) -> str:
    line = f"exit status {result.exit_code}, {result.duration_s:.1f} s"
    if ended.cwd and ended.cwd != workdir:
        line += f", in {ended.cwd.removeprefix(f'{workdir}/')}"
    if ended.outcome == "unsaved" and not result.timed_out:
        line += "; the shell was replaced or killed: folder and variables are those of the call before"
    return line


def _seen_before(ended: Ended) -> ToolOutput:
    """The answer to a call that had run, or had begun, before a worker was lost."""
    status = ended.result.exit_code
    if ended.outcome == "repeated":
        text = (
            f"This command already ran to its end with exit status {status}, just before the worker was replaced; its "
            "output is lost and it was not run again. Check its effects (files, git status) and go on, or run it again."
        )
    else:
        text = (
            "This command was cut short when the worker was replaced and was not run again: part of its effects may "
            "be there. Look at the files first, then decide whether to run it again."
        )
    return ToolOutput(
        text=text,
        data={"exit_code": status, "outcome": ended.outcome, "cwd": ended.cwd},
        ok=ended.outcome == "repeated" and status == 0,
    )


async def _started(process: BackgroundProcess, context: ToolContext) -> ToolOutput:
    """Waits a moment, so that a command that fails at once is seen at once."""
    status = await process.wait(timeout_s=_FAST_FAIL_S)
    raw, position = await process.output()
    text = await off_loop(len(raw), lambda: readable(raw))
    shown = await show(context, text.rstrip("\n") or "(no output yet)")
    if status is None:
        note = (
            f"Job {process.pid} runs in the background. Read on with bash_output(job={process.pid}), "
            f"end it with bash_kill(job={process.pid})."
        )
    else:
        note = f"The command ended at once with exit status {status}; nothing runs in the background."
    return ToolOutput(
        text=shown.with_note(note),
        data={"job": process.pid, "next": position, "running": status is None, "exit_code": status},
        ok=status in (None, 0),
    )
