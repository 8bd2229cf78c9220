"""Where aiokafka is bent: its consumer with batch views in it, and without the wish to create topics.

Owns: the two inner seams, held by the pin `aiokafka==0.14.0`, by the check below and by tests/contract/test_seams.py,
which compares with aiokafka's own path. Does not own: the views (`views`) and the use of the consumer (`source`).

The fetcher builds its record iterator by a name of its module, in the middle of a long method; the consumer builds its
fetcher likewise, the client its metadata request. Replacing the names in aiokafka's modules would reach every consumer
of the process (`verify`, tests that compare with the stock path), copying the methods would freeze their other lines.
So each of the three methods is copied as a function object whose globals differ in just those names, on our own class.
"""

from __future__ import annotations

from functools import partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Final, cast

import aiokafka
from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.protocol.metadata import MetadataRequest

from consumer.views import BatchRecords, WireBytes

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

SUPPORTED: Final = "0.14.0"

if aiokafka.__version__ != SUPPORTED:
    raise ImportError(
        f"aiokafka {aiokafka.__version__} is installed, but consumer/seams.py is written for {SUPPORTED}: install the "
        "locked version, or check the seams against the new one and run tests/contract/test_seams.py"
    )


def _rebound(function: Callable[..., object], **names: object) -> Callable[..., object]:
    """The same function, seeing `names` in place of its module's. ImportError when it does not use one of them."""
    original = cast("FunctionType", function)
    if unused := names.keys() - set(original.__code__.co_names):
        raise ImportError(f"aiokafka's {original.__qualname__} no longer uses {', '.join(sorted(unused))}")
    copy = FunctionType(
        original.__code__,
        {**original.__globals__, **names},
        original.__name__,
        original.__defaults__,
        original.__closure__,
    )
    copy.__kwdefaults__ = original.__kwdefaults__
    return copy


class BatchFetcher(Fetcher):  # type: ignore[misc] # aiokafka has no types
    """The fetcher, handing out views.Item instead of ConsumerRecord."""

    _proc_fetch_request = _rebound(Fetcher._proc_fetch_request, PartitionRecords=BatchRecords, MemoryRecords=WireBytes)


# aiokafka asks for the topic with allow_auto_topic_creation, every 30 s: a topic deleted while we run would come back
# empty, with other partitions, and look like one that was truncated.
_metadata_update = _rebound(
    AIOKafkaClient._metadata_update, MetadataRequest=partial(MetadataRequest, allow_auto_topic_creation=False)
)


class BatchConsumer(AIOKafkaConsumer):  # type: ignore[misc] # aiokafka has no types
    """The consumer with both seams. `getmany` returns lists of views.Item; nothing else differs."""

    start = _rebound(AIOKafkaConsumer.start, Fetcher=BatchFetcher)

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self._client._metadata_update = MethodType(_metadata_update, self._client)

    def tasks(self) -> Iterator[asyncio.Task[object]]:
        """aiokafka's background tasks. One that has ended while the consumer is open takes no part any more, and
        aiokafka tells only of the first."""
        for owner, name in (
            (self._coordinator, "_coordination_task"),
            (self._fetcher, "_fetch_task"),
            (self._client, "_sync_task"),
        ):
            if task := getattr(owner, name, None):
                yield task
