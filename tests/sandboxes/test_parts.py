"""The parts a sandbox is made of, by themselves."""

import fcntl
import io
import os
import stat
import struct
import zipfile
from pathlib import Path
from typing import cast, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow.core.errors import SandboxError, SandboxRefused, ToolError
from workflow.sandboxes import lock, probes, seccomp
from workflow.sandboxes.advice import for_better_tier
from workflow.sandboxes.archive import Member, pack, zipped
from workflow.sandboxes.base import ExecResult
from workflow.sandboxes.cgroups import Cgroups, Limits
from workflow.sandboxes.local_sandbox import LocalSandbox
from workflow.sandboxes.objects import Objects
from workflow.sandboxes.output import Kept, Rolling
from workflow.sandboxes.paths import relative
from workflow.sandboxes.staging import as_user

CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=30)


@given(CHUNKS, st.integers(0, 60))
def test_kept_output_is_head_and_tail_of_the_whole(chunks: list[bytes], limit: int) -> None:
    kept = Kept(limit)
    for chunk in chunks:
        kept.add(chunk)
    whole = b"".join(chunks)
    if len(whole) <= limit:
        assert (kept.value(), kept.dropped) == (whole, 0)
    else:
        head, tail = limit // 2, limit - limit // 2
        assert kept.value() == whole[:head] + whole[len(whole) - tail :]
        assert kept.dropped == len(whole) - limit


@given(CHUNKS)
def test_rolling_output_is_addressed_by_its_place_in_the_whole(chunks: list[bytes]) -> None:
    rolling, whole, place, read = Rolling(), b"", 0, b""
    for chunk in chunks:
        rolling.add(chunk)
        whole += chunk
        new, place = rolling.after(place)
        read += new
    assert read == whole and place == len(whole)


def test_rolling_output_forgets_the_oldest_and_keeps_the_places() -> None:
    rolling = Rolling()
    for number in range(300):
        rolling.add(f"{number:>9}\n".encode() * 1000)
    tail, place = rolling.after(0)
    assert place == 3_000_000 and len(tail) <= Rolling.LIMIT
    assert tail.endswith(b"      299\n") and rolling.after(place - 10) == (b"      299\n", place)


@given(st.text(alphabet="ab./\0", max_size=12))
def test_a_path_is_inside_or_refused(path: str) -> None:
    try:
        found = relative(path)
    except ToolError as error:
        assert error.kind in ("outside_workspace", "bad_path")  # noqa: PT017  (refusing is one of two right answers)
        return
    assert not found.startswith("/") and ".." not in found.split("/") and "\0" not in found
    assert os.path.normpath(found) == found


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("kind", get_args(seccomp.Kind))
def test_the_filter_is_a_program_whose_jumps_stay_inside(machine: str, kind: seccomp.Kind) -> None:
    program = seccomp.build(kind, machine=machine)
    steps = list(struct.iter_unpack("=HBBI", program))
    assert len(steps) < 4096 and steps[-1] == (seccomp.RETURN, 0, 0, seccomp.ALLOW)
    for place, (code, yes, no, _) in enumerate(steps):
        if code not in (seccomp.LOAD, seccomp.RETURN):
            assert place + 1 + max(yes, no) < len(steps)


def test_the_filters_numbers_are_those_of_the_machines_headers() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("no kernel headers here")
    words = [line.split() for line in header.read_text().splitlines() if line.startswith("#define __NR_")]
    known = {name.removeprefix("__NR_"): int(number) for _, name, number in words}
    listed: dict[str, tuple[int | None, int | None]] = {**seccomp.REFUSED, **seccomp.IPC, **seccomp.ON_PATHS}
    listed |= {name: numbers for name, (numbers, _) in {**seccomp.ON_OTHERS, **seccomp.LIMITS_OF_OTHERS}.items()}
    for name, (wanted, _) in {**listed, "utimensat": seccomp.UTIMENSAT}.items():
        assert known.get(name, wanted) == wanted, name
    for name, number in seccomp.CALLS["x86_64"].items():
        assert known[name] == number


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(SandboxRefused, match="s390x"):
        seccomp.build("namespaces", machine="s390x")


def test_a_lock_is_held_until_its_last_descriptor_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = lock.take(path)
    copy = os.dup(held)
    os.close(held)
    assert lock.is_used(path) and lock.take_free(path) is None
    os.close(copy)
    assert not lock.is_used(path)


