"""How each local tier starts a sandbox: the same init, held by bubblewrap, by Landlock, or by nothing."""

import contextlib
import marshal
import os
import resource
import sys
from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import cache
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Literal

from workflow.core.config import SandboxSettings
from workflow.sandboxes import bubblewrap, init, landlock, seccomp
from workflow.sandboxes.base import WORKDIR
from workflow.sandboxes.cell import Launch
from workflow.sandboxes.proxy import PORT
from workflow.sandboxes.seccomp import Kind
from workflow.sandboxes.staging import as_user

Tier = Literal["T1", "T1b", "T2", "unsafe_host"]
TIERS: tuple[Tier, ...] = ("T1", "T1b", "T2")
"""Strongest first; `unsafe_host` is never chosen, only written by the operator."""
OPEN_FILES = 4096
_TERMINALS = "pseudo-terminals are not limited: one sandbox can use up those of all sandboxes, though not the host's"
_UNSEEN = (
    "without root, folders that a command closes to itself are not measured, nor what a process holds open "
    "that forbids to look at it"
)
_GAPS: dict[Tier, tuple[str, ...]] = {
    "T1": (
        "the kernel is shared with the host",
        _TERMINALS,
        "the disk limit is polled: a command can overshoot it for a moment",
    ),
    "T1b": (
        "the kernel is shared with the host",
        _TERMINALS,
        "memory and disk of the whole sandbox are polled: a command can overshoot them for a moment",
        _UNSEEN,
    ),
    "T2": (
        "the kernel is shared with the host",
        "commands have no sockets at all: no local servers, no network, no previews",
        "no shared memory (/dev/shm), so e.g. Python's multiprocessing locks do not work",
        "names, sizes and times of host files can be asked for (stat), their content cannot",
        "without root, changes of modes, owners and times by path have no effect, e.g. chmod +x",
        "the disk limit is polled: a command can overshoot it for a moment",
        _UNSEEN,
        "without root, processes are limited together with all others of the worker's user",
    ),
    "unsafe_host": ("nothing is confined: commands can do whatever the worker can",),
}
_GAPS_WITHOUT_GROUP = (
    "memory of the whole sandbox is polled: a command can overshoot it for a moment",
    "commands survive if the host kills the sandbox's own first process",
)
_NO_CPU_LIMIT = "CPU time is not limited"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one thread's sandbox lives on the host, and as whom."""

    workspace: Path
    state: Path
    """Its other folder: `home`, `tmp`, `lock`."""
    uid: int


def gaps(tier: Tier, *, controllers: Set[str]) -> tuple[str, ...]:
    """What the tier does not promise; controllers: those of the control groups that can be made here, if any."""
    found = _GAPS[tier]
    if tier == "T2" and not controllers:
        found += _GAPS_WITHOUT_GROUP
    if tier == "T1b" or (tier != "unsafe_host" and "cpu" not in controllers):
        found += (_NO_CPU_LIMIT,)
    return found


def workdir(tier: Tier, place: Place) -> str:
    """The workspace's path as commands see it."""
    return WORKDIR if tier in ("T1", "T1b") else str(place.workspace)


def environment(tier: Tier, place: Place, settings: SandboxSettings) -> dict[str, str]:
    """What every command starts with, and nothing of ours."""
    inside = tier in ("T1", "T1b")
    extra = _way_out(settings) if inside and settings.network != "off" else {}
    return extra | {
        "PATH": f"/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin:{Path(sys.base_prefix) / 'bin'}",
        "HOME": bubblewrap.HOME if inside else str(place.state / "home"),
        "TMPDIR": "/tmp" if inside else str(place.state / "tmp"),
        "USER": "agent",
        "LOGNAME": "agent",
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "PAGER": "cat",
        "GIT_PAGER": "cat",
        "GIT_TERMINAL_PROMPT": "0",
    }


def _way_out(settings: SandboxSettings) -> dict[str, str]:
    """Tells programs about the proxy, and about the certificates with ours among them."""
    address = f"http://127.0.0.1:{PORT}"
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    found = dict.fromkeys(names, address) | dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1,::1")
    found["NODE_USE_ENV_PROXY"] = "1"
    if settings.credentials:
        bundles = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO")
        found |= dict.fromkeys((*bundles, "PIP_CERT"), bubblewrap.TRUSTED)
    return found


