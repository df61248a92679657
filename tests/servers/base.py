"""A local model server: takes requests, keeps them, and plays answers with their faults."""

import argparse
import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.servers.answers import Answer, from_script

Script = Iterable[Answer] | Callable[[dict[str, Any]], Answer]


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came."""

    headers: dict[str, str]
    """Names in lower case."""
    body: dict[str, Any]


class RefusedRequest(Exception):
    """What the real API would answer with 400."""


class ModelServer(ABC):
    """Plays `answers` in order, or what a callable makes of each request body.

    When they are used up, the script block in the task says what comes (see `answers.from_script`), else "Done."
    Usage: `async with OpenAiServer([Answer(text="hi")]) as server: ... server.base_url ...`
    """

    path: str
    prefix: str
    """What a client's base URL ends with."""

    def __init__(self, answers: Script = (), *, api_key: str = "", host: str = "127.0.0.1", port: int = 0) -> None:
        self._make = answers if callable(answers) else None
        self._answers: Iterator[Answer] = iter(()) if callable(answers) else iter(answers)
        self._api_key = api_key
        self._address = (host, port)
        self._runner: web.AppRunner | None = None
        self.requests: list[Received] = []
        """Every request, refused ones included, oldest first."""
        self.connections = 0
        """Requests now being answered."""
        self.left = asyncio.Event()
        """Set when a client went away in the middle of an answer."""
        self.stalled = asyncio.Event()
        """Set when an answer has come to its planned standstill."""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=50_000_000)
        app.router.add_post(self.path, self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, *self._address).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def base_url(self) -> str:
        assert self._runner is not None
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}{self.prefix}"

    @abstractmethod
    def check(self, body: dict[str, Any]) -> None:
        """Raises: RefusedRequest for what the real API refuses."""

    @abstractmethod
    def key_of(self, headers: dict[str, str]) -> str: ...

    @abstractmethod
    def texts(self, body: dict[str, Any]) -> list[tuple[str, str]]:
        """(role, text) of the messages."""

    @abstractmethod
    def events(self, answer: Answer, body: dict[str, Any]) -> Iterator[bytes]:
        """The frames of a whole answer."""

    @abstractmethod
    def error_frame(self, answer: Answer) -> bytes: ...

    @abstractmethod
    def error_body(self, status: int, words: str, kind: str) -> dict[str, Any]: ...

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        received = Received({name.lower(): value for name, value in request.headers.items()}, body)
        self.requests.append(received)
        if self._api_key and self.key_of(received.headers) != self._api_key:
            given = self.key_of(received.headers)
            words = f"Incorrect API key provided: {given}"  # real servers echo it too
            return web.json_response(self.error_body(401, words, "authentication_error"), status=401)
        try:
            self.check(body)
        except RefusedRequest as error:
            return web.json_response(self.error_body(400, str(error), "invalid_request_error"), status=400)
        answer = self._next(body)
        if answer.status != 200:
            if answer.raw_body:
                return web.Response(text=answer.raw_body, status=answer.status, headers=answer.headers)
            payload = self.error_body(answer.status, answer.error, answer.error_type)
            return web.json_response(payload, status=answer.status, headers=answer.headers)
        self.connections += 1
        try:
            return await self._stream(request, answer, body)
        except (asyncio.CancelledError, ConnectionResetError):
            self.left.set()
            raise
        finally:
            self.connections -= 1

    def _next(self, body: dict[str, Any]) -> Answer:
        if self._make is not None:
            return self._make(body)
        return next(self._answers, None) or from_script(self.texts(body)) or Answer(text="Done.")

    async def _stream(self, request: web.Request, answer: Answer, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **answer.headers})
        await response.prepare(request)
        async for frame in self._frames(request, answer, body):
            if answer.write_bytes:
                for start in range(0, len(frame), answer.write_bytes):
                    await response.write(frame[start : start + answer.write_bytes])
                    await asyncio.sleep(0)
            else:
                await response.write(frame)
        await response.write_eof()
        return response

    async def _frames(self, request: web.Request, answer: Answer, body: dict[str, Any]) -> AsyncIterator[bytes]:
        """The answer's frames up to its fault."""
        for place, frame in enumerate(self.events(answer, body)):
            if place == answer.stall_after:
                self.stalled.set()
                await asyncio.Event().wait()
            if place == answer.drop_after:
                assert request.transport is not None
                request.transport.abort()
                return
            if place == answer.error_after:
                yield self.error_frame(answer)
                return
            if place == answer.garbage_after:
                yield f"data: {answer.garbage}\n\n".encode()
                return
            if place == answer.end_after:
                return
            if answer.delay_s:
                await asyncio.sleep(answer.delay_s)
            yield frame


def run(kind: type[ModelServer], description: str | None) -> None:
    """Runs a server as a program until it is ended; prints its base URL first."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--api-key", default="", help="refuse every other; empty: none is asked for")
    given = parser.parse_args()

    async def serve() -> None:
        async with kind(api_key=given.api_key, host=given.host, port=given.port) as server:
            print(server.base_url, flush=True)  # noqa: T201  # the caller reads it from this line
            await asyncio.Event().wait()

    asyncio.run(serve())
