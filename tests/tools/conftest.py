"""Sandboxes for the tool suites: the memory twin, the plain tier, and the strongest tier that holds here."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.sandboxes.holding import report, why_not
from tests.tools.harness import Bench, memory_sandbox
from workflow.core.config import SandboxSettings
from workflow.core.ids import ThreadId
from workflow.sandboxes.base import Sandbox
from workflow.sandboxes.local import LocalProvider
from workflow.sandboxes.tiers import TIERS, Tier


@pytest.fixture(params=["memory", "unsafe_host", "strongest"])
def tier(request: pytest.FixtureRequest) -> Tier | None:
    """A tier of the local provider; None for the memory twin. Attacked here, outside of the test's event loop."""
    if request.param == "memory":
        return None
    tier = "unsafe_host" if request.param == "unsafe_host" else next((t for t in TIERS if not why_not(t)), None)
    if tier is None:
        pytest.skip("no tier but the plain one holds here")
    report(tier)
    return tier


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder that sandboxes of other users can reach; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="dt-tools-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


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
