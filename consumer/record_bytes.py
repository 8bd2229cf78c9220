"""Records of a v2 wire batch whose header names are not UTF-8, read byte by byte.

Owns: the reading that aiokafka refuses. Kafka says that header names are UTF-8, but brokers do not check and librdkafka
writes whatever it is given; one such name must not keep a whole batch, and all behind it, out of the bucket.
Does not own: every other batch, which aiokafka's C reader does six times as fast (`views`).

The layout: https://kafka.apache.org/documentation/#record
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.errors import CorruptRecordException

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from consumer.ports import Headers

_CODECS: Mapping[int, Callable[[bytes], bytes]] = {1: gzip_decode, 2: snappy_decode, 3: lz4_decode, 4: zstd_decode}


@dataclass(frozen=True, slots=True)
class ReadRecord:
    r"""As aiokafka's record; what is not UTF-8 in a header's name stands there as \xNN."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def read_records(
    body: bytes, *, codec: int, count: int, base_offset: int, first_timestamp: int, append_time: int | None
) -> list[ReadRecord]:
    """`body` follows the batch's header. `append_time` (LogAppendTime) stands for every record's own timestamp.

    Raises CorruptRecordException, or what the codec raises.
    """
    reader = _Reader(_CODECS[codec](body) if codec else body)
    records = []
    for _ in range(count):
        length = reader.number()
        end = reader.position + length
        reader.position += 1  # attributes, unused so far
        timestamp = first_timestamp + reader.number()
        offset = base_offset + reader.number()
        key, value = reader.blob(), reader.blob()
        headers = [(_name(reader.blob()), reader.blob()) for _ in range(reader.number())]
        if reader.position != end:
            raise CorruptRecordException(f"the record at offset {offset} is not as long as it says")
        stamp = timestamp if append_time is None else append_time
        records.append(ReadRecord(offset, stamp, key, value, tuple(headers)))
    if reader.position != len(reader.data):
        raise CorruptRecordException(f"{len(reader.data) - reader.position} bytes follow the last record")
    return records


def _name(raw: bytes | None) -> str:
    if raw is None:
        raise CorruptRecordException("a header without a name")
    return raw.decode("utf-8", "backslashreplace")


class _Reader:
    """Zigzag varints and what they measure, from `position` on."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.data[self.position]
            self.position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 # the last one
                return (value >> 1) ^ -(value & 1)
            shift += 7

    def blob(self) -> bytes | None:
        length = self.number()
        if length < 0:
            return None
        raw = self.data[self.position : self.position + length]
        self.position += length
        return raw
