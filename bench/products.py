"""What other sinks cost: figures measured before, which a run of `make bench` quotes and does not measure again.

Owns: the table and where it comes from. Does not own: ours and the baselines (`consumer_runs`).
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = (
    "Measured once, on this machine kind, before this project's consumer was made fast: 2,000,000 quotes "
    "of about 200 bytes, 8 partitions, gzip objects, the same Kafka version, a local S3 server. They were **not** run "
    "again here"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One sink's figures, as they were told: three digits at most."""

    name: str
    cpu_seconds_per_million: float
    records_per_second: int
    peak_memory_mb: int
    zombie: str


PRODUCTS = (
    Product(
        name="Quix Streams 3.28 (Python, gzip 9)",
        cpu_seconds_per_million=38,
        records_per_second=17_000,
        peak_memory_mb=265,
        zombie="0 / up to 1,107",
    ),
    Product(
        name="Bento 1.20, batching at the output",
        cpu_seconds_per_million=29,
        records_per_second=44_000,
        peak_memory_mb=594,
        zombie="0 / up to 67,946",
    ),
    Product(
        name="Aiven S3 sink on Kafka Connect 4.3.1",
        cpu_seconds_per_million=17.5,
        records_per_second=65_000,
        peak_memory_mb=2_249,
        zombie="0 / up to 8,503",
    ),
    Product(
        name="Bento 1.20, batching at the input",
        cpu_seconds_per_million=5.4,
        records_per_second=157_000,
        peak_memory_mb=1_176,
        zombie="not tried",
    ),
    Product(
        name="franz-go + aws-sdk-go, hand-written, gzip 6",
        cpu_seconds_per_million=2.5,
        records_per_second=172_000,
        peak_memory_mb=385,
        zombie="up to 36,735 / 0",
    ),
)


def table(cpu: str) -> str:
    """All of them as Markdown; `cpu` is what the reports call that figure."""
    found = [f"| sink | {cpu} | records/s | peak RSS | zombie test: lines missing / doubled of 500,000 |"]
    found.append("|---|---:|---:|---:|---|")
    found += [
        f"| {product.name} | {product.cpu_seconds_per_million:g} | {product.records_per_second:,} "
        f"| {product.peak_memory_mb:,} MB | {product.zombie} |"
        for product in PRODUCTS
    ]
    return "\n".join(found)
