"""The command line of `dialtone desk`."""

import argparse
from collections.abc import Callable
from typing import TypeAlias

Actions: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
AddCommand = Callable[[Actions, str, str], argparse.ArgumentParser]

STATUSES = ("running", "queued", "waiting")


def add_desk(commands: Actions, add: AddCommand) -> None:
    """Adds `desk` with its actions; add: makes one command that takes a gateway's address and key."""
    desk = commands.add_parser("desk", help="look after the whole installation (needs the scope `operator`)")
    actions = desk.add_subparsers(dest="action", metavar="ACTION")
    desk.set_defaults(action="show", watch=False)
    _add_views(actions, add)
    _add_runs(actions, add)
    _add_workers(actions, add)
    _add_tenants(actions, add)
    replay = add(actions, "replay", "deliver a dead webhook again")
    replay.add_argument("notice", metavar="ID")
    add(actions, "reload", "let every process read its configuration again, and show what came of it")
    desk.add_argument("--json", action="store_true", help="one JSON object per line")
    for parser in actions.choices.values():
        # SUPPRESS keeps what stands before the action.
        parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON object per line")


def _add_views(actions: Actions, add: AddCommand) -> None:
    show = add(actions, "show", "workers, queues, webhooks and Redis, as they are now")
    show.add_argument("-w", "--watch", action="store_true", help="again every two seconds, until Ctrl-C")
    history = add(actions, "history", "throughput, latency and load of the last hours")
    history.add_argument("--hours", type=int, default=3, metavar="N", help="1 to 12 (default: 3)")
    costs = add(actions, "costs", "what the models' calls cost, per tenant and model")
    costs.add_argument("--days", type=int, default=1, metavar="N", help="1 to 31, today included (default: 1)")
    costs.add_argument("--tenant", default="")
    webhooks = add(actions, "webhooks", "notices that could not be delivered")
    for parser in (costs, webhooks):
        parser.add_argument("--limit", type=int, default=50, metavar="N")


def _add_runs(actions: Actions, add: AddCommand) -> None:
    runs = add(actions, "runs", "runs that have not ended, why they wait and what is wrong with them")
    runs.add_argument("--limit", type=int, default=50, metavar="N")
    requeue = add(actions, "requeue", "let a run go on elsewhere")
    requeue.add_argument("run", metavar="RUN")
    cancel = add(actions, "cancel", "end many runs: by name, or by what they have in common")
    cancel.add_argument("runs", nargs="*", metavar="RUN")
    cancel.add_argument("--older-than", type=float, default=0, metavar="S", help="accepted more than S seconds ago")
    cancel.add_argument("--reason", default="", help="stands in the runs' last event")
    for parser in (runs, cancel):
        parser.add_argument("--tenant", default="")
        parser.add_argument("--status", choices=STATUSES, default="")
        parser.add_argument("--in-trouble", action="store_true", help="only those that something is wrong with")


def _add_workers(actions: Actions, add: AddCommand) -> None:
    drain = add(actions, "drain", "let a worker take no more runs")
    drain.add_argument("--hand-over", action="store_true", help="its runs go on elsewhere at once")
    undrain = add(actions, "undrain", "let a worker take runs again")
    for parser in (drain, undrain):
        parser.add_argument("worker", metavar="WORKER")


def _add_tenants(actions: Actions, add: AddCommand) -> None:
    add(actions, "blocked", "tenants that may start no runs")
    block = add(actions, "block", "let a tenant start no runs")
    block.add_argument("--reason", required=True, help="its callers read it")
    block.add_argument("--cancel-runs", action="store_true", help="also end the runs it has")
    unblock = add(actions, "unblock", "let a tenant start runs again")
    for parser in (block, unblock):
        parser.add_argument("tenant", metavar="TENANT")
