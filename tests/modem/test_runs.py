"""The promises of the run record and the log, at modem's own surface."""

import asyncio
from functools import partial
from typing import Any

import pytest

from modem import keys
from modem.journal import Previewer
from modem.leases import Heartbeat, Lease
from modem.runs import Runs
from modem.stream import StreamId, parse_cursor
from modem.threads import Threads
from tests.modem.conftest import ALICE, EVE, Line
from tests.until import until
from workflow.core.errors import (
    BadCursor,
    Conflict,
    KeyReused,
    LeaseLost,
    LimitExceeded,
    NotFound,
    RunCancelled,
    ThreadBusy,
    Unavailable,
)
from workflow.core.events import ApprovalRequested, Delta, DeltaKind, EventBase, Message, Notice, RunFinished, Usage
from workflow.core.ids import ItemId, RunId, TenantId, ThreadId, new_run_id
from workflow.core.records import RunOptions, RunRecord


def notice(run_id: RunId, text: str = "hello") -> EventBase:
    return Notice(thread_id=ThreadId(run_id.split(".")[0]), run_id=run_id, code="test", text=text)


async def test_an_accepted_run_is_recorded_logged_and_hinted(line: Line) -> None:
    thread_id = await line.thread()
    run = await line.execute(thread_id, "count to three")
    assert (run.status, run.position, run.waiting_for) == ("queued", 0, "worker")
    events = await line.log.events(thread_id)
    assert [(e.type, e.run_id) for e in events] == [("run.queued", run.run_id)]
    assert line.hints == [run.run_id]
    assert await line.scheduler.next() == run.run_id


async def test_events_have_contiguous_ids_of_one_epoch(line: Line) -> None:
    run = await line.execute(await line.thread())
    journal = line.journal(await line.claim(run.run_id))
    first = await journal.commit(notice(run.run_id), notice(run.run_id))
    second = await journal.commit(notice(run.run_id))
    ids = [parse_cursor(i) for i in first + second]
    assert [i.seq for i in ids] == [2, 3, 4]
    assert len({i.epoch for i in ids}) == 1
    assert [e.at > 0 for e in await line.log.events(run.thread_id)] == [True] * 4


async def test_a_repeated_commit_changes_nothing_and_gives_the_same_ids(line: Line) -> None:
    run = await line.execute(await line.thread())
    claim = await line.claim(run.run_id)
    ids = await line.journal(claim).commit(notice(run.run_id), notice(run.run_id))
    again = await line.journal(claim).commit(notice(run.run_id), notice(run.run_id))
    assert again == ids
    assert await line.seqs(run.thread_id) == [1, 2, 3]


async def test_a_zombie_writes_nothing_after_a_takeover(line: Line) -> None:
    run = await line.execute(await line.thread())
    zombie = line.journal(await line.claim(run.run_id, "w1"))
    await zombie.commit(notice(run.run_id, "alive"))
    await _until_pushed(line, run.run_id)
    second = await line.claim(run.run_id, "w2")
    assert (second.attempt, second.reason) == (2, "worker_lost")
    with pytest.raises(LeaseLost):
        await zombie.commit(notice(run.run_id, "undead"))
    await line.journal(second).commit(RunFinished(thread_id=run.thread_id, run_id=run.run_id))
    texts = [getattr(e, "text", e.type) for e in await line.log.events(run.thread_id)]
    assert texts == ["run.queued", "alive", "run.finished"]


async def _until_pushed(line: Line, run_id: RunId) -> None:
    async def pushed() -> bool:
        return await line.runs.reap(run_id) == "push"

    await until(pushed, what="the lease to run out")


async def _not_live(line: Line, run_id: RunId) -> bool:
    return await line.runs.reap(run_id) != "live"


async def test_a_poison_run_fails_after_its_last_attempt(line: Line) -> None:
    run = await line.execute(await line.thread())
    for attempt in range(1, line.settings.runs.max_attempts + 1):
        assert (await line.claim(run.run_id)).attempt == attempt
        await until(lambda: _not_live(line, run.run_id), what="the lease to run out")
    record = await line.threads.run(ALICE, run.run_id)
    assert (record.status, record.reason) == ("failed", "worker_lost")
    assert (await line.types(run.thread_id))[-1] == "run.failed"
    assert await line.runs.claim(run.run_id, worker="w9", lease_s=1) is None


