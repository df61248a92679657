"""Workspaces over days: put away by age and budget, taken out again as they were, never while in use."""

import asyncio
import fcntl
import os
import re
import resource
import shutil
import stat
import tracemalloc
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from time import time
from typing import Any

import pytest

from modem.tasks.comparison import compared
from tests.sandboxes.conftest import MakeProvider, mounted
from tests.sandboxes.holding import why_not
from workflow.core.config import SandboxSettings
from workflow.core.errors import DialtoneError, SandboxError, ToolError, Unavailable, WorkspaceDamaged
from workflow.core.ids import ThreadId
from workflow.sandboxes import durable, keeping, lock, objects, places
from workflow.sandboxes.base import FLEETING
from workflow.sandboxes.keeping import Keeper, Tidied
from workflow.sandboxes.places import Places
from workflow.sandboxes.snapshots import Snapshots
from workflow.sandboxes.tiers import Tier
from workflow.sandboxes.tree import MAX_READ, Tree

DAY_S = 86_400
OLD, NEW = ThreadId("old"), ThreadId("new")


@pytest.fixture
def tier() -> Tier:
    """Files are kept alike in every tier; one stands for all."""
    if reason := why_not("T1b"):
        pytest.skip(reason)
    return "T1b"


def last_used(folder: Path, thread_id: ThreadId, *, days: float) -> None:
    """Makes a thread look unused for so long."""
    at = time() - days * DAY_S
    os.utime(folder / "sandboxes" / thread_id / "used", (at, at))


async def test_an_unused_workspace_is_put_away_and_comes_back_whole(make: MakeProvider, folder: Path) -> None:
    async with make() as provider:
        sandbox = await provider.open(OLD)
        await sandbox.exec("mkdir -p a/b; echo text > a/b/file; chmod 750 a; chmod +x a/b/file; ln -s a/b/file link")
        snapshot = await sandbox.snapshot("turn")
    last_used(folder, OLD, days=8)
    async with make() as provider:
        tidied = await provider.tidy()
        assert (tidied.archived, tidied.deleted) == ((OLD,), ())
        assert not (folder / "workspaces" / "old").exists()
        sandbox = await provider.open(OLD)
        listing = await sandbox.exec("cat link; ls -lR | grep -c file; stat -c %a a a/b/file")
        assert listing.stdout == b"text\n2\n750\n755\n"
        await sandbox.write("link", b"changed")
        await sandbox.restore(snapshot)
        assert await sandbox.read("a/b/file") == b"text\n"


NESTED = "import os\nfor _ in range(1100):\n    os.mkdir('d')\n    os.chdir('d')\nopen('end', 'w').write('deep')"
"""Deeper than Python's stack."""


async def test_what_is_put_away_keeps_its_times_its_links_and_its_depths(make: MakeProvider, folder: Path) -> None:
    async with make() as provider:
        sandbox = await provider.open(OLD)
        await sandbox.exec("echo text > one; ln one two; touch -d 2020-01-02T03:04:05Z one; mkdir at; touch -d @9 at")
        assert (await sandbox.exec(["python3", "-c", NESTED])).exit_code == 0
    last_used(folder, OLD, days=8)
    async with make() as provider:
        assert (await provider.tidy()).archived == (OLD,)
        sandbox = await provider.open(OLD)
        found = await sandbox.exec("test one -ef two; echo $?; stat -c %Y one at; find . -name end -exec cat {} +")
        assert found.stdout == b"0\n1577934245\n9\ndeep"
        await provider.remove(OLD)  # too deep for what removes the test's folder


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[str]:
    """What is synced, renamed and removed of `folder` from now on, one after the other."""
    done: list[str] = []

    def note(verb: str, path: str) -> None:
        if path.startswith(str(folder)):
            name = os.path.relpath(path, folder)
            done.append(f"{verb} {re.sub('[0-9a-f]{16}', 'N', name)}")

    def noted(verb: str, work: Callable[..., Any], path_of: Callable[[Any], str] = str) -> Callable[..., Any]:
        def do(*args: Any, **options: Any) -> Any:
            note(verb, path_of(args[-1]))
            return work(*args, **options)

        return do

    monkeypatch.setattr(os, "fsync", noted("sync", os.fsync, lambda fd: str(Path(f"/proc/self/fd/{fd}").readlink())))
    monkeypatch.setattr(os, "replace", noted("rename to", os.replace))
    monkeypatch.setattr(os, "unlink", noted("remove", os.unlink))
    monkeypatch.setattr(keeping, "delete", noted("remove", places.delete))
    monkeypatch.setattr(places, "sync_disk", noted("sync disk of", durable.sync_disk))
    return done


