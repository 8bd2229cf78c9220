"""Replicas that are frozen past their session, replaced, and wake with something in their hands.

Each round proves that it was reached: what the zombie held is read off its own page before it is frozen, a put in its
hands is held by the proxy, and what became of it stands in the proxy's journal and in both replicas' logs.
"""

from __future__ import annotations

import html
import re
import signal
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from tests.chaos import faults
from tests.chaos.registry import scenario
from tests.chaos.witness import Witness, put_of, writer_of
from tests.servers import Produced, eventually

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.chaos.arena import Arena
    from tests.chaos.witness import Put
    from tests.processes import ServiceProcess

CREATED, THERE_ALREADY = 200, 412
PATIENCE_SECONDS = 40.0
BURST_RECORDS = 2000
COLUMNS = 7
# One replica's puts time out while it is frozen, the other wakes with the answer waiting in its socket.
UPLOAD_TIMEOUTS_SECONDS = ("5", "60")
SETTINGS = {
    "BATCH_MAX_SECONDS": "3",
    "KAFKA_SESSION_TIMEOUT_SECONDS": "3",
    "KAFKA_REBALANCE_TIMEOUT_SECONDS": "6",
    # Without hours: a run across a full hour would seal batches that have to stay open.
    "S3_KEY_TEMPLATE": "topic={topic}/dt={dt}/{partition:05d}-{start:020d}.{ext}",
}


class Landing(StrEnum):
    """When the zombie's put reaches the store."""

    BEFORE = "before the take-over"
    BETWEEN = "after the new owner has begun there, before its put"
    AFTER = "after the new owner's put"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One partition, as a replica's own page shows it. `end` is -1 while it is not known."""

    end: int
    open_records: int
    in_flight: str


@scenario(
    "zombie-buffered",
    "A replica with open batches is frozen past its session and wakes after its successor has put at the same offsets,"
    " or just before; four times.",
    settings=SETTINGS,
)
async def zombie_buffered(arena: Arena) -> None:
    witness = Witness(arena.proxy)
    async with arena.load(3000):
        pair = await _pair(arena)
        for number, successor_first in enumerate(arena.random.sample([True, False, True, False], 4)):
            zombie, successor = pair[number % 2], pair[1 - number % 2]
            await _wake_with_open_batches(arena, witness, zombie, successor, successor_first=successor_first)
    await arena.proven()


async def _wake_with_open_batches(
    arena: Arena, witness: Witness, zombie: ServiceProcess, successor: ServiceProcess, *, successor_first: bool
) -> None:
    rows: Mapping[int, Row] = {}

    async def all_open() -> bool:
        nonlocal rows
        rows = await _rows(zombie)
        return bool(rows) and all(row.open_records and not row.in_flight for row in rows.values())

    while True:
        await eventually(all_open, "open batches and nothing in flight", PATIENCE_SECONDS)
        starts = {partition: row.end for partition, row in rows.items()}
        logged = len(successor.lines())
        await _freeze(zombie)
        if not starts.items() & {(put.partition, put.start) for put in witness.puts_of(zombie)}:
            break
        zombie.send(signal.SIGCONT)  # it has put between the look and the stop: again
    await arena.spread(successor)
    if successor_first:
        await _logged_at(successor, "Uploaded", starts, after=logged)
    else:
        await _begun(successor, starts)
    logged, woken = len(zombie.lines()), time.monotonic()
    zombie.send(signal.SIGCONT)
    if successor_first:
        await _logged_at(zombie, "Adopted", starts, after=logged)
        _count(arena, "zombie_met_its_successors_object")
    else:
        await _logged_at(zombie, "Uploaded", starts, after=logged)
        await _logged_at(successor, "Adopted", starts)
        _count(arena, "successor_met_the_zombies_object")
    put = {(put.partition, put.start) for put in witness.puts_of(zombie, since=woken)}
    assert put >= set(starts.items()), f"awake it put at {put}; what it held begins at {starts}"
    await arena.spread(zombie, successor)


@scenario(
    "zombie-put",
    "A replica is frozen past its session with puts in flight and nothing behind them; they land before its successor"
    " takes over, between its probe and its put, or after its put.",
    settings=SETTINGS,
)
async def zombie_put(arena: Arena) -> None:
    pair = await _pair(arena)
    for number, landing in enumerate(arena.random.sample(list(Landing), 3)):
        burst = [
            Produced(value=b'{"burst":%d,"n":%d}' % (number, n), partition=n % arena.scenario.partitions)
            for n in range(BURST_RECORDS)
        ]
        haunting = _Haunting(arena, zombie=pair[number % 2], successor=pair[1 - number % 2], landing=landing)
        await arena.kafka.produce(arena.topic, burst)
        await haunting.reach(behind=False)
        async with arena.load(3000):
            await haunting.run()
        await arena.caught_up()
    await arena.proven()


@scenario(
    "zombie-sealed",
    "A replica is frozen past its session with sealed chunks in flight and open batches behind them; the puts land"
    " before its successor takes over, between its probe and its put, or after its put.",
    ci=True,
    settings=SETTINGS,
)
async def zombie_sealed(arena: Arena) -> None:
    async with arena.load(3000):
        pair = await _pair(arena)
        for number, landing in enumerate(arena.random.sample(list(Landing), 3)):
            haunting = _Haunting(arena, zombie=pair[number % 2], successor=pair[1 - number % 2], landing=landing)
            await haunting.reach(behind=True)
            await haunting.run()
    await arena.proven()


