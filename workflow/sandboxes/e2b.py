"""The provider at E2B (e2b.dev, or a self-hosted one): a microVM per thread. The only file that imports its SDK.

Importing this costs about half a second, so it is done lazily (`workflow/runner/build.py`).
"""

import asyncio
import contextlib
import json
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from e2b import AsyncSandbox, SandboxQuery, SandboxState
from e2b.connection_config import ApiParams
from e2b.exceptions import (
    AuthenticationException,
    GuestUnresponsiveException,
    NotEnoughSpaceException,
    RateLimitException,
    SandboxException,
    SandboxNotFoundException,
    SandboxNotRunningException,
    SandboxUnreachableException,
    ServiceBusyException,
    TimeoutException,
)
from e2b.sandbox.commands.command_handle import CommandExitException
from e2b.sandbox.sandbox_api import SandboxNetworkOpts

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

HOME = "/home/user"
"""Of the user that E2B's templates run commands as."""
REQUEST_S = 60.0
QUIET_S = 60.0
"""A watch without a change for so long may have lost its stream, or its sandbox, without a word."""
TRAFFIC_TOKEN = "e2b-traffic-access-token"
"""Header without which E2B lets nobody reach a port. Source: e2b.dev/docs/network/restrict-public-access"""
HOST_INSIDE = "localhost:${PORT}"
"""The Host that servers inside get: of others, development servers refuse most. E2B puts the port in."""
GAPS = (
    "commands, files and their content are at E2B",
    "memory, processes and disk are limited by the template, not by our settings",
    "the kernel is the sandbox's own, but who runs commands in it can become root there",
)


class E2bProvider(RemoteProvider):
    """One sandbox at E2B per thread. api_key and the addresses: as in docs/remote-sandboxes.md."""

    def __init__(
        self,
        settings: SandboxSettings,
        *,
        api_key: str,
        domain: str = "",
        sandbox_url: str = "",
        home: str = HOME,
        exists: Exists | None = None,
        installation: str = "",
        quota: Quota | None = None,
        pace: Pace | None = None,
    ) -> None:
        """installation: with `settings.label` tells our sandboxes from others in the same account."""
        pace = pace or Pace()
        lease_s = pace.lease_s(idle_s=settings.idle_s)
        labels = Labels(settings.label, installation)
        fleet = E2bFleet(
            settings, api_key=api_key, domain=domain, sandbox_url=sandbox_url, labels=labels, lease_s=lease_s
        )
        super().__init__(fleet, settings, home=home, exists=exists, quota=quota, pace=pace)


class E2bFleet:
    """An account at E2B."""

    name = "e2b"
    gaps = GAPS

    def __init__(
        self,
        settings: SandboxSettings,
        *,
        api_key: str,
        domain: str = "",
        sandbox_url: str = "",
        labels: Labels,
        lease_s: float,
    ) -> None:
        self.lease_s = lease_s
        self._settings = settings
        self._labels = labels
        self._scrub = Scrubber([api_key])
        # debug would send everything to localhost, whatever the key; E2B_DEBUG must not do that behind our back.
        self._params = ApiParams(api_key=api_key, request_timeout=REQUEST_S, debug=False)
        if settings.api_url:
            self._params["api_url"] = settings.api_url
        if domain:
            self._params["domain"] = domain
        if sandbox_url:
            self._params["sandbox_url"] = sandbox_url

    async def check(self) -> None:
        async with explained(self._scrub):
            await AsyncSandbox.list(limit=1, **self._params).next_items()

    async def find(self, thread_id: ThreadId | None = None) -> list[Found]:
        query = SandboxQuery(metadata=self._labels.find(thread_id), state=[SandboxState.RUNNING, SandboxState.PAUSED])
        found: list[Found] = []
        async with explained(self._scrub):
            pages = AsyncSandbox.list(query=query, limit=100, **self._params)
            while pages.has_next:
                for info in await pages.next_items():
                    owner = ThreadId(info.metadata.get(THREAD_LABEL, ""))
                    found.append(Found(info.sandbox_id, owner, info.started_at))
        return found

    async def create(self, thread_id: ThreadId) -> "E2bMachine":
        async with explained(self._scrub):
            sandbox = await AsyncSandbox.create(
                template=self._settings.template or None,
                timeout=math.ceil(self.lease_s),
                metadata=self._labels.new(thread_id),
                lifecycle={"on_timeout": "pause", "auto_resume": True},
                allow_internet_access=self._settings.network != "off",
                network=self._network(),
                **self._params,
            )
        return self._machine(sandbox)

    async def connect(self, machine_id: str) -> "E2bMachine":
        async with explained(self._scrub):
            try:
                sandbox = await AsyncSandbox.connect(machine_id, timeout=math.ceil(self.lease_s), **self._params)
            except SandboxNotFoundException as error:
                raise Vanished(self._scrub(f"E2B: {error}")) from self._scrub.cause(error)
            except GuestUnresponsiveException:  # its memory is of no use any more, its disk is
                sandbox = await AsyncSandbox.connect(
                    machine_id, timeout=math.ceil(self.lease_s), on_resume="reboot", **self._params
                )
        return self._machine(sandbox)

    async def kill(self, machine_id: str) -> None:
        async with explained(self._scrub):
            await AsyncSandbox.kill(machine_id, **self._params)

    async def close(self) -> None:
        """Nothing is held: the SDK keeps its connections for the whole process."""

    def _machine(self, sandbox: AsyncSandbox) -> "E2bMachine":
        tokens = [token for token in (sandbox._envd_access_token, sandbox.traffic_access_token) if token]
        return E2bMachine(sandbox, lease_s=self.lease_s, scrub=self._scrub.plus(tokens))

    def _network(self) -> SandboxNetworkOpts:
        # Else whoever guesses the host name of a port may visit it, past our links.
        network: SandboxNetworkOpts = {"allow_public_traffic": False, "mask_request_host": HOST_INSIDE}
        if self._settings.network == "allowlist":
            network |= {"allow_out": list(Policy.of(self._settings).hosts), "deny_out": ["0.0.0.0/0"]}
        return network


