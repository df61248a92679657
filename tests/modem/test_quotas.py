"""What a tenant's sandboxes may use together: real workers' providers on one machine, counted in a real Redis."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from time import time
from typing import Any, Protocol

import pytest

from modem import keys
from modem.quotas import TenantQuota, places
from modem.signals import listen
from tests.modem.conftest import ALICE, EVE, Line
from tests.sandboxes import remotes
from tests.sandboxes.holding import ALL_TIERS, report, why_not
from tests.until import until
from workflow.core.config import SandboxSettings
from workflow.core.errors import LimitExceeded
from workflow.core.ids import ThreadId
from workflow.sandboxes.base import TierReport
from workflow.sandboxes.local import LocalProvider
from workflow.sandboxes.local_sandbox import LocalSandbox


@pytest.fixture
def checked() -> TierReport:
    tier = next((tier for tier in ALL_TIERS if not why_not(tier)), None)
    if tier is None:
        pytest.skip("no tier of the local sandbox holds here")
    return report(tier)


class MakeWorker(Protocol):
    def __call__(self, **settings: Any) -> LocalProvider: ...


@pytest.fixture
async def worker(line: Line, folder: Path, checked: TierReport) -> AsyncIterator[MakeWorker]:
    """Makes what one more worker process has; all are closed at the end."""
    async with AsyncExitStack() as stack:
        count = 0

        def make(**settings: Any) -> LocalProvider:
            nonlocal count
            count += 1
            chosen = SandboxSettings.model_validate({"mode": checked.tier, "tenant_wait_s": 0, **settings})
            quota = TenantQuota(line.connections, chosen, owner=f"w{count}")
            made = LocalProvider(chosen, data_dir=folder, report=checked, quota=quota)
            stack.push_async_exit(made)
            listening = asyncio.create_task(_listen(line, made))

            async def end() -> None:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)

            stack.push_async_callback(end)
            return made

        yield make


async def _listen(line: Line, provider: LocalProvider) -> None:
    """What the worker's host does with signals."""
    async with asyncio.TaskGroup() as group:

        def on_signal(kind: str, about: str) -> None:
            assert kind == "place"
            group.create_task(provider.yield_place([ThreadId(name) for name in about.split()]))

        await listen(line.connections, on_signal)


async def busy(provider: LocalProvider, thread_id: ThreadId) -> LocalSandbox:
    """A sandbox that nobody may put away."""
    sandbox = await provider.open(thread_id)
    await sandbox.start("sleep 300")
    return sandbox


async def test_a_tenant_has_so_many_live_sandboxes_over_all_workers(line: Line, worker: MakeWorker) -> None:
    one, other = worker(max_live_per_tenant=2), worker(max_live_per_tenant=2)
    first = await busy(one, await line.thread())
    await busy(other, await line.thread())
    third, theirs = await other.open(await line.thread()), await other.open(await line.thread(EVE))
    with pytest.raises(LimitExceeded, match="2 sandboxes of this tenant are live") as refused:
        await third.exec("true")
    assert refused.value.retryable and refused.value.retry_after_s
    assert (await first.exec("echo mine")).stdout == b"mine\n"
    assert (await theirs.exec("echo theirs")).stdout == b"theirs\n"
    await first.close()
    await until(lambda: runs(third), what="the place to be free")


async def runs(sandbox: LocalSandbox) -> bool:
    try:
        return (await sandbox.exec("true")).exit_code == 0
    except LimitExceeded:
        return False


async def test_an_idle_sandbox_of_the_same_tenant_makes_room_and_no_other(line: Line, worker: MakeWorker) -> None:
    provider = worker(max_live_per_tenant=1)
    idle, theirs = await provider.open(await line.thread()), await provider.open(await line.thread(EVE))
    await theirs.exec("true")
    await idle.exec("true")
    assert await runs(await provider.open(await line.thread()))
    assert (idle.is_live, theirs.is_live) == (False, True)


async def test_who_waits_gets_the_place_of_an_idle_sandbox_in_another_worker(line: Line, worker: MakeWorker) -> None:
    holder, other = worker(max_live_per_tenant=1), worker(max_live_per_tenant=1, tenant_wait_s=30)
    idle, wanting = await holder.open(await line.thread()), await other.open(await line.thread())
    await idle.exec("true")
    await holder.sweep()
    assert idle.is_live, "nobody waits yet"
    assert (await asyncio.wait_for(wanting.exec("echo at last"), 10)).stdout == b"at last\n"
    assert not idle.is_live


async def test_one_place_is_made_for_one_wish_though_several_workers_could(line: Line, worker: MakeWorker) -> None:
    holders = [worker(max_live_per_tenant=3) for _ in range(3)]
    idle = [await holder.open(await line.thread()) for holder in holders]
    for sandbox in idle:
        await sandbox.exec("true")
    wanting = await worker(max_live_per_tenant=3, tenant_wait_s=30).open(await line.thread())
    await asyncio.wait_for(wanting.exec("true"), 10)
    assert [sandbox.is_live for sandbox in idle].count(True) == 2