async def test_the_power_may_go_at_any_moment_while_a_workspace_is_put_away_or_taken_out(
    make: MakeProvider, folder: Path, order: list[str]
) -> None:
    async with make() as provider:
        await (await provider.open(OLD)).exec("echo text > file")
    last_used(folder, OLD, days=8)
    state, archive = f"sandboxes/{OLD}", f"sandboxes/{OLD}/workspace.tar.gz"
    async with make() as provider:
        order.clear()
        assert (await provider.tidy()).archived == (OLD,)
        packed = [f"sync {archive}.tmp", f"rename to {archive}", f"sync {state}"]
        removed = [f"remove {state}/home", f"remove {state}/tmp", f"remove workspaces/{OLD}"]
        assert [step for step in order if step != f"remove {archive}.tmp"] == packed + removed
        order.clear()
        sandbox = await provider.open(OLD)
        assert order[-3:] == [f"sync disk of workspaces/{OLD}", f"remove {archive}", f"sync {state}"]
        assert await sandbox.read("file") == b"text\n"


async def test_no_list_of_snapshots_is_on_the_disk_before_what_it_names(
    make: MakeProvider, folder: Path, order: list[str]
) -> None:
    async with make() as provider:
        sandbox = await provider.open(OLD)
        await sandbox.exec("echo small > small; head -c 1000000 /dev/urandom > large")
        order.clear()
        await sandbox.snapshot("one")
    at = f"sandboxes/{OLD}/snapshots"
    large = [step for step in order if step.startswith(f"rename to {at}/objects/N")]
    assert order.index(f"sync {at}/objects/tmp-N") < order.index(large[0])
    lasting = [step for step in order if step not in large and not step.startswith("remove") and "seen" not in step]
    assert lasting[1:] == [
        f"sync {at}/objects/N.pack",
        f"sync {at}/objects/index.tmp",
        f"rename to {at}/objects/index",
        f"sync {at}/list.json.tmp",
        f"rename to {at}/list.json",
    ]


async def test_what_a_dying_worker_has_left_of_a_workspace_never_replaces_its_archive(
    make: MakeProvider, folder: Path
) -> None:
    async with make() as provider:
        for name in ("a", "b"):
            await (await provider.open(OLD)).write(name, b"kept")
    last_used(folder, OLD, days=8)
    async with make() as provider:
        await provider.tidy()
        left = folder / "workspaces" / OLD
        for name in ("b", ".dialtone-0123456789abcdef"):
            (left / name).parent.mkdir(mode=0o700, exist_ok=True)
            (left / name).write_bytes(b"kept")
        assert (await provider.tidy()).archived == (OLD,)
        assert not left.exists()
        left.mkdir(mode=0o700)
        (left / ".dialtone-0123456789abcdef").write_bytes(b"half")
        assert (await (await provider.open(OLD)).exec("ls -A")).stdout == b"a\nb\n"


async def test_a_damaged_archive_is_never_unpacked_and_is_kept_and_snapshots_lead_on(
    make: MakeProvider, folder: Path
) -> None:
    archive = folder / "sandboxes" / OLD / "workspace.tar.gz"
    async with make() as provider:
        sandbox = await provider.open(OLD)
        await sandbox.exec("for n in 1 2 3 4 5 6 7 8; do head -c 3000 /dev/urandom > $n; done")
        saved = await sandbox.snapshot("turn")
        first = await sandbox.read("1")
    last_used(folder, OLD, days=8)
    async with make() as provider:
        assert (await provider.tidy()).archived == (OLD,)
        whole = archive.read_bytes()
        step = len(whole) // 24
        damaged = [whole[:at] for at in range(0, len(whole), step)] + [whole[:-1]]
        for at in range(200, len(whole), step):  # so many that they never stand for the same content
            damaged.append(whole[:at] + bytes(byte ^ 255 for byte in whole[at : at + 40]) + whole[at + 40 :])
        for broken in damaged:
            archive.write_bytes(broken)
            with pytest.raises(WorkspaceDamaged, match="archive is damaged"):
                await provider.open(OLD)
            assert archive.read_bytes() == broken
        aside = archive.rename(archive.with_suffix(".broken"))
        sandbox = await provider.open(OLD)
        assert await sandbox.list() == []
        await sandbox.restore(saved)
        assert (len(await sandbox.list()), await sandbox.read("1")) == (8, first)
        assert aside.read_bytes() == damaged[-1]


