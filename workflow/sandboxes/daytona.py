"""The provider at Daytona (daytona.io, or a self-hosted one): a sandbox per thread. The only file that imports its SDK.

Importing this costs two seconds, so it is done lazily (`workflow/runner/build.py`).
"""

import asyncio
import contextlib
import math
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime
from time import monotonic
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientResponseError
from daytona import (
    AsyncDaytona,
    AsyncSandbox,
    CreateSandboxFromSnapshotParams,
    DaytonaAuthenticationError,
    DaytonaConfig,
    DaytonaConflictError,
    DaytonaConnectionError,
    DaytonaError,
    DaytonaForbiddenError,
    DaytonaNotFoundError,
    DaytonaRateLimitError,
    DaytonaServiceUnavailableError,
    DaytonaTimeoutError,
    ListSandboxesQuery,
    SessionExecuteRequest,
)

from workflow.core.config import SandboxSettings
from workflow.core.errors import DialtoneError, SandboxError, SandboxRefused
from workflow.core.ids import ThreadId
from workflow.core.ports import Quota
from workflow.sandboxes.base import Address
from workflow.sandboxes.egress import Policy
from workflow.sandboxes.machines import (
    LONGEST_ANSWER,
    THREAD_LABEL,
    Asleep,
    Busy,
    Dropped,
    Found,
    Labels,
    Pace,
    Show,
    Vanished,
)
from workflow.sandboxes.remote import Exists, RemoteProvider
from workflow.sandboxes.secrecy import Scrubber

HOME = "/home/daytona"
"""Of the user that Daytona's default snapshot runs commands as."""
CALL_S = 60
TRANSFER_S = 600
CONTROL_S = 60.0
PREVIEW_S = 3600
SETTLE_S = 0.5
"""Between two looks at a sandbox that is just being stopped, archived or paused."""
GAPS = (
    "commands, files and their content are at Daytona",
    "memory, processes and disk are limited by the snapshot, not by our settings",
    "sandboxes of the class `container` share the kernel of their host with others",
    "background processes end when the sandbox is put away",
)
STARTED = "started"
STARTING = (
    *("creating", "starting", "restoring", "resuming"),
    *("pending_build", "building_snapshot", "pulling_snapshot"),
)
CHANGING = ("stopping", "archiving", "pausing", "resizing", "snapshotting", "forking")
BROKEN = ("error", "build_failed")
ENDED = ("destroyed", "destroying")
REFUSED, BUSY = (401, 403), (409, 429, 503)
"""HTTP statuses."""


class DaytonaProvider(RemoteProvider):
    """One sandbox at Daytona per thread. api_key and the addresses: as in docs/remote-sandboxes.md."""

    def __init__(
        self,
        settings: SandboxSettings,
        *,
        api_key: str,
        target: str = "",
        home: str = HOME,
        exists: Exists | None = None,
        installation: str = "",
        quota: Quota | None = None,
        pace: Pace | None = None,
    ) -> None:
        """installation: with `settings.label` tells our sandboxes from others in the same organisation."""
        pace = pace or Pace()
        lease_s = pace.lease_s(idle_s=settings.idle_s)
        labels = Labels(settings.label, installation)
        fleet = DaytonaFleet(settings, api_key=api_key, target=target, labels=labels, lease_s=lease_s)
        super().__init__(fleet, settings, home=home, exists=exists, quota=quota, pace=pace)


