"""Notices to other servers: none lost, none forged, none sent where it must not go."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from modem import keys
from modem.deliveries import Deliveries
from modem.webhooks import MOST_DEAD, Delivery, check_address
from tests.modem.conftest import ALICE, EVE, Line
from tests.receiver import SECRET, Receiver
from tests.until import until
from workflow.core.config import WebhookSettings
from workflow.core.errors import BadInput, Conflict, NotFound
from workflow.core.events import ApprovalRequested, RunFinished
from workflow.core.records import RunOptions, RunRecord

URL = "https://hooks.example.org/dialtone"


def options(**changes: Any) -> WebhookSettings:
    """Settings that reach a receiver on loopback and lose no time."""
    base: dict[str, Any] = {"secret": SecretStr(SECRET), "allow_private": True, "waits_s": (0.01,), "timeout_s": 2.0}
    return WebhookSettings(**base | changes)


@pytest.fixture(autouse=True)
def _any_address(line: Line) -> None:
    """Threads accept loopback addresses here."""
    line.threads._settings = line.settings.model_copy(update={"webhooks": options()})


@asynccontextmanager
async def delivering(line: Line, **changes: Any) -> AsyncIterator[Deliveries]:
    """A worker's delivering part, while the test goes on."""
    deliveries = Deliveries(line.runs.webhooks, options(**changes))
    task = asyncio.create_task(deliveries.serve())
    try:
        yield deliveries
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def opened(line: Line, url: str = URL, thread_url: str = "") -> RunRecord:
    thread = await line.threads.create(ALICE, webhook=thread_url)
    return await line.threads.open_run(ALICE, thread.thread_id, task="do it", options=RunOptions(webhook=url))


def finished(run: RunRecord) -> RunFinished:
    return RunFinished(thread_id=run.thread_id, run_id=run.run_id, summary="Done.")


def asked(run: RunRecord) -> ApprovalRequested:
    return ApprovalRequested(
        thread_id=run.thread_id, run_id=run.run_id, question_id="q1", kind="question", prompt="Which one?"
    )


async def ended(line: Line, url: str = URL, thread_url: str = "") -> RunRecord:
    """A run that has ended as runs do."""
    run = await opened(line, url, thread_url)
    claim = await line.claim(run.run_id)
    await line.journal(claim).commit(finished(run))
    await line.runs.ended(run.run_id, run.tenant, None)
    return run


async def waiting(line: Line, *, lease_s: float = 60) -> list[Delivery]:
    return await line.runs.webhooks.take(limit=100, lease_s=lease_s)


async def died(line: Line, count: int = 1) -> None:
    """Waits until `count` notices of Alice are dead."""

    async def look() -> bool:
        return (await line.runs.webhooks.backlog())[1] == count

    await until(look, what=f"{count} dead notices")


# -- none is lost


async def test_the_end_of_a_run_is_told_with_the_event_as_the_log_has_it(line: Line) -> None:
    run = await ended(line)
    (notice,) = await waiting(line)
    event = (await line.log.events(run.thread_id))[-1]
    body = json.loads(notice.body)
    assert (notice.url, notice.tenant, notice.attempts) == (URL, "acme", 0)
    assert body["type"] == "run.finished"
    assert body["data"] == event.model_dump(mode="json")
    assert body["timestamp"].endswith("Z")


async def test_nobody_is_told_of_runs_without_a_webhook(line: Line) -> None:
    await ended(line, url="")
    assert await waiting(line) == []


async def test_a_run_that_is_cancelled_before_it_began_is_told_as_well(line: Line) -> None:
    run = await opened(line)
    await line.threads.cancel(ALICE, run.run_id)
    (notice,) = await waiting(line)
    assert json.loads(notice.body)["type"] == "run.cancelled"


