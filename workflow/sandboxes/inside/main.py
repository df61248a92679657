"""One call: a request in marshal's format (both sides can read it without an import), its answer as lines."""

from __future__ import annotations

import binascii
import io
import marshal
import os
import sys
import time

from workflow.sandboxes.inside.answers import Answer, Refused
from workflow.sandboxes.inside.history import History
from workflow.sandboxes.inside.jobs import Jobs
from workflow.sandboxes.inside.processes import marked, resident_bytes
from workflow.sandboxes.inside.workspace import Workspace

# What only a type checker needs is not imported: a call should cost the start of Python and little more.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

INLINE = 1 << 20
"""More bytes than this are left in a file for the caller to fetch."""
MAX_READ = 256_000_000
STAGED_S = 3600.0
"""A file that was put aside for a transfer and is older than this belongs to nobody any more."""


def main(text: str) -> None:
    """Serves one request. text: base64 of it."""
    sys.setrecursionlimit(10_000)  # os and shutil make and remove nested folders by recursion
    request = marshal.loads(binascii.a2b_base64(text))
    answer = Answer(request["nonce"])
    try:
        answer.result(Call(request, answer).run())
    except Refused as error:
        answer.refusal(error)
    except OSError as error:
        answer.refusal(Refused(f"{error.strerror}: {error.filename}", kind="failed"))
    sys.stdout.flush()


