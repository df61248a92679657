"""Every request of the API as a value: what to send, how to read the answer, when it may be sent again.

The asynchronous and the synchronous client send the same calls.
"""

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from dialtone.errors import ProtocolError
from dialtone.items import read_event, read_object
from dialtone.results import (
    Accepted,
    ArchiveFormat,
    Budgets,
    BusyPolicy,
    DiffPage,
    EventPage,
    FileList,
    FileStat,
    ModelChoice,
    Preview,
    PreviewList,
    Restored,
    RunPage,
    ThreadPage,
)
from workflow.core.events import Usage
from workflow.core.ids import RunId, ThreadId, thread_of
from workflow.core.records import RunRecord, ThreadRecord

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request. `repeatable`: sending it twice has the effect of sending it once."""

    method: str
    path: str
    read: Callable[[bytes], T]
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    repeatable: bool = True


def health() -> Call[dict[str, Any]]:
    return Call("GET", "/health", read_object)


def initiate(
    *, title: str, model: str | None, models: ModelChoice | None, metadata: Mapping[str, Any] | None
) -> Call[ThreadId]:
    """Repeated like a read: at worst it leaves a thread that is empty and unused."""
    body = given(title=title or None, model=model, models=_set(models), metadata=metadata)
    return post("/api/agent/initiate", body, lambda answer: ThreadId(_text_of(answer, "thread_id")))


def execute(
    thread_id: str,
    task: str,
    *,
    model: str | None,
    models: ModelChoice | None,
    files: Sequence[str],
    policy: BusyPolicy | None,
    budgets: Budgets | None,
    webhook: str | None,
    idempotency_key: str | None,
) -> Call[Accepted]:
    """Made with a fresh Idempotency-Key unless one is given, so that a repeated POST starts one run."""
    body = given(
        model=model,
        models=_set(models),
        files=list(files) or None,
        policy=policy,
        budgets=_set(budgets),
        webhook=webhook,
    )
    headers = {"Idempotency-Key": idempotency_key or secrets.token_urlsafe(16)}
    return post(_thread(thread_id, "execute"), {"task": task, **body}, read_as(Accepted), headers=headers)


def threads(*, q: str, limit: int, cursor: str | None) -> Call[ThreadPage]:
    return Call("GET", "/api/agent", read_as(ThreadPage), params=query(limit=limit, cursor=cursor, q=q))


def thread(thread_id: str) -> Call[ThreadRecord]:
    return Call("GET", _thread(thread_id), read_as(ThreadRecord))


def update_thread(thread_id: str, changes: Mapping[str, Any]) -> Call[ThreadRecord]:
    content, headers = _json_body(changes)
    return Call("PATCH", _thread(thread_id), read_as(ThreadRecord), headers=headers, content=content)


def delete_thread(thread_id: str) -> Call[None]:
    return Call("DELETE", _thread(thread_id), nothing)


def runs(thread_id: str, *, limit: int, cursor: str | None) -> Call[RunPage]:
    return Call("GET", _thread(thread_id, "runs"), read_as(RunPage), params=query(limit=limit, cursor=cursor))


def run(run_id: str) -> Call[RunRecord]:
    return Call("GET", _run(run_id), read_as(RunRecord))


def usage(run_id: str) -> Call[Usage]:
    return Call("GET", _run(run_id, "usage"), _read_usage)


def event_page(thread_id: str, *, run_id: str | None, after: str, limit: int) -> Call[EventPage]:
    path = _run(run_id, "events") if run_id else _thread(thread_id, "events")
    return Call("GET", path, _read_events, params=query(after=after, limit=limit))


def state(thread_id: str) -> Call[dict[str, Any]]:
    return Call("GET", _thread(thread_id, "state"), read_object)


def cancel(run_id: str, *, reason: str) -> Call[RunRecord]:
    return post(_run(run_id, "cancel"), given(reason=reason or None), read_as(RunRecord))


def steer(run_id: str, text: str) -> Call[None]:
    return post(_run(run_id, "steer"), {"text": text}, nothing, repeatable=False)


def answer(thread_id: str, question_id: str, text: str, *, note: str) -> Call[None]:
    path = _thread(thread_id, "questions", question_id, "answer")
    return post(path, {"answer": text, **given(note=note or None)}, nothing, repeatable=False)


def ticket(thread_id: str) -> Call[dict[str, Any]]:
    return post(_thread(thread_id, "ticket"), {}, read_object)


def files(thread_id: str, *, path: str, depth: int, at: str) -> Call[tuple[FileStat, ...]]:
    return Call("GET", _thread(thread_id, "files"), _read_files, params=query(path=path, depth=depth, at=at))


def get_file(thread_id: str, path: str, *, at: str) -> Call[bytes]:
    return Call("GET", _file(thread_id, path), lambda answer: answer, params=query(at=at))


def diff(thread_id: str, *, old: str, new: str, limit: int, cursor: str | None) -> Call[DiffPage]:
    asked = {"from": old, **query(to=new, limit=limit, cursor=cursor)}
    return Call("GET", _thread(thread_id, "diff"), read_as(DiffPage), params=asked)


def restore(thread_id: str, event: str) -> Call[Restored]:
    return post(_thread(thread_id, "restore"), {"event": event}, read_as(Restored), repeatable=False)


def fork(thread_id: str, event: str, *, title: str) -> Call[ThreadRecord]:
    body = {"event": event, **given(title=title or None)}
    return post(_thread(thread_id, "fork"), body, read_as(ThreadRecord), repeatable=False)


def put_file(thread_id: str, path: str, content: bytes) -> Call[FileStat]:
    headers = {"Content-Type": "application/octet-stream"}
    return Call("PUT", _file(thread_id, path), read_as(FileStat), headers=headers, content=content)


def delete_file(thread_id: str, path: str) -> Call[None]:
    return Call("DELETE", _file(thread_id, path), nothing)


def archive(thread_id: str, *, path: str, format: ArchiveFormat) -> Call[bytes]:
    return Call("GET", _thread(thread_id, "archive"), lambda answer: answer, params=query(path=path, format=format))


def previews(thread_id: str) -> Call[tuple[Preview, ...]]:
    return Call("GET", _thread(thread_id, "previews"), lambda answer: read_as(PreviewList)(answer).items)


def revoke_preview(thread_id: str, preview_id: str) -> Call[None]:
    return Call("DELETE", _thread(thread_id, "previews", preview_id), nothing)


def stream_path(thread_id: str) -> str:
    """Where a thread's stream is."""
    return _thread(thread_id, "stream")


