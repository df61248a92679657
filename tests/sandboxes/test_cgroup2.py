"""Control groups of version 2 on a hierarchy of the kernel's own, mounted for the test where one may."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.until import until_sync
from workflow.sandboxes import cgroups
from workflow.sandboxes.cgroups import Cgroups, Group, Limits

HOG = "import time\nx = bytearray(b'x') * 100_000_000\ntime.sleep(60)"


@pytest.fixture
def hierarchy(tmp_path: Path) -> Iterator[Path]:
    """The root of a version 2 hierarchy, or a part of it of our own."""
    point = tmp_path / "cgroup2"
    point.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "cgroup2", "none", str(point)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"cgroup2 cannot be mounted here: {mounted.stderr.strip()}")
    yield point
    subprocess.run(["umount", str(point)], check=True)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as started:
        yield started
        started.kill()


def controllers(hierarchy: Path) -> set[str]:
    return set((hierarchy / "cgroup.controllers").read_text().split())


def test_a_process_moves_into_a_group_that_goes_away_after_it(
    hierarchy: Path, process: subprocess.Popen[bytes]
) -> None:
    folder = hierarchy / f"dialtone-test-{os.getpid()}"
    folder.mkdir()
    group = Group({"memory": folder, "pids": folder})
    group.add(process.pid)
    assert (folder / "cgroup.procs").read_text().split() == [str(process.pid)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    group.remove()
    assert not folder.exists()


def test_a_hierarchy_without_the_needed_controllers_is_left_as_it_was(hierarchy: Path) -> None:
    if controllers(hierarchy) >= set(cgroups.NEEDED):
        pytest.skip("this hierarchy has the controllers; see the test of limits")
    parent = hierarchy / f"dialtone-test-{os.getpid()}"
    assert cgroups._usable_v2(parent) == []
    assert not parent.exists()


def test_limits_of_version_2_hold(hierarchy: Path) -> None:
    missing = set(cgroups.NEEDED) - controllers(hierarchy)
    if missing:
        pytest.skip(f"{' and '.join(sorted(missing))} belong to version 1 hierarchies on this machine")
    parent = hierarchy / f"dialtone-test-{os.getpid()}"
    usable = cgroups._usable_v2(parent)
    assert set(usable) >= set(cgroups.NEEDED)
    groups = Cgroups(dict.fromkeys(usable, parent), version=2)
    group = groups.make("one", Limits(memory_bytes=50_000_000, processes=10, cpus=0.5))
    try:
        with subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.stdin.read()\n{HOG}"], stdin=subprocess.PIPE
        ) as hog:
            group.add(hog.pid)
            assert group.processes() == 1
            assert hog.stdin is not None
            hog.stdin.close()
            until_sync(lambda: group.out_of_memory() > 0, timeout_s=30, what="the kernel to kill for memory")
            assert hog.wait(10) == -signal.SIGKILL
        assert 0 <= group.memory_bytes() <= 50_000_000
    finally:
        group.remove()
        parent.rmdir()
