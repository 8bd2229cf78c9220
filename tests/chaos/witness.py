"""What consumers ask of S3, as the fault proxy sees it: whose put, of which range, when.

Owns: the record of requests. Does not own: faults; it strikes nothing. It sees requests as they arrive, not answers.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.chaos import faults

if TYPE_CHECKING:
    from tests.chaos.fault_proxy import FaultProxy
    from tests.chaos.wire import Request
    from tests.processes import ServiceProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """A put of a main object. `at` in monotonic seconds; `signed_ahead_seconds`: its date against the right time."""

    at: float
    writer: str
    key: str
    partition: int
    start: int
    next_offset: int
    signed_ahead_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A HEAD of a key, or a listing (method GET, no key)."""

    at: float
    method: str
    key: str


class Witness:
    """From its making on, all requests that reach the proxy and that no rule before it strikes."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.puts: list[Put] = []
        self.asked: list[Asked] = []
        proxy.inject(faults.DROP, where=self._see)

    def puts_of(self, *consumers: ServiceProcess, since: float = 0.0) -> list[Put]:
        """Those of these processes that arrived at or after `since`."""
        writers = {writer_of(consumer) for consumer in consumers}
        return [put for put in self.puts if put.writer in writers and put.at >= since]

    def listings(self, since: float = 0.0) -> int:
        return sum(asked.method == "GET" and not asked.key and asked.at >= since for asked in self.asked)

    def _see(self, request: Request) -> bool:
        put = put_of(request)
        if put is not None:
            self.puts.append(put)
        elif request.method != "PUT":
            self.asked.append(Asked(at=time.monotonic(), method=request.method, key=request.key))
        return False


def put_of(request: Request) -> Put | None:
    """What the request puts, None when it is no put of a main object."""
    headers = request.headers
    if request.method != "PUT" or "x-amz-meta-start-offset" not in headers:
        return None
    return Put(
        at=time.monotonic(),
        writer=headers["x-amz-meta-writer"],
        key=request.key,
        partition=int(headers["x-amz-meta-partition"]),
        start=int(headers["x-amz-meta-start-offset"]),
        next_offset=int(headers["x-amz-meta-next-offset"]),
        signed_ahead_seconds=signed_ahead_seconds(request),
    )


def signed_ahead_seconds(request: Request) -> float:
    """By how much the date that the request is signed with is ahead of the right time."""
    date = datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return date.timestamp() - time.time()


def writer_of(consumer: ServiceProcess) -> str:
    """The name by which its objects know the process; once it has logged `Starting`."""
    return str(consumer.lines("Starting")[0]["writer"])
