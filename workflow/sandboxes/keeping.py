"""Which workspaces stay as they are, which are put away, and which go when the disk budget is used up."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import time

from workflow.core.config import SandboxSettings
from workflow.core.errors import SandboxError, Unavailable
from workflow.core.ids import ThreadId
from workflow.sandboxes import lock
from workflow.sandboxes.disk import measure
from workflow.sandboxes.durable import sync_folder
from workflow.sandboxes.packing import put_away
from workflow.sandboxes.places import ARCHIVE, USED, Places, delete
from workflow.sandboxes.tree import Tree

log = logging.getLogger(__name__)

DAY_S = 86_400.0
LARGEST = 4
"""A workspace whose files look this many times larger than they may be stays as it is: holes count when packed."""
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
        self._is_stopped = False

    def stop(self) -> None:
        """Lets a `tidy` that is under way in a thread begin with no further workspace."""
        self._is_stopped = True

    def threads(self) -> list[ThreadId]:
        """All that have folders, least recently used first."""
        return sorted(self._places.threads(), key=lambda thread_id: (self._used_at(thread_id), thread_id))

    def touch(self, thread_ids: Iterable[ThreadId]) -> None:
        """Tells other workers that these are still worked with, even while nothing runs in them."""
        for thread_id in thread_ids:
            with contextlib.suppress(FileNotFoundError):  # deleted by now
                os.utime(self._places.sandboxes / thread_id / USED)

    def tidy(self, *, is_busy: Callable[[ThreadId], bool] = lambda thread_id: False) -> Tidied:
        """Puts away what was unused for long, then, least recently used first, what the budget cannot hold.

        What is put away already and still too much is deleted. Nothing that is in use is touched.
        is_busy: whether the thread's run has not ended, though no worker may hold it now. It raises Unavailable when
        that cannot be known; then all others stay as they are.
        """
        mine = lock.take_free(self._places.tidying)
        if mine is None:  # Another worker is at it; what it makes room for must not be counted by two.
            return Tidied()
        archived: list[ThreadId] = []
        deleted: list[ThreadId] = []
        try:
            self._tidy(is_busy, archived, deleted)
        except Unavailable as error:
            log.warning("workspaces are left as they are: %s", error)
        finally:
            os.close(mine)
        return Tidied(tuple(archived), tuple(deleted))

    def _tidy(self, is_busy: Callable[[ThreadId], bool], archived: list[ThreadId], deleted: list[ThreadId]) -> None:
        threads = self.threads()
        for thread_id in threads:
            unused_s = self._settings.archive_after_days * DAY_S
            if self._try(self._archive, thread_id, is_busy, unused_s=unused_s):
                archived.append(thread_id)
        sizes = {thread_id: self._bytes(thread_id) for thread_id in self._places.threads()}
        for step, done in ((self._archive, archived), (self._delete, deleted)):
            for thread_id in threads:
                too_much = sum(sizes.values()) > self._settings.workspaces_bytes
                if too_much and self._try(step, thread_id, is_busy, unused_s=SAFE_S):
                    done.append(thread_id)
                    sizes[thread_id] = self._bytes(thread_id)

    def _try(
        self,
        step: Callable[[ThreadId], bool],
        thread_id: ThreadId,
        is_busy: Callable[[ThreadId], bool],
        *,
        unused_s: float,
    ) -> bool:
        """What `step` says; False if it failed, which must not keep all other workspaces from their turn.

        Raises: Unavailable.
        """
        _, state = self._places.folders(thread_id)
        if self._is_stopped or not state.is_dir() or not self._is_unused(thread_id, unused_s):
            return False
        try:
            with self._places.held(thread_id):  # Whoever comes now waits.
                is_free = self._is_unused(thread_id, unused_s) and not self._in_use(thread_id)
                return is_free and not lock.is_used(state / "lock") and not is_busy(thread_id) and step(thread_id)
        except (SandboxError, OSError) as error:
            log.warning("a workspace is left as it is: %s", error, extra={"thread_id": thread_id})
            return False

    def _archive(self, thread_id: ThreadId) -> bool:
        """Puts a workspace away; False if it is put away already. Caches in its home folder are dropped."""
        workspace, state = self._places.folders(thread_id)
        if not workspace.is_dir():
            return False
        if not (state / ARCHIVE).exists():  # Else the workspace is what a worker that died has left of it.
            workspace.chmod(0o700)  # so that an ordinary user can read his own
            tree = Tree(workspace, owner=workspace.stat().st_uid)
            try:
                put_away(tree, state / ARCHIVE, max_bytes=LARGEST * self._settings.disk_bytes)
            finally:
                os.close(tree.root_fd)
        sync_folder(state)  # What was packed by a worker that died, too: else a power loss could take both.
        for folder in (state / "home", state / "tmp", workspace):  # The last one says that it is done.
            delete(folder)
        return True

    def _delete(self, thread_id: ThreadId) -> bool:
        for folder in self._places.folders(thread_id):
            delete(folder)
        return True

    def _is_unused(self, thread_id: ThreadId, unused_s: float) -> bool:
        return time() - self._used_at(thread_id) > unused_s

    def _used_at(self, thread_id: ThreadId) -> float:
        try:
            return (self._places.sandboxes / thread_id / USED).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _bytes(self, thread_id: ThreadId) -> int:
        total = 0
        for folder in self._places.folders(thread_id):
            with contextlib.suppress(FileNotFoundError):  # put away, or deleted by now
                fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    total += measure((fd,)).bytes
                finally:
                    os.close(fd)
        return total
