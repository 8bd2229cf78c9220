"""docs/scaling.md says what the model says, and the model counts as the consumer does."""

from __future__ import annotations

import json

import pytest

from bench import scale_model, scaling
from consumer import recovery, seams, source, worker
from consumer.codecs import codec
from consumer.settings import Settings


def test_the_document_holds_the_tables_that_the_model_and_the_figures_give() -> None:
    text, tables = scaling.DOCUMENT.read_text(), scaling.tables(json.loads(scaling.FIGURES.read_text()))
    assert all(f"<!-- table {name} -->" in text for name in tables)
    assert scaling.with_tables(text, tables) == text, "run python -m bench.scaling --write"


def test_the_model_reckons_with_the_defaults_of_the_settings() -> None:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert defaults["batch_max_records"] == scale_model.BATCH_RECORDS
    assert defaults["batch_max_bytes"] == scale_model.BATCH_BYTES
    assert defaults["batch_max_seconds"] == scale_model.BATCH_SECONDS
    assert defaults["memory_limit_bytes"] == scale_model.MEMORY_LIMIT
    assert defaults["upload_concurrency"] == scale_model.UPLOADS
    rebalance_seconds = defaults["kafka_rebalance_timeout_seconds"]
    assert worker.REVOKE_SHARE * rebalance_seconds == scale_model.REVOKE_SECONDS
    assert worker.PRESSURE_SHARE == scale_model.PRESSURE_SHARE
    assert recovery.HEADS == scale_model.HEADS
    assert source.FETCH_PARTITION_BYTES == scale_model.AHEAD_PARTITION_BYTES
    assert seams.PREFETCH_BYTES + source.FETCH_BYTES == scale_model.AHEAD_BYTES


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_codecs_buffers_grow_from_the_first_byte_to_their_most(compression: str) -> None:
    sizes = [scale_model.codec_bytes(compression, taken) for taken in (0, 1, 100_000, 1_000_000, 1 << 24)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 0
    assert sizes[1] >= codec(compression).first_bytes
    assert sizes[-1] == codec(compression).bytes


def test_a_partition_without_records_makes_no_object() -> None:
    assert scale_model.objects_a_day(0, 200, 512) == 0


@pytest.mark.parametrize(("rate", "seconds"), [(0.1, 70.0), (1_000.0, 60.001), (100_000.0, 0.83886)])
def test_a_cycle_is_the_batchs_time_and_the_wait_for_a_record_or_until_it_is_full(rate: float, seconds: float) -> None:
    assert scale_model.cycle_seconds(rate, 200) == pytest.approx(seconds, rel=1e-4)


def test_pressure_leaves_objects_whose_mean_fits_the_limit() -> None:
    taken = scale_model.taken_at_pressure("none", 100, 100 << 20)
    assert taken == pytest.approx(2 * 0.8 * (1 << 20), rel=0.01)
    assert scale_model.taken_at_pressure("gzip", 1) == pytest.approx(scale_model.BATCH_BYTES, abs=2)


def test_a_large_members_open_batches_are_given_up_at_the_budgets_end() -> None:
    most = scale_model.partitions_given_back()
    assert scale_model.standstill(most, 1).give_back < scale_model.REVOKE_SECONDS + 1e-9
    assert scale_model.standstill(4 * most, 1).give_back == scale_model.REVOKE_SECONDS
