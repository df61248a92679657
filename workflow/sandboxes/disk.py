"""How much a workspace takes on disk, measured as seldom as its limit allows.

A scan is only needed when the whole file system has filled up by what the workspace still may take; statvfs says
that in microseconds. A folder whose path is too long to be opened counts as over any limit.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic

from workflow.sandboxes.beneath import open_beneath

RESCAN_S, RESCAN_SHARE = 30.0, 100
"""Other programs free space meanwhile, which hides growth from statvfs: so a scan is repeated after this time, or
after that many times its own duration, when that is less: then it costs a hundredth of a core."""
QUICK_S = 0.0005
"""A scan that takes less needs no thread."""
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

    unseen: bool = False
    """There is some more that cannot be looked at, of any size."""

    def __add__(self, other: "Amount") -> "Amount":
        hidden, unseen = self.hidden or other.hidden, self.unseen or other.unseen
        return Amount(self.bytes + other.bytes, self.files + other.files, hidden, unseen)


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
            with _closing(fd), os.scandir(fd) as entries:
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
    return Amount(total, files, hidden)


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(fd)


class DiskMeter:
    """Tells whether the folders have outgrown their limits."""

    def __init__(
        self, roots: Sequence[int], *, max_bytes: int, max_files: int, held: Callable[[], Amount] = Amount
    ) -> None:
        """held: what is deleted from the folders but still open, which takes as much room. Blocking."""
        self._roots = tuple(roots)
        self._held = held
        self._max = Amount(max_bytes, max_files)
        self._ceiling = self._max
        self._known: Amount | None = None
        self._unseen_bytes = 0
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

    def may_be_over(self, *, share: int = RESCAN_SHARE) -> bool:
        """False when the file system has not filled up enough; costs microseconds and never blocks.

        share: a scan may take one part in so many of the time, e.g. less of it where somebody waits for it.
        """
        if self._known is None:
            return True
        free_bytes, free_files = self._free()
        grown = Amount(max(0, self._free_bytes - free_bytes), max(0, self._free_files - free_files))
        age = monotonic() - self._scanned_at
        if age < 5 * self._scan_s:  # Never more than a sixth of a core.
            return False
        if age > min(RESCAN_S, share * self._scan_s):
            return True
        too_much = self._known.bytes + grown.bytes > self._ceiling.bytes
        return too_much or self._known.files + grown.files > self._ceiling.files

    @property
    def is_quick(self) -> bool:
        """Whether the next scan is short, as far as the last one and the files made on the disk since then tell."""
        made = self._free_files - self._free()[1]
        return 0 < self._scan_s < QUICK_S and self._free_files > 0 and made < SLACK_FILES

    def is_over(self) -> bool:
        """Scans, and tells whether the limit is passed. Blocking."""
        started = monotonic()
        before, free_before = self._known, self._free_bytes
        self._free_bytes, self._free_files = self._free()
        # In this order: what is deleted meanwhile is missed this time, not counted twice.
        known = self._held() + measure(self._roots)
        if known.unseen and before is not None:
            # Then it gets the blame for all that the file system has filled up by and that is seen nowhere.
            grown = known.bytes - before.bytes + self._unseen_bytes
            self._unseen_bytes = max(0, self._unseen_bytes + free_before - self._free_bytes - grown)
        else:
            self._unseen_bytes = 0
        self._known = known + Amount(self._unseen_bytes)
        self._scanned_at = monotonic()
        self._scan_s = self._scanned_at - started
        return self._passes(self._ceiling)

    @property
    def is_full(self) -> bool:
        """Whether the last scan found the limit itself passed, whatever was let stay."""
        return self._known is not None and self._passes(self._max)

    def _passes(self, limit: Amount) -> bool:
        known = self._known or Amount()
        return known.hidden or known.bytes > limit.bytes or known.files > limit.files

    def _free(self) -> tuple[int, int]:
        state = os.statvfs(self._roots[0])
        return state.f_bfree * state.f_frsize, state.f_ffree
