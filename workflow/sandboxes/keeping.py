"""Which workspaces stay as they are, which are put away, and which go when the disk budget is used up."""

import contextlib
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from time import time

from workflow.core.config import SandboxSettings
from workflow.core.ids import ThreadId
from workflow.sandboxes import lock
from workflow.sandboxes.disk import measure
from workflow.sandboxes.packing import put_away
from workflow.sandboxes.places import ARCHIVE, USED, Places, delete
from workflow.sandboxes.tree import Tree

DAY_S = 86_400.0
SAFE_S = 3600.0
"""A workspace that was opened within the last hour is never touched, whatever the budget says."""


@dataclass(frozen=True, slots=True)
class Tidied:
    """What `Keeper.tidy` did."""

    archived: tuple[ThreadId, ...] = ()
    deleted: tuple[ThreadId, ...] = ()


class Keeper:
    """Looks after all workspaces under one data folder. Blocking; call it from a thread."""

    def __init__(self, places: Places, settings: SandboxSettings, *, in_use: Callable[[ThreadId], bool]) -> None:
        """in_use: whether this worker still works with a thread; other workers are seen by their locks."""
        self._places = places
        self._settings = settings
        self._in_use = in_use

    def threads(self) -> list[ThreadId]:
        """All that have folders, least recently used first."""
        return sorted(self._places.threads(), key=lambda thread_id: (self._used_at(thread_id), thread_id))

    def touch(self, thread_ids: Iterable[ThreadId]) -> None:
        """Tells other workers that these are still worked with, even while nothing runs in them."""
        for thread_id in thread_ids:
            with contextlib.suppress(FileNotFoundError):  # deleted by now
                os.utime(self._places.sandboxes / thread_id / USED)

    def tidy(self, *, busy: Collection[ThreadId] = ()) -> Tidied:
        """Puts away what was unused for long, then, least recently used first, what the budget cannot hold.

        What is put away already and still too much is deleted. Nothing that is in use is touched, and nothing of
        `busy`: threads whose run has not ended, though no worker may hold it now.
        """
        archived, deleted = [], []
        threads = [thread_id for thread_id in self.threads() if thread_id not in busy]
        for thread_id in threads:
            if self._archive(thread_id, unused_s=self._settings.archive_after_days * DAY_S):
                archived.append(thread_id)
        sizes = {thread_id: self._bytes(thread_id) for thread_id in self._places.threads()}
        for thread_id in threads:
            if sum(sizes.values()) > self._settings.workspaces_bytes and self._archive(thread_id, unused_s=SAFE_S):
                archived.append(thread_id)
                sizes[thread_id] = self._bytes(thread_id)
        for thread_id in threads:
            if sum(sizes.values()) > self._settings.workspaces_bytes and self._delete(thread_id, unused_s=SAFE_S):
                deleted.append(thread_id)
                sizes[thread_id] = 0
        return Tidied(tuple(archived), tuple(deleted))

    def _archive(self, thread_id: ThreadId, *, unused_s: float) -> bool:
        """Puts a workspace away; False if it is in use or put away already. Caches in its home folder are dropped."""
        workspace, state = self._places.folders(thread_id)
        with self._places.held(thread_id):
            if not workspace.is_dir() or not self._claim(thread_id, unused_s):
                return False
            tree = Tree(workspace, owner=workspace.stat().st_uid)
            try:
                put_away(tree, state / ARCHIVE)
            finally:
                os.close(tree.root_fd)
            for folder in (workspace, state / "home", state / "tmp"):
                delete(folder)
            return True

    def _delete(self, thread_id: ThreadId, *, unused_s: float) -> bool:
        workspace, state = self._places.folders(thread_id)
        with self._places.held(thread_id):
            if not self._claim(thread_id, unused_s):
                return False
            delete(workspace)
            delete(state)
            return True

    def _claim(self, thread_id: ThreadId, unused_s: float) -> bool:
        """True if nobody uses the thread, or did within `unused_s`. Whoever comes now waits for `held`."""
        _, state = self._places.folders(thread_id)
        unused = time() - self._used_at(thread_id) > unused_s
        return unused and not self._in_use(thread_id) and not lock.is_used(state / "lock")

    def _used_at(self, thread_id: ThreadId) -> float:
        try:
            return (self._places.sandboxes / thread_id / USED).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _bytes(self, thread_id: ThreadId) -> int:
        total = 0
        for folder in self._places.folders(thread_id):
            if folder.is_dir():
                fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    total += measure((fd,)).bytes
                finally:
                    os.close(fd)
        return total
