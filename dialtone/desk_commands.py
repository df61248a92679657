"""What each action of `dialtone desk` does."""

import asyncio
from argparse import Namespace
from collections.abc import Awaitable, Callable
from typing import Any

from dialtone import desk, desk_view
from dialtone.client import AsyncClient
from dialtone.desk_results import CancelledMany
from dialtone.live import EXIT_FAILED, EXIT_OK
from dialtone.screen import Screen
from dialtone.text import one_line

WATCH_S = 2.0
PAGE = 200
"""Most items of one answer."""
MOST_AT_ONCE = 500
"""Runs that one request may name."""


async def run_desk(client: AsyncClient, arguments: Namespace, screen: Screen) -> int:
    """Does what `arguments.action` names; its exit status."""
    return await _ACTIONS[arguments.action](client, arguments, screen) or EXIT_OK


async def _show(client: AsyncClient, arguments: Namespace, screen: Screen) -> None:
    while True:
        seen = await client.send(desk.overview())
        lines = desk_view.overview_lines(seen, width=screen.width)
        clear = "\x1b[H\x1b[J" if arguments.watch and screen.is_terminal and not screen.as_json else ""
        screen.record(seen, clear + "\n".join(lines))
        if not arguments.watch:
            return
        await asyncio.sleep(WATCH_S)


async def _runs(client: AsyncClient, arguments: Namespace, screen: Screen) -> None:
    now_ms, left, cursor = (await client.send(desk.overview())).at, arguments.limit, None
    while left > 0:
        call = desk.runs(
            tenant=arguments.tenant,
            status=arguments.status,
            in_trouble=arguments.in_trouble,
            limit=min(left, PAGE),
            cursor=cursor,
        )
        page = await client.send(call)
        for one in page.items:
            screen.record(one, desk_view.run_line(one, now_ms=now_ms, width=screen.width))
        left, cursor = left - len(page.items), page.next_cursor
        if cursor is None:
            return


async def _history(client: AsyncClient, arguments: Namespace, screen: Screen) -> None:
    found = await client.send(desk.history(hours=arguments.hours))
    screen.record(found, "\n".join(desk_view.history_lines(found, width=screen.width)))


async def _costs(client: AsyncClient, arguments: Namespace, screen: Screen) -> None:
    call = desk.costs(days=arguments.days, tenant=arguments.tenant, limit=min(arguments.limit, PAGE))
    page = await client.send(call)
    for cost in page.items:
        screen.record(cost, desk_view.cost_line(cost))
    screen.line(f"{page.total_usd:>12.4f} $  together")


async def _webhooks(client: AsyncClient, arguments: Namespace, screen: Screen) -> None:
    for notice in (await client.send(desk.dead_webhooks(limit=min(arguments.limit, PAGE)))).items:
        screen.record(notice, desk_view.notice_line(notice, width=screen.width))


async def _requeue(client: AsyncClient, arguments: Namespace, screen: Screen) -> None:
    found = await client.send(desk.requeue(arguments.run))
    screen.record(found, desk_view.run_line(found, now_ms=found.last_event_at, width=screen.width))


async def _cancel(client: AsyncClient, arguments: Namespace, screen: Screen) -> int:
    is_chosen = bool(arguments.tenant or arguments.status or arguments.in_trouble or arguments.older_than)
    if bool(arguments.runs) == is_chosen:
        raise ValueError("say which: either run ids, or --tenant, --status, --in-trouble and --older-than")
    tally = _Tally()
    for start in range(0, len(arguments.runs), MOST_AT_ONCE):
        runs = arguments.runs[start : start + MOST_AT_ONCE]
        done = await client.send(desk.cancel(runs, reason=arguments.reason))
        screen.record(done, tally.add(done))
    if not arguments.runs:
        wanted = {"tenant": arguments.tenant, "status": arguments.status, "in_trouble": arguments.in_trouble}
        wanted |= {"older_than_s": arguments.older_than, "reason": arguments.reason}
        await _cancel_all(client, screen, tally, cursor=None, **wanted)
    return EXIT_FAILED if tally.unknown else EXIT_OK


async def _cancel_all(
    client: AsyncClient, screen: Screen, tally: "_Tally", *, cursor: str | None, **wanted: Any
) -> None:
    """Ends all wanted runs after `cursor`, and says after every answer how far it is."""
    while True:
        done = await client.send(desk.cancel(**wanted, cursor=cursor))
        screen.record(done, tally.add(done))
        cursor = done.next_cursor
        if cursor is None:
            return


class _Tally:
    """What several answers say together."""

    def __init__(self) -> None:
        self._cancelled = self._ended = self.unknown = 0

    def add(self, done: CancelledMany) -> str:
        """Counts one more; how many there are by now, in words."""
        self._cancelled += len(done.run_ids)
        self._ended += len(done.ended)
        self.unknown += len(done.unknown)
        ended = f", {self._ended} had ended already" if self._ended else ""
        unknown = f", {self.unknown} unknown" if self.unknown else ""
        return f"{self._cancelled} runs cancelled{ended}{unknown}{' …' if done.next_cursor else ''}"


async def _drain(client: AsyncClient, arguments: Namespace, screen: Screen) -> None:
    await client.send(desk.drain(arguments.worker, hand_over=arguments.hand_over))


async def _undrain(client: AsyncClient, arguments: Namespace, screen: Screen) -> None:
    await client.send(desk.undrain(arguments.worker))


async def _blocked(client: AsyncClient, arguments: Namespace, screen: Screen) -> None:
    for block in (await client.send(desk.blocked_tenants())).items:
        screen.record(block, one_line(f"{block.tenant}  by {block.by}: {block.reason}", screen.width))


async def _block(client: AsyncClient, arguments: Namespace, screen: Screen) -> None:
    call = desk.block(arguments.tenant, reason=arguments.reason, cancel_runs=arguments.cancel_runs)
    done = await client.send(call)
    tally = _Tally()
    screen.record(done, f"blocked; {tally.add(done.cancelled)}")
    if cursor := done.cancelled.next_cursor:
        reason = done.cancelled.reason
        await _cancel_all(client, screen, tally, cursor=cursor, tenant=arguments.tenant, reason=reason)


async def _unblock(client: AsyncClient, arguments: Namespace, screen: Screen) -> None:
    await client.send(desk.unblock(arguments.tenant))


async def _replay(client: AsyncClient, arguments: Namespace, screen: Screen) -> None:
    await client.send(desk.replay_webhook(arguments.notice))


async def _reload(client: AsyncClient, arguments: Namespace, screen: Screen) -> int:
    answers = (await client.send(desk.reload_config())).items
    for one in answers:
        screen.record(one, desk_view.reload_line(one, width=screen.width))
    return EXIT_OK if all(one.answered and not one.config.problem for one in answers) else EXIT_FAILED


_ACTIONS: dict[str, Callable[[AsyncClient, Namespace, Screen], Awaitable[int | None]]] = {
    "show": _show,
    "runs": _runs,
    "history": _history,
    "costs": _costs,
    "webhooks": _webhooks,
    "requeue": _requeue,
    "cancel": _cancel,
    "drain": _drain,
    "undrain": _undrain,
    "blocked": _blocked,
    "block": _block,
    "unblock": _unblock,
    "replay": _replay,
    "reload": _reload,
}
