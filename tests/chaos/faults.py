"""Faults as values: what the client sees, and, apart from it, what becomes of the request.

Owns: the catalogue, S3's words for refusals, and the rules that say which requests are struck. Does not own: doing it
(`fault_proxy`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.chaos.wire import Request


class Sees(StrEnum):
    """What the client meets. ANSWER is the server's own, once there is one; REFUSAL is ours; the others are none."""

    ANSWER = "answer"
    CLOSE = "close"  # the connection ends in order
    RESET = "reset"  # it ends by RST
    RESET_MID_BODY = "reset-mid-body"  # by RST, before the request's body was read; never with an effect
    STALL = "stall"  # nothing at all, until the client gives up
    REFUSAL = "refusal"


class Effect(StrEnum):
    """What becomes of the request."""

    NONE = "none"  # the store never hears of it
    DONE = "done"  # the store carried it out before the client saw the fault
    LATE = "late"  # the store carries it out seconds after the client saw the fault
    HELD = "held"  # the store carries it out when the scenario releases it


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """`status`, `code`, `message` are those of a REFUSAL; `late_seconds` is for Effect.LATE."""

    name: str
    sees: Sees
    effect: Effect = Effect.NONE
    status: int = 0
    code: str = ""
    message: str = ""
    late_seconds: float = 3.0

    def done(self) -> Fault:
        """The same to see, but the effect has happened."""
        return replace(self, name=f"{self.name}, effect done", effect=Effect.DONE)

    def late(self, seconds: float = 3.0) -> Fault:
        """The same to see, and the effect happens that much later."""
        return replace(self, name=f"{self.name}, effect late", effect=Effect.LATE, late_seconds=seconds)

    def refusal(self, method: str) -> bytes:
        """The answer; a HEAD's has no body, and so says neither code nor message."""
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{self.code}</Code><Message>{escape(self.message)}</Message>"
            "<RequestId>CHAOS</RequestId></Error>"
        )
        head = f"HTTP/1.1 {self.status} Chaos\r\nContent-Type: application/xml\r\nContent-Length: "
        if method == "HEAD":
            return f"{head}0\r\n\r\n".encode()
        return f"{head}{len(body.encode())}\r\n\r\n{body}".encode()


def _refusal(status: int, code: str, message: str) -> Fault:
    return Fault(name=f"{status} {code}", sees=Sees.REFUSAL, status=status, code=code, message=message)


DROP = Fault(name="dropped", sees=Sees.CLOSE)
RESET = Fault(name="reset", sees=Sees.RESET)
RESET_MID_BODY = Fault(name="reset in the body", sees=Sees.RESET_MID_BODY)
STALL = Fault(name="stalled", sees=Sees.STALL)
LOST_ANSWER = Fault(name="answer lost", sees=Sees.RESET, effect=Effect.DONE)
LATE = RESET.late()
HELD = Fault(name="held", sees=Sees.ANSWER, effect=Effect.HELD)
INTERNAL = _refusal(500, "InternalError", "We encountered an internal error. Please try again.")
SLOW_DOWN = _refusal(503, "SlowDown", "Please reduce your request rate.")
CONFLICT = _refusal(409, "ConditionalRequestConflict", "The conditional request cannot succeed.")
DENIED = _refusal(403, "AccessDenied", "Access Denied")
EXPIRED = _refusal(400, "ExpiredToken", "The provided token has expired.")


@dataclass(slots=True, kw_only=True)
class Rule:
    """Strikes that share of the requests that match, after `after` of them, `times` times (None = for ever)."""

    fault: Fault
    share: float = 1.0
    method: str | None = None
    key_part: str = ""
    times: int | None = None
    after: int = 0
    where: Callable[[Request], bool] = field(default=lambda _: True)

    def strikes(self, request: Request, dice: random.Random) -> bool:
        """Whether it strikes this request; counts it."""
        if self.method not in (None, request.method) or self.key_part not in request.key or self.times == 0:
            return False
        if not self.where(request):
            return False
        if self.after:
            self.after -= 1
            return False
        if self.share < 1.0 and dice.random() >= self.share:
            return False
        if self.times is not None:
            self.times -= 1
        return True
