"""Which services the demo runs and with which settings.

Owns: their command lines, environments and ports. Does not own: how they are run (`supervisor`). Invariant: a service
sees nothing of the shell but `environment.PASSED_ON`, and listens on the loopback address only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from demo import environment, installation, market_api
from demo.ports import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from demo.buckets import S3Access
    from demo.options import Options

CONSUMERS = 2
KEY = "demo-key"
MARKET_PORT, PRODUCER_PORT, FIRST_CONSUMER_PORT = 8000, 8080, 8081
GROUP = "ticklake-demo"
BATCH_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One process: what to run and where it answers (`url` ends with a slash)."""

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """All of them, in the order of the data."""

    market: Service
    producer: Service
    consumers: tuple[Service, ...]
    verify: Service


def services(options: Options, producer: Path, consumer: Path, kafka: str, s3: S3Access) -> Services:
    """The services over running servers; `producer` and `consumer` are the interpreters of their environments."""
    kafka_settings = {"KAFKA_BOOTSTRAP_SERVERS": kafka, "KAFKA_TOPIC": options.topic}
    market_port = free_port(MARKET_PORT)
    market_url = f"http://{HOST}:{market_port}"
    market = Service(
        name="market",
        command=(str(producer), "-m", "demo.market_api", f"--port={market_port}", f"--symbols={options.symbols}"),
        environ=_environ({"MARKET_API_KEY": KEY}),
        url=f"{market_url}/",
    )
    polled = {
        "API_URL": market_url + market_api.SNAPSHOT_PATH,
        "API_KEY": KEY,
        "API_RECORDS_POINTER": "/tickers",
        "RECORD_KEY_POINTER": "/ticker",
        "SELECT": "all",
    }
    stored = {
        "KAFKA_GROUP_ID": GROUP,
        "S3_BUCKET": options.bucket,
        "BATCH_MAX_SECONDS": str(BATCH_SECONDS),
        **s3.environ(),
    }
    return Services(
        market=market,
        producer=_service("producer", producer, "producer", PRODUCER_PORT, kafka_settings | polled),
        consumers=tuple(
            _service(f"consumer-{i + 1}", consumer, "consumer", FIRST_CONSUMER_PORT + i, kafka_settings | stored)
            for i in range(CONSUMERS)
        ),
        verify=Service(
            name="verify",
            command=(str(consumer), "-m", "consumer", "verify"),
            environ=_environ(kafka_settings | stored | {"LOG_LEVEL": "WARNING", "LOG_FORMAT": "console"}),
            url="",
        ),
    )


def _service(name: str, python: Path, module: str, port: int, settings: Mapping[str, str]) -> Service:
    port = free_port(port)
    side_port = {"HTTP_HOST": HOST, "HTTP_PORT": str(port), "LOG_FORMAT": "console"}
    return Service(
        name=name,
        command=(str(python), "-m", module),
        environ=_environ({**settings, **side_port}),
        url=f"http://{HOST}:{port}/",
    )


def _environ(settings: Mapping[str, str]) -> dict[str, str]:
    return environment.for_service(installation.SHELL, settings)
