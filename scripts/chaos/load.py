"""Work for the line while it breaks: threads with runs, each watched to its end by a client that resumes."""

import asyncio
import random
import secrets
from dataclasses import dataclass, field

from dialtone.client import AsyncClient
from dialtone.errors import ClientError, Conflict
from tests.line import bash, script
from workflow.core.events import ApprovalRequested, EventBase

PATIENCE_S = 120.0


@dataclass(slots=True)
class Watched:
    """One accepted run and what its watcher saw."""

    thread_id: str
    run_id: str
    seen: list[str] = field(default_factory=list)
    """Ids of the facts in the order they came."""
    trouble: str = ""


class Load:
    """Keeps `at_once` runs going over all gateways."""

    def __init__(self, urls: list[str], *, at_once: int, seed: int) -> None:
        self._clients = [AsyncClient(url, patience_s=PATIENCE_S, retries=40) for url in urls]
        self._at_once = at_once
        self._random = random.Random(seed)
        self._stopping = asyncio.Event()
        self.runs: list[Watched] = []

    async def serve(self) -> None:
        """Starts runs until `stop()`, then waits for those under way."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._at_once):
                group.create_task(self._work())

    def stop(self) -> None:
        """Lets no new run begin."""
        self._stopping.set()

    async def close(self) -> None:
        for client in self._clients:
            await client.close()

    async def _work(self) -> None:
        while not self._stopping.is_set():
            client = self._random.choice(self._clients)
            try:
                thread_id = await client.initiate(title="chaos")
                accepted = await client.execute(thread_id, self._task(), idempotency_key=secrets.token_hex(8))
            except ClientError:
                await asyncio.sleep(0.5)  # nothing was accepted; a real client would try again as well
                continue
            watched = Watched(thread_id, accepted.run_id)
            self.runs.append(watched)
            try:
                await self._watch(self._random.choice(self._clients), watched)
            except ClientError as error:
                watched.trouble = f"{type(error).__name__}: {error}"

    def _task(self) -> str:
        words = {"text": "", "tokens": self._random.randint(5, 40), "delay_ms": 10}
        effect = self._random.choice(["ring", "shout"])
        turns = [
            {**words, "tool_calls": [{"name": effect, "arguments": {}}]},
            bash(f"sleep {self._random.uniform(0, 0.8):.2f}; echo done >> log.txt"),
            {**words, "tool_calls": [{"name": "ring", "arguments": {}}, {"name": "ls", "arguments": {}}]},
            {"text": "Finished.", "delay_ms": 10},
        ]
        return script(*turns)

    async def _watch(self, client: AsyncClient, watched: Watched) -> None:
        """Follows a run to its end and answers what it asks."""
        async for item in client.stream(watched.thread_id, run_id=watched.run_id, deltas=self._random.random() < 0.5):
            if isinstance(item, EventBase):
                watched.seen.append(item.id)
            if isinstance(item, ApprovalRequested):
                await self._answer(client, watched.thread_id, item.question_id)

    async def _answer(self, client: AsyncClient, thread_id: str, question_id: str) -> None:
        for _ in range(60):
            try:
                await client.answer(thread_id, question_id, "done")
            except Conflict:
                return
            except ClientError:
                await asyncio.sleep(0.5)
            else:
                return