async def test_a_question_is_told_when_its_run_is_parked(line: Line) -> None:
    run = await opened(line)
    claim = await line.claim(run.run_id)
    await line.journal(claim).commit(asked(run))
    await line.runs.release(claim, waiting_until_ms=0)
    (notice,) = await waiting(line)
    body = json.loads(notice.body)
    assert (body["type"], body["data"]["prompt"]) == ("approval.requested", "Which one?")


async def test_a_worker_that_dies_right_after_the_commit_loses_no_notice(line: Line) -> None:
    ending, parking = await opened(line), await opened(line)
    await line.journal(await line.claim(ending.run_id)).commit(finished(ending))
    await line.journal(await line.claim(parking.run_id)).commit(asked(parking))
    found: list[str] = []

    async def reaped() -> bool:
        await line.reaper.once()
        found.extend(json.loads(notice.body)["type"] for notice in await waiting(line))
        return len(found) == 2

    await until(reaped, what="both notices")
    assert sorted(found) == ["approval.requested", "run.finished"]


async def test_a_run_that_its_workers_did_not_survive_is_told_as_failed(line: Line) -> None:
    run = await opened(line)

    async def given_up() -> bool:
        await line.scheduler.look_again(run.run_id, at_ms=0)
        await line.reaper.once()
        await line.runs.claim(run.run_id, worker="doomed", lease_s=0.05)
        return (await line.runs.load(run.run_id)).status == "failed"

    await until(given_up, what="the run to be given up")
    (notice,) = await waiting(line)
    assert json.loads(notice.body)["data"]["reason"] == "worker_lost"


async def test_a_repeated_commit_makes_no_second_notice(line: Line) -> None:
    run = await opened(line)
    claim = await line.claim(run.run_id)
    for _ in range(2):
        await line.journal(claim).commit(finished(run))
    await line.runs.webhooks.relay(run.thread_id)
    assert len(await waiting(line)) == 1


async def test_a_relay_that_stopped_halfway_repeats_the_same_notice(line: Line) -> None:
    run = await opened(line)
    await line.journal(await line.claim(run.run_id)).commit(finished(run))
    outbox = await line.connections.commands.hgetall(keys.outbox(run.thread_id))
    await line.runs.webhooks.relay(run.thread_id)
    (first,) = await waiting(line)
    await line.runs.webhooks.settle(first, "delivered")
    await line.connections.commands.hset(keys.outbox(run.thread_id), mapping=outbox)  # as if never removed
    await line.runs.webhooks.relay(run.thread_id)
    (again,) = await waiting(line)
    assert (again.id, again.body) == (first.id, first.body)


async def test_a_deleted_thread_still_tells_of_its_last_run(line: Line) -> None:
    run = await opened(line)
    await line.journal(await line.claim(run.run_id)).commit(finished(run))
    await line.threads.delete(ALICE, run.thread_id)
    assert len(await waiting(line)) == 1


async def test_the_runs_own_webhook_goes_before_the_threads(line: Line) -> None:
    await ended(line, "https://run.example.org/", "https://thread.example.org/")
    await ended(line, "", "https://thread.example.org/")
    assert [notice.url for notice in await waiting(line)] == ["https://run.example.org/", "https://thread.example.org/"]


async def test_a_thread_tells_whom_it_names_when_the_event_happens(line: Line) -> None:
    run = await opened(line, "", "https://old.example.org/")
    assert (await line.threads.get(ALICE, run.thread_id)).webhook == "https://old.example.org/"
    await line.threads.update(ALICE, run.thread_id, webhook="https://new.example.org/")
    await line.threads.cancel(ALICE, run.run_id)
    assert [notice.url for notice in await waiting(line)] == ["https://new.example.org/"]
    await line.threads.update(ALICE, run.thread_id, webhook="")
    other = await line.execute(run.thread_id)
    await line.threads.cancel(ALICE, other.run_id)
    assert await waiting(line) == []


# -- one worker at a time


