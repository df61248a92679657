"""Control groups of version 2: which place is chosen, and that limits hold there. `./run.sh sandbox vm` skips none."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.until import until_sync
from workflow.sandboxes.cgroup_parents import FOLDER, OWN, WANTED
from workflow.sandboxes.cgroups import Cgroups, Group, Limits

ROOT = Path(__file__).parent.parent.parent
USER = 54321
HOG = "import time\nx = bytearray(b'x') * 100_000_000\ntime.sleep(60)"
FORKS = """
import os
while True:
    try:
        if os.fork():
            os._exit(0)
    except OSError:
        pass
"""
SPIN = """
import os, time
os.fork()
print(1, flush=True)
end = time.monotonic() + 2
while time.monotonic() < end:
    pass
"""
BOMB = """
import os, time
try:
    while os.fork():
        pass
except OSError:
    print(1, flush=True)
time.sleep(60)
"""
FIND = """
import json, os, sys
from workflow.sandboxes.cgroups import Cgroups
user = int(sys.argv[1])
os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
print("ready", flush=True)
sys.stdin.readline()
groups = Cgroups.find()
own = next(line[3:].strip() for line in open("/proc/self/cgroup") if line.startswith("0::"))
found = {} if groups is None or groups.version == 1 else {name: str(path) for name, path in groups._parents.items()}
print(json.dumps({"parents": found, "own": own}), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def hierarchy(tmp_path: Path) -> Iterator[Path]:
    """The top of the version 2 hierarchy; mounted for the test where only version 1 is."""
    usual = Path("/sys/fs/cgroup")
    if (usual / "cgroup.controllers").exists():
        if os.geteuid() != 0:
            pytest.skip("groups at the top of the hierarchy are root's to make")
        yield usual
        return
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
def base(hierarchy: Path) -> Iterator[Path]:
    """A group of the test's own; what is below it at the end is killed and deleted."""
    folder = hierarchy / f"dialtone-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    for below in (*sorted(filter(Path.is_dir, folder.rglob("*")), reverse=True), folder):
        Group({"": below}).remove()
    assert not folder.exists()


@pytest.fixture
def slice_(hierarchy: Path, base: Path) -> Path:
    """The same, which hands all controllers down."""
    handed_down = set((hierarchy / "cgroup.subtree_control").read_text().split())
    if missing := set(WANTED) - handed_down:
        pytest.skip(f"{', '.join(sorted(missing))} are not handed down on this machine; ./run.sh sandbox vm has them")
    hand_down(base, *WANTED)
    return base


def hand_down(folder: Path, *controllers: str) -> None:
    (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))


def make(folder: Path, *, uid: int = 0, mark: str = "") -> Path:
    """A group, given to a user as systemd does when it delegates one."""
    folder.mkdir()
    for path in (folder, *(folder / f"cgroup.{name}" for name in ("procs", "threads", "subtree_control"))):
        os.chown(path, uid, uid)
    if mark:
        os.setxattr(folder, mark, b"1")
    return folder


@dataclass
class Place:
    """Where a worker is, and where it should find its place."""

    own: Path
    expected: Path | None
    uid: int = USER
    controllers: set[str] = field(default_factory=lambda: set(WANTED))
    moved: bool = False
    """Its processes have to leave their group, which then holds groups with limits."""


def delegated_to_root(top: Path) -> Place:
    own = make(top / "own", mark="trusted.delegate")
    return Place(own, own, uid=0, moved=True)


def delegated_to_a_user(top: Path) -> Place:
    own = make(top / "own", uid=USER, mark="user.delegate")
    return Place(own, own, moved=True)


def delegated_by_an_older_systemd(top: Path) -> Place:
    own = make(top / "own", uid=USER)
    return Place(own, own, moved=True)


def delegated_with_a_subgroup(top: Path) -> Place:
    service = make(top / "service", uid=USER, mark="user.delegate")
    return Place(make(service / "sub", uid=USER), service)


def delegated_without_the_processors(top: Path) -> Place:
    hand_down(make(top / "slice"), "memory", "pids")
    own = make(top / "slice" / "own", uid=USER)
    return Place(own, own, controllers={"memory", "pids"}, moved=True)


def delegated_without_memory(top: Path) -> Place:
    hand_down(make(top / "slice"), "pids", "cpu")
    return Place(make(top / "slice" / "own", uid=USER, mark="user.delegate"), None)


def of_another_user(top: Path) -> Place:
    return Place(make(top / "own"), None)


def in_a_users_session(top: Path) -> Place:
    """Its service manager has arranged the groups: nothing is moved."""
    manager = make(top / "manager", uid=USER, mark="user.delegate")
    apps = make(manager / "app.slice", uid=USER)
    hand_down(manager, "memory", "pids")
    hand_down(apps, "memory", "pids")
    return Place(make(apps / "terminal.scope", uid=USER), apps, controllers={"memory", "pids"})


