"""`python -m consumer check`: can this consumer work with its settings? A line for each thing it needs.

Owns: the questions, their order, the lines. Does not own: how they are asked (`source`, `store`).
Invariants: it ends within CHECK_SECONDS, retries nothing, joins no group. It writes one small object a run, below
`_ticklake/…/checks/`, and deletes nothing: a consumer has no need of s3:DeleteObject.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from consumer.comparison import differences
from consumer.connections import new_store
from consumer.ports import Failure, PutAnswer, SourceError, StoreError, Upload
from consumer.source import KafkaSource
from shared.kafka import connection_options
from shared.lifecycle import EXIT_CRASHED, EXIT_STOPPED, Deadline
from shared.schemas import Layout, SchemaError, signer

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.keys import KeyTemplate
    from consumer.ports import Committed, Store, TopicIdentity
    from consumer.settings import Settings

CHECK_SECONDS: Final = 30.0
RACERS: Final = 5
SEEN_KEYS: Final = 10_000
_ANSWER_SECONDS: Final = CHECK_SECONDS - 9.0  # leaves time to close the clients
_REQUEST_SECONDS: Final = 6.0
_LEAVE_SECONDS: Final = 2.0


async def check(settings: Settings, *, write: Callable[[str], object] | None = None) -> int:
    """Ask Kafka, then S3; `write` (to stdout) a line each: 0 = all is well, 1 = a fault. Raises SettingsError."""
    lines = _Lines(write or sys.stdout.write)
    lines.ok("settings", "understood")
    for warning in settings.warnings:
        lines.ok("settings", f"odd: {warning}")
    deadline = Deadline.after(_ANSWER_SECONDS)
    seconds = min(settings.upload_timeout_seconds, _REQUEST_SECONDS)
    quick = settings.model_copy(update={"upload_timeout_seconds": seconds})
    try:
        async with deadline.timeout():
            topic = await _check_kafka(quick, lines)
            await _check_bucket(quick, lines, topic)
    except TimeoutError:
        lines.fault("time", f"not finished within {_ANSWER_SECONDS:.0f} s: Kafka or S3 answers too slowly")
    return EXIT_CRASHED if lines.faults else EXIT_STOPPED


@dataclass(slots=True)
class _Lines:
    write: Callable[[str], object]
    faults: int = field(default=0, init=False)

    def ok(self, name: str, text: str) -> None:
        self.write(f"ok     {name:<12}  {text}\n")

    def fault(self, name: str, text: str) -> None:
        self.faults += 1
        self.write(f"FAULT  {name:<12}  {text}\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Topic:
    """What Kafka told; None where it did not."""

    identity: TopicIdentity | None = None
    committed: dict[int, Committed] | None = None


# ---- Kafka ---------------------------------------------------------------------------------------------------------


async def _check_kafka(settings: Settings, lines: _Lines) -> _Topic:
    source = KafkaSource(
        topic=settings.kafka_topic,
        group=settings.kafka_group_id,
        connection=connection_options(settings),
        request_timeout_seconds=_REQUEST_SECONDS,
        leave_timeout_seconds=_LEAVE_SECONDS,
    )
    try:
        await source.connect()
    except SourceError as error:
        lines.fault("Kafka", str(error))
        return _Topic()
    try:
        lines.ok("Kafka", f"{settings.kafka_bootstrap_servers} answers")
        return await _check_topic(settings, lines, source)
    finally:
        await source.leave()


async def _check_topic(settings: Settings, lines: _Lines, source: KafkaSource) -> _Topic:
    try:
        identity = await source.identity()
    except SourceError as error:
        lines.fault("topic", str(error))
        return _Topic()
    shown = f"{settings.kafka_topic}: {identity.partitions} partition{'' if identity.partitions == 1 else 's'}"
    if identity.compacted and settings.keys.has_time:
        lines.fault(
            "topic",
            f"{shown}, compacted, but S3_KEY_TEMPLATE {settings.s3_key_template!r} has a time field: use a template"
            " without dt, hour and unix",
        )
    else:
        lines.ok("topic", shown + (", compacted" if identity.compacted else ""))
    return _Topic(identity=identity, committed=await _check_group(settings, lines, source, identity))


async def _check_group(
    settings: Settings, lines: _Lines, source: KafkaSource, identity: TopicIdentity
) -> dict[int, Committed] | None:
    try:
        has_members = await source.group_has_members()
        asked = await source.committed(range(identity.partitions))
    except SourceError as error:
        lines.fault("group", str(error))
        return None
    committed = {partition: at for partition, at in asked.items() if at is not None}
    signed = sum(signer(at.offset, at.metadata) is not None for at in committed.values())
    lines.ok(
        "group",
        f"{settings.kafka_group_id}: {'has members' if has_members else 'no members'}, offsets of {len(committed)} of"
        f" {identity.partitions} partitions, {signed} signed by a consumer of this kind,"
        f" {len(committed) - signed} not",
    )
    return committed


# ---- S3 ------------------------------------------------------------------------------------------------------------


async def _check_bucket(settings: Settings, lines: _Lines, topic: _Topic) -> None:
    """Listing, an absent key, the conditional put, the layout; ends at a fault that the rest would share."""
    keys = settings.keys
    async with new_store(settings) as store:
        listed, first = False, None
        try:
            first = await _first_object(store, keys)
            listed = True
        except StoreError as error:
            lines.fault("bucket", error.reason)
            if error.failure is not Failure.REFUSED:
                return
        else:
            lines.ok("bucket", f"s3://{settings.s3_bucket}/{keys.prefix} can be listed")
        if not await _check_absence(store, lines, keys.own_prefix, listed=listed):
            return
        if not await _race(store, lines, f"{keys.own_prefix}checks/{uuid.uuid4().hex}"):
            return
        await _check_layout(settings, store, lines, topic, first)


async def _first_object(store: Store, keys: KeyTemplate) -> str | None:
    """Some key that the template can have rendered, of the first SEEN_KEYS of the listing."""
    seen = 0
    async for key in store.list_keys(keys.listing_prefix):
        seen += 1
        if keys.parse(key) is not None:
            return key
        if seen >= SEEN_KEYS:
            break
    return None


async def _check_absence(store: Store, lines: _Lines, prefix: str, *, listed: bool) -> bool:
    """Without s3:ListBucket S3 says 403 of what is not there, and no chain could be probed. False = no S3 there."""
    try:
        found = await store.head(f"{prefix}never-written")
    except StoreError as error:
        lines.fault("absent key", f"only 404 means absent, the answer was: {error.reason}")
        return error.failure is Failure.REFUSED
    if found is not None:
        lines.fault("absent key", f"{found.key} exists: use an S3_PREFIX where nothing else is written")
    elif listed:
        lines.ok("absent key", "gives 404")
    return True


async def _race(store: Store, lines: _Lines, key: str) -> bool:
    """Several puts of one fresh key at once: one may create it. False = objects cannot be put here at all."""
    uploads = [_upload(key, number) for number in range(RACERS)]
    answers = await asyncio.gather(*map(store.put_if_absent, uploads), return_exceptions=True)
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    for error in errors:
        if not isinstance(error, StoreError):
            raise error
    winners = [number for number, answer in enumerate(answers) if answer is PutAnswer.CREATED]
    try:
        body = await store.get(key)
        again = await store.put_if_absent(_upload(key, RACERS)) if body is not None else None
    except StoreError as error:
        lines.fault("put", "; ".join(sorted({str(error), *map(str, errors)})))
        return error.failure is Failure.REFUSED
    if body is None:
        told = "; ".join(sorted(set(map(str, errors)))) or "the store said that it was created, then had nothing"
        lines.fault("put", f"{key} could not be created: {told}")
        return False
    ignored = len(winners) > 1 or again is PutAnswer.CREATED or (winners and body != uploads[winners[0]].body)
    if ignored:
        lines.fault(
            "put",
            f"{len(winners)} of {RACERS} puts at once created one key, a later one"
            f" {'did too' if again is PutAnswer.CREATED else 'did not'}: the store does not honour If-None-Match,"
            " nothing could keep records from being doubled; use a store with conditional puts (one bucket, no"
            " multi-region access point)",
        )
    else:
        lost = f", {len(errors)} had no answer" if errors else ""
        lines.ok("put", f"of {RACERS} puts at once one created the key, the others met it{lost} ({key} stays there)")
    return True


def _upload(key: str, number: int) -> Upload:
    body = f"written by `python -m consumer check`, racer {number}\n".encode()
    return Upload(key=key, body=body, crc32=zlib.crc32(body), content_type="text/plain", metadata={})


async def _check_layout(settings: Settings, store: Store, lines: _Lines, topic: _Topic, first: str | None) -> None:
    keys = settings.keys
    try:
        body = await store.get(keys.layout_key)
        layout = None if body is None else Layout.decode(body)
    except StoreError as error:
        lines.fault("layout", error.reason)
        return
    except SchemaError as error:
        lines.fault("layout", f"{keys.layout_key}: {error}; restore it, or use a new S3_PREFIX and group")
        return
    faults = _foreign_signatures(topic, None if layout is None else layout.chain_id, keys)
    if layout is not None:
        faults += differences(
            layout,
            keys=keys,
            record_format=settings.record_format,
            compression=settings.compression,
            identity=topic.identity,
        )
    elif first is not None:
        faults.append(
            f"{first} is there, but no {keys.layout_key}: where its chain begins is not known; restore the layout, or"
            " use a new S3_PREFIX"
        )
    for fault in faults:
        lines.fault("layout", fault)
    if not faults:
        agrees = "" if layout is None else f"{keys.layout_key} agrees, chain {layout.chain_id}"
        lines.ok("layout", agrees or "none yet: the first start makes it")


def _foreign_signatures(topic: _Topic, chain_id: str | None, keys: KeyTemplate) -> list[str]:
    strangers: dict[str, list[int]] = {}
    for partition, at in (topic.committed or {}).items():
        signed_by = signer(at.offset, at.metadata)
        if signed_by not in (None, chain_id):
            strangers.setdefault(str(signed_by), []).append(partition)
    here = f"holds chain {chain_id}" if chain_id else f"has no {keys.layout_key}"
    return [
        f"the group's offsets of partitions {partitions} are signed by chain {stranger}, prefix {keys.prefix!r} {here}:"
        " use the prefix of that chain, or a group of its own for this prefix"
        for stranger, partitions in strangers.items()
    ]
