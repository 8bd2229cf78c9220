"""`python -m producer check`: can this producer work with its settings? One line for each thing it needs.

Owns: the questions and their lines. Does not own: how they are asked (`fetcher`, `publisher`).
Invariant: it ends within CHECK_SECONDS, publishes nothing, and asks the API once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from producer.fetcher import FetchError
from producer.parser import BodyError, parse, record_key
from producer.publisher import PublishError
from shared.lifecycle import EXIT_CRASHED, EXIT_STOPPED, Deadline

if TYPE_CHECKING:
    from collections.abc import Callable

    from producer.service import Parts
    from producer.settings import Settings

CHECK_SECONDS = 30.0
_ANSWER_SECONDS = CHECK_SECONDS - 5.0  # leaves time to close the clients


async def check(settings: Settings, parts: Parts, write: Callable[[str], object]) -> int:
    """Ask the API and Kafka at the same time, `write` a line each; 0 = all is well, 1 = a fault."""
    deadline = Deadline.after(_ANSWER_SECONDS)
    async with parts.fetcher:
        answers = await asyncio.gather(_ask_api(settings, parts, deadline), _ask_kafka(settings, parts, deadline))
    results = [("settings", True, "understood"), *(line for lines in answers for line in lines)]
    for name, good, text in results:
        write(f"{'ok  ' if good else 'FAIL'}  {name:<8}  {text}\n")
    return EXIT_STOPPED if all(good for _, good, _ in results) else EXIT_CRASHED


async def _ask_api(settings: Settings, parts: Parts, deadline: Deadline) -> list[tuple[str, bool, str]]:
    source = parts.plan.source
    try:
        async with deadline.timeout():
            fetched = await parts.fetcher.fetch_once()
    except FetchError as error:
        return [("api", False, f"{source}: {error.reason}")]
    except TimeoutError:
        return [("api", False, f"{source}: no complete answer within {_ANSWER_SECONDS:.0f} s")]
    if fetched.body is None:
        return [("api", True, f"{source}: an answer without a body, no records")]
    try:
        parsed = parse(fetched.body, settings.records_pointer, settings.api_max_records)
    except BodyError as error:
        return [("api", False, f"{source}: {parts.fetcher.unusable(error).reason}")]
    keys = sum(record_key(record, settings.key_pointer) is not None for record in parsed.records)
    text = f"{source}: {len(parsed.records)} records, {keys} with a key, {len(parsed.set_aside)} to be set aside"
    if not parsed.found:
        return [("api", False, f"{text}; nothing is at API_RECORDS_POINTER={settings.api_records_pointer!r}: check it")]
    if parsed.records and not keys and settings.key_pointer is not None:
        text += f"; nothing is at RECORD_KEY_POINTER={settings.record_key_pointer!r}: another one, or none?"
    return [("api", True, text)]


async def _ask_kafka(settings: Settings, parts: Parts, deadline: Deadline) -> list[tuple[str, bool, str]]:
    try:
        partitions = await parts.publisher.partitions(deadline)
    except PublishError as error:
        return [("broker", False, str(error)), ("topic", False, f"{settings.kafka_topic}: not asked")]
    broker = ("broker", True, f"{parts.publisher.brokers} answers")
    count = partitions[settings.kafka_topic]
    if count is None:
        missing = f"{settings.kafka_topic}: does not exist or may not be seen; create it or grant DESCRIBE"
        return [broker, ("topic", False, missing)]
    return [broker, ("topic", True, f"{settings.kafka_topic}: {count} partitions")]
