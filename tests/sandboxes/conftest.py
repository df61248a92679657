"""Real local sandboxes of every tier that holds here, with limits small enough to be reached in a moment."""

import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from tests.sandboxes.holding import report, why_not
from workflow.core.config import SandboxSettings
from workflow.core.ids import ThreadId
from workflow.core.ports import Busy
from workflow.sandboxes.local import TIDY_S, LocalProvider
from workflow.sandboxes.local_sandbox import LocalSandbox
from workflow.sandboxes.tiers import Tier

MEGABYTE = 1_000_000


@pytest.fixture(params=["bubblewrap", "T2"])
def tier(request: pytest.FixtureRequest) -> Tier:
    """The strongest tier of each mechanism that holds here; else the test is skipped with the reason.

    T1 and T1b differ in their limits alone; modules about those take every tier.
    """
    tiers: tuple[Tier, ...] = ("T1", "T1b") if request.param == "bubblewrap" else ("T2",)
    for name in tiers:
        if not why_not(name):
            return name
    pytest.skip(why_not(tiers[-1]))


@contextmanager
def mounted(kind: str, folder: Path, *options: str) -> Iterator[None]:
    """A file system of its own at `folder`; skips the test where none can be had."""
    done = subprocess.run(
        ["mount", "-t", kind, *options, "dialtone-test", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no {kind} can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def settings(tier: Tier) -> SandboxSettings:
    return SandboxSettings(
        mode=tier,
        memory_bytes=200 * MEGABYTE,
        processes=40,
        cpus=0.5,
        disk_bytes=50 * MEGABYTE,
        files=600,
        output_bytes=5 * MEGABYTE,
    )


@pytest.fixture
async def provider(tier: Tier, settings: SandboxSettings, folder: Path) -> AsyncIterator[LocalProvider]:
    async with LocalProvider(settings, data_dir=folder, report=report(tier)) as provider:
        yield provider


@pytest.fixture
async def sandbox(provider: LocalProvider) -> LocalSandbox:
    return await provider.open(ThreadId("attacked"))


class MakeProvider(Protocol):
    """Makes a provider of the test's tier, as each of several workers on one machine has one."""

    def __call__(
        self, *, busy: Busy | None = None, tidy_every_s: float = TIDY_S, **settings: object
    ) -> LocalProvider: ...


@pytest.fixture
async def make(tier: Tier, folder: Path) -> AsyncIterator[MakeProvider]:
    """All that were made are closed at the end."""
    async with AsyncExitStack() as stack:

        def make(*, busy: Busy | None = None, tidy_every_s: float = TIDY_S, **settings: object) -> LocalProvider:
            chosen = SandboxSettings.model_validate({"mode": tier, **settings})
            made = LocalProvider(chosen, data_dir=folder, report=report(tier), busy=busy, tidy_every_s=tidy_every_s)
            stack.push_async_exit(made)
            return made

        yield make
