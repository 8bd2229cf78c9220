"""Deciphers the status and headers of an HTTP answer.

Owns: which answers are used, retried, waited for or refused; `Retry-After`. Does not own: the body, the retrying.
Pure; the wall clock is handed in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_WAIT_SECONDS = 900.0
DEFAULT_WAIT_SECONDS = 60.0
_RETRIED = {408, 425}
_TOO_MANY_REQUESTS = 429
_UNAVAILABLE = 503
_NOT_MODIFIED = 304
_DIGITS_OF_MAX = 9
_CALLED = {"url": "API_URL", "key_variable": "API_KEY", "auth": "API_AUTH"}
_LEAP_SECOND = re.compile(r"(:\d\d):60\b", re.ASCII)


class Use(Enum):
    """What to do with an answer."""

    READ = auto()  # the body has the records
    EMPTY = auto()  # by its status there is no body: zero records
    UNCHANGED = auto()  # what the validators named is still the newest
    RETRY = auto()  # may go away: another attempt within the tick
    WAIT = auto()  # told to wait: no request before `wait_seconds` are over
    REFUSE = auto()  # asking again within the tick would not help


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`reason` says what the answer was; it quotes nothing of it but a redirect's host."""

    use: Use
    reason: str = ""
    wait_seconds: float = 0.0


def judge(
    status: int,
    headers: Mapping[str, str],
    wall: float,
    *,
    validated: bool = False,
    called: Mapping[str, str] | None = None,
) -> Verdict:
    """What to do with an answer. `headers` has lower-case names; `wall` is seconds since 1970; `validated`: the request
    had validators (`validators`), so that a 304 means something; `called`: what the user calls the settings.
    """
    name = f"HTTP {status}"
    called = {**_CALLED, **(called or {})}
    wait = retry_after(headers.get("retry-after"), wall)
    if status == _TOO_MANY_REQUESTS or (status == _UNAVAILABLE and wait is not None):
        wait = DEFAULT_WAIT_SECONDS if wait is None else wait
        return Verdict(use=Use.WAIT, reason=f"{name}: told to wait {wait:.0f} s", wait_seconds=wait)
    if status in {204, 205}:
        return Verdict(use=Use.EMPTY)
    if 200 <= status < 300:  # noqa: PLR2004
        return Verdict(use=Use.READ)
    if status == _NOT_MODIFIED:
        use = Use.UNCHANGED if validated else Use.REFUSE
        return Verdict(use=use, reason=f"{name}: not modified, which nobody asked")
    if 300 <= status < 400:  # noqa: PLR2004
        return Verdict(use=Use.REFUSE, reason=_redirect(name, headers.get("location", ""), called))
    if status in _RETRIED or status >= 500:  # noqa: PLR2004
        return Verdict(use=Use.RETRY, reason=name)
    return Verdict(use=Use.REFUSE, reason=name + _hint(status, called))


def validators(headers: Mapping[str, str]) -> dict[str, str]:
    """Request headers that ask for this answer's successor only (RFC 9110 §13.1); empty = it cannot be asked for."""
    pairs = (("if-none-match", headers.get("etag", "")), ("if-modified-since", headers.get("last-modified", "")))
    return {name: value for name, value in pairs if value and value.isascii() and value.isprintable()}


def retry_after(value: str | None, wall: float) -> float | None:
    """Seconds to wait, 0 … 900; None without a header that means anything (RFC 9110 §10.2.3: seconds or a date).

    Of several numbers, as a client joins repeated headers, the longest wait counts.
    """
    if value is None:
        return None
    numbers = [part.strip() for part in value.split(",")]
    if all(number.isascii() and number.isdigit() for number in numbers):
        return max(map(_capped_seconds, numbers))
    # A leap second is allowed in a date (RFC 9110 §5.6.7) and beyond datetime: one second after :59.
    text, leap_seconds = _LEAP_SECOND.subn(r"\1:59", value)
    try:
        moment = parsedate_to_datetime(text)
        seconds = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() + leap_seconds - wall
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_WAIT_SECONDS)


def _capped_seconds(digits: str) -> float:
    significant = digits.lstrip("0")
    return MAX_WAIT_SECONDS if len(significant) > _DIGITS_OF_MAX else min(float(significant or 0), MAX_WAIT_SECONDS)


def _redirect(name: str, location: str, called: Mapping[str, str]) -> str:
    try:
        host = urlsplit(location).hostname
    except ValueError:
        host = None
    where = f"to the host {host}" if host else "to another path of this host"
    return f"{name}: redirected {where}, which is not followed; set {called['url']} to the final address"


def _hint(status: int, called: Mapping[str, str]) -> str:
    if status in {401, 403}:
        return f": check {called['key_variable']}, {called['auth']} and what the plan allows"
    if status in {404, 410}:
        return f": check {called['url']}"
    return ""
