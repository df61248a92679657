"""The clients against a scripted gateway over real sockets."""

import asyncio
import inspect

import pytest
from starlette.responses import Response

from dialtone import (
    ApiError,
    AsyncClient,
    BadRequest,
    Budgets,
    Client,
    Conflict,
    Gap,
    NotFound,
    Reset,
    ServerError,
    StreamItem,
    TooManyRequests,
    Unauthenticated,
    UnknownEvent,
    Unreachable,
    Waiting,
)
from tests.client.stub_gateway import (
    EPOCH,
    Cut,
    Frame,
    Step,
    StubGateway,
    UntilAnswered,
    UntilCancelled,
    UntilWatched,
    cut_answer,
    problem,
)
from workflow.core.events import (
    ApprovalRequested,
    Delta,
    DeltaKind,
    EventBase,
    Message,
    Notice,
    RunCancelled,
    RunFinished,
)
from workflow.core.ids import ItemId, RunId, ThreadId

T = ThreadId("")


def notice(text: str) -> Notice:
    return Notice(thread_id=T, code="n", text=text)


def preview(offset: int, text: str) -> Delta:
    return Delta(run_id=RunId("t.r"), turn=1, item="m1", kind=DeltaKind.TEXT, offset=offset, text=text)


def types(items: list[StreamItem]) -> list[str]:
    return [item.type for item in items]


async def run_of(client: AsyncClient, gateway: StubGateway, *script: object) -> list[StreamItem]:
    """Every item of a run that plays `script`."""
    gateway.scripts["task"] = script  # type: ignore[assignment]  # each test gives steps
    thread_id = await client.initiate()
    run = await client.execute(thread_id, "task")
    async with asyncio.timeout(8):
        return [item async for item in client.stream(thread_id, run_id=run.run_id)]


async def test_a_run_streams_typed_events_previews_and_news_and_then_ends(
    client: AsyncClient, gateway: StubGateway
) -> None:
    items = await run_of(
        client,
        gateway,
        UntilWatched(),
        Frame("waiting", {"position": 2, "waiting_for": "worker"}),
        preview(0, "Hel"),
        Message(thread_id=T, item=ItemId("m1"), text="Hello"),
        RunFinished(thread_id=T, summary="done"),
    )
    assert types(items) == ["run.queued", "waiting", "delta", "message", "run.finished"]
    assert isinstance(items[1], Waiting) and items[1].position == 2
    assert isinstance(items[3], Message) and items[3].id == f"{EPOCH}-2" and items[3].at > 0


async def test_lost_connections_lose_and_repeat_nothing(client: AsyncClient, gateway: StubGateway) -> None:
    script: list[object] = []
    for number in range(12):
        script += [UntilWatched(), notice(str(number))]
        script += [Cut(b"event: task_agent_execute\nid: 9-9\nda")] if number % 3 == 0 else []
    items = await run_of(client, gateway, *script, RunFinished(thread_id=T))
    assert [item.text for item in items if isinstance(item, Notice)] == [str(number) for number in range(12)]
    assert types(items)[-1] == "run.finished"
    assert len(gateway.stream_requests()) > 1
    assert all("last-event-id" in seen.headers for seen in gateway.stream_requests()[1:])


async def test_a_stream_waits_out_refusals_and_then_resumes(client: AsyncClient, gateway: StubGateway) -> None:
    gateway.stream_refusals = [
        problem(503, "unavailable", "Redis is away", {"Retry-After": "0"}),
        problem(429, "limit_exceeded", "too many streams", {"Retry-After": "0"}),
    ]
    items = await run_of(client, gateway, RunFinished(thread_id=T))
    assert types(items) == ["run.queued", "run.finished"]
    assert len(gateway.stream_requests()) == 3


