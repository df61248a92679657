"""Sandboxes for the tool suites: the memory twin, and the local provider at its strongest."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.sandboxes.holding import report, why_not
from tests.tools.harness import Bench, memory_sandbox
from workflow.core.config import SandboxSettings
from workflow.core.ids import ThreadId
from workflow.sandboxes.base import Sandbox
from workflow.sandboxes.local import LocalProvider
from workflow.sandboxes.tiers import TIERS, Tier


@pytest.fixture(params=["memory", "local"])
def tier(request: pytest.FixtureRequest) -> Tier | None:
    """None for the memory twin; else the strongest tier that holds here, or the plain one.

    Attacked here, outside of the test's event loop.
    """
    if request.param == "memory":
        return None
    tier: Tier = next((tier for tier in TIERS if not why_not(tier)), "unsafe_host")
    report(tier)
    return tier


@pytest.fixture
async def sandbox(tier: Tier | None, folder: Path) -> AsyncIterator[Sandbox]:
    """An empty workspace."""
    if tier is None:
        yield memory_sandbox()
        return
    async with LocalProvider(SandboxSettings(mode=tier), data_dir=folder, report=report(tier)) as provider:
        yield await provider.open(ThreadId("tools"))


@pytest.fixture
def bench(sandbox: Sandbox) -> Bench:
    """Calls tools in that workspace."""
    return Bench(sandbox)


@pytest.fixture
def shell(bench: Bench) -> Bench:
    """The same where background jobs and live output are real."""
    if bench.sandbox.info.provider == "memory":
        pytest.skip("the memory sandbox has no living shell")
    return bench
