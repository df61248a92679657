"""The demo of the model `scripted`: one complete small job with real tools, adapted to the task's words.

Each step looks at what the tools really gave back, so that the last message reports facts, failures included.
Steps whose tool is switched off are left out.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from workflow.core.events import ToolCall
from workflow.llm.base import ToolMessage
from workflow.llm.scripted_programs import ANSWER, Program, choose
from workflow.llm.scripted_turns import Turn, tool_call
from workflow.llm.scripted_view import View

_SHOWN_LINES = 20
# What the agent and the tool add below an output.
_FOOTER = re.compile(r"(?:\n+(?:\[exit status [^\n]*\]|<(\w+)>.*</\1>))+\s*$", re.DOTALL)


def demo_turn(view: View) -> Turn:
    """The demo's next turn. Without any tools on offer it is the summary at once."""
    job = Job(view)
    steps = [step for needs, step in _STEPS if needs in view.tools]
    turn = steps[view.turn](job) if view.turn < len(steps) else Turn(text=job.summary())
    return Turn(text=turn.text, tool_calls=tuple(call for call in turn.tool_calls if call.name in view.tools))


@dataclass(frozen=True, slots=True)
class Job:
    """The demo's job on one task, at the point where `view` stands."""

    view: View

    @property
    def program(self) -> Program:
        return choose(self.view.task)[0]

    @property
    def about(self) -> str:
        program, count = choose(self.view.task)
        return program.about.replace("$count", str(count))

    def plan(self) -> Turn:
        return Turn(
            text=f"I will write a small program that {self.about}, run it, improve it and test it. First the plan.",
            tool_calls=(self._plan_call(active="write"),),
        )

    def write(self) -> Turn:
        program, count = choose(self.view.task)
        files = [
            {"path": program.path, "content": program.source.replace("$count", str(count))},
            {"path": program.test_path, "content": program.test},
        ]
        if program is ANSWER:
            files.append({"path": "demo/task.txt", "content": f"{self.view.task.strip()}\n"})
        return Turn(
            text=f"I write `{program.path}` and its test.",
            tool_calls=(tool_call("files_creation", files=files, overwrite=True),),
        )

    def run(self) -> Turn:
        command = self.program.run_command
        call = tool_call("bash", command=command, description="Run the program")
        return Turn(text="Now I run it.", tool_calls=(call,))

    def look(self) -> Turn:
        return Turn(
            text=f"{self._heading(0)} Let me find the place to improve.",
            tool_calls=(
                tool_call("grep", pattern="def |return ", path=self.program.path, output_mode="content"),
                self._todo_call(),
                self._plan_call(active="improve"),
            ),
        )

    def improve(self) -> Turn:
        program = self.program
        return Turn(
            text=f"I change one expression so that {program.change}.",
            tool_calls=(tool_call("file_edit", path=program.path, old=program.old, new=program.new),),
        )

    def check(self) -> Turn:
        call = tool_call("bash", command=self.program.test_command, description="Run the tests")
        return Turn(text="The tests tell whether it still does what it should.", tool_calls=(call,))

    def close(self) -> Turn:
        return Turn(
            text=self._heading(1),
            tool_calls=(
                self._todo_call(),
                self._plan_call(active=""),
                tool_call("suggest_next_steps", items=self._suggestions()),
            ),
        )

    def summary(self) -> str:
        """A Markdown report of what was observed."""
        program = self.program
        parts = [f"## Result\n\n`{program.path}` is a small program that {self.about}."]
        for title, result in (("It printed", self._bash(0)), ("The tests said", self._bash(1))):
            if result is not None:
                parts.append(f"{title if result.ok else title + ' (failed)'}:\n\n{_quoted(result.text)}")
        edit = next(iter(self.view.results("file_edit")), None)
        if edit is not None and edit.ok:
            parts.append(f"One expression was changed so that {program.change}.")
        failed = [step.call.name for step in self.view.done if step.result is not None and not step.result.ok]
        if failed:
            parts.append(f"These calls failed: {', '.join(failed)}.")
        if self.view.steering:
            parts.append(f"You added: {self.view.steering[-1].strip()[:300]}. A scripted model cannot act on that.")
        parts.append("*This was the scripted demo model: it plays a fixed job. Configure a model for real work.*")
        return "\n\n".join(parts)

    def _bash(self, number: int) -> ToolMessage | None:
        results = self.view.results("bash")
        return results[number] if number < len(results) else None

    def _heading(self, number: int) -> str:
        result = self._bash(number)
        if result is None:
            return "There is no output to look at."
        return "That worked." if result.ok else "That failed; the report will say so."

    def _outcomes(self) -> dict[str, tuple[str, str]]:
        """Per plan step: `pending`, `done` or `dropped`, and the evidence."""
        results = self.view.results
        return {
            "write": _outcome(results("files_creation"), 0),
            "run": _outcome(results("bash"), 0),
            "improve": _outcome(results("file_edit"), 0),
            "test": _outcome(results("bash"), 1),
        }

    def _plan_call(self, *, active: str) -> ToolCall:
        """The plan as it stands, with `active` in progress; without one, nothing is left pending."""
        titles = {
            "write": f"Write `{self.program.path}` and its test",
            "run": "Run it and look at the output",
            "improve": "Improve one expression",
            "test": "Run the tests",
        }
        steps: list[dict[str, str]] = []
        for key, (status, note) in self._outcomes().items():
            if key == active:
                status, note = "in_progress", ""
            elif status == "pending" and not active:
                status, note = "dropped", "not possible with the tools on offer"
            steps.append({"id": key, "title": titles[key], "status": status, "note": note})
        return tool_call("job_plan", steps=steps)

    def _todo_call(self) -> ToolCall:
        states = {"pending": "pending", "done": "completed", "dropped": "cancelled"}
        contents = {"run": "See the program run", "improve": "Make one improvement", "test": "See the tests pass"}
        outcomes = self._outcomes()
        items = [{"content": text, "status": states[outcomes[key][0]]} for key, text in contents.items()]
        return tool_call("todo_write", items=items)

    def _suggestions(self) -> list[str]:
        return [
            "Configure a real model: set ANTHROPIC_API_KEY or OPENAI_API_KEY, or name a local server in config.toml",
            f"Open `{self.program.path}` in the workspace",
            f"Ask for a change to `{self.program.slug}`",
        ]


_STEPS: tuple[tuple[str, Callable[[Job], Turn]], ...] = (
    ("job_plan", Job.plan),
    ("files_creation", Job.write),
    ("bash", Job.run),
    ("grep", Job.look),
    ("file_edit", Job.improve),
    ("bash", Job.check),
    ("suggest_next_steps", Job.close),
)
"""The tool a step cannot do without, and the step."""


def _outcome(results: tuple[ToolMessage, ...], number: int) -> tuple[str, str]:
    if number >= len(results):
        return "pending", ""
    first = results[number].text.strip().partition("\n")[0][:200]
    return ("done", first) if results[number].ok else ("dropped", f"failed: {first}")


def _quoted(text: str) -> str:
    lines = _FOOTER.sub("", f"\n{text}").strip().splitlines() or ["(nothing)"]
    if len(lines) > _SHOWN_LINES:
        lines = [*lines[:_SHOWN_LINES], f"… {len(lines) - _SHOWN_LINES} more lines"]
    return "\n".join(["````text", *lines, "````"])
