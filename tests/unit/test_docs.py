"""What the documents say is there: files, links, make targets, settings with their defaults."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import pytest

import consumer.settings
import producer.settings
from bootstrap import ROOT
from shared.settings import VARIABLES, variables_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic.fields import FieldInfo

DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text()
# A file or folder of ours in backticks; not one with a placeholder in its name.
NAMED = re.compile(r"`((?:consumer|demo|docs|producer|requirements|shared|tests)/[\w./-]*)`")
IN_WORDS = {"required", "unset", "empty", "the SDK's own"}


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


def test_every_promise_names_a_test_that_is_there() -> None:
    (rows,) = re.findall(r"^## What is promised\n\n.*\n\|---.*\n((?:\|.*\n)+)", README, re.MULTILINE)
    for row in rows.splitlines():
        names = re.findall(r"`([\w/]+\.py)`", row.split(" | ")[-1])
        assert names, row
        folder = ""
        for name in names:
            folder = name.rpartition("/")[0] or folder
            assert (ROOT / folder / name.rpartition("/")[2]).exists(), name


def settings_table() -> dict[str, str]:
    """Variable → default, as README's table has them."""
    rows = re.findall(r"^\| (`[A-Z].*?) \| (.*?) \| ", README, re.MULTILINE)
    table: dict[str, str] = {}
    for names, defaults in rows:
        each = re.findall(r"`([A-Z][A-Z0-9_]+)`", names)
        told = re.findall(r"`([^`]*)`|([^`,]+)(?:, |$)", defaults) or [("", "")]
        values = [code or words for code, words in told if (code or words).strip()] or [""]
        table |= dict(itertools.zip_longest(each, values, fillvalue=values[-1]))
    return table


def fields() -> Iterator[tuple[str, FieldInfo]]:
    """Each variable with the field that holds it."""
    for settings in (producer.settings.Settings, consumer.settings.Settings):
        for name, field in settings.model_fields.items():
            for variable in variables_of(name, field):
                yield variable, field


def same(told: str, default: object) -> bool:
    """Whether the words or digits of a document mean the default."""
    if told in IN_WORDS or told.startswith("empty"):
        return default is None or default == "" or told == "required"
    if isinstance(default, int | float):
        return float(told) == default
    return told == default


def test_the_settings_table_has_every_variable_with_its_default() -> None:
    table = settings_table()
    # Credentials are the SDK's own affair and in no settings class.
    assert set(VARIABLES) - table.keys() <= {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    assert table.keys() <= set(VARIABLES)
    for variable, field in fields():
        told = table[variable]
        if field.is_required():
            assert told == "required", variable
        else:
            assert same(told, field.get_default()), f"{variable}: README says {told}, it is {field.default!r}"


def test_the_example_file_shows_the_defaults() -> None:
    found = re.findall(r"^#([A-Z][A-Z0-9_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    shown = dict(reversed(found))  # the first one: at the end are blocks for special places
    for variable, field in fields():
        if variable in shown and not field.is_required():
            assert same(shown[variable] or "empty", field.get_default()), f"{variable}={shown[variable]}"
