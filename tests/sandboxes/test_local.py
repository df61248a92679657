"""The local provider's own promises: one live sandbox per thread, reclaimed when idle, taken over, never mixed up."""

import asyncio
import contextlib
import gc
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandboxes.conftest import MakeProvider
from tests.until import until
from workflow.core.errors import DialtoneError, LimitExceeded, SandboxError, ToolError
from workflow.core.ids import ThreadId
from workflow.sandboxes import lock
from workflow.sandboxes.tiers import Tier

ONE, TWO, THREE = ThreadId("one"), ThreadId("two"), ThreadId("three")


async def test_a_thread_has_one_live_sandbox_however_often_it_is_opened(make: MakeProvider) -> None:
    provider = make()
    opened = await asyncio.gather(*(provider.open(ONE) for _ in range(5)))
    cells = await asyncio.gather(*(sandbox.cell() for sandbox in opened))
    assert len(set(map(id, opened))) == 1 and len(set(map(id, cells))) == 1


async def test_an_idle_sandbox_is_reclaimed_and_comes_back(make: MakeProvider) -> None:
    provider = make(idle_s=0.01)
    sandbox = await provider.open(ONE)
    await sandbox.exec("echo kept > file")
    first = await sandbox.cell()
    sandbox.used_at -= 1  # the idle time passes
    assert await provider.sweep() == 1
    assert not first.is_alive
    assert (await sandbox.exec("cat file")).stdout == b"kept\n"
    assert await provider.open(ONE) is sandbox, "whoever holds it and whoever opens it share it"


async def test_a_sandbox_that_works_is_not_reclaimed(make: MakeProvider) -> None:
    provider = make(idle_s=0.01)
    sandbox = await provider.open(ONE)
    command = asyncio.create_task(sandbox.exec("sleep 300"))
    await sandbox.exec("true")
    sandbox.used_at -= 1
    assert await provider.sweep() == 0
    command.cancel()
    await asyncio.wait([command])
    process = await sandbox.start("sleep 300")
    sandbox.used_at -= 0.05
    assert await provider.sweep() == 0 and process.exit_code is None
    sandbox.used_at -= 1  # a background process buys time, not eternity
    assert await provider.sweep() == 1 and process.exit_code is not None


async def test_a_handle_that_nobody_holds_gives_its_descriptors_back(make: MakeProvider) -> None:
    provider = make(idle_s=0.001)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for number in range(20):
        sandbox = await provider.open(ThreadId(f"t{number}"))
        await sandbox.write("f", b"")
        sandbox.used_at -= 1
    del sandbox
    await provider.sweep()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 3  # noqa: PTH208


async def test_a_worker_without_descriptors_left_says_so_and_goes_on_when_there_are_some(make: MakeProvider) -> None:
    provider = make()
    live, put_away = await provider.open(ThreadId("live")), await provider.open(ThreadId("away"))
    await live.exec("true")
    before = len(descriptors()) + 1  # The port exposed.
    for left in range(12):
        with scarce_descriptors(left):
            calls = (live.exec("true", stdin=b"x"), live.start("true"), live.address(80), live.usage())
            for call in (*calls, put_away.exec("true"), provider.open(ThreadId("live"))):
                with contextlib.suppress(DialtoneError):  # Nothing else, however many are left.
                    await call
        await put_away.close()
    async with asyncio.timeout(10):
        assert (await live.exec("echo back")).stdout == (await put_away.exec("echo back")).stdout == b"back\n"
    await put_away.close()
    await until(lambda: at_most(before), what="the descriptors to be given back")


