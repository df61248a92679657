"""The direct driver: aiohttp and a wire format, nothing between. An order of magnitude cheaper than LiteLLM.

The connection is closed at once when the stream is abandoned; silence and length are bounded by the socket's own
timers, so that a chunk costs no task and no timer of ours.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator

import aiohttp
from pydantic_core import to_json

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
        try:
            response = await self._post(request)
            async for chunk in response.content.iter_any():
                for event in _read(reader, sse.feed(chunk)):
                    yield event
                if reader.done:
                    break
            else:
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
            if response is not None:
                response.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(self, request: ModelRequest) -> aiohttp.ClientResponse:
        timeout = aiohttp.ClientTimeout(
            total=request.timeout_s, sock_connect=CONNECT_TIMEOUT_S, sock_read=request.idle_timeout_s
        )
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


def _read(reader: Reader, payloads: list[bytes]) -> Iterator[ModelEvent]:
    """What the events add, until the answer is complete."""
    for payload in payloads:
        if reader.done:
            return
        if payload == b"[DONE]":
            reader.done = True
            return
        try:
            yield from reader.feed(json.loads(payload))
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
