"""What both remote providers promise beyond the contract: restarts, other workers, failures, cost."""

import asyncio
import dataclasses
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from tests.sandboxes import remotes
from tests.sandboxes.remotes import KEY, PACE, VENDORS, Vendor, connect, fresh_server
from tests.servers.boxes import Fault
from tests.until import until
from workflow.core.errors import LimitExceeded, SandboxError, SandboxRefused, ToolError
from workflow.core.ids import ThreadId
from workflow.sandboxes.remote import RemoteProvider
from workflow.sandboxes.remote_sandbox import RemoteSandbox

THREAD = ThreadId("thread-1")
CALLS = {"e2b": "/process.Process/Start", "daytona": "/process/execute"}
STREAMS = {"e2b": "/process.Process/Start", "daytona": "/logs"}
CREATES = {"e2b": "/v2/sandboxes", "daytona": "/api/sandbox"}

pytestmark = pytest.mark.skipif(bool(remotes.why_not()), reason=remotes.why_not())
Worker = Callable[..., RemoteProvider]


@pytest.fixture(params=VENDORS)
def vendor(request: pytest.FixtureRequest) -> Vendor:
    chosen: Vendor = request.param
    return chosen


@pytest.fixture
def server(vendor: Vendor) -> Any:
    """The vendor's server, without sandboxes."""
    return fresh_server(vendor)


@pytest.fixture
async def worker(vendor: Vendor, server: Any) -> AsyncIterator[Worker]:
    """Makes providers, one for each worker process that the test imagines."""
    async with AsyncExitStack() as stack:
        made: list[RemoteProvider] = []

        def make(**options: Any) -> RemoteProvider:
            made.append(connect(vendor, server, **options))
            return made[-1]

        yield make
        for provider in made:
            await stack.enter_async_context(provider)
    server.reset()


@pytest.fixture
async def sandbox(worker: Worker) -> RemoteSandbox:
    return await worker().open(THREAD)


# -- one sandbox per thread


async def test_the_next_worker_finds_the_sandbox_with_files_snapshots_and_processes(
    worker: Worker, server: Any
) -> None:
    before = await worker().open(THREAD)
    await before.write("notes", b"one")
    snapshot = await before.snapshot("turn 1")
    process = await before.start("echo up; sleep 60")
    await before.write("notes", b"two")
    after = await worker().open(THREAD)
    assert await after.read("notes") == b"two"
    await after.restore(snapshot)
    assert await after.read("notes") == b"one"
    found = await after.process(process.pid)
    assert found.exit_code is None and (await found.output())[0] == b"up\n"
    assert len(server.boxes) == 1


async def test_workers_that_open_a_thread_at_once_end_up_in_one_sandbox(
    worker: Worker, server: Any, vendor: Vendor
) -> None:
    server.faults.append(Fault(CREATES[vendor], method="POST", times=2, delay_s=0.3))
    one, two = await worker().open(THREAD), await worker().open(THREAD)
    await asyncio.gather(one.write("a", b"1"), two.write("b", b"2"))
    assert [stat.path for stat in await one.list()] == ["a", "b"]
    assert len(server.boxes) == 1


async def test_nothing_is_made_before_something_is_asked_of_it(sandbox: RemoteSandbox, server: Any) -> None:
    assert sandbox.info.label.endswith("/T0") and sandbox.info.workdir == f"{server.home}/workspace"
    assert server.boxes == {}


async def test_removing_a_thread_ends_its_sandbox_for_good(worker: Worker, server: Any) -> None:
    provider = worker()
    sandbox = await provider.open(THREAD)
    await sandbox.write("a", b"")
    await provider.remove(THREAD)
    assert server.boxes == {}
    with pytest.raises(SandboxError):
        await sandbox.read("a")
    assert server.boxes == {}


async def test_a_sandbox_that_vanished_is_told_once_then_one_begins_anew(sandbox: RemoteSandbox, server: Any) -> None:
    await sandbox.write("a", b"")
    server.remove_box(next(iter(server.boxes)))
    with pytest.raises(SandboxError, match="its files with it"):
        await sandbox.exec("cat a")
    assert await sandbox.list() == []
    assert (await sandbox.exec("echo fresh")).stdout == b"fresh\n"


