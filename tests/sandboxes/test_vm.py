"""Limits on a real version 2 hierarchy, in a virtual machine: this machine's own may belong to version 1."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.sandbox_vm.__main__ import kernel, missing

ROOT = Path(__file__).parent.parent.parent
TIMEOUT_S = 500  # A minute or two of one processor, which is shared with other tests.
LACKING = missing() or ("" if kernel() else "needs a kernel: ./run.sh sandbox vm --fetch")


@pytest.mark.skipif(bool(LACKING), reason=LACKING)
@pytest.mark.timeout(TIMEOUT_S + 60)
def test_places_are_found_and_limits_hold_on_a_real_version_2_hierarchy() -> None:
    command = [sys.executable, "-m", "scripts.sandbox_vm", "--timeout-s", str(TIMEOUT_S)]
    done = subprocess.run(
        [*command, "-q", "tests/sandboxes/test_cgroup2.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and " skipped" not in done.stdout, done.stdout
