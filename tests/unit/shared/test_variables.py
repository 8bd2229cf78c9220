"""The one list of variables is what the services read; documents are held to it by test_defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import consumer.settings
import producer.settings
from shared.settings import CONSUMER_VARIABLES, PRODUCER_VARIABLES, SHARED_VARIABLES, variables_of

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
