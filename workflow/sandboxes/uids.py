"""A user id for each workspace, so that sandboxes of one machine cannot touch each other's processes or files.

Only root can hand them out. The id is remembered as the owner of the workspace's folder, nowhere else.
"""

import secrets
from pathlib import Path

from workflow.core.errors import SandboxError

RANGES = (
    (0x7000_0000, 0x0FF0_0000),  # nobody's: systemd.io/UIDS-GIDS ends below it, but for 65,536 ids at 0x7FFE_0000
    (20_000, 40_000),  # for a container that maps 65,536 ids
)
"""First id and how many; the first range that this user namespace maps is used."""


def new_uid() -> int:
    """A user id that very likely nobody else has. Raises: SandboxError where too few ids are mapped."""
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        inside, _, length = map(int, line.split())
        for first, count in RANGES:
            if inside <= first and first + count <= inside + length:
                return first + secrets.randbelow(count)
    raise SandboxError("this container maps too few user ids to give each sandbox its own")
