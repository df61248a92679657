"""`./run.sh chaos [--minutes N]`: ends with status 0 when no promise was broken."""

import argparse
import asyncio
import random
import sys
import time
from pathlib import Path

from dialtone.client import AsyncClient
from scripts.chaos.account import Account
from scripts.chaos.faults import Faults
from scripts.chaos.load import Load
from tests.line import Line
from tests.ports import free_port

LEASE_S = 3.0
SETTLE_S = 60


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run.sh chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to break things (default 10)")
    parser.add_argument("--runs-at-once", type=int, default=12)
    parser.add_argument("--pause", type=float, default=4.0, help="seconds between two faults (default 4)")
    parser.add_argument("--seed", type=int, default=None, help="repeats the same choices")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(10_000)
    print(f"breaking things for {options.minutes:g} minutes, seed {seed}", flush=True)
    return asyncio.run(chaos(options.minutes, options.runs_at_once, options.pause, seed))


async def chaos(minutes: float, at_once: int, pause_s: float, seed: int) -> int:
    """The exit status: 0 when every promise held and enough was tried."""
    ports = [free_port(), free_port()]
    line = Line(port=ports[0])
    effects = line.folder / "effects.txt"
    line.settings = {
        "DIALTONE_RUNS__LEASE_S": str(LEASE_S),
        "DIALTONE_RUNS__REAP_EVERY_S": "0.5",
        "DIALTONE_RUNS__STALE_QUEUED_S": "2",
        "DIALTONE_LIMITS__REQUESTS_PER_MINUTE": "0",
        "DIALTONE_LIMITS__EXECUTES_PER_MINUTE": "0",
        "DIALTONE_TOOLS__PLUGIN_FOLDER": str(Path(__file__).parent / "tools"),
        "CHAOS_EFFECTS": str(effects),
    }
    try:
        line.start(workers=3)
        line.gateway(ports[1])
        load = Load([f"http://127.0.0.1:{port}" for port in ports], at_once=at_once, seed=seed)
        faults = Faults(line, ports, lease_s=LEASE_S, seed=seed)
        account = Account()
        working = asyncio.create_task(load.serve())
        started = time.monotonic()
        reporting = asyncio.create_task(_report(load, faults, started))
        await faults.serve(started + minutes * 60, pause_s=pause_s)
        load.stop()
        lasted = (time.monotonic() - started) / 60
        await asyncio.wait([working], timeout=SETTLE_S)
        reporting.cancel()
        working.cancel()
        await asyncio.gather(working, reporting, return_exceptions=True)
        async with AsyncClient(line.url) as client:
            for watched in load.runs:
                await account.add(client, watched, faults.gone)
        account.effects(effects)
        await load.close()
    finally:
        line.stop()
    print(account.table(faults.done, lasted))
    for trouble in account.troubled[:10]:
        print(trouble)
    broken = {name: count for name, count in account.violations().items() if count}
    if broken:
        print(f"BROKEN: {broken}; the logs are in {line.folder}")
    tried = account.ended["flow_completion"] >= 0.9 * account.accepted > 0
    if not tried:
        print("too few runs finished for the result to mean anything")
    return 0 if tried and not broken else 1


async def _report(load: Load, faults: Faults, started: float) -> None:
    while True:
        await asyncio.sleep(30)
        ended = sum(1 for run in load.runs if run.seen)
        print(
            f"{time.monotonic() - started:5.0f} s  {len(load.runs)} runs ({ended} seen), "
            f"{sum(faults.done.values())} faults",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