def _thread(thread_id: str, *rest: str) -> str:
    return "/".join(["/api/agent", *map(segment, (thread_id, *rest))])


def segment(text: str) -> str:
    """`text` as one part of an address. Raises: ValueError for what would lead to another resource."""
    if text in ("", ".", ".."):
        raise ValueError(f"not an id: {text!r}")
    return quote(text, safe="")


def _run(run_id: str, *rest: str) -> str:
    return _thread(thread_of(RunId(run_id)), "runs", run_id, *rest)


def _file(thread_id: str, path: str) -> str:
    # httpx resolves `..` as browsers do: `../..` would name the thread itself, and DELETE would delete it.
    if ".." in path.split("/"):
        raise ValueError(f"leads out of its folder: {path!r}")
    return f"{_thread(thread_id, 'files')}/{quote(path.lstrip('/'))}"


def query(**fields: object) -> dict[str, str]:
    """What of `fields` says something, as a query."""
    return {name: str(value) for name, value in fields.items() if value not in (None, "")}


def _set(record: BaseModel | None) -> dict[str, Any] | None:
    """What is set in it; None when nothing is."""
    return (record.model_dump(exclude_none=True) or None) if record else None


def given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _json_body(body: Mapping[str, Any]) -> tuple[bytes, dict[str, str]]:
    return json.dumps(body).encode(), {"Content-Type": "application/json"}


def post(
    path: str,
    body: Mapping[str, Any],
    read: Callable[[bytes], T],
    *,
    headers: Mapping[str, str] | None = None,
    repeatable: bool = True,
) -> Call[T]:
    content, kind = _json_body(body)
    return Call("POST", path, read, headers={**kind, **(headers or {})}, content=content, repeatable=repeatable)


def read_as(kind: type[M]) -> Callable[[bytes], M]:
    """Reads an answer that is one `kind`."""

    def read(answer: bytes) -> M:
        try:
            return kind.model_validate_json(answer)
        except ValidationError as error:
            raise ProtocolError(f"not a {kind.__name__}: {answer[:200]!r}") from error

    return read


def nothing(answer: bytes) -> None:
    """The status says it all."""


def _text_of(answer: bytes, name: str) -> str:
    value = read_object(answer).get(name)
    if not isinstance(value, str):
        raise ProtocolError(f"the answer has no `{name}`: {answer[:200]!r}")
    return value


def _read_usage(answer: bytes) -> Usage:
    fields = read_object(answer)
    return read_as(Usage)(json.dumps({name: fields[name] for name in Usage.model_fields if name in fields}).encode())


def _read_files(answer: bytes) -> tuple[FileStat, ...]:
    return read_as(FileList)(answer).items


def _read_events(answer: bytes) -> EventPage:
    fields = read_object(answer)
    items = fields.get("items")
    if not isinstance(items, list):
        raise ProtocolError(f"the answer has no `items`: {answer[:200]!r}")
    events = tuple(read_event(json.dumps(item)) for item in items)
    return EventPage(items=events, raw=tuple(items), next_after=fields.get("next_after") or None)
