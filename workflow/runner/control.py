"""How a run is told to stop from outside its own task."""

import asyncio
from dataclasses import dataclass, field
from typing import Literal

Reason = Literal["", "cancel", "release", "lost"]


@dataclass(slots=True)
class Control:
    """Stops one run's task, once, and remembers why."""

    reason: Reason = ""
    _task: asyncio.Task[object] | None = field(default=None, repr=False)

    def bind(self, task: asyncio.Task[object]) -> None:
        """Names the task to stop; stops it at once if that was asked for already."""
        self._task = task
        if self.reason:
            task.cancel()

    def stop(self, reason: Reason) -> None:
        """`cancel`: somebody asked; `release`: the worker goes; `lost`: another worker owns the run.

        The first reason stands, except that a lost lease overrules all.
        """
        if self.reason and reason != "lost":
            return
        first = not self.reason
        self.reason = reason
        if first and self._task is not None:
            self._task.cancel()

    def unbind(self) -> None:
        """From now on nothing stops the task: its run is about to end or to be given back."""
        self._task = None
