"""The scripted model: its demo, its script blocks, its turns for tests."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.llm.asking import ALL_TOOLS, ask, collect, completed, continued
from workflow.core.errors import ContextOverflow, ModelError, ModelOverloaded, ModelRefused
from workflow.core.events import ToolCall
from workflow.core.ids import CallId
from workflow.llm.base import AssistantMessage, Completion, ModelRequest, TextDelta, ToolMessage, UserMessage
from workflow.llm.scripted import ScriptedLLM
from workflow.llm.scripted_programs import PROGRAMS, Program, choose
from workflow.llm.scripted_turns import Turn, tool_call


class Workspace:
    """Does what the real tools do with a demo's calls, in a folder on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def answer(self, call: ToolCall) -> ToolMessage:
        arguments = json.loads(call.arguments)
        match call.name:
            case "files_creation":
                for file in arguments["files"]:
                    path = self.folder / file["path"]
                    path.parent.mkdir(exist_ok=True)
                    path.write_text(file["content"])
                text, ok = "created", True
            case "bash":
                command = arguments["command"].replace("python3", sys.executable).split()
                done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=20, check=False)
                ok = done.returncode == 0
                text = (
                    f"{done.stdout}{done.stderr}\n[exit status {done.returncode}, 0.1 s]\n\n<plan>[x] write it</plan>"
                )
            case "file_edit":
                path = self.folder / arguments["path"]
                before = path.read_text()
                ok = before.count(arguments["old"]) == 1
                path.write_text(before.replace(arguments["old"], arguments["new"]))
                text = "edited" if ok else "no single match"
            case _:
                text, ok = "done", True
        return ToolMessage(call_id=call.id, name=call.name, text=text, ok=ok)


async def play(request: ModelRequest, workspace: Workspace) -> tuple[list[ToolCall], str]:
    """Every call of a whole demo and its last text; a fresh model answers each turn."""
    calls: list[ToolCall] = []
    for _ in range(20):
        answer = await completed(ScriptedLLM(delay_s=0).stream(request))
        request = continued(request, AssistantMessage(answer.text, answer.tool_calls))
        if not answer.tool_calls:
            return calls, answer.text
        calls += answer.tool_calls
        request = continued(request, *(workspace.answer(call) for call in answer.tool_calls))
    raise AssertionError("the demo does not end")


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.slug)
async def test_demo_writes_runs_improves_and_tests_a_program_that_works(program: Program, tmp_path: Path) -> None:
    tasks = {"wordcount": "count the words of a file", "todo": "a to-do list", "answer": "hello, who are you?"}
    calls, summary = await play(ask(tasks.get(program.slug, f"write {program.slug}")), Workspace(tmp_path))

    assert [call.name for call in calls if call.name not in ("job_plan", "todo_write")] == [
        "files_creation",
        "bash",
        "grep",
        "file_edit",
        "bash",
        "suggest_next_steps",
    ]
    assert program.path in summary
    assert "\nOK\n````" in summary
    assert "failed" not in summary
    plan = json.loads([call.arguments for call in calls if call.name == "job_plan"][-1])
    assert {step["status"] for step in plan["steps"]} == {"done"}


async def test_demo_reports_what_its_program_really_printed(tmp_path: Path) -> None:
    _, summary = await play(ask("Please print the first 7 prime numbers"), Workspace(tmp_path))
    assert "````text\n2 3 5 7 11 13 17\n````" in summary
    assert "exit status" not in summary
    assert "<plan>" not in summary


async def test_demo_says_what_failed(tmp_path: Path) -> None:
    class Broken(Workspace):
        def answer(self, call: ToolCall) -> ToolMessage:
            if call.name == "bash":
                return ToolMessage(call.id, "bash", "python3: command not found", ok=False)
            return super().answer(call)

    calls, summary = await play(ask("fizzbuzz"), Broken(tmp_path))
    plan = json.loads([call.arguments for call in calls if call.name == "job_plan"][-1])
    assert [step["status"] for step in plan["steps"]] == ["done", "dropped", "done", "dropped"]
    assert "python3: command not found" in summary
    assert "These calls failed: bash, bash." in summary


async def test_demo_leaves_out_steps_whose_tool_is_switched_off(tmp_path: Path) -> None:
    tools = [name for name in ALL_TOOLS if name not in ("grep", "job_plan", "todo_write")]
    calls, summary = await play(ask("primes", tools=tools), Workspace(tmp_path))
    assert [call.name for call in calls] == ["files_creation", "bash", "file_edit", "bash", "suggest_next_steps"]
    assert "\nOK\n" in summary


async def test_demo_sums_up_at_once_when_no_tools_are_offered() -> None:
    answer = await completed(ScriptedLLM(delay_s=0).stream(ask("primes", tools=())))
    assert answer.tool_calls == ()
    assert "scripted demo model" in answer.text


async def test_demo_starts_anew_for_the_next_task_of_a_thread(tmp_path: Path) -> None:
    request = ask("primes")
    answer = await completed(ScriptedLLM(delay_s=0).stream(request))
    interrupted = continued(request, AssistantMessage(answer.text, answer.tool_calls))
    second = continued(interrupted, UserMessage("fizzbuzz", is_task=True))
    again = await completed(ScriptedLLM(delay_s=0).stream(second))
    assert [call.name for call in again.tool_calls] == ["job_plan"]
    assert "FizzBuzz" in again.text
    assert {call.id for call in again.tool_calls}.isdisjoint(call.id for call in answer.tool_calls)


