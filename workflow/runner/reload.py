"""A saved config.toml reaches the workshop: the next run has the new values, runs under way keep theirs."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack

from workflow.core.config_load import Loaded, config_hash
from workflow.core.config_reload import Change, changes
from workflow.llm.models import build_llm
from workflow.runner.build import Workshop

log = logging.getLogger(__name__)


async def follow_config(
    shop: Workshop,
    loaded: Loaded,
    *,
    on_models: Callable[[], Awaitable[None]] | None = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Takes every change of the file that `loaded` came from into `shop`; never returns, ends by being cancelled.

    on_models: called after `shop.models` was replaced.
    """
    environ = os.environ if environ is None else environ
    # Models that were replaced stay open until the end: a run under way may still speak to them.
    async with AsyncExitStack() as opened:
        async for change in changes(loaded):
            settings = change.loaded.settings
            if settings.llm != shop.settings.llm:
                shop.models = build_llm(settings.llm, environ=environ)
                opened.push_async_callback(shop.models.close)
                if on_models is not None:
                    await on_models()
            shop.settings, shop.config_hash = settings, config_hash(settings)
            _report(change)
        await asyncio.Event().wait()  # without a file there is nothing to follow


def _report(change: Change) -> None:
    if change.live:
        log.info("config.toml changed, from the next run on: %s", ", ".join(change.live))
    if change.need_restart:
        log.warning("config.toml changed, but these need a restart: %s", ", ".join(change.need_restart))
