"""Where objects live: the key template, rendered and parsed, and the names of everything else below the prefix.

Owns: the template's grammar, key(partition, start, timestamp), its inverse, the calendar fields, file extensions and
content types. Does not own: who puts what there (`chain`, `layout`).

Invariants: a key is a function of topic, partition, start offset and the raw timestamp of the first record at or after
it, and of nothing else, so two writers that start at the same offset render the same key; parse(render(x)) == x.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_KEY_BYTES: Final = 1024  # S3: "object key length limit", User Guide, "Naming Amazon S3 objects"
OWN_FOLDER: Final = "_ticklake/"  # hidden from Hive, Spark and Athena by its underscore

_MAX_TIMESTAMP_MS: Final = 253402300799999  # 9999-12-31T23:59:59.999Z
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_EPOCH: Final = date(1970, 1, 1)
_INTEGERS: Final = frozenset({"partition", "start", "hour", "unix"})
_TEXTS: Final = {"topic": "", "dt": "[0-9]{4}-[0-9]{2}-[0-9]{2}", "ext": ""}
_FIELD = re.compile(r"\{([^{}:]*)(?::([^{}]*))?\}")
_QUARANTINE_NAME = re.compile(r"([0-9]{5,})-([0-9]{20})-([0-9]{20})-[0-9a-f]{16}\.jsonl\.gz")
_WIDEST: Final = {"partition": 10, "start": 19, "hour": 2, "unix": 12}  # digits

CONTENT_TYPES: Final = {
    "jsonl": "application/x-ndjson",
    "jsonl.gz": "application/gzip",
    "jsonl.zst": "application/zstd",
    "json": "application/json",
}


class TemplateError(ValueError):
    """The key template breaks a rule; the text names it."""


class ParsedKey(NamedTuple):
    """What a key says. Calendar fields are not kept: they are checked against the object's first timestamp."""

    partition: int
    start: int


class QuarantineRange(NamedTuple):
    """The chunk that a quarantine object's name says it belongs to."""

    partition: int
    start: int
    next_offset: int


def extension(*, record_format: str, compression: str, max_records: int) -> str:
    """`{ext}`, a function of the settings alone."""
    if compression == "gzip":
        return "jsonl.gz"
    if compression == "zstd":
        return "jsonl.zst"
    return "json" if max_records == 1 and record_format == "value" else "jsonl"


def calendar_timestamp(timestamp: int) -> int:
    """The timestamp (ms) as keys see it: absent or outside 0…9999-12-31 counts as 1970-01-01."""
    return timestamp if 0 <= timestamp <= _MAX_TIMESTAMP_MS else 0


def _timestamp(fields: Mapping[str, str]) -> int:
    """The earliest timestamp (ms) that renders these calendar fields, when there is one. ValueError: no such day."""
    if "unix" in fields:
        return int(fields["unix"]) * 1000
    day = date.fromisoformat(fields["dt"]).toordinal() - _EPOCH.toordinal() if "dt" in fields else 0
    return day * _DAY_MS + int(fields.get("hour", 0)) * _HOUR_MS


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    width: int | None

    def render(self, value: str | int) -> str:
        return f"{value:0{self.width}d}" if self.width is not None else str(value)


