"""The account after the chaos: every accepted run is looked up in its log and compared with what was promised."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from dialtone.client import AsyncClient
from scripts.chaos.load import Watched
from workflow.core.events import ApprovalResolved, EventBase, RunFailed, RunResumed, RunStarted, ToolResulted


@dataclass(slots=True)
class Account:
    """Counts; `violations` must be all zero."""

    accepted: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    events: int = 0
    unfinished: int = 0
    gaps: int = 0
    duplicates: int = 0
    reordered: int = 0
    unlike_the_log: int = 0
    steps_repeated: int = 0
    keyed_doubled: int = 0
    """Keys that reached their receiver under two names; a repeat under the same key is dropped there."""
    keyed_repeats: int = 0
    unsafe_doubled: int = 0
    reviews: int = 0
    takeovers_s: list[float] = field(default_factory=list)
    troubled: list[str] = field(default_factory=list)

    def violations(self) -> dict[str, int]:
        return {
            "unfinished": self.unfinished,
            "gaps": self.gaps,
            "duplicates": self.duplicates,
            "reordered": self.reordered,
            "streams unlike the log": self.unlike_the_log,
            "finished steps repeated": self.steps_repeated,
            "keyed effects doubled": self.keyed_doubled,
            "unsafe effects silently doubled": self.unsafe_doubled,
        }

    async def add(self, client: AsyncClient, watched: Watched, gone: dict[int, float]) -> None:
        """Takes one run in, from its log."""
        self.accepted += 1
        events: list[EventBase] = [event async for event in client.events(watched.thread_id)]
        ends = [event for event in events if event.terminal]
        self.events += len(events)
        if len(ends) != 1:
            self.unfinished += not ends
            self.duplicates += max(0, len(ends) - 1)
        for end in ends:
            self.ended[f"failed ({end.reason})" if isinstance(end, RunFailed) else end.wire_name] += 1
        seqs = [int(event.id.split("-")[1]) for event in events]
        self.gaps += seqs != sorted(set(seqs)) or (seqs[-1] - seqs[0] + 1 != len(seqs))
        self._compare(watched, [event.id for event in events])
        results = Counter(event.call_id for event in events if isinstance(event, ToolResulted))
        self.steps_repeated += sum(count - 1 for count in results.values())
        self.reviews += sum(isinstance(event, ApprovalResolved) for event in events)
        self._takeovers(events, gone)
        if watched.trouble:
            self.troubled.append(f"{watched.run_id}: {watched.trouble}")

    def _compare(self, watched: Watched, log: list[str]) -> None:
        places = {event_id: place for place, event_id in enumerate(log)}
        seen = [places.get(event_id, -1) for event_id in watched.seen]
        self.duplicates += len(seen) - len(set(seen))
        self.reordered += seen != sorted(seen)
        self.unlike_the_log += not watched.trouble and seen != list(range(len(log)))

    def _takeovers(self, events: list[EventBase], gone: dict[int, float]) -> None:
        owner, since_ms = "", 0
        for event in events:
            if isinstance(event, RunResumed) and event.reason == "worker_lost" and owner:
                lost_at = gone.get(int(owner.split(":")[1]))
                # A worker that was paused and lived on is no longer lost: only what it held at that time counts.
                if lost_at is not None and since_ms / 1000 <= lost_at <= event.at / 1000:
                    self.takeovers_s.append(event.at / 1000 - lost_at)
            if isinstance(event, RunStarted | RunResumed):
                owner, since_ms = event.worker, event.at

    def effects(self, path: Path) -> None:
        """Counts what the outside saw."""
        lines = path.read_text().splitlines() if path.exists() else []
        counts = Counter(lines)
        self.keyed_repeats = sum(n - 1 for line, n in counts.items() if line.startswith("ring "))
        self.unsafe_doubled = sum(n - 1 for line, n in counts.items() if line.startswith("shout "))

    def table(self, faults: Counter[str], minutes: float) -> str:
        """The result as text."""
        waits = sorted(self.takeovers_s)

        def at(share: float) -> str:
            return f"{waits[min(len(waits) - 1, int(share * len(waits)))]:.1f} s" if waits else "none"

        rows: list[tuple[str, object]] = [
            ("minutes", f"{minutes:.1f}"),
            ("faults", f"{sum(faults.values())} ({', '.join(f'{n} {k}' for k, n in sorted(faults.items()))})"),
            ("runs accepted", self.accepted),
            *((f"  {name}", count) for name, count in sorted(self.ended.items())),
            ("events", self.events),
            *self.violations().items(),
            ("keyed calls issued again with the same key", self.keyed_repeats),
            ("questions answered", self.reviews),
            ("takeovers", len(waits)),
            ("takeover p50 / p99 / max", f"{at(0.5)} / {at(0.99)} / {at(1)}"),
            ("streams that gave up", len(self.troubled)),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
