"""The operator's part of the API, for keys with the scope `operator`. Any client sends these calls:

with Client("http://127.0.0.1:8080", key=...) as client:
    for one in client.send(desk.runs(in_trouble=True)).items:
        print(one.run.run_id, one.trouble)
"""

from collections.abc import Sequence

from dialtone.calls import Call, given, nothing, post, query, read_as, segment
from dialtone.desk_results import (
    Blocked,
    BlockPage,
    CancelledMany,
    CostPage,
    DeadNoticePage,
    History,
    OpenRun,
    OpenRunPage,
    Overview,
    ReloadPage,
)

_BASE = "/api/operator"


def overview() -> Call[Overview]:
    """Processes, queues, webhooks and Redis, as they are now."""
    return Call("GET", f"{_BASE}/overview", read_as(Overview))


def runs(
    *, tenant: str = "", status: str = "", in_trouble: bool = False, limit: int = 50, cursor: str | None = None
) -> Call[OpenRunPage]:
    """Runs of all tenants that have not ended: why they wait, and what is wrong with them."""
    asked = query(tenant=tenant, status=status, in_trouble=in_trouble or "", limit=limit, cursor=cursor)
    return Call("GET", f"{_BASE}/runs", read_as(OpenRunPage), params=asked)


def history(*, hours: int = 3) -> Call[History]:
    """The last hours, oldest first."""
    return Call("GET", f"{_BASE}/history", read_as(History), params=query(hours=hours))


def costs(*, days: int = 1, tenant: str = "", limit: int = 50, cursor: str | None = None) -> Call[CostPage]:
    """Money per tenant and model, today and on the days before."""
    asked = query(days=days, tenant=tenant, limit=limit, cursor=cursor)
    return Call("GET", f"{_BASE}/costs", read_as(CostPage), params=asked)


def dead_webhooks(*, limit: int = 50, cursor: str | None = None) -> Call[DeadNoticePage]:
    return Call("GET", f"{_BASE}/webhooks/dead", read_as(DeadNoticePage), params=query(limit=limit, cursor=cursor))


def blocked_tenants() -> Call[BlockPage]:
    return Call("GET", f"{_BASE}/tenants/blocked", read_as(BlockPage))


def drain(worker: str, *, hand_over: bool = False) -> Call[None]:
    """The worker takes no more runs; those it has end there, or go on elsewhere at once."""
    return post(f"{_BASE}/workers/{segment(worker)}/drain", {"hand_over": hand_over}, nothing)


def undrain(worker: str) -> Call[None]:
    return post(f"{_BASE}/workers/{segment(worker)}/undrain", {}, nothing)


def requeue(run_id: str) -> Call[OpenRun]:
    """The run goes on elsewhere, with all its attempts."""
    return post(f"{_BASE}/runs/{segment(run_id)}/requeue", {}, read_as(OpenRun), repeatable=False)


def cancel(
    run_ids: Sequence[str] = (),
    *,
    tenant: str = "",
    status: str = "",
    in_trouble: bool = False,
    older_than_s: float = 0,
    reason: str = "",
    cursor: str | None = None,
) -> Call[CancelledMany]:
    """Ends these runs, at most 500, or else the next 500 of those that have everything else in common."""
    body = given(
        run_ids=list(run_ids) or None,
        tenant=tenant or None,
        status=status or None,
        in_trouble=in_trouble or None,
        older_than_s=older_than_s or None,
        reason=reason or None,
        cursor=cursor,
    )
    return post(f"{_BASE}/runs/cancel", body, read_as(CancelledMany))


def block(tenant: str, *, reason: str, cancel_runs: bool = False) -> Call[Blocked]:
    """The tenant starts no runs any more; its callers read the reason."""
    body = {"tenant": tenant, "reason": reason, "cancel_runs": cancel_runs}
    return post(f"{_BASE}/tenants/block", body, read_as(Blocked))


def unblock(tenant: str) -> Call[None]:
    return post(f"{_BASE}/tenants/unblock", {"tenant": tenant}, nothing, repeatable=False)


def replay_webhook(notice_id: str) -> Call[None]:
    path = f"{_BASE}/webhooks/{segment(notice_id)}/replay"
    return post(path, {}, nothing, repeatable=False)


def reload_config() -> Call[ReloadPage]:
    """Every process reads its configuration again and says what came of it."""
    return post(f"{_BASE}/config/reload", {}, read_as(ReloadPage))
