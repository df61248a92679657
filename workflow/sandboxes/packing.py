"""Whole trees of a local workspace as tar archives: for people (bytes), and for putting an unused one away (a file)."""

import gzip
import logging
import os
import stat as modes
import tarfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from workflow.core.errors import SandboxError, ToolError, WorkspaceDamaged
from workflow.sandboxes.archive import Member, members, pack
from workflow.sandboxes.base import FileStat
from workflow.sandboxes.paths import relative
from workflow.sandboxes.tree import Tree

log = logging.getLogger(__name__)

CHUNK = 1 << 20
UNFINISHED = ".tmp"


def unpack(tree: Tree, archive: bytes, path: str, *, max_bytes: int) -> int:
    """Unpacks a tar archive below `path`; how many files it held. Blocking. Raises: ToolError."""
    count = 0
    for member in members(archive, max_bytes=max_bytes):
        target = f"{path}/{member.path}"
        if member.kind == "dir":
            tree.make_dir(target)
        elif member.kind == "symlink":
            tree.link(target, member.target)
        else:
            tree.write(target, member.content, mode=member.mode, sync=False)
            count += 1
    return count


def packed(tree: Tree, path: str, *, workdir: str, max_bytes: int) -> bytes:
    """What is below `path` as a tar archive; pipes, sockets and what vanishes meanwhile are left out. Blocking.

    Raises: ToolError, as `pack`.
    """
    top = relative(path, workdir=workdir)
    return pack(_members(tree, path, "" if top == "." else f"{top}/"), max_bytes=max_bytes)


def _members(tree: Tree, path: str, prefix: str) -> Iterator[Member]:
    for stat in tree.walk(path):
        if stat.kind == "other":
            continue
        try:
            yield _member(tree, stat, prefix)
        except ToolError as error:
            if error.kind not in ("file_missing", "not_a_directory"):
                raise


def put_away(tree: Tree, target: Path, *, max_bytes: int) -> None:
    """Writes the whole tree to a compressed archive, which is there whole or not at all. Blocking.

    What its owner closed to himself is opened on the way; the archive has it closed.
    max_bytes: of all files, holes included. Raises: SandboxError if they have more, one changes meanwhile or cannot
    be read, or the archive cannot be written.
    """
    temporary = target.with_name(f"{target.name}{UNFINISHED}")
    try:
        with temporary.open("wb") as file:
            with tarfile.open(fileobj=file, mode="w:gz", compresslevel=3, format=tarfile.PAX_FORMAT) as tar:
                _put_all(tree, tar, max_bytes=max_bytes)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except (OSError, ToolError) as error:
        raise SandboxError(f"the workspace cannot be put away: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _put_all(tree: Tree, tar: tarfile.TarFile, *, max_bytes: int) -> None:
    total = 0
    first_names: dict[tuple[int, int], str] = {}
    folders = ["."]
    while folders:
        for path, found in tree.scan(folders.pop()):
            header = tarfile.TarInfo(path)
            header.mode, header.mtime = modes.S_IMODE(found.st_mode), found.st_mtime_ns / 1e9
            if modes.S_ISDIR(found.st_mode):
                header.type = tarfile.DIRTYPE
                tar.addfile(header)
                if header.mode & 0o700 != 0o700:
                    tree.set_mode(path, 0o700)
                folders.append(path)
            elif modes.S_ISLNK(found.st_mode):
                header.type, header.linkname = tarfile.SYMTYPE, tree.target(path)
                tar.addfile(header)
            elif modes.S_ISREG(found.st_mode):
                first = first_names.setdefault((found.st_dev, found.st_ino), path)
                if first != path:
                    header.type, header.linkname = tarfile.LNKTYPE, first
                    tar.addfile(header)
                    continue
                header.size = found.st_size
                total += header.size
                if total > max_bytes:
                    raise SandboxError(f"its files have more than {max_bytes} bytes")
                if not header.mode & 0o400:
                    tree.set_mode(path, 0o600)
                with tree.opened(path) as fd, os.fdopen(os.dup(fd), "rb") as content:
                    tar.addfile(header, content)


def take_out(tree: Tree, source: Path) -> None:
    """Unpacks what `put_away` wrote, into an empty tree. Blocking.

    Raises: WorkspaceDamaged if it is not what was written, before anything is unpacked; SandboxError.
    """
    folders = []
    try:
        _check(source)
        with tarfile.open(source, "r:gz") as tar:
            for entry in tar:
                mtime_ns = round(entry.mtime * 1e9)
                if entry.isdir():
                    tree.make_dir(entry.name)
                    folders.append((entry.name, entry.mode, mtime_ns))
                elif entry.issym():
                    tree.link(entry.name, entry.linkname)
                elif entry.islnk():
                    tree.join(entry.name, entry.linkname)
                elif (content := tar.extractfile(entry)) is not None:
                    pieces = iter(partial(content.read, CHUNK), b"")
                    tree.write(entry.name, pieces, mode=entry.mode, mtime_ns=mtime_ns, sync=False)
        for path, mode, mtime_ns in reversed(folders):  # Last: they may be closed to writing.
            tree.set_mode(path, mode, mtime_ns=mtime_ns)
    except (OSError, ToolError, tarfile.TarError) as error:
        raise SandboxError(f"the workspace cannot be taken out of its archive: {error}") from error


def _check(source: Path) -> None:
    """Reads an archive to the checksum at its end, which tarfile never looks at: it takes much damage for the end.

    Raises: WorkspaceDamaged, OSError.
    """
    size = 0
    try:
        with gzip.open(source) as content:
            while chunk := content.read(CHUNK):
                size += len(chunk)
        if size == 0:  # Even of an empty folder there is more.
            raise EOFError("it is empty")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        log.error("damaged and kept, see docs/sandbox.md: %s: %s", source, error)
        raise WorkspaceDamaged(
            f"the thread's files were put away, and their archive is damaged ({error}); it is kept for the operator, "
            'see "A damaged archive" in docs/sandbox.md'
        ) from error


def _member(tree: Tree, stat: FileStat, prefix: str) -> Member:
    name = stat.path.removeprefix(prefix)
    if stat.kind == "symlink":
        return Member(name, "symlink", target=tree.target(stat.path))
    if stat.kind == "dir":
        return Member(name, "dir", stat.mode & 0o777)
    return Member(name, "file", stat.mode & 0o777, tree.read(stat.path))