async def test_who_is_cancelled_while_it_waits_for_a_place_keeps_neither_a_place_nor_its_worker(
    line: Line, worker: MakeWorker
) -> None:
    holder, other = worker(max_live_per_tenant=1), worker(max_live_per_tenant=1, tenant_wait_s=30)
    held, thread = await busy(holder, await line.thread()), await line.thread()
    run = await line.execute(thread)
    await line.claim(run.run_id, worker="w2")
    command = asyncio.create_task((await other.open(thread)).exec("true"))

    async def waits() -> bool:
        return (await line.threads.run(ALICE, run.run_id)).waiting_for == "quota"

    await until(waits, what="the record to say why it waits")
    command.cancel()
    await asyncio.gather(command, return_exceptions=True)
    assert not await waits()
    await asyncio.wait_for(other.stop(thread), 5)
    await asyncio.wait_for(other.__aexit__(None, None, None), 5)
    await held.close()
    await asyncio.wait_for(holder.__aexit__(None, None, None), 5)
    assert await line.connections.commands.hgetall(keys.tenant_sandboxes(ALICE.tenant)) == {}


async def test_a_run_that_waits_for_a_place_says_so_until_it_has_one(line: Line, worker: MakeWorker) -> None:
    holder, other = worker(max_live_per_tenant=1), worker(max_live_per_tenant=1, tenant_wait_s=30)
    held = await busy(holder, await line.thread())
    thread = await line.thread()
    run = await line.execute(thread)
    await line.claim(run.run_id, worker="w2")
    command = asyncio.create_task((await other.open(thread)).exec("true"))

    async def waiting_for() -> str:
        return (await line.threads.run(ALICE, run.run_id)).waiting_for

    async def waits() -> bool:
        return await waiting_for() == "quota"

    await until(waits, what="the record to say why it waits")
    await held.close()
    await asyncio.wait_for(command, 10)
    assert await waiting_for() == ""


async def test_a_run_that_its_tenant_may_not_start_yet_waits_for_its_quota(line: Line) -> None:
    first, second = await line.execute(await line.thread()), await line.execute(await line.thread())
    line.scheduler.limits = line.settings.limits.model_copy(update={"max_running_per_tenant": 1})
    assert await line.scheduler.next() == first.run_id
    await line.claim(first.run_id)
    assert (await line.threads.run(ALICE, second.run_id)).waiting_for == "quota"
    line.scheduler.limits = line.settings.limits.model_copy(update={"max_running_per_tenant": 2})
    assert (await line.threads.run(ALICE, second.run_id)).waiting_for == "worker"


async def test_a_thread_that_another_worker_took_over_counts_once(line: Line, worker: MakeWorker) -> None:
    one, other = worker(max_live_per_tenant=1), worker(max_live_per_tenant=1)
    thread = await line.thread()
    lost, taken = await busy(one, thread), await other.open(thread)
    assert (await taken.exec("echo mine now")).stdout == b"mine now\n"
    await until(lambda: dead(lost), what="the first to be dead")
    await one.sweep()
    await taken.start("sleep 300")
    assert not await runs(await other.open(await line.thread()))


async def dead(sandbox: LocalSandbox) -> bool:
    return not sandbox.is_live


async def test_places_of_a_worker_that_was_killed_are_free_again(line: Line, worker: MakeWorker) -> None:
    provider = worker(max_live_per_tenant=1)
    await line.connections.commands.hset(keys.tenant_sandboxes(ALICE.tenant), "lost", "dead-worker 1790000000000")
    assert await runs(await provider.open(await line.thread()))


async def test_a_tenant_whose_files_take_too_much_is_told_to_delete_some(line: Line, worker: MakeWorker) -> None:
    provider = worker(tenant_disk_bytes=2_000_000)
    full, other = await line.thread(), await line.thread()
    sandbox = await provider.open(full)
    assert (await sandbox.exec("head -c 3000000 /dev/urandom > large")).exit_code == 0
    await provider.sweep()
    with pytest.raises(LimitExceeded, match="delete files or threads"):
        await (await provider.open(other)).exec("true")
    assert await runs(await provider.open(await line.thread(EVE)))
    await sandbox.close()
    await sandbox.remove("large")
    assert await runs(sandbox), "its own files are weighed before it starts"
    assert await runs(await provider.open(other))

    await sandbox.write("large", bytes(3_000_000))
    await provider.sweep()
    await line.threads.delete(ALICE, full)
    assert await line.connections.commands.hget(keys.tenant_disk(ALICE.tenant), full) is None
    assert int(await line.connections.commands.hget(keys.tenant_disk(ALICE.tenant), "")) < 2_000_000


