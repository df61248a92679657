"""What happens when a part of the confinement is missing or broken: a weaker tier that says so, or a refusal."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sandboxes.holding import why_not
from workflow.core.config import SandboxSettings
from workflow.core.errors import ConfigError, SandboxError, SandboxRefused
from workflow.core.ids import ThreadId
from workflow.sandboxes import seccomp
from workflow.sandboxes.bubblewrap import find
from workflow.sandboxes.local import LocalProvider
from workflow.sandboxes.tiers import TIERS, Means, Tier

ROOT = Path(__file__).parent.parent.parent
ALLOW_ALL = bytes.fromhex("06000000" + "0000ff7f")
"""A filter of one instruction, `return ALLOW`: it loads, and filters nothing."""
NONSENSE = b"\xff" * 8
"""No instruction at all: the kernel refuses to load it."""


CHECK = """
import asyncio, sys
from pathlib import Path
from workflow.core.config import SandboxSettings
from workflow.sandboxes.local import LocalProvider

async def main():
    async with LocalProvider(SandboxSettings(mode=sys.argv[2]), data_dir=Path(sys.argv[1])) as provider:
        report = await provider.check()
        print(report.tier, report.probes, report.advice, sep="\\n")

asyncio.run(main())
"""


def strongest_tier() -> str:
    """What holds here. Call it outside a running event loop."""
    return next((tier for tier in TIERS if not why_not(tier)), "T3")


def no_bwrap() -> str:
    raise SandboxRefused("bubblewrap (bwrap) is not installed")


def no_landlock(**_: object) -> int:
    raise SandboxRefused("no Landlock")


async def tier_of(means: Means, folder: Path, mode: Tier | None = None) -> str:
    settings = SandboxSettings() if mode is None else SandboxSettings(mode=mode)
    async with LocalProvider(settings, data_dir=folder, means=means) as provider:
        report = await provider.check()
        if report.tier == "T3":
            assert report.advice, "a refusal says what to do"
            with pytest.raises(SandboxRefused):
                await provider.open(ThreadId("refused"))
        else:
            assert (await provider.open(ThreadId("open"))).info.tier == report.tier
        return report.tier


async def test_without_bubblewrap_the_next_tier_is_taken_and_named(folder: Path) -> None:
    expected = "T3" if await asyncio.to_thread(why_not, "T2") else "T2"
    assert await tier_of(Means(bwrap=no_bwrap), folder) == expected


async def test_thousands_of_variables_in_the_workers_environment_hold_no_tier_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes gives every container seven for each service of its namespace."""
    for number in range(2_000):
        monkeypatch.setenv(f"SERVICE_{number}_PORT_80_TCP_ADDR", f"10.0.0.{number}")
    strongest = await asyncio.to_thread(strongest_tier)
    assert await tier_of(Means(), folder) == strongest


@pytest.mark.parametrize("first", ["umask 077", "ulimit -S -n 500; ulimit -H -n 500"])
def test_a_worker_that_is_limited_itself_gets_the_same_tier(folder: Path, first: str) -> None:
    command = ["/bin/sh", "-c", f'{first}; exec "$@"', "sh", sys.executable, "-c", CHECK, str(folder / "new"), "auto"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout.splitlines()[:1] == [strongest_tier()], result.stdout + result.stderr


async def test_bubblewrap_that_is_not_on_the_path_is_not_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxRefused, match="not installed"):
        find()


@pytest.mark.parametrize("mode", ["T1", "T1b"])
async def test_a_tier_that_was_asked_for_is_not_replaced_by_another(folder: Path, mode: Tier) -> None:
    assert await tier_of(Means(bwrap=no_bwrap), folder, mode) == "T3"


async def test_without_any_means_commands_are_refused(folder: Path) -> None:
    assert await tier_of(Means(bwrap=no_bwrap, ruleset=no_landlock), folder) == "T3"


@pytest.mark.parametrize("filter_", [NONSENSE, ALLOW_ALL], ids=["does not load", "filters nothing"])
async def test_a_broken_system_call_filter_is_noticed_in_every_tier(folder: Path, filter_: bytes) -> None:
    assert await tier_of(Means(seccomp=lambda kind: filter_), folder) == "T3"


async def test_a_machine_whose_calls_are_unknown_is_refused(folder: Path) -> None:
    means = Means(seccomp=lambda kind: seccomp.build(kind, machine="riscv64"))
    assert await tier_of(means, folder) == "T3"


async def test_a_bubblewrap_that_fails_to_start_is_a_refusal_with_its_words(folder: Path) -> None:
    fake = folder / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    async with LocalProvider(
        SandboxSettings(mode="T1b"), data_dir=folder, means=Means(bwrap=lambda: str(fake))
    ) as provider:
        report = await provider.check()
    assert report.tier == "T3"
    assert any("No permissions to create new namespace" in probe.detail for probe in report.probes), report.probes