async def test_another_worker_that_takes_the_thread_over_ends_the_first_ones_command(
    worker: Worker, server: Any
) -> None:
    first, second = await worker().open(THREAD), await worker().open(THREAD)
    started = asyncio.Event()
    command = asyncio.create_task(first.exec("echo on; sleep 60", on_output=lambda *_: started.set()))
    await asyncio.wait_for(started.wait(), 10)
    assert await second.list() == []  # looking at files takes nothing over
    assert not command.done()
    assert (await second.exec("echo mine")).stdout == b"mine\n"
    with pytest.raises(SandboxError, match="another worker"):
        await asyncio.wait_for(command, 10)


# -- connections that fail


async def test_a_command_runs_once_though_its_stream_drops(sandbox: RemoteSandbox, server: Any, vendor: Vendor) -> None:
    await sandbox.exec("true")
    server.faults.append(Fault(STREAMS[vendor], times=2, after_chunks=3))
    shown: list[bytes] = []
    result = await sandbox.exec(
        "echo begin | tee -a runs; for n in 1 2 3 4 5 6; do sleep 0.2; echo $n; done; echo end >&2",
        on_output=lambda _, chunk: shown.append(chunk),
    )
    assert result.stdout == b"begin\n1\n2\n3\n4\n5\n6\n" and result.stderr == b"end\n"
    assert b"".join(shown) == result.stdout + result.stderr
    assert await sandbox.read("runs") == b"begin\n"
    assert all(fault.times == 0 for fault in server.faults)


async def test_a_stream_that_falls_silent_is_taken_up_again(
    sandbox: RemoteSandbox, server: Any, vendor: Vendor
) -> None:
    await sandbox.exec("true")
    server.faults.append(Fault(STREAMS[vendor], after_chunks=2, stalls=True))
    result = await asyncio.wait_for(sandbox.exec("for n in 1 2 3 4 5; do echo $n; sleep 0.3; done"), 15)
    assert result.stdout == b"1\n2\n3\n4\n5\n"


async def test_a_long_silence_of_the_command_is_no_silence_of_the_stream(worker: Worker) -> None:
    sandbox = await worker(pace=dataclasses.replace(PACE, silence_s=1.0, beat_s=0.1, attempts=1)).open(THREAD)
    assert (await sandbox.exec("sleep 2.5; echo late")).stdout == b"late\n"


@pytest.mark.parametrize(
    "fault",
    [
        Fault("", times=2),
        Fault("", times=2, status=503, body={"message": "no capacity"}),
        Fault("", times=2, status=502, body={"message": "bad gateway"}),
        Fault("", times=2, status=429, body={"message": "slow down"}, headers={"Retry-After": "0"}),
    ],
    ids=["dropped", "busy", "gateway", "rate"],
)
async def test_what_fails_in_passing_is_repeated(
    sandbox: RemoteSandbox, server: Any, vendor: Vendor, fault: Fault
) -> None:
    await sandbox.write("a", b"1")
    server.faults.append(dataclasses.replace(fault, match=CALLS[vendor]))
    assert await sandbox.read("a") == b"1"
    server.faults.append(dataclasses.replace(fault, match=CALLS[vendor]))
    assert (await sandbox.exec("echo x >> a; cat a")).stdout == b"1x\n"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_long_content_goes_through_what_fails_in_passing(
    sandbox: RemoteSandbox, server: Any, vendor: Vendor, status: int
) -> None:
    await sandbox.write("a", b"")
    content = bytes(2_000_000)
    up, down = {"e2b": ("/files", "/files"), "daytona": ("bulk-upload", "bulk-download")}[vendor]
    server.faults.append(Fault(up, method="POST", times=2, status=status, body={"message": "later"}))
    await sandbox.write("big", content)
    server.faults.append(Fault(down, times=2, status=status, body={"message": "later"}))
    assert await sandbox.read("big") == content
    assert all(fault.times == 0 for fault in server.faults)


