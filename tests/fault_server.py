"""A small S3 lookalike whose answers can be scripted, for tests of what real servers will not do on demand.

Owns: an in-memory store of objects with atomic create-if-absent, and the faults below. Does not own: signatures (any
key is taken), versions, multipart, or any other part of S3 that the consumer does not use.
Invariants: one request is decided and applied in one step of the event loop, so a race has one winner; a fault says
what the client sees and, separately, whether the effect happened; without a script it is a well-behaved store.

In a test: `async with FaultServer() as server: server.script(Fault.DENIED, method="PUT", times=2)`.
As a process: `python -m tests.fault_server --port 0 --bucket b --scenario denied --method PUT --times 2`; it prints
`Listening on http://127.0.0.1:PORT` and ends on SIGTERM. `POST /_fault?scenario=slow-down&times=3` adds a script
to a running server, `DELETE /_fault` takes all scripts away.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import signal
import socket
import struct
import sys
import zlib
from dataclasses import dataclass, field
from email.utils import formatdate
from enum import StrEnum
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.connections import Connections

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

REQUEST_LIMIT = 1 << 16
LIST_LIMIT = 1000


class Fault(StrEnum):
    """What the client meets. Unless said otherwise the request has no effect."""

    DENIED = "denied"  # 403 AccessDenied
    DENIED_EARLY = "denied-early"  # 403 AccessDenied before the body was read, then the connection closes, as S3 does
    DENIED_BARE = "denied-bare"  # 403 without a body, as HEAD's always is
    EXPIRED = "expired"  # 400 ExpiredToken
    BAD_KEY = "bad-key"  # 403 InvalidAccessKeyId
    NO_BUCKET = "no-bucket"  # 404 NoSuchBucket
    CONFLICT = "conflict"  # 409 ConditionalRequestConflict
    PARENT_IS_FILE = "parent-is-file"  # 409 ObjectParentIsFile
    INTERNAL = "internal"  # 500 InternalError
    INTERNAL_AFTER = "internal-after"  # 500 InternalError, though the effect happened
    SLOW_DOWN = "slow-down"  # 503 SlowDown
    UNAVAILABLE_BARE = "unavailable-bare"  # 503 with a load balancer's HTML
    NOT_IMPLEMENTED = "not-implemented"  # 501 NotImplemented
    BAD_DIGEST = "bad-digest"  # 400 BadDigest
    WRONG_REGION = "wrong-region"  # 301 PermanentRedirect
    ACL_OFF = "acl-off"  # 400 AccessControlListNotSupported
    LOGIN_PAGE = "login-page"  # 200 with somebody else's HTML: a proxy or portal in the way
    REDIRECT = "redirect"  # 302 to a login page on this server
    RESET_BEFORE = "reset-before"  # connection reset, no effect
    RESET_AFTER = "reset-after"  # connection reset, the effect happened
    RESET_MID_BODY = "reset-mid-body"  # connection reset while the body is on its way
    HANG = "hang"  # no answer
    HANG_AFTER = "hang-after"  # no answer, the effect happened
    TRUNCATED = "truncated"  # the answer's body breaks off in the middle
    STALLED = "stalled"  # half of the answer's body, then nothing
    GARBAGE = "garbage"  # no HTTP
    IGNORE_CONDITION = "ignore-condition"  # a store that does not know If-None-Match: overwrites, 200
    LOSE_EFFECT = "lose-effect"  # 200, but nothing was stored


_ERRORS: Mapping[Fault, tuple[int, str, str]] = {
    Fault.DENIED: (403, "AccessDenied", "Access Denied"),
    Fault.DENIED_EARLY: (403, "AccessDenied", "Access Denied"),
    Fault.EXPIRED: (400, "ExpiredToken", "The provided token has expired."),
    Fault.BAD_KEY: (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
    Fault.NO_BUCKET: (404, "NoSuchBucket", "The specified bucket does not exist"),
    Fault.CONFLICT: (409, "ConditionalRequestConflict", "The conditional request cannot succeed"),
    Fault.PARENT_IS_FILE: (409, "ObjectParentIsFile", "Object parent already exists as a file."),
    Fault.INTERNAL: (500, "InternalError", "We encountered an internal error. Please try again."),
    Fault.INTERNAL_AFTER: (500, "InternalError", "We encountered an internal error. Please try again."),
    Fault.SLOW_DOWN: (503, "SlowDown", "Please reduce your request rate."),
    Fault.NOT_IMPLEMENTED: (501, "NotImplemented", "A header you provided implies functionality not implemented."),
    Fault.BAD_DIGEST: (400, "BadDigest", "The CRC32 you specified did not match what we received."),
    Fault.WRONG_REGION: (301, "PermanentRedirect", "The bucket must be addressed using the specified endpoint."),
    Fault.ACL_OFF: (400, "AccessControlListNotSupported", "The bucket does not allow ACLs"),
}
_EFFECT_HAPPENS = frozenset(
    {Fault.INTERNAL_AFTER, Fault.RESET_AFTER, Fault.HANG_AFTER, Fault.TRUNCATED, Fault.STALLED, Fault.IGNORE_CONDITION}
)
_LOGIN_PAGE = b"<html><body>Please log in.</body></html>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as it arrived; `key` is empty for the bucket itself."""

    method: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """Status, headers and body of an answer; a HEAD's body is counted, not sent."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """An object with the headers it was put with."""

    body: bytes
    headers: Mapping[str, str]


@dataclass(slots=True, kw_only=True)
class Script:
    """A fault for the requests that match, after `after` of them, for `times` (None = for ever)."""

    fault: Fault
    method: str | None = None
    key_part: str = ""
    times: int | None = None
    after: int = 0

    def takes(self, request: Request) -> bool:
        """True when the fault is due; counts the request."""
        if self.method not in (None, request.method) or self.key_part not in request.key or self.times == 0:
            return False
        if self.after:
            self.after -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class FaultServer:
    """The server; `buckets` and `requests` are there to be looked at, `script` to add faults."""

    def __init__(self, *, port: int = 0, buckets: Sequence[str] = ("bucket",), region: str = "eu-north-1") -> None:
        self.buckets: dict[str, dict[str, StoredObject]] = {name: {} for name in buckets}
        self.requests: list[Request] = []
        self.connections = 0
        self._port = port
        self._region = region
        self._scripts: list[Script] = []
        self._open = Connections(self._serve)
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """The endpoint, for AWS_ENDPOINT_URL_S3."""
        return f"http://127.0.0.1:{self._port}"

    def script(
        self,
        fault: Fault,
        *,
        method: str | None = None,
        key_part: str = "",
        times: int | None = None,
        after: int = 0,
    ) -> None:
        """Add a fault; the first script that matches a request decides."""
        self._scripts.append(Script(fault=fault, method=method, key_part=key_part, times=times, after=after))

    def well(self) -> None:
        """No faults from now on."""
        self._scripts.clear()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port, limit=REQUEST_LIMIT)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        await self._open.cut()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.accept(reader, writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client that goes away is the client's business.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                while await self._turn(reader, writer):
                    pass
            except asyncio.CancelledError:
                writer.transport.abort()
                raise
            finally:
                writer.close()
                await writer.wait_closed()

    async def _turn(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False ends the connection."""
        head, length = await _read_head(reader)
        fault = None
        if not head.bucket.startswith("_"):
            fault = next((script.fault for script in self._scripts if script.takes(head)), None)
        if fault is Fault.DENIED_EARLY:
            self.requests.append(head)
            await _send(writer, head, self._spoken(fault))
            return False
        if head.headers.get("expect") == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if fault is Fault.RESET_MID_BODY:
            await reader.readexactly(min(length, 1000))
            self.requests.append(head)
            _reset(writer)
            return False
        body = await reader.readexactly(length)
        request = Request(
            method=head.method,
            bucket=head.bucket,
            key=head.key,
            query=head.query,
            headers=head.headers,
            body=body,
        )
        if request.bucket == "_fault":
            await _send(writer, request, self._rescript(request))
            return True
        self.requests.append(request)
        return await self._answer(writer, request, fault)

    async def _answer(self, writer: asyncio.StreamWriter, request: Request, fault: Fault | None) -> bool:
        applies = fault is None or fault in _EFFECT_HAPPENS
        done = self._apply(request, conditional=fault is not Fault.IGNORE_CONDITION) if applies else None
        if fault in (Fault.RESET_BEFORE, Fault.RESET_AFTER):
            _reset(writer)
            return False
        if fault in (Fault.HANG, Fault.HANG_AFTER):
            await asyncio.Event().wait()
        if fault is Fault.GARBAGE:
            writer.write(b"SSH-2.0-OpenSSH_9.7\r\n")
            return False
        if fault in (Fault.TRUNCATED, Fault.STALLED) and done is not None:
            await _send(writer, request, done, cut=len(done.body) // 2)
            if fault is Fault.STALLED:
                await asyncio.Event().wait()
            return False
        response = done if done is not None and fault is not Fault.INTERNAL_AFTER else self._spoken(fault)
        await _send(writer, request, response)
        return True

    def _spoken(self, fault: Fault | None) -> Response:
        """What a fault says that consists of an answer of its own."""
        if fault is not None and fault in _ERRORS:
            region = {"x-amz-bucket-region": self._region} if fault is Fault.WRONG_REGION else {}
            return _error(*_ERRORS[fault], headers=region)
        if fault is Fault.LOSE_EFFECT:
            return Response(status=200, headers={"ETag": '"lost"'})
        if fault is Fault.REDIRECT:
            return Response(status=302, headers={"Location": f"{self.url}/_login/page"})
        if fault is Fault.LOGIN_PAGE:
            return Response(status=200, headers={"Content-Type": "text/html"}, body=_LOGIN_PAGE)
        if fault is Fault.UNAVAILABLE_BARE:
            return Response(status=503, headers={"Content-Type": "text/html"}, body=b"<html>503</html>")
        return Response(status=403)

    def _rescript(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.well()
        else:
            query = request.query
            self.script(
                Fault(query["scenario"]),
                method=query.get("method"),
                key_part=query.get("key", ""),
                times=int(query["times"]) if "times" in query else None,
                after=int(query.get("after", "0")),
            )
        return Response(status=204)

    def _apply(self, request: Request, *, conditional: bool) -> Response:
        if request.bucket == "_login":
            return Response(status=200, headers={"Content-Type": "text/html"}, body=_LOGIN_PAGE)
        if request.method == "PUT" and not request.key:
            self.buckets.setdefault(request.bucket, {})
            return Response(status=200)
        objects = self.buckets.get(request.bucket)
        if objects is None:
            return _error(*_ERRORS[Fault.NO_BUCKET])
        if not request.key:
            return _listing(request, objects) if request.method == "GET" else Response(status=200)
        if request.method == "PUT":
            return _put(request, objects, conditional=conditional)
        if request.method == "DELETE":
            objects.pop(request.key, None)
            return Response(status=204)
        return _read(request, objects)


def _put(request: Request, objects: dict[str, StoredObject], *, conditional: bool) -> Response:
    crc32 = request.headers.get("x-amz-checksum-crc32")
    if crc32 is not None and crc32 != base64.b64encode(struct.pack(">I", zlib.crc32(request.body))).decode():
        return _error(*_ERRORS[Fault.BAD_DIGEST])
    if conditional and request.headers.get("if-none-match") == "*" and request.key in objects:
        return _error(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
    kept = {
        name: value
        for name, value in request.headers.items()
        if name.startswith("x-amz-meta-") or name == "content-type"
    }
    objects[request.key] = StoredObject(body=request.body, headers=kept)
    return Response(status=200, headers={"ETag": _etag(request.body)})


def _read(request: Request, objects: Mapping[str, StoredObject]) -> Response:
    stored = objects.get(request.key)
    if stored is None:
        return _error(404, "NoSuchKey", "The specified key does not exist.")
    headers = {**stored.headers, "ETag": _etag(stored.body), "Last-Modified": formatdate(0, usegmt=True)}
    return Response(status=200, headers=headers, body=stored.body)


def _listing(request: Request, objects: Mapping[str, StoredObject]) -> Response:
    """One page of ListObjectsV2; the continuation token is the last entry handed out."""
    prefix, delimiter = request.query.get("prefix", ""), request.query.get("delimiter", "")
    after, limit = request.query.get("continuation-token", ""), int(request.query.get("max-keys", LIST_LIMIT))
    entries: dict[str, bool] = {}
    for key in sorted(name for name in objects if name.startswith(prefix)):
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        entries[key if cut < 0 else key[: cut + len(delimiter)]] = cut >= 0
    rest = [(name, folder) for name, folder in entries.items() if name > after]
    page = rest[:limit]
    parts = [
        f"<CommonPrefixes><Prefix>{escape(quote(name))}</Prefix></CommonPrefixes>"
        if folder
        else f"<Contents><Key>{escape(quote(name))}</Key><Size>{len(objects[name].body)}</Size></Contents>"
        for name, folder in page
    ]
    more = len(rest) > limit
    token = f"<NextContinuationToken>{escape(page[-1][0])}</NextContinuationToken>" if more else ""
    document = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult><Name>{request.bucket}</Name>'
        f"<IsTruncated>{str(more).lower()}</IsTruncated><EncodingType>url</EncodingType>"
        f"<KeyCount>{len(page)}</KeyCount>{token}{''.join(parts)}</ListBucketResult>"
    )
    return Response(status=200, headers={"Content-Type": "application/xml"}, body=document.encode())


def _error(status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> Response:
    document = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>'
        "<RequestId>F1</RequestId></Error>"
    )
    return Response(
        status=status, headers={"Content-Type": "application/xml", **(headers or {})}, body=document.encode()
    )


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


async def _read_head(reader: asyncio.StreamReader) -> tuple[Request, int]:
    """Request line and headers, and the length of the body that follows."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ", 2)
    pairs = (line.split(":", 1) for line in lines[1:] if line)
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    url = urlsplit(target)
    bucket, _, key = unquote(url.path).lstrip("/").partition("/")
    query = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
    request = Request(method=method, bucket=bucket, key=key, query=query, headers=headers)
    return request, int(headers.get("content-length", "0"))


async def _send(writer: asyncio.StreamWriter, request: Request, response: Response, *, cut: int | None = None) -> None:
    lines = [f"HTTP/1.1 {response.status} Scripted"]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    lines += [f"Content-Length: {len(response.body)}", "", ""]
    body = b"" if request.method == "HEAD" else response.body[:cut]
    writer.write("\r\n".join(lines).encode("latin-1") + body)
    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: nothing that was sent before is sure to arrive."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _main(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with FaultServer(port=arguments.port, buckets=arguments.bucket or ["bucket"]) as server:
        if arguments.scenario is not None:
            server.script(
                arguments.scenario,
                method=arguments.method,
                key_part=arguments.key,
                times=arguments.times,
                after=arguments.after,
            )
        sys.stdout.write(f"Listening on {server.url}\n")
        sys.stdout.flush()
        await stop.wait()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fault_server", description="S3 lookalike with faults.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--bucket", action="append", help="a bucket that exists; may be given more than once")
    parser.add_argument("--scenario", type=Fault, choices=list(Fault), help="the fault")
    parser.add_argument("--method", help="only requests of this method")
    parser.add_argument("--key", default="", help="only keys that contain this")
    parser.add_argument("--times", type=int, help="that many requests, then well-behaved; without it: for ever")
    parser.add_argument("--after", type=int, default=0, help="let that many matching requests pass first")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(_main(_arguments()))
