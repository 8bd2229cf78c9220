"""What one topic takes: how large a batch may be, and whether records need a key.

Owns: the rules, from what the broker told of the topic's settings and from what it refused. Does not own: asking
(`courier`), cutting (`packer`). Pure.

The broker measures a batch as it arrives, compressed, with its 61 bytes of header, against `max.message.bytes`; and
once more, as it will be stored, where the topic's `compression.type` makes it compress anew. A batch of several records
is cut by its size before compression, so it fits both ways and a giant costs none of its siblings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_MESSAGE_BYTES = "max.message.bytes"
CLEANUP_POLICY = "cleanup.policy"
COMPRESSION_TYPE = "compression.type"
ASKED = (MAX_MESSAGE_BYTES, CLEANUP_POLICY, COMPRESSION_TYPE)

DEFAULT_BATCH_BYTES = 1_048_588  # https://kafka.apache.org/documentation/#brokerconfigs_message.max.bytes
CUT_BYTES = 512 * 1024
_AS_SENT = ("producer", "zstd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Of a batch: before compression and as it is sent, its header included."""

    raw_bytes: int
    wire_bytes: int
    records: int


class Limits:
    """`allowed_bytes`: of a batch on the wire. `cut_bytes`: where a batch of several records ends, uncompressed."""

    def __init__(self) -> None:
        self._told: Mapping[str, str] | None = None
        self._too_large: Size | None = None  # the smallest record that was refused though it seemed to fit
        self.allowed_bytes = DEFAULT_BATCH_BYTES
        self.cut_bytes = CUT_BYTES
        self.as_sent = True  # the broker stores a batch as it is sent
        self.needs_key = False

    def told(self, settings: Mapping[str, str] | None) -> bool:
        """What the broker says of the topic, None = it does not say. Whether that is news; then what was learned by
        refusals is forgotten.
        """
        if settings is None or settings == self._told:
            return False
        self._told = dict(settings)
        text = settings.get(MAX_MESSAGE_BYTES, "")
        self.allowed_bytes = int(text) if text.isdecimal() else DEFAULT_BATCH_BYTES
        self.cut_bytes = min(CUT_BYTES, self.allowed_bytes)
        self.as_sent = settings.get(COMPRESSION_TYPE, "producer") in _AS_SENT
        self.needs_key = "compact" in settings.get(CLEANUP_POLICY, "")
        self._too_large = None
        return True

    def takes(self, size: Size) -> bool:
        """Whether the batch is worth a try."""
        if self._too_large is not None and _is_as_large(size, self._too_large):
            return False
        counted_bytes = size.wire_bytes if self.as_sent else size.raw_bytes
        return counted_bytes <= self.allowed_bytes

    def refused(self, size: Size) -> None:
        """The broker said that this batch is too large, and does not say why: be more careful from now on."""
        if size.records > 1:
            self.cut_bytes = min(self.cut_bytes, size.raw_bytes // 2)
        elif self._too_large is None or _is_as_large(self._too_large, size):
            self._too_large = size

    def keyless_refused(self) -> None:
        """A record among some without a key is invalid: that is why, unless the broker told otherwise."""
        self.needs_key = self.needs_key or self._told is None


def _is_as_large(one: Size, other: Size) -> bool:
    """Whatever the broker measures, it finds `one` not smaller."""
    return one.raw_bytes >= other.raw_bytes and one.wire_bytes >= other.wire_bytes
