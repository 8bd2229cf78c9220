"""The consumer without validation and without the hash, to be set beside sinks that do neither: for comparison only.

    python -m bench.unvalidated    settings are the environment variables of `python -m consumer`

Owns: the swap of two functions before the consumer starts. Does not own: anything of the consumer, which has no setting
for it and shall have none: what it stores would be neither lines for certain nor to be audited.

Invariant: it ends with exit code 1, so that figures are void, when the consumer did not use what was swapped in.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

from consumer import encoder
from consumer.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Sequence

used: set[str] = set()


def unvalidated_lines(values: Sequence[bytes]) -> bytes:
    """What `encoder.value_lines` gives, whatever the values are."""
    used.add("lines")
    return b"\n".join([*values, b""])


class NoHash:
    """What the encoder needs of a hash."""

    def update(self, _: bytes) -> None:
        used.add("hash")

    def hexdigest(self) -> str:
        return "0" * 64


if __name__ == "__main__":
    vars(encoder).update(value_lines=unvalidated_lines, hashlib=SimpleNamespace(sha256=NoHash))
    exit_code = main([])
    sys.exit(exit_code or (0 if used == {"lines", "hash"} else 1))
