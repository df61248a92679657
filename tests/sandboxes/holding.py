"""Which local tiers hold on the machine that runs the tests; each is attacked once per test process."""

import asyncio
import os
import tempfile
from functools import cache
from pathlib import Path

import pytest

from workflow.core.config import SandboxSettings
from workflow.sandboxes.base import TierReport
from workflow.sandboxes.local import LocalProvider
from workflow.sandboxes.tiers import TIERS, Tier

ALL_TIERS: tuple[Tier, ...] = (*TIERS, "unsafe_host")


@cache
def report(tier: Tier) -> TierReport:
    """What the start-up check says when only this tier is allowed. Call it outside a running event loop."""

    async def check() -> TierReport:
        with tempfile.TemporaryDirectory(prefix="dt-check-") as folder:
            Path(folder).chmod(0o755)
            async with LocalProvider(SandboxSettings(mode=tier), data_dir=Path(folder)) as provider:
                return await provider.check()

    return asyncio.run(check())


def why_not(tier: Tier) -> str:
    """Empty when the tier holds here; else the reason to skip a test that needs it.

    On a machine that is meant to hold it (TEST_SANDBOX_TIER) the test fails instead: it was not to be skipped.
    """
    found = report(tier)
    if found.tier == tier:
        return ""
    reason = f"{tier} does not hold here: " + "; ".join(f"{probe.name}: {probe.detail}" for probe in found.probes)
    if tier == os.environ.get("TEST_SANDBOX_TIER"):
        pytest.fail(reason)
    return reason
