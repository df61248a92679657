"""What a full context keeps: wishes word for word, the plan, todos and files; twice over, and for the next worker."""

from dataclasses import dataclass, replace
from typing import Any

from tests.agent.bench import Bench, bench
from tests.agent.test_agent import plan, terminal
from workflow.agent.compaction import estimate
from workflow.core.events import ContextCompacted
from workflow.core.records import ModelChoice, RunOptions
from workflow.llm.base import ModelRequest
from workflow.llm.models import ResolvedModel
from workflow.llm.policy import PolicyLLM
from workflow.llm.scripted import ScriptedLLM
from workflow.llm.scripted_turns import Turn, tool_call


class Worker:
    """A model that plans, steers itself through many long turns, and writes notes when asked."""

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.requests: list[ModelRequest] = []
        self.notes = 0

    def __call__(self, request: ModelRequest) -> Turn | str:
        if not request.cache_breakpoints:
            self.notes += 1
            return f"NOTES {self.notes}"
        self.requests.append(request)
        number = len(self.requests)
        if number == 1:
            todo = tool_call("todo_write", items=[{"content": "buy milk", "status": "pending"}])
            return Turn(tool_calls=(plan("in_progress", "pending"), todo))
        if number < self.turns:
            file = {"path": f"{number}.txt", "content": "x" * 2500}
            return Turn(text="y" * 2500, tool_calls=(tool_call("files_creation", files=[file]),))
        return Turn(tool_calls=(plan("done", "done"),)) if number == self.turns else "All done."

    def said(self) -> str:
        """Everything but the system prompt of the last request."""
        return "\n".join(message.text for message in self.requests[-1].messages[1:])


def full(worker: Worker) -> Bench:
    subject = bench(*[worker] * 60, compact_at=0.6, keep_recent=0.2)
    subject.context_tokens = 14_000
    return subject


async def test_wishes_plan_todos_and_files_survive_every_compaction() -> None:
    worker = Worker(24)
    subject = full(worker)
    subject.journal.say("Never touch 3.txt again.")
    await subject.attempt("Keep THIS wish.")
    compacted: list[ContextCompacted] = subject.journal.of("context.compacted")
    assert len(compacted) > 1
    for event in compacted:
        assert event.summary.count("<said>Never touch 3.txt again.</said>") == 1
        assert "todo [pending] buy milk" in event.summary
        assert "file created: 3.txt" in event.summary
        assert event.dropped["tool_results"] > 0
    assert compacted[-1].summary.endswith(f"NOTES {len(compacted)}")
    assert "Keep THIS wish." in worker.said()
    assert (terminal(subject).type, terminal(subject).summary) == ("run.finished", "All done.")


async def test_a_task_stands_once_however_often_the_context_is_compacted() -> None:
    worker = Worker(40)
    subject = full(worker)
    await subject.attempt("Keep THIS wish. " + "It is long. " * 100)
    compacted: list[ContextCompacted] = subject.journal.of("context.compacted")
    assert len(compacted) > 5
    assert worker.said().count("Keep THIS wish.") == 1
    assert all(event.tokens_after < 14_000 for event in compacted)


async def test_of_many_long_wishes_none_is_left_out() -> None:
    worker = Worker(24)
    subject = full(worker)
    subject.context_tokens = 60_000
    for number in range(30):
        subject.journal.say(f"Wish {number}: " + "because " * 300)
    await subject.attempt()
    (first, *_) = subject.journal.of("context.compacted")
    assert [number for number in range(30) if f"<said>Wish {number}: " not in first.summary] == []


async def test_large_arguments_count_for_what_is_kept_word_for_word() -> None:
    def writes(request: ModelRequest) -> Turn | str:
        if not request.cache_breakpoints:
            return "NOTES"
        number = sum(message.text.startswith("created") for message in request.messages)
        sizes.append(estimate(request.messages))
        file = {"path": f"{len(sizes)}.txt", "content": "x" * 9_000}
        return Turn(tool_calls=(tool_call("files_creation", files=[file]),)) if len(sizes) < 12 else f"Done {number}."

    sizes: list[int] = []
    subject = bench(*[writes] * 40, compact_at=0.6, keep_recent=0.2)
    subject.context_tokens = 30_000
    await subject.attempt()
    assert terminal(subject).type == "run.finished"
    assert subject.journal.of("context.compacted")
    for event in subject.journal.of("context.compacted"):
        assert event.tokens_after < 30_000 * 0.2 + 1_000  # what is kept, and the system prompt


async def test_the_plan_is_read_on_every_turn_and_must_be_finished_after_a_compaction_too() -> None:
    worker = Worker(12)
    subject = full(worker)
    answers = iter(["Enough.", "Enough.", "Enough."])

    def gives_up(request: ModelRequest) -> Any:
        return worker(request) if len(worker.requests) < 11 or not request.cache_breakpoints else next(answers)

    subject.llm = ScriptedLLM.of([gives_up] * 60)
    await subject.attempt()
    assert subject.journal.of("context.compacted")
    for request in worker.requests[1:]:
        assert any("<plan>[>] 1 Step 1 · [ ] 2 Step 2</plan>" in message.text for message in request.messages)
    assert (terminal(subject).type, terminal(subject).reason) == ("run.failed", "stuck")


async def test_the_next_worker_reads_the_same_after_a_compaction() -> None:
    worker = Worker(40)
    subject = full(worker)
    await subject.attempt()
    place = next(i for i, event in enumerate(subject.journal.events) if event.type == "context.compacted")
    later = next(i for i, event in enumerate(subject.journal.events) if i > place and event.type == "message")
    before = next(r for r in worker.requests if any("NOTES 1" in message.text for message in r.messages))
    subject.journal.events = subject.journal.events[:later]
    again = Worker(0)
    subject.llm = ScriptedLLM.of([again] * 3)
    await subject.attempt(reason="worker_lost")
    assert again.requests[0].messages == before.messages


async def test_the_notes_are_the_summary_models_and_so_is_their_cost() -> None:
    worker, notes = Worker(12), Worker(0)
    subject = full(worker)
    shop = subject.shop()
    main = shop.models.get()
    candidate = replace(main.llm.candidates[0], llm=ScriptedLLM.of([notes] * 9))
    cheap = replace(main, name="cheap", model="cheap", llm=PolicyLLM([candidate], subject.settings.llm))
    subject.models = Named({"cheap": cheap, None: main})  # type: ignore[assignment]  # two models under test
    options = RunOptions(models=ModelChoice(summaries="cheap"))
    await subject.attempt(options=options)
    assert notes.notes > 0
    assert worker.notes == 0
    spent = [usage.model for usage in subject.journal.of("usage")]
    assert spent.count("cheap") == notes.notes


@dataclass
class Named:
    """Models by name."""

    models: dict[str | None, ResolvedModel]

    def get(self, name: str | None = None) -> ResolvedModel:
        return self.models[name]
