"""Log lines on stdout: JSON for machines, text for a terminal, ours and the libraries' alike.

Owns: format, levels of the libraries, the rate limit on their noise, what happens when stdout goes away.
Does not own: what is logged. Events are constant words, facts are fields (`log.info("Uploaded", key=…)`).

Invariants: one line per event. Every JSON line has event, level, timestamp. A log line that cannot be written is
dropped and counted, it never stops or fails the caller; the count is logged once writing works again.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TYPE_CHECKING, Final, TextIO, cast

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping

    from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

NOISE_INTERVAL_SECONDS: Final = 60.0
REMIND_SECONDS: Final = 60.0
# What aiokafka says at each attempt to connect and at each request that has no connection; we tell why there is none
# (`kafka_connection`), once a minute.
_NO_NODE: Final = "Unable connect to node with id %s: %s"
_TOLD: Final = frozenset(
    {
        'Unable connect to "%s:%s": %s',
        'Unable to request metadata from "%s:%s": %s',
        "Unable to update metadata from %s",
    }
)
_NOISE_MEMORY = 256  # templates remembered; libraries have fewer, unless one formats its messages itself

# Never below INFO, whatever LOG_LEVEL says: aiokafka and botocore at DEBUG log requests with their contents. And their
# INFO is told at LOG_LEVEL=DEBUG only: it would bury our own lines.
_QUIETED = ("aiokafka", "aiobotocore", "boto3", "botocore", "asyncio", "aiohttp")
_SILENCED = ("httpx", "httpcore")  # httpx logs whole URLs, query included, at INFO

# The console shows these events as the original system wrote them (design §7): event → field that becomes the text.
_SENTENCES: Final[Mapping[str, tuple[str, str]]] = {
    "Message sent": ("record", "Message sent: {}"),
    "Received message": ("record", "Received message: {}"),
    "Uploaded": ("key", "Uploaded {} to S3"),
}


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger: `.info("Event", field=…)`. `bind` one for a hot path, the binding is the costly part."""
    return cast("FilteringBoundLogger", structlog.get_logger(name))


def configure(level: str, fmt: str, service: str, stream: TextIO | None = None) -> None:
    """Route everything to `stream` (stdout). `fmt`: json, console or auto = console on a terminal, else json."""
    stream = sys.stdout if stream is None else stream
    console = fmt == "console" or (fmt == "auto" and stream.isatty())
    number = logging.getLevelNamesMapping()[level]

    def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    last: list[Processor] = [_add_suppressed, structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if console:
        last += [
            _as_sentence,
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(),
                pad_event_to=0,
                exception_formatter=structlog.dev.plain_traceback,  # the pretty one prints local variables: secrets
            ),
        ]
    else:
        last += [add_service, structlog.processors.format_exc_info, _as_json]

    handler = _StdoutHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=before, processors=last))
    handler.addFilter(NoiseLimit("aiokafka"))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _StdoutHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(number)
    for library in _QUIETED:
        logging.getLogger(library).setLevel(logging.INFO if number == logging.DEBUG else max(number, logging.WARNING))
    for library in _SILENCED:
        logging.getLogger(library).setLevel(max(number, logging.WARNING))
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


class NoiseLimit(logging.Filter):
    """Lets one record per logger and template pass in NOISE_INTERVAL_SECONDS, of the loggers below `prefix`.

    The next one that passes says how many did not (`suppressed`); a last few may stay untold.
    """

    def __init__(self, prefix: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._prefix = prefix
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}  # → when one passed last, how many did not since

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record may pass."""
        if record.name != self._prefix and not record.name.startswith(self._prefix + "."):
            return True
        if _is_told(record):
            return False
        key = (record.name, str(record.msg))
        now = self._clock()
        passed, suppressed = self._seen.pop(key, (-float("inf"), 0))
        if now - passed < NOISE_INTERVAL_SECONDS:
            self._seen[key] = (passed, suppressed + 1)
            return False
        if suppressed:
            record.suppressed = suppressed
        self._seen[key] = (now, 0)
        if len(self._seen) > _NOISE_MEMORY:
            self._seen.pop(next(iter(self._seen)))
        return True


def _is_told(record: logging.LogRecord) -> bool:
    template = str(record.msg)
    words = record.args if isinstance(record.args, tuple) else ()
    errors = {type(word).__name__ for word in words}
    no_node = template == _NO_NODE and "KafkaConnectionError" in errors
    return template in _TOLD or no_node or "NodeNotReadyError" in errors


class Reminders:
    """For what is found out again and again: `due` when it is new, and then once in REMIND_SECONDS while it lasts."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[tuple[str, ...], float] = {}

    def due(self, *fact: str) -> bool:
        """Whether to tell it now; then it counts as told."""
        now = self._clock()
        self._told = {other: at for other, at in self._told.items() if now - at < REMIND_SECONDS}
        if fact in self._told:
            return False
        self._told[fact] = now
        return True

    def over(self) -> None:
        """Nothing lasts any more: whatever is found out next is new."""
        self._told.clear()


class _StdoutHandler(logging.Handler):
    """Writes lines to a stream that may go away: a closed pipe or a full disk costs the lines, nothing else."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lost = 0
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a terminal's encoding must not be able to refuse a record
            reconfigure(errors="backslashreplace")

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        lost, self._lost = self._lost, 0
        if lost:
            note = logging.LogRecord(__name__, logging.WARNING, __file__, 0, "Log lines lost: %d", (lost,), None)
            line = f"{self.format(note)}\n{line}"
        try:
            self._stream.write(f"{line}\n")
            self._stream.flush()
        except (OSError, ValueError) as error:  # ValueError: closed by ourselves
            if not lost:
                _complain(error)
            self._lost = lost + 1


def _complain(error: Exception) -> None:
    try:
        sys.stderr.write(f"ticklake: stdout cannot be written ({error}); going on without log lines\n")
        sys.stderr.flush()
    except (OSError, ValueError):  # gone too: nobody is left to be told
        pass


def _add_suppressed(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    suppressed = getattr(event.get("_record"), "suppressed", None)
    if suppressed is not None:
        event["suppressed"] = suppressed
    return event


def _as_sentence(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    field, sentence = _SENTENCES.get(str(event["event"]), ("", ""))
    if field in event:
        event["event"] = sentence.format(_plain(event.pop(field)))
    event.pop("service", None)
    return event


def _as_json(_logger: WrappedLogger, _method: str, event: MutableMapping[str, object]) -> str:
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    line = {**first, **event}
    try:
        return json.dumps(line, default=_plain, allow_nan=False)
    except (TypeError, ValueError):  # an odd key, NaN, a loop: better shown than lost
        return json.dumps({str(key): value if type(value) is str else repr(value) for key, value in line.items()})


def _plain(value: object) -> object:
    """Bytes as the text they are; dicts and lists as they are; anything else by its own words."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    return value if isinstance(value, dict | list) else str(value)