async def test_a_notice_of_a_worker_that_died_is_delivered_by_another_when_its_lease_is_over(line: Line) -> None:
    await ended(line)
    (held,) = await waiting(line, lease_s=0.1)
    assert await waiting(line) == []
    later: list[Delivery] = []

    async def free() -> bool:
        later.extend(await waiting(line))
        return bool(later)

    await until(free, what="the lease to end")
    assert later[0].id == held.id
    await line.runs.webhooks.settle(held, "again", result="too late")
    await line.runs.webhooks.settle(later[0], "dead", result="mine")
    (dead,), _ = await line.runs.webhooks.dead(ALICE.tenant)
    assert (dead.attempts, dead.result) == (1, "mine")


async def test_several_workers_deliver_every_notice_once(line: Line) -> None:
    async with Receiver() as receiver:
        run = await opened(line, receiver.url)
        for number in range(100):
            entry = (
                f"{receiver.url} ".encode()
                + json.dumps(
                    {"type": "test", "at": 1, "thread_id": run.thread_id, "run_id": run.run_id, "number": number}
                ).encode()
            )
            await line.connections.commands.hset(keys.outbox(run.thread_id), f"1-{number}", entry)
        async with delivering(line), delivering(line), delivering(line):
            await line.runs.webhooks.relay(run.thread_id)
            received = await receiver.wait(100)

            async def empty() -> bool:
                return await line.runs.webhooks.backlog() == (0, 0)

            await until(empty, what="the queue to be empty")
        assert len({one.id for one in received}) == len(receiver.received) == 100


# -- on the wire


async def test_a_delivery_is_signed_and_carries_its_id_and_time(line: Line) -> None:
    async with Receiver() as receiver, delivering(line):
        await ended(line, receiver.url)
        (received,) = await receiver.wait(1)
    assert received.notice["data"]["summary"] == "Done."
    assert received.id.startswith("msg_")
    assert received.headers["content-type"] == "application/json"
    forged = received.headers | {"webhook-id": "msg_other"}
    with pytest.raises(Exception, match="No matching signature"):
        type(received)(forged, received.body).verified(SECRET)


async def test_both_keys_sign_while_one_replaces_the_other(line: Line) -> None:
    new = "whsec_" + "B" * 44
    async with Receiver() as receiver, delivering(line, secret=SecretStr(f"{new} {SECRET}")):
        await ended(line, receiver.url)
        (received,) = await receiver.wait(1)
    assert received.verified(new) == received.verified(SECRET)


async def test_every_answer_but_a_2xx_is_a_failure_and_tried_again_as_the_same_notice(line: Line) -> None:
    async with Receiver([500, 302, 404, 429, 200], headers={"Location": "/other"}) as receiver, delivering(line):
        await ended(line, receiver.url)
        received = await receiver.wait(5)

        async def done() -> bool:
            return await line.runs.webhooks.backlog() == (0, 0)

        await until(done, what="the delivery to be settled")
    assert len(receiver.received) == 5
    assert len({(one.id, one.body) for one in received}) == 1
    assert {one.notice["type"] for one in received} == {"run.finished"}


async def test_a_receiver_that_asks_for_time_gets_it(line: Line) -> None:
    async with Receiver([503], headers={"Retry-After": "120"}) as receiver, delivering(line):
        await ended(line, receiver.url)
        await receiver.wait(1)

        async def postponed() -> int:
            due = await line.connections.commands.zrange(keys.HOOKS_DUE, 0, -1, withscores=True)
            seconds, _ = await line.connections.commands.time()
            return int(due[0][1] / 1000 - seconds) if due else 0

        async def settled() -> bool:
            return await postponed() > 60

        await until(settled, what="the long pause")
        assert 110 <= await postponed() <= 121


async def test_pauses_grow_and_the_last_one_repeats(line: Line) -> None:
    deliveries = Deliveries(line.runs.webhooks, WebhookSettings(secret=SecretStr(SECRET)))
    pauses = [deliveries._wait_s(tried, 0) for tried in range(1, 10)]
    for pause, least in zip(pauses, (5, 30, 120, 600, 1800, 7200, 21_600, 21_600, 21_600), strict=True):
        assert least <= pause <= least * 1.2
    assert deliveries._wait_s(1, 10**8) == 86_400


