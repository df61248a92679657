"""Makes room: old turns become notes in the agent's own words, recent ones stay word for word.

What the person asked for is kept verbatim, whatever the notes say; the plan, todos, open questions and what is
known of files are state of the log and are never lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from workflow.agent.context import Entry, entries_of, messages_of
from workflow.agent.prompt import shipped
from workflow.agent.speaking import listen
from workflow.core.config import AgentSettings
from workflow.core.errors import ContextOverflow, ModelError
from workflow.core.events import ContextCompacted, Message, RunQueued, ToolResulted, Usage
from workflow.core.ids import CallId, RunId, ThreadId
from workflow.core.state import ThreadState
from workflow.llm.base import AssistantMessage, ChatMessage, Image, ModelRequest, ToolMessage, UserMessage
from workflow.llm.messages import without_images
from workflow.llm.models import ResolvedModel

CHARS_PER_TOKEN = 4
CLIP = 2_000
"""Characters that are left of one old message when even the summary does not fit."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """What was put in place of what."""

    summary: str
    through: str
    tokens_before: int
    tokens_after: int
    dropped: dict[str, int]
    usage: Usage
    trouble: str = ""

    def event(self, thread_id: ThreadId, run_id: RunId, turn: int) -> ContextCompacted:
        return ContextCompacted(
            thread_id=thread_id,
            run_id=run_id,
            turn=turn,
            summary=self.summary,
            through=self.through,
            tokens_before=self.tokens_before,
            tokens_after=self.tokens_after,
            dropped=self.dropped,
        )


def estimate(messages: Sequence[ChatMessage]) -> int:
    """Tokens of `messages`, as characters / 4 (images 1,500 each): good to about a fifth, and free."""
    chars = images = 0
    for message in messages:
        chars += len(message.text) + 16
        if isinstance(message, AssistantMessage):
            chars += len(message.reasoning) + sum(len(c.arguments) + len(c.name) for c in message.tool_calls)
        if isinstance(message, UserMessage | ToolMessage):
            images += len(message.images)
    return chars // CHARS_PER_TOKEN + 1500 * images


def is_due(messages: Sequence[ChatMessage], model: ResolvedModel, settings: AgentSettings) -> bool:
    """True when the prompt and the answer it may get fill the window beyond the configured share."""
    window = model.settings.context_tokens
    room = min(model.settings.max_output_tokens, window // 4)
    return estimate(messages) + room > window * settings.compact_at


async def compact(
    state: ThreadState,
    run_id: RunId,
    *,
    system: str,
    model: ResolvedModel,
    settings: AgentSettings,
    images: Mapping[CallId, tuple[Image, ...]],
) -> Compaction:
    """Notes for everything but the recent turns. Raises: ContextOverflow when nothing can be left out."""
    entries = entries_of(state, run_id)
    before = estimate(messages_of(entries, run_id, system=system, images=images))
    cut = _cut(entries, keep_tokens=int(model.settings.context_tokens * settings.keep_recent))
    if cut == 0:
        raise ContextOverflow("the last turn alone does not fit the model's context window")
    old, recent = entries[:cut], entries[cut:]
    notes, usage, trouble = await _notes(old, messages_of(old, run_id, system=system, images=images), model)
    summary = _wishes(old) + notes
    through = max((entry.id for entry in old if entry.id), key=_order)
    after = estimate(messages_of(recent, run_id, system=system, images=images)) + len(summary) // CHARS_PER_TOKEN
    return Compaction(summary, through, before, after, _count(old), usage, trouble)


def _order(event_id: str) -> tuple[int, ...]:
    return tuple(map(int, event_id.split("-")))


def _cut(entries: list[Entry], *, keep_tokens: int) -> int:
    """Where the recent part begins: at an assistant message, so that no call is parted from its result."""
    borders = [i for i, e in enumerate(entries) if isinstance(e, Message) and e.role == "assistant"]
    kept, cut = 0, 0
    for place in range(len(entries) - 1, -1, -1):
        entry = entries[place]
        kept += len(getattr(entry, "output", "") or getattr(entry, "text", "")) // CHARS_PER_TOKEN
        if place in borders:
            cut = place
            if kept > keep_tokens:
                later = [border for border in borders if border > place]
                return later[0] if later else place
    return cut if kept > keep_tokens else (borders[len(borders) // 2] if len(borders) > 1 else 0)


async def _notes(old: list[Entry], messages: tuple[ChatMessage, ...], model: ResolvedModel) -> tuple[str, Usage, str]:
    """The model's own notes; when it cannot, the bare facts of what was called."""
    for clip in (None, CLIP):
        asked = messages if clip is None else without_images(tuple(_clipped(m, clip) for m in messages))
        request = ModelRequest(
            model=model.model,
            messages=(*asked, UserMessage(shipped("compact"))),
            max_output_tokens=4_000,
            cache_breakpoints=False,
        )
        try:
            completion = await listen(model.llm.stream(request), request)
        except ContextOverflow:
            continue
        except ModelError as error:
            return _facts(old), Usage(), f"no summary from {model.model}: {error.message}"
        if completion.text.strip():
            return completion.text, completion.usage, ""
    return _facts(old), Usage(), f"no summary from {model.model}: it did not fit or came back empty"


def _clipped(message: ChatMessage, chars: int) -> ChatMessage:
    if len(message.text) <= chars or message.text.startswith("You are"):
        return message
    return replace(message, text=f"{message.text[: chars // 2]}\n[…]\n{message.text[-chars // 2 :]}")


def _wishes(old: list[Entry]) -> str:
    """What the person said, word for word."""
    said = [e.task for e in old if isinstance(e, RunQueued)]
    said += [e.text for e in old if isinstance(e, Message) and e.origin == "person"]
    return "".join(f"<said>{text}</said>\n" for text in said)


def _facts(old: list[Entry]) -> str:
    lines = []
    for entry in old:
        if isinstance(entry, Message) and entry.role == "assistant":
            lines.append(f"- said: {entry.text[:300]}" if entry.text else "")
            lines += [f"- called {call.name} {call.arguments[:300]}" for call in entry.tool_calls]
        elif isinstance(entry, ToolResulted):
            lines.append(f"  {'ok' if entry.ok else entry.error}: {entry.output[:300]}")
        elif isinstance(entry, ContextCompacted):
            lines.append(entry.summary)
    return "\n".join(line for line in lines if line)[-20_000:]


def _count(old: list[Entry]) -> dict[str, int]:
    counts = {"messages": 0, "tool_results": 0}
    for entry in old:
        counts["messages"] += isinstance(entry, Message)
        counts["tool_results"] += isinstance(entry, ToolResulted)
    return counts
