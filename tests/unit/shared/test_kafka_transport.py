"""To write to a socket that a dying broker has just closed is a broken connection for aiokafka's clients."""

from __future__ import annotations

import asyncio

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import ApiVersionRequest

from shared import kafka_transport


async def write_after_close(method: str, *arguments: object) -> AIOKafkaConnection:
    """A connection of aiokafka's whose transport was closed, as far as uvloop knows and aiokafka does not."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server:
        connection = AIOKafkaConnection(host, port)
        connection._reader, connection._writer = await asyncio.open_connection(host, port)
        connection._read_task = connection._create_reader_task()
        transport = connection._writer.transport
        transport.abort()
        async with asyncio.timeout(10):
            while "closed=True" not in repr(transport):
                await asyncio.sleep(0)
        getattr(connection, method)(*arguments)
    return connection


@pytest.mark.parametrize(("method", "argument"), [("send", ApiVersionRequest()), ("_send_sasl_token", b"token")])
def test_a_write_to_a_transport_that_was_closed_is_a_broken_connection(method: str, argument: object) -> None:
    kafka_transport.mend()
    kafka_transport.mend()
    with pytest.raises(KafkaConnectionError, match="its transport is closed") as caught:
        uvloop.run(write_after_close(method, argument))
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert not isinstance(caught.value.__cause__.__cause__, KafkaConnectionError), "mended once"


@pytest.mark.parametrize(("method", "argument"), [("send", ApiVersionRequest()), ("_send_sasl_token", b"token")])
def test_without_it_uvloop_says_something_that_aiokafka_does_not_expect(
    method: str, argument: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When this fails, upstream has changed: then `kafka_transport` can go."""
    own = getattr(AIOKafkaConnection, method)
    monkeypatch.setattr(AIOKafkaConnection, method, getattr(own, "__wrapped__", own))
    with pytest.raises(RuntimeError, match="the handler is closed"):
        uvloop.run(write_after_close(method, argument))