@pytest.mark.parametrize("trouble", ["silent", "gone"])
async def test_a_receiver_that_does_not_answer_is_tried_again(line: Line, trouble: str) -> None:
    async with Receiver() as receiver:
        url = receiver.url
        receiver.holds = asyncio.Event() if trouble == "silent" else None
        if trouble == "gone":
            await receiver._runner.cleanup()
        async with delivering(line, timeout_s=0.1, max_attempts=2):
            await ended(line, url)
            await died(line)
    (dead,), _ = await line.runs.webhooks.dead(ALICE.tenant)
    assert dead.attempts == 2
    assert "did not answer within 0.1 s" in dead.result or "cannot be reached" in dead.result
    assert "from=dialtone" not in dead.result


async def test_a_receiver_that_hangs_does_not_hold_up_the_others(line: Line) -> None:
    async with Receiver() as hanging, Receiver() as healthy, delivering(line, timeout_s=30):
        hanging.holds = asyncio.Event()
        for _ in range(12):
            await ended(line, hanging.url.replace("127.0.0.1", "localhost"))
        await ended(line, healthy.url)
        await healthy.wait(1, timeout_s=3)
        assert len(hanging.received) <= 8


# -- dead notices


async def test_a_notice_that_cannot_be_delivered_is_kept_and_can_be_delivered_again(line: Line) -> None:
    webhooks = line.runs.webhooks
    async with Receiver([500, 500]) as receiver, delivering(line, max_attempts=2):
        run = await ended(line, receiver.url)
        await died(line)
        (dead,), cursor = await webhooks.dead(ALICE.tenant)
        assert (dead.run_id, dead.type, dead.attempts, dead.result) == (run.run_id, "run.finished", 2, "HTTP 500")
        assert cursor == ""
        await webhooks.replay(ALICE.tenant, dead.id)
        *_, last = await receiver.wait(3)
        assert last.id == dead.id
        assert last.notice["type"] == "run.finished"

        async def forgotten() -> bool:
            return await webhooks.backlog() == (0, 0)

        await until(forgotten, what="the notice to be forgotten")
    assert await webhooks.dead(ALICE.tenant) == ([], "")


async def test_a_receiver_that_wants_no_more_is_asked_once(line: Line) -> None:
    async with Receiver([410]) as receiver, delivering(line):
        await ended(line, receiver.url)
        await died(line)
    (dead,), _ = await line.runs.webhooks.dead(ALICE.tenant)
    assert (dead.attempts, dead.result[:8]) == (1, "HTTP 410")


async def kill(line: Line) -> str:
    """One more notice, settled by hand; its id."""
    await ended(line)
    (notice,) = await waiting(line)
    await line.runs.webhooks.settle(notice, "dead")
    return notice.id


async def test_dead_notices_come_newest_first_in_pages(line: Line) -> None:
    ids = [await kill(line) for _ in range(5)]
    seen: list[str] = []
    cursor = ""
    while True:
        page, cursor = await line.runs.webhooks.dead(ALICE.tenant, limit=2, cursor=cursor)
        seen += [notice.id for notice in page]
        if not cursor:
            break
    assert sorted(seen) == sorted(ids)
    assert seen[0] == ids[-1]


async def test_a_page_of_dead_notices_goes_on_though_its_last_one_is_no_longer_dead(line: Line) -> None:
    ids = [await kill(line) for _ in range(4)]
    page, cursor = await line.runs.webhooks.dead(ALICE.tenant, limit=2)
    await line.runs.webhooks.delete(ALICE.tenant, page[-1].id)
    rest, _ = await line.runs.webhooks.dead(ALICE.tenant, limit=2, cursor=cursor)
    assert sorted(notice.id for notice in page + rest) == sorted(ids)