async def test_files_that_came_and_went_without_a_command_count_too(line: Line, worker: MakeWorker) -> None:
    provider = worker(tenant_disk_bytes=2_000_000)
    source, other = await line.thread(), await line.thread()
    sandbox = await provider.open(source)
    await sandbox.write("large", bytes(1_500_000))
    snapshot = await sandbox.snapshot("before forking")
    await provider.sweep()
    assert await runs(await provider.open(other))
    fork = await line.thread()
    await provider.fork(source, snapshot, fork)
    await provider.sweep()
    await (await provider.open(other)).close()
    assert not await runs(await provider.open(other))
    await sandbox.remove("large")
    await provider.sweep()
    assert await runs(await provider.open(other))


async def test_what_was_put_away_or_deleted_for_room_no_longer_counts(
    line: Line, worker: MakeWorker, folder: Path
) -> None:
    threads = {name: await line.thread() for name in ("packed", "deleted", "other")}
    provider = worker(tenant_disk_bytes=4_000_000)
    for thread_id in (threads["packed"], threads["deleted"]):
        assert (await (await provider.open(thread_id)).exec("head -c 3000000 /dev/urandom > large")).exit_code == 0
    await provider.sweep()
    assert not await runs(await provider.open(threads["other"]))
    await provider.__aexit__(None, None, None)
    for days, name in ((9, "deleted"), (8, "packed")):
        at = time() - days * 86_400
        os.utime(folder / "sandboxes" / threads[name] / "used", (at, at))
    keeper = worker(tenant_disk_bytes=4_000_000, workspaces_bytes=4_000_000)
    tidied = await keeper.tidy()
    assert threads["deleted"] in tidied.deleted and threads["packed"] in tidied.archived
    weight = int(await line.connections.commands.hget(keys.tenant_disk(ALICE.tenant), threads["packed"]))
    assert 3_000_000 <= weight < 3_100_000, "the archive counts"
    assert await runs(await keeper.open(threads["other"]))


async def test_places_are_kept_before_anything_that_takes_long(line: Line, folder: Path, checked: TierReport) -> None:
    weighs, goes_on = asyncio.Event(), asyncio.Event()

    class Slow(TenantQuota):
        async def weigh(self, thread_id: ThreadId, disk_bytes: int) -> None:
            weighs.set()
            await goes_on.wait()

    settings = SandboxSettings.model_validate(
        {"mode": checked.tier, "max_live_per_tenant": 1, "tenant_disk_bytes": 1_000_000}
    )
    goes_on.set()
    quota = Slow(line.connections, settings, owner="w1")
    async with LocalProvider(settings, data_dir=folder, report=checked, quota=quota) as provider:
        thread = await line.thread()
        await busy(provider, thread)
        await line.connections.commands.hset(keys.tenant_sandboxes(ALICE.tenant), thread, "w1 1790000000000")
        goes_on.clear()
        weighs.clear()
        sweeping = asyncio.create_task(provider.sweep())
        await asyncio.wait_for(weighs.wait(), 10)
        place = await line.connections.commands.hget(keys.tenant_sandboxes(ALICE.tenant), thread)
        goes_on.set()
        await sweeping
        assert int(place.split()[1]) > time() * 1000


@pytest.mark.skipif(bool(remotes.why_not()), reason=remotes.why_not())
@pytest.mark.parametrize("vendor", remotes.VENDORS)
async def test_files_at_a_vendor_count_and_stay_in_reach_to_be_deleted(line: Line, vendor: remotes.Vendor) -> None:
    settings = {"tenant_disk_bytes": 2_000_000}
    quota = TenantQuota(line.connections, SandboxSettings.model_validate(settings), owner="w1")
    async with remotes.connect(vendor, remotes.fresh_server(vendor), settings=settings, quota=quota) as provider:
        full, other = await provider.open(await line.thread()), await provider.open(await line.thread())
        assert (await full.exec("head -c 3000000 /dev/zero > large")).exit_code == 0
        await provider.sweep()
        for sandbox in (full, other):
            with pytest.raises(LimitExceeded, match="delete files or threads"):
                await sandbox.exec("true")
            with pytest.raises(LimitExceeded):
                await sandbox.start("true")
        await full.put_away()
        await full.remove("large")
        assert (await full.exec("true")).exit_code == 0, "its own files are weighed before it is refused"
        assert (await other.exec("true")).exit_code == 0


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, 0),
        ({"max_live_per_tenant": 7}, 7),
        ({"tenant_memory_bytes": 5_000_000_000, "memory_bytes": 2_000_000_000}, 2),
        ({"tenant_cpus": 9.0, "cpus": 2.0, "max_live_per_tenant": 7}, 4),
        ({"tenant_memory_bytes": 2_000_000_000, "memory_bytes": 2_000_000_000, "tenant_cpus": 9.0}, 1),
    ],
)
def test_memory_and_processors_count_as_the_sandboxes_that_fit(limits: dict[str, Any], expected: int) -> None:
    assert places(SandboxSettings.model_validate(limits)) == expected


@pytest.mark.parametrize("limits", [{"tenant_memory_bytes": 1_000}, {"tenant_cpus": 0.5}])
def test_limits_that_no_sandbox_fits_into_are_a_mistake(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="what one sandbox may use"):
        SandboxSettings.model_validate(limits)
