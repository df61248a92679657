"""Whole trees of a local workspace as tar archives: for people (bytes), and for putting an unused one away (a file)."""

import os
import tarfile
from functools import partial
from pathlib import Path

from workflow.core.errors import SandboxError
from workflow.sandboxes.archive import Member, members, pack
from workflow.sandboxes.base import FileStat
from workflow.sandboxes.paths import relative
from workflow.sandboxes.tree import Tree

CHUNK = 1 << 20


def unpack(tree: Tree, archive: bytes, path: str) -> int:
    """Unpacks a tar archive below `path`; how many files it held. Blocking. Raises: ToolError."""
    count = 0
    for member in members(archive):
        target = f"{path}/{member.path}"
        if member.kind == "dir":
            tree.make_dir(target)
        elif member.kind == "symlink":
            tree.link(target, member.target)
        else:
            tree.write(target, member.content, mode=member.mode, sync=False)
            count += 1
    return count


def packed(tree: Tree, path: str, *, workdir: str) -> bytes:
    """What is below `path` as a tar archive; pipes and sockets are left out. Blocking. Raises: ToolError."""
    top = relative(path, workdir=workdir)
    prefix = "" if top == "." else f"{top}/"
    return pack(_member(tree, stat, prefix) for stat in tree.walk(path) if stat.kind != "other")


def put_away(tree: Tree, target: Path) -> None:
    """Writes the whole tree to a compressed archive, which is there whole or not at all. Blocking.

    Raises: SandboxError if it cannot be written, or a file changes meanwhile.
    """
    temporary = target.with_name(f"{target.name}.tmp")
    try:
        with tarfile.open(temporary, "w:gz", compresslevel=3, format=tarfile.PAX_FORMAT) as tar:
            for stat in tree.walk():
                header = tarfile.TarInfo(stat.path)
                header.mode, header.mtime = stat.mode, stat.mtime_ns / 1e9
                if stat.kind == "dir":
                    header.type = tarfile.DIRTYPE
                    tar.addfile(header)
                elif stat.kind == "symlink":
                    header.type, header.linkname = tarfile.SYMTYPE, tree.target(stat.path)
                    tar.addfile(header)
                elif stat.kind == "file":
                    with tree.opened(stat.path) as fd, os.fdopen(os.dup(fd), "rb") as content:
                        header.size = stat.size
                        tar.addfile(header, content)
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SandboxError(f"the workspace cannot be put away: {error}") from error


def take_out(tree: Tree, source: Path) -> None:
    """Unpacks what `put_away` wrote. Blocking. Raises: SandboxError if it cannot be read."""
    try:
        with tarfile.open(source, "r:gz") as tar:
            for entry in tar:
                if entry.isdir():
                    tree.make_dir(entry.name)
                    tree.set_mode(entry.name, entry.mode)
                elif entry.issym():
                    tree.link(entry.name, entry.linkname)
                elif (content := tar.extractfile(entry)) is not None:
                    tree.write(entry.name, iter(partial(content.read, CHUNK), b""), mode=entry.mode, sync=False)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise SandboxError(f"the workspace cannot be taken out of its archive: {error}") from error


def _member(tree: Tree, stat: FileStat, prefix: str) -> Member:
    name = stat.path.removeprefix(prefix)
    if stat.kind == "symlink":
        return Member(name, "symlink", target=tree.target(stat.path))
    if stat.kind == "dir":
        return Member(name, "dir", stat.mode & 0o777)
    return Member(name, "file", stat.mode & 0o777, tree.read(stat.path))