async def test_another_tenants_notices_look_like_unknown_ones(line: Line) -> None:
    notice_id = await kill(line)
    assert await line.runs.webhooks.dead(EVE.tenant) == ([], "")
    for name in (notice_id, "msg_" + "0" * 32):
        with pytest.raises(NotFound, match=f"no notice {name}"):
            await line.runs.webhooks.replay(EVE.tenant, name)
        with pytest.raises(NotFound, match=f"no notice {name}"):
            await line.runs.webhooks.delete(EVE.tenant, name)
    assert len((await line.runs.webhooks.dead(ALICE.tenant))[0]) == 1


async def test_a_deleted_notice_is_gone_even_while_it_is_delivered(line: Line) -> None:
    webhooks = line.runs.webhooks
    await webhooks.delete(ALICE.tenant, await kill(line))
    await ended(line)
    (held,) = await waiting(line)
    with pytest.raises(Conflict, match="still being delivered"):
        await webhooks.replay(ALICE.tenant, held.id)
    await webhooks.delete(ALICE.tenant, held.id)
    await webhooks.settle(held, "again")
    assert await webhooks.backlog() == (0, 0)
    assert await line.connections.commands.keys("{webhooks}*") == []


async def test_a_tenant_keeps_no_more_dead_notices_than_its_share(line: Line) -> None:
    run = await opened(line)
    entry = (
        f"{URL} ".encode()
        + json.dumps({"type": "test", "at": 1, "thread_id": run.thread_id, "run_id": run.run_id}).encode()
    )
    await line.connections.commands.hset(
        keys.outbox(run.thread_id), mapping={f"1-{number}": entry for number in range(MOST_DEAD + 5)}
    )
    await line.runs.webhooks.relay(run.thread_id)
    for notice in await line.runs.webhooks.take(limit=2 * MOST_DEAD, lease_s=60):
        await line.runs.webhooks.settle(notice, "dead")
    assert await line.runs.webhooks.backlog() == (0, MOST_DEAD)
    assert len(await line.connections.commands.keys(keys.notice("*"))) == MOST_DEAD


# -- addresses


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost.:6379/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:10.0.0.1]/",
        "http://2130706433/",
        "https://user:secret@example.org/",
        "ftp://example.org/",
        "https://",
        "https://xn--/",
        f"https://{'a' * 64}.org/",
    ],
)
def test_addresses_that_notices_must_not_go_to_are_refused_at_once(url: str) -> None:
    with pytest.raises(BadInput, match="webhook: "):
        check_address(url, options(allow_private=False))


def test_nothing_is_accepted_that_could_not_be_signed_or_is_switched_off() -> None:
    check_address(URL, options())
    with pytest.raises(BadInput, match="unsigned"):
        check_address(URL, options(secret=None))
    with pytest.raises(BadInput, match="switched off"):
        check_address(URL, options(enabled=False))


async def test_a_name_that_leads_to_a_private_address_gets_no_request(line: Line) -> None:
    async with Receiver() as receiver, delivering(line, allow_private=False):
        await ended(line, receiver.url.replace("127.0.0.1", "localhost"))
        await died(line)
        assert receiver.received == []
    (dead,), _ = await line.runs.webhooks.dead(ALICE.tenant)
    assert "not a public address" in dead.result


async def test_deliveries_go_on_after_the_connections_to_redis_were_cut(line: Line) -> None:
    async with Receiver() as receiver, delivering(line):
        await line.connections.commands.client_kill_filter(_type="normal", skipme=True)
        await ended(line, receiver.url)
        await receiver.wait(1)


async def test_the_receiver_in_the_documentation_accepts_drops_repeats_and_refuses_forgeries(
    line: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    document = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    async with Receiver() as receiver, delivering(line):
        run = await ended(line, receiver.url)
        (received,) = await receiver.wait(1)
    for _ in range(2):
        assert names["receive"](received.headers, received.body, SECRET) == 204
    assert names["receive"](received.headers, received.body + b" ", SECRET) == 401
    assert capsys.readouterr().out == f"run.finished {run.run_id}\n"
