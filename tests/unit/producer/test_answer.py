from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime, formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.answer import Use, judge, retry_after, validators

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


SECONDS = [
    ("0", 0.0),
    ("7", 7.0),
    (" 120 ", 120.0),
    ("\t7\r\n", 7.0),
    ("899", 899.0),
    ("900", 900.0),
    ("901", 900.0),
    ("000", 0.0),
    ("000000000000007", 7.0),
    ("0" * 500 + "901", 900.0),
    ("9" * 5000, 900.0),
    ("1" + "0" * 400, 900.0),
    # Repeated headers, as HTTP clients join them: the longest wait.
    ("1, 2", 2.0),
    ("30,30", 30.0),
    ("5 , 1" + "0" * 400 + ", 3", 900.0),
]
NUMBERS_OF_NO_FORM = [
    "+5",
    "-5",
    "-0",
    "1.5",
    "5.",
    "1e2",
    "1e400",
    "0x10",
    "1_000",
    "5s",
    "5 s",
    "1 2",
    "1,",
    ",",
    "1, -2",
    "7\x00",
    "\N{SUPERSCRIPT TWO}",
    "\N{ARABIC-INDIC DIGIT THREE}",
    "\N{FULLWIDTH DIGIT ONE}\N{FULLWIDTH DIGIT TWO}",
    "NaN",
    "inf",
    "null",
]
# NOW is Friday, 15 January 2027, 08:00:00 UTC.
DATES = [
    (formatdate(NOW + 30, usegmt=True), 30.0),
    ("Fri, 15 Jan 2027 08:00:30 GMT", 30.0),
    ("Friday, 15-Jan-27 08:00:30 GMT", 30.0),  # RFC 850
    ("Fri Jan 15 08:00:30 2027", 30.0),  # asctime
    (format_datetime(datetime.fromtimestamp(NOW + 30, UTC)), 30.0),
    ("Fri, 15 Jan 27 08:00:30 GMT", 30.0),
    ("15 Jan 2027 08:00:30 GMT", 30.0),
    ("Fri, 15 Jan 2027 08:00:30", 30.0),  # no zone: UTC
    ("Fri, 15 Jan 2027 08:00:30 -0000", 30.0),
    ("Fri, 15 Jan 2027 09:00:30 +0100", 30.0),
    ("Fri, 15 Jan 2027 03:00:30 EST", 30.0),
    ("Sun, 15 Jan 2027 08:00:30 GMT", 30.0),  # the wrong weekday
    ("  Fri, 15 Jan 2027 08:00:30 GMT\t", 30.0),
    ("Fri, 15 Jan 2027 08:00:30 GMT, Fri, 15 Jan 2027 08:00:30 GMT", 30.0),
    ("Fri, 15 Jan 2027 07:59:60 GMT", 0.0),  # a leap second
    ("Fri, 15 Jan 2027 08:00:60 GMT", 60.0),
    ("Fri, 15 Jan 2027 07:59:30 GMT", 0.0),  # over
    ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),
    ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ("Thu, 01 Jan 1960 00:00:00 GMT", 0.0),
    ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
    ("Fri, 15 Jan 2027 08:15:01 GMT", 900.0),
    ("Fri, 31 Dec 9999 23:59:59 GMT", 900.0),
    ("Fri, 31 Dec 9999 23:59:59 -2359", 900.0),
]
NO_DATES = [
    "",
    " ",
    "soon",
    "Fri, 99 Zzz 2027",
    "Fri, 30 Feb 2027 08:00:30 GMT",
    "Fri, 15 Jan 2027",
    "Fri, 15 Jan 2027 24:00:00 GMT",
    "Fri, 15 Jan 2027 08:00:61 GMT",
    "Fri, 15 Jan 2027 08:00:30 +9999",
    "Sat, 01 Jan 10000 00:00:00 GMT",
    "Fri, 15 Jan " + "9" * 5000 + " 08:00:30 GMT",
    "Fri, 15 Jan 2027 08:00:" + "9" * 5000 + " GMT",
    "2027-01-15T08:00:30Z",
    "(" * 10_000,
]


@pytest.mark.parametrize(("value", "seconds"), SECONDS + DATES)
def test_retry_after_is_seconds_or_a_date_and_at_most_15_minutes(value: str, seconds: float) -> None:
    assert retry_after(value, NOW) == seconds
    assert judge(429, {"retry-after": value}, NOW).wait_seconds == seconds
    assert judge(503, {"retry-after": value}, NOW).use is Use.WAIT