async def test_a_gap_is_handed_out_with_its_range_and_state(client: AsyncClient, gateway: StubGateway) -> None:
    await run_of(client, gateway, *(notice(str(number)) for number in range(8)), RunFinished(thread_id=T))
    (thread,) = gateway.threads.values()
    thread.first_seq = 6
    stream = client.stream(thread.thread_id, run_id=next(iter(thread.runs)), last_id=f"{EPOCH}-2")
    items = [item async for item in stream]
    assert isinstance(items[0], Gap)
    assert (items[0].first, items[0].last) == (f"{EPOCH}-3", f"{EPOCH}-5")
    assert items[0].state == {"transcript": [{"type": "message", "text": "what was said"}]}
    assert [item.id for item in items if isinstance(item, EventBase)] == [f"{EPOCH}-{seq}" for seq in range(6, 11)]


async def test_a_foreign_cursor_is_answered_by_a_reset_and_the_whole_log(
    client: AsyncClient, gateway: StubGateway
) -> None:
    await run_of(client, gateway, notice("one"), RunFinished(thread_id=T))
    (thread,) = gateway.threads.values()
    items = [i async for i in client.stream(thread.thread_id, run_id=next(iter(thread.runs)), last_id="1-500")]
    assert isinstance(items[0], Reset)
    assert types(items) == ["reset", "run.queued", "notice", "run.finished"]


async def test_a_stream_from_now_misses_nothing_even_if_its_first_connection_fails(
    client: AsyncClient, gateway: StubGateway
) -> None:
    gateway.scripts["task"] = [UntilCancelled()]
    thread_id = await client.initiate()
    run = await client.execute(thread_id, "task")
    gateway.stream_refusals = [problem(503, "unavailable", "away", {"Retry-After": "0"})]
    stream = client.stream(thread_id, run_id=run.run_id, start="now")
    await client.cancel(run.run_id)
    assert types([item async for item in stream]) in (["run.cancelled"], [])
    assert gateway.stream_requests()[0].headers["last-event-id"].startswith(str(EPOCH))


async def test_an_event_of_a_newer_gateway_is_handed_out_as_it_is(client: AsyncClient, gateway: StubGateway) -> None:
    class Hologram(EventBase):
        type: str = "hologram.shown"
        depth: int = 3

    items = await run_of(client, gateway, Hologram(thread_id=T), RunFinished(thread_id=T))
    assert isinstance(items[1], UnknownEvent)
    assert items[1].fields["depth"] == 3 and items[1].id == f"{EPOCH}-2"


async def test_previews_can_be_switched_off(client: AsyncClient, gateway: StubGateway) -> None:
    gateway.scripts["task"] = [UntilWatched(), preview(0, "x"), RunFinished(thread_id=T)]
    thread_id = await client.initiate()
    run = await client.execute(thread_id, "task")
    items = [item async for item in client.stream(thread_id, run_id=run.run_id, deltas=False)]
    assert types(items) == ["run.queued", "run.finished"]


async def test_a_stream_gives_up_after_its_patience(gateway: StubGateway) -> None:
    async with AsyncClient("http://127.0.0.1:9", patience_s=0.2, retries=0) as client:
        with pytest.raises(Unreachable):
            async with asyncio.timeout(5):
                _ = [item async for item in client.stream("t")]


async def test_a_lost_answer_to_execute_starts_one_run(client: AsyncClient, gateway: StubGateway) -> None:
    thread_id = await client.initiate()
    gateway.lost_answers = 2
    run = await client.execute(thread_id, "task")
    assert list(gateway.threads[thread_id].runs) == [run.run_id]
    keys = {seen.headers["idempotency-key"] for seen in gateway.seen if seen.path.endswith("/execute")}
    assert len(keys) == 1


async def test_two_executes_are_two_runs_and_a_given_key_is_kept(client: AsyncClient, gateway: StubGateway) -> None:
    thread_id = await client.initiate()
    first, second = await client.execute(thread_id, "task"), await client.execute(thread_id, "task")
    assert first.run_id != second.run_id
    third = await client.execute(thread_id, "task", idempotency_key="mine")
    assert third.run_id == (await client.execute(thread_id, "task", idempotency_key="mine")).run_id


