"""A run as one file: `./run.sh export RUN`. What the file holds: docs/cassettes.md."""

import argparse
import os
import sys
from pathlib import Path

from dialtone.errors import ClientError, Unreachable
from dialtone.items import UnknownEvent
from dialtone.sync import Client
from workflow.core.config_load import load
from workflow.core.errors import DialtoneError
from workflow.core.events import Event
from workflow.core.ids import RUN_ID, RunId, thread_of
from workflow.llm.cassette import Cassette
from workflow.runner.recording import record


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0: written; 1: refused; 2: wrong command line; 4: no gateway."""
    options = _parser().parse_args(arguments)
    try:
        url = options.url or _gateway()
        with Client(url, key=options.key) as client:
            cassette = _fetched(client, RunId(options.run))
        text = "".join(f"{line}\n" for line in cassette.lines())
        if options.output == "-":
            sys.stdout.write(text)
        else:
            target = Path(options.output or f"{options.run}.cassette.jsonl")
            target.write_text(text, encoding="utf-8")
            sys.stderr.write(f"{target}: {len(cassette.answers)} answers, {len(cassette.tools)} tool calls\n")
    except Unreachable as error:
        sys.stderr.write(f"{url}: {error}\n")
        return 4
    except (ClientError, DialtoneError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _fetched(client: Client, run_id: RunId) -> Cassette:
    """The run's cassette, made of what the gateway tells of its thread."""
    run = client.run(run_id)
    events: list[Event] = []
    for event in client.events(thread_of(run_id)):
        if isinstance(event, UnknownEvent):
            raise DialtoneError(f"the gateway knows events of type {event.type}, this version does not; update it")
        events.append(event)
    return record(events, run_id, options=run.options)


def _gateway() -> str:
    settings = load().settings.gateway
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="export", description="Writes a run that has ended into one file.")
    parser.add_argument("run", type=_run_id, help="the run's id, <thread>.<suffix>")
    parser.add_argument(
        "-o", "--output", default="", help="the file; `-`: standard output; default: RUN.cassette.jsonl"
    )
    parser.add_argument("--url", default=os.environ.get("DIALTONE_URL", ""), help="the gateway; default: as configured")
    parser.add_argument("--key", default=os.environ.get("DIALTONE_KEY", ""), help="API key; better in $DIALTONE_KEY")
    return parser


def _run_id(text: str) -> str:
    if RUN_ID.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no run id; it looks like 7f3a9c0d5be1482690aa.1c9e03b7")
    return text


if __name__ == "__main__":
    sys.exit(main())
