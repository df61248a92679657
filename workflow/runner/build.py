"""The composition root of workflow: what a worker process opens once and every run of it shares."""

import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from workflow.agent.calls import FileLocks
from workflow.core.config import SandboxSettings, Settings
from workflow.core.errors import ConfigError
from workflow.core.ports import Busy, Quota
from workflow.llm.models import Models, build_llm
from workflow.sandboxes.base import SandboxProvider, TierReport
from workflow.sandboxes.local import LocalProvider
from workflow.sandboxes.remote import Exists
from workflow.tools.build import build_registry
from workflow.tools.registry import Registry

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Workshop:
    """Models, tools and sandboxes of one worker process."""

    settings: Settings
    models: Models
    registry: Registry
    sandboxes: SandboxProvider
    report: TierReport
    config_hash: str
    locks: FileLocks = field(default_factory=FileLocks)
    services: dict[str, Any] = field(default_factory=dict)

    def pinned(self) -> "Workshop":
        """The workshop as it is now, for one run: a later change of the configuration does not reach it."""
        return replace(self)


@asynccontextmanager
async def open_workshop(
    settings: Settings,
    *,
    config_hash: str = "",
    environ: Mapping[str, str] | None = None,
    exists: Exists | None = None,
    installation: str = "",
    quota: Quota | None = None,
    busy: Busy | None = None,
) -> AsyncIterator[Workshop]:
    """Everything a run needs, closed at the end. Raises: ConfigError.

    exists: whether a thread of this `installation` is known; without it, remote sandboxes of threads that are gone are
    never looked for.
    quota: what tenants may use together with other workers. busy: names threads whose local files must stay.
    """
    environ = os.environ if environ is None else environ
    registry, problems = build_registry(settings.tools, network=settings.sandbox.network, environ=environ)
    known = {*registry.names, *settings.tools.disabled}
    unknown = [
        f"[agent.approvals]: there is no tool {name!r}" for name in settings.agent.approvals if name not in known
    ]
    for problem in (*problems, *unknown):
        log.warning("tools: %s", problem)
    models = build_llm(settings.llm, environ=environ)
    try:
        async with provider(
            settings.sandbox,
            data_dir=Path(settings.data_dir),
            environ=environ,
            exists=exists,
            installation=installation,
            quota=quota,
            busy=busy,
        ) as sandboxes:
            report = await sandboxes.check()
            yield Workshop(settings, models, registry, sandboxes, report, config_hash)
    finally:
        await models.close()


def provider(
    settings: SandboxSettings,
    *,
    data_dir: Path,
    environ: Mapping[str, str],
    exists: Exists | None = None,
    installation: str = "",
    quota: Quota | None = None,
    busy: Busy | None = None,
) -> SandboxProvider:
    """The configured sandbox provider. Raises: ConfigError when its key is missing."""
    if settings.provider == "local":
        return LocalProvider(settings, data_dir=data_dir, environ=environ, quota=quota, busy=busy)
    if settings.credentials:
        raise ConfigError("sandbox.credentials are added by the local sandbox's proxy; remote sandboxes do not have it")
    variable = settings.api_key_env or f"{settings.provider.upper()}_API_KEY"
    api_key = environ.get(variable, "")
    if not api_key:
        raise ConfigError(f'sandbox.provider = "{settings.provider}" needs its key in {variable}')
    # The vendors' libraries take seconds to import, so only the one that is used is.
    if settings.provider == "e2b":
        from workflow.sandboxes.e2b import E2bProvider  # noqa: PLC0415

        domain, url = environ.get("E2B_DOMAIN", ""), environ.get("E2B_SANDBOX_URL", "")
        return E2bProvider(
            settings,
            api_key=api_key,
            domain=domain,
            sandbox_url=url,
            exists=exists,
            installation=installation,
            quota=quota,
        )
    from workflow.sandboxes.daytona import DaytonaProvider  # noqa: PLC0415

    target = environ.get("DAYTONA_TARGET", "")
    return DaytonaProvider(
        settings,
        api_key=api_key,
        target=target,
        exists=exists,
        installation=installation,
        quota=quota,
    )
