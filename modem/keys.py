"""Every Redis key. The braces are literal: all keys of a thread share one hash slot of a cluster."""

from workflow.core.ids import RunId, TenantId, ThreadId, thread_of

SCHED_TENANTS = "{sched}:tenants"
"""ZSET tenant → turn: who has ready runs, and whose turn is next."""
SCHED_QUEUE = "{sched}:queue:"
"""+ tenant: LIST of ready runs."""
SCHED_FLIGHT = "{sched}:flight:"
"""+ tenant: SET of runs that a worker holds."""
SCHED_OPEN = "{sched}:open:"
"""+ tenant: SET of runs that have not ended."""
SCHED_QUEUED = "{sched}:queued"
"""ZSET run → when it became ready (ms)."""
SCHED_TURN = "{sched}:turn"
SCHED_SUSPECTS = "{sched}:suspects"
"""LIST of runs that may have killed their worker; they go on one at a time."""
SCHED_SUSPECT = "{sched}:suspect"
"""STRING: the one of them that is under way; expires by itself."""
SCHED_ACTIVE = "{sched}:active"
"""ZSET of all runs that have not ended → when the reaper looks at them (ms)."""
REAPER_LOCK = "{sched}:reaper"
HINTS = "dialtone:hints"
"""LIST: Celery's queue of hints that no worker has taken yet."""
SIGNALS = "dialtone:signals"
"""Pub/sub channel to all workers: `cancel|<run>`, `news|<run>`, `release|<run>`, `place|<thread> <thread>…`."""
WORKERS = "dialtone:workers"
"""ZSET worker → last seen (ms); the details are in `worker_record`."""
GATEWAYS = "dialtone:gateways"
"""ZSET gateway process → last seen (ms)."""
RELOAD = "dialtone:reload"
"""STRING: number of the newest reload of the configuration that was asked for."""
HOOKS_DUE = "{webhooks}:due"
"""ZSET notice → when it is delivered next (ms)."""
HOOKS_DEAD = "{webhooks}:dead"
"""ZSET notice → when it was given up (ms)."""
FIGURES_TOTALS = "{figures}:totals"
"""HASH: counter field → total since the installation began."""
FIGURES_PROCESSES = "{figures}:processes"
"""HASH: process → its newest report."""
SCHED_BLOCKED = "{sched}:blocked"
"""HASH tenant → who blocked it, when and why (JSON); it starts no runs."""
FIGURES_MINUTE = "{figures}:minute:"
"""+ minute since 1970: HASH of the charted counter fields in that minute, and `=<gauge>` as sampled once."""
FIGURES_COSTS = "{figures}:costs:"
"""+ day since 1970: HASH tenant, model and unit → amount."""
EXPIRY_LOCK = "dialtone:expiry"
"""STRING: some process has looked for old threads within the hour."""
ALL_TENANT_THREADS = "tenant:{*}:threads"
"""Matches every `tenant_threads`."""
GIVEN_UP = "dialtone:given-up"
"""ZSET thread, or `<thread> again` → when a worker deletes its files, if there is no such thread then (ms)."""
INSTALLATION = "dialtone:installation"
"""STRING: a random name, as old as the data here."""
FILE_REQUESTS = "dialtone:files"
"""LIST of file requests; any worker takes one."""


def thread(thread_id: ThreadId) -> str:
    """The prefix of all keys of a thread, with its last colon."""
    return f"thread:{{{thread_id}}}:"


def metadata(thread_id: ThreadId) -> str:
    """HASH: owner, title, epoch, last seq, active run."""
    return f"{thread(thread_id)}metadata"


def stream(thread_id: ThreadId) -> str:
    """STREAM: the log."""
    return f"{thread(thread_id)}stream"


def live(thread_id: ThreadId) -> str:
    """Pub/sub channel: `<id>|<envelope>` for events, `|<delta>` for previews, `waiting|<run> <what for>`."""
    return f"{thread(thread_id)}live"


def base(thread_id: ThreadId) -> str:
    """HASH: `state`, what the trimmed part of the log told, and `id`, its last event."""
    return f"{thread(thread_id)}base"


