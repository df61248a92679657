"""Which parts a stack has, what starts them and what they are told."""

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.stack.part import Part
from workflow.core.config_load import Loaded

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Plan:
    """A stack to run. An empty command leaves that part out."""

    loaded: Loaded
    gateway: tuple[str, ...] = (sys.executable, "-m", "gateway")
    worker: tuple[str, ...] = (sys.executable, "-m", "modem.worker")

    @property
    def data_dir(self) -> Path:
        return Path(self.loaded.settings.data_dir)


def gateways(plan: Plan, env: Mapping[str, str]) -> list[Part]:
    """The gateway processes."""
    if not plan.gateway:
        return []
    settings = plan.loaded.settings.gateway
    stop_s = settings.drain_s + 2
    return [Part(name, plan.gateway, env, stop_s) for name in _names("gateway", settings.processes)]


def workers(plan: Plan, env: Mapping[str, str]) -> list[Part]:
    """The worker processes; they alone get the keys of `[environment]` in secrets.toml."""
    if not plan.worker:
        return []
    settings = plan.loaded.settings.worker
    env = {**plan.loaded.environment, **env}
    stop_s = settings.soft_shutdown_s + 3
    return [
        Part(name, plan.worker, env, stop_s, death_signal=signal.SIGKILL)
        for name in _names("worker", settings.processes)
    ]


def environment(plan: Plan, *, redis_url: str, as_json: bool) -> dict[str, str]:
    """What every part is told, on top of our own environment."""
    settings = plan.loaded.settings
    told = {
        "DIALTONE_REDIS__URL": redis_url,
        "DIALTONE_DATA_DIR": settings.data_dir,
        "DIALTONE_GATEWAY__HOST": settings.gateway.host,
        "DIALTONE_GATEWAY__PORT": str(settings.gateway.port),
        # The parts write into a pipe; whether people read it at the end only we know.
        "DIALTONE_LOG__FORMAT": "json" if as_json else "color",
        "PYTHONUNBUFFERED": "1",
    }
    if plan.loaded.path is not None:
        told["DIALTONE_CONFIG"] = str(plan.loaded.path)
    return {**os.environ, **told}


def _names(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name}-{number}" for number in range(1, count + 1)]
