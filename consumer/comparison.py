"""Where a layout and this process's settings disagree. Pure.

Owns: what has to be equal, and the words for what is not. Does not own: reading either, or what follows from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.schemas import LAYOUT_VERSION

if TYPE_CHECKING:
    from consumer.keys import KeyTemplate
    from consumer.ports import TopicIdentity
    from shared.schemas import Layout


def differences(
    layout: Layout, *, keys: KeyTemplate, record_format: str, compression: str, identity: TopicIdentity | None
) -> list[str]:
    """A line for each variable that the layout contradicts. `identity` None = topic and cluster are not known."""
    if layout.version > LAYOUT_VERSION:
        return [f"S3_PREFIX: {keys.layout_key} has version {layout.version}; allowed here: up to {LAYOUT_VERSION}"]
    compared = (
        ("KAFKA_TOPIC", keys.topic, layout.topic),
        ("S3_KEY_TEMPLATE", keys.template, layout.template),
        ("BATCH_MAX_RECORDS, RECORD_FORMAT, COMPRESSION (ext)", keys.ext, layout.ext),
        ("RECORD_FORMAT", record_format, layout.format),
        ("COMPRESSION", compression, layout.compression),
        ("KAFKA_BOOTSTRAP_SERVERS (cluster id)", identity and identity.cluster_id, layout.cluster_id),
        ("KAFKA_TOPIC (topic id)", identity and identity.topic_id, layout.topic_id),
    )
    return [
        f"{name}: {ours!r} here, {theirs!r} in {keys.layout_key}; allowed: the same, or another S3_PREFIX and group"
        for name, ours, theirs in compared
        if ours is not None and theirs is not None and ours != theirs
    ]
