"""Listens to a model's stream: shows it as it grows, keeps what it was at the end."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import cast

from workflow.core import genai
from workflow.core.errors import ModelOverloaded
from workflow.core.events import DeltaKind
from workflow.core.ids import ItemId, new_item_id
from workflow.core.ports import Journal
from workflow.core.tracing import span, usage_attributes
from workflow.llm.base import Completion, ModelEvent, ModelRequest, ReasoningDelta, Restarted, TextDelta, ToolCallDelta


async def listen(
    stream: AsyncIterator[ModelEvent], request: ModelRequest, show: Callable[[ModelEvent], None] | None = None
) -> Completion:
    """The completion at the end of `stream`; each piece goes to `show`. Raises: what the driver raises.

    request: what the stream answers, for traces.
    """
    asked = {
        genai.OPERATION: "chat",
        genai.PROVIDER: genai.provider_name(request.model),
        genai.REQUEST_MODEL: request.model,
    }
    with span(f"chat {request.model}", asked, kind="client") as traced:
        async with aclosing(cast("AsyncGenerator[ModelEvent]", stream)) as events:
            async for event in events:
                if isinstance(event, Completion):
                    reasons = {genai.RESPONSE_MODEL: event.model, genai.FINISH_REASONS: [event.finish_reason]}
                    traced.set(reasons | usage_attributes(event.usage))
                    return event
                if show is not None:
                    show(event)
        raise ModelOverloaded("the model's stream ended without an end")


class Speech:
    """One message while it grows; `item` names it in its deltas and in its finished event.

    A stream that broke and begins anew gets a new item: what was shown of the old one is never finished.
    """

    def __init__(self, journal: Journal, turn: int) -> None:
        self.item: ItemId = new_item_id()
        self._journal, self._turn = journal, turn
        self._offsets: dict[tuple[str, DeltaKind], int] = {}

    def show(self, event: ModelEvent) -> None:
        """Sends a piece to live watchers."""
        match event:
            case TextDelta(text):
                self._delta(self.item, DeltaKind.TEXT, text)
            case ReasoningDelta(text):
                self._delta(self.item, DeltaKind.REASONING, text)
            case ToolCallDelta():
                self._delta(event.id or self.item, DeltaKind.ARGUMENTS, event.arguments)
            case Restarted():
                self.item, self._offsets = new_item_id(), {}

    def _delta(self, item: str, kind: DeltaKind, text: str) -> None:
        if not text:
            return
        offset = self._offsets.get((item, kind), 0)
        self._offsets[item, kind] = offset + len(text)
        self._journal.preview(self._turn, item, kind, offset=offset, text=text)
