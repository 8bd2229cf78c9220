from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.limits import CUT_BYTES, DEFAULT_BATCH_BYTES, Limits, Size


def size(raw_bytes: int, wire_bytes: int | None = None, records: int = 1) -> Size:
    return Size(raw_bytes=raw_bytes, wire_bytes=raw_bytes if wire_bytes is None else wire_bytes, records=records)


def settings(limit: int, policy: str = "delete", compression: str = "producer") -> dict[str, str]:
    return {"max.message.bytes": str(limit), "cleanup.policy": policy, "compression.type": compression}


def told(limit: int, policy: str = "delete", compression: str = "producer") -> Limits:
    limits = Limits()
    assert limits.told(settings(limit, policy, compression))
    return limits


def test_the_brokers_default_is_assumed_until_it_tells() -> None:
    limits = Limits()
    assert not limits.told(None)
    assert limits.takes(size(DEFAULT_BATCH_BYTES))
    assert not limits.takes(size(DEFAULT_BATCH_BYTES + 1))
    assert not limits.needs_key


@pytest.mark.parametrize(("limit", "cut"), [(300, 300), (CUT_BYTES, CUT_BYTES), (10 * CUT_BYTES, CUT_BYTES)])
def test_batches_are_cut_at_the_topics_limit_or_sooner(limit: int, cut: int) -> None:
    limits = told(limit)
    assert (limits.allowed_bytes, limits.cut_bytes) == (limit, cut)


@pytest.mark.parametrize("compression", ["producer", "zstd"])
def test_where_the_broker_keeps_our_compression_the_compressed_size_counts(compression: str) -> None:
    limits = told(1000, compression=compression)
    assert limits.takes(size(5000, 1000))
    assert not limits.takes(size(5000, 1001))


@pytest.mark.parametrize("compression", ["uncompressed", "gzip", "lz4", "snappy"])
def test_where_the_broker_compresses_anew_the_raw_size_counts(compression: str) -> None:
    limits = told(1000, compression=compression)
    assert limits.takes(size(1000, 10))
    assert not limits.takes(size(1001, 10))


@pytest.mark.parametrize(("policy", "needs_key"), [("delete", False), ("compact", True), ("compact,delete", True)])
def test_a_compacted_topic_needs_keys(policy: str, *, needs_key: bool) -> None:
    assert told(1000, policy).needs_key is needs_key


def test_a_refused_record_without_a_key_tells_so_only_where_the_broker_does_not() -> None:
    limits = Limits()
    limits.keyless_refused()
    assert limits.needs_key
    limits = told(1000)
    limits.keyless_refused()
    assert not limits.needs_key


def test_after_a_refusal_batches_are_halved_and_a_record_refused_alone_is_not_tried_again() -> None:
    limits = Limits()
    for _ in range(6):  # the batches of six partitions in one request
        limits.refused(size(CUT_BYTES, 90_000, records=9))
    assert limits.cut_bytes == CUT_BYTES // 2
    limits.refused(size(200_000, 90_000, records=2))
    assert limits.cut_bytes == 100_000
    limits.refused(size(80_000, 40_000))
    assert limits.cut_bytes == 100_000
    assert not limits.takes(size(80_000, 40_000))
    assert not limits.takes(size(90_000, 50_000))
    assert limits.takes(size(79_999, 40_000))
    assert limits.takes(size(90_000, 39_999))  # what the broker measures may be the smaller one


def test_news_end_what_was_learned_and_the_same_answer_does_not() -> None:
    limits = told(100_000)
    limits.refused(size(80_000))
    limits.refused(size(60_000, records=3))
    assert not limits.told(settings(100_000))
    assert not limits.told(None)
    assert not limits.takes(size(80_000))
    assert limits.cut_bytes == 30_000
    assert limits.told(settings(90_000))
    assert limits.takes(size(80_000))
    assert limits.cut_bytes == 90_000


@given(st.integers(1, 20), st.integers(1, 2_000_000))
def test_however_large_the_records_refusals_end_with_each_alone(count: int, record_bytes: int) -> None:
    """A batch of several is halved until it holds one; that one is refused for good."""
    limits, tries = Limits(), 0
    while limits.takes(size(record_bytes)):
        fit = max(1, min(count, limits.cut_bytes // record_bytes))
        limits.refused(size(fit * record_bytes, records=fit))
        tries += 1
        assert tries <= 7


def test_a_limit_that_is_no_number_is_the_default() -> None:
    limits = Limits()
    assert limits.told({})
    assert limits.allowed_bytes == DEFAULT_BATCH_BYTES
