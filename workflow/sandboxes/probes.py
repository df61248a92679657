"""The start-up check: does a tier hold on this machine? Real attacks against canaries, from inside a real sandbox."""

import contextlib
import ctypes
import hashlib
import marshal
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from workflow.core.errors import DialtoneError
from workflow.sandboxes import canaries
from workflow.sandboxes.base import ExecResult, Probe
from workflow.sandboxes.canaries import Targets
from workflow.sandboxes.guard import usage
from workflow.sandboxes.local_sandbox import LocalSandbox
from workflow.sandboxes.lock import started

TIMEOUT_S = 30.0
"""Enough for a starved machine: an attack that does not get to its end proves nothing."""
CHECK_MEMORY_BYTES = 128_000_000
CHECK_PROCESSES = 24
"""Small limits for the sandbox that is attacked, so that reaching them takes milliseconds."""
HOG = "x = [bytearray(8_000_000) for _ in range(100)]"
IPC_CREAT, IPC_RMID = 0o1000, 0
BOMB = """
import os, time
for count in range(200):
    try:
        pid = os.fork()
    except OSError:
        break
    if pid == 0:
        time.sleep(60)
        os._exit(0)
print(count)
"""
_libc = ctypes.CDLL(None)
DAEMON = "setsid -f sleep 300; (sleep 300 &); sleep 300 & exit 7"


@contextlib.contextmanager
def canary_targets(data_dir: Path) -> Iterator[Targets]:
    """What the attacks aim at: a file, a folder, sockets, this process. Gone afterwards."""
    with contextlib.ExitStack() as stack:
        # Below /tmp, for everybody to reach who can see it: only the sandbox may be in the way.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dialtone-canary-", dir="/tmp")))
        folder.chmod(0o777)
        (folder / "file").write_text("canary")
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        abstract = "dialtone-" + secrets.token_hex(8)
        for address in ("\0" + abstract, str(folder / "socket")):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(address)
            listener.listen()
        (folder / "socket").chmod(0o777)
        key = secrets.randbelow(1 << 30) + 1
        segment = _libc.shmget(key, 1, IPC_CREAT | 0o666)
        stack.callback(_libc.shmctl, segment, IPC_RMID, None)
        environment = [f"{name}={value}".encode() for name, value in os.environ.items()]
        yield {
            "file": str(folder / "file"),
            "folder": str(folder),
            "data_dir": str(data_dir),
            "environment": [hashlib.sha256(entry).hexdigest() for entry in environment if not _is_plain(entry)],
            "pid": os.getpid(),
            "started": started(os.getpid()),
            "shared_memory": key,
            "shared_memory_id": segment,
            "tcp_port": tcp.getsockname()[1],
            "abstract": abstract,
            "socket": str(folder / "socket"),
        }


def _is_plain(entry: bytes) -> bool:
    """Variables a sandbox sets itself, maybe to the same value."""
    return entry.partition(b"=")[0] in {b"PATH", b"HOME", b"USER", b"LOGNAME", b"SHELL", b"LANG", b"TERM", b"PWD", b"_"}


async def attack(sandbox: LocalSandbox, targets: Targets, *, caps: bool = True) -> list[Probe]:
    """How the sandbox took every attack. caps: also those on its limits; never where nothing limits it."""
    try:
        probes = await _attack_from_inside(sandbox, targets)
        probes.append(await _leave_daemons(sandbox))
        probes.append(await _run_as_root(sandbox))
        if caps:
            probes += [await _fork_bomb(sandbox), await _memory_hog(sandbox)]
    except (DialtoneError, OSError) as error:
        return [Probe("starts", False, str(error))]
    return probes


async def _attack_from_inside(sandbox: LocalSandbox, targets: Targets) -> list[Probe]:
    # Not the targets as an argument: that may have 128 KB, and there may be thousands of variables.
    result = await _python(sandbox, "-c", _source(), stdin=marshal.dumps(targets))
    lines = [line.split("\t", 2) for line in result.stdout.decode(errors="replace").splitlines()]
    probes = [Probe(name.replace("_", " "), held == "held", detail) for name, held, detail in lines]
    if len(probes) < len(canaries.ATTACKS):
        probes.append(Probe("starts", False, result.stderr.decode(errors="replace")[-500:]))
    return probes


async def _leave_daemons(sandbox: LocalSandbox) -> Probe:
    result = await sandbox.exec(DAEMON, timeout_s=TIMEOUT_S)
    cell = await sandbox.cell()
    _, left = usage(cell.init_pid)
    return Probe("leave daemons", result.exit_code == 7 and left == 0, f"{left} left, status {result.exit_code}")


async def _run_as_root(sandbox: LocalSandbox) -> Probe:
    """From outside: inside a user namespace everybody may look like an ordinary user."""
    cell = await sandbox.cell()
    uid = _uid_of(cell.init_pid)
    return Probe("run as root", uid != 0, f"user {uid} of the host")


async def _fork_bomb(sandbox: LocalSandbox) -> Probe:
    result = await _python(sandbox, "-", stdin=BOMB.encode())
    count = int(result.stdout or b"0")
    # Where the user's other processes count as well, some of those may have ended meanwhile.
    return Probe("fork bomb", 0 < count <= 2 * CHECK_PROCESSES, f"{count} processes")


async def _memory_hog(sandbox: LocalSandbox) -> Probe:
    result = await _python(sandbox, "-", stdin=HOG.encode())
    return Probe(
        "memory hog", result.exit_code != 0 and not result.timed_out, result.killed_by or f"status {result.exit_code}"
    )


async def _python(sandbox: LocalSandbox, *arguments: str, stdin: bytes) -> ExecResult:
    return await sandbox.exec([interpreter(), "-I", "-S", *arguments], stdin=stdin, timeout_s=TIMEOUT_S)


def interpreter() -> str:
    """The Python that is sure to be inside: the one that runs init."""
    return str(Path(sys.executable).resolve())


def _uid_of(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Uid:"))
    return int(line.split()[2])


def _source() -> str:
    return Path(canaries.__file__).read_text()
