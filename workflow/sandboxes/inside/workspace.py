"""The calls about files. Paths come relative and normalised; here symlinks are followed and kept inside.

Who runs commands in this sandbox can race with these checks, but gains nothing: everything here is that user's anyway.
"""

from __future__ import annotations

import errno
import os
import stat as modes

from workflow.sandboxes.inside.answers import Refused

# What only a type checker needs is not imported: a call should cost the start of Python and little more.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any, BinaryIO

    Row = list[Any]
    """path, kind, size, mode, mtime_ns"""

TEMPORARY, TEMPORARY_CHARS = ".dialtone-", 26
"""How half-written files begin, and how long their names are; they never show in a listing."""


class Workspace:
    """A folder, made when it is missing."""

    def __init__(self, root: str) -> None:
        os.makedirs(root, exist_ok=True)
        self.root = os.path.realpath(root)

    def real(self, path: str, *, last: bool = True) -> str:
        """Where `path` leads to; with `last` False, a symlink at its end is not followed. Raises: Refused."""
        full = os.path.normpath(os.path.join(self.root, path))
        if last or full == self.root:
            found = os.path.realpath(full)
            if os.path.islink(found):
                raise Refused(f"{path} is a loop of links", kind="bad_path")
        else:
            found = os.path.join(os.path.realpath(os.path.dirname(full)), os.path.basename(full))
        if found != self.root and not found.startswith(self.root + "/"):
            raise Refused(f"{path} is outside the workspace", kind="outside_workspace")
        return found

    def open(self, path: str) -> tuple[BinaryIO, str]:
        """A regular file, opened, and where it really is."""
        found = self.real(path)
        try:
            # O_NONBLOCK: opening a pipe without a writer must not hang.
            fd = os.open(found, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise refusal(error, path) from error
        mode = os.fstat(fd).st_mode
        if not modes.S_ISREG(mode):
            os.close(fd)
            if modes.S_ISDIR(mode):
                raise Refused(f"{path} is a folder", kind="is_directory")
            raise Refused(f"{path} is not a regular file", kind="not_regular")
        return open(fd, "rb"), found

    def write(self, path: str, source: IO[bytes], *, mode: int | None, sync: bool = True) -> None:
        """Replaces a file by what `source` holds, atomically."""
        target = self.real(path)
        if target == self.root or os.path.isdir(target):
            raise Refused(f"{path} is a folder", kind="is_directory")
        temporary = os.path.join(os.path.dirname(target), TEMPORARY + os.urandom(8).hex())
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if mode is None:
                mode = modes.S_IMODE(os.stat(target).st_mode) & 0o777 if os.path.exists(target) else 0o644
            with open(temporary, "xb") as file:
                while chunk := source.read(1 << 20):
                    file.write(chunk)
                file.flush()
                os.fchmod(file.fileno(), mode)
                if sync:
                    os.fsync(file.fileno())
            os.rename(temporary, target)
        except OSError as error:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise refusal(error, path) from error

    def link(self, path: str, target: str) -> None:
        """A symlink at `path`, replacing a file there; following it is what is checked."""
        place = self.real(path, last=False)
        temporary = os.path.join(os.path.dirname(place), TEMPORARY + os.urandom(8).hex())
        try:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.symlink(target, temporary)
            os.rename(temporary, place)
        except OSError as error:
            if os.path.islink(temporary):
                os.unlink(temporary)
            raise refusal(error, path) from error

    def stat(self, path: str) -> Row | None:
        try:
            return _row(path, os.lstat(self.real(path, last=False)))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def list(self, path: str, *, depth: int, limit: int) -> list[Row]:
        rows: list[Row] = []
        for row in self.walk(path, depth=depth):
            rows.append(row)
            if len(rows) >= limit:
                break
        return sorted(rows)

    def walk(self, path: str, *, depth: int = 10_000) -> Iterator[Row]:
        """What is below `path`, each folder before its content; what is closed to us or vanishes is skipped."""
        top = self.real(path)
        try:
            os.scandir(top).close()
        except OSError as error:
            raise refusal(error, path) from error
        folders = [(top, path, 1)]
        while folders:
            folder, shown, level = folders.pop()
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError:
                continue
            below = []
            for entry in entries:
                if entry.name.startswith(TEMPORARY) and len(entry.name) == TEMPORARY_CHARS:
                    continue
                place = entry.name if shown == "." else f"{shown}/{entry.name}"
                try:
                    yield _row(place, entry.stat(follow_symlinks=False))
                except FileNotFoundError:
                    continue
                if level < depth and entry.is_dir(follow_symlinks=False):
                    below.append((entry.path, place, level + 1))
            folders += reversed(below)

    def make_dir(self, path: str) -> None:
        try:
            os.makedirs(self.real(path), exist_ok=True)
        except OSError as error:
            raise refusal(error, path) from error

    def move(self, source: str, target: str) -> None:
        old, new = self.real(source, last=False), self.real(target, last=False)
        if not os.path.lexists(old):
            raise Refused(f"{source} does not exist", kind="file_missing")
        if old == new:
            return
        if os.path.isdir(new) and not os.path.islink(new):
            raise Refused(f"{target} is a folder", kind="is_directory")
        if new.startswith(old + "/"):
            raise Refused(f"{source} cannot be moved into itself", kind="bad_path")
        try:
            os.makedirs(os.path.dirname(new), exist_ok=True)
            os.rename(old, new)
        except OSError as error:
            raise refusal(error, target) from error

    def remove(self, path: str) -> None:
        place = self.real(path, last=False)
        if place == self.root:
            raise Refused("the workspace itself cannot be removed", kind="bad_path")
        try:
            if os.path.isdir(place) and not os.path.islink(place):
                import shutil  # costly, and only this case needs it

                shutil.rmtree(place)
            else:
                os.unlink(place)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise refusal(error, path) from error

    def unpack(self, source: BinaryIO, path: str) -> int:
        """Unpacks a tar archive whose members the caller has checked; the number of files."""
        import tarfile  # costly, and only this call and `pack` need it

        count = 0
        with tarfile.open(fileobj=source) as tar:
            for entry in tar:
                target = os.path.normpath(os.path.join(path, entry.name))
                if entry.isdir():
                    self.make_dir(target)
                elif entry.issym():
                    self.link(target, entry.linkname)
                else:
                    content = tar.extractfile(entry)
                    assert content is not None
                    self.write(target, content, mode=entry.mode, sync=False)
                    count += 1
        return count

    def pack(self, path: str, target: BinaryIO) -> None:
        """Writes a tar archive of what is below `path`, without owners."""
        import tarfile  # see `unpack`

        with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for place, kind, size, mode, _ in self.walk(path):
                header = tarfile.TarInfo(place if path == "." else place[len(path) + 1 :])
                header.mode = mode
                full = os.path.join(self.root, place)
                if kind == "dir":
                    header.type = tarfile.DIRTYPE
                    tar.addfile(header)
                elif kind == "symlink":
                    header.type, header.linkname = tarfile.SYMTYPE, os.readlink(full)
                    tar.addfile(header)
                elif kind == "file":
                    header.size = size
                    with open(full, "rb") as file:
                        tar.addfile(header, file)


def _row(path: str, found: os.stat_result) -> Row:
    kinds = {modes.S_IFREG: "file", modes.S_IFDIR: "dir", modes.S_IFLNK: "symlink"}
    kind = kinds.get(modes.S_IFMT(found.st_mode), "other")
    size = 0 if kind == "dir" else found.st_size
    return [path, kind, size, modes.S_IMODE(found.st_mode), found.st_mtime_ns]


def refusal(error: OSError, path: str) -> Refused:
    """What the agent is told when the system refused `path`."""
    if error.errno == errno.ENOENT:
        return Refused(f"{path} does not exist", kind="file_missing")
    if error.errno == errno.EISDIR:
        return Refused(f"{path} is a folder", kind="is_directory")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return Refused(f"part of {path} is not a folder", kind="not_a_directory")
    if error.errno == errno.ENXIO:
        return Refused(f"{path} is not a regular file", kind="not_regular")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refused(f"the disk of the sandbox is full: {path}", kind="disk_full")
    return Refused(f"{path}: {error.strerror}", kind="bad_path")
