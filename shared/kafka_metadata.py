"""aiokafka's metadata requests, which would let a broker create the topic they name, in a form that does not.

Owns: that form. Does not own: whom it is given to (`consumer.seams`, `producer.courier`). A topic deleted while we run
would else come back empty, with other partitions, and look like one that was truncated.
"""

from __future__ import annotations

from functools import partial

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.metadata import MetadataRequest

from shared.rebinding import rebound

# To be bound to a client, in place of its own.
metadata_update = rebound(
    AIOKafkaClient._metadata_update,  # noqa: SLF001 -- held by the pin and the contract tests
    MetadataRequest=partial(MetadataRequest, allow_auto_topic_creation=False),
)
