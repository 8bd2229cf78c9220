"""What a world is made of, drawn from its seed before anything happens: sizes, limits, settings, how rough it is.

Owns: the draw. Does not own: what happens then (`world`).

Seconds are a fifth of the defaults: a session of 10 s for 45 s, and so on. What the consumer itself waits for (30 s
after a refusal, 30 s between looks at a stall) is as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from consumer.batch import Limits
from consumer.keys import KeyTemplate
from tests.simulation.member import Configuration
from tests.simulation.topic import Taste

if TYPE_CHECKING:
    from random import Random

CHAIN_ID: Final = "c0ffee"
WITH_HOURS: Final = "topic={topic}/dt={dt}/hour={hour}/{partition:05d}-{start:020d}.{ext}"
TEMPLATES: Final = (WITH_HOURS, WITH_HOURS, "{topic}/dt={dt}/{partition}-{start}.{ext}", "{partition}-{start}.{ext}")
EXTENSIONS: Final = {"none": "jsonl", "gzip": "jsonl.gz", "zstd": "jsonl.zst"}
LONG_SECONDS: Final = 3600.0  # a batch that no time seals


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One world, before it begins. Shares are probabilities; times in seconds."""

    partitions: int
    members: int
    origins: dict[str, int]
    template: str
    record_format: str
    compression: str
    taste: Taste
    skip_loss: bool
    session_seconds: float
    rebalance_seconds: float
    upload_seconds: float
    active_seconds: float
    pace_seconds: float  # between two events of the world, on average
    store_latency_seconds: float
    kafka_latency_seconds: float
    store_roughness: float
    kafka_roughness: float
    poll_roughness: float  # how often what a poll had drained is lost
    late_seconds: float
    freeze_seconds: float  # at most

    @property
    def keys(self) -> KeyTemplate:
        return KeyTemplate(self.template, prefix="", topic="task", ext=EXTENSIONS[self.compression])

    @property
    def loss_wait_seconds(self) -> float:
        return self.session_seconds + self.rebalance_seconds + self.upload_seconds


def draw_plan(random: Random) -> Plan:
    """The plan of the world whose chance this is."""
    session, rebalance = random.choice((6.0, 10.0)), random.choice((8.0, 12.0, 20.0))
    skip_loss = random.random() < 0.2
    template = random.choice(TEMPLATES)
    partitions = random.choice((1, 1, 2, 3))
    late, freeze = random.choice((0.0, 5.0, 60.0)), random.choice((1.5, 3.0)) * session
    if skip_loss and "{dt}" in template:
        # The assumption of `skip`: beside a real loss no writer outlasts the wait. Frozen for F, it is put out after
        # the session S at the earliest, notices within a heartbeat of waking, drains for 0.6 R, and its last put may
        # still land L after its deadline: F + L < 2 S + 0.4 R - 3.
        late, freeze = 2.0, session + 0.4 * rebalance
    record_format = random.choice(("value", "value", "value", "envelope"))
    return Plan(
        partitions=partitions,
        members=random.choice((1, 2, 2, 3)),
        origins={str(number): random.choice((0, 0, 5)) for number in range(partitions)},
        template=template,
        record_format=record_format,
        compression=random.choice(("none", "none", "none", "none", "gzip", "zstd")),
        taste=Taste(
            poison=random.choice((0.0, 0.0, 0.05, 0.4)),
            giants=random.choice((0.0, 0.02)),
            line_breaks=random.choice((0.0, 0.1)),
            gaps=random.choice((0.0, 0.1)),
            control=random.choice((0.0, 0.3)),
            interleaved=random.random() < 0.3,
            envelopes=record_format == "envelope",
            value_bytes=random.choice((10, 200)),
            giant_bytes=random.choice((1_000, 5_000)),
        ),
        skip_loss=skip_loss,
        session_seconds=session,
        rebalance_seconds=rebalance,
        upload_seconds=random.choice((2.0, 5.0, 10.0)),
        active_seconds=random.choice((20.0, 40.0, 60.0)),
        pace_seconds=random.choice((0.2, 0.5, 1.0)),
        store_latency_seconds=random.choice((0.02, 0.1, 0.4)),
        kafka_latency_seconds=random.choice((0.005, 0.05, 0.3)),
        store_roughness=random.choice((0.0, 0.05, 0.2, 0.5)),
        kafka_roughness=random.choice((0.0, 0.02, 0.1)),
        poll_roughness=random.choice((0.0, 0.05, 0.4)),
        late_seconds=late,
        freeze_seconds=freeze,
    )


def draw_configuration(random: Random, keys: KeyTemplate, *, batch_seconds: float | None = None) -> Configuration:
    """What one process gets: limits differ between members, as in a rolling deploy that changes them."""
    drawn_seconds = random.choice((1.0, 5.0, 15.0, LONG_SECONDS))
    return Configuration(
        limits=Limits(
            records=random.choice((1, 3, 10, 1000)),
            bytes=random.choice((200, 2_000, 1_000_000)),
            seconds=drawn_seconds if batch_seconds is None else batch_seconds,
            bucket=keys.bucket,
        ),
        memory_bytes=random.choice((1_500, 4_000, 20_000, 1 << 24)),
        upload_concurrency=random.choice((1, 2, 4)),
        batches_per_poll=random.choice((1, 2, 4)),
        give_back_seconds=random.choice((2.0, 5.5, 13.75)),
        give_up_seconds=random.choice((20.0, 900.0, 900.0)),
    )