async def test_a_bubblewrap_that_does_not_answer_is_a_refusal(folder: Path) -> None:
    stuck = folder / "bwrap"
    stuck.write_text("#!/bin/sh\nexec sleep 60\n")
    stuck.chmod(0o755)
    assert await tier_of(Means(bwrap=lambda: str(stuck)), folder, "T1") == "T3"


IN_USR = """
import asyncio, sys
from pathlib import Path
from workflow.core.config import SandboxSettings
from workflow.core.ids import ThreadId
from workflow.sandboxes.base import TierReport
from workflow.sandboxes.local import LocalProvider

async def main():
    tier = sys.argv[1]
    async with LocalProvider(SandboxSettings(mode=tier), data_dir=Path("var"), report=TierReport("", tier)) as provider:
        sandbox = await provider.open(ThreadId("inside"))
        result = await sandbox.exec("cat /usr/src/app/.env; cat /usr/src/other; echo works > f; cat f; git --version")
        print(result.stdout.decode())

asyncio.run(main())
"""


@pytest.mark.parametrize("tier", TIERS)
def test_a_project_below_usr_is_not_shown_and_what_lies_beside_it_is(tier: Tier) -> None:
    """As in many a container; in a mount namespace of the test's own. Also: links of /etc that lead nowhere."""
    if reason := why_not(tier):
        pytest.skip(reason)
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a folder below /usr")
    prepare = (
        "mount -t tmpfs none /usr/src && mkdir -p /usr/src/app && cd /usr/src/app && echo SECRET > .env && "
        "echo beside > ../other && mkdir /usr/src/etc /usr/src/work && "
        "mount -t overlay none -o lowerdir=/etc,upperdir=/usr/src/etc,workdir=/usr/src/work /etc && "
        'ln -s /nowhere /etc/java-nowhere && exec "$@"'
    )
    command = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        prepare,
        "sh",
        sys.executable,
        "-c",
        IN_USR,
    ]
    result = subprocess.run(
        [*command, tier], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
    )
    if "mount:" in result.stderr:
        pytest.skip(f"nothing can be mounted here: {result.stderr.strip()}")
    assert result.stdout.split()[:3] == ["beside", "works", "git"], result.stdout + result.stderr


def test_a_data_folder_that_cannot_be_made_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="data_dir"):
        LocalProvider(SandboxSettings(), data_dir=tmp_path / "file" / "var")


async def test_an_older_bubblewrap_still_holds(folder: Path) -> None:
    """Before 0.7 it cannot bound memory file systems, before 0.8 not forbid namespaces: disk and filter stand in."""
    if reason := await asyncio.to_thread(why_not, "T1b"):
        pytest.skip(reason)
    means = Means(features=lambda _: frozenset())
    async with LocalProvider(SandboxSettings(mode="T1b"), data_dir=folder, means=means) as provider:
        assert (await provider.check()).tier == "T1b"
        sandbox = await provider.open(ThreadId("old"))
        result = await sandbox.exec("echo temporary > /tmp/f; cat /tmp/f; echo x > /dev/shm/f || echo refused")
        assert result.stdout == b"temporary\nrefused\n"
        assert (sandbox.place.state / "tmp" / "f").read_text() == "temporary\n"


def test_where_user_namespaces_are_forbidden_bubblewrap_tiers_are_refused(folder: Path) -> None:
    """Forbidden for real, in a user namespace of the test's own, so that nothing else on the machine notices."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare (util-linux)")
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    command = [
        unshare,
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        forbid,
        "sh",
        sys.executable,
        "-c",
        CHECK,
        str(folder),
        "T1b",
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    if "max_user_namespaces" in result.stderr:
        pytest.skip(f"cannot forbid user namespaces here: {result.stderr.strip()}")
    assert result.stdout.splitlines()[:1] == ["T3"], result.stdout + result.stderr


async def test_the_host_is_used_only_when_the_operator_wrote_so(folder: Path) -> None:
    async with LocalProvider(SandboxSettings(mode="unsafe_host"), data_dir=folder) as provider:
        sandbox = await provider.open(ThreadId("open"))
        assert sandbox.info.tier == "unsafe_host" and sandbox.info.gaps
        assert (await sandbox.exec("id -u")).stdout == f"{os.getuid()}\n".encode()


async def test_a_data_folder_that_vanishes_is_an_error_of_the_sandbox(folder: Path) -> None:
    async with LocalProvider(SandboxSettings(), data_dir=folder) as provider:
        if (await provider.check()).tier == "T3":
            pytest.skip("no tier holds here")
        sandbox = await provider.open(ThreadId("gone"))
        shutil.rmtree(folder)
        with pytest.raises(SandboxError):
            await sandbox.exec("true")
