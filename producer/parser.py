"""Takes a response body apart into records.

Owns: what is strict JSON, where the records are, what is an API's error in disguise, the key of a record.
Does not own: which records are published (`selection`), transport errors (`answer`, `fetcher`). Pure.

Invariants: a record is a slice of the body, byte for byte; a body is used whole or refused whole, except that
records that are not JSON objects (or are nested too deep or too large for any reader) are set aside alone.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from producer.array_walk import item_spans
from shared.schemas import MAX_NESTING, nested_too_deep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from producer.pointer import Pointer

_RAW = msgspec.json.Decoder(msgspec.Raw)
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_STRING = msgspec.json.Decoder(str)

_UTF8_STEP_BYTES = 1 << 20
_FIRST_BYTES = 80
# No topic takes a record that large, and one of the whole body's size would be copied on each step of its way.
MAX_RECORD_BYTES = 16 << 20
# A list of raw items is decoded before it is counted where body and list, if every comma were between two items, keep
# to this: 37,000 tickers of 40 members each do, and are taken apart ten times as fast as by a walk.
_DENSE_BYTES = 110 << 20
_RAW_ITEM_BYTES = 65
_MEMBER_BYTES = 200  # of a dict, which a pointer with a name of quotes or backslashes needs
_TOO_MANY_BRACKETS = 1_000_000
_SAID_BYTES = 1024  # of an API's error, more than a message shows
_GOOD_STATUS = {"ok", "delayed"}
_EMPTY = {b"", b"null", b"false", b"0", b'""', b"[]", b"{}"}
_OBJECT_START = ord("{")


class BodyError(Exception):
    """The body cannot be used. The text is safe to log; `quoted` is what the API sent and may hold secrets."""

    def __init__(self, reason: str, quoted: bytes) -> None:
        super().__init__(reason)
        self.reason = reason
        self.quoted = quoted


class ApiError(BodyError):
    """The API answered with an error of its own instead of records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """A record that is not published: its index in the body, why, and how it begins."""

    index: int
    reason: str
    first_bytes: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What a body held. `found`: whether there was anything at the pointer at all."""

    records: Sequence[bytes]
    set_aside: Sequence[SetAside] = field(default=())
    found: bool = True


def parse(body: bytes | bytearray, pointer: Pointer, max_records: int, called: str = "API_MAX_RECORDS") -> Parsed:
    """The records at the pointer: an array's items, or one object; null or nothing there is zero records.

    Raises BodyError when the body is not strict JSON (RFC 8259, UTF-8) or holds more than `max_records`, which the user
    knows as `called`; ApiError when there is no array and the body says that it is an error. What no decoder follows,
    for it is nested too deep, is overwritten in a bytearray: a copy would be as large as the body.
    """
    _check_utf8(body)
    try:
        return _records(body, pointer, max_records, called, deep=None)
    except RecursionError:
        # Records lie below the pointer's names and an array, so whatever is deeper is in one nested too deep.
        flat, mark = flatten(body, MAX_NESTING + len(pointer.names) + 2)
    try:
        return _records(flat, pointer, max_records, called, deep=mark)
    except RecursionError:
        reason = "not usable: JSON nested too deep outside of any record"
        raise BodyError(reason, bytes(body[: _quoted_bytes(body)])) from None


def record_key(record: bytes | msgspec.Raw, pointer: Pointer | None) -> bytes | None:
    """The record's Kafka key: a string's UTF-8, a number's or boolean's JSON literal, else None."""
    if pointer is None:
        return None
    if type(record) is bytes and (key := pointer.leading_string(record)) is not None:
        return key
    value = pointer.find(msgspec.Raw(record))
    if value is None:
        return None
    literal = bytes(value)
    if literal[0] == ord('"'):
        return _STRING.decode(literal).encode() if b"\\" in literal else literal[1:-1]
    return None if literal[0] in b"[{n" else literal


def _records(body: bytes | bytearray, pointer: Pointer, max_records: int, called: str, *, deep: bytes | None) -> Parsed:
    items = _items(body, pointer, max_records, called)
    if items is None:
        return Parsed(records=(), found=False)
    if len(items) > max_records:
        raise _too_many(body, str(len(items)), called, max_records)
    records: list[bytes] = []
    set_aside: list[SetAside] = []
    giants = len(body) > MAX_RECORD_BYTES
    for index, item in enumerate(items):
        if giants and len(view := memoryview(item)) > MAX_RECORD_BYTES:
            set_aside.append(SetAside(index=index, reason="too_large", first_bytes=bytes(view[:_FIRST_BYTES])))
            continue
        value = bytes(item)
        if value[0] != _OBJECT_START:
            set_aside.append(SetAside(index=index, reason="not_an_object", first_bytes=value[:_FIRST_BYTES]))
        elif nested_too_deep(value) or (deep is not None and deep in value):
            set_aside.append(SetAside(index=index, reason="nested_too_deep", first_bytes=value[:_FIRST_BYTES]))
        else:
            records.append(value)
    return Parsed(records=records, set_aside=set_aside)


def _items(body: bytes | bytearray, pointer: Pointer, max_records: int, called: str) -> Sequence[msgspec.Raw] | None:
    """The items at the pointer, None for nothing there. One pass when there is an array, as there nearly always is."""
    each_bytes = _MEMBER_BYTES if pointer.array is None else _RAW_ITEM_BYTES
    dense = len(body) + each_bytes * body.count(b",") > _DENSE_BYTES
    try:
        if pointer.array is not None and not dense:
            return pointer.array(body)
    except msgspec.ValidationError:
        pass  # no array there, or not JSON: looked at below
    except msgspec.DecodeError as error:
        raise _malformed(body, error) from error
    try:
        root = _RAW.decode(body)
    except msgspec.DecodeError as error:
        raise _malformed(body, error) from error
    if dense and pointer.array is None:
        reason = f"not usable: too dense ({body.count(b',')} commas) for a pointer with a name of quotes or backslashes"
        raise BodyError(reason, bytes(body[: _quoted_bytes(body)]))
    value = pointer.find(root)
    view = memoryview(b"" if value is None else value)
    begins = bytes(view[:5])
    if value is None or begins == b"null":
        _refuse_api_error(root)
        return None
    if begins.startswith(b"["):
        if dense and next(islice(item_spans(view), max_records, None), None) is not None:
            raise _too_many(view, f"more than {max_records}", called, max_records)
        return _ARRAY.decode(value)
    _refuse_api_error(root)
    if begins.startswith(b"{"):
        return (value,)
    reason = f"neither an array nor an object at {pointer.text or 'the root'!r}"
    raise BodyError(reason, bytes(view[: _quoted_bytes(view)]))


def _too_many(body: bytes | bytearray | memoryview, count: str, called: str, max_records: int) -> BodyError:
    reason = f"holds {count} records, {called} allows {max_records}"
    return BodyError(reason, bytes(body[: _quoted_bytes(body)]))


class _Outcome(msgspec.Struct):
    """What APIs say beside their records, or instead of them; whatever else there is, is skipped."""

    status: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    message: msgspec.Raw = msgspec.Raw()


_OUTCOME = msgspec.json.Decoder(_Outcome)


def _refuse_api_error(root: msgspec.Raw) -> None:
    """Raises ApiError when the root object carries an error, a message, or a status that is not a good one."""
    try:
        outcome = _OUTCOME.decode(root)
    except msgspec.ValidationError:  # not an object: nothing to say
        return
    said = {name: bytes(memoryview(getattr(outcome, name))[:_SAID_BYTES]) for name in ("status", "error", "message")}
    if _is_bad_status(said["status"]) or not (_is_empty(said["error"]) and _is_empty(said["message"])):
        reason = "the API answered with an error"
        raise ApiError(reason, b", ".join(name.encode() + b": " + text for name, text in said.items() if text))


def _is_empty(value: bytes) -> bool:
    """Whether a member says nothing: absent, null, false, zero or empty, as in `{"error": [ ], "result": …}`."""
    return b"".join(value[:_FIRST_BYTES].split()) in _EMPTY


def _is_bad_status(literal: bytes) -> bool:
    if literal[:1] == b'"':
        return len(literal) == _SAID_BYTES or _STRING.decode(literal).lower() not in _GOOD_STATUS
    if literal[:1].isdigit():
        return not literal.startswith(b"2")
    return literal == b"false"


def _check_utf8(body: bytes | bytearray) -> None:
    """Raw slices skip what is inside strings, so look here; in steps, since a decoded body may be four times as big."""
    if body.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(body)
    position = 0
    try:
        while position < len(view):
            pending = len(decoder.getstate()[0])
            decoder.decode(view[position : position + _UTF8_STEP_BYTES])
            position += _UTF8_STEP_BYTES
        pending, position = len(decoder.getstate()[0]), len(view)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        reason = f"not strict JSON: invalid UTF-8 (byte {position - pending + error.start})"
        raise BodyError(reason, bytes(view[: _quoted_bytes(body)])) from None


def _malformed(body: bytes | bytearray, error: msgspec.DecodeError) -> BodyError:
    text = str(error).removeprefix("JSON is malformed: ")
    if "(byte " not in text:
        text = f"{text} (byte {len(body)})"
    return BodyError(f"not strict JSON: {text}", bytes(body[: _quoted_bytes(body)]))


def _quoted_bytes(body: bytes | bytearray | memoryview) -> int:
    """Enough for whoever masks and cuts it: the start of the body, not all of it."""
    return min(len(body), 4096)


# Possessive: a match that could go back would remember every character of a long string.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{]|[\]}]', re.DOTALL)


def flatten(body: bytes | bytearray, depth_limit: int) -> tuple[bytearray, bytes]:
    """The body with whatever is nested as deep as `depth_limit` made a string of the same length, and its mark.

    Only so can a record that no decoder follows be set aside without its siblings. Of a bytearray no copy is made.
    """
    if body.count(b"[") + body.count(b"{") > _TOO_MANY_BRACKETS:
        reason = "not usable: JSON nested too deep"
        raise BodyError(reason, bytes(body[: _quoted_bytes(body)]))
    number = 0
    while (mark := b"deep%d" % number) in body:
        number += 1
    flat = body if isinstance(body, bytearray) else bytearray(body)
    depth = 0
    start = 0
    for token in _TOKEN.finditer(body):
        byte = body[token.start()]  # not token[0], which copies a string as long as the body
        if byte in b"[{":
            depth += 1
            if depth == depth_limit:
                start = token.start()
        elif byte in b"]}":
            if depth == depth_limit:
                length = token.end() - start
                flat[start : token.end()] = b'"' + mark.ljust(length - 2, b".") + b'"'
            depth -= 1
    return flat, mark
