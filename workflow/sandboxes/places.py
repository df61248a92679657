"""The folders of each thread under the data folder, and the user they belong to."""

import contextlib
import os
from pathlib import Path

from workflow.core.errors import SandboxError
from workflow.core.ids import THREAD_ID, ThreadId
from workflow.sandboxes.removal import remove_tree
from workflow.sandboxes.tiers import Place
from workflow.sandboxes.uids import next_uid


class Places:
    """`<data_dir>/workspaces/<thread_id>/` holds a thread's files, `<data_dir>/sandboxes/<thread_id>/` all else.

    Blocking; call it from a thread.
    """

    def __init__(self, data_dir: Path, *, own_uids: bool) -> None:
        self.workspaces = data_dir.resolve() / "workspaces"
        self.sandboxes = data_dir.resolve() / "sandboxes"
        self._own_uids = own_uids
        for folder in (self.workspaces, self.sandboxes):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o711)

    def make(self, thread_id: ThreadId) -> Place:
        """The thread's folders, made when it has none. Raises: SandboxError."""
        workspace, state = self._folders(thread_id)
        state.mkdir(mode=0o711, exist_ok=True)
        if workspace.is_dir():
            uid = workspace.stat().st_uid
        else:
            uid = next_uid(self.sandboxes / "uids") if self._own_uids else os.geteuid()
        for folder in (workspace, state / "home", state / "tmp"):
            folder.mkdir(mode=0o700, exist_ok=True)
            if self._own_uids:
                os.chown(folder, uid, uid)
        return Place(workspace, state, uid)

    def remove(self, thread_id: ThreadId) -> None:
        """Deletes the thread's folders for good."""
        for folder in self._folders(thread_id):
            parent = os.open(folder.parent, os.O_PATH | os.O_DIRECTORY)
            try:
                with contextlib.suppress(FileNotFoundError):
                    remove_tree(parent, folder.name)
            finally:
                os.close(parent)

    def _folders(self, thread_id: ThreadId) -> tuple[Path, Path]:
        if THREAD_ID.fullmatch(thread_id) is None:
            raise SandboxError("not a thread id", thread_id=thread_id)
        return self.workspaces / thread_id, self.sandboxes / thread_id
