from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest
import zstandard

from bench import completeness, quotes
from bench.process import BenchError
from tests.unit.bench.figures import TOPIC

if TYPE_CHECKING:
    from pathlib import Path


def lines(partition: int, first: int, count: int) -> list[bytes]:
    return quotes.values(TOPIC.shape, partition, first, count)


def body(values: list[bytes]) -> bytes:
    return b"".join(value + b"\n" for value in values)


def account(*bodies: bytes) -> completeness.Account:
    found = completeness.Account(TOPIC, 2)
    for each in bodies:
        found.take(each)
    return found


WHOLE = [body(lines(0, 0, 40)), body(lines(1, 0, 25)), body(lines(1, 25, 15))]


def test_every_record_once_is_complete_however_it_is_cut_into_objects() -> None:
    account(*WHOLE).check()
    account(body([*lines(1, 3, 37), *lines(0, 0, 40), *lines(1, 0, 3)])).check()


@pytest.mark.parametrize("number", range(40))
def test_a_missing_line_voids_the_figures(number: int) -> None:
    left = lines(0, 0, 40)
    del left[number]
    with pytest.raises(BenchError, match="320 records 1 are missing and 0 doubled, 0 lines are none"):
        account(body(left), *WHOLE[1:]).check()


@pytest.mark.parametrize("number", [0, 17, 39])
def test_a_doubled_line_voids_the_figures(number: int) -> None:
    again = body(lines(0, number, 1))
    for bodies in ([*WHOLE, again], [again, *WHOLE], [WHOLE[0] + again, *WHOLE[1:]]):
        with pytest.raises(BenchError, match="0 are missing and 1 doubled, 0 lines"):
            account(*bodies).check()


def test_an_object_stored_twice_voids_the_figures() -> None:
    with pytest.raises(BenchError, match="0 are missing and 25 doubled"):
        account(*WHOLE, WHOLE[1]).check()


@pytest.mark.parametrize(
    "strange",
    [
        b"\n",
        b"{}\n",
        body(lines(0, 0, 1))[:-20] + b'"}\n',  # cut short
        body(lines(0, 0, 1)).replace(b"bid_price", b"bid_prize"),  # a byte has changed
        body(quotes.values(TOPIC.shape, 2, 0, 1)),  # of no partition
        body(quotes.values(TOPIC.shape, 0, 40, 1)),  # beyond the end
        body(quotes.values(quotes.TRADE, 0, 0, 1)),  # of another shape
    ],
)
def test_a_line_that_is_none_of_the_topics_voids_the_figures(strange: bytes) -> None:
    with pytest.raises(BenchError, match="0 are missing and 0 doubled, 1 lines are none"):
        account(*WHOLE, strange).check()


def test_objects_are_read_by_their_names_and_what_lies_beside_them_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "topic=t" / "hour=10"
    folder.mkdir(parents=True)
    contents = {
        "0-0.jsonl.gz": gzip.compress(WHOLE[0]),
        "1-0.jsonl.zst": zstandard.ZstdCompressor().compress(WHOLE[1]),
        "1-25.jsonl": WHOLE[2],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        (folder / f"{name}.meta.json").write_text("{}")
    beside = tmp_path / "_ticklake" / "t"
    beside.mkdir(parents=True)
    (beside / "layout.json").write_text("{}")
    found = completeness.check(TOPIC, 2, tmp_path)
    assert (found.objects, found.bytes) == (3, sum(map(len, contents.values())))
    (folder / "1-25.jsonl").unlink()
    with pytest.raises(BenchError, match="15 are missing"):
        completeness.check(TOPIC, 2, tmp_path)
