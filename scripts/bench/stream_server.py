"""A model server for benchmarks: every request gets the same paced stream of OpenAI chunks.

Its frames are encoded once, so that it is not what a benchmark measures. Runs as a program of its own and prints
its port.
"""

import argparse
import asyncio
import json
from contextlib import suppress

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _frame(payload: dict[str, object] | None) -> bytes:
    text = b"data: " + (b"[DONE]" if payload is None else json.dumps(payload).encode()) + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(text), text)


def _chunk(**fields: object) -> dict[str, object]:
    head = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1, "model": "bench"}
    return {**head, "choices": [], **fields}


def _delta(content: str, finish: str | None = None) -> dict[str, object]:
    return _chunk(choices=[{"index": 0, "delta": {"content": content}, "finish_reason": finish}])


class StreamServer:
    """Sends `chunks` words, one every `pace_s`."""

    def __init__(self, chunks: int, pace_s: float) -> None:
        self._words = [_frame(_delta(f"word{place} ")) for place in range(chunks)]
        usage = {"prompt_tokens": 100, "completion_tokens": chunks, "total_tokens": 100 + chunks}
        self._tail = _frame(_delta("", "stop")) + _frame(_chunk(usage=usage)) + _frame(None) + b"0\r\n\r\n"
        self._pace_s = pace_s

    async def serve(self) -> None:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        async with server:
            await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length")
                )
                await reader.readexactly(length)
                await self._stream(writer)
        writer.close()

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(_HEAD)
        loop = asyncio.get_running_loop()
        due = loop.time()
        for word in self._words:
            due += self._pace_s
            await asyncio.sleep(max(0.0, due - loop.time()))
            writer.write(word)
        writer.write(self._tail)
        await writer.drain()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chunks", type=int)
    parser.add_argument("pace_s", type=float)
    given = parser.parse_args()
    asyncio.run(StreamServer(given.chunks, given.pace_s).serve())
