"""Attacks on what lies outside: the host's files, processes, sockets and kernel. Each is tried for real on each tier.

The attempts are those of the start-up check (`canaries.py`); it ran once per tier, here each gets its verdict.
"""

import asyncio
import contextlib
import hashlib
import socket
import sys
from pathlib import Path

import pytest

from tests.sandboxes.holding import report, why_not
from tests.sandboxes.inside import python
from workflow.core.config import SandboxSettings
from workflow.core.errors import ToolError
from workflow.core.ids import ThreadId
from workflow.sandboxes import canaries
from workflow.sandboxes.local import LocalProvider
from workflow.sandboxes.local_sandbox import LocalSandbox
from workflow.sandboxes.probes import attack, canary_targets
from workflow.sandboxes.tiers import TIERS, Tier

NAMES = [found.__name__.replace("_", " ") for found in canaries.ATTACKS]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tier", TIERS)
def test_the_attack_is_refused(tier: Tier, name: str) -> None:
    if reason := why_not(tier):
        pytest.skip(reason)
    probe = next(probe for probe in report(tier).probes if probe.name == name)
    assert probe.held, probe.detail


async def test_the_attacks_succeed_where_nothing_confines_them(folder: Path) -> None:
    """Else they would prove nothing about the tiers that withstand them."""
    async with LocalProvider(SandboxSettings(mode="unsafe_host"), data_dir=folder) as provider:
        with canary_targets(folder) as targets:
            probes = await attack(await provider.open(ThreadId("open")), targets, caps=False)
    succeeded = {probe.name for probe in probes if not probe.held}
    assert succeeded >= {
        "read host file",
        "write host folder",
        "list data folder",
        "see host processes",
        "signal worker",
        "connect host tcp",
        "connect abstract socket",
        "connect named socket",
        "nest user namespace",
        "call the kernel",
        "type into terminal",
        "keep privileges",
    }


async def test_another_threads_files_are_out_of_reach(provider: LocalProvider, sandbox: LocalSandbox) -> None:
    other = await provider.open(ThreadId("victim"))
    await other.write("secret", b"not yours")
    path = other.place.workspace / "secret"
    result = await sandbox.exec(f"cat {path} ../victim/secret {other.place.state}/home/x; ls {path.parent}; exit 0")
    assert result.stdout == b""


async def test_a_restore_never_writes_through_links_that_are_planted_meanwhile(
    sandbox: LocalSandbox, folder: Path
) -> None:
    """The restored folder is swapped with a link to a folder of the host all the time."""
    outside = folder / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    for number in range(20):
        await sandbox.write(f"d/f{number}", b"restored")
    snapshot = await sandbox.snapshot("one")
    swapping = await sandbox.start(f"while :; do mv -T d e; ln -s {outside} d; rm d; mv -T e d; rm -f d/f1; done")
    for _ in range(40):
        with contextlib.suppress(ToolError):  # where the folder is gone at that moment
            await sandbox.restore(snapshot)
    await swapping.kill()
    assert list(outside.iterdir()) == []
    for name in ("d", "e"):
        await sandbox.remove(name)
    await sandbox.restore(snapshot)
    assert len(await sandbox.list("d")) == 20


async def test_the_environment_of_the_worker_is_nowhere_inside(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIALTONE_CANARY_KEY", "sk-canary-7b1e")
    sandbox = await provider.open(ThreadId("late"))
    found = await sandbox.exec("env; cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'")
    assert b"canary" not in found.stdout.lower().replace(b"/proc/*/environ", b"")


async def test_the_line_to_the_worker_is_out_of_reach(sandbox: LocalSandbox) -> None:
    """Neither init's descriptors nor those of a command's own supervisor hold a socket one could take."""
    result = await python(
        sandbox,
        """
        import os
        found = []
        for pid in (1, os.getppid(), os.getpid()):
            try:
                found += [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            except OSError as error:
                found.append(f"refused {error.errno}")
        print([name for name in found if "socket" in name])
        """,
    )
    assert result.stdout.strip() in (b"[]", b""), result


async def test_no_disk_and_no_memory_device_is_there(sandbox: LocalSandbox) -> None:
    result = await sandbox.exec(
        "for d in /dev/vda /dev/sda /dev/mem /dev/kmem /dev/kvm; do head -c1 $d && echo OPEN; done"
    )
    assert b"OPEN" not in result.stdout


async def test_setuid_programs_give_no_privileges(sandbox: LocalSandbox) -> None:
    result = await sandbox.exec(
        "for p in $(find /usr/bin /usr/sbin /bin -perm -4000 2>/dev/null); do"
        "  echo x | timeout 1 $p -c id 2>/dev/null | grep uid=0 && echo ROOT; done; exit 0"
    )
    assert b"ROOT" not in result.stdout


async def test_the_interpreter_and_init_cannot_be_overwritten(sandbox: LocalSandbox, tier: Tier) -> None:
    before = hashlib.sha256(_interpreter().read_bytes()).hexdigest()
    await python(
        sandbox,
        """
        import os, sys
        for path in (sys.executable, "/proc/1/exe", "/proc/self/exe", f"/proc/{os.getppid()}/exe"):
            try:
                os.write(os.open(path, os.O_WRONLY), b"owned")
            except OSError:
                pass
        """,
    )
    assert hashlib.sha256(_interpreter().read_bytes()).hexdigest() == before


def _interpreter() -> Path:
    return Path(sys.executable).resolve()


async def test_a_command_has_no_terminal(sandbox: LocalSandbox) -> None:
    result = await sandbox.exec("tty; test -t 0 -o -t 1 -o -t 2 && echo TERMINAL; : > /dev/tty || echo refused")
    assert b"TERMINAL" not in result.stdout and b"refused" in result.stdout


async def test_a_port_of_the_host_is_not_reached_through_a_preview(sandbox: LocalSandbox, tier: Tier) -> None:
    if tier == "T2":
        pytest.skip("commands in T2 have no sockets, so there are no previews")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        host = (await sandbox.address(server.getsockname()[1])).host
        reader, writer = await asyncio.open_unix_connection(host.removeprefix("unix:"))
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        with pytest.raises(BlockingIOError):
            server.accept()
