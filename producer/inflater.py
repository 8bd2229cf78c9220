"""Undoes the content coding of a body, never holding more than the cap.

Owns: gzip (RFC 1952, members in a row included) and the cap on decoded bytes. Does not own: reading the network. Pure.

Invariants: at no moment are more than the cap plus one step decoded; a body is whole or refused.
"""

from __future__ import annotations

import zlib

from producer.parser import BodyError

_STEP_BYTES = 1 << 18
_GZIP = 31  # window of 32 KiB with gzip's header and trailer
_IDENTITY = {"", "identity"}
_GZIP_NAMES = {"gzip", "x-gzip"}


class Inflater:
    """Takes chunks as they come from the wire, gives the decoded body. Raises BodyError.

    `taken_bytes` of the cap are in use already, by the pages before this one; `called`: what the user calls the cap.
    """

    def __init__(
        self, content_encoding: str, max_bytes: int, taken_bytes: int = 0, called: str = "API_MAX_BODY_BYTES"
    ) -> None:
        coding = content_encoding.strip().lower()
        if coding not in _IDENTITY | _GZIP_NAMES:
            reason = "not usable: a Content-Encoding that was not offered (only gzip is)"
            raise BodyError(reason, coding.encode())
        self._inflater = zlib.decompressobj(_GZIP) if coding in _GZIP_NAMES else None
        self._cap = f"{called} ({max_bytes})"
        self._room_bytes = max_bytes - taken_bytes
        self._body = bytearray()

    def feed(self, chunk: bytes) -> None:
        if self._inflater is None:
            self._append(chunk)
            return
        while chunk:
            if self._inflater.eof:
                self._inflater = zlib.decompressobj(_GZIP)  # a further member
            try:
                self._append(self._inflater.decompress(chunk, _STEP_BYTES))
            except zlib.error as error:
                reason = f"not usable: damaged gzip ({error})"
                raise BodyError(reason, b"") from error
            chunk = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail

    def finish(self) -> bytearray:
        """The whole body."""
        if self._inflater is not None and not self._inflater.eof:
            # what zlib still holds back is at most a window's worth and the trailer is missing anyway
            reason = "not usable: the gzip body ends too early"
            raise BodyError(reason, self._given_up())
        return self._body

    def beginning(self, chunk: bytes) -> bytes:
        """How a body begins whose first chunk this is, for a message: the cap's length of it at most."""
        if self._inflater is None:
            return chunk[: self._room_bytes]
        try:
            return self._inflater.decompress(chunk, self._room_bytes)
        except zlib.error as error:
            reason = f"not usable: damaged gzip ({error})"
            raise BodyError(reason, b"") from error

    def _append(self, piece: bytes) -> None:
        if len(self._body) + len(piece) > self._room_bytes:
            reason = f"not usable: the decoded body is larger than {self._cap}"
            raise BodyError(reason, self._given_up())
        self._body += piece

    def _given_up(self) -> bytes:
        """How the body begins; the rest of it is let go of, for an exception's traceback may keep this alive."""
        begins, self._body = bytes(self._body[:4096]), bytearray()
        return begins
