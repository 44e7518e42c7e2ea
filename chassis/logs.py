"""Log lines: an event with fields; JSON in production, readable in a terminal. Never payloads or secrets."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, Literal

from chassis import ending

Style = Literal["auto", "json", "text"]  # auto: text when stderr is a terminal
Level = Literal["debug", "info", "warning", "error"]  # least level that is written
_RESERVED = "headwater_fields"


class Log:
    """A named logger whose lines are events with fields: `log.info("batch_stored", points=n)`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def info(self, event: str, **fields: Any) -> None:
        """Say that something ordinary happened."""
        self._logger.info(event, extra={_RESERVED: fields})

    def warning(self, event: str, **fields: Any) -> None:
        """Say that something odd was handled."""
        self._logger.warning(event, extra={_RESERVED: fields})

    def error(self, event: str, **fields: Any) -> None:
        """Say that a person should look."""
        self._logger.error(event, extra={_RESERVED: fields})

    def fault(self, event: str, **fields: Any) -> None:
        """Say that an exception reached the edge of a thread or request; called while it is handled.

        One that says that memory has run out ends the process instead.
        """
        ending.end_if_short(sys.exception())
        self.trace(event, **fields)

    def trace(self, event: str, **fields: Any) -> None:
        """Say that an exception was answered, and where it came from; called while it is handled."""
        self._logger.exception(event, extra={_RESERVED: fields})  # noqa: LOG004 - callers are handlers


def get(name: str) -> Log:
    """Give the logger of a module."""
    return Log(name)


def configure(service: str, *, style: Style = "auto", level: Level = "info") -> None:
    """Send all log lines of this process to stderr; each carries the service's name."""
    as_json = style == "json" or (style == "auto" and not sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines(service) if as_json else _TextLines(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("urllib3", "alembic", "geventwebsocket"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class _JsonLines(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= getattr(record, _RESERVED, {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class _TextLines(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={value}" for key, value in getattr(record, _RESERVED, {}).items())
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        text = f"{clock} {record.levelname.lower():7} {self._service}: {record.getMessage()} {fields}".rstrip()
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text