class E2bMachine:
    """One running sandbox."""

    brief_s = 0.0

    def __init__(self, sandbox: AsyncSandbox, *, lease_s: float, scrub: Scrubber) -> None:
        self.id = sandbox.sandbox_id
        self._sandbox = sandbox
        self._lease_s = lease_s
        self._scrub = scrub

    async def call(self, command: str) -> str:
        pieces, left = [""], LONGEST_ANSWER

        async def show(text: str) -> None:
            nonlocal left
            left -= len(text)
            if left < 0:
                raise SandboxError(f"the sandbox printed more than {LONGEST_ANSWER} characters in one answer")
            pieces.append(text)

        await self.stream(command, show)
        return "".join(pieces)

    async def stream(self, command: str, show: Show) -> None:
        async with explained(self._scrub):
            # In the background, always: the SDK leaves a foreground command running when its caller is cancelled, and
            # leaves it to the server to keep `timeout` (0: no limit; ours holds).
            handle = await self._sandbox.commands.run(
                command, background=True, on_stdout=show, on_stderr=show, timeout=0, stdin=False, retain_output=False
            )
            try:
                await handle.wait()
            except CommandExitException:
                return  # What it printed says more than its status.
            except BaseException:
                await self._end(handle)
                raise

    async def put(self, path: str, content: bytes) -> None:
        async with explained(self._scrub):
            await self._sandbox.files.write(path, content, request_timeout=0)

    async def get(self, path: str) -> AsyncGenerator[bytes, None]:
        async with explained(self._scrub):
            async with await self._sandbox.files.read(path, format="stream", request_timeout=0) as pieces:
                async for piece in pieces:
                    yield piece

    async def extend(self) -> None:
        async with explained(self._scrub):
            await self._sandbox.set_timeout(math.ceil(self._lease_s))

    async def pause(self) -> None:
        async with explained(self._scrub):
            await self._sandbox.pause()

    async def address(self, port: int) -> Address:
        host, _, own_port = self._sandbox.get_host(port).partition(":")
        token = self._sandbox.traffic_access_token
        inner = f"http://{HOST_INSIDE.replace('${PORT}', str(port))}"
        return Address(host, int(own_port or 443), {TRAFFIC_TOKEN: token} if token else {}, inner)

    async def changes(self, path: str) -> AsyncGenerator[None, None]:
        changed, ended = asyncio.Event(), asyncio.Event()

        def end(_: Exception | None) -> None:
            ended.set()
            changed.set()

        async with explained(self._scrub):
            handle = await self._sandbox.files.watch_dir(
                path,
                on_event=lambda _: changed.set(),
                on_exit=end,
                recursive=True,
                timeout=0,
            )
        try:
            yield
            while not ended.is_set():
                try:
                    async with asyncio.timeout(QUIET_S):
                        await changed.wait()
                except TimeoutError:
                    await self._check_runs()
                changed.clear()
                yield
        finally:
            await handle.stop()  # type: ignore[no-untyped-call]  # the SDK gives it no types

    async def _check_runs(self) -> None:
        """Asks the service, not the sandbox: that would wake it. Raises: Asleep."""
        async with explained(self._scrub):
            state = (await self._sandbox.get_info()).state
        if state is not SandboxState.RUNNING:
            raise Asleep("E2B: the sandbox was put away")

    async def _end(self, handle: Any) -> None:
        """Kills the command's process there, and lets go of its stream."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(5):
                await handle.kill()
        await handle.disconnect()


@contextlib.asynccontextmanager
async def explained(scrub: Scrubber) -> AsyncIterator[None]:
    """Turns what the SDK raises into our errors, without secrets."""
    try:
        yield
    except DialtoneError:
        raise
    except Exception as error:  # noqa: BLE001  # the SDK also raises bare ones; none is lost, each is raised again
        raise _explain(error, scrub) from scrub.cause(error)


def _explain(error: Exception, scrub: Scrubber) -> SandboxError:
    text = scrub(f"E2B: {error}")
    match error:
        case AuthenticationException():
            return SandboxRefused(text)
        case RateLimitException() | ServiceBusyException():
            return Busy(text)
        case SandboxNotFoundException() | SandboxNotRunningException():
            return Asleep(text)
        case SandboxUnreachableException() | TimeoutException() | httpx.TransportError() | ConnectError() | OSError():
            return Dropped(text)
        case NotEnoughSpaceException():
            return SandboxError(f"the disk of the sandbox is full ({text})")
        case SandboxException() if (error.status_code or 0) >= 500 or _is_server_fault(error.__context__):
            return Dropped(text)
        case json.JSONDecodeError() | KeyError() | TypeError():  # a gateway's page in place of the service's answer
            return Dropped("E2B: the answer cannot be read")
        # Of files, the SDK tells the status in words only.
        case _ if "without an end event" in str(error) or re.match(r"5\d\d: ", str(error)):
            return Dropped(text)
    return SandboxError(text)


def _is_server_fault(origin: BaseException | None) -> bool:
    return isinstance(origin, ConnectError) and origin.code in (Code.INTERNAL, Code.UNKNOWN, Code.ABORTED)