async def test_what_fails_for_long_is_a_typed_error(sandbox: RemoteSandbox, server: Any, vendor: Vendor) -> None:
    await sandbox.write("a", b"")
    server.faults.append(Fault(CALLS[vendor], times=99, status=429, body={"message": "slow down"}))
    with pytest.raises(SandboxError) as refused:
        await sandbox.read("a")
    assert refused.value.retryable and "slow down" in refused.value.message


async def test_a_slow_start_is_waited_for_and_one_without_end_is_an_error(
    worker: Worker, server: Any, vendor: Vendor
) -> None:
    server.faults.append(Fault(CREATES[vendor], method="POST", delay_s=0.5))
    patient = await worker().open(THREAD)
    assert (await patient.exec("echo up")).stdout == b"up\n"
    server.faults.append(Fault(CREATES[vendor], method="POST", delay_s=30))
    hurried = await worker(settings={"remote_timeout_s": 0.5}).open(ThreadId("thread-2"))
    with pytest.raises(SandboxError, match=r"within 0\.5 s"):
        await hurried.read("a")


async def test_a_key_that_does_not_hold_is_refused_and_never_repeated_in_words(worker: Worker) -> None:
    provider = worker(api_key="wrong-key-nobody-may-read")
    report = await provider.check()
    assert report.tier == "T3" and report.advice and not report.probes[0].held
    with pytest.raises(SandboxRefused) as refused:
        await (await provider.open(THREAD)).exec("true")
    shown = [report.probes[0].detail, str(refused.value)]
    error: BaseException | None = refused.value
    while error is not None:
        shown.append(f"{error!r} {error}")
        error = error.__cause__ if error.__suppress_context__ else error.__context__
    assert not any("wrong-key" in text for text in shown)


async def test_the_check_tells_a_service_out_of_reach_from_a_bad_key(worker: Worker, server: Any) -> None:
    assert (await worker().check()).probes[0].held
    server.faults.append(Fault("sandbox", times=99, status=500, body={"message": "down"}))
    report = await worker().check()
    assert report.tier == "T0" and not report.probes[0].held


async def test_an_image_without_python_says_what_is_missing(sandbox: RemoteSandbox, server: Any) -> None:
    await sandbox.exec("true")
    next(iter(server.boxes.values())).lost_python = True
    with pytest.raises(SandboxError, match="python3"):
        await sandbox.read("a")


async def test_an_error_of_the_one_who_shows_output_comes_back_as_it_is_and_ends_the_command(
    sandbox: RemoteSandbox,
) -> None:
    class Broken(Exception):
        pass

    def show(stream: str, chunk: bytes) -> None:
        raise Broken

    with pytest.raises(Broken):
        await sandbox.exec("sleep 1; echo x; sleep 60", on_output=show)
    assert (await sandbox.usage()).processes == 0


# -- what commands do to what watches over them


async def test_a_command_that_stops_its_supervisor_still_ends_in_time(sandbox: RemoteSandbox) -> None:
    result = await asyncio.wait_for(sandbox.exec("kill -STOP $PPID; echo on; sleep 60", timeout_s=1), 20)
    assert result.timed_out and result.stdout == b"on\n"
    assert (await sandbox.usage()).processes == 0


async def test_a_command_that_kills_its_supervisor_is_an_error_and_ends(sandbox: RemoteSandbox) -> None:
    with pytest.raises(SandboxError, match="supervisor"):
        await asyncio.wait_for(sandbox.exec("kill -KILL $PPID; sleep 60"), 20)
    assert (await sandbox.usage()).processes == 0


async def test_a_command_that_removes_our_program_does_not_harm_the_next_call(sandbox: RemoteSandbox) -> None:
    await sandbox.write("a", b"1")
    assert (await sandbox.exec("rm -rf ~/.dialtone/program-*")).exit_code == 0
    assert await sandbox.read("a") == b"1"
    assert (await sandbox.exec("rm ~/.dialtone/program-*; echo ok")).stdout == b"ok\n"
    assert (await sandbox.exec("echo again")).stdout == b"again\n"


