"""What a local model server answers, and where it goes wrong on purpose."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from workflow.llm.scripted_turns import ScriptTurn
from workflow.llm.scripted_view import SCRIPT

_TURNS: TypeAdapter[tuple[ScriptTurn, ...]] = TypeAdapter(tuple[ScriptTurn, ...])


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call. `arguments` is sent as it stands, valid JSON or not."""

    name: str
    arguments: str = "{}"
    id: str = ""
    """Empty: the server makes one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. Events are counted from 0 as the server writes them."""

    text: str = ""
    reasoning: str = ""
    redacted: str = ""
    """Reasoning that only the provider can read (Anthropic)."""
    calls: tuple[Call, ...] = ()
    finish: str = ""
    """The wire's own finish reason; empty: whichever fits."""
    usage: dict[str, Any] | None = None
    """The wire's own counts; None: counted from the request."""
    no_usage: bool = False
    text_chars: int = 8
    argument_chars: int = 12
    """Characters per piece."""
    write_bytes: int = 0
    """Cut the whole byte stream into writes of this size; 0: one event, one write."""
    delay_s: float = 0.0
    """Pause before each event."""

    status: int = 200
    error: str = "something is wrong"
    error_type: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    """An answer that is no stream: status, the words and kind of its error, its headers."""
    raw_body: str = ""
    """Sent in place of the wire's error body."""

    stall_after: int | None = None
    """Stands still after that many events, until the client goes."""
    drop_after: int | None = None
    """Cuts the connection after that many events."""
    end_after: int | None = None
    """Ends the body properly after that many events, without its last words."""
    error_after: int | None = None
    """Sends an error object after that many events and ends."""
    garbage_after: int | None = None
    """Sends `garbage` as an event after that many events and ends."""
    garbage: str = "{not json"

    def text_pieces(self) -> Iterator[str]:
        return pieces(self.text, self.text_chars)

    def reasoning_pieces(self) -> Iterator[str]:
        return pieces(self.reasoning, self.text_chars)

    def argument_pieces(self, call: Call) -> Iterator[str]:
        return pieces(call.arguments, self.argument_chars)


def pieces(text: str, size: int) -> Iterator[str]:
    """The text in pieces of `size` characters."""
    return (text[start : start + size] for start in range(0, len(text), size))


def from_script(texts: list[tuple[str, str]]) -> Answer | None:
    """The answer that a script block in the newest such user message asks for; None when there is no block.

    texts: (role, text) of each message, oldest first. The block is that of the model `scripted`: its turns are
    played one per assistant message, so that a test steers a whole run through a local server by its task alone.
    """
    places = [place for place, (role, text) in enumerate(texts) if role == "user" and SCRIPT.search(text)]
    if not places:
        return None
    match = SCRIPT.search(texts[places[-1]][1])
    assert match is not None
    turns = _TURNS.validate_json(match["body"])
    number = sum(1 for role, _ in texts[places[-1] + 1 :] if role == "assistant")
    return of_turn(turns[number]) if number < len(turns) else Answer(text="Done.")


def of_turn(turn: ScriptTurn) -> Answer:
    """A scripted turn as an answer of a server."""
    played = turn.turn()
    if turn.error == "overloaded":
        return Answer(status=529, error="Overloaded", error_type="overloaded_error")
    if turn.error:
        words = "prompt is too long: maximum context length exceeded" if turn.error == "overflow" else "refused"
        return Answer(status=400, error=words, error_type="invalid_request_error")
    return Answer(
        text=played.text,
        reasoning=played.reasoning,
        calls=tuple(Call(call.name, call.arguments, call.id) for call in played.tool_calls),
        delay_s=played.delay_s or 0.0,
    )


def plain_text(content: Any) -> str:
    """The text of a message's content, given as text or as parts."""
    if isinstance(content, str):
        return content
    return "\n".join(re.sub(r"\r", "", part.get("text", "")) for part in content or () if part.get("type") == "text")