async def test_a_workspace_that_finds_no_room_when_it_is_taken_out_takes_none_and_comes_back_later(
    make: MakeProvider, folder: Path
) -> None:
    with mounted("tmpfs", folder, "-o", "size=16m"):
        async with make() as provider:
            await (await provider.open(OLD)).exec("for n in 1 2 3 4; do head -c 2000000 /dev/zero > $n; done")
        last_used(folder, OLD, days=8)
        async with make() as provider:
            assert (await provider.tidy()).archived == (OLD,)
            ballast = folder / "ballast"
            ballast.write_bytes(bytes(10_000_000))
            free = shutil.disk_usage(folder).free
            with pytest.raises(SandboxError, match="taken out of its archive"):
                await provider.open(OLD)
            assert free - shutil.disk_usage(folder).free < 100_000
            ballast.unlink()
            assert len(await (await provider.open(OLD)).list()) == 4


async def test_a_workspace_that_cannot_be_put_away_stays_and_keeps_no_other_from_it(
    make: MakeProvider, folder: Path
) -> None:
    async with make(disk_bytes=1_000_000) as provider:
        await (await provider.open(OLD)).exec("for name in 1 2 3 4 5; do truncate -s 1000000 $name; done")
        await (await provider.open(NEW)).write("file", b"kept")
    for thread_id in (OLD, NEW):
        last_used(folder, thread_id, days=8)
    async with make(disk_bytes=1_000_000) as provider:
        assert (await provider.tidy()).archived == (NEW,)
        assert len(await (await provider.open(OLD)).list()) == 5
    assert not list((folder / "sandboxes" / OLD).glob("workspace.tar.gz*"))


async def test_one_worker_at_a_time_puts_workspaces_away(make: MakeProvider, folder: Path) -> None:
    async with make(workspaces_bytes=1) as provider:
        await (await provider.open(OLD)).write("file", b"kept")
        await provider.stop(OLD)
    last_used(folder, OLD, days=8)
    async with make(workspaces_bytes=1) as provider:
        other = lock.take(folder / "tidying")
        try:
            assert await provider.tidy() == Tidied()
        finally:
            os.close(other)
        assert await provider.tidy() == Tidied((OLD,), (OLD,))


async def test_a_workspace_that_is_being_packed_or_unpacked_keeps_nobody_else_waiting(
    make: MakeProvider, folder: Path
) -> None:
    async with make() as provider:
        await provider.open(OLD)
    last_used(folder, OLD, days=8)
    async with make(tidy_every_s=0) as provider:
        with (folder / "sandboxes" / OLD / "held").open("ab") as packing:
            fcntl.flock(packing, fcntl.LOCK_EX)
            waiting = asyncio.create_task(provider.open(OLD))
            assert await asyncio.wait_for((await asyncio.wait_for(provider.open(NEW), 10)).list(), 10) == []
            assert await asyncio.wait_for(provider.sweep(), 10) == 0, "tidying goes on beside"
            assert not waiting.done()
        assert await (await waiting).list() == []


@pytest.fixture
def ordinary(folder: Path) -> Iterator[Places]:
    """The folders of a worker that is no root, in a process that is not either."""
    uid = os.geteuid()
    if uid == 0:
        os.chown(folder, 4242, 4242)
        os.seteuid(4242)
    yield Places(folder, own_uids=False)
    if uid == 0:
        os.seteuid(0)


