"""Chaos on the real thing: real Kafka, a real S3 server behind a fault proxy, real processes, an independent oracle.

`make chaos`, or `python -m tests.chaos [SCENARIO …] [--seed N] [--list] [--subset ci] [--report FOLDER]`.

A scenario is an async function in any module of `scenarios/` (found by itself), registered by a decorator:

    from tests.chaos.registry import scenario

    @scenario("kill-one", "One of two replicas is killed under load.", ci=True, partitions=4)
    async def kill_one(arena: Arena) -> None:
        first, second = arena.consumer(), arena.consumer()   # processes; the arena ends what is left
        async with arena.load(3000):                         # records/s, evenly over the partitions
            await arena.assigned(first, second)
            await arena.objects_grow(4)                      # 4 objects more in the bucket
            arena.kill(first)                                # SIGKILL; arena.stop(x) = SIGTERM, exit 0 in time
            await second.logged("Partitions assigned", count=2)
        await arena.proven()                                 # always last: all stored once, oracle, clean stops

Decorator: `own_kafka=True`, `own_s3=True` (servers to break: `arena.kafka.server`, `arena.s3.server`: their `kill`,
`stop`, `suspend`, `resume`; `await arena.restart(server)`), `kafka_settings={…}`, `topic_config={…}`, `settings={…}`
(the consumers' variables beside `arena.SETTINGS`), `partitions`, `budget_seconds` (≤ 120, oracle included), `ci`.

Faults (`faults`, `fault_proxy`): `with arena.proxy.injecting(faults.DENIED, method="PUT", share=0.1, key_part="…",
times=3, after=2): …`, `arena.proxy.inject(…)` until `.heal()`, `async with arena.proxy.away(): …`. A fault is what the
client sees and, apart from it, what becomes of the request: `faults.INTERNAL`, `.done()` (happened), `.late(3.0)`.
`faults.HELD` waits in `proxy.held` until `proxy.release()`.

Figures: `arena.note("recovery_seconds", await arena.caught_up())`. Chance: `arena.random`, seeded. Never sleep to wait
for something: `tests.servers.eventually`, `process.logged`, `process.ready_reason`. What this machine cannot run raises
`registry.NotHereError`: told as skipped.

Of a failure everything is kept (logs, bucket, faults.jsonl, failure.txt with what the oracle saw), of a success the
figures in report.json and report.md only; `--keep` keeps the rest. The same seed draws the same chances, which meet
other moments: real processes are not deterministic (`make sim` is).
"""
