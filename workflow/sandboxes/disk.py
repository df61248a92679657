"""How much a workspace takes on disk, measured as seldom as its limit allows.

A scan is only needed when the whole file system has filled up by what the workspace still may take; statvfs says
that in microseconds. A folder whose path is too long to be opened counts as over any limit.
"""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from workflow.sandboxes.beneath import open_beneath

RESCAN_S = 30.0
"""Other programs free space meanwhile, which hides growth from statvfs."""
BLOCK = 512
SLACK_BYTES = 1_000_000
SLACK_FILES = 100


@dataclass(frozen=True, slots=True)
class Amount:
    """What a folder takes."""

    bytes: int = 0
    files: int = 0
    hidden: bool = False
    """Some of it is out of reach: nested so deep that no path leads there."""


def measure(roots: Sequence[int]) -> Amount:
    """What the folders with these descriptors take together; blocks as allocated, hard links once. Blocking."""
    total, files, hidden = 0, 0, False
    linked: set[tuple[int, int]] = set()
    for root in roots:
        folders = ["."]
        while folders:
            folder = folders.pop()
            try:
                fd = open_beneath(root, folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except OSError as error:
                hidden = hidden or error.errno == errno.ENAMETOOLONG
                continue
            with os.scandir(fd) as entries:
                for entry in entries:
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    files += 1
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{folder}/{entry.name}")
                    elif found.st_nlink > 1:
                        if (found.st_dev, found.st_ino) in linked:
                            continue
                        linked.add((found.st_dev, found.st_ino))
                    total += found.st_blocks * BLOCK
            os.close(fd)
    return Amount(total, files, hidden)


class DiskMeter:
    """Tells whether the folders have outgrown their limits. Blocking; call it from a thread."""

    def __init__(self, roots: Sequence[int], *, max_bytes: int, max_files: int) -> None:
        self._roots = tuple(roots)
        self._max = Amount(max_bytes, max_files)
        self._ceiling = self._max
        self._known: Amount | None = None
        self._free_bytes = self._free_files = 0
        self._scanned_at = 0.0
        self._scan_s = 0.0

    def allow_present(self) -> None:
        """Lets what is over the limit now stay, so that a command can delete some of it; growing is still refused."""
        if self._known is not None:
            self._ceiling = Amount(
                max(self._max.bytes, self._known.bytes + SLACK_BYTES),
                max(self._max.files, self._known.files + SLACK_FILES),
            )

    def is_over(self) -> bool:
        """True when the limit is passed by now."""
        state = os.statvfs(self._roots[0])
        free_bytes, free_files = state.f_bfree * state.f_frsize, state.f_ffree
        if self._known is not None:
            age = monotonic() - self._scanned_at
            bytes_bound = self._known.bytes + max(0, self._free_bytes - free_bytes)
            files_bound = self._known.files + max(0, self._free_files - free_files)
            if bytes_bound <= self._ceiling.bytes and files_bound <= self._ceiling.files and age < RESCAN_S:
                return False
            if age < 5 * self._scan_s:  # Never more than a sixth of a core.
                return False
        started = monotonic()
        self._free_bytes, self._free_files = free_bytes, free_files
        self._known = measure(self._roots)
        self._scanned_at = monotonic()
        self._scan_s = self._scanned_at - started
        known, ceiling = self._known, self._ceiling
        return known.hidden or known.bytes > ceiling.bytes or known.files > ceiling.files