def runs(thread_id: ThreadId) -> str:
    """LIST of run ids, oldest first."""
    return f"{thread(thread_id)}runs"


def run(run_id: RunId) -> str:
    """HASH: the run record."""
    return f"{thread(thread_of(run_id))}run:{run_id}"


def hold(thread_id: ThreadId) -> str:
    """STRING: the token of whoever keeps runs out of the thread; expires by itself."""
    return f"{thread(thread_id)}hold"


def expected(thread_id: ThreadId) -> str:
    """STRING: the thread is about to be made, and may have files; expires by itself."""
    return f"{thread(thread_id)}expected"


def previews(run_id: RunId) -> str:
    """HASH: item, kind and turn → text so far of what is unfinished."""
    return f"{thread(thread_of(run_id))}previews:{run_id}"


def outbox(thread_id: ThreadId) -> str:
    """HASH: event id → `<url> <envelope>` of notices that are not on the delivery queue yet."""
    return f"{thread(thread_id)}outbox"


def notice(notice_id: str) -> str:
    """HASH: a notice for another server and how its delivery goes."""
    return f"{{webhooks}}:notice:{notice_id}"


def dead_notices(tenant: TenantId) -> str:
    """ZSET: the tenant's part of `HOOKS_DEAD`."""
    return f"{{webhooks}}:dead:{tenant}"


def thread_money(thread_id: ThreadId, unit: str) -> str:
    """HASH: what was spent in a thread of a unit (`usd`, `tokens` …), and what its run has set aside."""
    return f"{thread(thread_id)}money:{unit}"


def tenant_money(tenant: TenantId, day: str, unit: str) -> str:
    """HASH: what a tenant spent of a unit on a day (`yyyymmdd`), and what its runs have set aside."""
    return f"tenant:{{{tenant}}}:money:{day}:{unit}"


def tenant_threads(tenant: TenantId) -> str:
    """ZSET of a tenant's threads by creation time (ms)."""
    return f"tenant:{{{tenant}}}:threads"


def tenant_sandboxes(tenant: TenantId) -> str:
    """HASH: thread → who has its live sandbox, and until when that is believed (ms)."""
    return f"tenant:{{{tenant}}}:sandboxes"


def tenant_waits(tenant: TenantId) -> str:
    """STRING: the tenant waits for a place for a sandbox; the worker that takes it makes one. Expires by itself."""
    return f"tenant:{{{tenant}}}:waits"


def tenant_disk(tenant: TenantId) -> str:
    """HASH: thread → bytes that its files take; the field '' is the sum."""
    return f"tenant:{{{tenant}}}:disk"


def worker_record(worker: str) -> str:
    """STRING: what a worker or gateway process says of itself; expires by itself."""
    return f"dialtone:worker:{worker}"


def drain(worker: str) -> str:
    """STRING: who wants this worker to take no more runs, and whether its runs are to go on elsewhere."""
    return f"dialtone:drain:{worker}"


def file_reply(request_id: str) -> str:
    """LIST: a header, then chunks, then an empty chunk."""
    return f"dialtone:files:{request_id}:reply"


def file_body(request_id: str) -> str:
    """STRING: what is to be written."""
    return f"dialtone:files:{request_id}:body"


def ticket(hashed: str) -> str:
    """STRING: whom a stream ticket stands for; gone once used."""
    return f"dialtone:ticket:{hashed}"


def session(hashed: str) -> str:
    """STRING: whom a browser session stands for."""
    return f"dialtone:session:{hashed}"


def links(thread_id: ThreadId) -> str:
    """HASH: link id → record of a link to a port of the thread's sandbox; one that is not here is dead."""
    return f"{thread(thread_id)}links"


def link(hashed: str) -> str:
    """STRING: `<thread> <link id>` of the link whose secret has this hash; outlives the link, to tell that it died."""
    return f"dialtone:link:{hashed}"


def door_pass(hashed: str) -> str:
    """STRING: what a door pass opens; gone once used."""
    return f"dialtone:door:{hashed}"


def bucket(kind: str, who: str) -> str:
    """HASH: tokens of a caller's bucket for one kind of request."""
    return f"dialtone:bucket:{kind}:{who}"
