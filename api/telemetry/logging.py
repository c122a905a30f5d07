"""How the server's log looks: a JSON object a line, or, on a terminal, text for the eye.

Whatever happens ten thousand times in a second is told ten times in that second, and then counted: trouble
must not fill the disk, nor take the processor from those who could still be served.
"""

import logging
import traceback
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import msgspec
from gunicorn import glogging

MOST = 10
"""lines a second of one logger with one message and one `code`, unless the level is debug"""

_ORDINARY = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What `extra` has given."""
    return {name: value for name, value in vars(record).items() if name not in _ORDINARY}


class Json(logging.Formatter):
    """time (RFC 3339, UTC), level, logger, pid and message; then what there is of further fields."""

    _encoder = msgspec.json.Encoder(enc_hook=str)

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info and record.exc_info[0]:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return self._encoder.encode(line).decode()


class Text(logging.Formatter):
    """gunicorn's own format, and the fields after it."""

    def __init__(self) -> None:
        super().__init__(glogging.Logger.error_fmt, glogging.Logger.datefmt)

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items() if value is not None)
        return super().formatMessage(record) + fields


class Ration(logging.Filter):
    """At most MOST lines a second of one kind. `dropped` is how many there were beyond."""

    def __init__(self) -> None:
        super().__init__()
        self.dropped = 0
        self._second = 0
        self._seen: Counter[tuple[str, str, str]] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.INFO:
            return True
        if int(record.created) != self._second:
            self._second = int(record.created)
            self._seen.clear()
        kind = (record.name, str(record.msg), getattr(record, "code", ""))
        self._seen[kind] += 1
        if self._seen[kind] > MOST:
            self.dropped += 1
            return False
        return True


ration = Ration()
"""of this process"""


class Logger(glogging.Logger):  # type: ignore[misc]
    """gunicorn's, for all that the server logs: its handlers become everybody's (gunicorn.conf.py)."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            stream = getattr(handler, "stream", None)
            handler.setFormatter(Text() if stream is not None and stream.isatty() else Json())
            handler.addFilter(ration)
