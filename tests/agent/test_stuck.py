"""Circles: the model is told first, then the run ends with its reason; what only looks like a circle goes on."""

from typing import Any

import pytest

from tests.agent.bench import RUN, THREAD, Bench, bench
from tests.agent.test_agent import Poke, PokeArgs, terminal
from tests.tools.harness import make_context
from workflow.agent import stuck
from workflow.core.config import AgentSettings
from workflow.core.errors import ModelOverloaded, ToolError
from workflow.core.events import Message, ToolCall, ToolResulted
from workflow.core.ids import CallId, ItemId
from workflow.llm.base import ModelRequest, UserMessage
from workflow.llm.scripted_turns import Turn, tool_call
from workflow.sandboxes.memory import MemorySandbox
from workflow.tools.base import ToolContext, ToolOutput
from workflow.tools.output import show
from workflow.tools.untrusted import fenced


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


def finished(tool: str, arguments: str, outputs: list[str], **result: Any) -> list[Message | ToolResulted]:
    """One turn after the other with one call each."""
    entries: list[Message | ToolResulted] = []
    for turn, output in enumerate(outputs, 1):
        about: dict[str, Any] = {"thread_id": THREAD, "run_id": RUN, "turn": turn}
        call = ToolCall(id=CallId(f"c{turn}"), name=tool, arguments=arguments)
        entries.append(Message(**about, item=ItemId(f"i{turn}"), tool_calls=(call,)))
        entries.append(ToolResulted(**about, call_id=call.id, tool=tool, ok=True, output=output, **result))
    return entries


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


async def test_calls_of_one_turn_count_once() -> None:
    probes = tuple(tool_call("file_read", path=name) for name in ("go.mod", "Makefile", "pom.xml", "a", "b", "c"))
    same = tuple(tool_call("poke", what="x") for _ in range(8))
    subject = bench(*[Turn(tool_calls=probes), Turn(tool_calls=same)] * 2, "Done.", tools=[Wall()])
    await subject.attempt()
    assert (reminders(subject), terminal(subject).type) == ([], "run.finished")


def test_a_longer_or_shorter_run_of_the_same_is_the_same() -> None:
    told = stuck.judge(
        finished("bash", '{"command": "pytest"}', [f"1 failed in 0.{n}s [exit status 1, 1.{n} s]" for n in range(4)]),
        AgentSettings(),
    )
    assert told is not None
    assert "the same bash call 4 times" in told.text


async def test_long_outputs_and_web_pages_that_are_the_same_are_the_same() -> None:
    sandbox = MemorySandbox()
    outputs: dict[str, list[str]] = {"bash": [], "web_fetch": []}
    for number in range(4):
        context = make_context(sandbox, call_id=f"call_abcdef{number}")
        outputs["bash"].append((await show(context, "x\n" * 50_000)).with_note("exit status 1"))
        outputs["web_fetch"].append(fenced("a page", source="https://a.example", key=context.effect_key))
    for tool, told in outputs.items():
        assert len(set(told)) == 4
        assert stuck.judge(finished(tool, "{}", told), AgentSettings()) is not None


@pytest.mark.parametrize(
    ("tool", "arguments", "data"),
    [
        ("bash", '{"command": "sleep 30; curl -sf localhost:8000"}', {}),
        ("bash_output", '{"job": 1, "wait_s": 30}', {"running": True}),
    ],
    ids=["sleep", "job"],
)
def test_waiting_is_no_circle(tool: str, arguments: str, data: dict[str, Any]) -> None:
    assert (
        stuck.judge(finished(tool, arguments, ["nothing yet"] * 20, data=data, duration_ms=30_000), AgentSettings())
        is None
    )
    assert (
        stuck.judge(finished(tool, arguments, ["nothing yet"] * 20, data=data, duration_ms=5), AgentSettings())
        is not None
    )


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