class DaytonaFleet:
    """An organisation at Daytona."""

    name = "daytona"
    gaps = GAPS

    def __init__(
        self, settings: SandboxSettings, *, api_key: str, target: str = "", labels: Labels, lease_s: float
    ) -> None:
        self.lease_s = lease_s
        self._settings = settings
        self._labels = labels
        self._scrub = Scrubber([api_key])
        self._config = DaytonaConfig(api_key=api_key, api_url=settings.api_url or None, target=target or None)
        self._client: AsyncDaytona | None = None

    async def check(self) -> None:
        async with explained(self._scrub):
            query = ListSandboxesQuery(limit=1, labels=self._labels.find(None))
            async for _ in self._daytona().list(query, request_timeout=CONTROL_S):
                break

    async def find(self, thread_id: ThreadId | None = None) -> list[Found]:
        query = ListSandboxesQuery(limit=100, labels=self._labels.find(thread_id))
        found: list[Found] = []
        async with explained(self._scrub):
            async for sandbox in self._daytona().list(query, request_timeout=CONTROL_S):
                if _state(sandbox) not in ENDED:
                    owner = ThreadId(sandbox.labels.get(THREAD_LABEL, ""))
                    found.append(Found(sandbox.id, owner, _time(sandbox.created_at)))
        return found

    async def create(self, thread_id: ThreadId) -> "DaytonaMachine":
        name = f"{self._labels.label}-{thread_id}"
        hosts = Policy.of(self._settings).hosts if self._settings.network == "allowlist" else ()
        params = CreateSandboxFromSnapshotParams(
            name=name,
            language="python",
            snapshot=self._settings.template or None,
            labels=self._labels.new(thread_id),
            public=False,
            auto_stop_interval=math.ceil(self.lease_s / 60),
            network_block_all=self._settings.network == "off",
            domain_allow_list=",".join(hosts) or None,
        )
        async with explained(self._scrub):
            try:
                sandbox = await self._daytona().create(params, timeout=0)
            except DaytonaConflictError:  # names are unique: another worker was faster
                return await self.connect(name)
        return self._machine(sandbox)

    async def connect(self, machine_id: str) -> "DaytonaMachine":
        async with explained(self._scrub):
            try:
                sandbox = await self._daytona().get(machine_id, request_timeout=CONTROL_S)
                await self._awake(sandbox)
            except DaytonaNotFoundError as error:
                raise Vanished(self._scrub(f"Daytona: {error}")) from self._scrub.cause(error)
        return self._machine(sandbox)

    async def kill(self, machine_id: str) -> None:
        async with explained(self._scrub):
            with contextlib.suppress(DaytonaNotFoundError):
                sandbox = await self._daytona().get(machine_id, request_timeout=CONTROL_S)
                await sandbox.delete(timeout=0)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()  # type: ignore[no-untyped-call]  # the SDK gives it no types

    async def _awake(self, sandbox: AsyncSandbox) -> None:
        """Brings a sandbox to where commands run. Raises: Vanished."""
        while _state(sandbox) in CHANGING:
            await asyncio.sleep(SETTLE_S)
            await sandbox.refresh_data(request_timeout=CONTROL_S)
        state = _state(sandbox)
        if state in STARTING:
            await sandbox.wait_for_sandbox_start(timeout=0)
        elif state in BROKEN and sandbox.recoverable:
            await sandbox.recover(timeout=0)
        elif state in BROKEN:
            await sandbox.delete(timeout=0)
            raise Vanished(self._scrub(f"Daytona: the sandbox broke: {sandbox.error_reason or state}"))
        elif state in ENDED:
            raise Vanished("Daytona: the sandbox was destroyed")
        elif state != STARTED:
            await sandbox.start(timeout=0)

    def _daytona(self) -> AsyncDaytona:
        # Made here, not in the constructor: it belongs to the event loop that it is made in.
        if self._client is None:
            self._client = AsyncDaytona(self._config)
        return self._client

    def _machine(self, sandbox: AsyncSandbox) -> "DaytonaMachine":
        return DaytonaMachine(sandbox, scrub=self._scrub)


