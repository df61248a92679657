"""Deleting a tree that a hostile command has built: any depth, closed folders, symlinks never followed."""

import contextlib
import os
import secrets
import stat as modes


def remove_tree(parent: int, name: str) -> None:
    """Removes `name` in the folder `parent`, with everything below; nothing there is no error.

    Folders are moved up next to each other and emptied one by one: a tree may be deeper than the number of
    descriptors, the longest path and Python's stack allow.
    """
    try:
        is_folder = modes.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return
    if not is_folder:
        os.unlink(name, dir_fd=parent)
        return
    top = _open(parent, name)
    try:
        waiting = _empty(top, into=top)
        while waiting:
            folder = waiting.pop()
            fd = _open(top, folder)
            try:
                waiting += _empty(fd, into=top)
            finally:
                os.close(fd)
            os.rmdir(folder, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)


def _open(parent: int, name: str) -> int:
    """The folder, opened for changes even if its owner closed it to himself."""
    fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        path = f"/proc/self/fd/{fd}"  # fchmod refuses O_PATH, and a closed folder cannot be opened otherwise
        os.chmod(path, 0o700)  # noqa: PTH101  (a Path would say the same)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(fd)


def _empty(folder: int, *, into: int) -> list[str]:
    """Unlinks the files of `folder`; its folders are moved to `into`, whose names for them come back."""
    moved = []
    with os.scandir(folder) as entries:
        for entry in list(entries):
            with contextlib.suppress(FileNotFoundError):  # Somebody else was faster; the others are still ours to do.
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=folder)
                    continue
                name = f".dialtone-{secrets.token_hex(8)}"
                # A folder that changes its parent must itself be writable, for its "..".
                os.close(_open(folder, entry.name))
                os.rename(entry.name, name, src_dir_fd=folder, dst_dir_fd=into)
                moved.append(name)
    return moved
