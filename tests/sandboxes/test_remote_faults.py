"""What goes wrong with the calls that end, keep, put away, wake and fetch: a named error, and nothing is left."""

import asyncio
import dataclasses
import random
from typing import Any

import pytest

from tests.sandboxes import remotes
from tests.sandboxes.remotes import Vendor, connect, fresh_server
from tests.servers.boxes import Fault
from workflow.core.errors import SandboxError, SandboxRefused
from workflow.core.ids import ThreadId
from workflow.sandboxes.remote import RemoteProvider
from workflow.sandboxes.remote_sandbox import RemoteSandbox

pytestmark = pytest.mark.skipif(bool(remotes.why_not()), reason=remotes.why_not())

BIG = random.Random(1).randbytes(2_000_000)
FAULTS = {
    "bad request": Fault("", status=400, body={"code": 400, "message": "no"}),
    "bad key": Fault("", status=401, body={"code": 401, "message": "no"}),
    "too many": Fault("", status=429, body={"code": 429, "message": "no"}, headers={"Retry-After": "0"}),
    "broken": Fault("", status=500, body={"code": 500, "message": "no"}),
    "page": Fault("", status=200, raw=b"<html>"),
    "empty": Fault("", status=204, raw=b""),
    "dropped": Fault(""),
    "silent": Fault("", delay_s=60),
}


async def remove(provider: RemoteProvider, sandbox: RemoteSandbox) -> None:
    await provider.remove(ThreadId(sandbox.info.sandbox_id))


async def extend(provider: RemoteProvider, sandbox: RemoteSandbox) -> None:
    assert sandbox.line.machine is not None
    sandbox.line._extended_at = -1e9
    assert await sandbox.read("small") == b"1"


async def put_away(provider: RemoteProvider, sandbox: RemoteSandbox) -> None:
    await sandbox.put_away()


async def wake(provider: RemoteProvider, sandbox: RemoteSandbox) -> None:
    await sandbox.put_away()
    assert await sandbox.read("small") == b"1"


async def fetch(provider: RemoteProvider, sandbox: RemoteSandbox) -> None:
    assert await sandbox.read("big") == BIG


@pytest.mark.parametrize(
    ("vendor", "act", "method", "path"),
    [
        ("e2b", remove, "DELETE", "/sandboxes/"),
        ("e2b", extend, "POST", "/timeout"),
        ("e2b", put_away, "POST", "/pause"),
        ("daytona", remove, "DELETE", "/api/sandbox/"),
        ("daytona", extend, "POST", "/last-activity"),
        ("daytona", put_away, "POST", "/stop"),
        ("daytona", wake, "POST", "/start"),
        ("daytona", fetch, "POST", "/bulk-download"),
    ],
)
async def test_whatever_the_service_answers_the_error_has_a_name_and_nothing_is_left(
    vendor: Vendor, act: Any, method: str, path: str
) -> None:
    server = fresh_server(vendor)
    async with connect(vendor, server, settings={"remote_timeout_s": 1.5}) as provider:
        for name, fault in FAULTS.items():
            thread_id = ThreadId(name.replace(" ", "-"))
            sandbox = await provider.open(thread_id)
            await sandbox.write("small", b"1")
            if act is fetch:
                await sandbox.write("big", BIG)
            server.faults.append(dataclasses.replace(fault, match=path, method=method, times=99))
            error: SandboxError | None = None
            try:
                async with asyncio.timeout(10):
                    await act(provider, sandbox)
            except SandboxError as raised:
                error = raised
            assert server.faults.pop().times < 99, name
            if act is extend:
                assert error is None, (name, "a lease that is not renewed harms no call")
            elif name == "bad key":
                assert isinstance(error, SandboxRefused), name
            elif act is fetch:
                assert error is not None, name
            await provider.remove(thread_id)
            assert server.boxes == {}, name


@pytest.mark.parametrize(("vendor", "path"), [("e2b", "/pause"), ("daytona", "/stop")])
@pytest.mark.parametrize("name", ["bad request", "silent"])
async def test_a_sandbox_that_cannot_be_put_away_keeps_no_other_from_its_place(
    vendor: Vendor, path: str, name: str
) -> None:
    server = fresh_server(vendor)
    async with connect(vendor, server, settings={"remote_timeout_s": 1.5, "max_live": 1}) as provider:
        one, two = await provider.open(ThreadId("one")), await provider.open(ThreadId("two"))
        await one.write("a", b"1")
        server.faults.append(dataclasses.replace(FAULTS[name], match=path, times=99))
        await two.write("b", b"2")
        assert await two.read("b") == b"2" and provider.live == 1
        server.faults.clear()
        assert await one.read("a") == b"1"
