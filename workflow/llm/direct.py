"""The direct driver: aiohttp and a wire format, nothing between. An order of magnitude cheaper than LiteLLM.

The connection is closed at once when the stream is abandoned. Silence and length of an answer are bounded by one
timer of ours: aiohttp's own would be set anew for every chunk.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import aiohttp
from pydantic_core import from_json, to_json

from workflow.core.errors import ModelError, ModelOverloaded
from workflow.core.redact import Redactor
from workflow.llm.base import ModelEvent, ModelRequest
from workflow.llm.provider_errors import from_response
from workflow.llm.sse import SseData
from workflow.llm.wire import Reader, Target, Wire

CONNECT_TIMEOUT_S = 10.0
_MAX_ERROR_BYTES = 65_536
_DRAIN_S = 1.0


class DirectLLM:
    """Streams from one target over one wire format. One event loop for life."""

    def __init__(self, wire: Wire, target: Target) -> None:
        self._wire = wire
        self._target = target
        self._redact = Redactor([target.api_key] if target.api_key else [])
        self._session: aiohttp.ClientSession | None = None

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """See `LLM.stream`."""
        reader = self._wire.reader(request, self._redact)
        sse = SseData()
        response: aiohttp.ClientResponse | None = None
        patience: _Patience | None = None
        try:
            until = asyncio.get_running_loop().time() + request.timeout_s
            async with asyncio.timeout_at(until):
                response = await self._post(request)
            content = response.content
            patience = _Patience(response, idle_s=request.idle_timeout_s, until=until)
            while not reader.done and (chunk := await content.readany()):
                patience.hear()
                for event in _read(reader, sse.feed(chunk)):
                    yield event
            if not reader.done:
                for event in _read(reader, sse.end()):
                    yield event
            if not (reader.pieces.finish_reason or (reader.done and reader.pieces.started)):
                raise ModelOverloaded("the stream of the model provider was cut before its end")
            reader.end()
            yield reader.pieces.completion()
            await _drain(response)
        except ModelError as error:
            raise _with_usage(error, reader) from error.__cause__
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _with_usage(self._broken(error, request), reader) from error
        finally:
            if patience is not None:
                patience.end()
            if response is not None:
                response.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(self, request: ModelRequest) -> aiohttp.ClientResponse:
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S, sock_read=request.idle_timeout_s)
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",  # a compressed stream is held back by whoever compresses it
            **self._wire.headers(self._target),
        }
        response = await self._opened_session().post(
            self._wire.url(self._target),
            data=to_json(self._wire.body(request, self._target)),
            headers=headers,
            timeout=timeout,
            proxy=self._target.proxy or None,
            allow_redirects=False,  # a redirect would carry the key elsewhere
        )
        if response.status == 200 and response.content_type != "application/json":
            return response
        try:
            body = await response.content.read(_MAX_ERROR_BYTES)
        finally:
            response.close()
        raise from_response(response.status, body, response.headers, self._redact)

    def _opened_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    def _broken(self, error: Exception, request: ModelRequest) -> ModelError:
        """What a failure of the connection means. It always may go better next time."""
        if isinstance(error, aiohttp.ServerTimeoutError):
            return ModelOverloaded(f"the model provider was silent for {request.idle_timeout_s:g} s")
        if isinstance(error, TimeoutError):
            return ModelOverloaded(f"the model provider took longer than {request.timeout_s:g} s")
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientConnectorDNSError):
            return ModelOverloaded(f"cannot connect to {self._redact(self._target.base_url)}: {error.strerror}")
        return ModelOverloaded(f"the connection to the model provider broke: {type(error).__name__}")


class _Patience:
    """Breaks an answer off when nothing of it came for `idle_s`, or when it is not over at `until` (loop time)."""

    def __init__(self, response: aiohttp.ClientResponse, *, idle_s: float, until: float) -> None:
        if response.connection is not None and response.connection.protocol is not None:
            response.connection.protocol.read_timeout = None
        self._content = response.content
        self._loop = asyncio.get_running_loop()
        self._idle_s, self._until = idle_s, until
        self.hear()
        self._timer: asyncio.Handle = self._loop.call_soon(self._look)

    def hear(self) -> None:
        """To be called for every piece."""
        self._heard = self._loop.time()

    def end(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        due = min(self._heard + self._idle_s, self._until)
        if self._loop.time() < due:
            self._timer = self._loop.call_at(due, self._look)
        else:
            self._content.set_exception(TimeoutError() if due == self._until else aiohttp.SocketTimeoutError())


def _parsed(payload: bytes) -> Any:
    """The JSON of one event. Raises: ValueError, RecursionError."""
    try:
        return from_json(payload)  # a quarter of the time
    except ValueError:
        return json.loads(payload)  # takes half of a surrogate pair, which models do send


def _read(reader: Reader, payloads: list[bytes]) -> Iterator[ModelEvent]:
    """What the events add, until the answer is complete."""
    for payload in payloads:
        if reader.done:
            return
        if payload == b"[DONE]":
            reader.done = True
            return
        try:
            yield from reader.feed(_parsed(payload))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            # Whatever a server may send in place of the documented shape.
            raise ModelOverloaded("the model provider sent an event that cannot be read") from error


def _with_usage(error: ModelError, reader: Reader) -> ModelError:
    if reader.pieces.started:
        error.details["usage"] = reader.pieces.spent()
    return error


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Reads the end of the body, so that the connection can serve the next call."""
    try:
        async with asyncio.timeout(_DRAIN_S):
            async for _ in response.content.iter_any():
                pass
    except (aiohttp.ClientError, TimeoutError, OSError):
        return  # the answer is complete; the connection is closed instead
    response.release()
