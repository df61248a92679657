"""The files of a local workspace, reached from outside the sandbox while commands may be changing it.

Every path is opened beneath the root (`beneath.py`) and everything else happens through the descriptors this gives,
so that a command inside can race with us but never lead us out. Blocking; call it from a thread.
"""

import contextlib
import errno
import os
import posixpath
import secrets
import stat as modes
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from workflow.core.errors import ToolError
from workflow.sandboxes.base import WORKDIR, FileStat
from workflow.sandboxes.beneath import open_beneath, refusal
from workflow.sandboxes.paths import missing, outside, relative
from workflow.sandboxes.removal import remove_tree

MAX_READ = 256_000_000
MAX_LINKS = 40
TEMPORARY, TEMPORARY_CHARS = ".dialtone-", 26
"""How our half-written files begin, and how long their names are; they never show in a listing."""


class Tree:
    """A folder and the user who owns what is made in it."""

    def __init__(self, root: Path, *, owner: int, workdir: str = WORKDIR) -> None:
        """workdir: how commands call the folder; absolute symlinks below it are followed. `root_fd` is the caller's."""
        self.root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._owner = owner if os.geteuid() == 0 else -1
        self._workdir = workdir

    def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes:
        """As Sandbox.read; at most MAX_READ bytes, else ToolError `too_large`."""
        with self.opened(path) as fd:
            size = os.fstat(fd).st_size
            wanted = size - offset if limit is None else limit
            if min(wanted, size) > MAX_READ:
                raise ToolError(f"{path} has {size} bytes; read a part of it", kind="too_large", path=path)
            return _read(fd, offset, min(wanted, MAX_READ))

    @contextlib.contextmanager
    def opened(self, path: str) -> Iterator[int]:
        """A descriptor of a regular file. Raises: ToolError for anything else."""
        # O_NONBLOCK: opening a pipe without a writer must not hang.
        fd = self._open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            mode = os.fstat(fd).st_mode
            if modes.S_ISDIR(mode):
                raise ToolError(f"{path} is a folder", kind="is_directory", path=path)
            if not modes.S_ISREG(mode):
                raise ToolError(f"{path} is not a regular file", kind="not_regular", path=path)
            yield fd
        finally:
            os.close(fd)

    def write(
        self,
        path: str,
        content: bytes | Iterable[bytes],
        *,
        mode: int | None = None,
        mtime_ns: int | None = None,
        sync: bool = True,
    ) -> None:
        """As Sandbox.write, in pieces if wanted; without `sync` the content may be lost with the power."""
        parent, name = self._place(path)
        temporary = TEMPORARY + secrets.token_hex(8)
        try:
            kept = self._mode_of(parent, name, path)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=parent)
            try:
                for piece in [content] if isinstance(content, bytes) else content:
                    _write(fd, piece)
                self._give(fd)
                os.fchmod(fd, kept if mode is None else mode)
                if mtime_ns is not None:
                    os.utime(fd, ns=(mtime_ns, mtime_ns))
                if sync:
                    os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException as error:  # also of whoever makes the pieces
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=parent)
            if isinstance(error, OSError):
                raise refusal(error, path) from error
            raise
        finally:
            os.close(parent)

    def link(self, path: str, target: str) -> None:
        """A symlink at `path`, replacing a file there; `target` is not looked at, following it is what is checked."""

        def make(parent: int, name: str) -> None:
            os.symlink(target, name, dir_fd=parent)
            os.chown(name, self._owner, self._owner, dir_fd=parent, follow_symlinks=False)

        self._replace(path, make)

    def join(self, path: str, other: str) -> None:
        """Makes `path` one more name of the file at `other`, replacing another file there."""
        with self._parent(other) as (folder, there):

            def make(parent: int, name: str) -> None:
                os.link(there, name, src_dir_fd=folder, dst_dir_fd=parent, follow_symlinks=False)

            self._replace(path, make)

    def _replace(self, path: str, make: Callable[[int, str], None]) -> None:
        """Puts what `make` makes under a name of its own at `path`."""
        folder, name = posixpath.split(relative(path, workdir=self._workdir))
        parent = self._folder(folder or ".")
        temporary = TEMPORARY + secrets.token_hex(8)
        try:
            make(parent, temporary)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=parent)
            raise refusal(error, path) from error
        finally:
            os.close(parent)

    def target(self, path: str) -> str:
        """Where the symlink at `path` points to, as it was written."""
        with self._parent(path) as (parent, name):
            return os.readlink(name, dir_fd=parent)

    def stat(self, path: str) -> FileStat | None:
        place = relative(path, workdir=self._workdir)
        try:
            with self._parent(path) as (parent, name):
                return _stat(place, os.stat(name, dir_fd=parent, follow_symlinks=False))
        except ToolError as error:
            if error.kind in ("file_missing", "not_a_directory"):
                return None
            raise

    def list(self, path: str = ".", *, depth: int = 1, limit: int = 10_000) -> list[FileStat]:
        found: list[FileStat] = []
        for stat in self.walk(path, depth=depth):
            found.append(stat)
            if len(found) >= limit:
                break
        return sorted(found, key=lambda stat: stat.path)

    def walk(self, path: str = ".", *, depth: int = 1_000) -> Iterator[FileStat]:
        """What is below `path`, each folder before its content; folders that vanish or are closed are skipped."""
        os.close(self._open(path, os.O_RDONLY | os.O_DIRECTORY))
        top = relative(path, workdir=self._workdir)
        folders = [(top, 1)]
        while folders:
            folder, level = folders.pop()
            entries = self.entries(folder)
            yield from entries
            if level < depth:
                folders += [(stat.path, level + 1) for stat in reversed(entries) if stat.kind == "dir"]

    def is_folder(self, path: str) -> bool:
        """True if `path`, symlinks followed, is a folder of the workspace."""
        try:
            os.close(self._open(path, os.O_PATH | os.O_DIRECTORY))
        except ToolError as error:
            if error.kind in ("file_missing", "not_a_directory"):
                return False
            raise
        return True

    def entries(self, folder: str) -> Sequence[FileStat]:
        """What is directly in `folder`, sorted; nothing if it is gone or closed to us."""
        with contextlib.suppress(OSError):
            return [_stat(path, found) for path, found in self.scan(folder)]
        return []

    def scan(self, folder: str) -> Sequence[tuple[str, os.stat_result]]:
        """The same with all that the system knows of each; symlinks are not followed. Raises: OSError."""
        found = []
        fd = open_beneath(self.root_fd, folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    if not (entry.name.startswith(TEMPORARY) and len(entry.name) == TEMPORARY_CHARS):
                        place = entry.name if folder == "." else f"{folder}/{entry.name}"
                        with contextlib.suppress(FileNotFoundError):
                            found.append((place, entry.stat(follow_symlinks=False)))
        finally:
            os.close(fd)
        return sorted(found, key=lambda item: item[0])

    def set_mode(self, path: str, mode: int, *, mtime_ns: int | None = None) -> None:
        """Changes the mode, if wanted also the time, of a file or folder; a symlink at its end is followed.

        One that its owner closed to himself, too.
        """
        fd = self._open(path, os.O_PATH)
        try:
            place = f"/proc/self/fd/{fd}"  # fchmod refuses O_PATH, and what is closed cannot be opened otherwise
            os.chmod(place, modes.S_IMODE(mode))  # noqa: PTH101  (a Path would say the same)
            if mtime_ns is not None:
                os.utime(place, ns=(mtime_ns, mtime_ns))
        except OSError as error:
            raise refusal(error, path) from error
        finally:
            os.close(fd)

    def make_dir(self, path: str) -> None:
        os.close(self._folder(relative(path, workdir=self._workdir)))

    def move(self, source: str, target: str) -> None:
        here = self.stat(target)
        if here is not None and here.kind == "dir" and here != self.stat(source):
            raise ToolError(f"{target} is a folder", kind="is_directory", path=target)
        with self._parent(source) as (old_parent, old):
            try:
                os.stat(old, dir_fd=old_parent, follow_symlinks=False)
            except FileNotFoundError as error:
                raise missing(source) from error
            place = relative(target, workdir=self._workdir)
            new_parent = self._folder(posixpath.dirname(place) or ".")
            try:
                os.rename(old, posixpath.basename(place), src_dir_fd=old_parent, dst_dir_fd=new_parent)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    raise ToolError(f"{source} cannot be moved into itself", kind="bad_path", path=target) from error
                raise
            finally:
                os.close(new_parent)

    def remove(self, path: str) -> None:
        if relative(path, workdir=self._workdir) == ".":
            raise ToolError("the workspace itself cannot be removed", kind="bad_path", path=path)
        try:
            with self._parent(path) as (parent, name):
                remove_tree(parent, name)
        except ToolError as error:
            if error.kind not in ("file_missing", "not_a_directory"):
                raise

    @contextlib.contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        """The folder of `path`, opened, and the last part of its name; errors become what the agent is told."""
        place = relative(path, workdir=self._workdir)
        folder, name = posixpath.split(place)
        fd = self._open(folder or ".", os.O_PATH | os.O_DIRECTORY)
        try:
            yield fd, name
        except OSError as error:
            raise refusal(error, path) from error
        finally:
            os.close(fd)

    def _open(self, path: str, flags: int) -> int:
        """Opens beneath the root; also follows absolute symlinks that point into the workspace as seen inside."""
        place = relative(path, workdir=self._workdir)
        for _ in range(MAX_LINKS):
            try:
                return open_beneath(self.root_fd, place, flags)
            except OSError as error:
                inner = self._through_absolute_link(place) if error.errno == errno.EXDEV else None
                if inner is None:
                    raise refusal(error, path) from error
                place = inner
        raise outside(path)

    def _through_absolute_link(self, place: str) -> str | None:
        """`place` with its first symlink replaced by what it says; None if there is none, or it leads out."""
        parts = place.split("/")
        for count in range(1, len(parts) + 1):
            head, rest = "/".join(parts[:count]), parts[count:]
            try:
                fd = open_beneath(self.root_fd, head, os.O_PATH | os.O_NOFOLLOW)
            except OSError:
                return None
            try:
                target = os.readlink("", dir_fd=fd)
            except OSError:  # not a symlink
                continue
            finally:
                os.close(fd)
            with contextlib.suppress(ToolError):
                base = target if target.startswith("/") else posixpath.join(posixpath.dirname(head), target)
                return relative(posixpath.join(base, *rest), workdir=self._workdir)
            return None
        return None

    def _place(self, path: str) -> tuple[int, str]:
        """Where a write to `path` lands: its folder, made and opened, and a name there that is no symlink."""
        place = relative(path, workdir=self._workdir)
        if place == ".":
            raise ToolError(f"{path} is a folder", kind="is_directory", path=path)
        for _ in range(MAX_LINKS):
            folder, name = posixpath.split(place)
            parent = self._folder(folder or ".")
            try:
                target = os.readlink(name, dir_fd=parent)
            except OSError:  # nothing there, or not a symlink
                return parent, name
            os.close(parent)
            place = relative(posixpath.join("" if target.startswith("/") else folder, target), workdir=self._workdir)
        raise outside(path)

    def _folder(self, place: str) -> int:
        """The folder at `place`, opened; it and its parents are made when missing."""
        missing_ones = []
        while True:
            try:
                fd = self._open(place, os.O_PATH | os.O_DIRECTORY)
                break
            except ToolError as error:
                if error.kind != "file_missing" or place == ".":
                    raise
            place, name = posixpath.split(place)
            place = place or "."
            missing_ones.append(name)
        for name in reversed(missing_ones):
            place = posixpath.join(place, name)
            try:
                os.mkdir(name, 0o755, dir_fd=fd)
                os.chown(name, self._owner, self._owner, dir_fd=fd, follow_symlinks=False)
            except FileExistsError:
                pass
            except OSError as error:
                raise refusal(error, place) from error
            finally:
                os.close(fd)
            fd = self._open(place, os.O_PATH | os.O_DIRECTORY)
        return fd

    def _mode_of(self, parent: int, name: str, path: str) -> int:
        """The mode a rewritten file keeps."""
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return 0o644
        if modes.S_ISDIR(found.st_mode):
            raise ToolError(f"{path} is a folder", kind="is_directory", path=path)
        return modes.S_IMODE(found.st_mode) & 0o777

    def _give(self, fd: int) -> None:
        if self._owner >= 0:
            os.fchown(fd, self._owner, self._owner)


def _stat(place: str, found: os.stat_result) -> FileStat:
    kind = {modes.S_IFREG: "file", modes.S_IFDIR: "dir", modes.S_IFLNK: "symlink"}.get(modes.S_IFMT(found.st_mode))
    return FileStat(
        path=place,
        kind=kind or "other",  # type: ignore[arg-type]  # a dict's values are not narrowed to the Literal
        size=0 if kind == "dir" else found.st_size,
        mode=modes.S_IMODE(found.st_mode),
        mtime_ns=found.st_mtime_ns,
    )


def _read(fd: int, offset: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0 and (part := os.pread(fd, size, offset)):
        parts.append(part)
        offset, size = offset + len(part), size - len(part)
    return b"".join(parts)


def _write(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
