"""The log: a line for each request, and what else is told, as JSON or as text."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from serving.metrics import Meters
from serving.settings import Format, Settings

ID: ContextVar[str] = ContextVar("request id", default="")

_ROOMS = ("serving", "cluster", "genimg")  # loggers
_WHOLE = 4096  # bytes of a line: as many come whole through a pipe that several write to (PIPE_BUF)
_STDOUT = 1


class Lines:
    """Lines, each written at once and never waited for: what nobody takes is lost, and counted.

    Several processes may write to one file or pipe; none cuts into another's line.
    """

    def __init__(
        self, format: Format, file: str | None = None, lost: Callable[[], None] = lambda: None
    ) -> None:
        """file: is appended to; None: the process's standard output. Raises OSError."""
        self.as_text = format == "text"
        self.lost = lost
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
        self._out = _STDOUT if file is None else os.open(file, flags, 0o600)

    def write(self, fields: Mapping[str, Any]) -> None:
        """A line of some fields, after the time."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = _text(now, fields) if self.as_text else _json({"time": now, **fields})
        data = line.encode("utf-8", "replace")
        if len(data) >= _WHOLE:
            data = data[: _WHOLE - 1] if self.as_text else _json(_cut(now, fields)).encode()
        try:
            os.write(self._out, data + b"\n")
        except OSError:  # full, or its reader has gone
            self.lost()

    def close(self) -> None:
        if self._out != _STDOUT:
            os.close(self._out)


def _json(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, separators=(",", ":"))


def _text(now: str, fields: Mapping[str, Any]) -> str:
    return " ".join([now, *(f"{name}={_word(value)}" for name, value in fields.items())])


def _word(value: Any) -> str:
    """A value without what could be taken for another, or for another line."""
    text = str(value)
    return text if text.isprintable() and not set(' "=') & set(text) else json.dumps(text)


def _cut(now: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with the ends of texts alone: of a traceback that is what matters."""
    return {"time": now} | {
        name: value[-400:] if isinstance(value, str) else value for name, value in fields.items()
    }


class Handler(logging.Handler):
    """What our loggers say, with the id of the request that it is about."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        fields = {"level": record.levelname.lower(), "logger": record.name}
        fields |= {"request_id": ID.get()} if ID.get() else {}
        fields["message"] = record.getMessage()
        if record.exc_info:
            fields["traceback"] = logging.Formatter().formatException(record.exc_info)
        self.lines.write(fields)


def opened(settings: Settings, meters: Meters) -> Lines | None:
    """Where a replica writes, with all that its loggers say from INFO on; None: as Ray does."""
    if settings.log_format is None:
        return None
    lines = Lines(settings.log_format, settings.log_file, meters.lines_lost.inc)
    handler = Handler(lines)
    for room in _ROOMS:
        logging.getLogger(room).addHandler(handler)
        logging.getLogger(room).setLevel(logging.INFO)
    return lines
