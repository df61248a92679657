"""Stores a workspace as it is now, content by content; what did not change since last time is not read again."""

import contextlib
import os
import stat as modes
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import time_ns

from workflow.core.errors import ToolError
from workflow.sandboxes.objects import Entry, Objects, encode
from workflow.sandboxes.tree import Tree

Mark = tuple[int, int, int, int]
"""inode, size, mtime_ns, ctime_ns: a file that still has these was not written to (ctime cannot be set)."""
Seen = dict[str, tuple[Mark, str]]
"""Path → mark and content."""
Found = tuple[str, os.stat_result]
FRESH_NS = 100_000_000
"""A file may be written to once more without new times for as long as the kernel's clock stands still: up to 10 ms
(CONFIG_HZ=100), unless kernel (from 6.13) and file system have finer ones. What is younger is read again next time."""


def store(tree: Tree, objects: Objects, seen: Seen, now: Seen, *, max_bytes: int) -> str:
    """The hash of the root folder; `now` gets what `seen` was last time. Blocking.

    What has vanished meanwhile is left out. Folders and files that their owner closed to himself are open for a moment.
    max_bytes: of all names together, as their sizes say: holes and hard links take nothing here, and all of it where
    they are restored. Raises: ToolError `too_large`, OSError.
    """
    return _Storing(tree, objects, seen, now, max_bytes).run()


@dataclass(slots=True)
class _Folder:
    """One that is being stored."""

    path: str
    mode: int
    waiting: Iterator[Found]
    entries: list[Entry] = field(default_factory=list)


@dataclass(slots=True)
class _Storing:
    tree: Tree
    objects: Objects
    seen: Seen
    now: Seen
    left: int
    """Bytes that may still come."""
    linked: dict[Mark, tuple[Mark, str]] = field(default_factory=dict)
    """Files with several names are read once."""

    def run(self) -> str:
        # A list of our own: a tree may be deeper than Python's stack allows.
        above: list[_Folder] = [self._enter(".", 0o700)]
        try:
            while True:
                folder = above[-1]
                below = next(filter(None, (self._add(folder, *found) for found in folder.waiting)), None)
                if below is not None:
                    above.append(below)
                    continue
                content = self.objects.put(encode(folder.entries))
                self._leave(above.pop())
                if not above:
                    return content
                above[-1].entries.append(Entry(_name(folder.path), "dir", folder.mode & 0o777, 0, content))
        finally:
            for folder in reversed(above):
                self._leave(folder)

    def _enter(self, path: str, mode: int) -> _Folder:
        if mode & 0o700 != 0o700:
            with contextlib.suppress(ToolError):
                self.tree.set_mode(path, mode | 0o700)
        try:
            return _Folder(path, mode, iter(self.tree.scan(path)))
        except OSError:  # It is gone by now, or so deep that no path leads there.
            return _Folder(path, mode, iter(()))

    def _leave(self, folder: _Folder) -> None:
        if folder.mode & 0o700 != 0o700:
            with contextlib.suppress(ToolError):
                self.tree.set_mode(folder.path, folder.mode)

    def _add(self, folder: _Folder, path: str, found: os.stat_result) -> _Folder | None:
        """Stores what is no folder; a folder comes back, to be gone through first."""
        name, mode = _name(path), found.st_mode & 0o777
        if modes.S_ISDIR(found.st_mode):
            return self._enter(path, modes.S_IMODE(found.st_mode))
        if modes.S_ISLNK(found.st_mode):
            with contextlib.suppress(ToolError):
                folder.entries.append(Entry(name, "symlink", 0o777, 0, self.tree.target(path)))
        elif modes.S_ISREG(found.st_mode):
            self.left -= found.st_size
            if self.left < 0:
                raise ToolError(
                    "the files together are too large to be remembered; holes and further names of a file count",
                    kind="too_large",
                )
            with contextlib.suppress(ToolError):
                mark, content = self.now[path] = self._file(path, found)
                folder.entries.append(Entry(name, "file", mode, mark[1], content))
        return None

    def _file(self, path: str, found: os.stat_result) -> tuple[Mark, str]:
        mark = _mark(found)
        known = self.seen.get(path)
        if known is None or known[0] != mark:
            known = self.linked.get(mark)
        if known is None:
            is_closed = not found.st_mode & 0o400
            if is_closed:
                self.tree.set_mode(path, found.st_mode | 0o400)
            try:
                known = self._read(path)
            finally:
                if is_closed:
                    self.tree.set_mode(path, found.st_mode)
        if found.st_nlink > 1:
            self.linked[mark] = known
        return known

    def _read(self, path: str) -> tuple[Mark, str]:
        with self.tree.opened(path) as fd:
            found, now_ns = os.fstat(fd), time_ns()
            content, size = self.objects.put_file(fd)
            # One that was written to meanwhile, too.
            is_settled = found.st_ctime_ns < now_ns - FRESH_NS and _mark(os.fstat(fd)) == _mark(found)
            return (_mark(found) if is_settled else (0, size, 0, 0)), content


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _mark(found: os.stat_result) -> Mark:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
