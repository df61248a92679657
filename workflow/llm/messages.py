"""A transcript in the order every provider accepts, whatever was cancelled, steered or compacted in it.

Providers reject a history in which a call has no result, a result has no call, or a text is empty; one such
message would poison every later request of the thread. The two wires render from `arranged`.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from workflow.core.events import ToolCall
from workflow.core.ids import CallId
from workflow.core.texts import sound
from workflow.llm.base import AssistantMessage, ChatMessage, Image, SystemMessage, ToolMessage, UserMessage

INVALID = "_invalid"
"""Key under which a call's arguments are kept when they are no object."""
NO_TEXT = "(no text)"
NO_OUTPUT = "(no output)"
INTERRUPTED = "This call was interrupted: it has no result. Whether it took effect is not known."


_MAX_NAME_CHARS = 64

ORDER = "order"
"""Type of the opaque block that tells how reasoning, texts and calls followed each other, when not in that order."""

GO_ON = UserMessage("Go on.")


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the model said and, for each of its calls in order, the one result."""

    said: AssistantMessage
    results: tuple[ToolMessage, ...]


Arranged = SystemMessage | UserMessage | Exchange


def arranged(messages: Iterable[ChatMessage]) -> list[Arranged]:
    """The messages with every call answered at once, exactly once and in call order; the user first and last.

    A call without a result gets one that says so. A result whose call is gone (compacted away) becomes a user
    message. What a person wrote while tools ran comes after their results.
    """
    items: list[Arranged] = []
    said: AssistantMessage | None = None
    results: dict[CallId, ToolMessage] = {}
    held: list[Arranged] = []

    def settle() -> None:
        if said is not None:
            items.append(Exchange(said, tuple(results.get(call.id) or _interrupted(call) for call in said.tool_calls)))
        items.extend(held)
        results.clear()
        held.clear()

    for message in messages:
        if isinstance(message, AssistantMessage):
            settle()
            said = message
        elif isinstance(message, ToolMessage):
            if said is not None and any(call.id == message.call_id for call in said.tool_calls):
                results.setdefault(message.call_id, message)
            else:
                held.append(UserMessage(f"Result of an earlier call of {message.name}:\n{message.text}"))
        else:
            held.append(message)
    settle()
    first = next((place for place, item in enumerate(items) if not isinstance(item, SystemMessage)), len(items))
    if first == len(items) or isinstance(items[first], Exchange):
        items.insert(first, GO_ON)
    if isinstance(last := items[-1], Exchange) and not last.results:
        items.append(GO_ON)
    return items


def provider_of(model: str) -> str:
    """`anthropic` of `anthropic/claude-sonnet-5-5`; the whole name when it has no slash."""
    return model.partition("/")[0]


def is_own(said: AssistantMessage, model: str) -> bool:
    """True when `model` understands what the message's author hid in its blocks and ids.

    Anthropic's models read each other's; `openai/` stands for any server that speaks its wire.
    """
    return said.model == model or provider_of(said.model) == provider_of(model) == "anthropic"


def own_opaque(said: AssistantMessage, model: str) -> tuple[dict[str, Any], ...]:
    """The message's provider blocks if they are `model`'s own; others reject them."""
    return said.opaque if is_own(said, model) else ()


def order_block(kinds: list[str | int]) -> list[dict[str, Any]]:
    """The ORDER block for `thinking`, `call` and lengths of text as they came; none for the usual order."""
    ranks = [0 if kind == "thinking" else 2 if kind == "call" else 1 for kind in kinds]
    return [] if ranks == sorted(ranks) or "thinking" not in kinds else [{"type": ORDER, "of": kinds}]


def in_order(
    said: AssistantMessage,
    opaque: tuple[dict[str, Any], ...],
    *,
    thinking: list[dict[str, Any]],
    text: Callable[[str], dict[str, Any]],
    calls: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """A message's blocks as they came: providers refuse signed reasoning in another place."""
    order = next((block["of"] for block in opaque if block.get("type") == ORDER), None)
    if order is None:
        return [*thinking, *([text(sound(said.text))] if said.text.strip() else []), *calls]
    blocks: list[dict[str, Any]] = []
    thoughts, uses, place = iter(thinking), iter(calls), 0
    for kind in order:
        if isinstance(kind, int):
            piece, place = said.text[place : place + kind], place + kind
            blocks += [text(sound(piece))] if piece.strip() else []
        else:
            blocks += [block for block in [next(thoughts if kind == "thinking" else uses, None)] if block]
    return blocks


def wire_call_id(call_id: CallId, *, max_chars: int) -> str:
    """The id itself if it is plain and short, else a digest of it, always the same.

    Some providers hide data in their ids (Gemini: kilobytes), others accept `[A-Za-z0-9_-]` only.
    """
    if len(call_id) <= max_chars and re.fullmatch(r"[A-Za-z0-9_-]+", call_id):
        return call_id
    return f"call_{hashlib.sha256(call_id.encode()).hexdigest()[:24]}"


def wire_tool_name(name: str) -> str:
    """The name as providers take it back: a tool that a model made up may be called anything."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:_MAX_NAME_CHARS] or "_"


def object_arguments(call: ToolCall) -> dict[str, Any]:
    """The call's arguments as an object; text that is none is kept under the key INVALID."""
    try:
        value = json.loads(call.arguments or "{}")
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {INVALID: call.arguments}


def valid_arguments(call: ToolCall) -> str:
    """The call's own text if it is an object, else one that holds it: servers refuse a history with other text."""
    arguments = object_arguments(call)
    return json.dumps(arguments) if INVALID in arguments else call.arguments or "{}"


def filled(text: str, otherwise: str) -> str:
    """The text, or `otherwise` when there is nothing to read in it."""
    return sound(text) if text.strip() else otherwise


def base64_of(image: Image) -> str:
    return base64.b64encode(image.content).decode()


_CAPTION = re.compile(r"\n?\[(the picture .* is not shown any more: .*|a picture, .*: not shown to this model)\]")


def without_images(messages: tuple[ChatMessage, ...], *, only_lost: bool = False) -> tuple[ChatMessage, ...]:
    """The same transcript with a line of text in place of every picture, or of those that are lost."""
    return tuple(_captioned(message, only_lost) for message in messages)


def _captioned(message: ChatMessage, only_lost: bool) -> ChatMessage:
    if not isinstance(message, UserMessage | ToolMessage) or not message.images:
        return message
    shown = tuple(image for image in message.images if only_lost and not image.lost)
    captions = [_caption(image) for image in message.images if image.lost or not only_lost]
    return replace(message, images=shown, text="\n".join([message.text, *captions]).strip())


def uncaptioned(text: str) -> str:
    """A message's text without what `without_images` added to it."""
    return _CAPTION.sub("", text)


def _caption(image: Image) -> str:
    if image.lost:
        return f"[the picture {image.path} is not shown any more: {image.lost}; file_read shows what is there now]"
    return f"[a picture, {image.media_type}, {len(image.content)} bytes: not shown to this model]"


def _interrupted(call: ToolCall) -> ToolMessage:
    return ToolMessage(call_id=call.id, name=call.name, text=INTERRUPTED, ok=False)
