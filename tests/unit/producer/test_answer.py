from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime, formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.answer import Use, judge, retry_after

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("status", "use"),
    [
        (200, Use.READ),
        (206, Use.READ),
        (204, Use.EMPTY),
        (301, Use.REFUSE),
        (304, Use.REFUSE),
        (400, Use.REFUSE),
        (401, Use.REFUSE),
        (404, Use.REFUSE),
        (408, Use.RETRY),
        (425, Use.RETRY),
        (429, Use.WAIT),
        (500, Use.RETRY),
        (503, Use.RETRY),
        (599, Use.RETRY),
    ],
)
def test_what_a_status_means(status: int, use: Use) -> None:
    assert judge(status, {}, NOW).use is use


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("901", 900.0),
        ("9" * 5000, 900.0),
        ("000000000000007", 7.0),
        (formatdate(NOW + 30, usegmt=True), 30.0),
        (format_datetime(datetime.fromtimestamp(NOW + 30, UTC)), 30.0),
        (formatdate(NOW - 30, usegmt=True), 0.0),
        (formatdate(NOW + 1e6, usegmt=True), 900.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("²", None),
        ("Fri, 99 Zzz 2027", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_at_most_15_minutes(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


@given(st.text(max_size=40))
def test_no_retry_after_is_a_crash(value: str) -> None:
    wait = retry_after(value, NOW)
    assert wait is None or 0 <= wait <= 900


def test_429_waits_a_minute_when_it_does_not_say_how_long() -> None:
    assert judge(429, {}, NOW).wait_seconds == 60.0
    assert judge(429, {"retry-after": "nonsense"}, NOW).wait_seconds == 60.0
    assert judge(429, {"retry-after": "5"}, NOW).wait_seconds == 5.0


def test_503_waits_only_when_told_to() -> None:
    assert judge(503, {"retry-after": "5"}, NOW) == judge(503, {"retry-after": "5"}, NOW)
    assert judge(503, {"retry-after": "5"}, NOW).use is Use.WAIT
    assert judge(503, {"retry-after": "nonsense"}, NOW).use is Use.RETRY


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("https://other.example/login?next=secret", "to the host other.example,"),
        ("//cdn.example/x", "to the host cdn.example,"),
        ("/v2/secret", "to another path of this host"),
        ("http://[bad", "to another path of this host"),
    ],
)
def test_a_redirect_names_the_host_and_nothing_else_of_the_location(location: str, said: str) -> None:
    verdict = judge(302, {"location": location}, NOW)
    assert said in verdict.reason
    assert "secret" not in verdict.reason
