"""`python -m producer check`: can this producer work with its settings? One line for each thing it needs.

Owns: the questions and their lines. Does not own: how they are asked (`fetcher`, `publisher`).
Invariant: it ends within CHECK_SECONDS, publishes nothing, and asks each API once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from producer.fetcher import Ask, FetchError
from producer.pages import next_link, next_page
from producer.parser import BodyError, parse, record_key
from producer.publisher import PublishError
from shared.lifecycle import EXIT_CRASHED, EXIT_STOPPED, Deadline

if TYPE_CHECKING:
    from collections.abc import Callable

    from producer.fetcher import Fetcher
    from producer.plan import Plan
    from producer.publisher import Publisher
    from producer.service import Parts
    from producer.settings import Settings

CHECK_SECONDS = 30.0
_ANSWER_SECONDS = CHECK_SECONDS - 5.0  # leaves time to close the clients


@dataclass(frozen=True, slots=True)
class Line:
    """What is said of one thing."""

    name: str
    good: bool = field(kw_only=True)
    text: str = field(kw_only=True)


async def check(settings: Settings, parts: Parts, write: Callable[[str], object]) -> int:
    """Ask every API and Kafka at the same time, `write` a line for each thing; 0 = all is well, 1 = a fault."""
    deadline = Deadline.after(_ANSWER_SECONDS)
    async with parts.client:
        answers = await asyncio.gather(
            *(
                _ask_api(poller.plan, fetcher, deadline)
                for poller, fetcher in zip(parts.pollers, parts.fetchers, strict=True)
            ),
            _ask_kafka(settings, parts.publisher, deadline),
        )
    lines = [Line("settings", good=True, text="understood"), *(line for lines in answers for line in lines)]
    width = max(len(line.name) for line in lines)
    for line in lines:
        write(f"{'ok  ' if line.good else 'FAIL'}  {line.name:<{width}}  {line.text}\n")
    return EXIT_STOPPED if all(line.good for line in lines) else EXIT_CRASHED


async def _ask_api(plan: Plan, fetcher: Fetcher, deadline: Deadline) -> list[Line]:
    good, text = await _answer(plan, fetcher, deadline)
    return [Line(plan.name, good=good, text=f"{plan.source}: {text}")]


async def _answer(plan: Plan, fetcher: Fetcher, deadline: Deadline) -> tuple[bool, str]:
    """Whether the first page can be used, and what it holds."""
    try:
        async with deadline.timeout():
            fetched = await fetcher.fetch_once(Ask(endpoint=plan.endpoint))
    except FetchError as error:
        return False, error.reason
    except TimeoutError:
        return False, f"no complete answer within {_ANSWER_SECONDS:.0f} s"
    if fetched.body is None:
        return True, "an answer without a body, no records"
    try:
        parsed = parse(fetched.body, plan.records_pointer, plan.max_records, plan.setting("max_records"))
        link = None if plan.next_pointer is None else next_link(fetched.body, plan.next_pointer)
        if link is not None:
            next_page(plan.endpoint, link)
    except BodyError as error:
        return False, fetcher.unusable(error).reason
    keys = sum(record_key(record, plan.key_pointer) is not None for record in parsed.records)
    text = f"{len(parsed.records)} records, {keys} with a key, {len(parsed.set_aside)} to be set aside"
    if link is not None:
        text += ", more on further pages"
    if not parsed.found:
        return False, f"{text}; nothing is at {plan.setting('records_pointer')}={plan.records_pointer.text!r}: check it"
    if parsed.records and not keys and plan.key_pointer is not None:
        text += f"; nothing is at {plan.setting('key_pointer')}={plan.key_pointer.text!r}: another one, or none?"
    return True, text


async def _ask_kafka(settings: Settings, publisher: Publisher, deadline: Deadline) -> list[Line]:
    try:
        found = await publisher.partitions(deadline)
    except PublishError as error:
        return [
            Line("broker", good=False, text=str(error)),
            *(Line("topic", good=False, text=f"{topic}: not asked") for topic in settings.topics),
        ]
    missing = "does not exist or may not be seen; create it or grant DESCRIBE"
    return [
        Line("broker", good=True, text=f"{publisher.brokers} answers"),
        *(
            Line(
                "topic", good=count is not None, text=f"{topic}: {missing if count is None else f'{count} partitions'}"
            )
            for topic, count in found.items()
        ),
    ]