async def test_a_lost_hint_is_sent_again(line: Line) -> None:
    run = await line.execute(await line.thread())
    line.hints.clear()

    async def hinted() -> bool:
        await line.reaper.once()
        return bool(line.hints)

    await until(hinted, what="another hint")
    assert line.hints == [run.run_id]
    assert await line.scheduler.next() == run.run_id
    assert await line.scheduler.next() is None, "pushed again, but queued once"


async def test_hints_are_not_repeated_while_as_many_lie_there_as_runs_wait(line: Line) -> None:
    runs = [await line.execute(await line.thread()) for _ in range(2)]
    await line.connections.commands.rpush(keys.HINTS, "first", "second")  # no worker has room for them
    line.hints.clear()
    looked_at = 0

    async def reaped() -> bool:
        nonlocal looked_at
        looked_at += await line.reaper.once()
        return looked_at >= 2 * len(runs)

    await until(reaped, what="the reaper to look at each run twice")
    assert line.hints == []
    await line.connections.commands.lpop(keys.HINTS)
    looked_at = 0
    await until(reaped, what="the reaper to look again")
    assert line.hints


async def test_a_hint_delivered_twenty_times_is_one_execution(line: Line) -> None:
    run = await line.execute(await line.thread())
    claims = await asyncio.gather(*(line.runs.claim(run.run_id, worker=f"w{n}", lease_s=1) for n in range(20)))
    assert len([claim for claim in claims if claim]) == 1


async def test_runs_of_a_thread_go_one_after_the_other(line: Line) -> None:
    thread_id = await line.thread()
    first, second = await line.execute(thread_id), await line.execute(thread_id)
    assert second.waiting_for == "thread"
    assert await line.runs.claim(second.run_id, worker="w", lease_s=1) is None
    journal = line.journal(await line.claim(first.run_id))
    await journal.commit(RunFinished(thread_id=thread_id, run_id=first.run_id))
    assert journal.promoted == second.run_id
    await line.runs.ended(first.run_id, ALICE.tenant, journal.promoted)
    assert (await line.claim(second.run_id)).record.status == "running"


async def test_busy_policies_reject_interrupt_and_steer(line: Line) -> None:
    thread_id = await line.thread()
    first = await line.execute(thread_id)
    journal = line.journal(await line.claim(first.run_id))
    await journal.commit(notice(first.run_id))
    with pytest.raises(ThreadBusy):
        await line.threads.open_run(ALICE, thread_id, task="no", options=RunOptions(), policy="reject")
    steered = await line.threads.open_run(ALICE, thread_id, task="rather this", options=RunOptions(), policy="steer")
    assert steered.run_id == first.run_id
    await journal.commit(notice(first.run_id))  # one that was told just after a commit is heard with the next
    news = await journal.news()
    assert [e.text for e in news if isinstance(e, Message)] == ["rather this"]
    third = await line.threads.open_run(ALICE, thread_id, task="now", options=RunOptions(), policy="interrupt")
    with pytest.raises(RunCancelled):
        await journal.commit(notice(first.run_id))
    assert third.status == "queued"


async def test_cancelling_a_queued_run_ends_it_at_once(line: Line) -> None:
    thread_id = await line.thread()
    first, second = await line.execute(thread_id), await line.execute(thread_id)
    assert (await line.threads.cancel(ALICE, second.run_id)).status == "cancelled"
    assert (await line.threads.cancel(ALICE, first.run_id)).status == "cancelled"
    assert (await line.types(thread_id)).count("run.cancelled") == 2
    assert (await line.threads.get(ALICE, thread_id)).active_run is None
    assert (await line.threads.cancel(ALICE, first.run_id)).status == "cancelled", "already done stays done"
    assert (await line.types(thread_id)).count("run.cancelled") == 2


