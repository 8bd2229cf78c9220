"""One list of variables: what the services read, what `.env.example` shows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

import consumer.settings
import producer.settings
from bootstrap import ROOT
from shared.settings import CONSUMER_VARIABLES, PRODUCER_VARIABLES, SHARED_VARIABLES, VARIABLES, variables_of

if TYPE_CHECKING:
    from shared.settings import ServiceSettings


@pytest.mark.parametrize(
    ("settings", "own"),
    [(producer.settings.Settings, PRODUCER_VARIABLES), (consumer.settings.Settings, CONSUMER_VARIABLES)],
    ids=["producer", "consumer"],
)
def test_the_list_of_variables_is_what_the_service_reads(settings: type[ServiceSettings], own: tuple[str, ...]) -> None:
    read = [name for field in settings.model_fields.items() for name in variables_of(*field)]
    assert sorted(read) == sorted(SHARED_VARIABLES + own)


def test_the_example_file_shows_every_variable_commented_out() -> None:
    shown = re.findall(r"^# ?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert set(VARIABLES) - set(shown) <= {"AWS_DEFAULT_REGION"}
