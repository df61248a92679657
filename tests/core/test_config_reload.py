"""A changed config.toml takes effect where it can and says where it cannot."""

import asyncio
import logging
from pathlib import Path

import pytest

from workflow.core.config_load import load
from workflow.core.config_reload import Change, changes, compare, is_live


def test_live_keys_change_and_the_others_are_named(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[agent]\nmax_turns = 5\n")
    old = load(path, {})
    path.write_text('[agent]\nmax_turns = 6\n[gateway]\nport = 9000\n[log]\nlevel = "DEBUG"\nformat = "json"\n')
    change = compare(old, load(path, {}))
    assert change.live == ("agent.max_turns",)
    assert change.need_restart == ("gateway.port", "log.level", "log.format")
    settings = change.loaded.settings
    assert settings.agent.max_turns == 6
    assert (settings.gateway.port, settings.log.level) == (8080, "INFO")


def test_a_named_model_is_live_and_the_data_folder_is_not() -> None:
    assert is_live(("llm", "models", "fast", "model"))
    assert not is_live(("data_dir",))
    assert not is_live(("log",))


async def test_a_replaced_file_is_seen_and_a_broken_one_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("")
    stop, seen = asyncio.Event(), asyncio.Queue[Change]()

    async def follow() -> None:
        async for change in changes(load(path, {}), stop=stop):
            seen.put_nowait(change)

    def swap(text: str) -> None:
        fresh = tmp_path / "config.toml.new"
        fresh.write_text(text)
        fresh.replace(path)

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(follow())
        turns = 7
        while seen.empty():  # the watch needs a moment to begin; until then a change may go unseen
            swap(f"[agent]\nmax_turns = {turns}\n")
            turns += 1
            await asyncio.sleep(0.3)
        first = await seen.get()
        assert first.live == ("agent.max_turns",)
        with caplog.at_level(logging.ERROR):
            swap("[agent]\nmax_turns = 'many'\n")
            while "does not hold" not in caplog.text:  # noqa: ASYNC110 - a log has no event to wait for
                await asyncio.sleep(0.05)
        swap("[llm]\nmax_retries = 3\n")
        while "llm.max_retries" not in (change := await seen.get()).live:
            pass
        assert change.loaded.settings.llm.max_retries == 3
        stop.set()
