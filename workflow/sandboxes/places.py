"""The folders of each thread under the data folder, and the user they belong to."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from workflow.core.errors import ConfigError, SandboxError
from workflow.core.ids import THREAD_ID, ThreadId
from workflow.sandboxes import lock
from workflow.sandboxes.durable import sync_disk, sync_folder
from workflow.sandboxes.packing import UNFINISHED, take_out
from workflow.sandboxes.removal import remove_tree
from workflow.sandboxes.snapshots import alone
from workflow.sandboxes.tiers import Place
from workflow.sandboxes.tree import Tree
from workflow.sandboxes.uids import new_uid

ARCHIVE = "workspace.tar.gz"
USED = "used"
"""A file whose time of change says when the thread was last opened."""


class Places:
    """`<data_dir>/workspaces/<thread_id>/` holds a thread's files, `<data_dir>/sandboxes/<thread_id>/` all else.

    Blocking; call it from a thread.
    """

    def __init__(self, data_dir: Path, *, own_uids: bool) -> None:
        """Raises: ConfigError if nothing can be made in the data folder."""
        self.workspaces = data_dir.resolve() / "workspaces"
        self.sandboxes = data_dir.resolve() / "sandboxes"
        self.tidying = data_dir.resolve() / "tidying"
        """Locked by the worker that puts workspaces away."""
        self._own_uids = own_uids
        try:
            for folder in (self.workspaces, self.sandboxes):
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o711)
        except OSError as error:
            raise ConfigError(f"data_dir: its folders cannot be made: {error}") from error

    def make(self, thread_id: ThreadId) -> Place:
        """The thread's folders, made or taken out of their archive when needed. Raises: SandboxError."""
        try:
            with self.held(thread_id):
                return self._make(thread_id)
        except OSError as error:
            raise SandboxError(f"the thread's folders cannot be made: {error}") from error

    def remove(self, thread_id: ThreadId) -> None:
        """Deletes the thread's folders for good; a sandbox that another worker has there is killed.

        Whoever works with its snapshots finishes first: what he writes would stay.
        """
        workspace, state = self.folders(thread_id)
        if state.exists():
            os.close(lock.take(state / "lock"))
        for is_last in (False, False, True):
            with contextlib.ExitStack() as stack:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # there are none
                    stack.enter_context(alone(state / "snapshots"))
                try:
                    delete(workspace)
                    delete(state)
                except OSError as error:  # Somebody began anew in between.
                    if is_last or error.errno != errno.ENOTEMPTY:
                        raise
                else:
                    return

    def threads(self) -> list[ThreadId]:
        """All that have folders."""
        return [ThreadId(folder.name) for folder in self.sandboxes.iterdir() if folder.is_dir()]

    def archive_bytes(self, thread_id: ThreadId) -> int:
        """What the thread's archive takes; 0 if it is not put away."""
        try:
            return (self.folders(thread_id)[1] / ARCHIVE).stat().st_size
        except FileNotFoundError:
            return 0

    def folders(self, thread_id: ThreadId) -> tuple[Path, Path]:
        """The workspace and the state. Raises: SandboxError."""
        if THREAD_ID.fullmatch(thread_id) is None:
            raise SandboxError("not a thread id", thread_id=thread_id)
        return self.workspaces / thread_id, self.sandboxes / thread_id

    @contextlib.contextmanager
    def held(self, thread_id: ThreadId) -> Iterator[None]:
        """While this lasts, no other worker makes the thread's folders or puts them away."""
        _, state = self.folders(thread_id)
        state.mkdir(mode=0o711, exist_ok=True)
        with (state / "held").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _make(self, thread_id: ThreadId) -> Place:
        workspace, state = self.folders(thread_id)
        (state / USED).touch()
        if workspace.is_dir():
            uid = workspace.stat().st_uid
        else:
            uid = new_uid() if self._own_uids else os.geteuid()
        archive = state / ARCHIVE
        if archive.exists():  # What lies beside it was left by a worker that died while it packed or unpacked.
            delete(workspace)
        archive.with_name(f"{ARCHIVE}{UNFINISHED}").unlink(missing_ok=True)
        for folder in (workspace, state / "home", state / "tmp"):
            folder.mkdir(mode=0o700, exist_ok=True)
            if self._own_uids:
                os.chown(folder, uid, uid)
        if archive.exists():
            tree = Tree(workspace, owner=uid)
            try:
                take_out(tree, archive)
            except SandboxError:
                delete(workspace)  # The archive has it all; half of it would only keep a full disk full.
                raise
            finally:
                os.close(tree.root_fd)
            sync_disk(workspace)
            archive.unlink()
            sync_folder(state)  # An archive that came back with the power would replace what is done from now on.
        return Place(workspace, state, uid)


def delete(folder: Path) -> None:
    """Removes a folder with all that hostile commands may have put there. Raises: OSError."""
    parent = os.open(folder.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(parent, folder.name)
    finally:
        os.close(parent)
