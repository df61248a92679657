"""Which sandbox tier holds on this machine, and why: `./run.sh sandbox check`."""

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path

from workflow.core.config import SandboxSettings
from workflow.core.config_load import load
from workflow.core.errors import DialtoneError
from workflow.sandboxes.base import TierReport
from workflow.sandboxes.local import REFUSED, LocalProvider
from workflow.sandboxes.tiers import TIERS


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when a tier holds, 1 when commands would be refused or the settings are wrong."""
    options = _parser().parse_args(arguments)
    try:
        settings = load().settings
        changed = {"mode": options.mode} if options.mode else {}
        found = asyncio.run(_check(settings.sandbox.model_copy(update=changed), Path(settings.data_dir)))
    except DialtoneError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    print(json.dumps(asdict(found)) if options.json else _text(found))
    return 1 if found.tier == REFUSED else 0


async def _check(settings: SandboxSettings, data_dir: Path) -> TierReport:
    async with LocalProvider(settings, data_dir=data_dir) as provider:
        return await provider.check()


def _text(found: TierReport) -> str:
    lines = [f"  {'held' if probe.held else 'OPEN':5} {probe.name:24} {probe.detail}" for probe in found.probes]
    verdict = "commands are refused" if found.tier == REFUSED else f"tier {found.tier}"
    lines += ["", f"{found.provider}: {verdict}"]
    lines += [f"  not promised: {gap}" for gap in found.gaps]
    lines += [f"  to do better: {advice}" for advice in found.advice]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run.sh sandbox check", description=__doc__)
    parser.add_argument("--mode", choices=("auto", *TIERS), default="", help="check this tier instead of config.toml's")
    parser.add_argument("--json", action="store_true", help="print the report as one line of JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
