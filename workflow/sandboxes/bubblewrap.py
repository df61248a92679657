"""The bubblewrap command line of tiers T1 and T1b.

Everything is refused first: all namespaces, no capability, an empty root with only the system's programs read-only
and the workspace writable. Options travel through a descriptor and the environment is empty, because both can be
read inside through `/proc/1` (bubblewrap#725).
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from workflow.core.errors import SandboxRefused
from workflow.sandboxes.base import WORKDIR

HOME = "/home/agent"
TRUSTED = "/run/dialtone-certificates.pem"
UID_INSIDE = 1000
SYSTEM_FOLDERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
CONFIGURATION = (
    *("alternatives", "ca-certificates", "fonts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime"),
    *("mime.types", "pki", "protocols", "services", "ssl/certs", "ssl/openssl.cnf", "terminfo", "java-*", "perl"),
)
"""Below /etc: what programs need and what holds no secret."""
IDENTITY = {
    "/etc/passwd": f"root:x:0:0::/:/bin/false\nagent:x:1000:1000::{HOME}:/bin/bash\nnobody:x:65534:65534::/:/\n",
    "/etc/group": "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n",
    "/etc/hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
SHM_BYTES = 64 << 20
MIN_COVERED_PARTS = 3
ANSWER_S = 5.0
NAMESPACES = (
    "--unshare-user --unshare-pid --unshare-net --unshare-ipc --unshare-uts --unshare-cgroup --cap-drop ALL "
    f"--die-with-parent --new-session --as-pid-1 --hostname sandbox --uid {UID_INSIDE} --gid {UID_INSIDE}"
)


@dataclass(frozen=True, slots=True)
class Room:
    """The folders of one sandbox."""

    workspace: Path
    home: Path
    tmp: Path
    """For temporary files, where bubblewrap cannot bound those in memory."""
    python: Path
    """The prefix of the interpreter that runs init."""
    hidden: tuple[Path, ...] = ()
    """Folders that must not show even if they lie below one that is shared, e.g. the project in /usr/src/app."""
    tmp_bytes: int = 500_000_000
    trusted: bytes = b""
    """Certificates for `TRUSTED`; empty: none of ours."""


def find() -> str:
    """Where bubblewrap is. Raises: SandboxRefused if it is not installed."""
    found = shutil.which("bwrap")
    if found is None:
        raise SandboxRefused("bubblewrap (bwrap) is not installed")
    return found


@cache
def features(bwrap: str) -> frozenset[str]:
    """The options this bubblewrap knows; `--size` came with 0.7, `--disable-userns` with 0.8.

    Raises: SandboxRefused if it does not run.
    """
    try:
        result = subprocess.run([bwrap, "--help"], capture_output=True, text=True, timeout=ANSWER_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxRefused(f"bubblewrap does not run: {error}") from error
    return frozenset(re.findall(r"--[a-z-]+", result.stdout + result.stderr))


def options(room: Room, *, seccomp: bytes, known: frozenset[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The command line after `bwrap`, up to and with `--`, and the descriptors it speaks of (the caller's).

    known: the options this bubblewrap has.
    """
    fds: list[int] = []

    def fd_of(content: bytes) -> str:
        fds.append(_memory_file(content))
        return str(fds[-1])

    try:
        words = _words(room, seccomp, known, fd_of)
        return ("--args", fd_of("\0".join(words).encode()), "--"), tuple(fds)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise


def _words(room: Room, seccomp: bytes, known: frozenset[str], fd_of: Callable[[bytes], str]) -> list[str]:
    words = NAMESPACES.split()
    if "--disable-userns" in known:  # The system call filter refuses new namespaces as well.
        words.append("--disable-userns")
    words += _system()
    for name, text in IDENTITY.items():
        words += ["--ro-bind-data", fd_of(text.encode()), name]
    words += _interpreter(room)
    words += ["--proc", "/proc", "--dev", "/dev", *_temporary(room, sized="--size" in known)]
    # Bubblewrap's /dev is a writable file system in memory, as large as half of the host's.
    words += ["--remount-ro", "/dev", "--dir", "/run", "--dir", "/var", "--symlink", "/tmp", "/var/tmp"]
    if room.trusted:
        words += ["--ro-bind-data", fd_of(room.trusted), TRUSTED]
    words += ["--bind", str(room.home), HOME, "--bind", str(room.workspace), WORKDIR]
    return [*words, "--chdir", WORKDIR, "--remount-ro", "/", "--seccomp", fd_of(seccomp)]


def _system() -> list[str]:
    """The host's programs and what they need to know, read-only."""
    words = ["--ro-bind", "/usr", "/usr"]
    for name in SYSTEM_FOLDERS:
        folder = Path("/", name)
        if folder.is_symlink():
            words += ["--symlink", str(folder.readlink()), str(folder)]
        elif folder.is_dir():
            words += ["--ro-bind", str(folder), str(folder)]
    for pattern in CONFIGURATION:
        for path in Path("/etc").glob(pattern):
            if path.exists():  # A link may lead nowhere, as /etc/localtime where no time zones are installed.
                words += ["--ro-bind", str(path), str(path)]
    return words


def _interpreter(room: Room) -> list[str]:
    """Covers our own folders where they lie below a shared one, and shows the interpreter wherever it lies."""
    covered = _outermost(path for path in room.hidden if path.is_relative_to("/usr") and may_be_covered(path))
    inner = _outermost(path for path in room.hidden if path.is_relative_to(room.python) and path != room.python)
    words = [word for path in covered for word in ("--tmpfs", str(path))]
    if not room.python.is_relative_to("/usr") or any(room.python.is_relative_to(path) for path in covered):
        words += ["--ro-bind", str(room.python), str(room.python)]
    words += [word for path in inner if path not in covered for word in ("--tmpfs", str(path))]
    return words + [word for path in {*covered, *inner} for word in ("--remount-ro", str(path))]


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Those that are in no other: there is nothing in a folder that is covered."""
    found = set(paths)
    return [path for path in found if found.isdisjoint(path.parents)]


def may_be_covered(path: Path) -> bool:
    """False for folders of the system, which a worker may happen to be started in."""
    return len(path.parts) > MIN_COVERED_PARTS


def _temporary(room: Room, *, sized: bool) -> list[str]:
    """Where everybody may write: in memory as far as it can be bounded, else on disk, where it is measured."""
    if not sized:
        return ["--bind", str(room.tmp), "/tmp"]
    words = ["--perms", "1777", "--size", str(room.tmp_bytes), "--tmpfs", "/tmp"]
    return [*words, "--perms", "1777", "--size", str(SHM_BYTES), "--tmpfs", "/dev/shm"]


def _memory_file(content: bytes) -> int:
    fd = os.memfd_create("bubblewrap")
    with os.fdopen(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
