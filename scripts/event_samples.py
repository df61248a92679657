"""One example of every event, and the words around them, for docs/events.md."""

from typing import Any, get_args

from gateway.errors import problem as make_problem
from workflow.core import events
from workflow.core.events import Event, PlanStep, Todo, ToolCall, Usage
from workflow.core.ids import CallId, ItemId, RunId, ThreadId

THREAD = ThreadId("7f3a9c0d5be1482690aa")
RUN = RunId(f"{THREAD}.1c9e03b7")
CALL = CallId("call_1")
SPENT = Usage(input_tokens=812, cache_read_tokens=2048, output_tokens=96, cost_usd=0.0041)

OPENING = """\
# Events

Generated from `workflow/core/events.py` and `gateway/stream_schema.py` by `python -m scripts.gen_event_docs`; a test
compares. The same as JSON Schema: `GET /events/schema.json`.

Everything that happens in a thread is an event of its log. `GET /api/agent/{{thread_id}}/stream` sends them as
Server-Sent Events:

```
{stream}
```

- `event: task_agent_execute` with an `id` is a **fact**: an event of the log, in order, each once. Its id is
  `<epoch>-<seq>`; `seq` counts 1, 2, 3 … without holes, so whatever is missing can be seen. Compare ids as integers.
- `event: task_agent_execute` without an `id` is a **preview** (`"type": "delta"`) of something unfinished. What it
  belongs to is named by `item`; `offset` says how many characters come before it. A preview with a smaller offset than
  what you have replaces the rest. Previews may be lost; the fact that ends them is complete in itself.
- The other names are words of the stream itself: `waiting`, `keep_alive`, `gap`, `reset`, `error`.

**Resume.** The last id you have seen goes into the header `Last-Event-ID` (an EventSource does this by itself), or into
`?last_id=`, or `?from=`; in this order of preference. The stream goes on after it. Without one it starts at the first
event; `?from=now` starts with what comes next. `?run_id=` shows one run and ends with it. `?deltas=false` leaves
previews out. A malformed id is answered with 400.

**A gap.** Logs are trimmed. A reader that comes back with the id `…-1` after that is told which events are missing and
what they came to; what follows comes one by one:

```
{gap}
```

**The end.** When a run (`?run_id=`) has ended, or nothing is queued or running in the thread, a reconnect with the last
id is answered with 204, which stops an EventSource for good: open a new one when you execute the next task. Streams are
closed after `gateway.stream_max_age_s`, when the gateway stops, and when a client is too slow; all three mean: come
back with your last id, after `retry` milliseconds. An EventSource does that by itself, but gives up at any other
status than 200 (429, or 503 while Redis is away): a page that finds its `readyState` closed opens a new one.

**WebSocket.** `GET /api/agent/{{thread_id}}/ws` says the same as text messages `{{"event", "id"?, "data"}}`, and takes
commands; see [api.md](api.md). With `?from=now` a first `keep_alive` has the id from which to resume. Here it is opened
with `?last_id=…-2`; `→` is what the client says:

```
{socket}
```
"""


def problem() -> dict[str, Any]:
    """Why a stream may end."""
    return make_problem(401, "unauthenticated", "the key was revoked or changed")


def _made(event: type[Event], /, **fields: Any) -> Event:
    return event(thread_id=THREAD, run_id=RUN, **fields)


SAMPLES: tuple[Event, ...] = (
    _made(events.RunQueued, task="What does notes.txt say?", user="alice"),
    _made(events.RunStarted, worker="w-1", model="anthropic/claude-sonnet-5-5", sandbox="local/T1"),
    _made(events.RunResumed, attempt=2, reason="worker_lost", worker="w-2"),
    _made(events.RunFinished, turn=2, summary="The notes are about tea.", usage=SPENT),
    _made(events.RunFailed, turn=2, reason="budget_exceeded", detail="5 turns are spent", usage=SPENT),
    _made(events.RunCancelled, turn=1, reason="cancelled by the caller"),
    _made(events.PlanUpdated, turn=1, steps=(PlanStep(id="1", title="Read the notes", status="in_progress"),)),
    _made(events.TodoUpdated, turn=1, items=(Todo(content="Read notes.txt", status="completed"),)),
    _made(
        events.Message,
        turn=2,
        item=ItemId("9f2c"),
        text="It says that tea is ready.",
        finish_reason="stop",
        tool_calls=(ToolCall(id=CALL, name="file_read", arguments='{"path": "notes.txt"}'),),
    ),
    _made(
        events.ToolCalled,
        turn=1,
        call_id=CALL,
        tool="file_read",
        arguments={"path": "notes.txt"},
        effect=events.Effect.PURE,
    ),
    _made(events.ToolResulted, turn=1, call_id=CALL, tool="file_read", ok=True, output="Tea is ready.", duration_ms=4),
    _made(events.FileChanged, turn=1, path="notes.txt", change="modified", size=13),
    _made(events.SandboxReady, provider="local", tier="T1", network="off"),
    _made(events.WorkspaceSaved, turn=1, snapshot="5b1e8a90c2d34f76", why="turn"),
    _made(
        events.PreviewExposed,
        turn=3,
        port=8000,
        url="https://k3v7qm2yw5c6x4jz1n8trb0hda.preview.example.org/",
        expires_at=1_790_000_600_000,
        preview_id="5c0f1be2a94d7763",
    ),
    _made(
        events.ApprovalRequested,
        turn=3,
        question_id="q1",
        kind="approval",
        prompt="Run `rm -r build`?",
        choices=("yes", "no"),
        call_id=CALL,
        tool="bash",
        arguments={"command": "rm -r build"},
    ),
    _made(events.ApprovalResolved, turn=3, question_id="q1", answer="yes", by="alice"),
    _made(
        events.UsageUpdated, turn=1, call=SPENT, run=SPENT, model="anthropic/claude-sonnet-5-5", left={"usd": 4.9959}
    ),
    _made(
        events.ContextCompacted,
        turn=40,
        summary="So far the notes were read and sorted.",
        through="1790000000000-230",
        tokens_before=161_000,
        tokens_after=48_000,
        dropped={"tool_results": 112},
    ),
    _made(events.SuggestionsMade, turn=2, items=("Sort the notes by date",)),
    _made(events.Notice, code="model_retry", text="The model is overloaded; trying again in 2 s."),
)


def missing() -> set[str]:
    """Kinds of events without an example."""
    kinds = {kind.__name__ for kind in get_args(get_args(Event)[0])}
    return kinds - {type(sample).__name__ for sample in SAMPLES}
