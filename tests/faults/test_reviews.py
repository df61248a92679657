"""A call that nobody may repeat was under way when its worker was killed: a person judges, or the policy does."""

import asyncio
from pathlib import Path

import pytest

from dialtone.client import AsyncClient
from tests.faults.conftest import check_log, client_of, watch
from tests.line import Line, script
from tests.until import until
from workflow.core.events import ApprovalRequested, Event

SHOUT = '''
import asyncio
from pathlib import Path

from workflow.core.events import Effect
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput


class ShoutArgs(ToolArgs):
    pass


class Shout(Tool[ShoutArgs]):
    """Takes effect at once and comes back only the second time."""

    name = "shout"
    description = "Shouts."
    effect = Effect.UNSAFE

    async def run(self, args: ShoutArgs, context: ToolContext) -> ToolOutput:
        heard = Path(__file__).with_suffix(".txt")
        with heard.open("a") as file:
            file.write("shouted\\n")
        if heard.read_text().count("shouted") == 1:
            await asyncio.sleep(600)
        return ToolOutput("shouted")
'''


async def shouting(line: Line, client: AsyncClient, folder: Path) -> str:
    """A run whose worker was killed in the middle of the call; another worker is there."""
    (folder / "shout.py").write_text(SHOUT)
    line.settings["DIALTONE_TOOLS__PLUGIN_FOLDER"] = str(folder)
    await asyncio.to_thread(line.start)
    shout = {"text": "", "tool_calls": [{"name": "shout", "arguments": {}}]}
    run = await client.execute(await client.initiate(), script(shout, {"text": "Done."}))

    async def heard() -> bool:
        return (folder / "shout.txt").exists()

    await until(heard, what="the call")
    line.alive("worker")[0].kill()
    line.worker()
    return run.run_id


async def judged(client: AsyncClient, run_id: str, answer: str) -> list[Event]:
    """All events of the run, whose review gets `answer`."""
    watching = asyncio.create_task(watch(client, run_id))
    thread_id = run_id.split(".")[0]

    async def question() -> str:
        async for event in client.events(thread_id):
            if isinstance(event, ApprovalRequested):
                assert (event.kind, event.tool) == ("review", "shout")
                return event.question_id
        return ""

    await client.answer(thread_id, await until(question, timeout_s=20, what="the question"), answer)
    return await watching


@pytest.mark.parametrize(
    ("answer", "end", "times"), [("retry", "finished", 2), ("done", "finished", 1), ("stop", "failed", 1)]
)
async def test_a_person_judges_an_unsafe_call_that_was_cut_short(
    line: Line, tmp_path: Path, answer: str, end: str, times: int
) -> None:
    async with client_of(line) as client:
        run_id = await shouting(line, client, tmp_path)
        events = await judged(client, run_id, answer)
        check_log(events)
        assert events[-1].type == f"run.{end}"
        assert (tmp_path / "shout.txt").read_text().count("shouted") == times


async def test_a_review_that_nobody_answers_ends_by_policy_and_repeats_nothing(line: Line, tmp_path: Path) -> None:
    line.settings["DIALTONE_RUNS__REVIEW_TIMEOUT_S"] = "1"
    async with client_of(line) as client:
        run_id = await shouting(line, client, tmp_path)
        events = await watch(client, run_id)
        check_log(events)
        assert [e.by for e in events if e.type == "approval.resolved"] == ["policy"]
        assert (events[-1].type, getattr(events[-1], "reason", "")) == ("run.failed", "review_stop")
        assert (tmp_path / "shout.txt").read_text().count("shouted") == 1
