"""Plays an exported run again: `./run.sh replay FILE`, with another model, prompt or configuration if asked for."""

import argparse
import asyncio
import dataclasses
import json
import os
import sys
from pathlib import Path

from dialtone.text import neutral
from workflow.core.config import Settings
from workflow.core.config_load import load
from workflow.core.errors import BadInput, DialtoneError
from workflow.llm.cassette import Cassette
from workflow.runner.outcome import Outcome, diff
from workflow.runner.replay import Replayed, replay


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0: the run came to the same; 1: to something else; 2: it could not be played."""
    options = _parser().parse_args(arguments)
    try:
        cassette = _cassette(options.file)
        loaded = load(options.config)
        environ = loaded.environment | dict(os.environ)
        replayed = asyncio.run(
            replay(
                cassette,
                _with_prompt(loaded.settings, options.prompt),
                environ=environ,
                model=options.model,
                tools=options.tools or ("recorded" if options.model is None else "sandbox"),
                workspace=options.workspace,
            )
        )
    except (DialtoneError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    print(_as_json(replayed) if options.json else neutral(_as_text(cassette, replayed)))
    return 0 if replayed.is_same else 1


def _cassette(name: str) -> Cassette:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{name}: is no text") from error
    return Cassette.read(text.split("\n"))  # not splitlines: JSON may hold U+2028 and its like as they are


def _with_prompt(settings: Settings, prompt: Path | None) -> Settings:
    if prompt is None:
        return settings
    if not prompt.is_file():
        raise BadInput(f"{prompt}: no such file")
    agent = settings.agent.model_copy(update={"prompt_file": str(prompt)})
    return settings.model_copy(update={"agent": agent})


def _as_text(cassette: Cassette, replayed: Replayed) -> str:
    lines = [f"run {cassette.header.run_id} of {cassette.header.model}", *diff(replayed.then, replayed.now)]
    if replayed.mismatches:
        lines += ["asked for otherwise than recorded:", *(f"  {mismatch}" for mismatch in replayed.mismatches)]
    lines.append("the same" if replayed.is_same else "NOT the same")
    return "\n".join(lines)


def _as_json(replayed: Replayed) -> str:
    def plain(outcome: Outcome) -> dict[str, object]:
        return dataclasses.asdict(outcome) | {"usage": outcome.usage.model_dump()}

    found = {"same": replayed.is_same, "mismatches": replayed.mismatches}
    return json.dumps(found | {"recorded": plain(replayed.then), "replayed": plain(replayed.now)}, ensure_ascii=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="replay", description="Plays an exported run again and compares the outcome.")
    parser.add_argument("file", help="what `export` wrote; `-`: standard input")
    parser.add_argument("--model", metavar="NAME", help="let this model of the configuration answer, live")
    parser.add_argument("--prompt", metavar="FILE", type=Path, help="another role prompt; asks for --model to matter")
    parser.add_argument("--config", metavar="FILE", type=Path, help="another config.toml")
    parser.add_argument(
        "--tools",
        choices=["recorded", "sandbox"],
        help="`recorded`: what the same call gave then; `sandbox`: run it; default: sandbox with --model",
    )
    parser.add_argument("--workspace", metavar="DIR", type=Path, help="files that the sandbox begins with")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    return parser


if __name__ == "__main__":
    sys.exit(main())
