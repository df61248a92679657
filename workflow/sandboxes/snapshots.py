"""Snapshots of a workspace: what it held at a moment, as one hash; cheap because unchanged files are not read again.

`<folder>/objects` holds contents, `<folder>/list.json` the snapshots, `<folder>/seen` which file (by inode, size and
times) had which content, so that the next snapshot of 10,000 files is 10,000 `stat` calls. Blocking.
"""

import contextlib
import errno
import fcntl
import json
import marshal
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from workflow.core.errors import ToolError
from workflow.sandboxes.base import FLEETING, FileDifference, FileStat
from workflow.sandboxes.objects import Entry, Objects, replace_file
from workflow.sandboxes.storing import Seen, store
from workflow.sandboxes.tree import MAX_READ, Tree

KEPT = 500
"""Snapshots of one workspace; the oldest go first."""
KEPT_FLEETING = 4
OPEN_FOLDERS = 64
"""Stored folders that stay decoded from one read to the next: those on the way to a file, in two snapshots."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One remembered state."""

    id: str
    label: str
    made_at: str
    """ISO 8601, UTC."""
    root: str
    """The hash of the root folder."""


@dataclass(frozen=True, slots=True)
class Change:
    """A file, symlink or folder that differs between two snapshots."""

    path: str
    kind: Literal["added", "removed", "modified"]
    old: Entry | None
    new: Entry | None

    @property
    def difference(self) -> FileDifference:
        """The same as the protocol tells it."""
        old, new = (None if entry is None else stat_of(self.path, entry) for entry in (self.old, self.new))
        return FileDifference(self.path, old, new)


