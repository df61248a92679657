"""The terminal client `dialtone`: its commands and options. What they do is in `commands.py` and `live.py`."""

import argparse
import os
from collections.abc import Sequence
from typing import TypeAlias

from dialtone.desk_cli import add_desk

EXIT_CODES = """\
exit status:
  0  the run finished, or the command did what it was asked
  1  the run failed, or the gateway refused the request
  2  the command line is wrong
  3  the run was cancelled
  4  the gateway cannot be reached
  130  you left with Ctrl-C while the run goes on
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; its exit status."""
    arguments = build_parser().parse_args(argv)
    # httpx and pydantic take 0.4 s to import: `--help` and a mistyped command do not wait for them.
    from dialtone.commands import execute  # noqa: PLC0415

    return execute(arguments)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="dialtone",
        description="Run agents on tasks and watch them work, through any Dialtone gateway.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _gateway_options(
        parser,
        url=os.environ.get("DIALTONE_URL") or "http://127.0.0.1:8080",
        key=os.environ.get("DIALTONE_KEY") or "",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_attach(commands)
    _add_records(commands)
    _add_steering(commands)
    _add_files(commands)
    _add_previews(commands)
    _add_history(commands)
    add_desk(commands, _command)
    return parser


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add_run(commands: Commands) -> None:
    run = _command(commands, "run", "start a task and watch it")
    run.add_argument("task", help="what to do; `-` reads it from standard input")
    run.add_argument("--thread", metavar="ID", help="continue this thread instead of making one")
    run.add_argument("--title", default="", help="name of a new thread (default: how the task begins)")
    run.add_argument("--model", metavar="NAME", help="a model of the gateway's configuration")
    run.add_argument("--planning", metavar="NAME", help="the model of the first turn")
    run.add_argument("--summaries", metavar="NAME", help="the model that sums up when the context is full")
    run.add_argument(
        "--file", metavar="PATH", action="append", default=[], help="upload this for the task (repeatable)"
    )
    run.add_argument("--policy", choices=["enqueue", "reject", "interrupt", "steer"], help="if the thread is busy")
    run.add_argument("--budget-usd", type=_above_zero, metavar="USD", help="stop after spending this much")
    run.add_argument("--budget-turns", type=_count, metavar="N", help="stop after this many model calls")
    run.add_argument("--budget-tokens", type=_count, metavar="N", help="stop after this many tokens")
    run.add_argument("--budget-seconds", type=_above_zero, metavar="S", help="stop after this long")
    run.add_argument("--detach", action="store_true", help="print the run's id and return at once")
    _view_options(run)


def _add_attach(commands: Commands) -> None:
    attach = _command(commands, "attach", "watch a thread or a run; leaving does not stop it")
    attach.add_argument("target", metavar="THREAD|RUN")
    attach.add_argument(
        "--from", dest="start", default="start", metavar="start|now|ID", help="where to begin (default: start)"
    )
    _view_options(attach)


def _add_records(commands: Commands) -> None:
    threads = _command(commands, "threads", "list threads, newest first")
    threads.add_argument("-q", "--search", dest="q", default="", help="only titles that contain this")
    runs = _command(commands, "runs", "list the runs of a thread, newest first")
    runs.add_argument("thread", metavar="THREAD")
    for parser in (threads, runs):
        parser.add_argument("--limit", type=_count, default=20, metavar="N")
        parser.add_argument("--json", action="store_true", help="one JSON object per line")


def _add_steering(commands: Commands) -> None:
    cancel = _command(commands, "cancel", "stop a run")
    cancel.add_argument("run", metavar="RUN")
    cancel.add_argument("--reason", default="")
    steer = _command(commands, "steer", "tell a running agent something")
    steer.add_argument("run", metavar="RUN")
    steer.add_argument("text")
    answer = _command(commands, "answer", "answer a question of a run")
    answer.add_argument("target", metavar="THREAD|RUN")
    answer.add_argument("question", metavar="QUESTION")
    answer.add_argument("answer")
    answer.add_argument("--note", default="", help="a remark for the agent")


