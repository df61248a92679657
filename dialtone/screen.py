"""Where a command writes: readable text or JSON Lines, on a terminal or into a pipe."""

import json
import os
import shutil
import sys
from typing import Any, TextIO

from pydantic import BaseModel

from dialtone.items import StreamItem, write_item
from dialtone.paint import Paint, wants_color
from dialtone.view import View, ViewOptions

PIPED_WIDTH = 120


class Screen:
    """Standard output as one command uses it. Every write is flushed: a reader at the other end follows live."""

    def __init__(self, out: TextIO, *, as_json: bool = False, reasoning: bool = False) -> None:
        self._out = out
        self.as_json = as_json
        self.is_terminal = out.isatty()
        color = wants_color(self.is_terminal, os.environ)
        self.width = shutil.get_terminal_size((PIPED_WIDTH, 24)).columns if self.is_terminal else PIPED_WIDTH
        self.paint = Paint(color)
        self._view = View(ViewOptions(color=color, width=self.width, reasoning=reasoning))

    def show(self, item: StreamItem) -> None:
        """One item of a stream."""
        self._write(f"{write_item(item)}\n" if self.as_json else self._view.feed(item))

    def line(self, text: str) -> None:
        """One line beside the view; nothing in JSON mode. The text must be safe already."""
        if not self.as_json:
            self._write(f"{self._view.close()}{text}\n")

    def record(self, record: BaseModel, text: str) -> None:
        """One record: as JSON, or as the line that stands for it."""
        self._write(f"{record.model_dump_json() if self.as_json else text}\n")

    def raw(self, fields: dict[str, Any]) -> None:
        """One JSON object, whatever the mode."""
        self._write(f"{json.dumps(fields, ensure_ascii=False)}\n")

    def close(self) -> None:
        """Ends the line that is open."""
        if not self.as_json:
            self._write(self._view.close())

    def _write(self, text: str) -> None:
        if text:
            self._out.write(text)
            self._out.flush()


def prepare(stream: TextIO) -> TextIO:
    """`stream`, made to replace what its encoding cannot write instead of failing in the middle of a run."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")
    return stream


def complain(text: str) -> None:
    """One line on standard error."""
    print(f"dialtone: {text}", file=sys.stderr, flush=True)
