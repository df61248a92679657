"""What came of a run, as far as two runs of the same task can be compared; and how two of them differ."""

import difflib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from workflow.core.events import Event, FileChanged, ToolCalled, Usage, UsageUpdated
from workflow.llm.cassette import Cassette

CALL_CHARS = 300


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, what it called and what it changed."""

    status: str
    """`finished`, `failed`, `cancelled`, or `waiting` for a person whom the recording does not have."""
    reason: str = ""
    summary: str = ""
    turns: int = 0
    usage: Usage = field(default_factory=Usage)
    calls: tuple[str, ...] = ()
    """`<tool> <arguments as JSON>` in the order of the model's answers."""
    files: tuple[str, ...] = ()
    """`<path> <change> <sha256>` of the last change of each file, sorted."""

    @classmethod
    def of_cassette(cls, cassette: Cassette) -> "Outcome":
        """What the recorded run came to."""
        changed = (event for tool in cassette.tools for event in tool.events if isinstance(event, FileChanged))
        end = cassette.end
        return cls(
            status=end.status,
            reason=end.reason,
            summary=end.summary,
            turns=max((answer.turn for answer in cassette.answers), default=0),
            usage=end.usage,
            calls=_ordered((t.turn, t.tool, t.arguments) for t in cassette.tools if t.arguments is not None),
            files=_files(changed),
        )

    @classmethod
    def of_events(cls, events: Iterable[Event], *, waits: bool = False) -> "Outcome":
        """What a run came to that has these events and ended, or `waits`."""
        run = list(events)
        end = next((event for event in run if event.terminal), None)
        spent = next((event.run for event in reversed(run) if isinstance(event, UsageUpdated)), Usage())
        intents = {event.call_id: event for event in run if isinstance(event, ToolCalled)}
        return cls(
            status=end.type.removeprefix("run.") if end is not None else "waiting" if waits else "running",
            reason=getattr(end, "reason", ""),
            summary=getattr(end, "summary", ""),
            turns=max((event.turn for event in run), default=0),
            usage=getattr(end, "usage", spent),
            calls=_ordered((call.turn, call.tool, call.arguments) for call in intents.values()),
            files=_files(event for event in run if isinstance(event, FileChanged)),
        )

    def differs_from(self, other: "Outcome") -> bool:
        """True if the two ended differently, called different tools or changed different files. Cost does not count."""
        mine, theirs = ((one.status, one.reason, one.summary, one.calls, one.files) for one in (self, other))
        return mine != theirs


def diff(then: Outcome, now: Outcome) -> Iterator[str]:
    """The two outcomes side by side, in lines for a person."""
    yield f"           {'recorded':<24}replayed"
    for name, was, is_now in (
        ("status", _status(then), _status(now)),
        ("turns", str(then.turns), str(now.turns)),
        ("tokens", f"{then.usage.tokens:,}", f"{now.usage.tokens:,}"),
        ("cost", f"${then.usage.cost_usd:.4f}", f"${now.usage.cost_usd:.4f}"),
    ):
        yield f"{name:<11}{was:<24}{is_now}{'' if was == is_now else '   ≠'}"
    for title, was_lines, now_lines in (
        ("tool calls", list(then.calls), list(now.calls)),
        ("files", list(then.files), list(now.files)),
        ("summary", then.summary.splitlines(), now.summary.splitlines()),
    ):
        if was_lines == now_lines:
            yield f"{title}: the same ({len(now_lines)})"
            continue
        yield f"{title}:"
        changes = difflib.unified_diff(was_lines, now_lines, "recorded", "replayed", lineterm="", n=2)
        yield from (f"  {line}" for line in changes)


def _status(outcome: Outcome) -> str:
    return f"{outcome.status} ({outcome.reason})" if outcome.status == "failed" else outcome.status


def _ordered(calls: Iterable[tuple[int, str, dict[str, object] | None]]) -> tuple[str, ...]:
    """Calls of one turn run at once and come back in any order, so they are sorted within it."""
    found = sorted((turn, f"{tool} {json.dumps(arguments, ensure_ascii=False)}") for turn, tool, arguments in calls)
    return tuple(text[:CALL_CHARS] for _, text in found)


def _files(changes: Iterable[FileChanged]) -> tuple[str, ...]:
    last = {change.path: f"{change.path} {change.change} {change.sha256[:12]}" for change in changes}
    return tuple(last[path] for path in sorted(last))
