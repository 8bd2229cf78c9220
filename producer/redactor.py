"""Keeps secrets out of whatever a person gets to read.

Owns: the masking of known secrets in texts and the cutting of quoted bodies. Does not own: what the secrets are. Pure.

Invariants: no secret it was given, in any spelling that a URL, JSON, HTML or a Basic header may give it, passes `mask`
or `excerpt`; nor does its beginning where an excerpt's content was cut; an excerpt has at most 200 characters and no
control characters.
"""

from __future__ import annotations

import base64
import codecs
import html
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, unquote, unquote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable

MASK = "***"
EXCERPT_CHARACTERS = 200
_TOLD_CHARACTERS = 3  # of a secret's beginning: more of them where a text was cut are masked


class Redactor:
    """Built once from the secrets of the settings; empty ones are ignored."""

    def __init__(self, secrets: Iterable[str]) -> None:
        spellings = {spelling for secret in secrets if secret for spelling in _spellings(secret)}
        longest_first = sorted(spellings, key=len, reverse=True)
        self._lowered = [spelling.lower() for spelling in longest_first]
        self._longest = len(longest_first[0]) if longest_first else 0
        self._pattern = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE) if longest_first else None

    def mask(self, text: str) -> str:
        return text if self._pattern is None else self._pattern.sub(MASK, text)

    def excerpt(self, content: bytes | bytearray) -> str:
        """How the content begins: masked first and cut then, so that no half of a secret is left at the edge.

        Content is often cut already, by who quotes it or by the network, so its end counts as such an edge.
        """
        window = bytes(content[: 4 * (EXCERPT_CHARACTERS + self._longest)])
        text = codecs.getincrementaldecoder("utf-8")("replace").decode(window)  # half a character at the end is dropped
        masked = self._mask_beginning_at_end(self.mask(text))
        cut = masked if len(masked) <= EXCERPT_CHARACTERS else masked[: EXCERPT_CHARACTERS - 1] + "…"
        return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in cut)

    def _mask_beginning_at_end(self, text: str) -> str:
        """The text without the beginning of a secret that it ends with."""
        for length in range(min(len(text), self._longest), _TOLD_CHARACTERS, -1):
            end = text[-length:].lower()
            if any(spelling.startswith(end) for spelling in self._lowered):
                return text[:-length] + MASK
        return text


def _spellings(secret: str) -> Iterable[str]:
    for plain in {secret, unquote(secret), unquote_plus(secret)}:
        if not plain:
            continue
        escaped = json.dumps(plain)[1:-1]
        yield from (plain, quote(plain, safe=""), quote(plain), quote_plus(plain), escaped, escaped.replace("/", "\\/"))
        yield html.escape(plain)
        yield base64.b64encode(plain.encode()).decode()
