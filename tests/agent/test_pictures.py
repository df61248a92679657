"""Pictures outlive the worker that read them: they come again from the workspace, or the model reads why not."""

import struct

import pytest

from tests.agent.bench import RUN, THREAD, Bench, bench
from tests.agent.test_agent import Poke, PokeArgs
from workflow.agent.pictures import MAX_BYTES
from workflow.core.events import RunQueued
from workflow.core.ids import RunId
from workflow.llm.base import Image, ModelRequest, ToolMessage
from workflow.llm.scripted import ScriptedLLM
from workflow.llm.scripted_turns import Turn, tool_call
from workflow.runner.recording import record
from workflow.runner.replay import replay
from workflow.tools.base import ToolContext, ToolOutput


def png(note: bytes = b"", *, size: int = 0) -> bytes:
    """What passes for a picture of 4 by 4 pixels."""
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 4, 4) + note + b"\0" * size


def look(path: str = "plot.png") -> Turn:
    return Turn(tool_calls=(tool_call("file_read", path=path),))


class Eyes:
    """A model that says "Seen." and remembers the tool messages it was sent last."""

    def __init__(self) -> None:
        self.messages: list[ToolMessage] = []

    def __call__(self, request: ModelRequest) -> str:
        self.messages = [message for message in request.messages if isinstance(message, ToolMessage)]
        return "Seen."

    @property
    def shown(self) -> list[bytes]:
        return [image.content for message in self.messages for image in message.images]


async def put(subject: Bench, path: str, content: bytes) -> None:
    sandbox = await subject.sandboxes.open(THREAD)
    await sandbox.write(path, content)


async def read_and_lost() -> Bench:
    """The log of a run whose worker was lost right after plot.png was read."""
    whole = bench(look(), "never said")
    await put(whole, "plot.png", png(b"first"))
    await whole.attempt()
    result = next(i for i, event in enumerate(whole.journal.events) if event.type == "tool.result")
    del whole.journal.events[result + 1 :]
    return whole


async def test_a_picture_is_shown_again_after_a_takeover() -> None:
    subject, eyes = await read_and_lost(), Eyes()
    subject.llm = ScriptedLLM.of([eyes])
    await subject.attempt(reason="worker_lost")
    assert eyes.shown == [png(b"first")]
    assert subject.journal.events[-1].type == "run.finished"


async def test_a_picture_is_shown_again_in_the_threads_next_run() -> None:
    subject, eyes = bench(look(), "Seen."), Eyes()
    await put(subject, "plot.png", png())
    await subject.attempt()
    subject.run_id, subject.llm = RunId("t1.r2"), ScriptedLLM.of([eyes])
    await subject.journal.commit(RunQueued(thread_id=THREAD, run_id=subject.run_id, task="And now?"))
    await subject.attempt()
    assert eyes.shown == [png()]


@pytest.mark.parametrize("now", [png(b"other"), b"text now", None], ids=["changed", "replaced", "gone"])
async def test_a_picture_that_is_no_longer_there_is_said_in_words(now: bytes | None) -> None:
    subject, eyes = await read_and_lost(), Eyes()
    if now is None:
        await (await subject.sandboxes.open(THREAD)).remove("plot.png")
    else:
        await put(subject, "plot.png", now)
    subject.llm = ScriptedLLM.of([eyes])
    await subject.attempt(reason="worker_lost")
    assert eyes.shown == []
    why = "the file is gone" if now is None else "the file has changed since"
    assert f"[the picture plot.png is not shown any more: {why};" in eyes.messages[0].text
    assert subject.journal.events[-1].type == "run.finished"


async def test_a_picture_of_a_tool_without_a_file_gets_one() -> None:
    class Camera(Poke):
        async def run(self, args: PokeArgs, context: ToolContext) -> ToolOutput:
            return ToolOutput("click", images=(Image("image/png", png(b"shot")),))

    subject, eyes = bench(Turn(tool_calls=(tool_call("poke"),)), "Seen.", tools=[Camera()]), Eyes()
    await subject.attempt()
    del subject.journal.events[-3:]
    subject.llm = ScriptedLLM.of([eyes])
    await subject.attempt(reason="worker_lost")
    assert eyes.shown == [png(b"shot")]


async def test_recent_pictures_survive_compaction_and_older_ones_go_with_their_turns() -> None:
    notes: list[ModelRequest] = []
    eyes = Eyes()

    def work(request: ModelRequest) -> Turn | str:
        if not request.cache_breakpoints:
            notes.append(request)
            return "The first plot shows a line."
        eyes(request)
        if notes:
            return "Done."
        turn = sum(isinstance(message, ToolMessage) for message in request.messages)
        return Turn(text="x" * 4000, tool_calls=look(f"{turn}.png").tool_calls)

    subject = bench(*[work] * 12, compact_at=0.6, keep_recent=0.3)
    subject.context_tokens = 20_000
    for number in range(9):
        await put(subject, f"{number}.png", png(str(number).encode()))
    await subject.attempt()
    summed_up = [i.content for m in notes[0].messages if isinstance(m, ToolMessage) for i in m.images]
    assert png(b"0") in summed_up, "who writes the notes sees what was shown"
    assert eyes.shown, "recent ones stay"
    assert png(b"0") not in eyes.shown
    assert summed_up + eyes.shown == [png(str(n).encode()) for n in range(len(summed_up + eyes.shown))]
    assert subject.journal.events[-1].type == "run.finished"


async def test_too_many_pictures_let_the_oldest_go_in_words() -> None:
    eyes = Eyes()
    names = [f"{n}.png" for n in range(6)]
    subject = bench(*map(look, names), eyes)
    for name in names:
        await put(subject, name, png(name.encode(), size=MAX_BYTES // 5))
    await subject.attempt()
    assert [content[24:29] for content in eyes.shown] == [b"3.png", b"4.png", b"5.png"], (
        "half was let go when the fifth came"
    )
    assert "newer pictures took its place" in eyes.messages[0].text


async def test_a_run_with_pictures_is_replayed_the_same_without_them() -> None:
    subject = bench(look(), "Seen.")
    await put(subject, "plot.png", png())
    await subject.attempt()
    replayed = await replay(record(subject.journal.events, RUN), subject.settings, environ={})
    assert (replayed.mismatches, replayed.is_same) == ((), True)
