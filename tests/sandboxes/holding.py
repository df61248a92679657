"""Which local tiers hold on the machine that runs the tests; each is attacked once per test process."""

import asyncio
import tempfile
from functools import cache
from pathlib import Path

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
    """Empty when the tier holds here; else the reason to skip a test that needs it."""
    found = report(tier)
    if found.tier == tier:
        return ""
    return f"{tier} does not hold here: " + "; ".join(f"{probe.name}: {probe.detail}" for probe in found.probes)
