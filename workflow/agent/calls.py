"""Carries out the tool calls of one turn: side by side where they may be, and what a takeover may repeat."""

import asyncio
import codecs
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from workflow.agent.pictures import Pictures
from workflow.agent.questions import Questions
from workflow.core import genai
from workflow.core.config import AgentSettings, ToolSettings
from workflow.core.errors import SandboxError, ToolError
from workflow.core.events import (
    ApprovalRequested,
    DeltaKind,
    Effect,
    EventBase,
    ToolCall,
    ToolCalled,
    ToolResulted,
)
from workflow.core.ids import CallId, RunId, ThreadId
from workflow.core.ports import Journal
from workflow.core.state import ThreadState
from workflow.core.texts import sound
from workflow.core.tracing import Value, span
from workflow.sandboxes.base import Sandbox
from workflow.tools.base import ToolContext, ToolOutput
from workflow.tools.registry import ParsedCall

log = logging.getLogger(__name__)

MAX_SHOWN = 500_000
"""Code points of one call's output that are shown live."""

Commit = Callable[..., Awaitable[None]]
Understood = ParsedCall | tuple[ToolCall, ToolError]
"""A call ready to run, or one that never will be, with the reason."""


def understood(calls: Sequence[ToolCall], parsed: Sequence[ParsedCall | ToolError]) -> list[Understood]:
    """What the registry made of each call, with the call where that is a reason."""
    return [(call, one) if isinstance(one, ToolError) else one for call, one in zip(calls, parsed, strict=True)]


