"""The format of the server's log: one JSON object a line, or text on a terminal; and its rate limit.

Of a message that is logged 10,000 times a second, 10 lines are written and the others counted, so that an
incident neither fills the disk nor costs the processor time that requests need.
"""

import logging
import traceback
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import msgspec
from gunicorn import glogging

MAX_LINES_PER_SECOND = 10
"""of one logger with one message and one `code`, unless the level is debug"""

_STANDARD_ATTRIBUTES = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The fields given as `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD_ATTRIBUTES}


class JsonFormatter(logging.Formatter):
    """time (RFC 3339, UTC), level, logger, pid and message, then the fields given as `extra`."""

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


class TextFormatter(logging.Formatter):
    """gunicorn's format, followed by the fields given as `extra`."""

    def __init__(self) -> None:
        super().__init__(glogging.Logger.error_fmt, glogging.Logger.datefmt)

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items() if value is not None)
        return super().formatMessage(record) + fields


class RateLimitFilter(logging.Filter):
    """Passes MAX_LINES_PER_SECOND of each kind; `dropped` counts the others."""

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
        if self._seen[kind] > MAX_LINES_PER_SECOND:
            self.dropped += 1
            return False
        return True


rate_limit = RateLimitFilter()
"""of this process"""


class Logger(glogging.Logger):
    """gunicorn's logger; all other loggers use its handlers (gunicorn.conf.py)."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            stream = getattr(handler, "stream", None)
            handler.setFormatter(
                TextFormatter() if stream is not None and stream.isatty() else JsonFormatter()
            )
            handler.addFilter(rate_limit)
