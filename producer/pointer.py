"""JSON pointers (RFC 6901) over raw bytes.

Owns: the pointer's grammar and the walk to the value it names, as a slice of the document's own bytes.
Does not own: what the value means. Pure.

Invariants: a value that is found is returned byte for byte; a path that leads nowhere is None, never an error;
of duplicate names the last one counts, as in every common reader.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from producer.array_walk import item_spans

if TYPE_CHECKING:
    from collections.abc import Callable

_RAW = msgspec.json.Decoder(msgspec.Raw)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NOTHING = msgspec.Raw()
_ARRAY_START = ord("[")

Document = bytes | bytearray | msgspec.Raw


def parse_pointer(text: str) -> Pointer:
    """The pointer written as `text`; the empty text is the whole document. ValueError says what is wrong with it."""
    if text and not text.startswith("/"):
        msg = "a JSON pointer is empty or begins with '/', for example /tickers"
        raise ValueError(msg)
    if re.search(r"~(?![01])", text):
        msg = "in a JSON pointer '~' is written ~0 and a '/' inside a name is written ~1"
        raise ValueError(msg)
    names = tuple(name.replace("~1", "/").replace("~0", "~") for name in text.split("/")[1:])
    return Pointer(
        text=text,
        names=names,
        steps=tuple(_step(name) for name in names),
        array=_array_decoder(names),
        leading_string=_leading_string(names),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """A parsed pointer; made by `parse_pointer`.

    `array` decodes a document in one pass to the list of raw items at the pointer; it raises
    msgspec.ValidationError when there is no array. It is None where the names forbid that short cut.

    `leading_string` reads a string at the pointer from a document that begins with it, as records mostly begin with
    their key: half the cost of `find`. Its bytes without the quotes, or None, which says nothing: `find` it then.
    """

    text: str
    names: tuple[str, ...]
    steps: tuple[Callable[[Document], msgspec.Raw | None], ...]
    array: Callable[[bytes | bytearray], list[msgspec.Raw]] | None
    leading_string: Callable[[bytes], bytes | None]

    def find(self, document: msgspec.Raw) -> msgspec.Raw | None:
        """The value at the pointer, or None. `document` must be valid JSON."""
        value: msgspec.Raw | None = document
        for step in self.steps:
            if value is None:
                return None
            value = step(value)
        return value


def _step(name: str) -> Callable[[Document], msgspec.Raw | None]:
    """One level down: a member by name, or an item by index."""
    member = _member_decoder(name, msgspec.Raw, _NOTHING)
    index = int(name) if re.fullmatch(r"0|[1-9][0-9]{0,8}", name) else None

    def down(value: Document) -> msgspec.Raw | None:
        try:
            found: msgspec.Raw = _OBJECT.decode(value).get(name, _NOTHING) if member is None else member(value).value
        except msgspec.ValidationError:  # not an object
            pass
        else:
            return found if memoryview(found) else None
        view = memoryview(value)
        if index is None or view[0] != _ARRAY_START:
            return None
        span = next(islice(item_spans(view), index, None), None)
        return None if span is None else _RAW.decode(view[slice(*span)])

    return down


def _array_decoder(names: tuple[str, ...]) -> Callable[[bytes | bytearray], list[msgspec.Raw]] | None:
    kind: Any = list[msgspec.Raw]
    for name in reversed(names):
        try:
            kind = msgspec.defstruct("Level", [("value", kind)], rename={"value": name})
        except ValueError:  # a name that msgspec cannot rename to: the walk finds it
            return None
    decode = msgspec.json.Decoder(kind).decode

    def array(document: bytes | bytearray) -> list[msgspec.Raw]:
        value = decode(document)
        for _ in names:
            value = value.value
        items: list[msgspec.Raw] = value
        return items

    return array


def _leading_string(names: tuple[str, ...]) -> Callable[[bytes], bytes | None]:
    if len(names) != 1 or not names[0].isascii() or not names[0].isprintable() or set(names[0]) & {'"', "\\"}:
        return lambda _document: None
    quoted = f'"{names[0]}"'.encode()
    space = rb"[ \t\r\n]*"
    begins = re.compile(rb"\{" + space + re.escape(quoted) + space + rb":" + space + rb'"([^"\\]*)"').match

    def leading_string(document: bytes) -> bytes | None:
        found = begins(document)
        # A second member of the same name would count instead; written with escapes, it needs a backslash.
        if found is None or b"\\" in document or document.count(quoted) != 1:
            return None
        return found[1]

    return leading_string


def _member_decoder(name: str, kind: Any, default: object) -> Callable[[Document], Any] | None:  # noqa: ANN401
    """A decoder that reads one member and skips the rest: four times cheaper than a dict of all of them."""
    try:
        struct = msgspec.defstruct("Member", [("value", kind, default)], rename={"value": name})
    except ValueError:
        return None
    return msgspec.json.Decoder(struct).decode
