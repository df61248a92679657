"""Snapshots of the workspace, kept beside it in the sandbox: each content once, unchanged files not read again."""

from __future__ import annotations

import marshal
import os
import time

from workflow.sandboxes.inside.answers import Refused
from workflow.sandboxes.inside.workspace import Workspace

# What only a type checker needs is not imported: a call should cost the start of Python and little more.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

KEPT = 200
"""The oldest go first."""
FRESH_NS = 100_000_000
"""As in workflow/sandboxes/storing.py."""
FLEETING, MARK, KEPT_FLEETING = "fleeting", "~", 4
"""The label of snapshots that are wanted for a moment only, by what their ids end, how many are kept."""


class History:
    """`objects/` holds contents by SHA-256, `lists/` one file of rows per snapshot, `seen` what was read when."""

    def __init__(self, folder: str, workspace: Workspace) -> None:
        self._folder, self._workspace = folder, workspace
        for name in ("objects", "lists"):
            os.makedirs(os.path.join(folder, name), exist_ok=True)

    def take(self, label: str) -> str:
        """Remembers the workspace as it is now; its id, that of the newest snapshot when nothing has changed.

        Later ones sort after earlier ones.
        """
        rows, seen = self._scan(store=True)
        ids = self._ids()
        self._put("seen", marshal.dumps(seen))
        newest = [name for name in ids if label == FLEETING or not name.endswith(MARK)][-1:]
        if newest and self._rows(newest[0]) == rows:
            return newest[0]
        number = int(ids[-1].partition("-")[0]) + 1 if ids else 1
        snapshot = f"{number:08d}-{os.urandom(4).hex()}{MARK if label == FLEETING else ''}"
        self._put(f"lists/{snapshot}", marshal.dumps({"label": label, "rows": rows}))
        for fleeting in [name for name in ids if name.endswith(MARK)][:-KEPT_FLEETING]:
            os.unlink(os.path.join(self._folder, "lists", fleeting))
        self._drop_old()
        return snapshot

    def restore(self, snapshot: str) -> None:
        """Makes the workspace what it was. Raises: Refused if there is no such snapshot."""
        wanted = {row[0]: row for row in self._rows(snapshot)}
        now = {row[0]: row for row in self._scan(store=False)[0]}
        for path in sorted(now, reverse=True):
            if path not in wanted or wanted[path][1] != now[path][1]:
                self._workspace.remove(path)
        for path, row in wanted.items():
            if now.get(path) != row:
                self._bring(row)
        for path, kind, mode, _ in reversed(list(wanted.values())):  # last: a folder may be closed to writing
            if kind == "dir":
                os.chmod(os.path.join(self._workspace.root, path), mode)

    def entries(self, snapshot: str, path: str, *, depth: int, limit: int) -> list[Any]:
        """What was below `path`, as rows of (path, kind, size, mode, 0)."""
        rows, prefix = self._rows(snapshot), "" if path == "." else path + "/"
        if prefix and not any(row[0] == path and row[1] == "dir" for row in rows):
            self.find(snapshot, path)  # says why not, unless it was a file
            raise Refused(f"{path} was not a folder", kind="not_a_directory")
        below = [row for row in rows if row[0].startswith(prefix)]
        return sorted(self._shown(row) for row in below if row[0][len(prefix) :].count("/") < depth)[:limit]

    def find(self, snapshot: str, path: str) -> str:
        """Where the content of a file as it was lies. Raises: Refused."""
        found = next((row for row in self._rows(snapshot) if row[0] == path), None)
        if found is None and path != ".":
            raise Refused(f"{path} was not there", kind="file_missing")
        if found is None or found[1] == "dir":
            raise Refused(f"{path} was a folder", kind="is_directory")
        if found[1] != "file":
            raise Refused(f"{path} was not a file", kind="not_regular")
        return self._object(found[3])

    def compare(self, old: str, new: str) -> list[Any]:
        """Rows of (path, what was there, what is there), each as `entries` gives it or None; sorted by path."""
        before, after = ({row[0]: row for row in self._rows(name)} for name in (old, new))
        changed = sorted(path for path in {**before, **after} if before.get(path) != after.get(path))
        return [[path, self._shown(before.get(path)), self._shown(after.get(path))] for path in changed]

    def pack(self, snapshot: str, target: BinaryIO) -> None:
        """Writes a tar archive of a whole snapshot, each folder before its content."""
        import tarfile  # costly, and only this call needs it

        with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path, kind, mode, content in self._rows(snapshot):
                header = tarfile.TarInfo(path)
                header.mode = mode
                if kind == "file":
                    with open(self._object(content), "rb") as file:
                        header.size = os.fstat(file.fileno()).st_size
                        tar.addfile(header, file)
                    continue
                header.type = tarfile.DIRTYPE if kind == "dir" else tarfile.SYMTYPE
                header.linkname = content
                tar.addfile(header)

    def _shown(self, row: Any) -> Any:
        if row is None:
            return None
        path, kind, mode, content = row
        size = os.stat(self._object(content)).st_size if kind == "file" else len(os.fsencode(content))
        return [path, kind, size, mode, 0]

    def _bring(self, row: list[Any]) -> None:
        path, kind, mode, content = row
        if kind == "dir":
            there = self._workspace.stat(path)
            if there is not None and there[1] != "dir":  # a pipe or the like: no snapshot knows of it
                self._workspace.remove(path)
            self._workspace.make_dir(path)
        elif kind == "symlink":
            self._workspace.link(path, content)
        else:
            with open(self._object(content), "rb") as source:
                self._workspace.write(path, source, mode=mode, sync=False)

    def _scan(self, *, store: bool) -> tuple[list[list[Any]], dict[str, Any]]:
        """Rows of (path, kind, mode, hash or target), and by path the marks and the hash of each file."""
        try:
            with open(os.path.join(self._folder, "seen"), "rb") as file:
                before = marshal.load(file)
        except (FileNotFoundError, ValueError, EOFError, TypeError):  # none yet, or damaged: then all is read again
            before = {}
        rows, seen = [], {}
        for path, kind, _, mode, _ in self._workspace.walk("."):
            full = os.path.join(self._workspace.root, path)
            if kind == "file":
                found = os.lstat(full)
                # ctime cannot be set by a command, so a file with the same marks was not written to.
                mark = [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
                known = before.get(path)
                if found.st_ctime_ns > time.time_ns() - FRESH_NS:
                    mark = []  # it may change once more without new times
                content = known[1] if known and known[0] == mark and mark else self._hash(full, store=store)
                seen[path] = [mark, content]
                rows.append([path, kind, mode, content])
            elif kind != "other":
                rows.append([path, kind, mode, os.readlink(full) if kind == "symlink" else ""])
        return rows, seen

    def _hash(self, full: str, *, store: bool) -> str:
        import hashlib  # costly, and only this call needs it

        digest = hashlib.sha256()
        with open(full, "rb") as file:
            temporary = os.path.join(self._folder, "objects", f".{os.urandom(8).hex()}")
            with open(temporary if store else os.devnull, "wb") as copy:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
                    copy.write(chunk)
        if store:
            os.rename(temporary, self._object(digest.hexdigest()))
        return digest.hexdigest()

    def _object(self, content: str) -> str:
        return os.path.join(self._folder, "objects", content)

    def _rows(self, snapshot: str) -> list[list[Any]]:
        """Raises: Refused if there is no such snapshot."""
        if snapshot not in self._ids():
            raise Refused(f"no snapshot {snapshot}", kind="no_such_snapshot")
        with open(os.path.join(self._folder, "lists", snapshot), "rb") as file:
            rows: list[list[Any]] = marshal.load(file)["rows"]
            return rows

    def _ids(self) -> list[str]:
        return sorted(os.listdir(os.path.join(self._folder, "lists")))

    def _put(self, name: str, content: bytes) -> None:
        temporary = os.path.join(self._folder, f".{os.urandom(8).hex()}")
        with open(temporary, "wb") as file:
            file.write(content)
        os.rename(temporary, os.path.join(self._folder, name))

    def _drop_old(self) -> None:
        ids = self._ids()
        if len(ids) <= KEPT:
            return
        for old in ids[:-KEPT]:
            os.unlink(os.path.join(self._folder, "lists", old))
        used = set()
        for kept in ids[-KEPT:]:
            used |= {row[3] for row in self._rows(kept)}
        for name in os.listdir(os.path.join(self._folder, "objects")):
            if name not in used:
                os.unlink(self._object(name))
