"""The Landlock ruleset of tier T2: what a command may touch where bubblewrap cannot be used.

Landlock closes files, TCP, abstract sockets and signals to the outside, but not UDP, named sockets or `stat`; the
seccomp filter of this tier therefore refuses every socket. Source: docs.kernel.org/userspace-api/landlock.html
"""

import ctypes
import os
import struct
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from workflow.core.errors import SandboxRefused

MIN_ABI = 6
"""The first that keeps signals and abstract sockets inside."""
SYS_CREATE_RULESET, SYS_ADD_RULE = 444, 445
CREATE_RULESET_VERSION, RULE_PATH_BENEATH = 1, 1
ALL_FILES = (1 << 16) - 1
"""Every right up to IOCTL_DEV (ABI 5)."""
ALL_TCP, ALL_SCOPES = 0b11, 0b11
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
MAKE_DEVICES = 1 << 6 | 1 << 11
READ = EXECUTE | READ_FILE | READ_DIR
CHANGE = ALL_FILES & ~MAKE_DEVICES & ~IOCTL_DEV

READABLE = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives", "/etc/ca-certificates", "/etc/fonts"),
    *("/etc/group", "/etc/hosts", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime"),
    *("/etc/mime.types", "/etc/nsswitch.conf", "/etc/passwd", "/etc/pki", "/etc/protocols", "/etc/services"),
    *("/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/terminfo", "/proc/cpuinfo", "/proc/meminfo", "/proc/version"),
    *("/proc/filesystems", "/proc/sys/kernel", "/proc/sys/vm", "/dev/urandom", "/dev/random"),
)
DEVICES = ("/dev/null", "/dev/full", "/dev/zero")

_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """The kernel's Landlock version; 0 when it has none or it is switched off."""
    return max(0, int(_libc.syscall(SYS_CREATE_RULESET, None, 0, CREATE_RULESET_VERSION)))


def ruleset(*, readable: Iterable[Path], writable: Iterable[Path], hidden: Collection[Path] = ()) -> int:
    """A descriptor to restrict a process with: the system's programs and `readable` to read, `writable` to change.

    hidden: folders that must not be read though they lie below one that is; those above them cannot be listed then.
    Raises: SandboxRefused if this kernel's Landlock is too old.
    """
    if abi() < MIN_ABI:
        raise SandboxRefused(f"Landlock {MIN_ABI} (Linux 6.12) is needed, this kernel has {abi() or 'none'}")
    attributes = struct.pack("=QQQ", ALL_FILES, ALL_TCP, ALL_SCOPES)
    fd = int(_libc.syscall(SYS_CREATE_RULESET, attributes, len(attributes), 0))
    if fd < 0:
        raise SandboxRefused(f"Landlock refused its ruleset: {os.strerror(ctypes.get_errno())}")
    try:
        for shared in (*map(Path, READABLE), *readable):
            for path in _around(shared.resolve(), hidden):
                _allow(fd, path, READ)
        for path in map(Path, DEVICES):
            _allow(fd, path, READ_FILE | WRITE_FILE)
        for path in writable:
            _allow(fd, path, CHANGE)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _around(path: Path, hidden: Collection[Path]) -> Iterator[Path]:
    """`path`, or what is in it beside the hidden folders: a rule is about everything below."""
    if path in hidden:
        return
    if not any(folder.is_relative_to(path) for folder in hidden):
        yield path
        return
    for below in path.iterdir():
        if not below.is_symlink():  # What it leads to has a rule of its own, or is not to be read.
            yield from _around(below, hidden)


def _allow(ruleset_fd: int, path: Path, access: int) -> None:
    try:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not path.is_dir():
            access &= ON_FILES
        rule = struct.pack("=Qi", access, beneath)
        if _libc.syscall(SYS_ADD_RULE, ruleset_fd, RULE_PATH_BENEATH, rule, 0):
            raise SandboxRefused(f"Landlock refused a rule for {path}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(beneath)
