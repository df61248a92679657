"""`python -m scripts.stack [up|gateway|modem|demo TASK]`: what `./run.sh` runs.

Exit status: 0 stopped as asked, 1 could not run, 78 the configuration is wrong (EX_CONFIG of sysexits.h);
of `demo` that of the terminal client.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from scripts.stack.demo import demo
from scripts.stack.health import banner
from scripts.stack.output import Output
from scripts.stack.plan import Plan
from scripts.stack.running import Stopped, running
from scripts.stack.supervisor import StackError
from workflow.core.config_load import load
from workflow.core.errors import ConfigError

EX_CONFIG = 78


def main(argv: list[str] | None = None) -> int:
    """Runs one command; its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        loaded = load()
    except ConfigError as exc:
        print(f"The configuration is wrong:\n{exc.message}", file=sys.stderr)
        return EX_CONFIG
    # A demo is for eyes, also when they look through a pipe.
    log = loaded.settings.log.model_copy(update={"format": "color"} if arguments.command == "demo" else {})
    output = Output(sys.stderr, log)
    for warning in loaded.warnings:
        output.say(warning, level="WARNING")
    plan = Plan(loaded)
    if arguments.command == "gateway":
        plan = replace(plan, worker=())
    elif arguments.command == "modem":
        plan = replace(plan, gateway=())
    try:
        if arguments.command == "demo":
            return asyncio.run(until_signal(lambda stop: demo(plan, arguments.task, output, stop=stop)))
        return asyncio.run(until_signal(lambda stop: up(plan, output, stop=stop)))
    except StackError as exc:
        output.say(str(exc), level="ERROR")
        return 1


async def up(plan: Plan, output: Output, *, stop: asyncio.Event) -> int:
    """Runs the stack until `stop` is set. Raises: StackError."""
    try:
        async with running(plan, output, stop=stop) as stack:
            health = await stack.ready(output)
            output.show(
                banner(health, url=stack.url if plan.gateway else "", redis=stack.redis, data_dir=str(plan.data_dir))
            )
            await stack.unless_stopped(asyncio.Event().wait())
    except Stopped:
        output.say("stopped")
    return 0


async def until_signal(run: Callable[[asyncio.Event], Coroutine[Any, Any, int]]) -> int:
    """`run` with an event that the first Ctrl-C, TERM or hang-up sets; the second one cancels it."""
    stop = asyncio.Event()
    task = asyncio.ensure_future(run(stop))

    def asked() -> None:
        if stop.is_set():
            task.cancel()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, asked)
    try:
        return await task
    except asyncio.CancelledError:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run.sh", description="Run Dialtone on this machine.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("up", help="Redis, gateway and workers (default)")
    commands.add_parser("gateway", help="the gateway alone, on an external Redis")
    commands.add_parser("modem", help="the workers alone, on an external Redis")
    task = commands.add_parser("demo", help="start everything, run one task, show it, stop everything")
    task.add_argument("task", nargs="?", default=DEMO_TASK, help="what the agent is to do")
    parser.set_defaults(command="up")
    return parser


DEMO_TASK = "Write a small program that prints the first ten prime numbers, run it, and tell me what it printed."

if __name__ == "__main__":
    sys.exit(main())
