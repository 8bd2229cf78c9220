"""Tells who handed records in what became of them.

Owns: the futures of parcels, the lines and counts of what is set aside. Does not own: the account (`ledger`), what is
on its way (`shipment`), why something is set aside (`limits`).
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

from shared import logs

if TYPE_CHECKING:
    from collections.abc import Callable

    from producer.ledger import Delivery, Ledger, Parcel
    from producer.limits import Size
    from producer.metrics import Metrics
    from producer.redactor import Redactor
    from producer.shipment import Bundle

log = logs.get_logger(__name__)


class Settlement:
    """Of one topic. `settled` is called whenever the account has changed."""

    def __init__(
        self, topic: str, *, ledger: Ledger, metrics: Metrics, redactor: Redactor, settled: Callable[[], object]
    ) -> None:
        self._topic = topic
        self._ledger = ledger
        self._metrics = metrics
        self._redactor = redactor
        self._settled = settled
        self._deliveries: dict[Parcel, asyncio.Future[Delivery]] = {}

    def promise(self, parcel: Parcel) -> asyncio.Future[Delivery]:
        """Done when each record is acknowledged or set aside."""
        delivery: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        self._deliveries[parcel] = delivery
        return delivery

    def acknowledged(self, bundle: Bundle) -> None:
        """Kafka has them."""
        self._metrics.records_published.inc(len(bundle.items))
        self._settle(bundle, acknowledged=True)

    def too_large(self, bundle: Bundle, size: Size, allowed_bytes: int) -> None:
        """One record, larger than the topic takes."""
        ((_, record),) = bundle.items
        log.error(
            "Record set aside",
            topic=self._topic,
            reason="too_large",
            key=None if record.key is None else self._redactor.excerpt(record.key),
            bytes=len(record.value),
            batch_bytes=size.wire_bytes,
            allowed_bytes=allowed_bytes,
            sha256=hashlib.sha256(record.value).hexdigest(),
        )
        self._set_aside(bundle, "too_large")

    def keyless(self, bundle: Bundle) -> None:
        """Records without a key, for a topic that is compacted by key. All of a poll, perhaps: one line."""
        _, first = bundle.items[0]
        log.error(
            "Records set aside",
            topic=self._topic,
            reason="no_key",
            records=len(bundle.items),
            first_bytes=len(first.value),
            first_sha256=hashlib.sha256(first.value).hexdigest(),
            todo="the topic is compacted and takes no record without a key: check the key pointer, or another topic",
        )
        self._set_aside(bundle, "no_key")

    def _set_aside(self, bundle: Bundle, reason: str) -> None:
        self._metrics.records_set_aside.labels(reason).inc(len(bundle.items))
        self._settle(bundle, acknowledged=False)

    def _settle(self, bundle: Bundle, *, acknowledged: bool) -> None:
        for parcel, records in bundle.by_parcel():
            delivery = self._ledger.settle(parcel, records, acknowledged=acknowledged)
            if delivery is not None:
                future = self._deliveries.pop(parcel)
                if not future.done():  # whoever waited may have given up
                    future.set_result(delivery)
        self._settled()
