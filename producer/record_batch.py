"""A batch that is encoded and compressed before its turn to be sent, so that a thread can do it.

Owns: the order of building. Does not own: the encoding (aiokafka's), what goes in (`packer`).

aiokafka compresses when it makes a request, all partitions' batches in a row, on the loop: 10,000 quotes are 30 ms in
which nothing else runs. It cannot do so earlier because a batch's number in the producer's sequence is given when it is
sent. That number stands in the batch's header, in front of what is compressed: here it is written into the finished
bytes. tests/contract/test_record_batch.py compares them with aiokafka's own, for the version that is pinned.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import calc_crc32c

from producer.limits import Size

if TYPE_CHECKING:
    from collections.abc import Sequence

ZSTD: Final = DefaultRecordBatch.CODEC_ZSTD
# https://kafka.apache.org/documentation/#recordbatch
_CHECKSUM_AT: Final = 17
_CHECKED_FROM: Final = 21
_SEQUENCE: Final = struct.Struct(">qhi")  # producer id, its epoch, base sequence
_SEQUENCE_AT: Final = 43


class RecordBatch(BatchBuilder):  # type: ignore[misc] # aiokafka has no types
    """For `AIOKafkaProducer.send_batch`: append, `build` in whatever thread, send."""

    def __init__(self, cut_bytes: int) -> None:
        super().__init__(cut_bytes, ZSTD)

    @property
    def raw_bytes(self) -> int:
        """Its size so far, before compression, with its header."""
        return int(self._builder.size())

    def append(
        self, *, timestamp: int, key: bytes | None, value: bytes, headers: Sequence[tuple[str, bytes]] = ()
    ) -> object | None:
        """As in aiokafka, without its serializers. None = full, or closed."""
        if self.closed():
            return None
        metadata: object | None = self._builder.append(self._relative_offset, timestamp, key, value, headers)
        if metadata is None:
            self.close()
        else:
            self._relative_offset += 1
        return metadata

    def build(self) -> Size:
        """Compress; nothing can be appended any more."""
        self.close()
        raw_bytes = self.raw_bytes
        self._buffer = self._builder.build()
        return Size(raw_bytes=raw_bytes, wire_bytes=len(self._buffer), records=self.record_count())

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        _SEQUENCE.pack_into(self._buffer, _SEQUENCE_AT, producer_id, producer_epoch, base_sequence)
        with memoryview(self._buffer) as view:
            struct.pack_into(">I", self._buffer, _CHECKSUM_AT, calc_crc32c(view[_CHECKED_FROM:]))

    def _build(self) -> bytearray:
        built: bytearray = self._buffer
        return built