@contextlib.contextmanager
def scarce_descriptors(left: int) -> Iterator[None]:
    """As many as are said are left to this process inside."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(descriptors()) + left + 1, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for fd in taken[:left]:
            os.close(fd)
        yield
    finally:
        for fd in taken[left:]:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def descriptors() -> set[int]:
    return {int(path.name) for path in Path("/proc/self/fd").iterdir()}


async def at_most(count: int) -> bool:
    return len(descriptors()) <= count


async def test_over_the_limit_the_one_unused_longest_makes_room(make: MakeProvider) -> None:
    provider = make(max_live=2)
    sandboxes = [await provider.open(thread_id) for thread_id in (ONE, TWO, THREE)]
    for sandbox in sandboxes:
        await sandbox.exec("true")
    assert [sandbox.is_live for sandbox in sandboxes] == [False, True, True]


async def test_threads_that_start_at_once_do_not_pass_the_limit_together(make: MakeProvider) -> None:
    provider = make(max_live=2)
    sandboxes = [await provider.open(ThreadId(f"burst{number}")) for number in range(6)]
    commands = [asyncio.create_task(each.exec("until [ -e go ]; do sleep 0.02; done")) for each in sandboxes]

    async def two_are_left_and_live() -> bool:
        return provider.live == sum(not command.done() for command in commands) == 2

    await until(two_are_left_and_live)
    for sandbox in sandboxes:
        await sandbox.write("go", b"")
    results = await asyncio.gather(*commands, return_exceptions=True)
    assert sum(isinstance(result, LimitExceeded) for result in results) == 4


async def test_where_all_work_the_limit_is_a_refusal_that_can_be_retried(make: MakeProvider) -> None:
    provider = make(max_live=1)
    busy, waiting = await provider.open(ONE), await provider.open(TWO)
    await busy.start("sleep 300")
    with pytest.raises(LimitExceeded) as refused:
        await waiting.exec("true")
    assert refused.value.retryable and refused.value.retry_after_s


async def test_a_worker_that_takes_a_thread_over_ends_the_other_ones_sandbox(make: MakeProvider) -> None:
    """The first worker is stopped, not dead: it still holds its sandbox, and must not write beside the new one."""
    old, new = await make().open(ONE), await make().open(ONE)
    zombie = asyncio.create_task(old.exec("while :; do date >> log; sleep 0.01; done"))
    await old.exec("until [ -s log ]; do sleep 0.01; done", timeout_s=5)
    assert (await new.exec("echo mine")).stdout == b"mine\n"
    with pytest.raises(SandboxError):
        await asyncio.wait_for(zombie, 5)
    size = len(await new.read("log"))
    await new.exec("sleep 0.1")
    assert len(await new.read("log")) == size


async def test_files_can_be_reached_beside_a_run_of_another_worker(make: MakeProvider) -> None:
    running, reading = await make().open(ONE), await make().open(ONE)
    process = await running.start("sleep 300")
    await reading.write("uploaded", b"by a person")
    assert (await running.exec("cat uploaded")).stdout == b"by a person"
    assert process.exit_code is None


async def test_a_port_is_found_by_the_worker_that_does_not_run_the_sandbox(make: MakeProvider, tier: Tier) -> None:
    if tier == "T2":
        pytest.skip("commands in T2 have no sockets")
    running, asking = await make().open(ONE), await make().open(ONE)
    await running.exec("true")
    assert await running.address(8000) == await asking.address(8000)


async def test_removing_a_thread_ends_its_sandbox_in_every_worker(make: MakeProvider, folder: Path) -> None:
    one, two = make(), make()
    running = await one.open(ONE)
    command = asyncio.create_task(running.exec("sleep 300"))
    await running.exec("true")
    await two.remove(ONE)
    with pytest.raises(SandboxError):
        await asyncio.wait_for(command, 5)
    assert not (folder / "workspaces" / "one").exists() and not (folder / "sandboxes" / "one").exists()
    assert await (await one.open(ONE)).list() == []


async def test_closing_the_provider_leaves_no_process_and_no_lock(make: MakeProvider, folder: Path) -> None:
    provider = make()
    sandbox = await provider.open(ONE)
    await sandbox.start("setsid -f sleep 300; sleep 300")
    init = (await sandbox.cell()).init_pid
    await provider.__aexit__(None, None, None)
    assert not Path(f"/proc/{init}").exists()
    assert not lock.is_used(folder / "sandboxes" / "one" / "lock")


async def test_a_thread_whose_id_is_a_path_is_refused(make: MakeProvider) -> None:
    for bad in ("../x", "a/b", "", ".", "a\0"):
        with pytest.raises(SandboxError):
            await make().open(ThreadId(bad))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give each sandbox a user of its own")
async def test_every_thread_has_a_user_of_its_own(make: MakeProvider) -> None:
    provider = make()
    one, two = await provider.open(ONE), await provider.open(TWO)
    assert len({one.place.uid, two.place.uid, 0}) == 3
    await one.exec("echo > made")
    await one.write("written", b"")
    owners = {path.stat().st_uid for path in one.place.workspace.iterdir()}
    assert owners == {one.place.uid}
    await provider.sweep()
    assert (await make().open(ONE)).place.uid == one.place.uid, "remembered by the folder"


async def test_the_python_of_the_project_is_found_though_its_folder_is_closed(make: MakeProvider) -> None:
    """Root's own folders are 0700; the interpreter often lies in one."""
    sandbox = await make().open(ONE)
    result = await sandbox.exec(["python3", "-c", "print(6 * 7)"])
    assert result.stdout == b"42\n"


