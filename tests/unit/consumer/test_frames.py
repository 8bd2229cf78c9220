"""Frames come whole out of whatever pieces the network makes of them, and everything else is aiokafka's own."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.protocol.metadata import MetadataResponse_v0
from hypothesis import given
from hypothesis import strategies as st

from consumer import frames
from consumer.frames import KEPT_BYTES, Frame, FrameProtocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class StockProtocol:
    """What aiokafka's own protocol is told."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def eof_received(self) -> bool:
        self.heard.append("eof")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.heard.append(exc)

    def pause_writing(self) -> None:
        self.heard.append("pause")

    def resume_writing(self) -> None:
        self.heard.append("resume")


class Reader:
    failure: Exception | None = None

    def set_exception(self, failure: Exception) -> None:
        self.failure = failure


class Request:
    RESPONSE_TYPE = MetadataResponse_v0

    def parse_response_header(self, frame: Frame) -> Any:
        return type("Header", (), {"correlation_id": struct.unpack(">i", frame.read(4))[0]})


class Answer:
    """In place of a future."""

    value: object = None

    def done(self) -> bool:
        return False

    def set_result(self, value: object) -> None:
        self.value = value


class Connection:
    """As much of aiokafka's as its handling of a frame takes."""

    _host, _port = "broker", 9092

    def __init__(self, answers: int) -> None:
        self._protocol, self._reader = StockProtocol(), Reader()
        self.answers = [Answer() for _ in range(answers)]
        self._requests = deque((number, Request(), answer) for number, answer in enumerate(self.answers))
        self._last_action = 0.0


def answer(number: int, topic: str) -> bytes:
    body: bytes = struct.pack(">i", number) + MetadataResponse_v0([], [(0, topic, [])]).encode()
    return struct.pack(">i", len(body)) + body


def receive(protocol: FrameProtocol, data: bytes, cuts: Sequence[int]) -> None:
    """In pieces of these sizes, over and over; no piece is larger than the room that is offered for it."""
    position = turn = 0
    while position < len(data):
        room = protocol.get_buffer(-1)
        piece = data[position : position + min(len(room), cuts[turn % len(cuts)])]
        room[: len(piece)] = piece
        protocol.buffer_updated(len(piece))
        position += len(piece)
        turn += 1


@given(st.lists(st.integers(0, 9_000), min_size=1, max_size=6), st.lists(st.integers(1, 70_000), min_size=1))
def test_answers_come_whole_and_in_order_out_of_any_pieces(lengths: list[int], cuts: list[int]) -> None:
    connection = Connection(len(lengths))
    topics = [chr(97 + number) * length for number, length in enumerate(lengths)]
    receive(FrameProtocol(connection), b"".join(answer(n, topic) for n, topic in enumerate(topics)), cuts)
    assert [a.value.topics[0][1] for a in connection.answers] == topics  # type: ignore[attr-defined]
    assert not connection._requests
    assert connection._reader.failure is None


def test_what_was_read_out_of_a_frame_stays_when_the_next_one_comes() -> None:
    view = memoryview(bytearray(b"first second"))
    frame = Frame(view)
    first, second = frame.read(6), frame.read(100)
    view[:] = b"x" * len(view)
    assert (first, second, frame.read(1)) == (b"first ", b"second", b"")


def test_a_buffer_grows_with_its_answers_and_what_is_huge_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    handled: list[int] = []
    monkeypatch.setattr(frames, "_handle_frame", lambda _, frame: handled.append(len(frame)))
    connection = Connection(0)
    protocol = FrameProtocol(connection)
    for size in (1 << 20, KEPT_BYTES + 1):
        receive(protocol, struct.pack(">i", size) + bytes(size), [1 << 30])
        assert len(protocol._buffer) == (size if size < KEPT_BYTES else 1 << 16)
    assert handled == [1 << 20, KEPT_BYTES + 1]


@pytest.mark.parametrize("size", [-1, 0, 3])
def test_a_frame_that_can_be_none_breaks_the_connection(size: int) -> None:
    connection = Connection(1)
    receive(FrameProtocol(connection), struct.pack(">i", size), [4])
    assert isinstance(connection._reader.failure, ConnectionError)


def test_what_fails_in_decoding_an_answer_breaks_the_connection_and_what_follows_is_not_read() -> None:
    connection = Connection(1)
    protocol = FrameProtocol(connection)
    receive(protocol, struct.pack(">iiii", 12, 0, 1, 7), [5])  # one broker, and nothing of it
    assert isinstance(connection._reader.failure, ValueError)
    assert connection.answers[0].value is None
    receive(protocol, answer(1, "quotes"), [3])


def test_an_answer_for_a_connection_that_is_gone_is_nobodys() -> None:
    connection = Connection(1)
    protocol, reader = FrameProtocol(connection), connection._reader
    del connection
    receive(protocol, answer(0, "quotes"), [100])
    assert reader.failure is None


def test_all_but_the_data_goes_to_aiokafkas_own_protocol() -> None:
    connection = Connection(0)
    protocol = FrameProtocol(connection)
    assert isinstance(protocol, asyncio.BufferedProtocol)
    lost = ConnectionResetError()
    assert protocol.eof_received() is True
    protocol.pause_writing()
    protocol.resume_writing()
    protocol.connection_lost(lost)
    assert connection._protocol.heard == ["eof", "pause", "resume", lost]
