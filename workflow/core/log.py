"""Logs: colours on a terminal, JSON lines elsewhere, ids on every line, no secret on any.

One code path: the root logger has one handler, the handler one of two formatters, and both end in the redactor.
Secrets are taken out there and nowhere else, so no library can go round it.
"""

import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TextIO

import colorlog

from workflow.core.config import LogSettings
from workflow.core.redact import Redactor, secret_values

_bound: ContextVar[Mapping[str, str]] = ContextVar("_bound", default=MappingProxyType({}))

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_QUIET = (
    *("httpx", "httpcore", "aiohttp.access", "kombu", "amqp", "LiteLLM", "asyncio", "watchfiles", "uvicorn.error"),
    *("celery.worker.strategy", "celery.app.trace", "celery.worker.consumer.connection"),
)
"""Libraries that report ordinary work at INFO: heard from WARNING on unless the level is DEBUG."""


@contextmanager
def bind(**ids: str) -> Iterator[None]:
    """Puts `ids` (thread_id, run_id, request_id, …) on every record of this task and the tasks it starts."""
    token = _bound.set({**_bound.get(), **ids})
    try:
        yield
    finally:
        _bound.reset(token)


def bound() -> Mapping[str, str]:
    """The ids in force here."""
    return _bound.get()


def configure(
    settings: LogSettings, component: str, *, secrets: Iterable[str] = (), stream: TextIO | None = None
) -> logging.Handler:
    """Makes the root logger write to `stream` (stderr) and gives back its only handler. Call once per process.

    component: `gateway`, `worker`, …; stands on every JSON line. On a terminal the supervisor puts it in front.
    secrets: further values to hide, besides those of environment variables named …KEY, …TOKEN, …SECRET, …PASSWORD.
    """
    stream = stream or sys.stderr
    in_color = settings.format == "color" or (settings.format == "auto" and stream.isatty())
    redactor = Redactor(secret_values(os.environ) | set(secrets))
    handler = _Handler(stream)
    handler.setFormatter(ColorLines(redactor) if in_color else JsonLines(component, redactor))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    set_level(settings.level)
    logging.captureWarnings(True)
    return handler


def set_level(level: str) -> None:
    """From now on, records of `level` and above are written."""
    logging.getLogger().setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.NOTSET if level == "DEBUG" else logging.WARNING)


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:
        """Says where a record failed; logging's own report would print its arguments, secrets and all."""
        error = sys.exc_info()[0]
        if error is None or issubclass(error, OSError):
            return  # nobody reads this stream any more
        self.stream.write(f"unreadable log record of {record.name} at {record.pathname}:{record.lineno}: {error}\n")


class JsonLines(logging.Formatter):
    """One JSON object a line: at, level, logger, component, message, ids, and whatever `extra=` held."""

    def __init__(self, component: str, redactor: Redactor) -> None:
        super().__init__()
        self._component = component
        self._redact = redactor

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "component": self._component,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= _bound.get()
        fields |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = record.stack_info
        # Value by value: in the finished line a mask could swallow the quote that ends a string.
        return json.dumps(self._redact.tree(fields), ensure_ascii=False)


class ColorLines(colorlog.ColoredFormatter):
    """Lines for people: time, level, logger, message, ids."""

    def __init__(self, redactor: Redactor) -> None:
        line = "%(thin)s%(asctime)s%(reset)s %(log_color)s%(levelname)-7s%(reset)s %(name)s: %(message)s"
        super().__init__(line, datefmt="%H:%M:%S", reset=True)
        self._redact = redactor

    def formatMessage(self, record: logging.LogRecord) -> str:
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        ids = " ".join(f"{name}={value}" for name, value in {**_bound.get(), **extra}.items())
        return f"{super().formatMessage(record)}  \033[2m{ids}\033[0m" if ids else super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))
