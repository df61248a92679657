"""The asynchronous client.

async with AsyncClient("http://127.0.0.1:8080") as client:
    thread_id = await client.initiate(title="Report")
    run = await client.execute(thread_id, "Write a report on ...")
    async for item in client.stream(thread_id, run_id=run.run_id):
        print(item.type)
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from dialtone import calls
from dialtone.calls import Call
from dialtone.follow import Follow
from dialtone.items import AnyEvent, StreamItem
from dialtone.results import (
    Accepted,
    ArchiveFormat,
    Budgets,
    BusyPolicy,
    DiffPage,
    EventPage,
    FileStat,
    ModelChoice,
    Preview,
    Restored,
    RunPage,
    ThreadPage,
)
from dialtone.transport import DEFAULT_URL, Attempts, http_options, stream_timeout
from workflow.core.events import Usage
from workflow.core.ids import ThreadId
from workflow.core.records import RunRecord, ThreadRecord

T = TypeVar("T")


class AsyncClient:
    """The whole API of one gateway. Safe to share between tasks of one event loop.

    key: an API key or token, sent as `Authorization: Bearer`; empty for a gateway without authentication.
    timeout_s: one answer.  retries: how often a request is sent again when that is safe.
    patience_s: how long a stream goes on trying to come back before it raises Unreachable.
    Every method raises ClientError: Unreachable, ProtocolError or one of ApiError's kinds.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        key: str = "",
        *,
        timeout_s: float = 30.0,
        retries: int = 4,
        patience_s: float = 120.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(**http_options(url, key, timeout_s=timeout_s), transport=transport)
        self._stream_timeout = stream_timeout(timeout_s)
        self._retries = retries
        self._patience_s = patience_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes every connection, open streams included."""
        await self._http.aclose()

    async def health(self) -> dict[str, Any]:
        """What the gateway says of itself. Raises: ServerError (503) when it cannot serve."""
        return await self.send(calls.health(), retries=0)

    async def initiate(
        self,
        *,
        title: str = "",
        model: str | None = None,
        models: ModelChoice | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> ThreadId:
        """Makes a thread."""
        return await self.send(calls.initiate(title=title, model=model, models=models, metadata=metadata))

    async def execute(
        self,
        thread_id: str,
        task: str,
        *,
        model: str | None = None,
        models: ModelChoice | None = None,
        files: Sequence[str] = (),
        policy: BusyPolicy | None = None,
        budgets: Budgets | None = None,
        webhook: str | None = None,
        idempotency_key: str | None = None,
    ) -> Accepted:
        """Starts a run. Repeating a lost request is safe: each call of this method has its own Idempotency-Key.

        models: other models for single parts.  files: workspace paths that belong to the task.
        policy: what happens when the thread is busy.
        Raises: Conflict when the thread is busy and the policy is `reject`.
        """
        return await self.send(
            calls.execute(
                thread_id,
                task,
                model=model,
                models=models,
                files=files,
                policy=policy,
                budgets=budgets,
                webhook=webhook,
                idempotency_key=idempotency_key,
            )
        )

    async def threads(self, *, q: str = "", limit: int = 50, cursor: str | None = None) -> ThreadPage:
        """One page of threads, newest first. `q` searches titles."""
        return await self.send(calls.threads(q=q, limit=limit, cursor=cursor))

    async def thread(self, thread_id: str) -> ThreadRecord:
        return await self.send(calls.thread(thread_id))

    async def update_thread(self, thread_id: str, **changes: Any) -> ThreadRecord:
        """Changes `title`, `model`, `models` or `metadata`."""
        return await self.send(calls.update_thread(thread_id, changes))

    async def delete_thread(self, thread_id: str) -> None:
        """Deletes a thread with its log and its workspace."""
        await self.send(calls.delete_thread(thread_id))

    async def runs(self, thread_id: str, *, limit: int = 50, cursor: str | None = None) -> RunPage:
        """One page of a thread's runs, newest first."""
        return await self.send(calls.runs(thread_id, limit=limit, cursor=cursor))

    async def run(self, run_id: str) -> RunRecord:
        return await self.send(calls.run(run_id))

    async def usage(self, run_id: str) -> Usage:
        """Tokens and money of a run so far."""
        return await self.send(calls.usage(run_id))

    async def event_page(
        self, thread_id: str, *, run_id: str | None = None, after: str = "", limit: int = 500
    ) -> EventPage:
        """One page of a thread's or a run's events, oldest first, after the id `after`."""
        return await self.send(calls.event_page(thread_id, run_id=run_id, after=after, limit=limit))

    async def events(
        self, thread_id: str, *, run_id: str | None = None, after: str = ""
    ) -> AsyncGenerator[AnyEvent, None]:
        """All events that are in the log now, page by page."""
        cursor: str | None = after
        while cursor is not None:
            page = await self.event_page(thread_id, run_id=run_id, after=cursor)
            for event in page.items:
                yield event
            cursor = page.next_after if page.items else None

    async def state(self, thread_id: str) -> dict[str, Any]:
        """The thread's log, folded: plan, todos, files, open questions, runs."""
        return await self.send(calls.state(thread_id))

    async def stream(
        self,
        thread_id: str,
        *,
        run_id: str | None = None,
        last_id: str = "",
        start: str = "start",
        deltas: bool = True,
    ) -> AsyncGenerator[StreamItem, None]:
        """Events as they happen, without hole or repeat across lost connections.

        run_id: only this run; the stream ends after its terminal event. Without it the stream follows the thread
            until the gateway says that there is nothing left to wait for.
        last_id: resume after this event.  start: `start` (the whole log), `now`, or an event id.
        Raises: NotFound and its kin at once; Unreachable after `patience_s` of silence.
        """
        if start == "now" and not last_id:
            last_id, start = (await self.thread(thread_id)).last_id, "start"
        follow = Follow(run_id=run_id, last_id=last_id, start=start, deltas=deltas, patience_s=self._patience_s)
        while not follow.done:
            try:
                async with self._http.stream(
                    "GET",
                    calls.stream_path(thread_id),
                    params=follow.params(),
                    headers=follow.headers(),
                    timeout=self._stream_timeout,
                ) as response:
                    if response.status_code == 200:
                        follow.opened()
                        async for chunk in response.aiter_bytes():
                            for item in follow.feed(chunk):
                                yield item
                            if not follow.connected:
                                break
                        follow.closed()
                    else:
                        body = await response.aread()
                        follow.answered(response.status_code, body, retry_after=response.headers.get("retry-after"))
            except httpx.TransportError as error:
                follow.lost(error)
            await asyncio.sleep(follow.pause_s())

    async def cancel(self, run_id: str, *, reason: str = "") -> RunRecord:
        """Asks a run to stop; its stream says when it did. A run that is over stays as it is."""
        return await self.send(calls.cancel(run_id, reason=reason))

    async def steer(self, run_id: str, text: str) -> None:
        """Hands `text` to the running agent at its next turn."""
        await self.send(calls.steer(run_id, text))

    async def answer(self, thread_id: str, question_id: str, answer: str, *, note: str = "") -> None:
        """Answers a question. Raises: Conflict when it was answered before or has expired."""
        await self.send(calls.answer(thread_id, question_id, answer, note=note))

    async def ticket(self, thread_id: str) -> str:
        """A one-use ticket that opens the thread's stream where no header can be sent, such as an EventSource."""
        return str((await self.send(calls.ticket(thread_id)))["ticket"])

    async def files(self, thread_id: str, path: str = ".", *, depth: int = 1, at: str = "") -> tuple[FileStat, ...]:
        """What is in the workspace below `path`, sorted by path; or was, at the event with the id `at`."""
        return await self.send(calls.files(thread_id, path=path, depth=depth, at=at))

    async def get_file(self, thread_id: str, path: str, *, at: str = "") -> bytes:
        return await self.send(calls.get_file(thread_id, path, at=at))

    async def diff(
        self, thread_id: str, old: str, *, new: str = "", limit: int = 100, cursor: str | None = None
    ) -> DiffPage:
        """One page of the files that differ between the events `old` and `new`, or between `old` and now."""
        return await self.send(calls.diff(thread_id, old=old, new=new, limit=limit, cursor=cursor))

    async def restore(self, thread_id: str, event: str) -> Restored:
        """Makes the files what they were at an event. Raises: Conflict while a run has not ended."""
        return await self.send(calls.restore(thread_id, event))

    async def fork(self, thread_id: str, event: str, *, title: str = "") -> ThreadRecord:
        """A new thread with the conversation and the files as they were at an event."""
        return await self.send(calls.fork(thread_id, event, title=title))

    async def put_file(self, thread_id: str, path: str, *, content: bytes) -> FileStat:
        """Creates or replaces a file of the workspace."""
        return await self.send(calls.put_file(thread_id, path, content))

    async def delete_file(self, thread_id: str, path: str) -> None:
        await self.send(calls.delete_file(thread_id, path))

    async def archive(self, thread_id: str, path: str = ".", *, format: ArchiveFormat = "tar") -> bytes:
        """The workspace below `path` as one archive."""
        return await self.send(calls.archive(thread_id, path=path, format=format))

    async def previews(self, thread_id: str) -> tuple[Preview, ...]:
        """Links to servers in the thread's sandbox that have neither expired nor been revoked, oldest first."""
        return await self.send(calls.previews(thread_id))

    async def revoke_preview(self, thread_id: str, preview_id: str) -> None:
        """Ends a link; connections through it are cut within two seconds. Raises: NotFound if it had ended."""
        await self.send(calls.revoke_preview(thread_id, preview_id))

    async def send(self, call: Call[T], *, retries: int | None = None) -> T:
        """The answer to any call; those of operators are made by `dialtone.desk`."""
        attempts = Attempts(call.repeatable, self._retries if retries is None else retries)
        while True:
            try:
                response = await self._http.request(
                    call.method, call.path, params=call.params, headers=call.headers, content=call.content
                )
            except httpx.TransportError as error:
                attempts.lost(error)
            else:
                if attempts.answered(response):
                    return call.read(response.content)
            await asyncio.sleep(attempts.pause_s)
