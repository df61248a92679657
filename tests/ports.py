"""Ports for processes that are started with one, chosen so that nobody takes them before they are bound."""

import fcntl
import os
import tempfile
from pathlib import Path

from scripts.stack import preflight


def free_port() -> int:
    """A TCP port of loopback that is ours as long as this test process lives.

    The kernel gives it to no outgoing connection (see `preflight.free_port`), and its lock tells test processes
    beside this one to choose another.
    """
    while True:
        port = preflight.free_port("127.0.0.1")
        if _is_claimed(port):
            return port


def _is_claimed(port: int) -> bool:
    """True if the lock of `port` is ours now; it is never given back, the end of the process does that."""
    folder = Path(tempfile.gettempdir()) / f"dialtone-test-ports-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder / str(port), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    return True
