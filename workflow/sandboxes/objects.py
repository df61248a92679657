"""A folder of contents named by their SHA-256: each content is stored once, whoever has it.

Folders of a workspace are contents too (`encode`), so that a tree is one hash, and two trees share what is equal.
"""

import contextlib
import fcntl
import hashlib
import json
import marshal
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workflow.core.errors import SandboxError

CHUNK = 1 << 20
SMALL_BYTES = 1 << 18
PACK_BYTES = 1 << 24
INDEX = "index"
Place = tuple[str, int, int]
"""File, offset, size."""
FICLONE = 0x40049409
"""ioctl_ficlone(2): shares the blocks of two files where the file system can."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a stored folder."""

    name: str
    kind: Literal["file", "dir", "symlink"]
    mode: int
    size: int
    """Of a file in bytes; of a folder and a symlink 0."""
    content: str
    """The hash of the file's or folder's content; of a symlink, where it points to."""


def encode(entries: list[Entry]) -> bytes:
    """A folder as a content; equal folders give equal bytes."""
    rows = [[e.name, e.kind, e.mode, e.size, e.content] for e in sorted(entries, key=lambda e: e.name)]
    return json.dumps(rows, separators=(",", ":")).encode()


def decode(content: bytes) -> list[Entry]:
    """What `encode` encoded."""
    return [Entry(*row) for row in json.loads(content)]


class Objects:
    """Small contents lie one after the other in packs, large ones in files of their own. Blocking; one user at a time.

    What is put is found again by `get` at once, and after a crash or power loss only if `flush` came before it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._index: dict[str, Place] = {}
        self._loaded: tuple[int, int] | None = None
        self._is_written = True
        self.refresh()
        self._clean()
        self._pending: dict[str, bytes] = {}
        self._pending_bytes = 0

    def refresh(self) -> None:
        """Takes in what other processes have stored or swept since."""
        mark = self._mark()
        if mark != self._loaded:
            self._index, self._loaded = self._load(), mark

    @property
    def total_bytes(self) -> int:
        """What all contents take; on file systems that share blocks, at most."""
        return sum(size for _, _, size in self._index.values()) + self._pending_bytes

    def put(self, content: bytes) -> str:
        """Stores a content; its hash."""
        name = hashlib.sha256(content).hexdigest()
        if name not in self._index and name not in self._pending:
            self._pending[name] = content
            self._pending_bytes += len(content)
            if self._pending_bytes > PACK_BYTES:
                self.flush()
        return name

    def put_file(self, fd: int) -> tuple[str, int]:
        """Stores what the file behind a descriptor holds now; its hash and size."""
        if os.fstat(fd).st_size <= SMALL_BYTES:
            content = os.pread(fd, SMALL_BYTES + 1, 0)
            if len(content) <= SMALL_BYTES:
                return self.put(content), len(content)
        temporary = self._folder / f"tmp-{secrets.token_hex(8)}"
        digest, size = hashlib.sha256(), 0
        try:
            with temporary.open("w+b") as copy:
                try:
                    fcntl.ioctl(copy.fileno(), FICLONE, fd)
                    source = copy.fileno()  # The clone does not change any more while it is hashed.
                except OSError:
                    source = fd
                while chunk := os.pread(source, CHUNK, size):
                    digest.update(chunk)
                    if source == fd:
                        copy.write(chunk)
                    size += len(chunk)
                copy.flush()
                os.fsync(copy.fileno())
            name = digest.hexdigest()
            temporary.replace(self._folder / name)
        finally:
            temporary.unlink(missing_ok=True)
        self._index[name] = (name, 0, size)
        self._is_written = False
        return name, size

    def get(self, name: str) -> bytes:
        """A stored content, checked. Raises: SandboxError if it is missing or damaged."""
        return b"".join(self.pieces(name))

    def pieces(self, name: str) -> Iterator[bytes]:
        """The same, a piece at a time; that it is damaged is known after the last one."""
        if name in self._pending:
            yield self._pending[name]
            return
        digest = hashlib.sha256()
        try:
            file, offset, size = self._index[name]
            with (self._folder / file).open("rb") as pack:
                while size > 0 and (chunk := os.pread(pack.fileno(), min(size, CHUNK), offset)):
                    digest.update(chunk)
                    yield chunk
                    offset, size = offset + len(chunk), size - len(chunk)
        except (OSError, KeyError) as error:
            raise SandboxError(f"the snapshot lacks {name}") from error
        if digest.hexdigest() != name:
            raise SandboxError(f"the snapshot's {name} is damaged")

    def folder(self, name: str) -> dict[str, Entry]:
        """A stored folder by name; the empty name is the empty folder."""
        return {entry.name: entry for entry in decode(self.get(name))} if name else {}

    def flush(self) -> None:
        """Writes what was put since the last time."""
        if self._pending:
            pack = f"{secrets.token_hex(8)}.pack"
            with (self._folder / pack).open("wb") as file:
                for name, content in self._pending.items():
                    self._index[name] = (pack, file.tell(), len(content))
                    file.write(content)
                file.flush()
                os.fsync(file.fileno())  # Before the index names it: a content that it names is never stored again.
            self._pending, self._pending_bytes = {}, 0
            self._is_written = False
        if not self._is_written:
            replace_file(self._folder / INDEX, marshal.dumps(self._index))
            self._loaded, self._is_written = self._mark(), True

    def sweep(self, used: set[str]) -> None:
        """Forgets every content that is not in `used`, and gives its space back."""
        kept = {name: place for name, place in self._index.items() if name in used}
        packed = [name for name, (file, _, _) in kept.items() if file != name]
        for name in packed:
            self._pending[name] = self.get(name)
        self._index = {name: place for name, place in kept.items() if place[0] == name}
        self._is_written = False
        self.flush()
        self._clean()

    def _clean(self) -> None:
        """Deletes what the index does not know: swept, or left by a process that died before it wrote the index."""
        present = {place[0] for place in self._index.values()} | {INDEX}
        for path in self._folder.iterdir():
            if path.name not in present:
                path.unlink()

    def _mark(self) -> tuple[int, int] | None:
        try:
            found = (self._folder / INDEX).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _load(self) -> dict[str, Place]:
        with contextlib.suppress(FileNotFoundError):
            found = marshal.loads((self._folder / INDEX).read_bytes())
            return dict(found)
        return {}


def replace_file(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Writes a file whole or not at all; without `sync` half of it may be there after a power loss."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)
