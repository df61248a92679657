"""docs/configuration.md tells of every key."""

import pytest

from scripts import gen_config_docs
from workflow.core.config_keys import every_key


def test_the_document_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert gen_config_docs.main(["--check"]) == 0, capsys.readouterr().err


def test_every_key_has_a_row() -> None:
    text = gen_config_docs.render()
    for key in every_key():
        assert f"| `{key.path[-1]}`" in text
