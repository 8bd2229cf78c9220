"""What the documents say is there: files, links, make targets, tests (settings: tests/unit/shared/test_defaults.py)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from bootstrap import ROOT
from tests.chaos.registry import all_scenarios

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text()
# A file or folder of ours in backticks; not one with a placeholder in its name.
NAMED = re.compile(r"`((?:consumer|demo|docs|producer|requirements|shared|tests)/[\w./-]*)`")


def each_document(documents: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("document", documents, ids=lambda path: str(path.relative_to(ROOT)))


@each_document(DOCUMENTS)
def test_every_relative_link_and_every_named_file_is_there(document: Path) -> None:
    text = document.read_text()
    for target, anchor in re.findall(r"\]\((?![a-z]+:)([^)#\s]*)#?([^)\s]*)\)", text):
        linked = (document.parent / target).resolve() if target else document
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked.read_text()), f"{target}#{anchor}"
    for name in NAMED.findall(text):
        assert (ROOT / name).exists(), name


def anchors(text: str) -> set[str]:
    """Of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_document(DOCUMENTS)
def test_every_make_target_is_there(document: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = re.findall(r"`[^`\n]+`|^```.*?^```", document.read_text(), re.DOTALL | re.MULTILINE)
    for block in code:
        assert set(re.findall(r"\bmake ([a-z0-9-]+)", block)) <= targets, block


@each_document(DOCUMENTS)
def test_quotes_are_read_as_whole_lines_since_duckdb_cannot_hold_P_beside_p(document: Path) -> None:  # noqa: N802
    assert not re.search(r"read_(?:nd)?json(?:_auto)?\(\s*'[^']*topic=", document.read_text())


def test_every_chaos_scenario_of_the_guarantees_is_there_and_none_is_left_out() -> None:
    lines = re.findall(r"chaos((?:,?\s+`[a-z0-9-]+`)+)", (ROOT / "docs" / "guarantees.md").read_text())
    named = {name for line in lines for name in re.findall(r"`([a-z0-9-]+)`", line)}
    assert named == set(all_scenarios())


def test_every_guarantee_says_assumption_test_breakage_and_what_is_seen_then() -> None:
    promises = re.split(
        r"^### ", (ROOT / "docs" / "guarantees.md").read_text().partition("## How it is proven")[0], flags=re.MULTILINE
    )
    assert len(promises) == 16
    for promise in promises[1:]:
        bullets = re.findall(r"^- \*\*(.+?)\*\*", promise, re.MULTILINE)
        assert bullets == ["Assumption", "Held by", "Breaks it", "Then"], promise


def test_every_promise_names_a_test_that_is_there() -> None:
    (rows,) = re.findall(r"^## What is promised\n\n.*\n\|---.*\n((?:\|.*\n)+)", README, re.MULTILINE)
    for row in rows.splitlines():
        names = re.findall(r"`([\w/]+\.py)`", row.split(" | ")[-1])
        assert names, row
        folder = ""
        for name in names:
            folder = name.rpartition("/")[0] or folder
            assert (ROOT / folder / name.rpartition("/")[2]).exists(), name
