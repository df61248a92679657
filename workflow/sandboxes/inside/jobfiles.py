"""Where a command's state is kept in the sandbox: one folder per job, readable by every later call.

`job` what it is, `held` made by its one supervisor, `lock` held by that as long as it lives, `pid` of it, `kill` why it
is to end, `1.<place>` and `2.<place>` what it printed from that place on, `in` a pipe to its input, `ended` how it
ended.
"""

from __future__ import annotations

import fcntl
import marshal
import os

# What only a type checker needs is not imported: a call should cost the start of Python and little more.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BACKGROUND_KEPT = 1_000_000
"""A background job's output is kept in two files of this size; the older one goes first."""


class JobFolder:
    """One job's folder, made by `JobFolder.make`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = -1

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    @property
    def mark(self) -> str:
        """What its processes carry. Ends with a slash, for the mark of job 1 is not to be found in that of job 10."""
        return f"{self.path}/"

    def describe(self) -> dict[str, Any]:
        """What `make` was given; empty when the folder is being made or removed just now."""
        job: dict[str, Any] = self._load("job") or {}
        return job

    def ended(self) -> dict[str, Any] | None:
        """{code, killed_by, why}; None while it runs."""
        ended: dict[str, Any] | None = self._load("ended")
        return ended

    def end(self, code: int, killed_by: str, *, why: str = "") -> None:
        self.put("ended", marshal.dumps({"code": code, "killed_by": killed_by, "why": why}))

    def hold(self) -> bool:
        """To be called by a supervisor: from now on it counts as alive. False: the job has one, or is over."""
        try:
            os.close(os.open(f"{self.path}/held", os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except (FileExistsError, FileNotFoundError):
            return False
        self._lock = os.open(f"{self.path}/lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.put("pid", str(os.getpid()).encode())
        return self.ended() is None

    def is_alive(self) -> bool:
        """Whether its supervisor lives. By lock, not by number: numbers come back after a reboot."""
        try:
            fd = os.open(f"{self.path}/lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(fd)

    def supervisor(self) -> int:
        return int(self.read("pid") or b"0")

    def kill_reason(self) -> str:
        return self.read("kill").decode()

    def open_input(self) -> int:
        """The reading end of the job's input; held for writing as well, so that it does not end between two writers."""
        os.mkfifo(f"{self.path}/in", 0o600)
        return os.open(f"{self.path}/in", os.O_RDWR | os.O_CLOEXEC)

    def printed(self, stream: int, after: int, limit: int) -> tuple[bytes, int]:
        """At most `limit` bytes that came after place `after`, as far as they are kept, and the place behind them."""
        prefix = f"{stream}."
        places = sorted(int(name[len(prefix) :]) for name in os.listdir(self.path) if name.startswith(prefix))
        for place, following in zip(places, [*places[1:], None]):
            if following is not None and after >= following:
                continue
            start = max(after, place)
            try:
                with open(f"{self.path}/{prefix}{place}", "rb") as file:
                    file.seek(start - place)
                    chunk = file.read(limit)
            except FileNotFoundError:  # the older file was dropped just now
                continue
            return chunk, start + len(chunk)
        return b"", after

    def _load(self, name: str) -> Any:
        content = self.read(name)
        return marshal.loads(content) if content else None

    def read(self, name: str) -> bytes:
        try:
            with open(f"{self.path}/{name}", "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return b""

    def put(self, name: str, content: bytes) -> None:
        with open(f"{self.path}/.{name}", "wb") as file:
            file.write(content)
        os.rename(f"{self.path}/.{name}", f"{self.path}/{name}")

    def remove(self) -> None:
        try:
            for name in os.listdir(self.path):
                os.unlink(f"{self.path}/{name}")
            os.rmdir(self.path)
        except FileNotFoundError:  # somebody else removes it, too
            pass


class Printed:
    """What one stream of a job printed, on its way into files. keep: 0 for all of it."""

    def __init__(self, folder: JobFolder, stream: int, *, keep: int) -> None:
        self.total = 0
        self._folder, self._stream, self._keep = folder, stream, keep
        self._starts: list[int] = []
        self._fd = -1
        self._begin()

    def add(self, chunk: bytes) -> None:
        if self._keep and self.total - self._starts[-1] >= self._keep:
            os.close(self._fd)
            self._begin()
        view = memoryview(chunk)
        while view:
            view = view[os.write(self._fd, view) :]
        self.total += len(chunk)

    def _begin(self) -> None:
        self._starts.append(self.total)
        path = f"{self._folder.path}/{self._stream}."
        self._fd = os.open(f"{path}{self.total}", os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if len(self._starts) > 2:
            os.unlink(f"{path}{self._starts.pop(0)}")
