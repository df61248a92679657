"""When a run remembers the workspace, seen in its log."""

from tests.agent.bench import Bench, bench
from tests.agent.test_agent import Poke, plan
from workflow.core.errors import SandboxError
from workflow.core.events import Effect
from workflow.core.ids import ThreadId
from workflow.llm.scripted_turns import Turn, tool_call
from workflow.sandboxes.memory import MemoryProvider, MemorySandbox


def create(**files: str) -> Turn:
    made = [{"path": path, "content": content} for path, content in files.items()]
    return Turn(tool_calls=(tool_call("files_creation", files=made),))


def saves(subject: Bench) -> list[tuple[str, int]]:
    return [(event.why, event.turn) for event in subject.journal.of("workspace.saved")]


async def test_the_workspace_is_saved_before_the_first_change_and_after_each_turn_that_changed_it() -> None:
    pure = Turn(tool_calls=(tool_call("ls", path="."),))
    planned = Turn(tool_calls=(plan("done"),))
    subject = bench(pure, planned, create(a="1"), pure, create(b="2"), "Done.")
    await subject.attempt()
    assert saves(subject) == [("start", 3), ("turn", 3), ("turn", 5)]
    types = subject.journal.types()
    assert types[types.index("workspace.saved") - 1] == "tool.call", (
        "the intent comes first, then the save, then the work"
    )
    ids = {event.snapshot for event in subject.journal.of("workspace.saved")}
    assert len(ids) == 3


async def test_a_turn_that_left_the_workspace_as_it_was_adds_no_event() -> None:
    poke = Poke(Effect.KEYED)
    subject = bench(*[Turn(tool_calls=(tool_call("poke", what=str(n)),)) for n in range(3)], "Done.", tools=[poke])
    await subject.attempt()
    assert poke.count == 3 and saves(subject) == [("start", 1)]


async def test_a_run_that_changes_nothing_saves_nothing() -> None:
    subject = bench(Turn(tool_calls=(tool_call("ls", path="."),)), "Done.")
    await subject.attempt()
    assert saves(subject) == []


class Forgetful(MemorySandbox):
    async def snapshot(self, label: str) -> str:
        raise SandboxError("no room left")


class ForgetfulProvider(MemoryProvider):
    async def open(self, thread_id: ThreadId) -> MemorySandbox:
        return Forgetful()


async def test_a_run_goes_on_when_its_workspace_cannot_be_saved_and_says_so_once() -> None:
    subject = bench(create(a="1"), create(b="2"), "Done.")
    subject.sandboxes = ForgetfulProvider()
    await subject.attempt()
    assert subject.journal.types()[-1] == "run.finished" and saves(subject) == []
    assert [(e.code, "no room left" in e.text) for e in subject.journal.of("notice")] == [("no_snapshot", True)]
