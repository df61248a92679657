"""What a person must be asked before a call runs, and what the answers mean."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from workflow.core.config import AgentSettings
from workflow.core.errors import ToolError
from workflow.core.events import ApprovalRequested, Effect
from workflow.core.ids import CallId, RunId, ThreadId
from workflow.core.state import ThreadState
from workflow.tools.registry import ParsedCall

ASK_TOOL = "ask_person"
APPROVE, DENY = "approve", "deny"
REVIEW_CHOICES = ("retry", "done", "stop")


@dataclass(frozen=True, slots=True)
class Said:
    """The result that an answer gives in place of the call."""

    text: str
    ok: bool = True
    error: str = ""


class Questions:
    """The questions of one run."""

    def __init__(
        self,
        *,
        thread_id: ThreadId,
        run_id: RunId,
        state: ThreadState,
        settings: AgentSettings,
        interrupted: frozenset[CallId],
        review: tuple[float, str],
        now_ms: Callable[[], int],
    ) -> None:
        """interrupted, review: as for `Calls`."""
        self._thread_id, self._run_id, self._state = thread_id, run_id, state
        self._settings = settings
        self._interrupted = interrupted
        self._review_s, self._review_default = review
        self._now_ms = now_ms

    def policy(self, call: ParsedCall) -> str:
        """What the operator says of this tool: `always`, `never`, `ask` or `risk`."""
        return self._settings.approvals.get(call.tool.name, "always")

    def unanswered(self, call: ParsedCall, *, turn: int) -> ApprovalRequested | None:
        """The question that stands before this call, unless it has been answered."""
        question = self._review(call, turn) or self._approval(call, turn) or self._asked(call, turn)
        if question is None or question.question_id in self._state.answers:
            return None
        return question

    def answered(self, call: ParsedCall, *, turn: int) -> Said | None:
        """What the answers to a call's questions say in place of running it; None when it is to run.

        Raises: ToolError `review_stop` when a person ended the run.
        """
        review = self._review(call, turn)
        if review is not None:
            answer = self._state.answers[review.question_id].answer
            if answer == "stop":
                raise ToolError("a person ended the run after a review", kind="review_stop")
            if answer == "done":
                return Said("A person says that this was done. Check it.")
            if answer != "retry":
                text = f"Nobody can tell whether this took effect, and it was not run again. A person says: {answer}"
                return Said(text, ok=False, error="not_repeated")
        approval = self._approval(call, turn)
        if approval is not None:
            answered = self._state.answers[approval.question_id]
            if answered.answer != APPROVE:
                words = "" if answered.answer == DENY else answered.answer
                said = " ".join(part for part in (words, answered.note) if part)
                text = f"Not allowed by {answered.by or 'a person'}. {said} Do not work around it."
                return Said(text, ok=False, error="denied")
        asked = self._asked(call, turn)
        return Said(self._state.answers[asked.question_id].answer) if asked is not None else None

    def _review(self, call: ParsedCall, turn: int) -> ApprovalRequested | None:
        if call.call.id not in self._interrupted or call.effect is not Effect.UNSAFE:
            return None
        prompt = (
            f"A worker was lost while it ran {call.tool.name}; nobody can tell whether it took effect. "
            "Run it again (retry), take it as done (done), or end the run (stop)?"
        )
        return self._ask(call, turn, "review", prompt, REVIEW_CHOICES, self._review_s, self._review_default)

    def _approval(self, call: ParsedCall, turn: int) -> ApprovalRequested | None:
        policy = self.policy(call)
        if policy == "always" or (policy == "risk" and call.effect is not Effect.UNSAFE):
            return None
        prompt = f"May the agent call {call.tool.name} with these arguments?"
        return self._ask(call, turn, "approval", prompt, (APPROVE, DENY), self._settings.approval_timeout_s, DENY)

    def _asked(self, call: ParsedCall, turn: int) -> ApprovalRequested | None:
        if call.tool.name != ASK_TOOL:
            return None
        choices = tuple(call.arguments.get("choices") or ())
        prompt = str(call.arguments.get("question", ""))
        nobody = "(nobody answered; decide yourself and say so)"
        return self._ask(call, turn, "question", prompt, choices, self._settings.approval_timeout_s, nobody)

    def _ask(
        self,
        call: ParsedCall,
        turn: int,
        kind: str,
        prompt: str,
        choices: tuple[str, ...],
        timeout_s: float,
        on_expiry: str,
    ) -> ApprovalRequested:
        policy = self.policy(call) if kind == "approval" else ""
        bound = json.dumps([call.tool.name, call.arguments, policy, kind, choices], sort_keys=True)
        binding = hashlib.sha256(bound.encode()).hexdigest()
        question_id = hashlib.sha256(f"{self._run_id}|{call.call.id}|{binding}".encode()).hexdigest()[:16]
        return ApprovalRequested.model_validate(
            {
                "thread_id": self._thread_id,
                "run_id": self._run_id,
                "turn": turn,
                "question_id": question_id,
                "kind": kind,
                "prompt": prompt,
                "choices": choices,
                "call_id": call.call.id,
                "tool": call.tool.name,
                "arguments": call.arguments,
                "binding": binding,
                "expires_at": self._now_ms() + int(timeout_s * 1000),
                "on_expiry": on_expiry,
            }
        )
