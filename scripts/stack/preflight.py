"""What must hold before anything is started; every complaint says what to do."""

import asyncio
import errno
import os
import random
import shutil
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from scripts.stack.supervisor import StackError

LEAST_FREE_BYTES = 50_000_000
LOW_FREE_BYTES = 1_000_000_000


def check_data_dir(data_dir: Path) -> list[str]:
    """Makes the folder and tries to write; gives back warnings. Raises: StackError."""
    probe = data_dir / f".probe-{os.getpid()}"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as exc:
        with suppress(OSError):
            probe.unlink()
        raise StackError(_unwritable(data_dir, exc)) from exc
    free = shutil.disk_usage(data_dir).free
    if free < LEAST_FREE_BYTES:
        raise StackError(f"only {free // 1_000_000} MB are free under {data_dir}; make room, or set DIALTONE_DATA_DIR")
    if free < LOW_FREE_BYTES:
        return [f"only {free // 1_000_000} MB are free under {data_dir}"]
    return []


async def watch_disk(data_dir: Path, say: Callable[[str], None], *, every_s: float = 30.0) -> None:
    """Tells, once each time, when the disk runs full and when there is room again; never returns."""
    is_full = False
    while True:
        free = shutil.disk_usage(data_dir).free
        if not is_full and free < LEAST_FREE_BYTES:
            is_full = True
            say(f"only {free // 1_000_000} MB are free under {data_dir}: Redis will refuse to store; make room")
        elif is_full and free > 2 * LEAST_FREE_BYTES:
            is_full = False
            say(f"there is room again under {data_dir}")
        await asyncio.sleep(every_s)


def check_port(host: str, port: int) -> None:
    """Raises: StackError when the gateway could not listen there."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as exc:
        raise StackError(f"gateway.host {host!r} is no address of this machine ({exc.strerror})") from exc
    with socket.socket(family, kind, proto) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as exc:
            raise StackError(_unusable(host, port, exc)) from exc


def free_port(host: str) -> int:
    """A port that is free, and that the kernel gives to nobody before a server which is still to start binds it.

    What `bind` to port 0 gives comes from the range of all outgoing connections: seconds later it may be in use.
    """
    family = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0][0]
    for port in (*random.choices(_quiet_ports(), k=100), 0):
        with socket.socket(family, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.bind((host, port))
            found: int = probe.getsockname()[1]
            return found
    raise StackError(f"no port of {host} is free")


def _quiet_ports() -> Sequence[int]:
    """Ports that no outgoing connection gets."""
    first, last = 32_768, 65_535
    with suppress(OSError, ValueError):  # Linux tells; elsewhere the range begins no lower
        first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    # From 11,000 on there is none that browsers refuse to open. Source: fetch.spec.whatwg.org, "bad port"
    quiet = [port for port in range(11_000, 65_536) if not first <= port <= last]
    return quiet or range(11_000, 65_536)


def _unwritable(data_dir: Path, exc: OSError) -> str:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk under {data_dir} is full; make room, or set DIALTONE_DATA_DIR to another disk"
    if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"cannot write to {data_dir} ({exc.strerror}); own it, or set DIALTONE_DATA_DIR to a folder of yours"
    return f"cannot use {data_dir} ({exc.strerror}); set DIALTONE_DATA_DIR to another folder"


def _unusable(host: str, port: int, exc: OSError) -> str:
    other = "choose another: DIALTONE_GATEWAY__PORT=8081 ./run.sh"
    if exc.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken by another program; stop it, or {other}"
    if exc.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has; {other}"
    if exc.errno == errno.EADDRNOTAVAIL:
        return f"gateway.host {host!r} is no address of this machine; use 127.0.0.1 or 0.0.0.0"
    return f"cannot listen on {host}:{port} ({exc.strerror}); {other}"
