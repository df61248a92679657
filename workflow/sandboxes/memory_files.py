"""A file tree in memory with the errors of a real one: folders, files, symlinks that stay inside."""

import copy
import posixpath
from dataclasses import dataclass
from time import time_ns
from typing import Literal, Self

from workflow.core.errors import ToolError
from workflow.sandboxes.base import FileStat
from workflow.sandboxes.paths import is_below, missing, outside, relative

MAX_LINKS = 40
"""As many symlinks as Linux follows in one path (path_resolution(7))."""


@dataclass(slots=True)
class _Node:
    kind: Literal["file", "dir", "symlink"]
    mode: int
    mtime_ns: int
    content: bytes = b""
    target: str = ""


class MemoryFiles:
    """Paths as the Sandbox protocol takes them; contents as bytes."""

    def __init__(self) -> None:
        self._clock = 0
        self._nodes: dict[str, _Node] = {".": _Node("dir", 0o755, self._now())}

    def copy(self) -> Self:
        """An independent tree with the same content."""
        return copy.deepcopy(self)

    def contents(self) -> dict[str, tuple[str, int, bytes, str]]:
        """Path → what counts as a change: kind, mode, bytes, and where a link points to."""
        return {
            path: (node.kind, node.mode, node.content, node.target) for path, node in self._nodes.items() if path != "."
        }

    @property
    def total_bytes(self) -> int:
        return sum(len(node.content) for node in self._nodes.values())

    def resolve(self, path: str, *, last: bool = True) -> str:
        """The path behind all symlinks; with `last` False, the last part itself is not followed.

        Raises: ToolError `outside_workspace` when a symlink leads out, `bad_path` when links form a loop.
        """
        rest = relative(path).split("/")
        done, links = ".", 0
        while rest:
            part = rest.pop(0)
            here = posixpath.normpath(posixpath.join(done, part))
            if here == ".." or here.startswith("../"):
                raise outside(path)
            node = self._nodes.get(here)
            if node is None or node.kind != "symlink" or (not rest and not last):
                done = here
                continue
            links += 1
            if links > MAX_LINKS:
                raise ToolError(f"{path} is a loop of links", kind="bad_path", path=path)
            if node.target.startswith("/"):
                done, target = ".", relative(node.target)
            else:
                target = node.target
            rest = target.split("/") + rest
        return done

    def read(self, path: str) -> bytes:
        node = self._nodes.get(self.resolve(path))
        if node is None:
            raise missing(path)
        if node.kind == "dir":
            raise ToolError(f"{path} is a folder", kind="is_directory", path=path)
        return node.content

    def write(self, path: str, content: bytes, *, mode: int | None = None) -> None:
        place = self.resolve(path)
        old = self._nodes.get(place)
        if old is not None and old.kind == "dir":
            raise ToolError(f"{path} is a folder", kind="is_directory", path=path)
        self.make_dir(posixpath.dirname(place) or ".")
        kept = old.mode if old is not None else 0o644
        self._nodes[place] = _Node("file", kept if mode is None else mode, self._now(), content)

    def link(self, path: str, target: str) -> None:
        """Makes a symlink at `path`; where it points to is checked when it is followed."""
        place = self.resolve(path, last=False)
        self.make_dir(posixpath.dirname(place) or ".")
        self._nodes[place] = _Node("symlink", 0o777, self._now(), target=target)

    def target(self, path: str) -> str:
        """Where the symlink at `path` points to, as it was written."""
        return self._nodes[relative(path)].target

    def make_dir(self, path: str) -> None:
        place = self.resolve(path)
        while place not in (".", ""):
            node = self._nodes.setdefault(place, _Node("dir", 0o755, self._now()))
            if node.kind != "dir":
                raise ToolError(f"{place} is not a folder", kind="not_a_directory", path=place)
            place = posixpath.dirname(place)

    def stat(self, path: str) -> FileStat | None:
        place = self.resolve(path, last=False)
        node = self._nodes.get(place)
        return None if node is None else self._stat(place, node)

    def list(self, path: str = ".", *, depth: int = 1, limit: int = 10_000) -> list[FileStat]:
        root = self.resolve(path)
        node = self._nodes.get(root)
        if node is None:
            raise missing(path)
        if node.kind != "dir":
            raise ToolError(f"{path} is not a folder", kind="not_a_directory", path=path)
        base = 0 if root == "." else root.count("/") + 1
        found = [
            self._stat(place, node)
            for place, node in self._nodes.items()
            if place != root and is_below(place, root) and place.count("/") + 1 - base <= depth
        ]
        return sorted(found, key=lambda stat: stat.path)[:limit]

    def move(self, source: str, target: str) -> None:
        old, new = self.resolve(source, last=False), self.resolve(target, last=False)
        if old not in self._nodes:
            raise missing(source)
        if old == new:
            return
        if is_below(new, old):
            raise ToolError(f"{source} cannot be moved into itself", kind="bad_path", path=target)
        there = self._nodes.get(new)
        if there is not None and there.kind == "dir":
            raise ToolError(f"{target} is a folder", kind="is_directory", path=target)
        self.make_dir(posixpath.dirname(new) or ".")
        for place in [place for place in self._nodes if is_below(place, old)]:
            self._nodes[new + place.removeprefix(old)] = self._nodes.pop(place)

    def remove(self, path: str) -> None:
        root = self.resolve(path, last=False)
        if root == ".":
            raise ToolError("the workspace itself cannot be removed", kind="bad_path", path=path)
        for place in [place for place in self._nodes if is_below(place, root)]:
            del self._nodes[place]

    def _stat(self, place: str, node: _Node) -> FileStat:
        size = len(node.target) if node.kind == "symlink" else len(node.content)
        return FileStat(path=place, kind=node.kind, size=size, mode=node.mode, mtime_ns=node.mtime_ns)

    def _now(self) -> int:
        """A time later than any handed out before, so that every write is seen as a change."""
        self._clock = max(self._clock + 1, time_ns())
        return self._clock
