"""What each command of the terminal client does."""

import asyncio
import os
import sys
from argparse import Namespace
from collections.abc import Awaitable, Callable
from pathlib import Path

from dialtone import history
from dialtone.client import AsyncClient
from dialtone.desk_commands import run_desk
from dialtone.errors import ClientError, Unreachable
from dialtone.live import (
    EXIT_FAILED,
    EXIT_LEFT,
    EXIT_OK,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    CancelOnInterrupt,
    Watch,
    on_interrupt,
)
from dialtone.results import ArchiveFormat, Budgets, ModelChoice
from dialtone.screen import Screen, complain, prepare
from dialtone.text import moment, neutral, one_line
from workflow.core.events import EventBase
from workflow.core.ids import RUN_ID

TITLE_WIDTH = 80
MOST_LISTED = 10_000
"""So many files come in one answer (docs/api.md)."""


def execute(arguments: Namespace) -> int:
    """Runs the command that `arguments` name; its exit status."""
    out = prepare(sys.stdout)
    screen = Screen(out, as_json=getattr(arguments, "json", False), reasoning=getattr(arguments, "reasoning", False))
    try:
        if arguments.command == "replay":
            return _replay(arguments, screen)
        arguments.piped = _read_piped(arguments)
        return asyncio.run(_with_client(arguments, screen))
    except Unreachable as error:
        complain(f"{error} ({arguments.url})")
        return EXIT_UNREACHABLE
    except (ClientError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            # The reader of the pipe has what it wanted. Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
            return EXIT_OK
        complain(str(error))
        return EXIT_FAILED
    except ValueError as error:
        complain(str(error))
        return EXIT_USAGE
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_LEFT


async def _with_client(arguments: Namespace, screen: Screen) -> int:
    async with AsyncClient(arguments.url, arguments.key) as client:
        return await _COMMANDS[arguments.command](client, arguments, screen)


async def _run(client: AsyncClient, arguments: Namespace, screen: Screen) -> int:
    task = arguments.piped.decode() if arguments.task == "-" else arguments.task
    # Looked at before a thread is made for them.
    names = [Path(name).name for name in arguments.file]
    contents = [await asyncio.to_thread(Path(name).read_bytes) for name in arguments.file]
    if not task.strip():
        raise ValueError("the task says nothing")
    if len(set(names)) < len(names):
        raise ValueError("two files have the same name; in the workspace one would take the other's place")
    watching = asyncio.current_task()
    assert watching is not None
    cancel = CancelOnInterrupt(client, screen, watching.cancel)
    with on_interrupt(cancel.interrupt):
        thread_id = arguments.thread or await client.initiate(title=arguments.title or one_line(task, TITLE_WIDTH))
        for name, content in zip(names, contents, strict=True):
            await client.put_file(thread_id, name, content=content)
        budgets = Budgets(
            turns=arguments.budget_turns,
            tokens=arguments.budget_tokens,
            usd=arguments.budget_usd,
            seconds=arguments.budget_seconds,
        )
        run = await client.execute(
            thread_id,
            task,
            model=arguments.model,
            models=ModelChoice(planning=arguments.planning, summaries=arguments.summaries),
            files=names,
            policy=arguments.policy,
            budgets=budgets,
        )
        cancel.started(run.run_id)
        if arguments.detach:
            screen.record(run, run.run_id)
            await cancel.close()
            return EXIT_OK
        screen.line(screen.paint.dim(f"  run {run.run_id}"))
        watch = Watch(client, run.thread_id, screen)
        status = await watch.follow(run_id=run.run_id, deltas=arguments.deltas or not arguments.json)
        await cancel.close()
        return status


async def _attach(client: AsyncClient, arguments: Namespace, screen: Screen) -> int:
    thread_id, run_id = _target(arguments.target)
    watching = asyncio.current_task()
    assert watching is not None
    with on_interrupt(watching.cancel):
        watch = Watch(client, thread_id, screen)
        deltas = arguments.deltas or not arguments.json
        return await watch.follow(run_id=run_id, start=arguments.start, deltas=deltas)


async def _threads(client: AsyncClient, arguments: Namespace, screen: Screen) -> int:
    for thread in (await client.threads(q=arguments.q, limit=arguments.limit)).items:
        state = "running" if thread.active_run else thread.last_status or "new"
        title = one_line(thread.title, max(20, screen.width - 64))
        screen.record(thread, f"{thread.thread_id}  {state:<10}  {moment(thread.updated_at)}  {title}".rstrip())
    return EXIT_OK


async def _runs(client: AsyncClient, arguments: Namespace, screen: Screen) -> int:
    for run in (await client.runs(arguments.thread, limit=arguments.limit)).items:
        cost = f"${run.usage.cost_usd:.4f}"
        task = one_line(run.task, max(20, screen.width - 80))
        text = f"{run.run_id}  {run.status:<10}  {moment(run.created_at)}  {run.turn:>3} turns  {cost:>9}  {task}"
        screen.record(run, text.rstrip())
    return EXIT_OK


async def _cancel(client: AsyncClient, arguments: Namespace, screen: Screen) -> int:
    await client.cancel(arguments.run, reason=arguments.reason)
    return EXIT_OK


async def _steer(client: AsyncClient, arguments: Namespace, screen: Screen) -> int:
    await client.steer(arguments.run, arguments.text)
    return EXIT_OK


async def _answer(client: AsyncClient, arguments: Namespace, screen: Screen) -> int:
    thread_id, _ = _target(arguments.target)
    await client.answer(thread_id, arguments.question, arguments.answer, note=arguments.note)
    return EXIT_OK


async def _files(client: AsyncClient, arguments: Namespace, screen: Screen) -> int:
    thread_id = arguments.thread
    match arguments.action:
        case "ls":
            entries = await client.files(thread_id, arguments.path, depth=arguments.depth)
            for entry in entries:
                # Whole on any screen: half a path names nothing.
                name = neutral(entry.path).replace("\n", "\u240a") + ("/" if entry.kind == "dir" else "")
                screen.record(entry, f"{entry.size:>12,}  {name}")
            if len(entries) >= MOST_LISTED:
                complain(f"only the first {MOST_LISTED:,} are listed; there may be more: list single folders")
        case "get":
            content = await client.get_file(thread_id, arguments.path)
            await asyncio.to_thread(_save, arguments.local or Path(arguments.path).name, content)
        case "put":
            is_piped = arguments.local == "-"
            if is_piped and not arguments.path:
                raise ValueError("what comes from standard input needs a name: files put THREAD - PATH")
            content = arguments.piped if is_piped else await asyncio.to_thread(Path(arguments.local).read_bytes)
            await client.put_file(thread_id, arguments.path or Path(arguments.local).name, content=content)
        case "rm":
            await client.delete_file(thread_id, arguments.path)
        case "archive":
            ending: ArchiveFormat = "zip" if arguments.local.lower().endswith(".zip") else "tar"
            content = await client.archive(thread_id, arguments.path, format=arguments.format or ending)
            await asyncio.to_thread(_save, arguments.local, content)
    return EXIT_OK


async def _previews(client: AsyncClient, arguments: Namespace, screen: Screen) -> int:
    thread_id = arguments.thread
    match arguments.action:
        case "ls":
            for link in await client.previews(thread_id):
                url = one_line(link.url, len(link.url))  # whole on any screen: half an address leads nowhere
                screen.record(link, f"{link.id}  {link.port:>5}  until {moment(link.expires_at)}  {url}")
        case "revoke":
            await client.revoke_preview(thread_id, arguments.preview)
    return EXIT_OK


async def _logs(client: AsyncClient, arguments: Namespace, screen: Screen) -> int:
    thread_id, run_id = _target(arguments.target)
    last_id: str = arguments.after
    cursor: str | None = last_id
    while cursor is not None:
        page = await client.event_page(thread_id, run_id=run_id, after=cursor)
        for event, envelope in zip(page.items, page.raw, strict=True):
            last_id = event.id
            if arguments.json:
                screen.raw(envelope)
            else:
                screen.line(history.log_line(event, width=screen.width - 70))
        cursor = page.next_after if page.items else None
    if arguments.follow:
        async for item in client.stream(thread_id, run_id=run_id, last_id=last_id, deltas=False):
            if arguments.json:
                screen.show(item)
            elif isinstance(item, EventBase):
                screen.line(history.log_line(item, width=screen.width - 70))
    return EXIT_OK


async def _export(client: AsyncClient, arguments: Namespace, screen: Screen) -> int:
    thread_id, run_id = _target(arguments.run)
    if run_id is None:
        raise ValueError(f"not a run id: {arguments.run}")
    lines: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await client.event_page(thread_id, run_id=run_id, after=cursor)
        lines += map(history.export_line, page.raw)
        cursor = page.next_after if page.items else None
    await asyncio.to_thread(_save, arguments.output, "".join(lines).encode())
    return EXIT_OK


def _replay(arguments: Namespace, screen: Screen) -> int:
    with sys.stdin if arguments.file == "-" else Path(arguments.file).open(encoding="utf-8") as lines:
        for item in history.read_items(lines):
            screen.show(item)
    screen.close()
    return EXIT_OK


def _target(text: str) -> tuple[str, str | None]:
    """The thread, and the run if `text` names one: a run id carries its thread's."""
    match = RUN_ID.fullmatch(text)
    return (match[1], text) if match else (text, None)


def _read_piped(arguments: Namespace) -> bytes:
    """Standard input, for a command that asks for it. Read before there is a loop, in which Ctrl-C would not end it."""
    asks = arguments.command == "run" and arguments.task == "-"
    asks = asks or (arguments.command == "files" and arguments.action == "put" and arguments.local == "-")
    if asks and sys.stdin.isatty():
        complain("reads what you type, up to Ctrl-D")
    return sys.stdin.buffer.read() if asks else b""


def _save(name: str, content: bytes) -> None:
    if name == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        Path(name).write_bytes(content)


_COMMANDS: dict[str, Callable[[AsyncClient, Namespace, Screen], Awaitable[int]]] = {
    "run": _run,
    "attach": _attach,
    "threads": _threads,
    "runs": _runs,
    "cancel": _cancel,
    "steer": _steer,
    "answer": _answer,
    "files": _files,
    "previews": _previews,
    "logs": _logs,
    "export": _export,
    "desk": run_desk,
}