def _add_files(commands: Commands) -> None:
    files = commands.add_parser("files", help="the files of a thread's workspace")
    actions = files.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = _command(actions, "ls", "list files")
    listing.add_argument("thread", metavar="THREAD")
    listing.add_argument("path", nargs="?", default=".")
    listing.add_argument("--depth", type=_count, default=1, metavar="N")
    listing.add_argument("--json", action="store_true", help="one JSON object per line")
    get = _command(actions, "get", "download a file")
    get.add_argument("thread", metavar="THREAD")
    get.add_argument("path")
    get.add_argument("local", nargs="?", help="where to (default: the same name here; `-`: standard output)")
    put = _command(actions, "put", "upload a file")
    put.add_argument("thread", metavar="THREAD")
    put.add_argument("local", help="`-` reads standard input")
    put.add_argument("path", nargs="?", help="where to in the workspace (default: the same name; needed with `-`)")
    remove = _command(actions, "rm", "delete a file")
    remove.add_argument("thread", metavar="THREAD")
    remove.add_argument("path")
    archive = _command(actions, "archive", "download the workspace as one archive")
    archive.add_argument("thread", metavar="THREAD")
    archive.add_argument("local", help="where to; `-`: standard output")
    archive.add_argument("--path", default=".", help="only what is below this folder")
    archive.add_argument("--format", choices=("tar", "zip"), help="default: as the name ends, else tar")


def _add_previews(commands: Commands) -> None:
    previews = commands.add_parser("previews", help="links to servers in a thread's sandbox")
    actions = previews.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = _command(actions, "ls", "list links that hold, oldest first")
    listing.add_argument("thread", metavar="THREAD")
    listing.add_argument("--json", action="store_true", help="one JSON object per line")
    revoke = _command(actions, "revoke", "end a link at once")
    revoke.add_argument("thread", metavar="THREAD")
    revoke.add_argument("preview", metavar="PREVIEW", help="its id, as `ls` prints it")


def _add_history(commands: Commands) -> None:
    logs = _command(commands, "logs", "print the events of a thread or a run, one line each")
    logs.add_argument("target", metavar="THREAD|RUN")
    logs.add_argument("-f", "--follow", action="store_true", help="wait for more")
    logs.add_argument("--after", default="", metavar="ID", help="only events after this one")
    logs.add_argument("--json", action="store_true", help="the events as JSON Lines")
    export = _command(commands, "export", "write the events of a run as JSON Lines")
    export.add_argument("run", metavar="RUN")
    export.add_argument("-o", "--output", default="-", metavar="FILE", help="default: standard output")
    replay = commands.add_parser("replay", help="show an exported run as it looked live; needs no gateway")
    replay.add_argument("file", help="`-` reads standard input")
    replay.add_argument("--reasoning", action="store_true", help="show what the model thought")


def _command(commands: Commands, name: str, purpose: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=purpose, description=purpose.capitalize() + ".")
    # Given after the command, the options win; SUPPRESS keeps those given before it.
    _gateway_options(parser, url=argparse.SUPPRESS, key=argparse.SUPPRESS)
    return parser


def _gateway_options(parser: argparse.ArgumentParser, *, url: str, key: str) -> None:
    parser.add_argument("--url", default=url, help="the gateway (default: $DIALTONE_URL or http://127.0.0.1:8080)")
    parser.add_argument("--key", default=key, help="API key; better in $DIALTONE_KEY, where `ps` does not show it")


def _view_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="events as JSON Lines instead of the view")
    parser.add_argument("--deltas", action="store_true", help="with --json: previews of unfinished text as well")
    parser.add_argument("--reasoning", action="store_true", help="show what the model thinks")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more: {text!r}")
    return int(text)


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number, more than 0: {text!r}")
    return value
