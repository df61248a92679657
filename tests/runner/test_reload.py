"""A worker takes a saved config.toml without a restart."""

import asyncio
import logging
from pathlib import Path

import pytest

from workflow.core.config import AgentSettings, SandboxSettings, Settings, ToolSettings
from workflow.core.config_load import config_hash, load
from workflow.core.config_reload import Follower
from workflow.runner.build import open_workshop
from workflow.runner.reload import follow_config


def save(path: Path, text: str) -> None:
    """As editors do: another file takes the place of the old one."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


async def test_the_next_run_has_the_new_budget_and_model_and_the_port_needs_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[llm]\ndefault = "scripted"\n[sandbox]\nmode = "unsafe_host"\n')
    loaded = load(path, {})
    async with open_workshop(loaded.settings, config_hash=config_hash(loaded.settings), environ={}) as shop:
        before, old_models = shop.config_hash, shop.models
        replaced = asyncio.Event()

        async def on_models() -> None:
            replaced.set()

        following = asyncio.create_task(follow_config(shop, Follower(loaded), on_models=on_models, environ={}))
        with caplog.at_level(logging.INFO):
            save(path, '[llm]\ndefault = "scripted"\nmax_retries = 1\n[agent]\nmax_turns = 3\n[gateway]\nport = 9\n')
            async with asyncio.timeout(10):
                while "need a restart" not in caplog.text:  # noqa: ASYNC110 - a log has no event to wait for
                    await asyncio.sleep(0.02)
        assert shop.config_hash != before
        assert shop.settings.agent.max_turns == 3
        assert shop.models is not old_models
        assert replaced.is_set()
        assert shop.settings.llm.max_retries == 1
        assert shop.settings.gateway.port == 8080
        assert shop.config_hash == config_hash(shop.settings)
        assert "these need a restart: gateway.port" in caplog.text
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_an_approval_for_a_tool_that_is_none_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(
        agent=AgentSettings(approvals={"bsh": "never", "bash": "ask", "web_fetch": "ask"}),
        tools=ToolSettings(disabled=("web_fetch",)),
        sandbox=SandboxSettings(mode="unsafe_host"),
    )
    async with open_workshop(settings, environ={}):
        pass
    assert [r.getMessage() for r in caplog.records if "approvals" in r.getMessage()] == [
        "tools: [agent.approvals]: there is no tool 'bsh'"
    ]
