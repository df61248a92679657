"""The line to one thread's machine: finds or wakes it when it is needed, repeats what failed in passing."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from time import monotonic
from typing import Any, TypeVar

from workflow.core.errors import SandboxError, ToolError
from workflow.sandboxes.machines import Asleep, Busy, Dropped, Machine, Pace, Vanished
from workflow.sandboxes.remote_answers import NOTHING, ROW, Shape, checked
from workflow.sandboxes.remote_call import INLINE, Call, Home, NotInstalled

log = logging.getLogger(__name__)

T = TypeVar("T")
Enter = Callable[[str], Awaitable[tuple[Machine, bool]]]
"""Gives the thread's machine, awake, and whether it is new; the id of the one that was used last goes in."""
GONE = "the sandbox is gone, and its files with it; the next call starts in an empty workspace"


class Line:
    """Calls of the program inside, from this worker. Whatever is repeated is safe to be done twice."""

    def __init__(self, home: Home, *, pace: Pace, timeout_s: float, lease_s: float, enter: Enter) -> None:
        """timeout_s: for one call with all its repeats; lease_s: as of the fleet."""
        self.home = home
        self.pace = pace
        self.owner = secrets.token_hex(6)
        """Marks the commands that came over this line."""
        self.timeout_s = timeout_s
        self.used_at = monotonic()
        self.users = 0
        """Calls under way."""
        self.machine: Machine | None = None
        """None while it is put away, or not known yet."""
        self._lease_s = lease_s
        self._extended_at = 0.0
        self._enter = enter
        self._entering = asyncio.Lock()
        self._last_id = ""
        self._is_installed = False
        self._is_closed = False

    async def ask(self, op: str, shape: Shape[T], *, payload: bytes = b"", **args: Any) -> T:
        """The result of one call. Raises: ToolError, SandboxError."""
        return (await self.fetch(op, shape, payload=payload, **args))[1]

    async def fetch(self, op: str, shape: Shape[T], *, payload: bytes = b"", **args: Any) -> tuple[bytes, T]:
        """What one call printed as output, and its result."""
        async with self.in_use(), self._bounded(), self.staged(payload) as (inline, at):
            output, result = await self.attempt(lambda machine: self._call(machine, op, args, inline=inline, at=at))
            return output, checked(shape, result)

    async def peek(self, op: str, shape: Shape[T], **args: Any) -> T:
        """The result of a call that is no use of the sandbox and does not wake it. Raises: Asleep."""
        async with self._bounded():
            _, result = await self.attempt(lambda machine: self._call(machine, op, args, quiet=True), wakes=False)
            return checked(shape, result)

    def call(self, op: str, args: dict[str, Any], *, inline: bytes, at: str, quiet: bool = False) -> Call:
        """A call of the program inside; quiet: it does not count as use."""
        return Call(op, args, home=self.home, owner=self.owner, payload=inline, staged=at, quiet=quiet)

    async def _call(
        self,
        machine: Machine,
        op: str,
        args: dict[str, Any],
        *,
        inline: bytes = b"",
        at: str = "",
        quiet: bool = False,
    ) -> tuple[bytes, Any]:
        call = self.call(op, args, inline=inline, at=at, quiet=quiet)
        output = b"".join(chunk for _, chunk in call.take(await machine.call(self.command(call))))
        self._is_installed = True
        return output, call.result

    def command(self, call: Call) -> str:
        """What to run for a call: with the program, unless it is known to be there."""
        return call.command(installs=not self._is_installed)

    async def get(self, path: str, *, max_bytes: int) -> bytes:
        """A file by its absolute path. Raises: SandboxError if it is longer."""

        async def get(machine: Machine) -> bytes:
            content = bytearray()
            async with contextlib.aclosing(machine.get(path)) as pieces:
                async for piece in pieces:
                    content += piece
                    if len(content) > max_bytes:
                        raise SandboxError(f"a file grew beyond {max_bytes} bytes while it was fetched")
            return bytes(content)

        async with self.in_use(), self._bounded():
            return await self.attempt(get)

    async def discard(self, path: str) -> None:
        """Removes a staged file; one that cannot be removed now is cleared away later."""
        with contextlib.suppress(SandboxError, ToolError):
            await self.peek("discard", NOTHING, at=path)

    @contextlib.asynccontextmanager
    async def staged(self, payload: bytes) -> AsyncIterator[tuple[bytes, str]]:
        """A payload as a call takes it: itself, or empty and where it was uploaded to."""
        if len(payload) <= INLINE:
            yield payload, ""
            return
        if not self._is_installed:  # then its folders may not be there either
            await self.ask("stat", ROW, path=".")
        path = f"{self.home.state}/staged/{secrets.token_hex(8)}"
        await self.attempt(lambda machine: machine.put(path, payload))
        try:
            yield b"", path
        finally:
            await self.discard(path)

    async def attempt(
        self, act: Callable[[Machine], Awaitable[T]], *, wakes: bool = True, progress: Callable[[], int] = lambda: 0
    ) -> T:
        """What `act` gives; repeated while it fails in passing, without `progress` at most `pace.attempts` times.

        Raises: Vanished once when the machine turns out to be gone; Asleep if it is not awake and `wakes` is False.
        """
        failures, before = 0, progress()
        while True:
            machine: Machine | None = None
            try:
                machine = await self.reach() if wakes else self._awake()
                if wakes:
                    await self.extend(machine)
                return await act(machine)
            except NotInstalled:
                self._is_installed = False
            except (Asleep, Dropped, Busy) as error:
                if isinstance(error, Asleep):
                    if machine is not None:
                        self.leave(machine)
                    if not wakes:
                        raise
                failures = failures + 1 if progress() == before else 1
                before = progress()
                if failures >= self.pace.attempts:
                    raise
                await asyncio.sleep(self.pace.pause(failures - 1, error))

    async def reach(self) -> Machine:
        """The machine, awake. Raises: Vanished if it is another one than before, once; SandboxError."""
        async with self._entering:
            if self._is_closed:
                raise SandboxError("the thread of this sandbox was removed")
            if self.machine is None:
                before = self._last_id
                self.machine, is_new = await self._enter(before)
                self._last_id, self._is_installed = self.machine.id, False
                self._extended_at = monotonic()
                if before and is_new:
                    raise Vanished(GONE)
            return self.machine

    def close(self) -> None:
        """No call reaches, wakes or makes a machine any more."""
        self.machine, self._is_closed = None, True

    def _awake(self) -> Machine:
        if self.machine is None:
            raise Asleep("the sandbox is put away")
        return self.machine

    def leave(self, machine: Machine) -> None:
        """Forgets that `machine` is awake."""
        if self.machine is machine:
            self.machine = None

    async def extend(self, machine: Machine) -> None:
        """Renews the lease when a third of it is over. Raises: Asleep."""
        if monotonic() - self._extended_at < self._lease_s / 3:
            return
        self._extended_at = monotonic()
        try:
            async with self.aside():
                await machine.extend()
        except Asleep:
            raise
        except SandboxError as error:
            self._extended_at -= self._lease_s / 6
            log.warning("the lease of sandbox %s was not renewed: %s", machine.id, error)

    @contextlib.asynccontextmanager
    async def in_use(self) -> AsyncIterator[None]:
        """While inside, the machine is not put away by us."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1
            self.used_at = monotonic()

    def aside(self) -> AbstractAsyncContextManager[None]:
        """Bounds what is done beside a call, so that its standstill leaves time for the call. Raises: SandboxError."""
        return self._bounded(self.timeout_s / 4)

    @contextlib.asynccontextmanager
    async def _bounded(self, seconds: float | None = None) -> AsyncIterator[None]:
        seconds = self.timeout_s if seconds is None else seconds
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            raise SandboxError(f"the sandbox did not answer within {seconds:g} s") from error
