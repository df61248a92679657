"""Circles: the model is told first, then the run ends with its reason; what only looks like a circle goes on."""

from typing import Any

import pytest

from tests.agent.bench import Bench, bench
from tests.agent.test_agent import Poke, PokeArgs, terminal
from workflow.core.errors import ModelOverloaded, ToolError
from workflow.llm.base import ModelRequest, UserMessage
from workflow.llm.scripted_turns import Turn, tool_call
from workflow.tools.base import ToolContext, ToolOutput


class Wall(Poke):
    """Gives the same back for the same, or the same error for anything."""

    def __init__(self, error: str = "") -> None:
        super().__init__()
        self.error = error

    async def run(self, args: PokeArgs, context: ToolContext) -> ToolOutput:
        self.count += 1
        if self.error:
            raise ToolError(f"no {args.what}", kind=self.error)
        return ToolOutput(f"nothing behind {args.what}")


def poke(what: str) -> Turn:
    return Turn(tool_calls=(tool_call("poke", what=what),))


def reminders(subject: Bench) -> list[str]:
    return [message.text for message in subject.journal.of("message") if message.origin == "agent"]


CIRCLES: dict[str, tuple[list[Turn], Wall, int, str]] = {
    "the same call": ([poke("x")] * 30, Wall(), 8, "the same poke call 4 times"),
    "the same error": ([poke(str(n)) for n in range(30)], Wall("refused"), 6, "failed 3 times in a row with refused"),
    "alternation": ([poke("a"), poke("b")] * 15, Wall(), 12, "the same 2 calls in turn, 3 rounds"),
    "a cycle of four": ([poke(c) for c in "abcd"] * 10, Wall(), 24, "the same 4 calls in turn, 3 rounds"),
}


@pytest.mark.parametrize("circle", CIRCLES)
async def test_a_circle_is_told_to_the_model_first_and_ends_the_run_at_twice_the_limit(circle: str) -> None:
    turns, wall, calls, words = CIRCLES[circle]
    subject = bench(*turns, tools=[wall])
    await subject.attempt()
    assert words in reminders(subject)[0]
    assert wall.count == calls
    assert (terminal(subject).type, terminal(subject).reason) == ("run.failed", "stuck")


async def test_a_model_that_heeds_the_warning_goes_on() -> None:
    heard: list[str] = []

    def listens(request: ModelRequest) -> Turn | str:
        warned = [m.text for m in request.messages if isinstance(m, UserMessage) and "<reminder>" in m.text]
        heard.extend(warned)
        return "I stop that." if warned else poke("x")

    subject = bench(*[listens] * 10, tools=[Wall()])
    await subject.attempt()
    assert len(heard) == 1
    assert terminal(subject).summary == "I stop that."


async def test_answers_without_a_call_while_the_plan_is_open_are_a_monologue_that_ends() -> None:
    steps = tool_call("job_plan", steps=[{"id": "1", "title": "Do it", "status": "pending"}])
    subject = bench(Turn(tool_calls=(steps,)), *["I am on it."] * 9)
    await subject.attempt()
    assert len(reminders(subject)) == 2
    assert len(subject.journal.of("message")) == 1 + 3 + 2
    assert terminal(subject).reason == "stuck"


async def test_polling_something_that_changes_is_no_circle() -> None:
    subject = bench(*[poke("status")] * 12, "Done.", tools=[Poke()])  # each answer has another number
    await subject.attempt()
    assert (reminders(subject), terminal(subject).type) == ([], "run.finished")


async def test_a_persons_word_starts_the_count_anew() -> None:
    wall = Wall()
    subject = bench(*[poke("x")] * 6, "Done.", tools=[wall])

    class Speaks(Wall):
        async def run(self, args: PokeArgs, context: ToolContext) -> ToolOutput:
            if self.count == 2:
                subject.journal.say("Try it a few times more.")
            return await super().run(args, context)

    subject.tools = [Speaks()]
    await subject.attempt()
    assert (reminders(subject), terminal(subject).type) == ([], "run.finished")


async def test_a_providers_trouble_is_not_the_agents_circle() -> None:
    def busy(number: int) -> Any:
        return ModelOverloaded("busy") if number % 2 else poke(f"{number}")

    subject = bench(*[busy(n) for n in range(16)], "Done.", tools=[Poke()])
    llm = subject.settings.llm.model_copy(update={"max_retries": 3})
    subject.settings = subject.settings.model_copy(update={"llm": llm})
    await subject.attempt()
    assert (reminders(subject), terminal(subject).type) == ([], "run.finished")