def of_root_in_a_plain_service(top: Path) -> Place:
    """The nearest group above that hands down the most is taken, without any change to it."""
    hand_down(make(top / "slice"), "memory", "pids")
    return Place(make(top / "slice" / "own"), top, uid=0)


PLACES = (
    *(delegated_to_root, delegated_to_a_user, delegated_by_an_older_systemd, delegated_with_a_subgroup),
    *(delegated_without_the_processors, delegated_without_memory, of_another_user, in_a_users_session),
    of_root_in_a_plain_service,
)


class Worker:
    """A process that looks for its place, in a given group and as a given user."""

    def __init__(self, own: Path, uid: int) -> None:
        command = [sys.executable, "-c", FIND, str(uid)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, bufsize=1
        )
        assert self._line() == "ready\n"
        (own / "cgroup.procs").write_text(str(self.process.pid))

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")

    def found(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self._line())
        return result

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    started: list[Worker] = []
    yield started
    for worker in started:
        with worker.process:
            worker.process.kill()


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__.replace("_", " "))
def test_a_worker_finds_its_place(slice_: Path, place: Callable[[Path], Place], workers: list[Worker]) -> None:
    it = place(slice_)
    workers.append(Worker(it.own, it.uid))
    workers[0].begin()
    found = workers[0].found()
    parent = it.expected / FOLDER if it.expected else None
    assert found["parents"] == (dict.fromkeys(it.controllers, str(parent)) if parent else {})
    own = it.own / OWN if it.moved else it.own
    assert (own / "cgroup.procs").read_text().split() == [str(workers[0].process.pid)]
    assert found["own"].endswith(str(own.relative_to(slice_.parent)))


def test_workers_that_start_at_once_find_the_same_place(slice_: Path, workers: list[Worker]) -> None:
    it = delegated_to_a_user(slice_)
    workers += [Worker(it.own, it.uid) for _ in range(3)]
    for worker in workers:
        worker.begin()
    expected = dict.fromkeys(WANTED, str(it.own / FOLDER))
    assert [worker.found()["parents"] for worker in workers] == [expected] * 3


@pytest.fixture
def group(slice_: Path) -> Group:
    """One with small limits."""
    groups = Cgroups(dict.fromkeys(WANTED, slice_), version=2)
    return groups.make("one", Limits(memory_bytes=50_000_000, processes=10, cpus=0.2))


@pytest.fixture
def start() -> Iterator[Callable[[Group, str], subprocess.Popen[bytes]]]:
    """Starts Python code in a group."""
    started: list[subprocess.Popen[bytes]] = []

    def start(group: Group, code: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.stdin.read(1)\n{code}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        group.add(process.pid)
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        return process

    yield start
    for process in started:
        with process:
            process.kill()


Start = Callable[[Group, str], subprocess.Popen[bytes]]


def test_a_group_that_is_removed_takes_its_processes_with_it(base: Path, start: Start) -> None:
    (folder := base / "one").mkdir()
    group = Group({"memory": folder, "pids": folder})
    process = start(group, "import time\ntime.sleep(60)")
    assert (folder / "cgroup.procs").read_text().split() == [str(process.pid)]
    group.remove()
    assert not folder.exists()
    assert process.wait(10) == -signal.SIGKILL


def test_processes_that_each_fork_the_next_are_killed_at_once(group: Group, start: Start) -> None:
    start(group, FORKS).wait(10)
    group.remove()
    assert not [folder for folder in group.folders if folder.exists()]


def test_memory_is_limited(group: Group, start: Start) -> None:
    hog = start(group, HOG)
    until_sync(lambda: group.out_of_memory() > 0, timeout_s=30, what="the kernel to kill for memory")
    assert hog.wait(10) == -signal.SIGKILL
    assert 0 <= group.memory_bytes() <= 50_000_000


def test_processes_are_limited(group: Group, start: Start) -> None:
    bomb = start(group, BOMB)
    assert bomb.stdout is not None
    assert bomb.stdout.readline() == b"1\n"
    assert group.processes() == 10


def test_the_time_of_processors_is_limited(group: Group, start: Start) -> None:
    spinning = start(group, SPIN)
    assert spinning.stdout is not None
    assert spinning.stdout.readline() == b"1\n"
    used_s, began = cpu_s(group), monotonic()
    spinning.wait(30)
    assert 0 < cpu_s(group) - used_s < 0.3 * (monotonic() - began)


def cpu_s(group: Group) -> float:
    (folder,) = group.folders
    figures = dict(line.split() for line in (folder / "cpu.stat").read_text().splitlines())
    return int(figures["usage_usec"]) / 1e6