class Snapshots:
    """The snapshots of one workspace; several worker processes may have them open."""

    def __init__(self, folder: Path, tree: Tree, *, max_bytes: int) -> None:
        """max_bytes: what all snapshots together may take; the oldest make room, the newest always stays."""
        self._folder = folder
        self._tree = tree
        self._max_bytes = max_bytes
        self._lock = threading.RLock()
        self._depth = 0
        self._opened: Objects | None = None
        self._decoded: dict[str, dict[str, Entry]] = {}

    @property
    def _objects(self) -> Objects:
        if self._opened is None:
            self._opened = Objects(self._folder / "objects")
        return self._opened

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Keeps other threads and processes out; what they stored before is known inside."""
        with self._lock, contextlib.ExitStack() as stack:
            if self._depth == 0:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                stack.enter_context(alone(self._folder))
                self._objects.refresh()
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1

    def take(self, label: str) -> Snapshot:
        """Remembers the workspace as it is now; the newest snapshot when nothing has changed since.

        A file that changes meanwhile is stored as one of its states.
        """
        with self._held():
            self._decoded.clear()  # Whoever goes on working reads no more of what was.
            seen = self._load_seen()
            now: Seen = {}
            root = store(self._tree, self._objects, seen, now, max_bytes=self._max_bytes)
            self._objects.flush()
            if now != seen:
                replace_file(self._folder / "seen", marshal.dumps(now), sync=False)  # Half of one counts as none.
            known = self.all()
            lasting = [earlier for earlier in known if earlier.label != FLEETING]
            newest = next(reversed(known if label == FLEETING else lasting), None)
            if newest is not None and newest.root == root:
                return newest
            fleeting = [earlier for earlier in known if earlier.label == FLEETING][-KEPT_FLEETING:]
            known = [earlier for earlier in known if earlier in lasting or earlier in fleeting]
            snapshot = Snapshot(secrets.token_hex(8), label, datetime.now(UTC).isoformat(timespec="milliseconds"), root)
            self._save([*known, snapshot][-KEPT:])
            while self._objects.total_bytes > self._max_bytes and len(kept := self.all()) > 1:
                self._save(kept[(len(kept) + 1) // 2 :])
                self._objects.sweep(self._used())
            return snapshot

    def all(self) -> list[Snapshot]:
        """Oldest first."""
        try:
            rows = json.loads((self._folder / "list.json").read_bytes())
        except FileNotFoundError:
            return []
        return [Snapshot(**row) for row in rows]

    def get(self, snapshot_id: str) -> Snapshot:
        """Raises: ToolError `no_such_snapshot`."""
        for snapshot in self.all():
            if snapshot.id == snapshot_id:
                return snapshot
        raise ToolError(f"no snapshot {snapshot_id}", kind="no_such_snapshot")

    def read(self, snapshot_id: str, path: str) -> bytes:
        """A file as it was. Raises: ToolError `no_such_snapshot`, `file_missing`, `not_regular`, `too_large`."""
        with self._held():
            entry = self._entry(snapshot_id, path)
            if entry.kind == "dir":
                raise ToolError(f"{path} was a folder", kind="is_directory", path=path)
            if entry.kind != "file":
                raise ToolError(f"{path} was not a file", kind="not_regular", path=path)
            if entry.size > MAX_READ:
                raise ToolError(f"{path} had {entry.size} bytes, too many to read", kind="too_large", path=path)
            return self._objects.get(entry.content)

    def entries(self, snapshot_id: str, path: str, *, depth: int, limit: int) -> list[FileStat]:
        """What was below a folder, sorted by path. Raises: ToolError as `read`, `not_a_directory`."""
        with self._held():
            entry = self._entry(snapshot_id, path)
            if entry.kind != "dir":
                raise ToolError(f"{path} was not a folder", kind="not_a_directory", path=path)
            found: list[FileStat] = []
            folders = [(entry.content, "" if path == "." else f"{path}/", 1)]
            for folder, prefix, level in folders:
                for below in self._objects.folder(folder).values():
                    found.append(stat_of(prefix + below.name, below))
                    if below.kind == "dir" and level < depth:
                        folders.append((below.content, f"{prefix}{below.name}/", level + 1))
                if len(found) >= limit:
                    break
            return sorted(found, key=lambda stat: stat.path)[:limit]

    def diff(self, old_id: str, new_id: str) -> list[Change]:
        """What differs, sorted by path; equal folders are not even opened."""
        with self._held():
            changes = self._differences(self.get(old_id).root, self.get(new_id).root)
            return sorted(changes, key=lambda change: change.path)

    def restore(self, snapshot_id: str) -> list[Change]:
        """Makes the workspace what it was, touching only what differs; gives what was changed.

        The state before is taken as a snapshot first, so that a restore can be undone.
        """
        with self._held():
            wanted = self.get(snapshot_id)
            before = self.take(f"before restoring {snapshot_id}")
            return self._become(before.root, wanted.root, self._objects)

    def adopt(self, other: "Snapshots", snapshot_id: str) -> Snapshot:
        """Makes the workspace what another one was; a snapshot of it here."""
        with self._held(), other._held():
            wanted = other.get(snapshot_id)
            self._become(self.take("before adopting").root, wanted.root, other._objects)
            return self.take(f"adopted {snapshot_id}")

    def _entry(self, snapshot_id: str, path: str) -> Entry:
        entry: Entry | None = Entry("", "dir", 0, 0, self.get(snapshot_id).root)
        for part in path.split("/") if path != "." else []:
            if entry is not None and entry.kind == "dir":
                entry = self._folder_of(entry.content).get(part)
            else:
                entry = None
        if entry is None:
            raise ToolError(f"{path} was not there", kind="file_missing", path=path)
        return entry

    def _folder_of(self, name: str) -> dict[str, Entry]:
        """A stored folder. The last few stay decoded: a large one takes 20 ms, and files are read one by one."""
        if name not in self._decoded:
            if len(self._decoded) == OPEN_FOLDERS:
                del self._decoded[next(iter(self._decoded))]
            self._decoded[name] = self._objects.folder(name)
        return self._decoded[name]

    def _become(self, old: str, new: str, source: Objects) -> list[Change]:
        changes = sorted(self._differences(old, new, new_objects=source), key=lambda change: change.path)
        modes = self._open_up(changes)
        try:
            self._apply(changes, source)
            modes |= {change.path: change.new.mode for change in changes if change.new and change.new.kind == "dir"}
        finally:  # Only now, the deepest first: a folder may be closed to us by its mode.
            for path in sorted(modes, key=lambda path: "" if path == "." else path, reverse=True):
                there = self._tree.stat(path)
                if there is not None and there.kind == "dir":
                    self._tree.set_mode(path, modes[path])
        return changes

    def _apply(self, changes: Sequence[Change], source: Objects) -> None:
        """changes: sorted by path, so that a folder comes before what is in it."""
        for change in reversed(changes):
            if change.new is None or (change.old is not None and change.old.kind != change.new.kind):
                self._tree.remove(change.path)
        for change in changes:
            entry = change.new
            if entry is None:
                continue
            if entry.kind == "file":
                self._tree.write(change.path, source.pieces(entry.content), mode=entry.mode, sync=False)
            elif entry.kind == "symlink":
                self._tree.link(change.path, entry.content)
            else:
                there = self._tree.stat(change.path)
                if there is not None and there.kind != "dir":  # A pipe or the like: no snapshot knows of it.
                    self._tree.remove(change.path)
                self._tree.make_dir(change.path)

    def _open_up(self, changes: Sequence[Change]) -> dict[str, int]:
        """Opens the folders that their owner closed to himself and that hold what changes; the modes that they had.

        Only root needs no such thing.
        """
        closed: dict[str, int] = {}
        is_folder: dict[str, bool] = {}
        for change in changes:
            parts = change.path.split("/")
            for count in range(len(parts)):
                folder = "/".join(parts[:count]) or "."
                if folder not in is_folder:
                    there = self._tree.stat(folder)
                    is_folder[folder] = there is not None and there.kind == "dir"
                    if there is not None and is_folder[folder] and there.mode & 0o700 != 0o700:
                        closed[folder] = there.mode
                        self._tree.set_mode(folder, there.mode | 0o700)
                if not is_folder[folder]:  # What is below is still to come, or lies behind a link.
                    break
        return closed

    def _differences(self, old: str, new: str, *, new_objects: Objects | None = None) -> Iterator[Change]:
        source = new_objects or self._objects
        waiting = [("", old, new)]
        while waiting:
            prefix, before_root, after_root = waiting.pop()
            before, after = self._objects.folder(before_root), source.folder(after_root)
            for name in before.keys() | after.keys():
                was, now, path = before.get(name), after.get(name), prefix + name
                if was == now:
                    continue
                if was is None or now is None or was.kind != now.kind or was.kind != "dir" or was.mode != now.mode:
                    kind: Literal["added", "removed", "modified"] = (
                        "added" if was is None else "removed" if now is None else "modified"
                    )
                    yield Change(path, kind, was, now)
                below_old = was.content if was is not None and was.kind == "dir" else ""
                below_new = now.content if now is not None and now.kind == "dir" else ""
                if below_old != below_new:
                    waiting.append((f"{path}/", below_old, below_new))

    def _save(self, snapshots: list[Snapshot]) -> None:
        replace_file(self._folder / "list.json", json.dumps([asdict(item) for item in snapshots]).encode())

    def _load_seen(self) -> Seen:
        with contextlib.suppress(OSError, ValueError, EOFError, TypeError):
            found = marshal.loads((self._folder / "seen").read_bytes())
            if isinstance(found, dict):
                return found
        return {}

    def _used(self) -> set[str]:
        """Every content that some snapshot holds."""
        used: set[str] = set()
        waiting = [snapshot.root for snapshot in self.all()]
        while waiting:
            root = waiting.pop()
            if root in used:
                continue
            used.add(root)
            for entry in self._objects.folder(root).values():
                if entry.kind == "dir":
                    waiting.append(entry.content)
                elif entry.kind == "file":
                    used.add(entry.content)
        return used


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps all others from the snapshots in `folder`. Raises: FileNotFoundError if they are not there any more."""
    with (folder / "lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "the workspace was deleted", str(folder))
        yield


def stat_of(path: str, entry: Entry) -> FileStat:
    """A stored entry as the protocol tells it; snapshots keep no times."""
    size = len(os.fsencode(entry.content)) if entry.kind == "symlink" else entry.size
    return FileStat(path=path, kind=entry.kind, size=size, mode=entry.mode, mtime_ns=0)
