"""What a deployment costs, holds and asks for at any size, as formulas: records in, numbers out.

Owns: the formulas and their constants, each with its unit and where it comes from. Does not own: the choice of sizes
and the tables (`scaling`), what a formula cannot tell (`scale_simulation`), the measurement of the constants
(`partitions`, tests/unit/consumer/test_codecs.py). Pure.

Words: a partition's *cycle* = seconds from one object of it to the next. `bytes taken` = value bytes that went into an
open batch's codec. A *member* = one consumer process; what is `shared` is divided evenly among members.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from consumer.codecs import codec

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GB: Final = 1e9
HOUR_SECONDS: Final = 3_600
DAY_SECONDS: Final = 86_400
MONTH_HOURS: Final = 730

# ---- prices: AWS list, us-east-1, Linux, on demand, US dollars, as of November 2026: look them up again --------------
# https://aws.amazon.com/fargate/pricing/ https://aws.amazon.com/s3/pricing/ https://aws.amazon.com/ec2/pricing/on-demand/
X86_VCPU_HOUR: Final = 0.04048
X86_GB_HOUR: Final = 0.004445
ARM_VCPU_HOUR: Final = 0.03238
ARM_GB_HOUR: Final = 0.00356
PUT_OR_LIST: Final = 0.005 / 1_000
HEAD: Final = 0.0004 / 1_000
STORED_GB_MONTH: Final = 0.023
ZONE_GB: Final = 2 * 0.01  # $0.01 where the bytes leave and $0.01 where they arrive

# ---- S3 --------------------------------------------------------------------------------------------------------------
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html: at least that many, a prefix
PUTS_A_SECOND_A_PREFIX: Final = 3_500
LIST_PAGE_KEYS: Final = 1_000
PUT_SECONDS: Final = 0.06  # a small object inside the region, typical; assumed, not measured here
HEAD_SECONDS: Final = 0.03
LIST_SECONDS: Final = 0.1

# ---- the consumer's own: the defaults of its settings and constants of consumer/worker.py ----------------------------
BATCH_RECORDS: Final = 100_000
BATCH_BYTES: Final = 16 * MIB
BATCH_SECONDS: Final = 60.0
MEMORY_LIMIT: Final = 256 * MIB
PRESSURE_SHARE: Final = 0.8
UPLOADS: Final = 4
HEADS: Final = 16
REVOKE_SECONDS: Final = 0.6 * 60
HEARTBEAT_SECONDS: Final = 3.0

# ---- measured (docs/benchmarks/scaling.json holds the newest; these are rounded up) ----------------------------------
RATIO: Final = {"gzip": 4.1, "zstd": 5.2, "none": 1.0}  # 200-byte quotes, level 1
PROCESS_BYTES: Final = 92 * MIB  # a consumer that has joined and owns nothing
IDLE_PARTITION_BYTES: Final = 20 * KIB  # assigned, nothing open: chain, client's state, metrics
BUILDER_BYTES: Final = 9 * KIB  # an open batch beside its codec
AHEAD_PARTITION_BYTES: Final = MIB  # what the client fetches ahead, a partition …
AHEAD_BYTES: Final = 20 * MIB  # … and altogether, a broker: its limit, and the answer that goes beyond
WORKING_BYTES: Final = 16 * MIB  # records between the client and an open batch, and what the allocator keeps
IDLE_CPU_SHARE: Final = 0.00010  # of a core, a partition assigned: fetch requests, polls, gauges


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """An ECS task on Fargate; its price an hour (dollars)."""

    vcpus: float
    gigabytes: float
    arm: bool = False

    @property
    def hour(self) -> float:
        vcpu, gigabyte = (ARM_VCPU_HOUR, ARM_GB_HOUR) if self.arm else (X86_VCPU_HOUR, X86_GB_HOUR)
        return self.vcpus * vcpu + self.gigabytes * gigabyte


# ---- dollars a million records ---------------------------------------------------------------------------------------


def compute_dollars(task: Task, *, cpu_seconds: float, utilisation: float) -> float:
    """The task's time for a million records that take `cpu_seconds`, of a task kept busy at `utilisation` (0 … 1)."""
    return task.hour / task.vcpus * cpu_seconds / HOUR_SECONDS / utilisation


def put_dollars(records_an_object: float) -> float:
    """One put an object; HEADs and listings come with rebalances only."""
    return 1e6 / records_an_object * PUT_OR_LIST


def zone_dollars(wire_bytes_a_record: float, *, zones: int) -> float:
    """Fetched from brokers spread over so many zones: one in `zones` lies in the consumer's own."""
    return 1e6 * wire_bytes_a_record / GB * (zones - 1) / zones * ZONE_GB


# ---- objects ---------------------------------------------------------------------------------------------------------


def cycle_seconds(rate: float, value_bytes: float, *, batch_seconds: float = BATCH_SECONDS) -> float:
    """From one object of a partition to the next, at `rate` records a second in it, arriving by chance.

    A batch's time begins with its first record: the mean wait for one comes on top. Without records no object is made.
    """
    if not rate:
        return math.inf
    full = min(BATCH_RECORDS, BATCH_BYTES / value_bytes) / rate
    return full if full <= batch_seconds else batch_seconds + 1 / rate


