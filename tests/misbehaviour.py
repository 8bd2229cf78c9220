"""What an HTTP API can do wrong, and what a person must be told of it.

Owns: the faults by name: the answer on the wire, the words of readiness while it lasts. Does not own: sending
(`scripted_api`), what is asserted of the process, bodies made to cost memory (`heavy_bodies`).
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass

from tests.scripted_api import Answer, broken_off, drip, dripped, gzipped, hang, http, late, reset

TIMEOUT_SECONDS = 2.0  # what these faults are made for: API_TIMEOUT_SECONDS
PROMPT = http(b'[{"symbol":"never"}]')


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """`words` stand in readiness' reason while the answer lasts."""

    answer: Answer
    words: str


def fault(words: str, answer: Answer) -> Fault:
    return Fault(answer=answer, words=words)


def good(name: str) -> bytes:
    """One record that names the fault it follows."""
    return http(b'[{"symbol":"%s"}]' % name.encode())


_LENGTH = len(PROMPT) - len(b'[{"symbol":"never"}]')  # of the head
_LATE = f"no complete answer within {TIMEOUT_SECONDS:g} s"

FAULTS: dict[str, Fault] = {
    # The server is ill.
    "500": fault("HTTP 500; it sent: oops", http(b"oops", status="500 Internal Server Error")),
    "502-html": fault("HTTP 502; it sent: <html>", http(b"<html>Bad Gateway</html>", status="502 Bad Gateway")),
    "503": fault("HTTP 503", http(status="503 Service Unavailable")),
    "599": fault("HTTP 599", http(status="599 ")),
    "999": fault("HTTP 999", http(status="999 Request Denied")),
    "408": fault("HTTP 408", http(status="408 Request Timeout")),
    "500-dripping": fault("HTTP 500", dripped(http(b"x" * 1000, status="500 Oops"), every_seconds=1, after=80)),
    # The connection breaks.
    "reset-before-head": fault("ReadError", reset),
    "reset-in-head": fault("ReadError", broken_off(PROMPT[:20])),
    "reset-in-body": fault("ReadError", broken_off(PROMPT[: _LENGTH + 5])),
    "closed-before-head": fault("RemoteProtocolError: Server disconnected", b""),
    "closed-in-head": fault("RemoteProtocolError", PROMPT[:20]),
    "closed-in-body": fault("RemoteProtocolError: peer closed connection", PROMPT[:-5]),
    "closed-in-a-chunk": fault(
        "RemoteProtocolError", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n[{}"
    ),
    "length-too-long": fault("RemoteProtocolError: peer closed connection", http(b"[]", length=10_000)),
    "length-too-short": fault("not strict JSON", http(b'[{"symbol":"never"}]', length=12)),
    # Slower than it may be.
    "hang": fault(_LATE, hang),
    "late": fault(_LATE, late(PROMPT, seconds=3 * TIMEOUT_SECONDS)),
    "a-byte-a-second-in-head": fault(_LATE, drip(b"[]", every_seconds=1)),
    "a-byte-a-second-in-body": fault(_LATE, dripped(PROMPT, every_seconds=1, after=_LENGTH + 2)),
    "early-hints-without-end": fault(
        _LATE, dripped(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 4_000, every_seconds=1, after=100_000)
    ),
    "an-endless-chunk-size": fault(
        "Error", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 200_000 + b"1\r\n[\r\n"
    ),
    # Statuses that mean nothing here.
    "304-unasked": fault("HTTP 304: not modified, which nobody asked", http(b"", status="304 Not Modified")),
    "101": fault(
        "RemoteProtocolError", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"
    ),
    "300": fault("HTTP 300", http(status="300 Multiple Choices")),
    "401": fault("HTTP 401: check ", http(b"{}", status="401 Unauthorized")),
    "404": fault("HTTP 404: check", http(b"{}", status="404 Not Found")),
    "418": fault("HTTP 418", http(b"{}", status="418 I'm a teapot")),
    # No HTTP.
    "no-status-line": fault("RemoteProtocolError", b"Content-Type: application/json\r\n\r\n[]"),
    "http-0-9": fault("RemoteProtocolError", b'[{"symbol":"never"}]'),
    "ssh": fault("RemoteProtocolError", b"SSH-2.0-OpenSSH_9.6\r\n"),
    "http-2": fault("RemoteProtocolError", b"HTTP/2 200 OK\r\n\r\n[]"),
    "tls": fault("RemoteProtocolError", b"\x15\x03\x01\x00\x02\x02\x16"),
    "a-status-line-of-90-kb": fault("RemoteProtocolError", b"HTTP/1.1 2OO " + b"O" * 90_000 + b"\r\n\r\n"),
    "a-header-of-1-mb": fault("RemoteProtocolError", http(headers=["X-Long: " + "x" * (1 << 20)])),
    "50000-headers": fault("RemoteProtocolError", http(headers=[f"X-{number}: x" for number in range(50_000)])),
    "a-header-without-a-colon": fault("RemoteProtocolError", http(headers=["x" * 50_000])),
    "two-lengths": fault("RemoteProtocolError", http(b"[]", headers=["Content-Length: 7"])),
    "a-length-of-garbage": fault("RemoteProtocolError", b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n[]"),
    # Codings.
    "gzip-named-not-done": fault("damaged gzip", http(b"[]", headers=["Content-Encoding: gzip"])),
    "gzip-done-not-named": fault("not strict JSON", http(gzip.compress(b"[]"))),
    "gzip-in-gzip": fault("not strict JSON", gzipped(gzip.compress(b"[]"))),
    "gzip-cut-short": fault("ends too early", http(gzip.compress(b"[]" * 99)[:-9], headers=["Content-Encoding: gzip"])),
    "gzip-and-rubbish": fault("not usable: ", http(gzip.compress(b"[]") + b"x", headers=["Content-Encoding: gzip"])),
    "brotli": fault("a Content-Encoding that was not offered", http(b"[]", headers=["Content-Encoding: br"])),
    "two-codings": fault("not offered", http(gzip.compress(b"[]"), headers=["Content-Encoding: gzip, gzip"])),
    # No JSON.
    "html": fault("not strict JSON: invalid character (byte 0); it sent: <!DOCTYPE", http(b"<!DOCTYPE html><html>")),
    "empty": fault("not strict JSON", http(b"")),
    "cut-json": fault("not strict JSON", http(b'[{"symbol":"never"}')),
    "two-documents": fault("not strict JSON", http(b"[][]")),
    "nan": fault("not strict JSON", http(b'[{"symbol":"never","p":NaN}]')),
    "infinity": fault("not strict JSON", http(b'[{"symbol":"never","p":-Infinity}]')),
    "utf8-wrong-in-a-record": fault("invalid UTF-8 (byte 12)", http(b'[{"symbol":"\xff"}]')),
    "utf8-wrong-in-a-key": fault("invalid UTF-8 (byte 3)", http(b'[{"\xc3":1}]')),
    "utf8-wrong-outside": fault("invalid UTF-8 (byte 2)", http(b"[]\xfe")),
    "a-surrogate-in-utf8": fault("invalid UTF-8", http(b'[{"symbol":"\xed\xa0\x80"}]')),
    "half-of-a-surrogate-pair": fault("not strict JSON: ", http(b'[{"symbol":"\\ud800"}]')),
    "utf16": fault("not strict JSON", http('[{"symbol":"never"}]'.encode("utf-16"))),
    "bom": fault("not strict JSON", http(b"\xef\xbb\xbf[]")),
    "deep-without-end": fault("nested too deep", http(b'{"x":' * 100_000)),
    "an-api-error": fault("the API answered with an error", http(b'{"status":"ERROR","error":"unknown"}')),
    "too-many-records": fault("API_MAX_RECORDS allows 1000", http(b"[" + b"{}," * 1000 + b"{}]")),
    "too-large": fault("larger than API_MAX_BODY_BYTES", http(b" " * (1 << 20) + b"[]")),
}

# What looks wrong and is none: the good records of these go to Kafka, and readiness stays green.
SIBLING = b'{"symbol":"sibling"}'
_DEEP = b'{"d":' * 100_000 + b"1" + b"}" * 100_000
_DEEP_ARRAYS = b'{"d":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
ODDITIES: dict[str, Answer] = {
    "204": http(b"", status="204 No Content"),
    "103-first": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + http(b"[" + SIBLING + b"]"),
    "100-first": b"HTTP/1.1 100 Continue\r\n\r\n" * 100 + http(b"[" + SIBLING + b"]"),
    "no-length": b"HTTP/1.0 200 OK\r\n\r\n[" + SIBLING + b"]",
    "500-headers": http(b"[" + SIBLING + b"]", headers=[f"X-{number}: x" for number in range(500)]),
    "gzip-of-two-members": http(
        gzip.compress(b"[" + SIBLING) + gzip.compress(b"]"), headers=["Content-Encoding: x-gzip"]
    ),
    "not-an-object": http(b'[5,"x",null,[],' + SIBLING + b"]"),
    "a-deep-record": http(b"[" + _DEEP + b"," + SIBLING + b"," + _DEEP_ARRAYS + b"]"),
    "200-with-a-text-type": http(b"[" + SIBLING + b"]", headers=["Content-Type: text/html; charset=utf-16"]),
}
# Records that are odd themselves, which are published as they are, byte for byte.
ODD_RECORDS = [
    b'{"symbol":"first","symbol":"last"}',
    b'{"symbol":"big","n":' + b"9" * 5000 + b',"e":1e999999}',
]
