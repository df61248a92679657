"""One process of the stack, on a leash: it ends when the supervisor does, however that happened."""

import asyncio
import ctypes
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Part:
    """A process to keep running."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    stop_s: float = 5.0
    """How long it may take from SIGTERM to its end; then it is killed."""
    death_signal: int = signal.SIGKILL
    """What it gets when the supervisor was killed."""
    keep_open: tuple[int, ...] = ()
    """File descriptors that it inherits."""
    log_file: Path | None = None
    """Where it writes its log when not to its output."""


async def spawn(part: Part) -> Process:
    """Starts `part` in a process group of its own, out of reach of the terminal's Ctrl-C. Raises: OSError."""
    return await asyncio.create_subprocess_exec(
        *part.argv,
        env=dict(part.env),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        start_new_session=True,
        pass_fds=part.keep_open,
        preexec_fn=leash(part.death_signal),
    )


def end_group(process: Process, number: int) -> None:
    """Sends signal `number` to `process` and to everything that it started in its group."""
    with suppress(ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
        os.killpg(process.pid, number)


def how_it_ended(status: int) -> str:
    """A return code in words."""
    if status >= 0:
        return f"exit status {status}"
    name = signal.Signals(-status).name
    return f"{name}, perhaps for want of memory" if name == "SIGKILL" else name


def leash(death_signal: int = signal.SIGKILL) -> Callable[[], None] | None:
    """A `preexec_fn` that ties a child to this process; None where the system has no such thing (macOS)."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    supervisor = os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != supervisor:  # it died before the leash was on
            os._exit(1)

    return tie