def test_a_number_that_another_process_has_now_is_not_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock.note(path, os.getpid())
    assert lock.holder(path) == os.getpid()
    path.write_text(f"{os.getpid()} 12345")
    assert lock.holder(path) == 0
    path.write_text("nonsense")
    assert lock.holder(path) == 0


def test_a_damaged_snapshot_is_noticed_not_restored(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    name = objects.put(b"content")
    objects.flush()
    assert Objects(tmp_path).get(name) == b"content"
    pack = next(tmp_path.glob("*.pack"))
    pack.write_bytes(b"CONTENT")
    with pytest.raises(SandboxError, match="damaged"):
        Objects(tmp_path).get(name)
    pack.unlink()
    with pytest.raises(SandboxError, match="lacks"):
        Objects(tmp_path).get(name)


def test_what_no_snapshot_holds_any_more_is_swept(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    kept, gone = objects.put(b"kept"), objects.put(b"gone")
    objects.flush()
    objects.sweep({kept})
    assert Objects(tmp_path).get(kept) == b"kept"
    with pytest.raises(SandboxError):
        Objects(tmp_path).get(gone)
    assert b"gone" not in b"".join(path.read_bytes() for path in tmp_path.glob("*.pack"))


def test_a_control_group_counts_limits_and_goes() -> None:
    groups = Cgroups.find()
    if groups is None:
        pytest.skip("no control group can be made here")
    group = groups.make(f"test-{os.getpid()}", Limits(memory_bytes=50_000_000, processes=5, cpus=0.5))
    try:
        assert group.processes() == 0 and 0 <= group.memory_bytes() < 50_000_000 and group.out_of_memory() == 0
    finally:
        group.remove()
    assert not [folder for folder in group.folders if folder.exists()]


async def test_a_memory_hog_that_was_too_slow_to_reach_the_limit_proves_nothing() -> None:
    class Slow:
        async def exec(self, *_: object, **__: object) -> ExecResult:
            return ExecResult(124, b"", b"", timed_out=True, killed_by="timeout")

    assert not (await probes._memory_hog(cast(LocalSandbox, Slow()))).held


def test_a_folder_closed_to_others_is_staged_and_an_open_one_is_not(tmp_path: Path) -> None:
    for part in (tmp_path, *list(tmp_path.parents)[:-1]):
        if not part.stat().st_mode & 1:
            break
    else:
        pytest.skip("pytest's folder is open to all")
    assert "unshare" in as_user(12345, [tmp_path])[0]
    assert "setpriv" in as_user(12345, [Path("/usr")])[0]


def test_advice_says_what_to_do_and_nothing_when_all_is_well() -> None:
    everything = {"memory", "pids", "cpu"}
    assert for_better_tier("T1", controllers=everything) == ()
    assert any("Delegate" in line for line in for_better_tier("T1", controllers=everything - {"cpu"}))
    assert any("Delegate" in line for line in for_better_tier("T1b", controllers=set()))
    assert any("unsafe_host" in line for line in for_better_tier("T3", controllers=everything))


def test_a_lock_that_is_held_by_the_living_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert lock.take_free(path) is None
    free = lock.take_free(path)
    assert free is not None
    os.close(free)


def test_a_zip_holds_files_whose_names_are_no_text() -> None:
    odd = os.fsdecode(b"caf\xe9")
    pieces = zipped(pack([Member(odd, "file", content=b"x"), Member("link", "symlink", target=odd)]))
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as packed:
        assert packed.read("caf\ufffd") == b"x"
        assert packed.read("link") == b"caf\xe9"


def test_a_zip_holds_what_the_tar_held_and_comes_in_pieces() -> None:
    tree = [
        Member("src", "dir", 0o755),
        Member("src/run.sh", "file", 0o755, b"echo hi\n" * 1000),
        Member("src/ü.txt", "file", 0o644, b""),
        Member("link", "symlink", target="src/run.sh"),
    ]
    pieces = list(zipped(pack(tree)))
    assert len(pieces) == len(tree) + 1
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as packed:
        assert packed.testzip() is None
        modes = {entry.filename: stat.filemode(entry.external_attr >> 16) for entry in packed.infolist()}
        assert modes == {
            "src/": "drwxr-xr-x",
            "src/run.sh": "-rwxr-xr-x",
            "src/ü.txt": "-rw-r--r--",
            "link": "lrwxrwxrwx",
        }
        assert packed.read("src/run.sh") == tree[1].content and packed.read("link") == b"src/run.sh"
