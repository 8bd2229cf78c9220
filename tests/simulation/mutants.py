"""Bugs to be planted in the consumer, by name: each must be found by the simulation.

Owns: the bugs, and planting them into the running interpreter for a while. Does not own: finding them.

A bug is a change of a function's source. Where the source is no longer as it was when the bug was thought of, planting
fails, so that no bug is forgotten silently.
"""

from __future__ import annotations

import inspect
import textwrap
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from consumer import recovery, rounds
from consumer.chain import _Turn
from consumer.committer import Committer
from consumer.partition import Partition
from consumer.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """`was` becomes `now` in the source of `function`, which lives in `place`, a class or the module that calls it.

    `first` is the seed to look from: a bug that shows only when several rare things meet (one world in some hundreds)
    is looked for where it was seen, so that the tests need not run all the worlds before.
    """

    name: str
    place: Any
    function: str
    was: str
    now: str
    first: int = 0

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The consumer with the bug."""
        original = inspect.getattr_static(self.place, self.function)
        source = textwrap.dedent(inspect.getsource(original))
        if source.count(self.was) != 1:
            msg = f"mutant {self.name!r}: {self.was!r} stands {source.count(self.was)} times in {self.function}"
            raise LookupError(msg)
        namespace: dict[str, Any] = {}
        code = "from __future__ import annotations\n" + source.replace(self.was, self.now)
        exec(compile(code, f"<mutant {self.name}>", "exec"), original.__globals__, namespace)
        setattr(self.place, self.function, namespace[self.function])
        try:
            yield
        finally:
            setattr(self.place, self.function, original)


MUTANTS: Final = (
    Mutant(
        name="abandoned work goes on",
        place=Partition,
        function="_drop",
        was="task.cancel()",
        now="pass",
        first=20,
    ),
    Mutant(
        name="commits are not forgotten at a revocation",
        place=Worker,
        function="_give_back",
        was="self._committer.forget(partition.number for partition in going)",
        now="pass",
        first=220,
    ),
    Mutant(
        name="a body is sealed before what waits is in it",
        place=Partition,
        function="_enqueue",
        was="self._work.append(work)",
        now="(self._work.appendleft if isinstance(work, events.Seal) else self._work.append)(work)",
    ),
    Mutant(
        name="the open body outlives a drop",
        place=Partition,
        function="_drop",
        was="self._builder = self._desk.new_builder()",
        now="pass",
        first=295,
    ),
    Mutant(
        name="no seek after a failed poll",
        place=Worker,
        function="_poll",
        was="self._source.seek(partition.number, partition.chain.fetch_next)",
        now="pass",
        first=248,
    ),
    Mutant(
        name="memory pressure is ignored",
        place=Worker,
        function="_relieve",
        was="partition.feed(events.Pressure())",
        now="pass",
        first=14,
    ),
    Mutant(
        name="polls go on above the memory limit",
        place=Worker,
        function="_turn",
        was="self._relieve() < self._budget.memory_bytes",
        now="True",
    ),
    Mutant(
        name="polls go on above the memory limit where bodies are compressed",
        place=Worker,
        function="_turn",
        was="self._relieve() < self._budget.memory_bytes",
        now="(self._relieve() < self._budget.memory_bytes or self._codec.bytes)",
        first=70,
    ),
    Mutant(
        name="a drain has no deadline",
        place=Worker,
        function="_give_back",
        was="asyncio.timeout(seconds)",
        now="asyncio.timeout(None)",
        first=2,
    ),
    Mutant(
        name="a commit has no deadline at the end",
        place=Worker,
        function="_flush_commits",
        was="asyncio.timeout(seconds)",
        now="asyncio.timeout(None)",
        first=9,
    ),
    Mutant(
        name="no polls while nothing is wanted",
        place=Worker,
        function="_turn",
        was="asyncio.timeout_at(self._poll_due)",
        now="asyncio.timeout_at(None)",
    ),
    Mutant(
        name="a listing of the oldest day is enough",
        place=recovery,
        function="_prefixes",
        was="sorted(days, reverse=True)",
        now="sorted(days)[:1]",
        first=28,
    ),
    Mutant(
        name="recovery takes the first object it finds",
        place=recovery,
        function="highest_keys",
        was='parsed.start > best.get(parsed.partition, (-1, ""))[0]',
        now="parsed.partition not in best",
        first=9,
    ),
    Mutant(
        name="a newer boundary is dropped with the one committed",
        place=Committer,
        function="flush",
        was="if self._noted.get(partition) == offset:",
        now="if partition in self._noted:",
        first=2,
    ),
    Mutant(
        name="only S3's failures are retried",
        place=rounds,
        function="until_answered",
        was="retry_if_exception_type((StoreError, SourceError))",
        now="retry_if_exception_type(StoreError)",
        first=10,
    ),
    Mutant(
        name="a put that failed counts as done",
        place=Partition,
        function="_put",
        was="answer=error.failure",
        now="answer=__import__('consumer.ports').ports.PutAnswer.CREATED",
        first=1,
    ),
    Mutant(
        name="the quarantine is left out",
        place=_Turn,
        function="_finished",
        was="if quarantine:",
        now="if False:",
        first=2,
    ),
    Mutant(
        name="what is buffered survives an adoption",
        place=_Turn,
        function="_adopt",
        was="self._drop()",
        now="self._set(chunk=None, asking=False)",
        first=445,
    ),
)
