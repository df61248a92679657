"""What tests of several packages need."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder that sandboxes of other users can reach; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="dt-folder-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)
