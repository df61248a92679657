"""A model server for benchmarks: every request gets the same paced stream of OpenAI chunks.

Its frames are encoded once, so that it is not what a benchmark measures. Runs as a program of its own and prints
its port. `GET` of any path gives what it has seen since the last time: its own CPU seconds, and for each run named
in its task (`bench-<number>`) the pauses between the end of one answer and the next request.
"""

import argparse
import asyncio
import json
import re
import time
from contextlib import suppress

_RUN = re.compile(rb"bench-\d+-")
_ANSWERED = re.compile(rb'"role": ?"assistant"')

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _frame(payload: dict[str, object] | None) -> bytes:
    text = b"data: " + (b"[DONE]" if payload is None else json.dumps(payload).encode()) + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(text), text)


def _chunk(**fields: object) -> dict[str, object]:
    head = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1, "model": "bench"}
    return {**head, "choices": [], **fields}


def _delta(content: str, finish: str | None = None) -> dict[str, object]:
    return _chunk(choices=[{"index": 0, "delta": {"content": content}, "finish_reason": finish}])


def _command(number: int) -> dict[str, object]:
    """A call of the tool `bash`, another one in each turn: an agent may take a repetition for a circle."""
    function = {"name": "bash", "arguments": json.dumps({"command": f"true {number}"})}
    call = {"index": 0, "id": f"call_{number}", "type": "function", "function": function}
    return _chunk(choices=[{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}])


class StreamServer:
    """Sends `chunks` words, one every `pace_s`; the first `calls - 1` answers of a conversation ask for a command."""

    def __init__(self, chunks: int, pace_s: float, calls: int = 1) -> None:
        self._words = [_frame(_delta(f"word{place} ")) for place in range(chunks)]
        usage = {"prompt_tokens": 100, "completion_tokens": chunks, "total_tokens": 100 + chunks}
        end = _frame(_chunk(usage=usage)) + _frame(None) + b"0\r\n\r\n"
        self._tails = [_frame(_command(number)) + end for number in range(calls - 1)] + [
            _frame(_delta("", "stop")) + end
        ]
        self._pace_s = pace_s
        self._ended: dict[bytes, float] = {}
        self._pauses_ms: list[float] = []

    async def serve(self) -> None:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        async with server:
            await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET"):
                    writer.write(self._seen())
                    continue
                length = next(
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length")
                )
                body = await reader.readexactly(length)
                named = _RUN.search(body)
                run = named[0] if named else b""
                if run in self._ended:
                    self._pauses_ms.append((time.monotonic() - self._ended.pop(run)) * 1000)
                await self._stream(writer, self._tails[min(len(_ANSWERED.findall(body)), len(self._tails) - 1)])
                if run:
                    self._ended[run] = time.monotonic()
        writer.close()

    def _seen(self) -> bytes:
        text = json.dumps({"cpu_s": time.process_time(), "pauses_ms": self._pauses_ms}).encode()
        self._pauses_ms, self._ended = [], {}
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text) + text

    async def _stream(self, writer: asyncio.StreamWriter, tail: bytes) -> None:
        writer.write(_HEAD)
        loop = asyncio.get_running_loop()
        due = loop.time()
        for word in self._words:
            due += self._pace_s
            await asyncio.sleep(max(0.0, due - loop.time()))
            writer.write(word)
        writer.write(tail)
        await writer.drain()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chunks", type=int)
    parser.add_argument("pace_s", type=float)
    parser.add_argument("calls", type=int, nargs="?", default=1)
    given = parser.parse_args()
    asyncio.run(StreamServer(given.chunks, given.pace_s, given.calls).serve())
