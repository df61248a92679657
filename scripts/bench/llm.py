"""What the model layer costs: CPU per streamed piece, 500 streams at once, load time and memory.

`python -m scripts.bench.llm` runs raw httpx, raw aiohttp and both drivers one after the other against the same
local server, each in a process of its own, and prints ratios. Absolute times say little: this machine is shared.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLIENTS = ("aiohttp", "httpx", "direct", "litellm")
ROUNDS = 3
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def server(chunks: int, pace_s: float, calls: int = 1) -> Iterator[str]:
    """A paced stream server in a process of its own; gives its base URL. calls: answers of one conversation."""
    command = [sys.executable, "-m", "scripts.bench.stream_server", str(chunks), str(pace_s), str(calls)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
    finally:
        process.kill()
        process.wait()


def measured(client: str, base_url: str, streams: int) -> dict[str, float]:
    """Figures of one client; see `llm_client.measure`."""
    command = [sys.executable, "-m", "scripts.bench.llm_client", client, base_url, str(streams)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=300, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def per_piece(streams: int, chunks: int) -> None:
    """CPU of the client for one streamed piece, pieces coming one at a time."""
    print(f"\nCPU per streamed piece: {streams} streams x {chunks} pieces, one per 5 ms and stream, best of {ROUNDS}")
    print(f"{'client':<10}{'us/piece':>10}{'of aiohttp':>12}{'of httpx':>10}")
    with server(chunks, 0.005) as url:
        rounds = [{client: measured(client, url, streams) for client in CLIENTS} for _ in range(ROUNDS)]
    costs = {client: min(figures[client]["us_per_piece"] for figures in rounds) for client in CLIENTS}
    for client, cost in costs.items():
        print(f"{client:<10}{cost:>10.1f}{cost / costs['aiohttp']:>11.1f}x{cost / costs['httpx']:>9.1f}x")


def at_once(streams: int, chunks: int, pace_s: float) -> None:
    """Many streams at once in one process."""
    ideal_s = chunks * pace_s
    print(f"\n{streams} streams at once x {chunks} pieces, {1 / pace_s:.0f} pieces/s each; at best {ideal_s:.1f} s")
    print(f"{'client':<10}{'wall s':>8}{'CPU s':>8}{'worst lag ms':>14}{'load s':>8}{'loaded MB':>11}{'peak MB':>9}")
    with server(chunks, pace_s) as url:
        for client in CLIENTS:
            figures = measured(client, url, streams)
            print(
                f"{client:<10}{figures['wall_s']:>8.1f}{figures['cpu_s']:>8.1f}{figures['lag_ms']:>14.0f}"
                f"{figures['load_s']:>8.1f}{figures['loaded_mb']:>11.0f}{figures['peak_mb']:>9.0f}"
            )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=500, help="streams at once")
    given = parser.parse_args(arguments)
    per_piece(10, 400)
    at_once(given.streams, 40, 0.05)


if __name__ == "__main__":
    main()
