"""What all cloud functions have in common: what wakes which step, what is tried again, a JSON object a log line.

A platform delivers an event again if its function raises. So what may succeed later raises; what never can (a payload
that names no object, an object that is not what its key promises and, created once, never will be) is logged once and
acknowledged, or it would come back for a day.

This module imports nothing that takes long: a bucket's every object wakes its function, and most ask for nothing.
"""

import json
import logging
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any

from exchange import keys
from exchange.errors import InvalidDocument, InvalidEvent, InvalidTensorFile
from exchange.events import ObjectCreated

log = logging.getLogger(__name__)

STEPS: Mapping[type, str] = {
    keys.Model: "publish",
    keys.Update: "record",
    keys.Receipt: "aggregate",
    keys.Ticket: "train",
}
_NEVER = (InvalidDocument, InvalidEvent, InvalidTensorFile)
_context: ContextVar[dict[str, Any] | None] = ContextVar("context", default=None)


@dataclass(frozen=True)
class Side:
    """What the functions of one party do: the parent's or a client's.

    Attributes:
        client: which client it is; None for the parent.
        bucket: the URL of the bucket whose objects wake it; None if none do.
        handle: does what an object's creation asks for.
        sweep: makes whatever is missing; takes the id of the timer's firing.
    """

    client: str | None
    bucket: str | None
    handle: Callable[[ObjectCreated], None]
    sweep: Callable[[str], None]


def on_object(scheme: str, read: Callable[[], Sequence[ObjectCreated]], side: Callable[[], Side]) -> None:
    """Do what a delivered event asks for; an exception asks the platform to deliver it again.

    Args:
        scheme: what stands before `://` in the URL of the cloud's buckets.
        read: parses the payload.
        side: opens the party's stores; called only for an object that wakes something.
    """
    try:
        events = read()
    except InvalidEvent as error:
        log.error("InvalidEvent: acknowledged, for it can never be handled: %s", error)
        return
    for event in events:
        key = keys.parse(event.key)
        if key is not None and (step := STEPS.get(type(key))) is not None:
            with _logged(step, event=event.id, **asdict(key)):
                _handle(f"{scheme}://{event.bucket}", event, _opened(side))


def on_timer(side: Callable[[], Side]) -> None:
    """Make whatever is missing; an exception says that some of it could not be made."""
    firing = f"timer:{uuid.uuid4().hex}"
    with _logged("sweep", event=firing):
        _opened(side).sweep(firing)


def log_as_json(level: int = logging.INFO) -> None:
    """Write each log record as one JSON object, wherever the platform takes its log lines from.

    Cloud Logging reads `severity`, `message` and `time` from such a line and keeps the rest as fields; Application
    Insights keeps the line as the trace's message, for parse_json().
    """
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.StreamHandler(sys.stdout))
    for handler in root.handlers:
        handler.setFormatter(JsonLines())
    root.setLevel(level)
    for chatty in ("azure", "google", "urllib3", "botocore"):  # a line a request, and of headers
        logging.getLogger(chatty).setLevel(logging.WARNING)


class JsonLines(logging.Formatter):
    """One JSON object a record, with what is known of the step in which it was written."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "severity": record.levelname,
            "message": record.getMessage(),
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z",
            "logger": record.name,
        }
        line |= (_context.get() or {}) | getattr(record, "fields", {})
        if record.exc_info:
            line["stack_trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)

    converter = staticmethod(time.gmtime)


def _handle(bucket: str, event: ObjectCreated, side: Side) -> None:
    if side.bucket is None or bucket != side.bucket.rstrip("/"):  # as open_store reads its URL
        log.error("acknowledged, for it is none of ours: an object in %s, this function serves %s", bucket, side.bucket)
        return
    try:
        side.handle(event)
    except _NEVER as error:
        log.error("%s: acknowledged, for it can never be handled: %s", type(error).__name__, error)


def _opened(side: Callable[[], Side]) -> Side:
    """Open the party's stores, and have the lines say which client it is."""
    opened = side()
    if opened.client is not None:
        _context.set({**(_context.get() or {}), "client": opened.client})
    return opened


@contextmanager
def _logged(step: str, **known: Any) -> Iterator[None]:
    """Have every line within say what it belongs to, and write one at the end with the seconds that it took."""
    token = _context.set({"step": step, **known})
    began = time.monotonic()  # noqa: TID251 - an edge: the log
    try:
        yield
    except Exception as error:
        _log_end(logging.ERROR, began, "failed", f"{step} failed: {_in_words(error)}")
        raise
    else:
        _log_end(logging.INFO, began, "done", f"{step} done")
    finally:
        _context.reset(token)


def _log_end(level: int, began: float, outcome: str, message: str) -> None:
    seconds = round(time.monotonic() - began, 3)  # noqa: TID251
    log.log(level, "%s", message, extra={"fields": {"seconds": seconds, "outcome": outcome}})


def _in_words(error: BaseException) -> str:
    """Return the class and text of an error, or of all that a group holds; alerts look for the class."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(map(_in_words, error.exceptions))
    return f"{type(error).__name__}: {error}"
