"""What the model is told before the task: role, environment, the workspace's instructions; alike on every turn."""

from pathlib import Path
from typing import Any

import pytest

from tests.agent.bench import THREAD, bench
from tests.agent.test_agent import terminal
from workflow.agent.prompt import MAX_INSTRUCTIONS
from workflow.llm.base import ModelRequest, SystemMessage
from workflow.llm.scripted_turns import Turn, tool_call


async def told(files: dict[str, str] | None = None, **agent: Any) -> list[str]:
    """The system prompt of each turn of a run of two turns; the first one changes AGENTS.md."""
    prompts: list[str] = []

    def note(request: ModelRequest) -> Turn | str:
        assert isinstance(request.messages[0], SystemMessage)
        prompts.append(request.messages[0].text)
        if len(prompts) == 2:
            return "Done."
        change = tool_call("files_creation", files=[{"path": "AGENTS.md", "content": "Other rules."}], overwrite=True)
        return Turn(tool_calls=(change,))

    subject = bench(note, note, **agent)
    sandbox = await subject.sandboxes.open(THREAD)
    for path, content in (files or {}).items():
        await sandbox.write(path, content.encode())
    await subject.attempt()
    assert terminal(subject).type == "run.finished", terminal(subject)
    return prompts


async def test_role_environment_and_instructions_come_in_this_order_and_never_change_within_a_run() -> None:
    first, second = await told({"AGENTS.md": "Use tabs."})
    places = [
        first.index(part) for part in ("You are Dialtone", "# Environment", "# Project instructions", "Use tabs.")
    ]
    assert places == sorted(places)
    assert "/workspace" in first
    assert first == second


async def test_runs_with_the_same_prompt_hold_it_once() -> None:
    """Thousands of them may wait for their model in one process."""
    assert (await told())[0] is (await told())[0]


async def test_without_instructions_nothing_is_said_of_them() -> None:
    assert "Project instructions" not in (await told())[0]


async def test_another_file_may_hold_the_instructions_or_none() -> None:
    files = {"AGENTS.md": "Use tabs.", "RULES.md": "Use blanks."}
    other = (await told(files, instructions_file="RULES.md"))[0]
    assert ("Use blanks." in other, "Use tabs." in other) == (True, False)
    assert "Use tabs." not in (await told(files, instructions_file=""))[0]


async def test_long_instructions_are_cut_and_say_so() -> None:
    prompt = (await told({"AGENTS.md": "x" * (2 * MAX_INSTRUCTIONS)}))[0]
    assert prompt.endswith("(cut here: longer than 32 KiB)")
    assert prompt.count("x" * MAX_INSTRUCTIONS) == 1


async def test_a_file_of_the_operator_replaces_the_role(tmp_path: Path) -> None:
    (tmp_path / "role.md").write_text("You are a librarian.\n")
    prompt = (await told(prompt_file=str(tmp_path / "role.md")))[0]
    assert prompt.startswith("You are a librarian.\n\n# Environment")
    assert "Dialtone" not in prompt


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xfa"])
async def test_a_role_that_cannot_be_read_ends_the_run_with_the_keys_name(
    content: bytes | None, tmp_path: Path
) -> None:
    file = tmp_path / "role.md"
    if content is not None:
        file.write_bytes(content)
    subject = bench("never said", prompt_file=str(file))
    await subject.attempt()
    assert (terminal(subject).type, terminal(subject).reason) == ("run.failed", "bad_config")
    assert "agent.prompt_file" in terminal(subject).detail