class Call:
    """One request: `op` names a method below, its other fields are that method's arguments."""

    def __init__(self, request: dict[str, Any], answer: Answer) -> None:
        self._op, self._args = request["op"], request["args"]
        self._payload, self._owner, self._answer = request["payload"], request["owner"], answer
        self._state = request["state"]
        for name in ("", "staged", "jobs"):
            _make(os.path.join(self._state, name), 0o700)
        _make(request["workdir"], 0o755)
        self._workspace = Workspace(request["workdir"])
        self._jobs = Jobs(os.path.join(self._state, "jobs"))
        self._quiet = request["quiet"]

    def run(self) -> Any:
        if not self._quiet:
            self._used()
        return getattr(self, "do_" + self._op)(**self._args)

    def do_exec(
        self, key: str, cwd: str, after: list[int], patience_s: float | None, beat_s: float, forget: list[str]
    ) -> Any:
        self._jobs.forget(forget)
        folder = self._jobs.start(self._job(key, cwd, background=False), owner=self._owner)
        return self._jobs.follow(
            folder, after, patience_s=patience_s, answer=self._answer, beat_s=beat_s, beat=self._used
        )

    def do_start(self, key: str, cwd: str) -> Any:
        return int(self._jobs.start(self._job(key, cwd, background=True), owner=self._owner).name)

    def do_output(self, name: str, after: int) -> Any:
        folder = self._jobs.get(name)
        ended, place = self._jobs.ended(folder), after
        while True:
            chunk, place = folder.printed(1, place, INLINE)
            if not chunk:
                return {"place": place, "ended": ended}
            self._answer.chunk(1, chunk)

    def do_wait(self, name: str, timeout_s: float) -> Any:
        return self._jobs.wait(self._jobs.get(name), timeout_s)

    def do_write_input(self, name: str) -> Any:
        with self._content() as content:
            self._jobs.write(self._jobs.get(name), content.read())

    def do_kill(self, name: str, reason: str) -> Any:
        return self._jobs.kill(self._jobs.get(name), reason)

    def do_kill_key(self, key: str, reason: str) -> Any:
        return self._jobs.kill_key(key, self._owner, reason)

    def do_kill_all(self, reason: str) -> Any:
        return self._jobs.kill_owned(self._owner, reason)

    def do_read(self, path: str, offset: int, limit: int | None) -> Any:
        file, real = self._workspace.open(path)
        return self._send(file, real, path, offset=offset, limit=limit)

    def do_read_at(self, snapshot: str, path: str) -> Any:
        real = self._history().find(snapshot, path)
        return self._send(open(real, "rb"), real, path, offset=0, limit=None)

    def do_list_at(self, snapshot: str, path: str, depth: int, limit: int) -> Any:
        return self._history().entries(snapshot, path, depth=depth, limit=limit)

    def do_compare(self, old: str, new: str) -> Any:
        return self._history().compare(old, new)

    def _send(self, file: BinaryIO, real: str, path: str, *, offset: int, limit: int | None) -> Any:
        """Sends a file's bytes along with the answer, or says where to fetch them."""
        with file:
            size = max(0, os.fstat(file.fileno()).st_size - offset)
            wanted = size if limit is None else min(limit, size)
            if wanted > MAX_READ:
                raise Refused(f"{path} has {size} bytes; read a part of it", kind="too_large")
            file.seek(offset)
            if wanted <= INLINE:
                self._answer.chunk(1, file.read(wanted))
                return None
            if offset == 0 and wanted == size:
                return {"at": real, "staged": False}
            with open(self._staged(), "xb") as part:
                while wanted > 0 and (chunk := file.read(min(INLINE, wanted))):
                    part.write(chunk)
                    wanted -= len(chunk)
            return {"at": part.name, "staged": True}

    def do_write(self, path: str, mode: int | None) -> Any:
        with self._content() as content:
            self._workspace.write(path, content, mode=mode)

    def do_list(self, path: str, depth: int, limit: int) -> Any:
        return self._workspace.list(path, depth=depth, limit=limit)

    def do_stat(self, path: str) -> Any:
        return self._workspace.stat(path)

    def do_make_dir(self, path: str) -> Any:
        self._workspace.make_dir(path)

    def do_move(self, source: str, target: str) -> Any:
        self._workspace.move(source, target)

    def do_remove(self, path: str) -> Any:
        self._workspace.remove(path)

    def do_unpack(self, path: str) -> Any:
        with self._content() as content:
            return self._workspace.unpack(content, path)

    def do_pack(self, path: str, most: int) -> Any:
        return self._send_packed(lambda file: self._workspace.pack(path, file), most)

    def do_pack_at(self, snapshot: str, most: int) -> Any:
        return self._send_packed(lambda file: self._history().pack(snapshot, file), most)

    def _send_packed(self, pack: Callable[[BinaryIO], None], most: int) -> Any:
        path = self._staged()
        try:
            with Limited(path, most) as file:
                pack(file)
            if os.path.getsize(path) > INLINE:
                return {"at": path, "staged": True}
            with open(path, "rb") as packed:
                self._answer.chunk(1, packed.read())
        except (Refused, OSError):
            os.unlink(path)
            raise
        os.unlink(path)
        return None

    def do_discard(self, at: str) -> Any:
        if os.path.dirname(at) == os.path.join(self._state, "staged"):
            try:
                os.unlink(at)
            except FileNotFoundError:
                pass

    def do_snapshot(self, label: str) -> Any:
        return self._history().take(label)

    def do_restore(self, snapshot: str) -> Any:
        self._history().restore(snapshot)

    def do_usage(self) -> Any:
        ours = marked(os.path.join(self._state, "jobs") + "/")
        disk = sum(row[2] for row in self._workspace.walk("."))
        return {"memory": sum(map(resident_bytes, ours)), "disk": disk, "processes": len(ours)}

    def do_idle(self) -> Any:
        """How long nobody, whichever worker, has used this sandbox, and what runs in it."""
        used_at = os.stat(self._mark()).st_mtime if os.path.exists(self._mark()) else time.time()
        return {"idle_s": time.time() - used_at, **self._jobs.running()}

    def _job(self, key: str, cwd: str, *, background: bool) -> dict[str, Any]:
        """The payload of `exec` and `start`: what to run."""
        with self._content() as content:
            job = marshal.loads(content.read())
        return {**job, "key": key, "background": background, "cwd": self._workspace.real(cwd)}

    def _content(self) -> BinaryIO:
        """The request's payload: within the request, or a file that was uploaded before."""
        if self._payload["at"] is None:
            return io.BytesIO(self._payload["inline"])
        return open(self._payload["at"], "rb")

    def _staged(self) -> str:
        """Where to put a file for the caller; leftovers of broken transfers are cleared away."""
        folder = os.path.join(self._state, "staged")
        for entry in os.scandir(folder):
            if time.time() - entry.stat(follow_symlinks=False).st_mtime > STAGED_S:
                os.unlink(entry.path)
        return os.path.join(folder, os.urandom(8).hex())

    def _history(self) -> History:
        return History(os.path.join(self._state, "history"), self._workspace)

    def _mark(self) -> str:
        return os.path.join(self._state, "used")

    def _used(self) -> None:
        with open(self._mark(), "w"):
            os.utime(self._mark())


def _make(folder: str, mode: int) -> None:
    """Makes a folder of ours; what commands have put in its place goes aside, or no call would work any more."""
    folder = folder.rstrip("/")
    if os.path.lexists(folder) and not os.path.isdir(folder):
        os.replace(folder, folder + ".aside")
    os.makedirs(folder, mode, exist_ok=True)


class Limited(io.BufferedWriter):
    """A new file that does not grow beyond `most` bytes: files with holes may claim any size."""

    def __init__(self, path: str, most: int) -> None:
        super().__init__(io.FileIO(path, "xb"))
        self._left = most

    def write(self, content: Any) -> int:
        self._left -= len(content)
        if self._left < 0:
            raise Refused("the files are too large to be packed together", kind="too_large")
        return super().write(content)