@pytest.mark.parametrize("place", ["workspace", ".dialtone", ".dialtone/jobs"])
async def test_a_file_in_the_place_of_a_folder_of_ours_goes_aside(
    sandbox: RemoteSandbox, server: Any, place: str
) -> None:
    await sandbox.write("a", b"1")
    (box,) = server.boxes.values()
    shutil.rmtree(box.folder / place)
    (box.folder / place).write_text("in the way")
    assert (await sandbox.exec("echo on")).stdout == b"on\n"
    await sandbox.write("a", b"2")
    assert await sandbox.read("a") == b"2"


async def test_a_command_that_floods_is_killed_and_keeps_what_it_may(worker: Worker) -> None:
    sandbox = await worker(settings={"output_bytes": 100_000}).open(THREAD)
    result = await sandbox.exec("yes")
    assert (result.exit_code, result.killed_by) == (137, "output")
    assert result.stdout.startswith(b"y\ny\n")


async def test_a_background_process_keeps_the_end_of_what_it_printed(sandbox: RemoteSandbox) -> None:
    process = await sandbox.start("head -c 3000000 /dev/zero; echo end")
    assert await process.wait(timeout_s=20) == 0
    output, place = await process.output()
    assert place == 3_000_004 and output.endswith(b"\0end\n") and len(output) <= 2_100_000


ANSWER = "import base64, sys\ndef main(_): print(sys.argv[3], 'r', base64.b64encode({!r}.encode()).decode())"
FORGE = """
import glob, marshal, os, sys
for path in glob.glob(os.path.expanduser("~/.dialtone/program-*")):
    marshal.dump([("main", compile(sys.argv[1], "main", "exec"))], open(path, "wb"))
"""
FLOOD = "import sys\ndef main(_):\n while True: print(sys.argv[3], '1', 'QUFB' * 10_000)"


async def forge(sandbox: RemoteSandbox, program: str) -> None:
    """Has every later call answered by another program than ours."""
    await sandbox.list()  # now ours is known to be there
    assert (await sandbox.exec(["python3", "-c", FORGE, program])).exit_code == 0


@pytest.mark.parametrize(
    "answer",
    [
        '"text"',
        '{"code": "x", "killed_by": [], "idle_s": "x", "background": -1, "memory": NaN, "disk": 1e999}',
        '[["name", "file", "large", 0, 0], 5]',
        '{"at": 5}',
        "[" * 100_000,
    ],
    ids=["text", "fields", "rows", "place", "deep"],
)
async def test_a_forged_answer_is_an_error_of_its_sandbox_alone(worker: Worker, answer: str) -> None:
    provider = worker(settings={"idle_s": 0.2})
    sandbox, other = await provider.open(THREAD), await provider.open(ThreadId("thread-2"))
    await other.write("a", b"")
    await forge(sandbox, ANSWER.format(answer))
    calls: list[Callable[[], Awaitable[Any]]] = [sandbox.list, sandbox.usage, sandbox.download]
    calls += [partial(sandbox.stat, "a"), partial(sandbox.compare, "a", "b")]
    calls += [partial(sandbox.exec, "true"), partial(sandbox.start, "true")]
    for call in calls:
        with pytest.raises(SandboxError, match="damaged"):
            await call()
    await asyncio.sleep(0.3)
    assert await provider.sweep() == 1, "the other one is put away"


async def test_output_that_did_not_come_from_the_command_is_limited_as_well(worker: Worker) -> None:
    sandbox = await worker(settings={"output_bytes": 100_000}).open(THREAD)
    await forge(sandbox, FLOOD)
    with pytest.raises(SandboxError, match=r"more output|printed more|damaged"):
        await asyncio.wait_for(sandbox.exec("true"), 60)


# -- long content


async def test_what_is_too_large_to_be_held_is_refused(worker: Worker, server: Any) -> None:
    """Files with holes take no disk, and grow in no time."""
    sandbox = await worker(settings={"disk_bytes": 1_000_000}).open(THREAD)
    await sandbox.exec("truncate -s 100M holes")
    with pytest.raises(ToolError, match="too large"):
        await sandbox.download()
    (box,) = server.boxes.values()
    assert list((box.folder / ".dialtone" / "staged").iterdir()) == []
    elsewhere = {"at": f"{server.home}/workspace/holes", "staged": False}
    await forge(sandbox, ANSWER.format(json.dumps(elsewhere)))
    with pytest.raises(SandboxError, match="grew beyond"):
        await sandbox.download()


