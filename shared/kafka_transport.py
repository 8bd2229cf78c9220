"""aiokafka on uvloop: a transport that was closed a moment ago means a broken connection, not the end of a task.

Owns: that translation. Does not own: connections (aiokafka), what follows from a broken one (its clients reconnect).

When a broker dies, its sockets close; until aiokafka's reader has heard of it, its clients still write. A write to a
closed transport is ignored by asyncio's own transports, uvloop's raise RuntimeError
(https://github.com/MagicStack/uvloop/blob/master/uvloop/handles/handle.pyx, `_ensure_alive`), and aiokafka
(conn.py, `send`) knows of OSError alone: the background task that wrote, heartbeats or fetches, would end for good, and
with it the process. Both methods below write before they note the request, so nothing is left behind by the error.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

if TYPE_CHECKING:
    from collections.abc import Callable


def _translated(write: Callable[..., Any]) -> Callable[..., Any]:
    """The same method, raising KafkaConnectionError where the transport says that it is closed."""

    @functools.wraps(write)
    def translating(connection: Any, *args: Any, **options: Any) -> Any:  # noqa: ANN401 -- aiokafka has no types
        try:
            return write(connection, *args, **options)
        except RuntimeError as error:
            connection.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(
                f"Connection at {connection.host}:{connection.port} broken: its transport is closed"
            ) from error

    return translating


def mend() -> None:
    """For every client of the process, once and for all; a second call changes nothing."""
    for name in ("send", "_send_sasl_token"):
        method = getattr(AIOKafkaConnection, name)
        if not hasattr(method, "__wrapped__"):
            setattr(AIOKafkaConnection, name, _translated(method))