@pytest.mark.parametrize("command", ["echo \ud83d", ["echo", "\ud83d"]])
async def test_a_command_that_is_no_text_is_the_agents_mistake(make: MakeProvider, command: str | list[str]) -> None:
    sandbox = await make().open(ThreadId("half"))
    with pytest.raises(ToolError) as refused:
        await sandbox.exec(command)
    assert refused.value.kind == "bad_command"


@pytest.mark.parametrize("port", [-1, 0, 65_536])
async def test_what_is_no_port_is_refused_and_ends_nothing(make: MakeProvider, port: int) -> None:
    sandbox = await make().open(ThreadId("ports"))
    server = await sandbox.start("sleep 60")
    with pytest.raises(ToolError) as refused:
        await sandbox.address(port)
    assert refused.value.kind == "port_closed" and server.exit_code is None


async def test_hidden_files_of_the_account_do_not_run(make: MakeProvider) -> None:
    sandbox = await make().open(ONE)
    await sandbox.exec(
        "for f in .bashrc .bash_profile .profile .bash_login; do echo 'echo PLANTED' | tee ~/$f > $f; done;"
        "mkdir -p ~/.local/lib/python3.11/site-packages;"
        "echo 'print(\"PLANTED\")' | tee ~/.local/lib/python3.11/site-packages/usercustomize.py > sitecustomize.py"
    )
    await sandbox.close()
    result = await sandbox.exec("echo clean")
    assert result.stdout == b"clean\n" and result.stderr == b""


async def test_planted_git_configuration_is_not_run_by_the_host(make: MakeProvider) -> None:
    """Listing, snapshots, archives and usage look at the files themselves; no program is started over them."""
    sandbox = await make().open(ONE)
    await sandbox.exec(
        "mkdir -p .git/hooks; printf '[core]\\n\\tfsmonitor = \"touch %s/EXECUTED\"\\n' $PWD > .git/config;"
        "for h in .git/hooks/{post-checkout,pre-commit}; do printf '#!/bin/sh\\ntouch EXECUTED' > $h; chmod +x $h; done"
    )
    snapshot = await sandbox.snapshot("one")
    await sandbox.list(depth=9)
    await sandbox.download()
    await sandbox.restore(snapshot)
    await sandbox.usage()
    assert not [stat.path for stat in await sandbox.list(depth=9) if "EXECUTED" in stat.path]


async def test_a_caller_who_is_cancelled_while_the_sandbox_starts_leaves_it_to_the_next(make: MakeProvider) -> None:
    sandbox = await make().open(ONE)
    first = asyncio.create_task(sandbox.exec("echo first"))
    await asyncio.wait([first], timeout=0.005)
    first.cancel()
    await asyncio.wait([first])
    assert (await sandbox.exec("echo second")).stdout == b"second\n"
    hurried = asyncio.create_task((await make().open(TWO)).exec("true"))
    await asyncio.wait([hurried], timeout=0.005)
    hurried.cancel()  # and nobody comes after: closing the provider ends what was started
    await asyncio.wait([hurried])
