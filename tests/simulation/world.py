"""A simulated world from its seed to its end: what happens, and that in the end everything is stored.

Owns: the events (records, rebalances, crashes, frozen processes, outages, offsets that get lost …), the trace, and the
fair continuation: faults stop, and everything must be in the bucket in time. Does not own: what must hold at each
moment (`auditor`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from consumer.chain import STALL_LOOK_SECONDS, Phase, Rules
from consumer.ports import Committed
from consumer.retrying import MAX_BACKOFF_SECONDS, REFUSED_SECONDS
from shared.schemas import LAYOUT_VERSION, Layout, sign_offset, signer
from tests.fakes.store import FakeStore
from tests.simulation.auditor import Auditor
from tests.simulation.bucket import Sky, Weather
from tests.simulation.kafka import REQUEST_SECONDS, Brokers, Coordinator
from tests.simulation.member import Member, Surroundings
from tests.simulation.plan import CHAIN_ID, EXTENSIONS, LONG_SECONDS, draw_configuration, draw_plan
from tests.simulation.processes import context_of
from tests.simulation.topic import HOUR_MS, Topic
from tests.virtual_time import START_SECONDS

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Sequence

    from tests.simulation.member import Configuration
    from tests.simulation.processes import ProcessLoop

MAX_RECORDS: Final = 250
MAX_PARTITIONS: Final = 4
GRACE_SECONDS: Final = 20.0  # between SIGTERM and SIGKILL
FAIR_LATENCY_SECONDS: Final = 0.01
PULSE_SECONDS: Final = 0.5
HOUR_EVERY_SECONDS: Final = 15.0  # an hour of the records' timestamps passes in that time


class World:
    """Made inside its loop; `live` is its whole life."""

    def __init__(self, loop: ProcessLoop) -> None:
        self._loop = loop
        self._random = random = loop.random
        self.plan = plan = draw_plan(random)
        self.trace: list[str] = []
        self._failed: asyncio.Future[None] = loop.create_future()
        loop.set_exception_handler(self._on_exception)
        layout = Layout(
            version=LAYOUT_VERSION,
            chain_id=CHAIN_ID,
            topic="task",
            topic_id="topic-1",
            cluster_id="cluster-1",
            template=plan.template,
            ext=EXTENSIONS[plan.compression],
            format=plan.record_format,
            compression=plan.compression,
            origins=plan.origins,
        )
        self.topic = Topic(plan.partitions, random=random, taste=plan.taste)
        for partition, origin in plan.origins.items():
            if origin:
                self.topic.log.append_hidden(int(partition), origin)
        self.store = FakeStore(page_size=random.choice((2, 1000)))
        self.auditor = Auditor(
            topic=self.topic,
            store=self.store,
            layout=layout,
            keys=plan.keys,
            skip_loss=plan.skip_loss,
            tell=self.tell,
        )
        self.weather = Weather(
            random,
            roughness=plan.store_roughness,
            latency_seconds=plan.store_latency_seconds,
            late_seconds=plan.late_seconds,
        )
        self.brokers = Brokers(
            random,
            roughness=plan.kafka_roughness,
            poll_roughness=plan.poll_roughness,
            latency_seconds=plan.kafka_latency_seconds,
        )
        self.coordinator = Coordinator(
            self.topic.log,
            brokers=self.brokers,
            auditor=self.auditor,
            session=plan.session_seconds,
            rebalance=plan.rebalance_seconds,
        )
        rules = Rules(
            layout=layout,
            keys=plan.keys,
            limits=draw_configuration(random, plan.keys).limits,
            writer="",
            skip_loss=plan.skip_loss,
            loss_wait_seconds=plan.loss_wait_seconds,
            compare_timestamps=True,
        )
        self._around = Surroundings(
            topic=self.topic,
            coordinator=self.coordinator,
            store=self.store,
            weather=self.weather,
            auditor=self.auditor,
            rules=rules,
            record_format=plan.record_format,
            compression=plan.compression,
            rebalance_seconds=plan.rebalance_seconds,
            upload_seconds=plan.upload_seconds,
            tell=self.tell,
        )
        self.members: list[Member] = []  # that run, frozen ones too
        self._names = 0
        self._is_fair = False

    @property
    def seen(self) -> Counter[str]:
        return self.auditor.seen

    def tell(self, what: str) -> None:
        self.trace.append(f"{self._loop.time() - START_SECONDS:9.3f} {what}")

    # ---- a life ------------------------------------------------------------------------------------------------------

    async def live(self) -> None:
        """Raises what went wrong first."""
        life = asyncio.create_task(self._live(), name="world")
        await asyncio.wait([life, self._failed], return_when=asyncio.FIRST_COMPLETED)
        if self._failed.done():
            life.cancel()
            self._failed.result()
        life.result()

    async def _live(self) -> None:
        for _ in range(self.plan.members):
            self._start_member()
        pulse = asyncio.create_task(self._pulse(), name="pulse")
        end = self._loop.time() + self.plan.active_seconds
        while self._loop.time() < end:
            await asyncio.sleep(self._random.expovariate(1.0 / self.plan.pace_seconds))
            self._something_happens()
        await self._end_fairly()
        pulse.cancel()

    def _on_exception(self, _: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """Nothing that a callback or a task raised goes unseen."""
        error = context.get("exception")
        self._fail(error if isinstance(error, BaseException) else AssertionError(str(context)))

    def _fail(self, error: BaseException) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)

    async def _pulse(self) -> None:
        while True:
            await asyncio.sleep(PULSE_SECONDS)
            for member in self.members:
                if not self._loop.is_frozen(member.name):
                    try:
                        member.check_pulse()
                    except AssertionError as error:
                        self._fail(error)

    # ---- processes ---------------------------------------------------------------------------------------------------

    def _start_member(self, configuration: Configuration | None = None) -> None:
        self._names += 1
        if configuration is None:
            configuration = draw_configuration(self._random, self.plan.keys)
        member = Member(f"m{self._names}", self._around, configuration)
        member.task.add_done_callback(lambda _: self._ended(member))
        self.members.append(member)
        self.tell(f"{member.name} starts: {member.configuration.told}")

    def _ended(self, member: Member) -> None:
        if member not in self.members:
            return  # killed
        self.members.remove(member)
        if member.task.cancelled() or (error := member.task.exception()) is None:
            how = "cancelled" if member.task.cancelled() else member.task.result()
            self.tell(f"{member.name} ended: {how}")
            self.seen[f"process {how}"] += 1
            if how == "gave up":
                self._start_member()
        else:
            self._fail(error)

    def _kill(self, member: Member) -> None:
        """SIGKILL: nothing of it runs any more, what it has sent is under way."""
        self.tell(f"{member.name} is killed, puts under way: {list(member.client.puts)}")
        self.seen["killed"] += 1
        self.seen["killed with a put in flight"] += bool(member.client.puts)
        if not self._loop.is_frozen(member.name):
            self._loop.freeze(member.name)
        self.members.remove(member)

    def _kill_if_it_hangs(self, member: Member) -> None:
        if member in self.members:
            self.seen["killed in its stop"] += 1
            self._kill(member)
            if not self._is_fair and not self.members:
                self._start_member()

    def _freeze(self, member: Member) -> None:
        seconds = self._random.uniform(0.2, self.plan.freeze_seconds)
        if member not in self.members or self._loop.is_frozen(member.name):
            return
        self.tell(f"{member.name} freezes for {seconds:.1f} s, puts under way: {list(member.client.puts)}")
        self._loop.freeze(member.name)
        # Perhaps we are in its own context: the timer that wakes it must not freeze with it.
        self._loop.call_later(seconds, self._thaw, member, bool(member.client.puts), context=context_of())

    def _thaw(self, member: Member, had_puts: bool) -> None:
        if member not in self.members or not self._loop.is_frozen(member.name):
            return
        if member.source not in self.coordinator.members:
            self.seen["zombie woke"] += 1
            self.seen["zombie woke, had a put in flight"] += had_puts
        self.tell(f"{member.name} wakes")
        self._loop.thaw(member.name)

    # ---- events ------------------------------------------------------------------------------------------------------

    def _something_happens(self) -> None:
        events: Sequence[tuple[float, Callable[[], None]]] = (
            (50.0, self._grow),
            (2.0, self._join),
            (2.0, self._leave),
            (3.0, self._crash),
            (5.0, self._freeze_one),
            (1.5, self._rebalance),
            (2.0, self._move_log_start),
            (1.0, self._add_partition),
            (3.0, self._harm_offsets),
            (3.0, self._change_sky),
            (2.0, self._trouble_kafka),
        )
        weights = [weight for weight, _ in events]
        self._random.choices([event for _, event in events], weights)[0]()

    def _grow(self) -> None:
        if self.topic.records() < MAX_RECORDS:
            clock_ms = int((self._loop.time() - START_SECONDS) / HOUR_EVERY_SECONDS * HOUR_MS)
            for _ in range(self._random.choice((1, 1, 3))):
                self.topic.grow(
                    self._random.randrange(len(self.topic)), self._random.choice((1, 2, 5, 12)), clock_ms=clock_ms
                )

    def _join(self) -> None:
        if len(self.members) < 4:
            self._start_member()

    def _leave(self) -> None:
        if awake := self._awake():
            self._stop(self._random.choice(awake))
            self._replace()

    def _stop(self, member: Member) -> None:
        if member.stop_asked_at is None:
            self.tell(f"{member.name} is asked to stop")
            member.ask_to_stop()
            self._loop.call_later(GRACE_SECONDS, self._kill_if_it_hangs, member)

    def _crash(self) -> None:
        if self.members:
            member = self._random.choice(self.members)
            if self._random.random() < 0.5:
                member.client.on_put = lambda: self._kill(member) if member in self.members else None
                self._hold_next_put(member)
            else:
                self._kill(member)
            self._replace()

    def _replace(self) -> None:
        """Somebody has to be there most of the time."""
        if len(self.members) < 2 or self._random.random() < 0.5:
            self._start_member()

    def _freeze_one(self) -> None:
        if awake := self._awake():
            member = self._random.choice(awake)
            if self._random.random() < 0.6:
                member.client.on_put = lambda: self._freeze(member)
                self._hold_next_put(member)
            else:
                self._freeze(member)

    def _hold_next_put(self, member: Member) -> None:
        """Let it land when another may have taken over, who knows nothing of it."""
        if self.plan.late_seconds > self.plan.session_seconds and self._random.random() < 0.7:
            plan = self.plan
            member.client.next_put_there = plan.session_seconds + self._random.uniform(0.0, 2 * plan.rebalance_seconds)

    def _awake(self) -> list[Member]:
        return [member for member in self.members if not self._loop.is_frozen(member.name)]

    def _rebalance(self) -> None:
        self.tell("the group rebalances")
        self.coordinator.rebalance()

    def _move_log_start(self) -> None:
        """Retention, never beyond what is stored; beyond it only where losses are to be skipped."""
        partition = self._random.randrange(len(self.topic))
        log, end = self.topic.log.range(partition), self.auditor.end(partition)
        if self.plan.skip_loss and self._random.random() < 0.5:
            end = self.topic.end(partition)
        if end > log.start:
            start = self._random.choice(self.topic.boundaries(partition, log.start, end))
            self.seen["log start moved"] += 1
            self.seen["loss"] += start > self.auditor.end(partition)
            self.tell(f"the log of {partition} starts at {start}, its chain ends at {self.auditor.end(partition)}")
            self.topic.log.move_start(partition, start)

    def _add_partition(self) -> None:
        if len(self.topic) < MAX_PARTITIONS:
            self.tell("a partition more")
            self.seen["partition added"] += 1
            self.topic.add_partitions(1)
            self.coordinator.rebalance()

    def _harm_offsets(self) -> None:
        partition = self._random.randrange(len(self.topic))
        offsets, chance = self.coordinator.offsets, self._random.random()
        somewhere = self._random.randint(0, self.topic.log.range(partition).high_watermark + 2)
        if chance < 0.4:
            offsets.pop(partition, None)
        elif chance < 0.6:
            offsets[partition] = Committed(offset=somewhere, metadata="")
        elif chance < 0.8:
            offsets[partition] = Committed(offset=somewhere, metadata=sign_offset(CHAIN_ID, somewhere + 1))
        else:
            offsets[partition] = Committed(offset=somewhere, metadata=sign_offset("other", somewhere))
            self._loop.call_later(self._random.uniform(1, 40), self._heal_offset, partition)
        self.seen["offsets harmed"] += 1
        self.tell(f"the group's offset of {partition} is now {offsets.get(partition)}")

    def _heal_offset(self, partition: int) -> None:
        """The person that the stall calls for."""
        offset = self.coordinator.offsets.get(partition)
        if offset and signer(offset.offset, offset.metadata) == "other":
            del self.coordinator.offsets[partition]
            self.tell(f"the group's offset of {partition} is deleted")

    def _change_sky(self) -> None:
        sky = self._random.choice([sky for sky in Sky if sky is not Sky.CLEAR])
        seconds = self._random.choice((2.0, 10.0, 60.0)) * self._random.uniform(0.5, 1.5)
        self.seen[f"sky: {sky}"] += 1
        self.tell(f"S3: {sky} for {seconds:.1f} s")
        self.weather.change(sky, self._loop.time() + seconds)

    def _trouble_kafka(self) -> None:
        until = self._loop.time() + self._random.choice((1.0, 5.0, 20.0))
        kind = self._random.choice(("away", "loading", "lagging"))
        self.seen[f"kafka: {kind}"] += 1
        self.tell(f"Kafka: {kind} until {until - START_SECONDS:.1f}")
        if kind == "away":
            self.brokers.away_until = until
        elif kind == "loading":
            self.brokers.loading_until = until
        else:
            self.brokers.lagging[self._random.randrange(len(self.topic))] = (until, self._random.randint(1, 20))

    # ---- the fair continuation ---------------------------------------------------------------------------------------

    @property
    def fair_seconds(self) -> float:
        """How long it may take from the last fault until everything is read and, where time seals, stored.

        Whoever is dead or asleep is put out (session, rebalance), a drain may precede; what was under way ends by its
        deadline; a refusal waits 30 s, a stall twice as long when what it met has just gone; `skip` waits for others.
        """
        plan = self.plan
        group = plan.session_seconds + 2 * plan.rebalance_seconds
        requests = 3 * plan.upload_seconds + 2 * REQUEST_SECONDS + MAX_BACKOFF_SECONDS + REFUSED_SECONDS
        return group + requests + 3 * STALL_LOOK_SECONDS + 2 * plan.loss_wait_seconds

    async def _end_fairly(self) -> None:
        self.tell("from here on all is well")
        self._is_fair = True
        self.weather.change(Sky.CLEAR, 0.0)
        self.weather.roughness = self.brokers.roughness = self.brokers.poll_roughness = 0.0
        self.weather.latency_seconds = self.brokers.latency_seconds = FAIR_LATENCY_SECONDS
        self.brokers.away_until = self.brokers.loading_until = 0.0
        self.brokers.lagging.clear()
        for partition in range(len(self.topic)):
            self._heal_offset(partition)
        for member in self.members:
            member.client.on_put = member.client.next_put_there = None
            if self._loop.is_frozen(member.name):
                self._thaw(member, bool(member.client.puts))
        if not any(member.stop_asked_at is None for member in self.members):
            self._start_member()
        if self._offsets_are_astray():  # nobody would look at them before the next assignment
            self._rebalance()
        began = self._loop.time()
        await self._until(self._all_taken, self.fair_seconds, "everything read, and stored where time seals")
        self.seen["fair seconds"] += round(self._loop.time() - began)
        await self._stop_all()
        if any(self.auditor.not_stored(partition) for partition in range(len(self.topic))):
            # A last put that met another's object leaves what was open behind it to the next owner.
            self.seen["left for the next owner"] += 1
            self._start_member(draw_configuration(self._random, self.plan.keys, batch_seconds=1.0))
            await self._until(self._all_taken, self.fair_seconds, "what was left for the next owner is stored")
            await self._stop_all()
        self._check_end()

    async def _stop_all(self) -> None:
        for member in list(self.members):
            self._stop(member)
        await self._until(lambda: not self.members, GRACE_SECONDS, "everybody stopped")

    def _all_taken(self) -> bool:
        return all(self._is_taken(partition) for partition in range(len(self.topic)))

    def _is_taken(self, partition: int) -> bool:
        """Stored, or in a batch that no time seals."""
        if not self.auditor.not_stored(partition):
            return self._is_committed(partition)
        end = self.topic.end(partition)
        for member in self.members:
            one = member.worker.partitions.get(partition)
            if one is not None and member.source.generation == self.coordinator.generation:
                open_ended = member.configuration.limits.seconds == LONG_SECONDS
                read = one.chain.phase is Phase.RUNNING and one.chain.fetch_next >= end and not one.chain.held
                return open_ended and read
        return False

    def _check_end(self) -> None:
        for partition in range(len(self.topic)):
            chain_end, left = self.auditor.end(partition), self.auditor.not_stored(partition)
            assert not left, f"partition {partition}: the chain ends at {chain_end}, {len(left)} records are not stored"

    def _is_committed(self, partition: int) -> bool:
        """The chain's end, unless the partition has no object yet, or what is committed came late."""
        boundaries = self.auditor.boundaries(partition)
        if len(boundaries) == 1 or partition in self.auditor.late_offsets:
            return True
        return self.coordinator.offsets.get(partition) == _signed(boundaries[-1])

    def _offsets_are_astray(self) -> bool:
        return any(
            self.coordinator.offsets.get(partition) not in [_signed(end) for end in self.auditor.boundaries(partition)]
            for partition in range(len(self.topic))
        )

    async def _until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        end = self._loop.time() + seconds
        while not condition():
            assert self._loop.time() < end, f"not within {seconds:.0f} s: {what}; " + "; ".join(
                f"{member.name}: {[(one.number, one.chain) for one in member.worker.partitions.values()]}"
                for member in self.members
            )
            await asyncio.sleep(0.25)


def _signed(offset: int) -> Committed:
    return Committed(offset=offset, metadata=sign_offset(CHAIN_ID, offset))