def test_without_root_what_its_owner_closed_to_himself_is_put_away_whole(ordinary: Places, folder: Path) -> None:
    workspace = ordinary.make(OLD).workspace
    for name, mode in {"closed": 0o000, "readonly": 0o555}.items():
        (workspace / name).mkdir()
        (workspace / name / "file").write_text("kept")
        (workspace / name / "file").chmod(mode & 0o444)
        (workspace / name).chmod(mode)
    workspace.chmod(0o500)
    last_used(folder, OLD, days=8)
    tidied = Keeper(ordinary, SandboxSettings(), in_use=lambda thread_id: False).tidy()
    assert tidied.archived == (OLD,)
    ordinary.make(OLD)
    assert [(workspace / name).stat().st_mode & 0o777 for name in ("closed", "readonly")] == [0o000, 0o555]
    (workspace / "closed").chmod(0o700)
    (workspace / "closed" / "file").chmod(0o600)
    assert {(workspace / name / "file").read_text() for name in ("closed", "readonly")} == {"kept"}


async def test_nothing_is_put_away_while_a_worker_uses_it(make: MakeProvider, folder: Path) -> None:
    async with make() as busy, make() as other:
        sandbox = await busy.open(OLD)
        await sandbox.start("sleep 300")
        last_used(folder, OLD, days=100)
        assert (await other.tidy()).archived == () == (await busy.tidy()).archived
        assert (folder / "workspaces" / "old").exists()


async def test_nothing_is_put_away_that_a_worker_holds_without_running_anything_in_it(
    make: MakeProvider, folder: Path
) -> None:
    """As while a run thinks for hours: its sandbox was put away, its files are still the run's."""
    async with make(idle_s=0.01) as holder, make(workspaces_bytes=1, archive_after_days=1e-3) as other:
        sandbox = await holder.open(OLD)
        await sandbox.write("file", b"kept")
        last_used(folder, OLD, days=100)
        await holder.sweep()
        assert await other.tidy() == Tidied()
        assert await sandbox.read("file") == b"kept"


async def test_nothing_is_put_away_while_the_threads_run_waits_for_a_person(make: MakeProvider, folder: Path) -> None:
    asked: list[ThreadId] = []

    async def busy(thread_ids: Collection[ThreadId]) -> Collection[ThreadId]:
        asked.extend(thread_ids)
        return [OLD] if OLD in thread_ids else []

    async with make() as provider:
        for thread_id in (OLD, NEW):
            await (await provider.open(thread_id)).write("file", b"kept")
            last_used(folder, thread_id, days=100)
    async with make(busy=busy, workspaces_bytes=1) as provider:
        tidied = await provider.tidy()
        assert set(asked) == {OLD, NEW}
        assert (tidied.archived, tidied.deleted) == ((NEW,), (NEW,))
        assert (folder / "workspaces" / "old" / "file").read_bytes() == b"kept"


async def test_a_run_that_comes_while_others_are_put_away_keeps_its_files(make: MakeProvider, folder: Path) -> None:
    late: set[ThreadId] = set()

    async def busy(thread_ids: Collection[ThreadId]) -> Collection[ThreadId]:
        here = [thread_id for thread_id in thread_ids if thread_id in late]
        late.add(NEW)  # It is queued while the first workspace is looked at.
        return here

    async with make() as provider:
        for thread_id in (OLD, NEW):
            await (await provider.open(thread_id)).write("file", b"kept")
            last_used(folder, thread_id, days=100 if thread_id == OLD else 99)
    async with make(busy=busy, workspaces_bytes=1) as provider:
        assert await provider.tidy() == Tidied((OLD,), (OLD,))
        assert (folder / "workspaces" / NEW / "file").read_bytes() == b"kept"


async def test_a_thread_that_is_deleted_while_others_are_put_away_leaves_nothing(
    make: MakeProvider, folder: Path
) -> None:
    async with make() as deleting:

        async def busy(thread_ids: Collection[ThreadId]) -> Collection[ThreadId]:
            if OLD in thread_ids:
                await deleting.remove(NEW)
            return ()

        for thread_id in (OLD, NEW):
            await (await deleting.open(thread_id)).write("file", b"")
        async with make(busy=busy) as provider:
            for days, thread_id in ((9, OLD), (8, NEW)):
                await deleting.stop(thread_id)
                last_used(folder, thread_id, days=days)
            assert (await provider.tidy()).archived == (OLD,)
        assert [path.name for path in (folder / "sandboxes").iterdir()] == [OLD]


