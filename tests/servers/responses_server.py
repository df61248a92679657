"""A local server that speaks OpenAI's Responses API, streaming and without state.

As a program: `python -m tests.servers.responses_server --port 9003` prints its base URL and plays the script block
of each task (see `answers.from_script`).
"""

import hashlib
import json
import secrets
from collections.abc import Iterator
from typing import Any

from tests.servers.answers import Answer, Call
from tests.servers.base import ModelServer, RefusedRequest, Script, run
from tests.servers.caching import PrefixCache, every_block_cached
from tests.servers.openai_server import check_name


class ResponsesServer(ModelServer):
    """`/v1/responses` with the checks of the real one that a transcript can fail, encrypted reasoning included."""

    path = "/v1/responses"
    prefix = "/v1"

    def __init__(self, answers: Script = (), *, api_key: str = "", host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(answers, api_key=api_key, host=host, port=port)
        self._cache = PrefixCache()

    def key_of(self, headers: dict[str, str]) -> str:
        return headers.get("authorization", "").removeprefix("Bearer ")

    def texts(self, body: dict[str, Any]) -> list[tuple[str, str]]:
        texts: list[tuple[str, str]] = []
        for item in items_of(body):
            content = item.get("content")
            if "role" in item:
                parts = [{"text": content}] if isinstance(content, str) else content or []
                texts.append((item["role"], "\n".join(part.get("text", "") for part in parts)))
            elif item["type"] == "function_call" and texts and texts[-1][0] != "assistant":
                texts.append(("assistant", ""))
        return texts

    def check(self, body: dict[str, Any]) -> None:
        items = items_of(body)
        open_ids: set[str] = set()
        for place, item in enumerate(items):
            match item.get("type", "message"):
                case "function_call":
                    open_ids.add(item["call_id"])
                    check_name(item["name"])
                    json.loads(item["arguments"])
                case "function_call_output":
                    if item["call_id"] not in open_ids:
                        raise RefusedRequest(
                            f"No tool call found for function call output with call_id {item['call_id']}."
                        )
                    open_ids.remove(item["call_id"])
                case "reasoning":
                    _check_reasoning(item, items[place + 1 : place + 2])
                case "message" if not item.get("content"):
                    raise RefusedRequest("Invalid 'input': content must not be empty")
        if open_ids:
            raise RefusedRequest(f"No tool output found for function call {', '.join(sorted(open_ids))}.")

    def error_body(self, status: int, words: str, kind: str) -> dict[str, Any]:
        code = "context_length_exceeded" if "maximum context length" in words else None
        return {"error": {"message": words, "type": kind or "server_error", "param": None, "code": code}}

    def error_frame(self, answer: Answer) -> bytes:
        return _frame("error", code="server_error", message=answer.error, param=None)

    def events(self, answer: Answer, body: dict[str, Any]) -> Iterator[bytes]:
        response: dict[str, Any] = {
            "id": f"resp_{secrets.token_hex(12)}",
            "object": "response",
            "created_at": 1,
            "status": "in_progress",
            "model": body["model"],
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }
        yield _frame("response.created", response=response)
        index = 0
        if answer.reasoning:
            yield from _reasoning(answer, index)
            index += 1
        if answer.text:
            yield from _message(answer, index)
            index += 1
        for call in answer.calls:
            yield from _call(answer, call, index)
            index += 1
        response["usage"] = None if answer.no_usage else answer.usage or self._usage(answer, body)
        response["status"] = "incomplete" if answer.finish else "completed"
        response["incomplete_details"] = {"reason": answer.finish} if answer.finish else None
        yield _frame(f"response.{response['status']}", response=response)

    def _usage(self, answer: Answer, body: dict[str, Any]) -> dict[str, Any]:
        counts = self._cache.count(every_block_cached([*body.get("tools", ()), *items_of(body)]))
        prompt = counts.fresh + counts.read + counts.written
        output = (len(answer.text) + len(answer.reasoning) + sum(len(call.arguments) for call in answer.calls)) // 4 + 1
        return {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": counts.read, "cache_write_tokens": 0},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": len(answer.reasoning) // 4},
            "total_tokens": prompt + output,
        }


def items_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The input items, the instructions first."""
    first = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
    return [*first, *body["input"]]


def encrypted(reasoning: str) -> str:
    """What only the server can read: reasoning that comes back must be one of these."""
    return f"gAAAA{hashlib.sha256(reasoning.encode()).hexdigest()}"


def _check_reasoning(item: dict[str, Any], following: list[dict[str, Any]]) -> None:
    if "id" in item:
        raise RefusedRequest(
            f"Item with id '{item['id']}' not found. Items are not persisted when `store` is set to false."
        )
    if not str(item.get("encrypted_content", "")).startswith("gAAAA"):
        raise RefusedRequest("reasoning: the encrypted content could not be verified")
    if not following or following[0].get("role") == "user":
        raise RefusedRequest("Item of type 'reasoning' was provided without its required following item.")


def _reasoning(answer: Answer, index: int) -> Iterator[bytes]:
    item = {"type": "reasoning", "id": f"rs_{secrets.token_hex(12)}", "summary": []}
    yield _frame("response.output_item.added", output_index=index, item=item)
    for piece in answer.reasoning_pieces():
        yield _frame(
            "response.reasoning_summary_text.delta",
            output_index=index,
            summary_index=0,
            item_id=item["id"],
            delta=piece,
        )
    summary = [{"type": "summary_text", "text": answer.reasoning}]
    done = {**item, "summary": summary, "encrypted_content": encrypted(answer.reasoning)}
    yield _frame("response.output_item.done", output_index=index, item=done)


def _message(answer: Answer, index: int) -> Iterator[bytes]:
    item = {"type": "message", "id": f"msg_{secrets.token_hex(12)}", "role": "assistant", "content": []}
    place = {"output_index": index, "content_index": 0, "item_id": item["id"]}
    part = {"type": "output_text", "text": "", "annotations": []}
    yield _frame("response.output_item.added", output_index=index, item={**item, "status": "in_progress"})
    yield _frame("response.content_part.added", **place, part=part)
    for piece in answer.text_pieces():
        yield _frame("response.output_text.delta", **place, delta=piece, logprobs=[])
    part["text"] = answer.text
    yield _frame("response.output_text.done", **place, text=answer.text, logprobs=[])
    yield _frame("response.content_part.done", **place, part=part)
    done = {**item, "content": [part], "status": "completed"}
    yield _frame("response.output_item.done", output_index=index, item=done)


def _call(answer: Answer, call: Call, index: int) -> Iterator[bytes]:
    item = {
        "type": "function_call",
        "id": f"fc_{secrets.token_hex(12)}",
        "call_id": call.id or f"call_{secrets.token_hex(12)}",
        "name": call.name,
        "arguments": "",
    }
    place = {"output_index": index, "item_id": item["id"]}
    yield _frame("response.output_item.added", output_index=index, item={**item, "status": "in_progress"})
    for piece in answer.argument_pieces(call):
        yield _frame("response.function_call_arguments.delta", **place, delta=piece)
    yield _frame("response.function_call_arguments.done", **place, name=call.name, arguments=call.arguments)
    done = {**item, "arguments": call.arguments, "status": "completed"}
    yield _frame("response.output_item.done", output_index=index, item=done)


def _frame(kind: str, **fields: Any) -> bytes:
    data = json.dumps({"type": kind, "sequence_number": 0, **fields}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


if __name__ == "__main__":
    run(ResponsesServer, __doc__)
