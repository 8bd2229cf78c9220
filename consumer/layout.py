"""The agreement that all writers below one prefix share, made by the first start and held by every other.

Owns: the start-up protocol of design §5, before the group is joined: reading or creating the layout file, the origins
of the chains, proving that the store honours create-if-absent, refusing whatever would fork a chain. Does not own: what
the chain does with an origin (`chain`), the delays of repeated requests (`retrying`).

Invariants: nothing is written before every signed offset of the group is accounted for; a layout is created only when
every partition has its origin; of two first starts one creates it and both obey it.
"""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from consumer.comparison import differences
from consumer.ports import PutAnswer, SourceError, StoreError, Upload
from consumer.retrying import until_answered
from shared.schemas import LAYOUT_VERSION, Layout, SchemaError, signer
from shared.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from consumer.keys import KeyTemplate
    from consumer.ports import Committed, LogRange, Store, TopicIdentity

PREDECESSOR_SECONDS: Final = 5.0

T = TypeVar("T")


class Kafka(Protocol):
    """What is asked of Kafka before the group is joined (a part of the source)."""

    async def committed(self, partitions: Collection[int]) -> Mapping[int, Committed | None]: ...
    async def log_ranges(self, partitions: Collection[int]) -> Mapping[int, LogRange]: ...
    async def identity(self) -> TopicIdentity: ...
    async def group_has_members(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What this process's settings say. `new_chain_id` counts only if it is this process that creates the layout."""

    keys: KeyTemplate
    group: str
    record_format: str
    compression: str
    start_from: str
    new_chain_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """The layout that counts, and the topic as it was when it was compared."""

    layout: Layout
    identity: TopicIdentity


class Agreement:
    """One start's way to the layout. `on_wait` hears why it waits; waiting for Kafka and S3 has no limit.

    `reach` raises SettingsError (exit code 2) when going on could fork a chain or cannot work with these settings.
    """

    def __init__(self, *, kafka: Kafka, store: Store, terms: Terms, on_wait: Callable[[str, Exception], None]) -> None:
        self._kafka = kafka
        self._store = store
        self._terms = terms
        self._on_wait = on_wait

    async def reach(self) -> Agreed:
        """The layout below the prefix: the one that is there, or ours."""
        keys = self._terms.keys
        identity = await self._ask("the topic", self._kafka.identity)
        if identity.compacted and keys.has_time:
            raise _refusal(
                f"S3_KEY_TEMPLATE: {keys.template!r} has a time field, but topic {keys.topic} is compacted: the"
                " first record of a range can vanish and its key change; allowed: a template without dt, hour and unix"
            )
        partitions = range(identity.partitions)
        committed = await self._ask("the group's offsets", lambda: self._kafka.committed(partitions))
        await self._refuse_other_kind()
        body = await self._ask(keys.layout_key, lambda: self._store.get(keys.layout_key))
        if body is None:
            body = await self._create(identity, committed)
        layout = self._decode(body)
        self._refuse_foreign_signatures(committed, layout.chain_id)
        self._compare(layout, identity)
        await self._prove_condition(body)
        await self._prove_absence()
        return Agreed(layout=layout, identity=identity)

    # ---- creating ---------------------------------------------------------------------------------------------------

    async def _create(self, identity: TopicIdentity, committed: Mapping[int, Committed | None]) -> bytes:
        keys = self._terms.keys
        self._refuse_foreign_signatures(committed, None)
        if any(committed.values()):
            committed = await self._predecessor_gone(list(committed))
            body = await self._ask(keys.layout_key, lambda: self._store.get(keys.layout_key))
            if body is not None:  # made while we waited; a signature read before it is that layout's
                return body
            self._refuse_foreign_signatures(committed, None)
        body = await self._objects_without_layout()
        if body is not None:
            return body
        layout = Layout(
            version=LAYOUT_VERSION,
            chain_id=self._terms.new_chain_id,
            topic=keys.topic,
            topic_id=identity.topic_id,
            cluster_id=identity.cluster_id,
            template=keys.template,
            ext=keys.ext,
            format=self._terms.record_format,
            compression=self._terms.compression,
            origins=await self._origins(committed),
        )
        ours = layout.encode()
        await self._ask(keys.layout_key, lambda: self._store.put_if_absent(self._upload(ours)))
        await self._refuse_other_kind()

        async def winner() -> bytes:
            body = await self._store.get(keys.layout_key)
            if body is None:
                raise SourceError(f"{keys.layout_key} is not to be read yet, though it was created")
            return body

        return await self._ask(keys.layout_key, winner)

    async def _objects_without_layout(self) -> bytes | None:
        """Refuse objects that a lost layout described; looked for twice: another first start may be ahead."""
        keys = self._terms.keys

        async def first_object() -> str | None:
            async for key in self._store.list_keys(keys.listing_prefix):
                if keys.parse(key) is not None:
                    return key
            return None

        for _ in range(2):
            key = await self._ask("objects below the prefix", first_object)
            if key is None:
                return None
            body = await self._ask(keys.layout_key, lambda: self._store.get(keys.layout_key))
            if body is not None:
                return body
        raise _refusal(
            f"S3_PREFIX: {keys.prefix!r} holds objects of this template (one is {key}) but no {keys.layout_key}:"
            " where their chains begin is not known; allowed: the prefix with its layout file, or a new one"
        )

    async def _origins(self, committed: Mapping[int, Committed | None]) -> dict[str, int]:
        logs = await self._ask("the topic's offsets", lambda: self._kafka.log_ranges(list(committed)))
        origins: dict[str, int] = {}
        faults: list[str] = []
        for partition, log in sorted(logs.items()):
            taken_over = committed[partition]
            if taken_over is None:
                origin = log.start if self._terms.start_from == "earliest" else log.high_watermark
            else:
                origin = max(taken_over.offset, log.start)
            if origin > log.high_watermark:
                faults.append(
                    f"KAFKA_GROUP_ID: {self._terms.group}: the predecessor's offset {origin} of partition {partition}"
                    f" is beyond the log's end {log.high_watermark}; allowed: offsets within the log (reset"
                    " them, or use a new group)"
                )
            origins[str(partition)] = origin
        if faults:
            raise SettingsError(faults)
        return origins

    async def _predecessor_gone(self, partitions: list[int]) -> Mapping[int, Committed | None]:
        """The group's offsets once it has no member: until then its owner may still commit."""
        while await self._ask("the group", self._kafka.group_has_members):
            self._on_wait(
                "the group",
                SourceError(
                    f"group {self._terms.group} has offsets that are not ours and members: stop the predecessor first;"
                    " its last offsets become the origins"
                ),
            )
            await asyncio.sleep(PREDECESSOR_SECONDS)
        return await self._ask("the group's offsets", lambda: self._kafka.committed(partitions))

    # ---- comparing --------------------------------------------------------------------------------------------------

    def _refuse_foreign_signatures(self, committed: Mapping[int, Committed | None], chain_id: str | None) -> None:
        keys = self._terms.keys
        for partition, offset in sorted(committed.items()):
            signed_by = signer(offset.offset, offset.metadata) if offset else None
            if offset is None or signed_by in (None, chain_id):
                continue
            here = f"holds chain {chain_id}" if chain_id else f"has no {keys.layout_key}"
            raise _refusal(
                f"KAFKA_GROUP_ID: {self._terms.group} has offset {offset.offset} of partition {partition} signed by"
                f" chain {signed_by}, but prefix {keys.prefix!r} {here}; allowed: the prefix of that chain, or a"
                " group of its own for this prefix"
            )

    async def _refuse_other_kind(self) -> None:
        """A prefix is shared by topics whose templates name the topic, or belongs to one whose template does not."""
        keys = self._terms.keys
        for folder in await self._other_kind_folders():
            key = folder + "layout.json"
            if await self._ask(key, lambda key=key: self._store.get(key)) is not None:  # type: ignore[misc]
                raise _refusal(
                    f"S3_KEY_TEMPLATE: {keys.template!r} {'has' if keys.has_topic else 'lacks'} {{topic}}, but"
                    f" {key} was made by a template of the other kind; allowed: another S3_PREFIX"
                )

    async def _other_kind_folders(self) -> list[str]:
        keys = self._terms.keys
        if keys.has_topic:
            return [keys.other_layout_prefix]

        async def folders() -> list[str]:
            return [folder async for folder in self._store.list_folders(keys.other_layout_prefix)]

        return await self._ask("layouts", folders)  # our quarantine too: it could be the folder of a topic named so

    def _decode(self, body: bytes) -> Layout:
        try:
            return Layout.decode(body)
        except SchemaError as error:
            key = self._terms.keys.layout_key
            raise _refusal(f"S3_PREFIX: {key} cannot be read: {error}; allowed: a prefix with a whole one") from error

    def _compare(self, layout: Layout, identity: TopicIdentity) -> None:
        terms = self._terms
        faults = differences(
            layout,
            keys=terms.keys,
            record_format=terms.record_format,
            compression=terms.compression,
            identity=identity,
        )
        if faults:
            raise SettingsError(faults)

    # ---- what the store must be able to do --------------------------------------------------------------------------

    async def _prove_condition(self, body: bytes) -> None:
        keys = self._terms.keys
        answer = await self._ask(keys.layout_key, lambda: self._store.put_if_absent(self._upload(body)))
        if answer is PutAnswer.CREATED:
            raise _refusal(
                "AWS_ENDPOINT_URL_S3: the store created an object that was there already: it ignores If-None-Match,"
                " so nothing could keep records from being doubled; allowed: a store with conditional puts"
            )

    async def _prove_absence(self) -> None:
        """Only 404 means absent: without s3:ListBucket S3 says 403 instead, and no chain could be probed."""
        key = self._terms.keys.own_prefix + "never-written"
        if await self._ask(key, lambda: self._store.head(key)) is not None:
            raise _refusal(f"S3_PREFIX: {key} exists; allowed: a prefix where nothing else is written")

    def _upload(self, body: bytes) -> Upload:
        return Upload(
            key=self._terms.keys.layout_key,
            body=body,
            crc32=zlib.crc32(body),
            content_type="application/json",
            metadata={"ticklake-version": str(LAYOUT_VERSION)},
        )

    async def _ask(self, what: str, ask: Callable[[], Awaitable[T]]) -> T:
        def tell(error: StoreError | SourceError) -> None:
            self._on_wait(what, error)

        return await until_answered(ask, on_failure=tell)


def _refusal(fault: str) -> SettingsError:
    return SettingsError([fault])