async def test_nothing_is_put_away_while_it_cannot_be_known_who_has_runs(make: MakeProvider, folder: Path) -> None:
    async def busy(thread_ids: Collection[ThreadId]) -> Collection[ThreadId]:
        raise Unavailable("Redis is away")

    async with make() as provider:
        await provider.open(OLD)
    last_used(folder, OLD, days=100)
    async with make(busy=busy) as provider:
        assert await provider.tidy() == Tidied()


async def test_a_question_about_runs_that_is_never_answered_holds_nobody_up(make: MakeProvider, folder: Path) -> None:
    async def busy(thread_ids: Collection[ThreadId]) -> Collection[ThreadId]:
        await asyncio.Event().wait()
        return ()

    async with make() as provider:
        await provider.open(OLD)
    last_used(folder, OLD, days=100)
    async with make(busy=busy) as provider:
        assert await asyncio.wait_for(provider.tidy(), 30) == Tidied()


async def test_over_the_budget_the_least_recently_used_goes_first(make: MakeProvider, folder: Path) -> None:
    async with make() as provider:
        for thread_id in (OLD, NEW):
            await (await provider.open(thread_id)).write("random", os.urandom(1_000_000))
    last_used(folder, OLD, days=3)
    last_used(folder, NEW, days=2)
    async with make(workspaces_bytes=1_500_000) as provider:
        tidied = await provider.tidy()
        assert set(tidied.archived) == {OLD, NEW} and tidied.deleted == (OLD,)
        assert len(await (await provider.open(NEW)).read("random")) == 1_000_000
        assert await (await provider.open(OLD)).list() == []


async def test_what_was_used_within_the_hour_stays_whatever_the_budget(make: MakeProvider, folder: Path) -> None:
    async with make() as provider:
        await (await provider.open(NEW)).write("random", os.urandom(1_000_000))
    async with make(workspaces_bytes=1) as provider:
        tidied = await provider.tidy()
    assert (tidied.archived, tidied.deleted) == ((), ())


@pytest.mark.parametrize("damage", ["a file in its place", "a list that was cut off"])
async def test_snapshots_that_cannot_be_used_are_an_error_of_the_sandbox(
    make: MakeProvider, folder: Path, damage: str
) -> None:
    async with make() as provider:
        sandbox = await provider.open(OLD)
        place = folder / "sandboxes" / OLD / "snapshots"
        if damage == "a file in its place":
            place.write_bytes(b"")
        else:
            await sandbox.snapshot("one")
            (place / "list.json").write_bytes(b"[{")
        for attempt in (sandbox.snapshot("two"), sandbox.restore("x"), provider.fork(OLD, "x", NEW)):
            with pytest.raises(SandboxError, match="cannot be used"):
                await attempt


async def test_two_workers_that_save_one_workspace_in_turns_lose_nothing(make: MakeProvider) -> None:
    async with make() as one, make() as other:
        mine, theirs = await one.open(OLD), await other.open(OLD)
        taken = {}
        for number in range(6):
            sandbox = (mine, theirs)[number % 2]
            await sandbox.write("file", b"%d" % number)
            taken[number] = await sandbox.snapshot(f"turn {number}")
        for sandbox in (mine, theirs):
            assert [await sandbox.read_at(taken[number], "file") for number in taken] == [b"%d" % n for n in taken]


async def test_a_thread_that_is_deleted_while_it_is_saved_or_compared_leaves_nothing(
    make: MakeProvider, folder: Path
) -> None:
    async with make() as provider:
        for number in range(8):
            thread_id = ThreadId(f"t{number}")
            sandbox = await provider.open(thread_id)
            for name in range(40):
                await sandbox.write(f"f{name}", os.urandom(5_000))
            first = await sandbox.snapshot("first")
            await sandbox.write("f0", b"changed")
            deleted, *works = await asyncio.gather(
                provider.remove(thread_id),
                sandbox.snapshot("second"),
                sandbox.compare(first, first),
                sandbox.restore(first),
                return_exceptions=True,
            )
            assert deleted is None
            assert all(isinstance(work, DialtoneError) for work in works if isinstance(work, BaseException)), works
        assert list((folder / "sandboxes").iterdir()) == list((folder / "workspaces").iterdir()) == []


