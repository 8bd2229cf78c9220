"""What the producer's side-port tells: ready or why not, alive, and the page."""

from __future__ import annotations

from producer.fetcher import FetchError
from producer.ledger import Parcel, Record
from producer.probe import ProducerProbe
from producer.publisher import Publisher
from producer.redactor import Redactor
from producer.surroundings import rfc3339
from producer.troubles import Kind
from tests.unit.producer.test_poller import GOOD, Rig

PARCEL = Parcel(source="s", time="t", topic="task", records=[Record(key=None, value=b"xx")])


def probe_of(rig: Rig) -> tuple[ProducerProbe, Publisher]:
    publisher = Publisher(
        {"bootstrap_servers": ["broker:9092"], "security_protocol": "PLAINTEXT"},
        ["task"],
        metrics=rig.metrics,
        ledger=rig.ledger,
        redactor=Redactor([]),
        surroundings=rig.world.surroundings,
    )
    return ProducerProbe([rig.poller], publisher, rig.ledger, ["task"]), publisher


def connected(publisher: Publisher) -> None:
    """As when its topic is known."""
    publisher._feeds["task"]._troubles.clear(Kind.WAITING)


async def test_red_before_the_first_success_and_the_broker_is_known() -> None:
    probe, _ = probe_of(Rig())
    assert list(probe.not_ready()) == [
        "topic task since 2027-01-15T08:16:40.000Z: not connected to broker:9092 yet",
        "http://h/x since 2027-01-15T08:16:40.000Z: no poll has succeeded yet",
    ]


async def test_ready_after_a_tick_that_succeeded_and_red_with_its_reason_after_one_that_failed() -> None:
    rig = Rig((0.0, GOOD))
    probe, publisher = probe_of(rig)
    connected(publisher)
    await rig.run()
    assert list(probe.not_ready()) == []
    rig.source.answers = [(0.0, FetchError("refused", "HTTP 403: check API_KEY"))]
    await rig.run()
    (reason,) = probe.not_ready()
    assert reason.startswith("http://h/x since 2027-")
    assert reason.endswith(": HTTP 403: check API_KEY")


async def test_red_when_the_oldest_unacknowledged_record_is_older_than_10_seconds() -> None:
    rig = Rig((0.0, GOOD))
    probe, publisher = probe_of(rig)
    connected(publisher)
    await rig.run()
    publisher.submit(PARCEL)
    rig.world.now += 10.0
    assert list(probe.not_ready()) == []
    rig.world.now += 1.0
    (reason,) = probe.not_ready()
    assert reason == (
        f"topic task since {rfc3339(rig.world.surroundings.wall() - 11.0)}: "
        "Kafka has not acknowledged: 1 records wait, the oldest for 11 s"
    )
    rig.ledger.settle(PARCEL, PARCEL.records)
    assert list(probe.not_ready()) == []


async def test_the_page_says_what_it_is_doing() -> None:
    rig = Rig((0.0, GOOD))
    probe, publisher = probe_of(rig)
    await rig.run()
    publisher.submit(PARCEL)
    status = probe.status()
    assert status.facts["Kafka"] == "broker:9092, topic task"
    assert status.facts["Waiting for Kafka"] == f"1 records, {rig.ledger.unacked_bytes} bytes"
    (row,) = status.tables[0].rows
    assert row[:4] == ("api", "http://h/x", "2 s, all", "task")
    assert str(row[4]).startswith("2027-01-15T08:")
    assert row[5:] == (2, "ok")


async def test_dead_only_when_the_loop_stops_turning() -> None:
    rig = Rig((0.0, FetchError("unreachable", "gone")))
    probe, _ = probe_of(rig)
    await rig.run()
    assert probe.not_alive() is None
    rig.world.now += 100.0
    assert probe.not_alive() is not None