async def test_demo_goes_on_through_steering_and_mentions_it(tmp_path: Path) -> None:
    request = continued(ask("primes"), UserMessage("use fewer words"))
    _, summary = await play(request, Workspace(tmp_path))
    assert "You added: use fewer words" in summary


@pytest.mark.parametrize(
    ("task", "slug", "count"),
    [
        ("the first 25 primes", "primes", 25),
        ("Fizz Buzz please", "fizzbuzz", 15),
        ("count how often words occur", "wordcount", 5),
        ("my TODO list", "todo", 3),
        ("improve the prior code", "answer", 5),
        ("", "answer", 5),
    ],
)
def test_the_program_fits_the_words_of_the_task(task: str, slug: str, count: int) -> None:
    program, number = choose(task)
    assert (program.slug, number) == (slug, count)


SCRIPT = """Do this.

```script
[{"text": "Looking.", "reasoning": "hm", "tool_calls": [
    {"name": "bash", "arguments": {"command": "ls"}}, {"name": "ls", "arguments": "{\\"path\\": ", "id": "x"}]},
 {"text": "Seen.", "delay_ms": 0, "tokens": 3, "usage": {"input_tokens": 5, "output_tokens": 7}},
 {"text": "Half", "error": "overflow"}]
```
"""


async def test_script_block_is_played_turn_by_turn_by_any_instance() -> None:
    request = ask(SCRIPT)
    first = await completed(ScriptedLLM(delay_s=0).stream(request))
    assert (first.text, first.reasoning, first.finish_reason) == ("Looking.", "hm", "tool_calls")
    assert [(call.name, call.arguments) for call in first.tool_calls] == [
        ("bash", '{"command": "ls"}'),
        ("ls", '{"path": '),
    ]
    assert first.tool_calls[1].id == "x"

    request = continued(
        request,
        AssistantMessage(first.text, first.tool_calls),
        *(ToolMessage(call.id, call.name, "ok") for call in first.tool_calls),
        UserMessage("<reminder>the plan is open</reminder>"),
    )
    second = await completed(ScriptedLLM(delay_s=0).stream(request))
    assert second.text == "Seen.lorem ipsum dolor "
    assert (second.usage.input_tokens, second.usage.output_tokens, second.usage_is_estimate) == (5, 7, False)

    request = continued(request, AssistantMessage(second.text), UserMessage("and now?"))
    with pytest.raises(ContextOverflow) as caught:
        await collect(ScriptedLLM(delay_s=0).stream(request))
    assert "usage" in caught.value.details

    request = continued(request, AssistantMessage("Half"), UserMessage("and now?"))
    assert (await completed(ScriptedLLM(delay_s=0).stream(request))).text == "Done."


async def test_a_turn_of_a_script_is_its_text_alone_when_nothing_may_be_called() -> None:
    request = replace(ask(SCRIPT), allow_calls=False)
    answer = await completed(ScriptedLLM(delay_s=0).stream(request))
    assert (answer.text, answer.tool_calls, answer.finish_reason) == ("Looking.", (), "stop")


async def test_script_goes_on_after_earlier_turns_were_compacted_away() -> None:
    call = ToolCall(id=CallId("call_0123abcd_1_0"), name="bash", arguments="{}")
    kept = (AssistantMessage("", (call,)), ToolMessage(call.id, "bash", "ok"))
    task = '```script\n[{"text": "a"}, {"text": "b"}, {"text": "c"}]\n```'
    answer = await completed(ScriptedLLM(delay_s=0).stream(continued(ask(task), *kept)))
    assert answer.text == "c"


@pytest.mark.parametrize("body", ["[", '{"text": "a"}', '[{"txt": "a"}]', '[{"text": 5}]'])
async def test_broken_script_block_is_refused_with_the_place(body: str) -> None:
    with pytest.raises(ModelRefused, match="script block is not valid, at "):
        await collect(ScriptedLLM(delay_s=0).stream(ask(f"```script\n{body}\n```")))


async def test_given_turns_are_played_one_per_call_and_requests_are_kept() -> None:
    llm = ScriptedLLM.of(
        [
            "hello",
            ModelOverloaded("busy", retry_after_s=2),
            Turn(tool_calls=(tool_call("bash", command="ls"),)),
            lambda request: f"asked {len(request.messages)} messages",
        ]
    )
    request = ask("x")
    assert (await completed(llm.stream(request))).text == "hello"
    with pytest.raises(ModelOverloaded):
        await collect(llm.stream(request))
    called = await completed(llm.stream(request))
    assert [json.loads(call.arguments) for call in called.tool_calls] == [{"command": "ls"}]
    assert (await completed(llm.stream(request))).text == "asked 2 messages"
    with pytest.raises(ModelError, match="number 5"):
        await collect(llm.stream(request))
    assert len(llm.requests) == 5


async def test_text_streams_in_small_pieces_before_the_completion() -> None:
    pieces = await collect(ScriptedLLM.of(["one two  three"]).stream(ask("x")))
    assert [piece.text for piece in pieces if isinstance(piece, TextDelta)] == ["one ", "two  ", "three"]
    assert isinstance(pieces[-1], Completion)
