"""Archives in and out of a workspace: what goes in is checked here, written by the provider beneath its root.

Archives are only parsed, never extracted by `tarfile`: its filters were bypassed before (CVE-2025-4517).
"""

import io
import os
import posixpath
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from workflow.core.errors import ToolError
from workflow.sandboxes.paths import readable, relative

MAX_MEMBERS = 200_000
MAX_BYTES = 2_000_000_000
"""Unpacked; a small archive may claim any size."""


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive, its path checked."""

    path: str
    kind: Literal["file", "dir", "symlink"]
    mode: int = 0o644
    content: bytes = b""
    target: str = ""
    """Where a symlink points to, as it was written."""


def members(archive: bytes, *, max_bytes: int = MAX_BYTES) -> Iterator[Member]:
    """The entries of a tar archive (plain, gzip, bzip2 or xz), in order; hard links become copies.

    Raises: ToolError with kind `bad_archive` (unreadable, devices, too large) or `outside_workspace`.
    """
    total = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for count, entry in enumerate(tar, start=1):
                total += entry.size
                _refuse_if_too_much(total, count, max_bytes)
                member = _member(tar, entry)
                if entry.islnk():  # Says nothing of its size, and becomes a copy.
                    total += len(member.content)
                    _refuse_if_too_much(total, count, max_bytes)
                yield member
    except (tarfile.TarError, EOFError, OSError, KeyError, ValueError) as error:
        raise ToolError(f"the archive cannot be read: {error}", kind="bad_archive") from error


def _refuse_if_too_much(total: int, count: int, max_bytes: int) -> None:
    if total > max_bytes or count > MAX_MEMBERS:
        raise ToolError("the archive unpacks to too much", kind="bad_archive", max_bytes=max_bytes)


def _member(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> Member:
    if posixpath.isabs(entry.name):
        raise ToolError(f"{entry.name} is an absolute path", kind="outside_workspace", path=entry.name)
    path = relative(entry.name)
    if entry.isdir():
        return Member(path, "dir", entry.mode & 0o777)
    if entry.issym():
        return Member(path, "symlink", target=entry.linkname)
    if not entry.isreg() and not entry.islnk():
        raise ToolError(f"{entry.name} is neither a file, a folder nor a link", kind="bad_archive", path=path)
    # A hard link reads as the earlier member it names; one that names nothing in here is a KeyError.
    stream = tar.extractfile(entry)
    if stream is None:
        raise ToolError(f"{entry.name} has no content", kind="bad_archive", path=path)
    return Member(path, "file", entry.mode & 0o777, stream.read())


def most_packed(disk_bytes: int) -> int:
    """How long an archive of a workspace may be: files with holes claim more than the disk has."""
    return min(disk_bytes, MAX_BYTES) * 5 // 4 + 1_000_000  # with its headers


def pack(entries: Iterable[Member], *, max_bytes: int = MAX_BYTES) -> bytes:
    """A plain tar archive of `entries`, without owners, so that equal trees give equal bytes but for times.

    Raises: ToolError with kind `too_large` when it becomes longer than `max_bytes`.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            header = tarfile.TarInfo(entry.path)
            header.mode = entry.mode
            if entry.kind == "dir":
                header.type = tarfile.DIRTYPE
            elif entry.kind == "symlink":
                header.type, header.linkname = tarfile.SYMTYPE, entry.target
            header.size = len(entry.content)
            if buffer.tell() + header.size > max_bytes:
                raise ToolError("the files are too large to be packed together", kind="too_large")
            tar.addfile(header, io.BytesIO(entry.content))
    return buffer.getvalue()


def zipped(archive: bytes) -> Iterator[bytes]:
    """The tar archive as a zip, a piece at a time as its entries are packed; links stay links. Raises: as `members`."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as packed:
        for member in members(archive):
            content = os.fsencode(member.target) if member.kind == "symlink" else member.content
            packed.writestr(_zip_entry(member), content)
            yield from sink.taken()
    yield from sink.taken()


def _zip_entry(member: Member) -> zipfile.ZipInfo:
    kinds = {"file": stat.S_IFREG, "dir": stat.S_IFDIR, "symlink": stat.S_IFLNK}
    name = readable(member.path)
    entry = zipfile.ZipInfo(f"{name}/" if member.kind == "dir" else name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (kinds[member.kind] | (0o777 if member.kind == "symlink" else member.mode)) << 16
    return entry


class _Sink(io.BytesIO):
    """Where a zip is written to that is sent on at once: it has no place to go back to."""

    def tell(self) -> int:
        raise io.UnsupportedOperation("what was written is gone")

    def taken(self) -> Iterator[bytes]:
        """What was written since the last time, as one piece."""
        if piece := self.getvalue():
            self.seek(0)
            self.truncate(0)
            yield piece
