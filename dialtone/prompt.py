"""A question put to the person at the terminal, beside a view that goes on."""

import asyncio
import sys

from dialtone.client import AsyncClient
from dialtone.errors import ClientError
from dialtone.screen import Screen, complain
from workflow.core.events import ApprovalRequested


class Prompt:
    """Asks until one of the choices was typed and sent; `close` when somebody else answered."""

    def __init__(self, client: AsyncClient, screen: Screen, question: ApprovalRequested) -> None:
        self.question_id = question.question_id
        self._client = client
        self._screen = screen
        self._question = question
        self._task = asyncio.create_task(self._ask())

    async def close(self) -> None:
        """Stops asking."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _ask(self) -> None:
        while True:
            self._screen.line(self._screen.paint.bold("  your answer, then Enter:"))
            line = await _read_line()
            if line is None:
                return
            answer = choose(line, self._question.choices)
            if answer is None:
                self._screen.line(f"  one of: {' | '.join(self._question.choices)}")
                continue
            try:
                await self._client.answer(self._question.thread_id, self.question_id, answer)
            except ClientError as error:
                complain(f"the answer was not taken: {error}")
            return


def choose(line: str, choices: tuple[str, ...]) -> str | None:
    """The choice that `line` means: the word, its number, or a beginning that fits one only. None if it means none.

    Without choices any text is an answer, except an empty one.
    """
    text = line.strip()
    if not choices:
        return text or None
    if text.isdecimal() and 1 <= int(text) <= len(choices):
        return choices[int(text) - 1]
    exact = [choice for choice in choices if choice.lower() == text.lower()]
    fitting = exact or [choice for choice in choices if text and choice.lower().startswith(text.lower())]
    return fitting[0] if len(fitting) == 1 else None


async def _read_line() -> str | None:
    """The next line from the terminal, None at its end. Cancelling leaves what was not typed yet to the next reader."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    stdin = sys.stdin.fileno()
    loop.add_reader(stdin, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(stdin)
    # A terminal hands out whole lines, so this does not block.
    return sys.stdin.readline() or None