async def test_work_that_outlives_its_thread_never_reaches_another_threads_files(
    make: MakeProvider, folder: Path
) -> None:
    async with make() as provider:
        theirs = await provider.open(OLD)
        for name in range(300):
            await theirs.write(f"theirs{name}", b"secret")
        full = await theirs.snapshot("full")
        for name in range(300):
            await theirs.remove(f"theirs{name}")
        restoring = asyncio.ensure_future(theirs.restore(full))
        await provider.remove(OLD)
        mine = await provider.open(NEW)
        late = [theirs.write("late", b"secret"), theirs.list(), theirs.snapshot("late"), restoring]
        for attempt in await asyncio.gather(*late, return_exceptions=True):
            assert attempt == [] or isinstance(attempt, DialtoneError | None), attempt
        assert await mine.list() == []


async def test_a_file_that_is_too_large_to_read_is_too_large_in_a_snapshot(make: MakeProvider) -> None:
    async with make() as provider:
        sandbox = await provider.open(OLD)
        done = await sandbox.exec(f"truncate -s {MAX_READ + 1} hole")
        assert done.exit_code == 0
        snapshot = await sandbox.snapshot("with a hole")
        for attempt in (sandbox.read("hole"), sandbox.read_at(snapshot, "hole")):
            with pytest.raises(ToolError) as refused:
                await attempt
            assert refused.value.kind == "too_large"


async def test_a_second_snapshot_stores_only_what_changed(make: MakeProvider, folder: Path) -> None:
    def stored() -> int:
        return sum(path.stat().st_size for path in (folder / "sandboxes/old/snapshots/objects").iterdir())

    async with make() as provider:
        sandbox = await provider.open(OLD)
        for number in range(50):
            await sandbox.write(f"f{number}", os.urandom(20_000))
        await sandbox.write("large", os.urandom(2_000_000))
        await sandbox.snapshot("first")
        first = stored()
        await sandbox.write("f7", os.urandom(20_000))
        await sandbox.write("copy", await sandbox.read("large"))
        await sandbox.snapshot("second")
        assert first > 3_000_000 and stored() - first < 60_000


async def test_a_page_of_many_differences_decodes_no_folder_more_than_twice(
    make: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []

    def decode(content: bytes) -> list[objects.Entry]:
        decoded.append(content)
        return real(content)

    real = objects.decode
    monkeypatch.setattr(objects, "decode", decode)
    async with make() as provider:
        sandbox = await provider.open(OLD)
        snapshots = []
        for text in ("a", "b"):
            await sandbox.exec(f"mkdir -p in; for number in $(seq 120); do echo {text} > in/$number; done")
            snapshots.append(await sandbox.snapshot(text))
        paths: list[str] = []
        decodings = []
        after = ""
        for limit in (1, 50, 100):
            decoded.clear()
            asked = {"old": snapshots[0], "new": snapshots[1], "after": after, "limit": limit}
            page = await compared(sandbox, asked)
            decodings.append(len(decoded))
            assert page["total"] == 120
            assert all(item["diff"].endswith("@@ -1 +1 @@\n-a\n+b") for item in page["items"])
            paths += [item["path"] for item in page["items"]]
            after = page["next"]
    assert (paths, after) == (sorted(f"in/{number}" for number in range(1, 121)), "")
    assert max(decodings) <= 8, "twice each: to compare, and to read"


async def test_a_tree_deeper_than_pythons_stack_is_remembered_compared_and_restored(make: MakeProvider) -> None:
    async with make() as provider:
        sandbox = await provider.open(OLD)
        empty = await sandbox.snapshot("empty")
        assert (await sandbox.exec(["python3", "-c", NESTED])).exit_code == 0
        deep = await sandbox.snapshot("deep")
        assert len(await sandbox.compare(empty, deep)) == 1101
        await sandbox.restore(empty)
        assert await sandbox.list() == []
        await sandbox.restore(deep)
        assert (await sandbox.exec("find . -name end -exec cat {} +")).stdout == b"deep"
        await provider.remove(OLD)  # too deep for what removes the test's folder


async def test_a_workspace_that_looks_too_large_is_not_remembered_and_says_so(make: MakeProvider) -> None:
    async with make(disk_bytes=1_000_000) as provider:
        sandbox = await provider.open(OLD)
        assert (await sandbox.exec("truncate -s 900000 1; for n in 2 3 4; do ln 1 $n; done")).exit_code == 0
        await sandbox.snapshot("holes and links of 3.6 MB")
        for command in ("ln 1 5", "rm 5; truncate -s 900000 5"):
            await sandbox.exec(command)
            with pytest.raises(ToolError, match="too large to be remembered") as refused:
                await sandbox.snapshot("4.5 MB")
            assert refused.value.kind == "too_large"
        await sandbox.exec("rm 5")
        await sandbox.snapshot("as before")


async def test_a_full_disk_or_a_killed_worker_leaves_nothing_of_a_snapshot_behind(
    make: MakeProvider, folder: Path
) -> None:
    objects = folder / "sandboxes" / OLD / "snapshots" / "objects"
    async with make() as provider:
        sandbox = await provider.open(OLD)
        await sandbox.write("large", os.urandom(1_000_000))
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limit[1]))  # fails as a full disk does
        try:
            with pytest.raises(SandboxError, match="cannot be used"):
                await sandbox.snapshot("too large for the disk")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert list(objects.iterdir()) == []
        await sandbox.snapshot("fits")
    for left in ("tmp-0123456789abcdef", "0123456789abcdef.pack", "index.tmp"):
        (objects / left).write_bytes(b"left by a worker that was killed")
    async with make() as provider:
        snapshot = await (await provider.open(OLD)).snapshot("same")
        assert len(await (await provider.open(OLD)).read_at(snapshot, "large")) == 1_000_000
    assert len(list(objects.iterdir())) == 3, "the file, a pack with the folder, the index"


