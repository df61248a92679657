"""The Lua scripts of `modem/lua/`: every change of a record and every append is one of them."""

from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis import Redis as SyncRedis
    from redis.asyncio import Redis
    from redis.commands.core import Script

_THREAD = ("create", "open_run", "claim", "renew", "commit", "preview", "release", "cancel", "reap", "answer", "steer")
_DESK = ("requeue",)
_HOLD = ("hold", "note")
_QUOTA = ("quota_take", "quota_give", "quota_weigh", "wait")
_MONEY = ("reserve", "settle")
_HOOKS = ("hook_add", "hook_settle", "hook_replay")
_DUE = ("take_due",)
_FIGURES = ("figures",)
_SCHED = ("sched_admit", "sched_push", "sched_next", "sched_apart", "sched_clear")


def source(name: str) -> str:
    """The text of a script, with the shared part in front of it."""
    folder = files("modem") / "lua"
    return (folder / "lib.lua").read_text() + (folder / f"{name}.lua").read_text()


class Scripts:
    """The scripts by name, each called as `await scripts.claim(keys=[...], args=[...])`.

    Thread scripts take the thread's metadata key for routing and build the others from a prefix in ARGV.
    Each attribute is a redis.commands.core.AsyncScript, whose stubs know nothing of what a script returns.
    """

    create: Any
    open_run: Any
    claim: Any
    renew: Any
    commit: Any
    preview: Any
    release: Any
    cancel: Any
    reap: Any
    answer: Any
    steer: Any
    requeue: Any
    hold: Any
    note: Any
    quota_take: Any
    quota_give: Any
    quota_weigh: Any
    wait: Any
    hook_add: Any
    hook_settle: Any
    hook_replay: Any
    take_due: Any
    figures: Any
    reserve: Any
    settle: Any
    sched_admit: Any
    sched_push: Any
    sched_next: Any
    sched_apart: Any
    sched_clear: Any

    def __init__(self, client: "Redis") -> None:
        for name in (*_THREAD, *_DESK, *_HOLD, *_QUOTA, *_HOOKS, *_DUE, *_FIGURES, *_MONEY, *_SCHED):
            setattr(self, name, client.register_script(source(name)))


def register_sync(client: "SyncRedis", name: str) -> "Script":
    """One script for the thread that may not wait for an event loop (the heartbeat)."""
    return client.register_script(source(name))