@pytest.mark.parametrize("value", NUMBERS_OF_NO_FORM + NO_DATES)
def test_a_retry_after_of_no_form_is_as_none_at_all(value: str) -> None:
    assert retry_after(value, NOW) is None
    assert judge(429, {"retry-after": value}, NOW) == judge(429, {}, NOW)
    assert judge(503, {"retry-after": value}, NOW).use is Use.RETRY


@pytest.mark.parametrize("wall", [0.0, -1e18, NOW - 86_400])
def test_a_clock_that_is_late_makes_a_date_15_minutes_at_most(wall: float) -> None:
    assert retry_after("Fri, 15 Jan 2027 08:00:30 GMT", wall) == 900.0


@pytest.mark.parametrize("wall", [NOW + 86_400, 1e18])
def test_a_clock_that_is_early_makes_a_date_no_wait(wall: float) -> None:
    assert retry_after("Fri, 15 Jan 2027 08:00:30 GMT", wall) == 0.0


@given(seconds=st.integers(0, 2000), wall=st.floats(-1e18, 1e18))
def test_seconds_are_waited_whatever_the_clock_says(seconds: int, wall: float) -> None:
    assert retry_after(str(seconds), wall) == min(seconds, 900)


PIECES = [
    "Fri,",
    "Friday,",
    "15",
    "-",
    "Jan",
    "2027",
    "27",
    " ",
    ":",
    "08:00:30",
    "GMT",
    "+0100",
    "(",
    ",",
    "\t",
    ".",
    "Z",
]
DATE_LIKE = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=10).map("".join)


@given(value=st.text() | DATE_LIKE, wall=st.floats(-1e18, 1e18), status=st.sampled_from([200, 302, 403, 429, 500, 503]))
def test_no_retry_after_is_a_crash_or_an_endless_wait(value: str, wall: float, status: int) -> None:
    wait = retry_after(value, wall)
    assert wait is None or 0 <= wait <= 900
    verdict = judge(status, {"retry-after": value}, wall)
    assert 0 <= verdict.wait_seconds <= 900


@given(delay=st.integers(-5000, 5000))
def test_every_http_date_is_waited_for(delay: int) -> None:
    moment = datetime.fromtimestamp(NOW + delay, UTC)
    forms = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y")
    assert {retry_after(moment.strftime(form), NOW) for form in forms} == {min(max(float(delay), 0.0), 900.0)}


def test_429_waits_a_minute_when_it_does_not_say_how_long() -> None:
    assert judge(429, {}, NOW).wait_seconds == 60.0
    assert judge(429, {"retry-after": "nonsense"}, NOW).wait_seconds == 60.0
    assert judge(429, {"retry-after": "5"}, NOW).wait_seconds == 5.0


def test_503_waits_only_when_told_to() -> None:
    assert judge(503, {}, NOW).use is Use.RETRY
    assert judge(503, {"retry-after": "nonsense"}, NOW).use is Use.RETRY
    verdict = judge(503, {"retry-after": "5"}, NOW)
    assert (verdict.use, verdict.wait_seconds, verdict.reason) == (Use.WAIT, 5.0, "HTTP 503: told to wait 5 s")


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


def test_a_304_is_unchanged_only_to_who_sent_validators() -> None:
    assert judge(304, {}, NOW, validated=True).use is Use.UNCHANGED
    assert judge(304, {}, NOW, validated=False).use is Use.REFUSE
    assert judge(200, {}, NOW, validated=True).use is Use.READ


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, {}),
        ({"etag": '"a1"'}, {"if-none-match": '"a1"'}),
        ({"etag": 'W/"a1"'}, {"if-none-match": 'W/"a1"'}),
        (
            {"etag": '"a1"', "last-modified": "Fri, 15 Jan 2027 08:00:30 GMT"},
            {"if-none-match": '"a1"', "if-modified-since": "Fri, 15 Jan 2027 08:00:30 GMT"},
        ),
        ({"etag": "", "last-modified": ""}, {}),
        ({"etag": '"a\r\nx-evil: 1"', "last-modified": "0"}, {"if-modified-since": "0"}),
        ({"etag": '"\N{LATIN SMALL LETTER E WITH ACUTE}"'}, {}),
    ],
)
def test_validators_are_what_the_answer_said_and_fit_for_a_header(
    headers: dict[str, str], expected: dict[str, str]
) -> None:
    assert validators(headers) == expected
