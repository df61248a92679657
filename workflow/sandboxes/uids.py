"""A user id for each workspace, so that sandboxes of one machine cannot touch each other's processes or files.

Only root can hand them out. The id is remembered as the owner of the workspace's folder, nowhere else.
"""

import fcntl
import os
from pathlib import Path

from workflow.core.errors import SandboxError

FIRST, COUNT = 0x7000_0000, 1 << 24
"""Above everything systemd hands out (systemd.io/UIDS-GIDS), below 2^31."""
FIRST_IN_CONTAINER, COUNT_IN_CONTAINER = 20_000, 40_000
"""For a container that maps 65,536 ids."""


def next_uid(counter: Path) -> int:
    """A user id no workspace had before (until the range is used up). Raises: SandboxError without usable ids."""
    first, count = _range()
    with counter.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        used = int(file.read() or b"0")
        file.truncate(0)
        file.write(str(used + 1).encode())
    return first + used % count


def _range() -> tuple[int, int]:
    """First id and how many, all mapped in this user namespace."""
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        inside, _, length = map(int, line.split())
        for first, count in ((FIRST, COUNT), (FIRST_IN_CONTAINER, COUNT_IN_CONTAINER)):
            if inside <= first and first + count <= inside + length:
                return first, count
    raise SandboxError("this container maps too few user ids to give each sandbox its own")


def is_root() -> bool:
    return os.geteuid() == 0
