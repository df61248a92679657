"""The calls about commands: start, follow, wait, write to, kill. Each may be repeated without doing anything twice."""

from __future__ import annotations

import marshal
import os
import select
import time

from workflow.sandboxes.inside.answers import CHUNK, Answer, Refused
from workflow.sandboxes.inside.jobfiles import JobFolder
from workflow.sandboxes.inside.processes import SIGCONT, SIGTERM, descendants, end_all, marked, send
from workflow.sandboxes.inside.supervisor import KILLED, MAX_FD, NOT_STARTED, supervise

# What only a type checker needs is not imported: a call should cost the start of Python and little more.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.002, 0.05
LATE_S = 2.0
"""A supervisor that lets its command run longer than this beyond its time does not do its work: it was stopped."""
READY_S = 3.0
"""So long a call waits for the command to be started; it may be slow, or have stopped its supervisor already."""
START_S = 5.0
"""A job without a supervisor after this was never started, or has lost it: killed from inside, or a reboot."""
KILL_S = 1.0
FORGOTTEN_S = 60.0
"""What another worker's ended command printed is kept this long: that worker may be about to read it."""


class Jobs:
    """The jobs below one folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        os.makedirs(folder, mode=0o700, exist_ok=True)

    def start(self, job: dict[str, Any], *, owner: str) -> JobFolder:
        """Starts `job`, unless a job with this key was started before.

        Commands of other owners in the foreground are ended first: their worker has lost this thread.
        """
        if not os.path.isdir(job["cwd"]):
            raise Refused(f"{job['cwd']} is not a folder", kind="not_a_directory")
        if not job["background"]:
            self._end_strangers(owner)
        folder, _ = self._make(job, owner)
        # Also when it was made before: that call may have been cut off on its way here. One supervisor gets it.
        if folder.ended() is None and not folder.supervisor():
            _begin(folder, job)
        return folder

    def get(self, name: str) -> JobFolder:
        folder = JobFolder(os.path.join(self._folder, name))
        if not name or "/" in name or not folder.describe():
            raise Refused(f"no process {name}", kind="no_such_process")
        return folder

    def follow(
        self,
        folder: JobFolder,
        after: list[int],
        *,
        patience_s: float | None,
        answer: Answer,
        beat_s: float,
        beat: Callable[[], None],
    ) -> Any:
        """Prints what comes after these places until the job has ended or patience is over; how it ended, or None."""
        places = {1: after[0], 2: after[1]}
        deadline = None if patience_s is None else time.monotonic() + patience_s
        late = folder.describe()["due"] + LATE_S
        pauses, next_beat = _pauses(), time.monotonic() + beat_s
        while True:
            ended = self.ended(folder)  # asked first: what was printed before the end is in the files then
            quiet = True
            for stream, place in places.items():
                chunk, places[stream] = folder.printed(stream, place, CHUNK)
                answer.chunk(stream, chunk)
                quiet = quiet and not chunk
            if not quiet:
                pauses = _pauses()
                continue
            now = time.monotonic()
            if ended is None and now > late:
                self.kill(folder, "timeout")
                continue
            if ended is not None or (deadline is not None and now >= deadline):
                return ended
            if now >= next_beat:
                answer.beat()
                beat()
                next_beat = now + beat_s
            time.sleep(next(pauses))

    def wait(self, folder: JobFolder, timeout_s: float) -> Any:
        """How it ended, or None when it still runs after `timeout_s`."""
        deadline, pauses = time.monotonic() + timeout_s, _pauses()
        while (ended := self.ended(folder)) is None and time.monotonic() < deadline:
            time.sleep(min(next(pauses), max(0.0, deadline - time.monotonic())))
        return ended

    def ended(self, folder: JobFolder) -> Any:
        """{code, killed_by}; None while it runs or is about to."""
        ended = folder.ended()
        if ended is None and not folder.is_alive():
            ended = folder.ended()
            if ended is None and time.time() - _made_at(folder) > START_S:
                return self.kill(folder, folder.kill_reason() or "lost")  # another call may be ending it just now
        return ended

    def write(self, folder: JobFolder, content: bytes, *, timeout_s: float = 5.0) -> None:
        """Sends to the job's input. Raises: Refused if nobody reads there."""
        deadline = time.monotonic() + timeout_s
        try:
            fd = os.open(f"{folder.path}/in", os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            raise Refused(f"process {folder.name} does not read its input", kind="not_reading") from error
        with open(fd, "wb", buffering=0) as pipe:
            view = memoryview(content)
            while view:
                written = pipe.write(view) or 0
                view = view[written:]
                if not written:
                    if time.monotonic() > deadline:
                        raise Refused(f"process {folder.name} does not read its input", kind="not_reading")
                    time.sleep(LONGEST_PAUSE_S)

    def kill(self, folder: JobFolder, reason: str) -> Any:
        """Ends the job with everything it started; how it ended."""
        if folder.is_alive():
            folder.put("kill", reason.encode())
            send(folder.supervisor(), SIGTERM)
            send(folder.supervisor(), SIGCONT)  # its command may have stopped it
            deadline, pauses = time.monotonic() + KILL_S, _pauses()
            while folder.is_alive() and time.monotonic() < deadline:
                time.sleep(next(pauses))
        if folder.is_alive():
            _end_supervised(folder)
        if folder.ended() is None:  # it left no word, and perhaps more
            end_all(lambda: marked(folder.mark))
            folder.end(KILLED, reason)
            if folder.is_alive():  # a supervisor that came just then, before it could see that
                _end_supervised(folder)
        return folder.ended()

    def kill_key(self, key: str, owner: str, reason: str) -> Any:
        """Ends a foreground job; one that is still on its way will find itself ended."""
        folder, is_new = self._make({"key": key, "background": False}, owner)
        if is_new:
            folder.end(KILLED, reason)
        return self.kill(folder, reason)

    def kill_owned(self, owner: str, reason: str) -> int:
        """Ends all jobs of one owner; how many."""
        running = [job for job in self.all() if job.describe().get("owner") == owner and job.ended() is None]
        for folder in running:
            self.kill(folder, reason)
        return len(running)

    def forget(self, names: list[str]) -> None:
        """Removes jobs that have ended and been read."""
        for name in names:
            folder = JobFolder(os.path.join(self._folder, os.path.basename(name)))
            if folder.ended() is not None:
                folder.remove()

    def running(self) -> dict[str, int]:
        """How many run in the foreground and in the background."""
        alive = [folder for folder in self.all() if folder.ended() is None and folder.is_alive()]
        background = sum(bool(folder.describe().get("background")) for folder in alive)
        return {"foreground": len(alive) - background, "background": background}

    def all(self) -> list[JobFolder]:
        return [JobFolder(os.path.join(self._folder, name)) for name in os.listdir(self._folder)]

    def _make(self, job: dict[str, Any], owner: str) -> tuple[JobFolder, bool]:
        """The job's folder and whether it is new. Background jobs are numbered, others have their key as name."""
        due = time.monotonic() + (job.get("timeout_s") or 1e9)
        what = {"owner": owner, "key": job["key"], "background": job["background"], "due": due}
        number = 0
        if job["background"]:
            for known in self.all():
                if known.describe().get("key") == job["key"]:
                    return known, False
                number = max(number, int(known.name) if known.name.isdigit() else 0)
        while True:
            number += 1
            folder = JobFolder(os.path.join(self._folder, str(number) if job["background"] else job["key"]))
            try:
                os.mkdir(folder.path, 0o700)
            except FileExistsError:
                if job["background"]:
                    continue
                return folder, False
            folder.put("job", marshal.dumps(what))
            return folder, True

    def _end_strangers(self, owner: str) -> None:
        for folder in self.all():
            job = folder.describe()
            if job and job["owner"] != owner and not job["background"]:
                if folder.is_alive():
                    self.kill(folder, "taken_over")
                elif time.time() - _made_at(folder) > FORGOTTEN_S:
                    folder.remove()


def _begin(folder: JobFolder, job: dict[str, Any]) -> None:
    """Leaves a supervisor behind that belongs to nobody; returns once the command is started."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.setsid()
            if os.fork() == 0:
                null = os.open(os.devnull, os.O_RDWR)
                for fd in (0, 1, 2):
                    os.dup2(null, fd)
                # Some services' shells hand on more than that, the call's own output among it.
                os.closerange(3, writing)
                os.closerange(writing + 1, MAX_FD)
                os.chdir("/")
                try:
                    supervise(folder, job, ready=writing)
                except OSError as error:
                    folder.end(NOT_STARTED, "lost", why=str(error))
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    select.select([reading], [], [], READY_S)
    os.close(reading)


def _end_supervised(folder: JobFolder) -> None:
    """Kills the supervisor and what is below it."""
    supervisor = folder.supervisor()
    end_all(lambda: descendants(supervisor) + [supervisor] * folder.is_alive())


def _made_at(folder: JobFolder) -> float:
    try:
        return os.stat(folder.path).st_ctime
    except FileNotFoundError:
        return 0.0


def _pauses() -> Iterator[float]:
    """Short at first, since most commands end at once, then longer."""
    pause = FIRST_PAUSE_S
    while True:
        yield pause
        pause = min(pause * 1.5, LONGEST_PAUSE_S)
