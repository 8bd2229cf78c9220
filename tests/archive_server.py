"""A bucket of any size that costs nothing to keep: an S3 lookalike whose objects are made when they are asked for.

Owns: chains of objects of one record each, all small but the last LARGE_OBJECTS of each chain. Does not own: HTTP
(`fault_server`), topic and offsets. Invariants: the same request gets the same answer; nothing is kept for an object.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from typing import TYPE_CHECKING
from urllib.parse import quote

from shared.schemas import ObjectMetadata
from tests.fault_server import FaultServer, Response, StoredObject
from tests.planting import CHAIN, NOON

if TYPE_CHECKING:
    from consumer.keys import KeyTemplate
    from shared.schemas import Layout
    from tests.fault_server import Request

LARGE_OBJECTS = 16
LARGE_BYTES = 8 << 20  # compressed
PAGE = 1000


class ArchiveServer(FaultServer):
    """`objects_per_partition` objects in each of `partitions` chains: [n, n + 1) for n from 0 on. Read it only."""

    def __init__(self, *, keys: KeyTemplate, layout: Layout, partitions: int, objects_per_partition: int) -> None:
        super().__init__()
        self.buckets["bucket"][keys.layout_key] = StoredObject(body=layout.encode(), headers={})
        self._keys = keys
        self._partitions = partitions
        self._count = objects_per_partition
        self._large = _Body(b'"%s"\n' % random.Random(0).randbytes(LARGE_BYTES).hex().encode())

    def _apply(self, request: Request, *, conditional: bool) -> Response:
        self.requests.clear()
        if not request.key:
            return self._list(request)
        parsed = self._keys.parse(request.key)
        if parsed is None or request.key != self._key(parsed.partition, parsed.start):
            return super()._apply(request, conditional=conditional)
        body = self._body(parsed.partition, parsed.start)
        metadata = ObjectMetadata(
            chain_id=CHAIN,
            topic=self._keys.topic,
            partition=parsed.partition,
            start_offset=parsed.start,
            next_offset=parsed.start + 1,
            record_count=1,
            quarantined_count=0,
            quarantine="",
            lost_count=0,
            first_timestamp=NOON,
            max_timestamp=NOON,
            sha256=body.sha256,
            writer="archive",
        )
        headers = {f"x-amz-meta-{name}": value for name, value in metadata.encode().items()}
        headers |= {"ETag": f'"{body.sha256}"', "Last-Modified": "Tue, 25 Nov 2025 12:00:00 GMT"}
        return Response(status=200, headers=headers, body=body.content)

    def _body(self, partition: int, start: int) -> _Body:
        if start >= self._count - LARGE_OBJECTS:
            return self._large
        return _Body(json.dumps({"partition": partition, "n": start}).encode() + b"\n")

    def _key(self, partition: int, start: int) -> str:
        return self._keys.render(partition=partition, start=start, timestamp=NOON)

    def _list(self, request: Request) -> Response:
        """ListObjectsV2 of the main objects, which are in the order of their numbers; none elsewhere."""
        prefix, total = request.query.get("prefix", ""), self._partitions * self._count
        first = int(request.query.get("continuation-token", "0"))
        numbers = range(first, min(first + PAGE, total)) if prefix == self._keys.listing_prefix else range(0)
        keys = (self._key(*divmod(number, self._count)) for number in numbers)
        more = bool(numbers) and numbers.stop < total
        return Response(
            status=200,
            headers={"Content-Type": "application/xml"},
            body=(
                '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult><EncodingType>url</EncodingType>'
                f"<KeyCount>{len(numbers)}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>"
                + (f"<NextContinuationToken>{numbers.stop}</NextContinuationToken>" if more else "")
                + "".join(f"<Contents><Key>{quote(key)}</Key><Size>1</Size></Contents>" for key in keys)
                + "</ListBucketResult>"
            ).encode(),
        )


class _Body:
    """What an object holds, and the hash of it uncompressed."""

    def __init__(self, lines: bytes) -> None:
        self.content = gzip.compress(lines, 1)
        self.sha256 = hashlib.sha256(lines).hexdigest()