class KeyTemplate:
    """A key template for one topic, below one prefix. Raises TemplateError at once when it breaks the grammar."""

    def __init__(self, template: str, *, prefix: str, topic: str, ext: str) -> None:
        self.template = template
        self.prefix = prefix if not prefix or prefix.endswith("/") else prefix + "/"
        self.topic = topic
        self.ext = ext
        self._parts = _parse_template(template)
        self._names = frozenset(part.name for part in self._parts if isinstance(part, _Field))
        self._check()
        self._pattern = re.compile(re.escape(self.prefix) + "".join(map(self._regex, self._parts)))

    def render(self, *, partition: int, start: int, timestamp: int) -> str:
        """The key of the object that starts at `start`; `timestamp` (ms) is that of the first record at or after it."""
        at = calendar_timestamp(timestamp)
        moment = datetime.fromtimestamp(at // 1000, UTC)
        values: dict[str, str | int] = {
            "topic": self.topic,
            "ext": self.ext,
            "partition": partition,
            "start": start,
            "dt": f"{moment:%Y-%m-%d}",
            "hour": moment.hour,
            "unix": at // 1000,
        }
        return self.prefix + "".join(
            part.render(values[part.name]) if isinstance(part, _Field) else part for part in self._parts
        )

    def parse(self, key: str) -> ParsedKey | None:
        """Partition and start of a key that the template could have rendered; None for any other."""
        match = self._pattern.fullmatch(key)
        if match is None:
            return None
        try:
            parsed, timestamp = ParsedKey(int(match["partition"]), int(match["start"])), _timestamp(match.groupdict())
        except ValueError:  # a day that no calendar has, or more digits than Python reads
            return None
        rendered = self.render(partition=parsed.partition, start=parsed.start, timestamp=timestamp)
        return parsed if rendered == key else None

    @property
    def has_topic(self) -> bool:
        return "topic" in self._names

    @property
    def has_time(self) -> bool:
        """Whether keys depend on timestamps: not for compacted topics."""
        return not {"dt", "hour", "unix"}.isdisjoint(self._names)

    def bucket(self, timestamp: int) -> int:
        """The calendar unit of the finest calendar field, as a number that grows with time; 0 where there is none."""
        if "hour" in self._names:
            return calendar_timestamp(timestamp) // _HOUR_MS
        return calendar_timestamp(timestamp) // _DAY_MS if "dt" in self._names else 0

    @property
    def listing_prefix(self) -> str:
        """What all keys of the topic begin with: the narrowest listing that finds every one."""
        text = self.prefix
        for part in self._parts:
            if isinstance(part, _Field):
                if part.name != "topic":
                    return text
                text += self.topic
            else:
                text += part
        return text

    @property
    def days_prefix(self) -> str | None:
        """The folder whose subfolders are one a `dt`, when the template has such: they can be listed newest first."""
        before_dt = re.match(r"((?:[^{}]|\{topic\})*)\{dt\}[^/{}]*/", self.template)
        if before_dt is None:
            return None
        text = before_dt[1].replace("{topic}", self.topic)
        return self.prefix + text[: text.rfind("/") + 1]

    @property
    def own_prefix(self) -> str:
        """The folder of layout and quarantine."""
        return f"{self.prefix}{OWN_FOLDER}{self.topic}/" if self.has_topic else f"{self.prefix}{OWN_FOLDER}"

    @property
    def layout_key(self) -> str:
        return self.own_prefix + "layout.json"

    @property
    def other_layout_prefix(self) -> str:
        """Where a layout of the other kind (topic in the template or not) would lie: the two cannot share a prefix."""
        return self.prefix + OWN_FOLDER

    @property
    def quarantine_prefix(self) -> str:
        return self.own_prefix + "quarantine/"

    def quarantine_name(self, *, partition: int, start: int, next_offset: int, sha256: str) -> str:
        """Last part of a quarantine object's key; `sha256` in hex, of the uncompressed body."""
        return f"{partition:05d}-{start:020d}-{next_offset:020d}-{sha256[:16]}.jsonl.gz"

    def parse_quarantine(self, key: str) -> QuarantineRange | None:
        """What a quarantine object's key says; None when `quarantine_name` cannot have made its last part."""
        match = _QUARANTINE_NAME.fullmatch(key.removeprefix(self.quarantine_prefix))
        return None if match is None else QuarantineRange(*(int(number) for number in match.groups()))

    def _regex(self, part: _Field | str) -> str:
        if isinstance(part, str):
            return re.escape(part)
        if part.name in ("topic", "ext"):
            return re.escape(self.topic if part.name == "topic" else self.ext)
        return f"(?P<{part.name}>{r'[0-9]+' if part.name in _INTEGERS else _TEXTS[part.name]})"

    def _check(self) -> None:
        rendered = self.prefix + "".join(
            part.render(
                10 ** _WIDEST[part.name] - 1
                if part.name in _INTEGERS
                else {"topic": self.topic, "ext": self.ext, "dt": "2000-01-01"}[part.name]
            )
            if isinstance(part, _Field)
            else part
            for part in self._parts
        )
        if len(rendered.encode()) > MAX_KEY_BYTES:
            msg = f"keys could be {len(rendered.encode())} bytes long; S3 allows {MAX_KEY_BYTES}"
            raise TemplateError(msg)
        if any(segment in ("", ".", "..") for segment in rendered.split("/")):
            msg = "no empty segment, '.' or '..' between slashes, at the beginning or at the end"
            raise TemplateError(msg)
        if rendered[len(self.prefix) :].startswith(OWN_FOLDER):
            msg = f"{OWN_FOLDER} is the folder of layout and quarantine"
            raise TemplateError(msg)


def _parse_template(template: str) -> tuple[_Field | str, ...]:
    parts: list[_Field | str] = []
    position = 0
    for match in _FIELD.finditer(template):
        if match.start() > position:
            parts.append(template[position : match.start()])
        parts.append(_field(match[1], match[2]))
        position = match.end()
    if position < len(template):
        parts.append(template[position:])
    for part in parts:
        if isinstance(part, str) and ("{" in part or "}" in part):
            msg = f"a brace that belongs to no field in {part!r}"
            raise TemplateError(msg)
    _check_fields(parts)
    return tuple(parts)


def _field(name: str, spec: str | None) -> _Field:
    if name not in _INTEGERS and name not in _TEXTS:
        allowed = ", ".join(sorted(_INTEGERS | set(_TEXTS)))
        msg = f"unknown field {{{name}}}; allowed: {allowed}"
        raise TemplateError(msg)
    if spec is None:
        return _Field(name, 2 if name == "hour" else None)
    width = re.fullmatch(r"0([1-9][0-9]?)d", spec)
    if name not in _INTEGERS or width is None:
        msg = f"{{{name}:{spec}}}: only whole numbers take a format, written like {{start:020d}}"
        raise TemplateError(msg)
    return _Field(name, int(width[1]))


def _check_fields(parts: list[_Field | str]) -> None:
    names = [part.name for part in parts if isinstance(part, _Field)]
    for required in ("partition", "start"):
        if required not in names:
            msg = f"{{{required}}} is required: the key must name where the object starts"
            raise TemplateError(msg)
    for name in names:
        if names.count(name) > 1:
            msg = f"{{{name}}} stands there twice"
            raise TemplateError(msg)
    for index in range(len(parts) - 1):
        left, right = parts[index], parts[index + 1]
        if isinstance(left, _Field) and isinstance(right, _Field):
            msg = f"{{{left.name}}} and {{{right.name}}} need something between them that is no digit"
            raise TemplateError(msg)
        between = isinstance(left, str) and index > 0 and (left[0].isdigit() or left[-1].isdigit())
        if between and isinstance(right, _Field):
            msg = f"the text {left!r} between two fields begins or ends with a digit"
            raise TemplateError(msg)