class DaytonaMachine:
    """One started sandbox."""

    brief_s = 0.5
    """A stream costs three requests more than a plain call, and most commands end sooner than this."""

    def __init__(self, sandbox: AsyncSandbox, *, scrub: Scrubber) -> None:
        self.id = sandbox.id
        self._sandbox = sandbox
        self._scrub = scrub
        self._addresses: dict[int, tuple[float, Address]] = {}
        """Port → until when its address is given out again, by the monotonic clock, and the address."""

    async def call(self, command: str) -> str:
        async with self._explained():
            # The service keeps what is printed until the end, then the SDK does.
            bounded = f"{{ {command}; }} | head -c {LONGEST_ANSWER}"
            return (await self._sandbox.process.exec(bounded, timeout=CALL_S)).result

    async def stream(self, command: str, show: Show) -> None:
        session, process = f"dialtone-{secrets.token_hex(8)}", self._sandbox.process
        async with self._explained():
            await process.create_session(session, request_timeout=CALL_S)
            try:
                request = SessionExecuteRequest(command=command, run_async=True)
                started = await process.execute_session_command(session, request, timeout=CALL_S)
                await process.get_session_command_logs_async(session, started.cmd_id, show, show)
            finally:
                await self._end(session)

    async def put(self, path: str, content: bytes) -> None:
        async with self._explained():
            await self._sandbox.fs.upload_file(content, path, timeout=TRANSFER_S)

    async def get(self, path: str) -> AsyncGenerator[bytes, None]:
        async with self._explained():
            async for piece in await self._sandbox.fs.download_file_stream(path, TRANSFER_S):
                yield piece

    async def extend(self) -> None:
        async with self._explained():
            await self._sandbox.refresh_activity(request_timeout=CONTROL_S)

    async def pause(self) -> None:
        async with self._explained():
            await self._sandbox.stop(timeout=0)

    async def address(self, port: int) -> Address:
        if port in self._addresses and monotonic() < self._addresses[port][0]:
            return self._addresses[port][1]
        async with self._explained():
            preview = await self._sandbox.create_signed_preview_url(port, PREVIEW_S, request_timeout=CONTROL_S)
        url = urlsplit(preview.url)
        if not url.hostname or url.path not in ("", "/"):
            raise SandboxError("Daytona gave an address for the port that is not only a host")
        address = Address(url.hostname, url.port or (443 if url.scheme == "https" else 80))
        self._addresses[port] = monotonic() + PREVIEW_S / 2, address
        return address

    def changes(self, path: str) -> None:
        """It cannot tell."""
        return

    async def _end(self, session: str) -> None:
        """Removes a session and what runs in its shell; it ends with its sandbox at the latest."""
        deletion = asyncio.ensure_future(self._sandbox.process.delete_session(session, request_timeout=5))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([deletion], timeout=6)
        if not deletion.done():
            deletion.cancel()
        elif not deletion.cancelled():
            deletion.exception()

    @contextlib.asynccontextmanager
    async def _explained(self) -> AsyncIterator[None]:
        """As `explained`, and asks what became of the sandbox: its proxy's errors do not tell."""
        try:
            async with explained(self._scrub):
                yield
        except (SandboxRefused, Busy):
            raise
        except SandboxError as error:
            if await self._is_asleep():
                raise Asleep(error.message) from error
            raise

    async def _is_asleep(self) -> bool:
        try:
            await self._sandbox.refresh_data(request_timeout=CONTROL_S)
        except DaytonaNotFoundError:
            return True
        except DaytonaError:
            return False
        return _state(self._sandbox) != STARTED


@contextlib.asynccontextmanager
async def explained(scrub: Scrubber) -> AsyncIterator[None]:
    """Turns what the SDK raises into our errors, without secrets."""
    try:
        yield
    except DialtoneError:
        raise
    except DaytonaError as error:
        raise _explain(error, scrub) from scrub.cause(error)
    except (ClientError, OSError) as error:  # what streams raise is not translated by the SDK
        if isinstance(error, ClientResponseError) and error.status in (*REFUSED, *BUSY):
            said = DaytonaError(error.message, status_code=error.status, headers=error.headers)
            raise _explain(said, scrub) from scrub.cause(error)
        raise Dropped(scrub(f"Daytona: {error}")) from scrub.cause(error)


def _explain(error: DaytonaError, scrub: Scrubber) -> SandboxError:
    text = scrub(f"Daytona: {error}")
    # Some calls raise the plain error with a status.
    if isinstance(error, (DaytonaAuthenticationError, DaytonaForbiddenError)) or error.status_code in REFUSED:
        return SandboxRefused(text)
    is_busy = isinstance(error, (DaytonaRateLimitError, DaytonaServiceUnavailableError, DaytonaConflictError))
    if is_busy or error.status_code in BUSY:
        return Busy(text, retry_after_s=_seconds(error.headers.get("Retry-After")))
    if isinstance(error, (DaytonaConnectionError, DaytonaTimeoutError)):
        return Dropped(text)
    if error.status_code is None or error.status_code >= 500:
        return Dropped(text)
    return SandboxError(text)


def _state(sandbox: AsyncSandbox) -> str:
    return "" if sandbox.state is None else sandbox.state.value


def _seconds(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None


def _time(value: str | None) -> datetime:
    """A moment that was never told counts as now, so that its sandbox is taken for new."""
    return datetime.now(UTC) if value is None else datetime.fromisoformat(value.replace("Z", "+00:00"))