def test_without_root_closed_folders_within_closed_folders_are_restored(ordinary: Places) -> None:
    workspace = ordinary.make(OLD).workspace
    tree = Tree(workspace, owner=os.geteuid())
    snapshots = Snapshots(workspace.parent / "state", tree, max_bytes=1_000_000)
    for name in ("closed/below/deep", "link/below/deep"):
        (workspace / name).mkdir(parents=True)
    (workspace / "closed/below/deep").chmod(0o500)
    for name in ("closed/below", "closed", "link"):
        (workspace / name).chmod(0o000)
    kept = snapshots.take("kept")
    for name in ("closed", "closed/below", "closed/below/deep", "link", "link/below"):
        (workspace / name).chmod(0o700)
    (workspace / "closed/below/deep").chmod(0o750)
    (workspace / "closed/below/deep/new").write_text("new")
    (workspace / "closed").chmod(0o000)
    (workspace / "link/below/deep").rmdir()
    (workspace / "link/below").rmdir()
    (workspace / "link").rmdir()
    (workspace / "link").symlink_to("/etc")
    changed = snapshots.take("changed")
    for wanted in (kept, changed, kept):
        snapshots.restore(wanted.id)
        assert snapshots.take("again").root == wanted.root
    os.close(tree.root_fd)


def test_without_root_what_its_owner_closed_to_himself_is_remembered_and_restored(ordinary: Places) -> None:
    workspace = ordinary.make(OLD).workspace
    tree = Tree(workspace, owner=os.geteuid())
    snapshots = Snapshots(workspace.parent / "state", tree, max_bytes=1_000_000)
    for name in ("closed", "readonly"):
        (workspace / name).mkdir()
        (workspace / name / "file").write_text("kept")
        (workspace / name / "file").chmod(0o000)
    (workspace / "closed").chmod(0o000)
    (workspace / "readonly").chmod(0o555)
    kept = snapshots.take("kept")
    assert (workspace / "closed").stat().st_mode & 0o777 == 0o000
    assert [snapshots.read(kept.id, f"{name}/file") for name in ("closed", "readonly")] == [b"kept"] * 2
    for name, closed_again in (("closed", 0o000), ("readonly", 0o555)):
        (workspace / name).chmod(0o700)
        (workspace / name / "file").unlink()
        (workspace / name / "new").write_text("new")
        (workspace / name).chmod(closed_again)
    snapshots.restore(kept.id)
    os.close(tree.root_fd)
    assert [(workspace / name).stat().st_mode & 0o777 for name in ("closed", "readonly")] == [0o000, 0o555]
    (workspace / "closed").chmod(0o700)
    for name in ("closed", "readonly"):
        assert os.listdir(workspace / name) == ["file"]  # noqa: PTH208  (a Path would say the same)