async def test_long_content_goes_past_the_command_line_and_leaves_nothing_behind(
    sandbox: RemoteSandbox, server: Any
) -> None:
    content = bytes(range(256)) * 12_000
    await sandbox.write("big", content)
    assert await sandbox.read("big") == content
    assert await sandbox.read("big", offset=100, limit=2_000_000) == content[100:2_000_100]
    packed = await sandbox.download(".")
    assert await sandbox.upload(packed, "copy") == 1
    assert await sandbox.read("copy/big") == content
    (box,) = server.boxes.values()
    assert list((box.folder / ".dialtone" / "staged").iterdir()) == []


# -- what is unused, and what it costs


async def test_an_idle_sandbox_is_put_away_and_the_next_call_wakes_it(
    worker: Worker, server: Any, vendor: Vendor
) -> None:
    provider = worker(settings={"idle_s": 0.2})
    sandbox = await provider.open(THREAD)
    await sandbox.write("kept", b"yes")
    assert provider.live == 1
    assert await provider.sweep() == 0
    await asyncio.sleep(0.3)
    assert await provider.sweep() == 1
    (box,) = server.boxes.values()
    assert box.state == {"e2b": "paused", "daytona": "stopped"}[vendor] and provider.live == 0
    assert await sandbox.read("kept") == b"yes"
    assert len(server.boxes) == 1 and provider.live == 1


async def test_a_sandbox_put_away_by_the_vendor_wakes_just_so(sandbox: RemoteSandbox, server: Any) -> None:
    await sandbox.write("kept", b"yes")
    (box,) = server.boxes.values()
    box.freeze("paused" if box.state == "running" else "stopped")
    assert (await sandbox.exec("cat kept")).stdout == b"yes"


async def test_a_sandbox_that_another_worker_uses_is_not_put_away(worker: Worker) -> None:
    idle = worker(settings={"idle_s": 0.2})
    await (await idle.open(THREAD)).write("a", b"")
    user = await worker().open(THREAD)
    started = asyncio.Event()
    await user.exec("mkfifo gate")
    command = asyncio.create_task(user.exec("echo on; read -r _ < gate", on_output=lambda *_: started.set()))
    await asyncio.wait_for(started.wait(), 10)
    await asyncio.sleep(0.2)
    assert await idle.sweep() == 0
    await user.exec("echo > gate")
    assert (await command).stdout == b"on\n"


async def test_a_sandbox_whose_port_somebody_visits_is_kept_by_other_workers(worker: Worker) -> None:
    idle, visited = worker(settings={"idle_s": 1.0}), worker(settings={"idle_s": 1.0})
    await (await idle.open(THREAD)).write("a", b"")
    async with (await visited.open(THREAD)).in_use():
        await (await visited.open(THREAD)).read("a")
        await asyncio.sleep(1.1)
        assert await visited.sweep() == 0
        assert await idle.sweep() == 0
    await asyncio.sleep(1.1)
    assert await idle.sweep() == 1


async def test_a_sandbox_with_background_processes_is_kept_longer(worker: Worker) -> None:
    provider = worker(settings={"idle_s": 0.2})
    process = await (await provider.open(THREAD)).start("sleep 60")
    await asyncio.sleep(0.3)
    assert await provider.sweep() == 0
    await process.kill()
    await asyncio.sleep(0.3)
    assert await provider.sweep() == 1


async def test_the_vendors_clock_is_put_back_while_a_command_runs(worker: Worker, server: Any) -> None:
    sandbox = await worker(settings={"idle_s": 0.1}, pace=dataclasses.replace(PACE, least_lease_s=1.5)).open(THREAD)
    await sandbox.exec("sleep 2")
    (box,) = server.boxes.values()
    assert box.extended >= 2