async def test_what_must_not_happen_twice_is_not_sent_twice(client: AsyncClient, gateway: StubGateway) -> None:
    thread_id = await client.initiate()
    run = await client.execute(thread_id, "task")
    gateway.lost_answers = 1
    with pytest.raises(Unreachable):
        await client.steer(run.run_id, "faster")
    assert gateway.threads[thread_id].steers == ["faster"]
    gateway.refusals = [problem(503, "unavailable", "Redis does not answer", {"Retry-After": "0"})]
    with pytest.raises(ServerError, match="does not answer"):
        await client.steer(run.run_id, "it may have been said before Redis stalled")


async def test_a_refused_request_is_sent_again_after_the_time_that_was_asked_for(
    client: AsyncClient, gateway: StubGateway
) -> None:
    gateway.refusals = [problem(429, "limit_exceeded", "slow down", {"Retry-After": "0"}), cut_answer()]
    assert (await client.threads()).items == ()
    assert len(gateway.seen) == 3


async def test_execute_sends_only_what_was_chosen(client: AsyncClient, gateway: StubGateway) -> None:
    thread_id = await client.initiate(title="T", metadata={"a": 1})
    await client.execute(thread_id, "task", policy="reject", budgets=Budgets(usd=0.5), files=["a.txt"])
    assert gateway.seen[-1].body == b'{"task": "task", "files": ["a.txt"], "policy": "reject", "budgets": {"usd": 0.5}}'
    await client.execute(thread_id, "task")
    assert gateway.seen[-1].body == b'{"task": "task"}'


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(400, "bad_cursor", BadRequest), (401, "unauthenticated", Unauthenticated), (409, "thread_busy", Conflict)],
)
async def test_problem_bodies_become_typed_errors(
    client: AsyncClient, gateway: StubGateway, status: int, code: str, kind: type[ApiError]
) -> None:
    gateway.refusals = [problem(status, code, "because of this")]
    with pytest.raises(kind) as caught:
        await client.threads()
    error = caught.value
    assert (error.status, error.code, error.detail, error.request_id) == (status, code, "because of this", "r1")


async def test_an_answer_that_is_no_problem_body_is_an_error_all_the_same(
    client: AsyncClient, gateway: StubGateway
) -> None:
    gateway.refusals = [Response("<h1>Bad gateway</h1>", 502)] * 9
    async with AsyncClient(gateway.url, retries=1) as hasty:
        with pytest.raises(ApiError, match="502") as caught:
            await hasty.threads()
    assert caught.value.code == "http_502"


async def test_retries_end_with_the_last_refusal(gateway: StubGateway) -> None:
    gateway.refusals = [problem(429, "limit_exceeded", "slow down", {"Retry-After": "0"})] * 9
    async with AsyncClient(gateway.url, retries=2) as client:
        with pytest.raises(TooManyRequests) as caught:
            await client.threads()
    assert caught.value.retry_after_s == 0
    assert len(gateway.seen) == 3


async def test_the_key_is_sent_as_a_bearer_token_and_a_wrong_one_is_refused(gateway: StubGateway) -> None:
    gateway.key = "dt_secret"
    async with AsyncClient(gateway.url, "dt_secret") as client:
        await client.threads()
    async with AsyncClient(gateway.url, "other") as client:
        with pytest.raises(Unauthenticated):
            await client.threads()