@dataclass(frozen=True, slots=True)
class Means:
    """What confinement is made of, found on this machine; tests take parts away or break them."""

    bwrap: Callable[[], str] = bubblewrap.find
    """The path of bubblewrap. Raises: SandboxRefused."""
    features: Callable[[str], frozenset[str]] = bubblewrap.features
    """The options bubblewrap has."""
    seccomp: Callable[[Kind], bytes] = seccomp.build
    """The system call filter. Raises: SandboxRefused."""
    ruleset: Callable[..., int] = landlock.ruleset
    """A Landlock ruleset's descriptor. Raises: SandboxRefused."""


def launch(
    tier: Tier,
    place: Place,
    settings: SandboxSettings,
    *,
    means: Means,
    lock: int,
    hidden: tuple[Path, ...] = (),
    trusted: bytes = b"",
) -> Launch:
    """How to start a sandbox of `tier`; `lock` is handed over to it.

    hidden: folders of ours that must not show inside. trusted: certificates that programs inside are to trust.
    Raises: SandboxRefused if what the tier needs is missing here; SandboxError if the folders are out of reach.
    """
    prefix = Path(sys.base_prefix).resolve()
    own = (place.workspace, place.state / "home", place.state / "tmp")
    before = as_user(place.uid, (*own, prefix)) if os.geteuid() == 0 and tier != "unsafe_host" else ()
    with contextlib.ExitStack() as undo:
        program = _program()
        undo.callback(os.close, program)
        run_init = (str(Path(sys.executable).resolve()), "-I", "-S", f"/proc/self/fd/{program}")
        if tier in ("T1", "T1b"):
            bwrap = means.bwrap()
            room = bubblewrap.Room(*own, prefix, hidden, settings.memory_bytes // 4, trusted)
            words, fds = bubblewrap.options(room, seccomp=means.seccomp("namespaces"), known=means.features(bwrap))
            undo.callback(_close, fds)
            # In a control group the kernel counts the whole sandbox; without one, each process by itself.
            limits = _limits(settings, processes=settings.processes if tier == "T1b" else 0, memory=tier == "T1b")
            result = Launch((*before, bwrap, *words, *run_init), (program, *fds), limits, held=(lock,))
        elif tier == "T2":
            has_own_user = place.uid != os.getuid()
            filter_ = means.seccomp("own user" if has_own_user else "shared user")
            covered = [path for path in hidden if bubblewrap.may_be_covered(path) and path != prefix]
            rules = means.ruleset(readable=(prefix,), writable=own, hidden=covered)
            # The kernel counts all processes of a user, so those that the worker's has already come on top.
            others = 0 if has_own_user else _tasks_of(place.uid)
            limits = _limits(settings, processes=settings.processes + others, memory=True)
            result = Launch(
                (*before, *run_init), (program,), limits, filter_, rules, (lock,), own_pids=False, alone=has_own_user
            )
        else:
            result = Launch((*before, *run_init), (program,), held=(lock,), own_pids=False, alone=False)
        undo.pop_all()
    return result


def _close(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)


def _limits(settings: SandboxSettings, *, processes: int, memory: bool) -> dict[int, int]:
    """RLIMIT_* for each process; the address space stays free, because node and Java reserve far more than they use.

    processes: how many the user may have in all; 0: no limit.
    """
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_FSIZE: settings.disk_bytes,
    }
    if memory:
        limits[resource.RLIMIT_DATA] = settings.memory_bytes
    if processes:
        limits[resource.RLIMIT_NPROC] = processes
    return limits


def _tasks_of(uid: int) -> int:
    """How many processes and threads a user has now."""
    count = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            if int(fields["Uid"].split()[0]) == uid:
                count += int(fields["Threads"])
    return count


def _program() -> int:
    """A descriptor of init, compiled."""
    fd = os.memfd_create("init.pyc")
    os.write(fd, _compiled())
    return fd


@cache
def _compiled() -> bytes:
    """Init as a .pyc file: compiling it in every sandbox would cost more than running it."""
    source = Path(init.__file__)
    code = compile(source.read_bytes(), source.name, "exec", dont_inherit=True)
    return MAGIC_NUMBER + bytes(12) + marshal.dumps(code)
