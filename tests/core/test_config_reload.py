"""A changed config.toml takes effect where it can and says where it cannot."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.until import until
from workflow.core.config_load import load
from workflow.core.config_reload import Follower, compare, is_live


def test_live_keys_change_and_the_others_are_named(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[agent]\nmax_turns = 5\n")
    old = load(path, {})
    path.write_text('[agent]\nmax_turns = 6\n[gateway]\nport = 9000\n[log]\nlevel = "DEBUG"\nformat = "json"\n')
    change = compare(old, load(path, {}))
    assert change.live == ("agent.max_turns", "log.level")
    assert change.need_restart == ("gateway.port", "log.format")
    settings = change.loaded.settings
    assert settings.agent.max_turns == 6
    assert (settings.gateway.port, settings.log.level, settings.log.format) == (8080, "DEBUG", "auto")


def test_a_named_model_is_live_and_the_data_folder_is_not() -> None:
    assert is_live(("llm", "models", "fast", "model"))
    assert not is_live(("data_dir",))
    assert not is_live(("log",))


async def test_a_replaced_file_is_seen_and_a_broken_one_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("")

    def swap(text: str) -> None:
        fresh = tmp_path / "config.toml.new"
        fresh.write_text(text)
        fresh.replace(path)

    loaded = load(path, {})
    swap("[agent]\nmax_turns = 7\n")  # between the start and the first look
    async with asyncio.timeout(10):
        follower = Follower(loaded, every_s=0.01)
        seen = follower.changes()
        assert (await anext(seen)).live == ("agent.max_turns",)
        following = asyncio.ensure_future(anext(seen))
        swap("[agent]\nmax_turns = 'many'\n")
        while "does not hold" not in caplog.text:  # noqa: ASYNC110 - a log has no event to wait for
            await asyncio.sleep(0.01)
        assert "agent.max_turns" in follower.problem
        path.unlink()
        swap("[agent]\nmax_turns = 7\n[llm]\nmax_retries = 3\n")
        change = await following
        assert change.live == ("llm.max_retries",)
        assert change.loaded.settings.llm.max_retries == 3
        assert follower.problem == ""
        await seen.aclose()


async def test_a_reload_that_is_asked_for_reads_an_unchanged_file_again(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("")
    secrets = tmp_path / "secrets.toml"
    follower = Follower(load(path, {}), every_s=60)
    async with asyncio.timeout(10):
        following = asyncio.ensure_future(anext(follower.changes()))
        follower.ask(1)
        await until(_answered(follower, 1), what="the first look")
        secrets.write_text(f'[webhooks]\nsecret = "whsec_{"A" * 32}"\n')
        secrets.chmod(0o600)
        follower.ask(2)
        assert (await following).need_restart == ("webhooks.secret",)
    assert follower.need_restart == ("webhooks.secret",)


def _answered(follower: Follower, number: int) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return follower.answered == number

    return look