def objects_a_day(rate: float, value_bytes: float, partitions: int) -> float:
    """Of all partitions, `rate` being the topic's; time fields in the key add up to one a partition and hour."""
    each = rate / partitions
    cut = max(0.0, 1 - 1 / (each * HOUR_SECONDS)) / 2 if each else 0.0  # an hour's turn wastes half a batch's time
    return partitions * (DAY_SECONDS / cycle_seconds(each, value_bytes) + 24 * cut)


def object_bytes(rate: float, value_bytes: float, partitions: int, compression: str) -> float:
    """The mean object as stored."""
    return DAY_SECONDS * rate * value_bytes / objects_a_day(rate, value_bytes, partitions) / RATIO[compression]


def partition_records_a_second(put_seconds: float, records_an_object: float = BATCH_RECORDS) -> float:
    """The most one partition can store: the next chunk is put only when the one before is acknowledged."""
    return records_an_object / put_seconds


def puts_a_second(members: int, put_seconds: float = PUT_SECONDS, uploads: int = UPLOADS) -> float:
    """The most that a group can ask of S3, whatever its batches do: its slots are all it has."""
    return members * uploads / put_seconds


def members_at_prefix_limit(put_seconds: float = PUT_SECONDS, uploads: int = UPLOADS) -> int:
    """The largest group that cannot exceed one prefix's requests."""
    return int(PUTS_A_SECOND_A_PREFIX * put_seconds / uploads)


# ---- memory ----------------------------------------------------------------------------------------------------------


def codec_bytes(compression: str, taken: float) -> float:
    """Resident in the codec's own buffers after so many bytes."""
    return codec(compression).memory_bytes(math.ceil(taken))


def open_bytes(compression: str, taken: float) -> float:
    """Of one open batch, what MEMORY_LIMIT_BYTES is about: what came out of the codec and what is in it."""
    return taken / RATIO[compression] + codec_bytes(compression, taken)


def process_bytes(partitions: int, compression: str, taken: float) -> float:
    """Resident memory of a member whose partitions each have an open batch of so many bytes taken."""
    builders = partitions * (BUILDER_BYTES if taken else 0)
    ahead = min(partitions * min(taken, AHEAD_PARTITION_BYTES), AHEAD_BYTES + WORKING_BYTES)
    open_ = partitions * open_bytes(compression, taken)
    return PROCESS_BYTES + partitions * IDLE_PARTITION_BYTES + builders + open_ + ahead


def partitions_at_limit(compression: str, taken: float, limit: int = MEMORY_LIMIT) -> int:
    """How many batches of so many bytes taken may be open in one member before it puts the largest early."""
    return int(PRESSURE_SHARE * limit / open_bytes(compression, taken))


def taken_at_pressure(compression: str, partitions: int, limit: int = MEMORY_LIMIT) -> float:
    """Bytes taken by a batch when memory makes it the largest, all growing alike: the object's uncompressed size.

    Sizes are then spread evenly between nothing and the largest, so the mean has to fit the limit's share.
    """
    share = PRESSURE_SHARE * limit / partitions
    low, high = 0.0, float(BATCH_BYTES)
    while high - low > 1:
        middle = (low + high) / 2
        steps = [open_bytes(compression, middle * (step + 0.5) / 50) for step in range(50)]
        low, high = (middle, high) if sum(steps) / len(steps) <= share else (low, middle)
    return low


# ---- rebalances (eager: every member gives up everything) ------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Standstill:
    """Seconds of one rebalance, one after the other; nothing is fetched in them."""

    notice: float
    give_back: float
    locate: float
    probe: float

    @property
    def seconds(self) -> float:
        return self.notice + self.give_back + self.locate + self.probe


def standstill(partitions: int, members: int, *, put_seconds: float = PUT_SECONDS) -> Standstill:
    """Every partition has an open batch. The last member hears of it a heartbeat late; the slowest holds up all.

    `give_back` ends at REVOKE_SECONDS: what is not put by then is read again.
    """
    each = math.ceil(partitions / members)
    return Standstill(
        notice=HEARTBEAT_SECONDS,
        give_back=min(math.ceil(each / UPLOADS) * put_seconds, REVOKE_SECONDS),
        locate=0.2 + 0.0002 * each,  # one round: coordinator, committed offsets, log's ends; measured
        probe=math.ceil(each / HEADS) * HEAD_SECONDS,
    )


def partitions_given_back(put_seconds: float = PUT_SECONDS) -> int:
    """How many open batches one member can put within REVOKE_SECONDS."""
    return int(REVOKE_SECONDS / put_seconds) * UPLOADS


def deploy_objects(partitions: int, members: int) -> int:
    """Objects cut short by a rolling deploy: each member leaves once and joins once, each time everything is put."""
    return 2 * members * partitions


def recovery_seconds(day_objects: float, partitions: int) -> float:
    """Of a member that must look for its chains' ends in the bucket: the newest day's keys, then a HEAD a partition."""
    return math.ceil(day_objects / LIST_PAGE_KEYS) * LIST_SECONDS + partitions * HEAD_SECONDS
