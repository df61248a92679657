"""What the agent itself costs: prompt, turns, tokens, shell, a worker's start, and many runs at once.

`./run.sh bench agent` measures everything; parts can be named: `./run.sh bench agent prompt turn`.
"""

import argparse
import asyncio
import os

from scripts.bench import agent_runs, agent_turns
from scripts.bench.llm import per_piece

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

PARTS = {
    "prompt": lambda given: asyncio.run(agent_turns.prompt()),
    "turn": lambda given: asyncio.run(agent_turns.overhead()),
    "bash": lambda given: asyncio.run(agent_turns.shell()),
    "tokens": lambda given: per_piece(10, 400),
    "worker": lambda given: agent_runs.start(),
    "runs": lambda given: asyncio.run(agent_runs.at_once(given.runs)),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bench agent", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)}; all without any")
    parser.add_argument("--runs", type=int, default=500, help="streaming runs at once")
    given = parser.parse_args(arguments)
    if unknown := set(given.parts) - PARTS.keys():
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    for part in given.parts or PARTS:
        PARTS[part](given)


if __name__ == "__main__":
    main()
