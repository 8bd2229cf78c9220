"""The API of the benchmarks, a process of its own: `python -m bench.quotes_api --path /tickers --records 10000`.

    GET /tickers   the vendor's snapshot envelope
    GET /prices    the original system's bare array

Owns: bodies made once and sent as they are, gzipped when the client asks; one JSON line on stdout for each request,
with the time it arrived, and one for each answer, with the time its last byte was given to the kernel (monotonic clock,
which all processes of a machine share). Does not own: what is measured (`bench.producer`). Raw asyncio, so that it
takes little of the machine it is measured on and knows when the last byte goes.

Invariants: after `--answers` bodies with records it sends empty ones, so that a run has an exact number of polls.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import hashlib
import json
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demo.market import Market
from demo.symbols import symbols

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST = "127.0.0.1"
REQUEST_IDS = ("6a7e466379af0a71039d60cc78e72282", "0cf72b6da685bcd386548ffe2895904a")
TICKERS, PRICES = "/tickers", "/prices"
SEED = 1
NOW_NS = 1_764_062_405_000_000_000
MOVES, MOVE_NS = 40, 7_123_456_789  # so that the day's sums and times are no round numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """One document, as it is and gzipped, and its validator."""

    plain: bytes
    gzipped: bytes
    etag: str

    @classmethod
    def of(cls, document: object) -> Body:
        """The document, with the spaces that json.dumps leaves: 10,000 quotes are 5.8 MB."""
        plain = json.dumps(document).encode()
        etag = f'"{hashlib.sha256(plain).hexdigest()[:16]}"'
        return cls(plain=plain, gzipped=gzip.compress(plain, 6, mtime=0), etag=etag)


def bodies(path: str, records: int, *, validators: bool = False) -> tuple[list[Body], Body]:
    """What a path answers, in turn, and what it answers after that.

    The snapshot's answers bring the same quotes under two request ids, as an API without validators sends them when
    nothing has changed; with validators they are one.
    """
    market = Market(symbols(records), SEED, NOW_NS)
    for move in range(MOVES):
        market.move(NOW_NS + move * MOVE_NS)
    if path == PRICES:
        return [Body.of(market.prices())], Body.of([])
    quotes = market.snapshot()
    ids = REQUEST_IDS[:1] if validators else REQUEST_IDS
    return [Body.of({**quotes, "request_id": name}) for name in ids], Body.of(market.snapshot(()))


class QuotesApi:
    """Answers any GET with the next body. `validators`: whether it sends an ETag and knows it again."""

    def __init__(self, full: Sequence[Body], empty: Body, *, answers: int, validators: bool) -> None:
        self._full = full
        self._empty = empty
        self._answers = answers
        self._validators = validators
        self._asked = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept alive."""
        writer.transport.set_write_buffer_limits(0)  # so that drain() returns when the kernel has everything
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                asked = time.monotonic()
                self._asked += 1
                number = self._asked
                _tell({"request": number, "asked": asked})
                status, answer = self._answer(head, self._body(number))
                writer.write(answer)
                await writer.drain()
                _tell({"request": number, "written": time.monotonic(), "status": status, "bytes": len(answer)})
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone, as it may
        finally:
            writer.close()

    def _body(self, number: int) -> Body:
        return self._full[number % len(self._full)] if number <= self._answers else self._empty

    def _answer(self, head: bytes, body: Body) -> tuple[int, bytes]:
        if self._validators and f"if-none-match: {body.etag}".encode() in head:
            return 304, f"HTTP/1.1 304 Not Modified\r\nETag: {body.etag}\r\n\r\n".encode()
        zipped = any(line.startswith(b"accept-encoding:") and b"gzip" in line for line in head.split(b"\r\n"))
        content = body.gzipped if zipped else body.plain
        headers = ["HTTP/1.1 200 OK", "Content-Type: application/json", f"Content-Length: {len(content)}"]
        headers += ["Content-Encoding: gzip"] if zipped else []
        headers += [f"ETag: {body.etag}"] if self._validators else []
        return 200, "\r\n".join(headers).encode() + b"\r\n\r\n" + content


def _tell(fact: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(fact) + "\n")
    sys.stdout.flush()


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM."""
    full, empty = bodies(options.path, options.records, validators=options.validators)
    api = QuotesApi(full, empty, answers=options.answers, validators=options.validators)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    server = await asyncio.start_server(api.serve, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    _tell(
        {
            "url": f"http://{HOST}:{port}{options.path}",
            "plain_bytes": len(full[0].plain),
            "gzipped_bytes": len(full[0].gzipped),
        }
    )
    await stopped.wait()
    server.close()


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.quotes_api", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--path", choices=(TICKERS, PRICES), default=TICKERS)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--answers", type=int, default=1 << 62, help="bodies with records before the empty ones")
    parser.add_argument("--validators", action="store_true", help="send an ETag, answer 304 to who has it")
    return parser.parse_args(given)


if __name__ == "__main__":
    asyncio.run(serve(arguments()))