async def test_a_cancel_that_no_worker_answers_is_forced(line: Line) -> None:
    run = await line.execute(await line.thread())
    zombie = line.journal(await line.claim(run.run_id))
    await line.threads.cancel(ALICE, run.run_id)

    async def forced() -> bool:
        await line.runs.reap(run.run_id)
        return (await line.threads.run(ALICE, run.run_id)).status == "cancelled"

    await until(forced, timeout_s=3, what="the forced cancel")
    with pytest.raises(LeaseLost):
        await zombie.commit(notice(run.run_id))
    assert (await line.types(run.thread_id)).count("run.cancelled") == 1


async def test_the_same_idempotency_key_gives_one_run(line: Line) -> None:
    thread_id = await line.thread()

    async def post(task: str = "once") -> str:
        run = await line.threads.open_run(ALICE, thread_id, task=task, options=RunOptions(), idempotency_key="k1")
        return run.run_id

    assert len(set(await asyncio.gather(*(post() for _ in range(10))))) == 1
    with pytest.raises(KeyReused):
        await post("something else")
    assert await line.types(thread_id) == ["run.queued"]


async def test_another_tenants_ids_look_unknown(line: Line) -> None:
    run = await line.execute(await line.thread())
    for attempt in (
        line.threads.get(EVE, run.thread_id),
        line.threads.run(EVE, run.run_id),
        line.threads.cancel(EVE, run.run_id),
        line.threads.delete(EVE, run.thread_id),
        line.execute(run.thread_id, caller=EVE),
        line.threads.answer(EVE, run.thread_id, "q", answer="yes"),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert (await line.threads.find(EVE))[0] == []


async def test_tenants_take_turns(line: Line) -> None:
    threads = [await line.thread() for _ in range(10)]
    for thread_id in threads:
        await line.execute(thread_id)
    theirs = [(await line.execute(await line.thread(EVE), caller=EVE)).run_id for _ in range(3)]
    order = [await line.scheduler.next() for _ in range(13)]
    assert [n for n, run_id in enumerate(order) if run_id in theirs] == [1, 3, 5]


async def test_queue_limits_refuse_and_leave_nothing_behind(line: Line) -> None:
    thread_id = await line.thread()
    for _ in range(6):
        await line.execute(thread_id)
    with pytest.raises(LimitExceeded):
        await line.execute(thread_id)
    assert len((await line.threads.runs(ALICE, thread_id))[0]) == 6
    for _ in range(14):
        await line.execute(await line.thread())
    with pytest.raises(LimitExceeded, match="20"):
        await line.execute(await line.thread())


async def test_a_run_that_was_counted_in_and_never_recorded_is_counted_out(line: Line) -> None:
    thread_id = await line.thread()
    for _ in range(20):  # as by a gateway that died between the two, or to which Redis stood still
        await line.scheduler.admit(new_run_id(thread_id), ALICE.tenant)
    with pytest.raises(LimitExceeded, match="20"):
        await line.execute(thread_id)

    looked_at = 0

    async def reaped() -> bool:
        nonlocal looked_at
        looked_at += await line.reaper.once()
        return looked_at == 20

    await until(reaped, what="the reaper to look at all of them")
    for _ in range(5):
        await line.execute(thread_id)


async def asking(line: Line) -> RunRecord:
    """A run that waits for the answer to `q1`, for as long as it takes."""
    run = await line.execute(await line.thread())
    claim = await line.claim(run.run_id)
    question = ApprovalRequested(
        thread_id=run.thread_id, run_id=run.run_id, question_id="q1", kind="question", prompt="ok?"
    )
    await line.journal(claim).commit(question)
    await line.runs.release(claim, waiting_until_ms=0)
    return run


async def test_a_question_parks_the_run_and_an_answer_wakes_it(line: Line) -> None:
    run = await asking(line)
    assert (await line.threads.run(ALICE, run.run_id)).status == "waiting"
    assert await line.runs.claim(run.run_id, worker="w", lease_s=1) is None
    await line.threads.answer(ALICE, run.thread_id, "q1", answer="yes")
    with pytest.raises(Conflict):
        await line.threads.answer(ALICE, run.thread_id, "q1", answer="no")
    second = await line.claim(run.run_id)
    assert (second.reason, second.attempt) == ("answered", 1)
    assert await line.types(run.thread_id) == ["run.queued", "approval.requested", "approval.resolved"]


async def test_a_run_goes_on_though_its_answer_was_the_last_thing_that_a_gateway_did(line: Line) -> None:
    class Dying(Runs):
        async def ready(self, run_id: RunId, tenant: TenantId) -> None:
            raise Unavailable("gone")

    async def no_hint(run_id: RunId) -> None:
        raise AssertionError("it is dead by then")

    run = await asking(line)
    dying = Dying(line.connections, line.scheduler, no_hint)
    gateway = Threads(line.connections, line.settings, dying, line.scheduler)
    with pytest.raises(Unavailable):
        await gateway.answer(ALICE, run.thread_id, "q1", answer="yes")

    async def hinted() -> bool:
        await line.reaper.once()
        return bool(line.hints)

    line.hints.clear()
    await until(hinted, what="a hint")
    assert await line.scheduler.next() == run.run_id


async def test_an_unanswered_question_is_answered_by_its_policy(line: Line) -> None:
    run = await line.execute(await line.thread())
    claim = await line.claim(run.run_id)
    await line.journal(claim).commit(
        ApprovalRequested(
            thread_id=run.thread_id,
            run_id=run.run_id,
            question_id="q1",
            kind="review",
            prompt="?",
            on_expiry="stop",
        )
    )
    await line.runs.release(claim, waiting_until_ms=claim.now_ms + 100)

    async def answered() -> bool:
        await line.reaper.once()
        return (await line.types(run.thread_id))[-1] == "approval.resolved"

    await until(answered, what="the policy's answer")
    assert (await line.threads.run(ALICE, run.run_id)).status == "queued"


async def test_a_released_run_is_taken_over_without_costing_an_attempt(line: Line) -> None:
    run = await line.execute(await line.thread())
    first = await line.claim(run.run_id)
    line.hints.clear()
    await line.runs.release(first, waiting_until_ms=None)
    assert line.hints == [run.run_id]
    second = await line.claim(run.run_id, "w2")
    assert (second.attempt, second.reason) == (1, "released")


async def test_previews_keep_the_text_so_far_until_the_message_is_finished(line: Line) -> None:
    run = await line.execute(await line.thread())
    journal = line.journal(await line.claim(run.run_id))
    said = ""

    async def is_kept() -> bool:
        kept = [Delta.model_validate_json(preview) for preview in await line.log.previews(run.thread_id)]
        return [delta.text for delta in kept] == [said]

    for piece in ("Hel", "lo, ", "wörld"):
        journal.preview(1, "m1", DeltaKind.TEXT, offset=len(said), text=piece)
        said += piece
        await until(is_kept, what="the text so far to be kept")
    await journal.commit(
        Message(thread_id=run.thread_id, run_id=run.run_id, turn=1, item=ItemId("m1"), text="Hello, wörld")
    )
    assert await line.log.previews(run.thread_id) == []


async def test_what_is_said_while_a_preview_is_on_its_way_is_shown_though_nothing_follows(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await line.execute(await line.thread())
    journal = line.journal(await line.claim(run.run_id))
    send = Previewer._send_batch

    def say(offset: int, text: str) -> None:
        journal.preview(1, "m1", DeltaKind.TEXT, offset=offset, text=text)

    async def send_and_say_more(self: Previewer, batch: list[Any]) -> None:
        await send(self, batch)
        if batch[0].pieces == ["one"]:
            say(3, ", two")

    async def is_kept() -> bool:
        return [Delta.model_validate_json(p).text for p in await line.log.previews(run.thread_id)] == ["one, two"]

    monkeypatch.setattr(Previewer, "_send_batch", send_and_say_more)
    say(0, "one")
    await until(is_kept, what="the rest to be shown")


async def test_usage_and_turn_of_the_record_follow_the_events(line: Line) -> None:
    run = await line.execute(await line.thread())
    journal = line.journal(await line.claim(run.run_id))
    await journal.commit(RunFinished(thread_id=run.thread_id, run_id=run.run_id, turn=3, usage=Usage(output_tokens=7)))
    record = await line.threads.run(ALICE, run.run_id)
    assert (record.turn, record.usage.output_tokens, record.status) == (3, 7, "finished")


async def test_deleting_a_thread_leaves_no_key_of_it(line: Line) -> None:
    run = await line.execute(await line.thread())
    with pytest.raises(Conflict):
        await line.threads.delete(ALICE, run.thread_id)
    await line.threads.cancel(ALICE, run.run_id)
    await line.threads.delete(ALICE, run.thread_id)
    assert await line.connections.commands.keys(f"*{run.thread_id}*") == []


async def test_pages_of_threads_and_runs_cover_everything_once(line: Line) -> None:
    made = [await line.thread() for _ in range(7)]
    seen: list[str] = []
    cursor = ""
    while True:
        page, cursor = await line.threads.find(ALICE, limit=3, cursor=cursor)
        seen += [record.thread_id for record in page]
        if not cursor:
            break
    assert sorted(seen) == sorted(made)
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("text", ["", "1", "$", ">", "1-", "-1", "1-2-3", "1-x", f"{2**64}-1", "1-+2", "１-2"])
def test_a_malformed_cursor_is_refused(text: str) -> None:
    with pytest.raises(BadCursor):
        parse_cursor(text)


def test_cursors_compare_as_integers() -> None:
    assert parse_cursor("9-10") > StreamId(9, 9)
    assert parse_cursor("10-0") > parse_cursor("9-99")


async def test_runs_that_may_have_killed_their_worker_go_on_one_at_a_time(line: Line) -> None:
    runs = [(await line.execute(await line.thread())).run_id for _ in range(3)]
    for _ in range(line.settings.runs.max_attempts - 1):
        for _ in runs:
            await line.scheduler.next()
        for run_id in runs:
            await line.claim(run_id)
        await until(lambda: _all_lost(line, runs), what="every lease to run out")
    first = await line.scheduler.next()
    assert first in runs
    assert await line.scheduler.next() is None, "the others wait until this one has finished a step"
    claim = await line.claim(first)
    assert claim.suspect
    await line.runs.trusted(first)
    assert await line.scheduler.next() in set(runs) - {first}


async def _all_lost(line: Line, runs: list[RunId]) -> bool:
    for run_id in runs:
        await line.runs.reap(run_id)
    return all([(await line.threads.run(ALICE, run_id)).status == "queued" for run_id in runs])


async def test_the_end_of_a_run_is_no_loss_of_its_lease(line: Line) -> None:
    """Its worker still has to tell the scheduler and the thread's next run when the heartbeat finds it ended."""
    heartbeat = Heartbeat(line.connections, lease_s=0.9)
    lost: list[RunId] = []
    claims = [await line.claim((await line.execute(await line.thread())).run_id) for _ in range(3)]
    leases = [
        heartbeat.hold(c.record.run_id, c.fence, on_lost=partial(lost.append, c.record.run_id), on_cancel=lambda: None)
        for c in claims
    ]
    ended, taken, kept = claims
    journal = line.journal(ended, on_end=partial(heartbeat.drop, leases[0]))
    await journal.commit(RunFinished(thread_id=ended.record.thread_id, run_id=ended.record.run_id))
    await line.runs.release(taken, waiting_until_ms=None)
    held_since = leases[2].renewed
    heartbeat.start()
    try:
        await until(lambda: _renewed(leases[2], held_since), what="a heartbeat")
    finally:
        await asyncio.to_thread(heartbeat.stop)
    assert lost == [taken.record.run_id]
    assert heartbeat.alive(leases[2])
    assert kept.record.run_id not in lost


async def _renewed(lease: Lease, since: float) -> bool:
    return lease.renewed > since