async def test_a_lease_that_is_not_renewed_does_not_fail_the_command(
    worker: Worker, server: Any, vendor: Vendor
) -> None:
    pace = dataclasses.replace(PACE, least_lease_s=1.5)
    sandbox = await worker(settings={"idle_s": 0.1}, pace=pace).open(THREAD)
    match = {"e2b": "/timeout", "daytona": "/last-activity"}[vendor]
    server.faults.append(Fault(match, times=99, status=500, body={"message": "no"}))
    assert (await sandbox.exec("sleep 1; echo fine")).stdout == b"fine\n"


async def test_too_many_awake_put_the_longest_unused_away_or_are_refused(worker: Worker) -> None:
    provider = worker(settings={"max_live": 1})
    one, two = await provider.open(ThreadId("one")), await provider.open(ThreadId("two"))
    await one.write("a", b"1")
    await two.write("b", b"2")
    assert provider.live == 1
    started = asyncio.Event()
    command = asyncio.create_task(two.exec("echo on; sleep 60", on_output=lambda *_: started.set()))
    await asyncio.wait_for(started.wait(), 10)
    with pytest.raises(LimitExceeded):
        await one.read("a")
    command.cancel()
    with pytest.raises(asyncio.CancelledError):
        await command
    assert await one.read("a") == b"1"


class OnePlace:
    """A quota of one sandbox that all threads share."""

    limits_disk = False

    def __init__(self) -> None:
        self.holder = self.waiting = ""

    async def take(self, thread_id: ThreadId) -> Collection[ThreadId]:
        if self.holder in ("", thread_id):
            self.holder = thread_id
            return ()
        return [ThreadId(self.holder)]

    async def wait(self, thread_id: ThreadId, *, is_over: bool) -> None:
        self.waiting = "" if is_over else thread_id

    async def choose(self, thread_ids: Collection[ThreadId]) -> bool:
        return bool(self.waiting)

    async def keep(self, thread_ids: Collection[ThreadId]) -> None:
        assert set(thread_ids) == {self.holder}

    async def give(self, thread_id: ThreadId) -> None:
        if self.holder == thread_id:
            self.holder = ""

    async def check_disk(self, thread_id: ThreadId) -> None:
        raise AssertionError("it has no limit")

    async def weigh(self, thread_id: ThreadId, disk_bytes: int) -> None:
        raise AssertionError("it has no limit")


async def test_a_tenants_place_passes_from_an_idle_machine_to_the_next(worker: Worker, server: Any) -> None:
    quota = OnePlace()
    provider = worker(settings={"tenant_wait_s": 0, "idle_s": 0.01}, quota=quota)
    one, two = await provider.open(ThreadId("one")), await provider.open(ThreadId("two"))
    await one.write("a", b"1")
    await two.write("b", b"2")
    assert (quota.holder, provider.live) == ("two", 1)
    started = asyncio.Event()
    command = asyncio.create_task(two.exec("echo on; sleep 60", on_output=lambda *_: started.set()))
    await asyncio.wait_for(started.wait(), 10)
    with pytest.raises(LimitExceeded, match="sandboxes of this tenant are live"):
        await one.read("a")
    assert not quota.waiting
    command.cancel()
    with pytest.raises(asyncio.CancelledError):
        await command
    assert await one.read("a") == b"1" and quota.holder == "one"
    await provider.yield_place([ThreadId("one")])
    assert provider.live == 1, "no other worker waits"
    quota.waiting = "another worker's"
    await provider.yield_place([ThreadId("two")])
    assert provider.live == 1, "that one sleeps already"
    await provider.yield_place([ThreadId("one")])
    assert (quota.holder, provider.live) == ("", 0)
    assert await one.read("a") == b"1"

    async def is_free() -> bool:
        await provider.sweep()
        return not quota.holder

    await until(is_free, what="the idle machine to give its place back")


