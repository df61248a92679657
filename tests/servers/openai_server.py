"""A local server that speaks OpenAI's chat completions, streaming.

As a program: `python -m tests.servers.openai_server --port 9001` prints its base URL and plays the script block of
each task (see `answers.from_script`).
"""

import json
import re
import secrets
import time
from collections.abc import Iterator
from typing import Any

from tests.servers.answers import Answer, plain_text
from tests.servers.base import ModelServer, RefusedRequest, Script, run
from tests.servers.caching import PrefixCache, every_block_cached

_MAX_ID_CHARS = 40


class OpenAiServer(ModelServer):
    """`/v1/chat/completions` with the checks of the real one that a transcript can fail."""

    path = "/v1/chat/completions"
    prefix = "/v1"

    def __init__(self, answers: Script = (), *, api_key: str = "", host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(answers, api_key=api_key, host=host, port=port)
        self._cache = PrefixCache()

    def key_of(self, headers: dict[str, str]) -> str:
        return headers.get("authorization", "").removeprefix("Bearer ")

    def texts(self, body: dict[str, Any]) -> list[tuple[str, str]]:
        return [(message["role"], plain_text(message.get("content"))) for message in body["messages"]]

    def check(self, body: dict[str, Any]) -> None:
        open_ids: list[str] = []
        for message in body["messages"]:
            role = message["role"]
            if role == "tool":
                if message["tool_call_id"] not in open_ids:
                    raise RefusedRequest("messages with role 'tool' must be a response to a preceding 'tool_calls'")
                open_ids.remove(message["tool_call_id"])
                continue
            if open_ids:
                raise RefusedRequest(f"tool_call_ids did not have response messages: {', '.join(open_ids)}")
            if role == "assistant":
                open_ids = [call["id"] for call in message.get("tool_calls") or ()]
                for call in message.get("tool_calls") or ():
                    check_name(call["function"]["name"])
                if any(len(call_id) > _MAX_ID_CHARS for call_id in open_ids):
                    raise RefusedRequest("string too long: tool_calls[0].id")
                if not open_ids and not message.get("content"):
                    raise RefusedRequest("content must not be empty for role 'assistant'")
            elif not message.get("content"):
                raise RefusedRequest(f"content must not be empty for role {role!r}")
        if open_ids:
            raise RefusedRequest(f"tool_call_ids did not have response messages: {', '.join(open_ids)}")

    def error_body(self, status: int, words: str, kind: str) -> dict[str, Any]:
        code = "context_length_exceeded" if "maximum context length" in words else None
        return {"error": {"message": words, "type": kind or "server_error", "param": None, "code": code}}

    def error_frame(self, answer: Answer) -> bytes:
        return _frame(self.error_body(500, answer.error, answer.error_type))

    def events(self, answer: Answer, body: dict[str, Any]) -> Iterator[bytes]:
        head = {
            "id": f"chatcmpl-{secrets.token_hex(8)}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": body["model"],
        }

        def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
            return _frame({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

        yield chunk({"role": "assistant", "content": ""})
        for piece in answer.reasoning_pieces():
            yield chunk({"reasoning_content": piece})
        for piece in answer.text_pieces():
            yield chunk({"content": piece})
        for index, call in enumerate(answer.calls):
            call_id = call.id or f"call_{secrets.token_hex(12)}"
            function = {"name": call.name, "arguments": ""}
            yield chunk({"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]})
            for piece in answer.argument_pieces(call):
                yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        yield chunk({}, answer.finish or ("tool_calls" if answer.calls else "stop"))
        if not answer.no_usage and (body.get("stream_options") or {}).get("include_usage"):
            yield _frame({**head, "choices": [], "usage": answer.usage or self._usage(answer, body)})
        yield b"data: [DONE]\n\n"

    def _usage(self, answer: Answer, body: dict[str, Any]) -> dict[str, Any]:
        counts = self._cache.count(every_block_cached([*body.get("tools", ()), *body["messages"]]))
        prompt = counts.fresh + counts.read + counts.written
        written = len(answer.text) + len(answer.reasoning) + sum(len(call.arguments) for call in answer.calls)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": written // 4 + 1,
            "total_tokens": prompt + written // 4 + 1,
            "prompt_tokens_details": {"cached_tokens": counts.read},
            "completion_tokens_details": {"reasoning_tokens": len(answer.reasoning) // 4},
        }


def check_name(name: str) -> None:
    """Raises: RefusedRequest for a name of a called tool that OpenAI does not take back."""
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name):
        raise RefusedRequest("Invalid 'tool_calls[0].function.name': string does not match pattern")


def _frame(payload: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(payload, ensure_ascii=False).encode() + b"\n\n"


if __name__ == "__main__":
    run(OpenAiServer, __doc__)
