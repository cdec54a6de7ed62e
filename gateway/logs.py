"""Logs for the operator: one line an event, its fields as key=value.  Logs are not evidence; the audit log is."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _Line(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        words = [moment, record.levelname.lower(), record.name.removeprefix("gateway."), record.getMessage()]
        words += [f"{key}={json.dumps(value, default=str)}" for key, value in fields.items()]
        line = " ".join(words)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def set_up(level: str) -> None:
    """Log to stderr.  Libraries are heard only when something is wrong: asyncssh alone says a dozen lines a login."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Line())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("gateway").setLevel(level.upper())
    logging.getLogger("asyncssh").setLevel(logging.ERROR)
    # An exporter whose receiver is down says so at every batch; once a minute is enough to know.
    logging.getLogger("opentelemetry").addFilter(_once_a_minute())
    for name in ("opentelemetry.exporter", "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.grpc.exporter"):
        logging.getLogger(name).addFilter(_once_a_minute())


class _once_a_minute(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._last = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.created - self._last < 60:
            return False
        self._last = record.created
        return True
