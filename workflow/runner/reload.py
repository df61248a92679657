"""A saved config.toml reaches the workshop: the next run has the new values, runs under way keep theirs."""

import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack

from workflow.core.config import Settings
from workflow.core.config_load import config_hash
from workflow.core.config_reload import Follower
from workflow.llm.models import build_llm
from workflow.runner.build import Workshop


async def follow_config(
    shop: Workshop,
    follower: Follower,
    *,
    on_models: Callable[[], Awaitable[None]] | None = None,
    on_settings: Callable[[Settings], None] | None = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Takes every change that `follower` sees into `shop`; never returns, ends by being cancelled.

    on_models: called after `shop.models` was replaced.  on_settings: called with every new settings.
    """
    environ = os.environ if environ is None else environ
    # Models that were replaced stay open until the end: a run under way may still speak to them.
    async with AsyncExitStack() as opened:
        async for change in follower.changes():
            settings = change.loaded.settings
            if settings.llm != shop.settings.llm:
                shop.models = build_llm(settings.llm, environ=environ)
                opened.push_async_callback(shop.models.close)
                if on_models is not None:
                    await on_models()
            shop.settings, shop.config_hash = settings, config_hash(settings)
            if on_settings is not None:
                on_settings(settings)
            change.report()
