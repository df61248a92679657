"""Makes room: old turns become notes in the agent's own words, recent ones stay word for word.

What the person asked for is kept verbatim, whatever the notes say; the plan, todos, open questions and what is
known of files are state of the log and are never lost.
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from workflow.agent.context import Entry, entries_of, messages_of
from workflow.agent.prompt import shipped
from workflow.core.config import AgentSettings
from workflow.core.errors import ContextOverflow, ModelError
from workflow.core.events import ContextCompacted, Message, RunQueued, ToolCall, ToolResulted, Usage
from workflow.core.ids import CallId, RunId, ThreadId
from workflow.core.state import ThreadState
from workflow.llm.base import (
    AssistantMessage,
    ChatMessage,
    Completion,
    Image,
    ModelRequest,
    SystemMessage,
    ToolMessage,
    UserMessage,
)
from workflow.llm.messages import without_images
from workflow.llm.models import ResolvedModel

Ask = Callable[[ModelRequest], Awaitable[Completion]]
"""Puts a request to the model that writes the notes."""

CHARS_PER_TOKEN = 4
CLIP = 2_000
"""Characters that are left of one old message when even the summary does not fit."""
MAX_SAID = 40_000
"""Characters of what people said that are kept word for word; more of it is cut to the ends of each message."""
MIN_SAID = 100
"""Characters that are left of each, however many there are."""
MAX_FILES = 100
_SAID = re.compile(r"<said>(.*?)</said>\n", re.DOTALL)
_KEPT = re.compile(r"\A(?:<said>.*?</said>\n)*(?:<known>\n.*?\n</known>\n)?", re.DOTALL)


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
    ask: Ask,
    images: Mapping[CallId, tuple[Image, ...]],
) -> Compaction:
    """Notes for everything but the recent turns. Raises: ContextOverflow when nothing can be left out."""
    entries = entries_of(state, run_id)
    before = estimate(messages_of(entries, run_id, system=system, images=images))
    cut = _cut(entries, keep_tokens=int(model.settings.context_tokens * settings.keep_recent))
    if cut == 0:
        raise ContextOverflow("the last turn alone does not fit the model's context window")
    old, recent = entries[:cut], entries[cut:]
    kept = kept_words(old, state)
    notes, usage, trouble = await _notes(old, messages_of(old, run_id, system=system, images=images), model, ask)
    summary = kept + notes
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
        kept += _chars(entry) // CHARS_PER_TOKEN
        if place in borders:
            cut = place
            if kept > keep_tokens:
                later = [border for border in borders if border > place]
                return later[0] if later else place
    return cut if kept > keep_tokens else (borders[len(borders) // 2] if len(borders) > 1 else 0)


def _chars(entry: Entry) -> int:
    text = getattr(entry, "output", "") or getattr(entry, "text", "")
    return len(text) + sum(len(call.arguments) for call in getattr(entry, "tool_calls", ()))


async def _notes(
    old: list[Entry], messages: tuple[ChatMessage, ...], model: ResolvedModel, ask: Ask
) -> tuple[str, Usage, str]:
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
            completion = await ask(request)
        except ContextOverflow:
            continue
        except ModelError as error:
            return _facts(old), Usage(), f"no summary from {model.model}: {error.message}"
        if completion.text.strip():
            return completion.text, completion.usage, ""
    return _facts(old), Usage(), f"no summary from {model.model}: it did not fit or came back empty"


def _clipped(message: ChatMessage, chars: int) -> ChatMessage:
    if isinstance(message, SystemMessage):
        return message
    if isinstance(message, AssistantMessage):
        calls = tuple(
            call if len(call.arguments) <= chars else call.model_copy(update={"arguments": _clipped_json(call, chars)})
            for call in message.tool_calls
        )
        message = replace(message, tool_calls=calls)
    return replace(message, text=_short(message.text, chars))


def _clipped_json(call: ToolCall, chars: int) -> str:
    return json.dumps({"shortened": _short(call.arguments, chars)}, ensure_ascii=False)


def _short(text: str, chars: int) -> str:
    return text if len(text) <= chars else f"{text[: chars // 2]}\n[…]\n{text[-chars // 2 :]}"


def notes_of(summary: str) -> str:
    """The model's own notes in a summary, without what was kept before them."""
    return _KEPT.sub("", summary, count=1)


def kept_words(old: Sequence[Entry], state: ThreadState) -> str:
    """What stands before the notes: what people said, word for word, and what the log knows for sure."""
    open_runs = state.open_runs
    said: list[str] = []
    for entry in old:
        match entry:
            case ContextCompacted():
                said += _SAID.findall(entry.summary[: len(entry.summary) - len(notes_of(entry.summary))])
            case RunQueued() if entry.run_id not in open_runs:
                said.append(entry.task)  # that of an open run stays where it is
            case Message(origin="person"):
                said.append(entry.text)
    if sum(map(len, said)) > MAX_SAID:
        said = [_short(text, max(MAX_SAID // len(said), MIN_SAID)) for text in said]
    facts = _known(state)
    known = f"<known>\n{facts}\n</known>\n" if facts else ""
    return "".join(f"<said>{text.replace('</said>', '< /said>')}</said>\n" for text in said) + known


def _known(state: ThreadState) -> str:
    """Todos, files and open questions as the log has them; the plan follows every turn by itself."""
    lines = [f"todo [{todo.status}] {todo.content}" for todo in state.todos]
    lines += [f"file {event.change}: {event.path}" for event in list(state.files.values())[-MAX_FILES:]]
    read = [path for path in state.facts if path not in state.files]
    lines += [f"file read: {path}" for path in read[-MAX_FILES:]]
    lines += [f"asked, not answered yet: {question.prompt}" for question in state.questions.values()]
    return "\n".join(lines)


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