class FileLocks:
    """One writer per file within this worker, whatever the run; a lock lives while somebody holds it."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[name]
            if users == 1:
                del self._locks[name]
            else:
                self._locks[name] = (lock, users - 1)


class Calls:
    """The calls of one run."""

    def __init__(
        self,
        *,
        thread_id: ThreadId,
        run_id: RunId,
        state: ThreadState,
        journal: Journal,
        commit: Commit,
        sandbox: Sandbox,
        agent: AgentSettings,
        tools: ToolSettings,
        locks: FileLocks,
        services: Mapping[str, Any],
        interrupted: frozenset[CallId],
        review: tuple[float, str],
        now_ms: Callable[[], int],
    ) -> None:
        """interrupted: calls whose intent was committed by an earlier attempt that did not live to say more.

        review: seconds until an unanswered review expires, and the answer that it then gets.
        """
        self._thread_id, self._run_id = thread_id, run_id
        self._state, self._journal, self._commit = state, journal, commit
        self._sandbox, self._agent, self._tools = sandbox, agent, tools
        self._locks, self._services = locks, services
        self._interrupted = interrupted
        self._questions = Questions(
            thread_id=thread_id,
            run_id=run_id,
            state=state,
            settings=agent,
            interrupted=interrupted,
            review=review,
            now_ms=now_ms,
        )
        self.pictures = Pictures(sandbox)

    def intents(self, calls: list[Understood], *, turn: int) -> list[EventBase]:
        """What is committed together with the model's message: an intent, or the refusal, of each call."""
        events: list[EventBase] = []
        for call in calls:
            if isinstance(call, tuple):
                events.append(self._refused(*call, turn=turn))
            elif self._questions.policy(call) == "never":
                error = ToolError(f"The operator does not allow {call.tool.name}. Go another way.", kind="denied")
                events.append(self._refused(call.call, error, turn=turn))
            else:
                events.append(self._intent(call, turn=turn))
        return events

    async def act(self, calls: list[Understood], *, turn: int) -> list[ApprovalRequested]:
        """Runs what may run and commits each result; the open questions of the others, empty when all are done."""
        ready: list[ParsedCall] = []
        questions: list[ApprovalRequested] = []
        for call in calls:
            if isinstance(call, tuple):
                await self._commit(self._refused(*call, turn=turn))
            elif question := self._questions.unanswered(call, turn=turn):
                questions.append(question)
            elif said := self._questions.answered(call, turn=turn):
                await self._commit(self._result(call, turn, ok=said.ok, output=said.text, error=said.error))
            else:
                ready.append(call)
        await self._run_all(ready, turn=turn)
        for question in questions:
            if question.question_id not in self._state.questions:
                await self._commit(question)
        return questions

    @staticmethod
    def may_change_files(calls: list[Understood]) -> bool:
        """Whether any of these calls could leave the workspace different."""
        parsed = (call for call in calls if not isinstance(call, tuple))
        return any(call.tool.changes_files and call.effect is not Effect.PURE for call in parsed)

    async def _run_all(self, calls: list[ParsedCall], *, turn: int) -> None:
        """All at once where they may, one after the other where they share a resource; one failing stops no other."""
        slots = asyncio.Semaphore(self._agent.max_parallel_calls)
        locks: dict[str, asyncio.Lock] = {}
        if len(calls) == 1:  # by far the most: a group would take three rounds of the loop more
            await self._run_one(calls[0], turn, slots, locks)
            return
        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(self._run_one(call, turn, slots, locks))

    async def _run_one(
        self, call: ParsedCall, turn: int, slots: asyncio.Semaphore, locks: dict[str, asyncio.Lock]
    ) -> None:
        async with AsyncExitStack() as held:
            for resource in sorted(call.tool.resources(call.args)):
                await held.enter_async_context(locks.setdefault(resource, asyncio.Lock()))
            await held.enter_async_context(slots)
            if call.call.id in self._interrupted:
                note = f"repeated after a takeover; {call.tool.name} is {call.effect.value}"
                await self._commit(self._intent(call, turn=turn, note=note))
            elif call.call.id in self._state.held:
                await self._commit(self._intent(call, turn=turn, note="allowed by a person"))
            await self._commit(*await self._carry_out(call, turn))

    async def _carry_out(self, call: ParsedCall, turn: int) -> list[EventBase]:
        started = time.monotonic()
        shown = _Shown(self._journal, turn, call.call.id)
        context = ToolContext(
            thread_id=self._thread_id,
            run_id=self._run_id,
            turn=turn,
            call_id=call.call.id,
            sandbox=self._sandbox,
            state=self._state,
            settings=self._tools,
            emit_output=shown.add,
            lock=lambda path: self._locks.hold(f"{self._thread_id}:{path}"),
            services=dict(self._services),
        )
        try:
            output = await self._traced(call, context)
        except ToolError as error:
            return [self._failed(call, turn, error.message, error.kind, started, error.details)]
        except SandboxError as error:
            log.warning("sandbox failed: %s", error, extra={"run_id": self._run_id})
            text = f"The sandbox failed, not your command: {error.message}. Try once more."
            return [self._failed(call, turn, text, error.code, started, {})]
        data = dict(output.data)
        if output.images:
            data["pictures"] = await self.pictures.keep(call.call.id, output.images)
        if output.facts:
            data["facts"] = output.facts
        result = self._result(call, turn, ok=output.ok, output=output.text, data=data, duration_ms=_ms_since(started))
        return [*output.events, result]

    @staticmethod
    async def _traced(call: ParsedCall, context: ToolContext) -> ToolOutput:
        about: dict[str, Value] = {
            genai.OPERATION: "execute_tool",
            genai.TOOL: call.tool.name,
            genai.TOOL_CALL: call.call.id,
            genai.TOOL_TYPE: "function",
            genai.TURN: context.turn,
            genai.EFFECT: call.effect.value,
        }
        with span(f"execute_tool {call.tool.name}", about) as traced:
            output = await call.tool.run(call.args, context)
            if not output.ok:
                traced.fail("not_ok")
            return output

    def _intent(self, call: ParsedCall, *, turn: int, note: str = "") -> ToolCalled:
        return ToolCalled(
            thread_id=self._thread_id,
            run_id=self._run_id,
            turn=turn,
            call_id=call.call.id,
            tool=call.tool.name,
            arguments=call.arguments,
            effect=call.effect,
            note=note or call.note,
        )

    def _result(
        self,
        call: ParsedCall,
        turn: int,
        *,
        ok: bool,
        output: str,
        data: dict[str, Any] | None = None,
        error: str = "",
        duration_ms: int = 0,
    ) -> ToolResulted:
        return ToolResulted(
            thread_id=self._thread_id,
            run_id=self._run_id,
            turn=turn,
            call_id=call.call.id,
            tool=call.tool.name,
            ok=ok,
            output=sound(output),
            data=data or {},
            error=error,
            duration_ms=duration_ms,
        )

    def _failed(
        self, call: ParsedCall, turn: int, text: str, kind: str, started: float, details: dict[str, Any]
    ) -> ToolResulted:
        return self._result(
            call, turn, ok=False, output=text, error=kind, data=dict(details), duration_ms=_ms_since(started)
        )

    def _refused(self, call: ToolCall, error: ToolError, *, turn: int) -> ToolResulted:
        return ToolResulted(
            thread_id=self._thread_id,
            run_id=self._run_id,
            turn=turn,
            call_id=call.id,
            tool=call.name,
            ok=False,
            output=error.message,
            error=error.kind,
        )


class _Shown:
    """Turns output bytes into live deltas; decodes across chunk borders and stops at `MAX_SHOWN`."""

    def __init__(self, journal: Journal, turn: int, call_id: CallId) -> None:
        self._journal, self._turn, self._call_id = journal, turn, call_id
        self._decoders = {kind: codecs.getincrementaldecoder("utf-8")("replace") for kind in ("stdout", "stderr")}
        self._offsets = {"stdout": 0, "stderr": 0}

    def add(self, stream: str, chunk: bytes) -> None:
        text = self._decoders[stream].decode(chunk)
        offset = self._offsets[stream]
        if not text or offset > MAX_SHOWN:
            return
        self._offsets[stream] = offset + len(text)
        self._journal.preview(self._turn, self._call_id, DeltaKind(stream), offset=offset, text=text)


def _ms_since(started: float) -> int:
    return int((time.monotonic() - started) * 1000)