async def test_proxies_of_the_environment_never_see_the_key(
    gateway: StubGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with AsyncClient(gateway.url, retries=0) as client:
        assert await client.health() == {"status": "ok"}


async def test_files_travel_byte_by_byte_under_any_name(client: AsyncClient, gateway: StubGateway) -> None:
    thread_id = await client.initiate()
    content, name = bytes(range(256)), "a folder/50% ü?#.bin"
    await client.put_file(thread_id, name, content=content)
    assert [entry.path for entry in await client.files(thread_id)] == [name]
    assert await client.get_file(thread_id, name) == content
    await client.delete_file(thread_id, name)
    with pytest.raises(NotFound):
        await client.get_file(thread_id, name)


async def test_events_are_read_page_by_page_to_the_end(client: AsyncClient, gateway: StubGateway) -> None:
    await run_of(client, gateway, *(notice(str(number)) for number in range(9)), RunFinished(thread_id=T))
    (thread,) = gateway.threads.values()
    events = [event async for event in client.events(thread.thread_id)]
    assert [event.id for event in events] == [f"{EPOCH}-{seq}" for seq in range(1, 12)]
    later = [event async for event in client.events(thread.thread_id, after=f"{EPOCH}-9")]
    assert [event.id for event in later] == [f"{EPOCH}-10", f"{EPOCH}-11"]


async def test_a_question_is_answered_once(client: AsyncClient, gateway: StubGateway) -> None:
    question = ApprovalRequested(thread_id=T, question_id="q1", kind="approval", prompt="May I?", choices=("yes", "no"))
    gateway.scripts["task"] = [question, UntilAnswered("q1"), RunFinished(thread_id=T)]
    thread_id = await client.initiate()
    run = await client.execute(thread_id, "task")
    seen: list[str] = []
    async for item in client.stream(thread_id, run_id=run.run_id):
        seen.append(item.type)
        if isinstance(item, ApprovalRequested):
            await client.answer(thread_id, item.question_id, "yes")
    assert seen == ["run.queued", "approval.requested", "approval.resolved", "run.finished"]
    with pytest.raises(Conflict):
        await client.answer(thread_id, "q1", "no")


def test_the_synchronous_client_does_the_same(gateway: StubGateway) -> None:
    script: list[Step] = [
        UntilWatched(),
        preview(0, "H"),
        notice("one"),
        Cut(),
        UntilWatched(),
        notice("two"),
        UntilCancelled(),
    ]
    gateway.scripts["task"] = script
    with Client(gateway.url, patience_s=5) as client:
        thread_id = client.initiate(title="sync")
        run = client.execute(thread_id, "task")
        seen: list[str] = []
        for item in client.stream(thread_id, run_id=run.run_id):
            seen.append(getattr(item, "text", item.type))
            if seen[-1] == "two":
                client.cancel(run.run_id)
        assert seen == ["run.queued", "H", "one", "two", RunCancelled.model_fields["type"].default]
        assert [thread.title for thread in client.threads().items] == ["sync"]
        assert len(list(client.events(thread_id))) == 4


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    def shape(kind: type) -> dict[str, list[tuple[str, object]]]:
        methods = {name: method for name, method in vars(kind).items() if inspect.isfunction(method) and name[0] != "_"}
        return {
            name: [(parameter.name, parameter.default) for parameter in inspect.signature(method).parameters.values()]
            for name, method in methods.items()
        }

    assert shape(Client) == shape(AsyncClient)


async def test_a_path_or_id_from_elsewhere_reaches_nothing_but_what_it_names(
    client: AsyncClient, gateway: StubGateway
) -> None:
    thread_id = await client.initiate(title="Mine")
    for path in (f"../../{thread_id}", f"a/../../../{thread_id}", ".."):
        with pytest.raises(ValueError, match="leads out of its folder"):
            await client.delete_file(thread_id, path)
    for other in ("", ".", ".."):
        with pytest.raises(ValueError, match="not an id"):
            await client.delete_thread(other)
    assert list(gateway.threads) == [thread_id]


@pytest.mark.parametrize(
    "url", ["", "foo", "ftp://host", "http://", "http://[::1", "http://127.0.0.1:99999", "http://host/?a=b"]
)
async def test_what_is_no_address_of_a_gateway_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="not the address of a gateway"):
        AsyncClient(url)


@pytest.mark.parametrize("key", ["secret\nx", "secretключ", "secret\x00"])
async def test_what_is_no_key_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ValueError, match="the key holds") as refusal:
        AsyncClient(key=key)
    assert "secret" not in str(refusal.value)


async def test_the_end_of_a_keys_line_does_not_belong_to_it(gateway: StubGateway) -> None:
    gateway.key = "dt_secret"
    async with AsyncClient(gateway.url, "dt_secret\n") as client:
        assert await client.initiate()
