"""The server's log: plain warnings, or JSON lines with the id of the request; never data of persons."""

from __future__ import annotations

import datetime as dt
import logging
import sys
from typing import Literal

import msgspec

from penchant.engine import CALLER, trace_of

LogKind = Literal["text", "json"]


class _Lines(logging.Formatter):
    """One line a record. Of an exception its class and place are told, not its message, which may quote data."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one JSON object."""
        moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
        line = {
            "ts": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            **({} if CALLER.get().request_id is None else {"request_id": CALLER.get().request_id}),
            **getattr(record, "facts", {}),
        }
        return msgspec.json.encode(line).decode()


class _Plain(logging.Formatter):
    """As text, under the same rule."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return f"{record.levelname.lower()}: {_message(record)}"


def _message(record: logging.LogRecord) -> str:
    error = record.exc_info[1] if record.exc_info else None
    trace = "" if error is None else "\n" + trace_of(error)
    return record.getMessage() + trace


def configure(kind: LogKind) -> None:
    """Send the logs of this process to standard error.

    Args:
        kind: ``text`` tells warnings and errors; ``json`` tells every request too, one JSON object a line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines() if kind == "json" else _Plain())
    for name in ("penchant", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.WARNING)
    if kind == "json":
        logging.getLogger("penchant.requests").setLevel(logging.INFO)
