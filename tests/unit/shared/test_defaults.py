"""Settings classes, README and .env.example name the same variables with the same defaults."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import consumer.settings
import producer.settings
from bootstrap import ROOT
from shared.settings import VARIABLES, load, variables_of

if TYPE_CHECKING:
    from shared.settings import ServiceSettings

REQUIRED = {"API_URL": "http://host", "S3_BUCKET": "bucket"}


def plain(value: object) -> str:
    """A default as a person writes it; unset, empty and required are all nothing."""
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def in_code() -> dict[str, str]:
    found: dict[str, str] = {}
    classes: list[type[ServiceSettings]] = [producer.settings.Settings, consumer.settings.Settings]
    for cls in classes:
        settings = load(cls, REQUIRED)
        for name, field in cls.model_fields.items():
            variables = variables_of(name, field)
            value = "" if variables[0] in REQUIRED else plain(getattr(settings, name))
            found.update(dict.fromkeys(variables, value))
    return found


def in_readme() -> dict[str, str]:
    table = (ROOT / "README.md").read_text().partition("| variable | default | meaning |")[2]
    found: dict[str, str] = {}
    for row in re.findall(r"^\| (`[A-Z].*?) \| (.*?) \|", table, re.MULTILINE):
        names = re.findall(r"`([A-Z][A-Z0-9_]+)`", row[0])
        values = re.findall(r"`([^`]+)`|\b(unset|required|empty|own)\b", row[1])
        defaults = [quoted for quoted, _ in values]
        found.update(zip(names, defaults if len(defaults) == len(names) else defaults * len(names), strict=True))
    return found


def in_example() -> dict[str, str]:
    text = (ROOT / ".env.example").read_text().partition("# ---- docker compose itself")[0]
    return dict(re.findall(r"^#([A-Z][A-Z0-9_]+)=(.*)$", text, re.MULTILINE))


def test_the_readme_names_every_variable_with_its_default() -> None:
    assert in_readme() == in_code()


def test_the_example_file_shows_every_default() -> None:
    assert {**in_example(), "AWS_DEFAULT_REGION": ""} == in_code()
    assert in_code().keys() == set(VARIABLES)
