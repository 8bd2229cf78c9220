"""The scenarios there are, by name.

Owns: the registry. Does not own: what a scenario does (`scenarios/`), how it is run (`runner`).
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.chaos import scenarios

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tests.chaos.arena import Arena

BUDGET_LIMIT_SECONDS = 120.0


class NotHereError(Exception):
    """Raised by a scenario that this machine cannot run; the text says why. It is told as skipped, loudly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`budget_seconds`: everything, its oracle included. `own_kafka`, `own_s3`: servers nobody else uses.

    `kafka_settings`: added to the broker's server.properties (its own then).
    """

    name: str
    tells: str
    act: Callable[[Arena], Awaitable[None]]
    budget_seconds: float
    ci: bool
    own_kafka: bool
    own_s3: bool
    kafka_settings: Mapping[str, str]
    partitions: int
    topic_config: Mapping[str, str]
    settings: Mapping[str, str]


_SCENARIOS: dict[str, Scenario] = {}


def scenario(
    name: str,
    tells: str,
    *,
    budget_seconds: float = BUDGET_LIMIT_SECONDS,
    ci: bool = False,
    own_kafka: bool = False,
    own_s3: bool = False,
    kafka_settings: Mapping[str, str] | None = None,
    partitions: int = 4,
    topic_config: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Callable[[Callable[[Arena], Awaitable[None]]], Callable[[Arena], Awaitable[None]]]:
    """Register the function below. `tells`: one sentence on what happens. `settings`: the consumers', beside ours."""
    assert budget_seconds <= BUDGET_LIMIT_SECONDS, f"{name}: a scenario takes less than {BUDGET_LIMIT_SECONDS:.0f} s"
    assert name not in _SCENARIOS, f"two scenarios are called {name}"

    def register(act: Callable[[Arena], Awaitable[None]]) -> Callable[[Arena], Awaitable[None]]:
        _SCENARIOS[name] = Scenario(
            name=name,
            tells=tells,
            act=act,
            budget_seconds=budget_seconds,
            ci=ci,
            own_kafka=own_kafka or bool(kafka_settings),
            own_s3=own_s3,
            kafka_settings=dict(kafka_settings or {}),
            partitions=partitions,
            topic_config=dict(topic_config or {}),
            settings=dict(settings or {}),
        )
        return act

    return register


def all_scenarios() -> Mapping[str, Scenario]:
    """Every scenario of every module below `scenarios/`, in the order of module and text."""
    package: Any = scenarios
    for module in sorted(found.name for found in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"{package.__name__}.{module}")
    return dict(_SCENARIOS)
