"""One sandbox per provider and tier, each made for real, for the suite that all of them must pass."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from tests.sandboxes import remotes
from tests.sandboxes.holding import ALL_TIERS, report, why_not
from workflow.core.config import SandboxSettings
from workflow.core.ids import ThreadId
from workflow.sandboxes.base import Sandbox, SandboxProvider
from workflow.sandboxes.local import LocalProvider
from workflow.sandboxes.memory import MemoryProvider
from workflow.sandboxes.tiers import Tier


@pytest.fixture(params=["memory", *ALL_TIERS, *remotes.VENDORS])
def tier(request: pytest.FixtureRequest) -> str:
    """Every tier that holds on this machine, and every vendor's server; the others are skipped with the reason."""
    name: str = request.param
    if name != "memory" and (reason := remotes.why_not() if name in remotes.VENDORS else why_not(request.param)):
        pytest.skip(reason)
    return name


@pytest.fixture
async def provider(tier: str, folder: Path) -> AsyncIterator[SandboxProvider]:
    if tier == "memory":
        async with MemoryProvider() as memory:
            yield memory
    elif tier in remotes.VENDORS:
        async with remotes.remote_provider(tier) as remote:
            yield remote
    else:
        local_tier = cast(Tier, tier)
        settings = SandboxSettings(mode=local_tier)
        async with LocalProvider(settings, data_dir=folder, report=report(local_tier)) as local:
            yield local


@pytest.fixture
async def sandbox(provider: SandboxProvider) -> Sandbox:
    return await provider.open(ThreadId("contract"))


@pytest.fixture
def shell(sandbox: Sandbox) -> Sandbox:
    """A sandbox that runs real commands."""
    if sandbox.info.provider == "memory":
        pytest.skip("the memory sandbox has no shell: it imitates a few commands only")
    return sandbox


@pytest.fixture
def networked(shell: Sandbox) -> Sandbox:
    """A sandbox whose commands can listen on ports."""
    if shell.info.tier == "T2":
        pytest.skip("commands in T2 have no sockets")
    if shell.info.tier == "T0":
        pytest.skip("ports of remote sandboxes are reached at the vendor's own hosts")
    return shell
