"""`python driver.py [WORKER WORDS…]`: the real supervisor in a process of its own, with stand-ins for its parts."""

import asyncio
import sys
from pathlib import Path

from scripts.stack.__main__ import until_signal, up
from scripts.stack.output import Output
from scripts.stack.plan import Plan
from workflow.core.config_load import load

STAND_INS = str(Path(__file__).with_name("stand_ins.py"))

if __name__ == "__main__":
    loaded = load()
    plan = Plan(loaded, (sys.executable, STAND_INS, "gateway"), (sys.executable, STAND_INS, "worker", *sys.argv[1:]))
    output = Output(sys.stderr, loaded.settings.log)
    sys.exit(asyncio.run(until_signal(lambda stop: up(plan, output, stop=stop))))