def test_remembering_changes_no_mode(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    (workspace / "closed").mkdir(parents=True)
    (workspace / "closed" / "file").touch()
    for path, mode in ((workspace / "closed" / "file", 0o4111), (workspace / "closed", 0o3070)):
        path.chmod(mode)
    tree = Tree(workspace, owner=os.geteuid())
    Snapshots(tmp_path / "state", tree, max_bytes=1_000_000).take("turn")
    os.close(tree.root_fd)
    assert stat.S_IMODE((workspace / "closed").stat().st_mode) == 0o3070
    (workspace / "closed").chmod(0o700)
    assert stat.S_IMODE((workspace / "closed" / "file").stat().st_mode) == 0o4111


def test_a_large_file_is_restored_in_pieces_and_a_damaged_one_not_at_all(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    tree = Tree(workspace, owner=os.geteuid())
    snapshots = Snapshots(tmp_path / "state", tree, max_bytes=1_000_000_000)
    content = os.urandom(50_000_000)
    tree.write("large", content)
    kept = snapshots.take("turn")
    tree.write("large", b"small")
    snapshots.take("turn")
    tracemalloc.start()
    try:
        snapshots.restore(kept.id)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert tree.read("large") == content

    tree.write("large", b"small")
    (stored,) = [path for path in (tmp_path / "state" / "objects").iterdir() if path.stat().st_size == len(content)]
    with stored.open("r+b") as file:
        file.write(b"damage")
    with pytest.raises(SandboxError, match="damaged"):
        snapshots.restore(kept.id)
    assert tree.read("large") == b"small" and os.listdir(workspace) == ["large"]  # noqa: PTH208  (hidden ones, too)
    os.close(tree.root_fd)


def test_a_change_within_one_tick_of_the_clock_is_remembered(tmp_path: Path) -> None:
    """ramfs has no finer times than the kernel's ticks, as no file system had before Linux 6.13."""
    with mounted("ramfs", tmp_path):
        (tmp_path / "workspace").mkdir()
        tree = Tree(tmp_path / "workspace", owner=os.geteuid())
        snapshots = Snapshots(tmp_path / "state", tree, max_bytes=10_000_000)
        file = tmp_path / "workspace" / "file"
        file.write_bytes(b"0000")
        for number in range(1, 50):
            before = snapshots.take("turn")
            with file.open("r+b") as changed:
                changed.write(b"%04d" % number)
            after = snapshots.take("turn")
            assert snapshots.read(after.id, "file") == b"%04d" % number and after != before
        os.close(tree.root_fd)


def test_a_workspace_that_is_compared_all_the_time_keeps_its_history(tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    tree = Tree(tmp_path / "workspace", owner=os.geteuid())
    snapshots = Snapshots(tmp_path / "state", tree, max_bytes=1_000_000)
    lasting = snapshots.take("turn")
    for number in range(600):
        tree.write("f", b"%d" % number, sync=False)
        snapshots.take(FLEETING)
    os.close(tree.root_fd)
    assert snapshots.all()[0] == lasting and len(snapshots.all()) < 10


def test_snapshots_of_a_workspace_that_always_changes_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    tree = Tree(tmp_path / "workspace", owner=os.geteuid())
    snapshots = Snapshots(tmp_path / "state", tree, max_bytes=1_000_000)
    for _ in range(30):
        tree.write("random", os.urandom(100_000), sync=False)
        newest = snapshots.take("turn")
    kept = snapshots.all()
    os.close(tree.root_fd)
    assert kept[-1] == newest and 2 <= len(kept) <= 10
    assert sum(path.stat().st_size for path in (tmp_path / "state" / "objects").iterdir()) <= 1_100_000
    assert len(snapshots.read(kept[0].id, "random")) == 100_000
