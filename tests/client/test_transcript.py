"""The terminal session of the README is what the commands say."""

import pytest

from tests.client.transcript import BLOCK, README, alike, play

pytestmark = pytest.mark.timeout(180)


def test_the_session_in_the_readme_is_what_the_commands_print(stack: str) -> None:
    (shown,) = BLOCK.findall(README.read_text(encoding="utf-8"))
    again = "`python -m tests.client.transcript --update` writes it anew"
    assert alike(play(stack)) == alike(shown), again


def test_what_differs_from_run_to_run_is_made_alike() -> None:
    first = "  run 5a05b22378af61642291.f00c50d7 on vm:26417:e75a · local/T1 · configuration 92921bb31814 · 3.8 s"
    second = "  run 0123456789abcdef0123.00000000 on host-2:1:0000 · local/T2 · configuration 000000000000 · 12 s"
    assert alike(first) == alike(second)
    assert alike("8 turns") != alike("9 turns")