class _Haunting:
    """One replica frozen with puts in flight, the other taking over."""

    def __init__(self, arena: Arena, *, zombie: ServiceProcess, successor: ServiceProcess, landing: Landing) -> None:
        self._arena = arena
        self._zombie = zombie
        self._successor = successor
        self._landing = landing
        self._held: dict[int, Put] = {}
        self._logged = 0  # lines of the successor before the freeze
        writer = writer_of(zombie)
        self._hold = arena.proxy.inject(
            faults.HELD, where=lambda request: (put := put_of(request)) is not None and put.writer == writer
        )

    async def reach(self, *, behind: bool) -> None:
        """Freeze the zombie when every partition of it has a put at the proxy, with or without open records behind.

        A put at the proxy stays in flight, and what is open behind it stays open: neither can change any more.
        What is to land before the take-over lands here.
        """

        async def reached() -> bool:
            rows = await _rows(self._zombie)
            self._held = {put.partition: put for put in map(put_of, self._arena.proxy.held) if put is not None}
            return (
                bool(rows)
                and self._held.keys() == rows.keys()
                and all(
                    row.in_flight == self._held[partition].key and bool(row.open_records) == behind
                    for partition, row in rows.items()
                )
            )

        await eventually(reached, f"puts in flight, {'open' if behind else 'no'} records behind", PATIENCE_SECONDS)
        self._logged = len(self._successor.lines())
        replaced = len(self._successor.lines("Partitions assigned"))
        await _freeze(self._zombie)
        if self._landing is Landing.BEFORE:
            await self._land(CREATED)
            assert len(self._successor.lines("Partitions assigned")) == replaced, "its puts landed after the take-over"

    async def run(self) -> None:
        """Take-over, landing, waking; what each must lead to."""
        arena, zombie, successor = self._arena, self._zombie, self._successor
        logged = self._logged
        await arena.spread(successor)
        if self._landing is Landing.BETWEEN:
            await _begun(successor, {partition: put.start for partition, put in self._held.items()})
            await self._land(CREATED)
        if self._landing is Landing.AFTER:
            await _logged_at(successor, "Uploaded", self._starts(), after=logged)
            await self._land(THERE_ALREADY)
        else:
            await _logged_at(successor, "Adopted", self._starts(), after=logged)
        if self._landing is Landing.BEFORE:
            ends = {partition: put.next_offset for partition, put in self._held.items()}
            await _logged_at(successor, "Uploaded", ends, after=logged)
        arena.proxy.heal(self._hold)
        logged = len(zombie.lines())
        zombie.send(signal.SIGCONT)
        await _logged_at(
            zombie, "Adopted" if self._landing is Landing.AFTER else "Uploaded", self._starts(), after=logged
        )
        _count(arena, f"put_landed_{self._landing.name.lower()}")
        await arena.spread(zombie, successor)

    def _starts(self) -> dict[int, int]:
        return {partition: put.start for partition, put in self._held.items()}

    async def _land(self, status: int) -> None:
        """The held puts reach the store, which answers them with that status."""
        proxy, keys = self._arena.proxy, {put.key for put in self._held.values()}
        before = len(proxy.journal)
        proxy.release()

        def landed() -> dict[str, int | None]:
            first_wins = reversed(proxy.journal[before:])  # one that timed out before the freeze was repeated
            return {struck.key: struck.status for struck in first_wins if struck.key in keys}

        await eventually(lambda: landed().keys() == keys, f"the store's answers to the puts of {keys}", 10)
        assert set(landed().values()) == {status}, f"{self._landing}: answered {landed()}, {status} is expected"


async def _pair(arena: Arena) -> list[ServiceProcess]:
    """Two replicas that share the partitions."""
    pair = [arena.consumer(UPLOAD_TIMEOUT_SECONDS=seconds) for seconds in UPLOAD_TIMEOUTS_SECONDS]
    await arena.assigned(*pair)
    await arena.spread(*pair)
    return pair


def _count(arena: Arena, name: str) -> None:
    before = arena.figures.get(name, 0)
    arena.note(name, before + 1 if isinstance(before, int) else 1)


async def _freeze(zombie: ServiceProcess) -> None:
    zombie.send(signal.SIGSTOP)
    status = Path(f"/proc/{zombie.process.pid}/status")
    await eventually(lambda: "\nState:\tT" in status.read_text(), "the process stopped", 5)


async def _begun(consumer: ServiceProcess, starts: Mapping[int, int]) -> None:
    """Wait until it has batches open, none of them put, at these offsets."""

    async def begun() -> bool:
        rows = await _rows(consumer)
        return all(
            rows[partition].end == start and rows[partition].open_records and not rows[partition].in_flight
            for partition, start in starts.items()
        )

    await eventually(begun, f"open batches at {starts}", PATIENCE_SECONDS)


async def _logged_at(consumer: ServiceProcess, event: str, starts: Mapping[int, int], *, after: int = 0) -> None:
    """Wait until it has said of each partition, later than that many lines, that it put or adopted at its start."""

    def missing() -> set[tuple[int, int]]:
        said: set[tuple[int, object]] = {
            (_partition(line["key"]), line["start"]) for line in consumer.lines()[after:] if line["event"] == event
        }
        return set(starts.items()) - said

    await eventually(lambda: not missing(), f"{event} at {starts} in {consumer.log_file.name}", PATIENCE_SECONDS)


def _partition(key: object) -> int:
    return int(str(key).rsplit("/", 1)[-1].split("-")[0])


async def _rows(consumer: ServiceProcess) -> dict[int, Row]:
    """Its partitions by its own page: number, state, chain end, lag, open records, key in flight, last object."""
    _, page = await consumer.get("/")
    rows = {}
    for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL):
        cells = [html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)]
        if len(cells) == COLUMNS:
            number, end, open_records = (int(cells[column].replace(",", "") or -1) for column in (0, 2, 4))
            rows[number] = Row(end=end, open_records=open_records, in_flight=cells[5])
    return rows