async def test_leaks_are_ended_by_label_and_nothing_else_is(worker: Worker, server: Any) -> None:
    async def exists(thread_id: ThreadId) -> bool:
        return thread_id == "known"

    provider = worker(exists=exists)
    for thread_id in ("known", "gone", "gone-but-young", "held"):
        await (await worker().open(ThreadId(thread_id))).write("a", b"")
    await (await provider.open(ThreadId("held"))).read("a")
    await (await worker(settings={"label": "other"}).open(ThreadId("gone"))).write("a", b"")
    by_thread = {(box.labels["dialtone-label"], box.labels["dialtone-thread"]): box for box in server.boxes.values()}
    for (_, thread), box in by_thread.items():
        if thread != "gone-but-young":
            box.created_at -= timedelta(hours=1)
    second = server.make_box(dict(by_thread["dialtone", "known"].labels), {})
    second.created_at = by_thread["dialtone", "known"].created_at + timedelta(minutes=1)
    assert await provider.end_leaks() == 2
    left = {(box.labels["dialtone-label"], box.labels["dialtone-thread"]) for box in server.boxes.values()}
    assert left == set(by_thread) - {("dialtone", "gone")} and second.id not in server.boxes


async def test_an_installation_with_the_same_label_is_left_alone(worker: Worker, server: Any) -> None:
    """E.g. a second one with the same key, which knows nobody's threads, or one whose Redis was emptied."""

    async def exists(thread_id: ThreadId) -> bool:
        return False

    await (await worker(installation="one").open(THREAD)).write("a", b"1")
    (box,) = server.boxes.values()
    box.created_at -= timedelta(hours=1)
    assert await worker(exists=exists, installation="two").end_leaks() == 0
    assert await (await worker(installation="two").open(THREAD)).read("a") == b"1", "a thread's is found by whoever"
    assert await worker(exists=exists, installation="one").end_leaks() == 1


async def test_the_sandbox_with_the_work_is_kept_though_an_older_one_shows_up(worker: Worker, server: Any) -> None:
    """E.g. one whose making took long and whose worker did not wait for it."""
    await (await worker().open(THREAD)).write("work", b"done")
    (used,) = server.boxes.values()
    unused = server.make_box(dict(used.labels), {})
    used.created_at -= timedelta(hours=1)
    unused.created_at, unused.state = used.created_at - timedelta(minutes=1), used.state
    assert await (await worker().open(THREAD)).read("work") == b"done"
    assert await worker().end_leaks() == 1
    assert list(server.boxes.values()) == [used]


async def test_a_leak_that_cannot_be_ended_keeps_none_of_the_others(worker: Worker, server: Any) -> None:
    async def exists(thread_id: ThreadId) -> bool:
        return False

    for thread_id in ("one", "two", "three"):
        await (await worker().open(ThreadId(thread_id))).write("a", b"")
    for box in server.boxes.values():
        box.created_at -= timedelta(hours=1)
    stubborn = next(iter(server.boxes))
    server.faults.append(Fault(f"/{stubborn}", method="DELETE", times=99, status=500, body={"message": "no"}))
    assert await worker(exists=exists).end_leaks() == 2
    assert list(server.boxes) == [stubborn]


async def test_as_long_as_it_is_not_known_which_of_two_holds_the_work_neither_is_ended(
    worker: Worker, server: Any, vendor: Vendor
) -> None:
    await (await worker().open(THREAD)).write("work", b"done")
    (used,) = server.boxes.values()
    second = server.make_box(dict(used.labels), {})
    used.created_at -= timedelta(hours=1)
    second.created_at, second.state = used.created_at, used.state
    server.faults.append(Fault(CALLS[vendor], times=99, status=500, body={"message": "no"}))
    assert await worker().end_leaks() == 0
    assert len(server.boxes) == 2


async def test_a_search_for_leaks_that_takes_too_long_is_given_up(worker: Worker, server: Any) -> None:
    server.faults.append(Fault("sandbox", method="GET", delay_s=5))
    assert await worker(settings={"remote_timeout_s": 0.5}).end_leaks() == 0


async def test_without_knowing_threads_only_second_sandboxes_are_leaks(worker: Worker, server: Any) -> None:
    await (await worker().open(THREAD)).write("a", b"")
    (box,) = server.boxes.values()
    box.created_at -= timedelta(hours=1)
    assert await worker().end_leaks() == 0
    assert KEY not in repr(server.requests)
