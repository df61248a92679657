"""Which tier a worker gets as a service of a real systemd, and what it says is missing."""

import json
import os
import pwd
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.until import until_sync

ROOT = Path(__file__).parent.parent.parent
UNITS = Path("/run/systemd/system")
USER = pwd.getpwnam("nobody").pw_uid
CHECK = f"{ROOT}/run.sh sandbox check --json"
NO_CPU = "CPU time is not limited"

pytestmark = [
    pytest.mark.skipif(
        Path("/proc/1/comm").read_text() != "systemd\n" or os.geteuid() != 0 or not os.access(UNITS, os.W_OK),
        reason="needs systemd as the first process, and root; ./run.sh sandbox vm has both",
    ),
    pytest.mark.timeout(300),  # The virtual machine may be emulated.
]


@pytest.fixture
def unit(folder: Path) -> Iterator[str]:
    """The name of a unit that is free; the unit is stopped and deleted at the end."""
    os.chown(folder, USER, USER)
    name = f"dialtone-test-{secrets.token_hex(4)}.service"
    yield name
    subprocess.run(["systemctl", "stop", name], check=True, timeout=60)
    (UNITS / name).unlink()


def report(unit: str, folder: Path, *settings: str, command: str = CHECK) -> dict[str, Any]:
    """What `./run.sh sandbox check` says as a service with these settings."""
    done = start(unit, folder, "Type=oneshot", *settings, command=command)
    assert done.returncode == 0, (done.stderr, [file.read_text() for file in folder.iterdir() if file.is_file()])
    result: dict[str, Any] = json.loads((folder / "out").read_text())
    return result


def start(unit: str, folder: Path, *settings: str, command: str) -> subprocess.CompletedProcess[str]:
    lines = [
        *("[Unit]", "DefaultDependencies=no", "[Service]", f"WorkingDirectory={ROOT}", f"ExecStart={command}"),
        *(f"Environment=DIALTONE_DATA_DIR={folder}/data", f"Environment=HOME={folder}"),
        f"Environment=UV_PROJECT_ENVIRONMENT={sys.prefix}",
        *(f"StandardOutput=append:{folder}/out", f"StandardError=append:{folder}/err", *settings),
    ]
    (UNITS / unit).write_text("\n".join(lines))
    return subprocess.run(["systemctl", "start", unit], capture_output=True, text=True, check=False, timeout=200)


def not_held(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [probe for probe in found["probes"] if not probe["held"]]


@pytest.mark.parametrize("user", [0, USER])
def test_a_service_with_delegation_has_all_limits(unit: str, folder: Path, user: int) -> None:
    found = report(unit, folder, f"User={user}", "Delegate=yes")
    assert found["tier"] == "T1", not_held(found)
    assert NO_CPU not in found["gaps"] and found["advice"] == []


def test_a_service_without_the_processors_says_so(unit: str, folder: Path) -> None:
    """In a slice of its own: one neighbour that is given the controller is enough for all to have it."""
    found = report(unit, folder, f"User={USER}", "Delegate=memory pids", "Slice=dialtonetest.slice")
    assert found["tier"] == "T1", not_held(found)
    assert NO_CPU in found["gaps"] and "Delegate" in found["advice"][0]


def test_a_users_service_without_delegation_has_the_weaker_tier(unit: str, folder: Path) -> None:
    found = report(unit, folder, f"User={USER}")
    assert found["tier"] == "T1b", not_held(found)
    assert NO_CPU in found["gaps"] and any("Delegate=yes" in advice for advice in found["advice"])


def test_a_service_of_root_has_what_the_groups_above_it_hand_down(unit: str, folder: Path) -> None:
    found = report(unit, folder)
    handed_down = {name for path in ("", "system.slice") for name in _handed_down(path)}
    assert found["tier"] == "T1", not_held(found)
    assert (NO_CPU in found["gaps"]) == ("cpu" not in handed_down)


def test_a_service_of_a_users_own_manager_has_what_that_hands_down(unit: str, folder: Path) -> None:
    units = folder / "systemd/user"
    units.mkdir(parents=True)
    os.chown(units.parent, USER, USER)
    (units / "dialtone.service").write_text(
        f"[Service]\nType=oneshot\nExecStart={CHECK}\n"
        f"StandardOutput=file:{folder}/out\nStandardError=file:{folder}/inner\n"
        "[Unit]\nDefaultDependencies=no\nSuccessAction=exit\nFailureAction=exit\n"
    )
    found = report(
        unit,
        folder,
        *(f"User={USER}", "Delegate=yes", f"Environment=XDG_RUNTIME_DIR={folder}", "StandardOutput=null"),
        command="/lib/systemd/systemd --user --unit=dialtone.service",
    )
    assert found["tier"] == "T1", not_held(found)


def test_a_service_whose_worker_is_killed_starts_again(unit: str, folder: Path) -> None:
    """The groups it leaves are in the way of nothing: a group with groups below it takes no process."""
    worker = folder / "worker.py"
    worker.write_text(WORKER)
    (out := folder / "out").touch()
    settings = (f"User={USER}", "Delegate=yes", "Restart=always", "RestartSec=0.1")
    command = f"{sys.executable} {worker}"
    done = start(unit, folder, *settings, f"Environment=PYTHONPATH={ROOT}", command=command)
    assert done.returncode == 0, done.stderr
    for count in (1, 2):
        until_sync(lambda: len(out.read_text().splitlines()) >= count, timeout_s=60, what=f"start {count}")  # noqa: B023
        subprocess.run(["systemctl", "kill", "--kill-whom=main", "--signal=KILL", unit], check=True, timeout=60)
    assert out.read_text().splitlines()[:2] == ["cpu memory pids"] * 2


WORKER = """
import subprocess, time
from workflow.sandboxes.cgroups import Cgroups, Limits
groups = Cgroups.find()
group = groups.make("one", Limits(memory_bytes=50_000_000, processes=10, cpus=1.0))
group.add(subprocess.Popen(["sleep", "600"]).pid)
print(*sorted(groups.controllers), flush=True)
time.sleep(600)
"""


def _handed_down(path: str) -> list[str]:
    return Path("/sys/fs/cgroup", path, "cgroup.subtree_control").read_text().split()
