"""The lines of all parts on one stream: with the part's name in front for people, as JSON lines for programs."""

import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from typing import TextIO

from workflow.core.config import LogSettings
from workflow.core.redact import Redactor, secret_values

_COLORS = {"gateway": 36, "worker": 35, "redis": 33, "stack": 32}


class Output:
    """Writes what parts and supervisor say. The parts redact their own logs; raw lines are redacted here."""

    def __init__(self, stream: TextIO, settings: LogSettings) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self.as_json = settings.format == "json" or (settings.format == "auto" and not self._is_terminal)
        self._redact = Redactor(secret_values(os.environ))

    def line(self, part: str, raw: bytes) -> None:
        """One line that `part` wrote."""
        text = raw.decode("utf-8", "backslashreplace").rstrip()
        if not text:
            return
        if not self.as_json:
            self._write(f"{self._name(part)} {self._redact(text)}")
        elif text.startswith("{") and text.endswith("}"):
            self._write(text)  # a JSON line of one of our own formatters
        else:
            self._write_json(part, "INFO", text)

    def say(self, text: str, *, level: str = "INFO") -> None:
        """A word of the supervisor's own."""
        if self.as_json:
            self._write_json("stack", level, text)
        else:
            self._write(f"{self._name('stack')} {self._redact(text)}")

    def show(self, lines: list[str]) -> None:
        """A block for people; one record for programs."""
        if self.as_json:
            self._write_json("stack", "INFO", "; ".join(line.strip() for line in lines if line.strip()))
        else:
            self._write("\n".join(lines))

    def _write_json(self, part: str, level: str, text: str) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        record = {"at": at, "level": level, "component": part, "logger": "stack", "message": self._redact(text)}
        self._write(json.dumps(record, ensure_ascii=False))

    def _write(self, text: str) -> None:
        # A reader that left or a full disk must not stop the stack: the parts would block on their full pipes.
        with suppress(OSError):
            self._stream.write(f"{text}\n")
            self._stream.flush()

    def _name(self, part: str) -> str:
        padded = f"{part:<9}│"
        return f"\033[{_COLORS.get(part.split('-')[0], 34)}m{padded}\033[0m" if self._is_terminal else padded
