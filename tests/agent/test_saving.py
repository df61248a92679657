"""When a run remembers the workspace, seen in its log."""

import pytest

from tests.agent.bench import Bench, bench
from tests.agent.test_agent import Poke, plan
from tests.until import until
from workflow.core.errors import LeaseLost, SandboxError
from workflow.core.events import Delta, Effect
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


class Slow(MemorySandbox):
    """Its snapshots after a turn take until the model has begun to speak again."""

    def __init__(self, deltas: list[Delta]) -> None:
        super().__init__()
        self.deltas = deltas

    async def snapshot(self, label: str) -> str:
        taken = await super().snapshot(label)
        if " turn " in label:
            seen = self.deltas[-1].turn

            async def speaks() -> bool:
                return self.deltas[-1].turn > seen

            await until(speaks, what="the model's next answer")
        return taken


class SlowProvider(MemoryProvider):
    def __init__(self, deltas: list[Delta]) -> None:
        super().__init__()
        self.sandbox = Slow(deltas)

    async def open(self, thread_id: ThreadId) -> MemorySandbox:
        return self.sandbox


async def test_the_model_speaks_while_the_workspace_is_saved_and_the_log_keeps_their_order() -> None:
    subject = bench(create(a="1"), create(b="2"), "Done.")
    subject.sandboxes = SlowProvider(subject.journal.deltas)
    await subject.attempt()
    assert saves(subject) == [("start", 1), ("turn", 1), ("turn", 2)]
    kinds = [kind for kind in subject.journal.types() if kind in ("tool.result", "workspace.saved", "message")]
    assert kinds[-6:] == ["tool.result", "workspace.saved", "message", "tool.result", "workspace.saved", "message"]


async def test_what_a_lost_worker_did_not_save_counts_as_the_state_after_its_last_turn() -> None:
    unheard = create(b="1")
    subject = bench(create(a="1"), unheard, create(b="2"), "Done.")
    subject.sandboxes = MemoryProvider()
    reference = bench(create(a="1"), "Done.")
    await reference.attempt()
    subject.journal.die_after = reference.journal.types().index("tool.result") + 1
    with pytest.raises(LeaseLost):
        await subject.attempt()
    assert saves(subject) == [("start", 1)]
    subject.journal.die_after = None
    await subject.attempt(reason="worker_lost")
    assert saves(subject) == [("start", 1), ("turn", 2), ("turn", 2)]
