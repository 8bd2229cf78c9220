"""Is the broker ready? Asked in Kafka's own protocol, without a client library that would retry and hide the answer.

Owns: three requests and their error codes. Shapes: https://kafka.apache.org/protocol. An open port proves little: after
a restart the group coordinator still loads its partitions, and clients that come in this moment see odd answers.
"""

from __future__ import annotations

import socket
import struct

API_VERSIONS, FIND_COORDINATOR, HEARTBEAT = 18, 10, 12
UNKNOWN_MEMBER_ID = 25
TIMEOUT_SECONDS = 5.0
# One group for each partition of the offsets topic: the group's Java hash, modulo 4 partitions, is 0, 1, 2, 3.
PROBE_GROUPS = ("0", "1", "2", "3")


def missing(host: str, port: int) -> str | None:
    """What the broker cannot do yet, None = it serves requests and consumer groups. Blocks some seconds at most."""
    try:
        with socket.create_connection((host, port), timeout=TIMEOUT_SECONDS) as connection:
            return _missing(connection)
    except (OSError, EOFError) as error:
        return f"no answer on {host}:{port}: {error!r}"


def _missing(connection: socket.socket) -> str | None:
    (code,) = struct.unpack_from(">h", _ask(connection, API_VERSIONS, b""))
    if code:
        return f"ApiVersions answers error {code}"
    for group in PROBE_GROUPS:
        (code,) = struct.unpack_from(">h", _ask(connection, FIND_COORDINATOR, _string(group)))
        if code:
            return f"no group coordinator: FindCoordinator answers error {code}"
        # Generation 0 of a member nobody knows: only a coordinator that has loaded the group's partition can say so.
        (code,) = struct.unpack_from(
            ">h", _ask(connection, HEARTBEAT, _string(group) + struct.pack(">i", 0) + _string(""))
        )
        if code != UNKNOWN_MEMBER_ID:
            return f"the group coordinator is loading: Heartbeat answers error {code}"
    return None


def _ask(connection: socket.socket, api_key: int, body: bytes) -> bytes:
    """Version 0 of the request; the answer's body."""
    request = struct.pack(">hhi", api_key, 0, api_key) + _string("ticklake-demo") + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    (size,) = struct.unpack(">i", _read(connection, 4))
    return _read(connection, size)[4:]  # behind the correlation id


def _read(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            message = "connection closed by the broker"
            raise EOFError(message)
        data += part
    return bytes(data)


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()
