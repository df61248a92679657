"""Watching a run: the view, Ctrl-C, and questions put to the person at the keyboard."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing

from dialtone.client import AsyncClient
from dialtone.errors import ClientError
from dialtone.items import StreamItem
from dialtone.prompt import Prompt
from dialtone.screen import Screen, complain
from workflow.core.events import ApprovalRequested, ApprovalResolved, EventBase

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_CANCELLED, EXIT_UNREACHABLE, EXIT_LEFT = 0, 1, 2, 3, 4, 130

_EXIT_BY_TYPE = {"run.finished": EXIT_OK, "run.failed": EXIT_FAILED, "run.cancelled": EXIT_CANCELLED}


class Watch:
    """One person watching one thread or run to its end."""

    def __init__(self, client: AsyncClient, thread_id: str, screen: Screen) -> None:
        self._client = client
        self._thread_id = thread_id
        self._screen = screen
        self._prompt: Prompt | None = None

    async def follow(
        self, *, run_id: str | None = None, last_id: str = "", start: str = "start", deltas: bool = True
    ) -> int:
        """Shows everything until the run (or the thread) ends; the exit status of the run that ended last."""
        status = EXIT_OK
        stream = self._client.stream(self._thread_id, run_id=run_id, last_id=last_id, start=start, deltas=deltas)
        try:
            async with aclosing(stream):
                async for item in stream:
                    self._screen.show(item)
                    await self._react(item)
                    if isinstance(item, EventBase):
                        status = _EXIT_BY_TYPE.get(getattr(item, "type", ""), status)
        finally:
            await self._drop_prompt()
            self._screen.close()
        return status

    async def _react(self, item: StreamItem) -> None:
        match item:
            case ApprovalRequested():
                await self._drop_prompt()
                if self._screen.is_terminal and sys.stdin.isatty():
                    self._prompt = Prompt(self._client, self._screen, item)
                else:
                    self._screen.line(f"  answer with: {answer_command(item)}")
            case ApprovalResolved():
                if self._prompt is not None and self._prompt.question_id == item.question_id:
                    await self._drop_prompt()

    async def _drop_prompt(self) -> None:
        prompt, self._prompt = self._prompt, None
        if prompt is not None:
            await prompt.close()


def answer_command(question: ApprovalRequested) -> str:
    """The command that answers `question`."""
    answer = f"<{'|'.join(question.choices)}>" if question.choices else "<text>"
    return f"dialtone answer {question.thread_id} {question.question_id} {answer}"


class CancelOnInterrupt:
    """Ctrl-C once cancels the run and goes on watching; a second one leaves.

    Before the run is known, the first Ctrl-C is kept until `started`.
    """

    def __init__(self, client: AsyncClient, screen: Screen, leave: Callable[[], object]) -> None:
        self._client = client
        self._screen = screen
        self._leave = leave
        self._run_id = ""
        self._asked = False
        self._cancelling: asyncio.Task[None] | None = None

    def started(self, run_id: str) -> None:
        """The run exists now."""
        self._run_id = run_id
        if self._asked:
            self._cancel()

    def interrupt(self) -> None:
        """One Ctrl-C."""
        if self._asked:
            self._leave()
            return
        self._asked = True
        self._screen.line(self._screen.paint.yellow("cancelling … (Ctrl-C again to leave)"))
        if self._run_id:
            self._cancel()

    async def close(self) -> None:
        """Waits for the cancel request that is under way."""
        if self._cancelling is not None:
            await self._cancelling

    def _cancel(self) -> None:
        self._cancelling = asyncio.create_task(self._send())

    async def _send(self) -> None:
        try:
            await self._client.cancel(self._run_id, reason="cancelled at the terminal")
        except ClientError as error:
            complain(f"the run could not be cancelled: {error}")


@contextlib.contextmanager
def on_interrupt(react: Callable[[], object]) -> Iterator[None]:
    """Calls `react` in the event loop at each Ctrl-C, instead of raising KeyboardInterrupt somewhere."""
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signal.SIGINT, react)
    except NotImplementedError:  # Windows: Ctrl-C stays a KeyboardInterrupt, which leaves
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
