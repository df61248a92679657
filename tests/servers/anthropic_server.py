"""A local server that speaks Anthropic's Messages API, streaming.

As a program: `python -m tests.servers.anthropic_server --port 9002` prints its base URL and plays the script block
of each task (see `answers.from_script`).
"""

import hashlib
import json
import re
import secrets
from collections.abc import Iterator
from typing import Any

from tests.servers.answers import Answer, plain_text
from tests.servers.base import ModelServer, RefusedRequest, Script, run
from tests.servers.caching import PrefixCache

_MAX_BREAKPOINTS = 4


class AnthropicServer(ModelServer):
    """`/v1/messages` with the checks of the real one that a transcript can fail, signed reasoning included."""

    path = "/v1/messages"
    prefix = ""

    def __init__(
        self,
        answers: Script = (),
        *,
        api_key: str = "",
        host: str = "127.0.0.1",
        port: int = 0,
        min_cache_tokens: int = 0,
    ) -> None:
        super().__init__(answers, api_key=api_key, host=host, port=port)
        self._cache = PrefixCache(min_cache_tokens)

    def key_of(self, headers: dict[str, str]) -> str:
        return headers.get("x-api-key", "")

    def texts(self, body: dict[str, Any]) -> list[tuple[str, str]]:
        return [(message["role"], plain_text(message["content"])) for message in body["messages"]]

    def check(self, body: dict[str, Any]) -> None:
        if not isinstance(body.get("max_tokens"), int):
            raise RefusedRequest("max_tokens: Field required")
        blocks = prompt_blocks(body)
        if sum(1 for block in blocks if "cache_control" in block) > _MAX_BREAKPOINTS:
            raise RefusedRequest("A maximum of 4 blocks with cache_control may be provided.")
        for block in blocks:
            _check_block(block)
        if any(block.get("type") in ("tool_use", "tool_result") for block in blocks) and not body.get("tools"):
            raise RefusedRequest("Requests which include `tool_use` or `tool_result` blocks must define tools")
        _check_roles(body["messages"])

    def error_body(self, status: int, words: str, kind: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": kind or "api_error", "message": words}}

    def error_frame(self, answer: Answer) -> bytes:
        return _frame("error", error=self.error_body(500, answer.error, answer.error_type)["error"])

    def events(self, answer: Answer, body: dict[str, Any]) -> Iterator[bytes]:
        counts = answer.usage or self._usage(body)
        message = {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [],
            "stop_reason": None,
            "usage": {**counts, "output_tokens": 1},
        }
        yield _frame("message_start", message=message)
        yield _frame("ping")
        index = -1
        for index, (block, deltas) in enumerate(_blocks(answer)):
            yield _frame("content_block_start", index=index, content_block=block)
            for delta in deltas:
                yield _frame("content_block_delta", index=index, delta=delta)
            yield _frame("content_block_stop", index=index)
        reason = answer.finish or ("tool_use" if answer.calls else "end_turn")
        written = len(answer.text) + len(answer.reasoning) + sum(len(call.arguments) for call in answer.calls)
        output = counts.get("output_tokens", written // 4 + 1)
        yield _frame(
            "message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage={"output_tokens": output}
        )
        yield _frame("message_stop")

    def _usage(self, body: dict[str, Any]) -> dict[str, Any]:
        counts = self._cache.count(prompt_blocks(body))
        return {
            "input_tokens": counts.fresh,
            "cache_creation_input_tokens": counts.written,
            "cache_read_input_tokens": counts.read,
        }


def prompt_blocks(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Every block of a prompt in the order of the cache: tools, system, messages."""
    system = body.get("system") or []
    blocks = [*body.get("tools", ()), *([{"type": "text", "text": system}] if isinstance(system, str) else system)]
    for message in body["messages"]:
        content = message["content"]
        blocks += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return blocks


def signature_of(thinking: str) -> str:
    """What the server signs reasoning with; a block that comes back changed does not fit it."""
    return hashlib.sha256(f"signed {thinking}".encode()).hexdigest()


def _blocks(answer: Answer) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The content blocks of an answer as they start, each with its deltas."""
    if answer.reasoning:
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in answer.reasoning_pieces()]
        signed = {"type": "signature_delta", "signature": signature_of(answer.reasoning)}
        yield {"type": "thinking", "thinking": "", "signature": ""}, [*deltas, signed]
    if answer.redacted:
        yield {"type": "redacted_thinking", "data": answer.redacted}, []
    if answer.text:
        yield {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in answer.text_pieces()]
    for call in answer.calls:
        call_id = call.id or f"toolu_{secrets.token_hex(12)}"
        pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in answer.argument_pieces(call)]
        yield {"type": "tool_use", "id": call_id, "name": call.name, "input": {}}, pieces


def _check_block(block: dict[str, Any]) -> None:
    match block.get("type"):
        case "text" if not block["text"].strip():
            raise RefusedRequest("messages: text content blocks must be non-empty")
        case "thinking" if block.get("signature") != signature_of(block["thinking"]):
            raise RefusedRequest("messages: Invalid `signature` in `thinking` block")
        case "tool_use" if not re.fullmatch(r"[a-zA-Z0-9_-]+", block["id"]):
            raise RefusedRequest("tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
        case "tool_use" if not re.fullmatch(r"[a-zA-Z0-9_-]{1,200}", block["name"]):
            raise RefusedRequest("tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{1,200}$'")
        case "tool_use" if not isinstance(block["input"], dict):
            raise RefusedRequest("tool_use.input: Input should be a valid dictionary")


def _check_roles(messages: list[dict[str, Any]]) -> None:
    if not messages or messages[0]["role"] != "user":
        raise RefusedRequest("messages: first message must use the 'user' role")
    if messages[-1]["role"] != "user":
        raise RefusedRequest("this model does not support assistant message prefill")
    open_ids: set[str] = set()
    for message in messages:
        content = [] if isinstance(message["content"], str) else message["content"]
        kinds = [block["type"] == "tool_result" for block in content]
        if kinds != sorted(kinds, reverse=True):
            raise RefusedRequest("`tool_result` blocks must come first in the content of a user message")
        results = {block["tool_use_id"] for block in content if block["type"] == "tool_result"}
        if open_ids - results:
            missing = ", ".join(sorted(open_ids - results))
            raise RefusedRequest(f"`tool_use` ids were found without `tool_result` blocks immediately after: {missing}")
        if results - open_ids:
            raise RefusedRequest("unexpected `tool_use_id` found in `tool_result` blocks")
        open_ids = {block["id"] for block in content if block["type"] == "tool_use"}


def _frame(kind: str, **fields: Any) -> bytes:
    data = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


if __name__ == "__main__":
    run(AnthropicServer, __doc__)
