"""The consumer's settings: what it reads beside the shared variables, and which of them contradict each other.

Owns: names, defaults, bounds (design §3). Does not own: how variables are read, how faults are worded
(`shared.settings`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AfterValidator, Field

from consumer.bucket_name import bucket_fault
from consumer.codecs import MAX_LEVELS, codec
from consumer.keys import KeyTemplate, TemplateError, extension
from shared.settings import Allowed, Bytes, Count, Seconds, ServiceSettings, Shown, Text, without_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_TEMPLATE: Final = "topic={topic}/dt={dt}/hour={hour}/{partition:05d}-{start:020d}.{ext}"
_OPEN_BATCHES: Final = 16  # of so many partitions; with fewer a level's memory would put batches after a few records
_WORKING_SHARE: Final = 4  # a batch may take this fraction of the memory limit, or nothing could grow beside it


def _bucket(name: str) -> str:
    if bucket_fault(name) is not None:
        raise ValueError
    return name


def _endpoint(url: str) -> str:
    if not url.startswith(("http://", "https://")) or without_credentials(url).endswith("*"):
        raise ValueError
    return url


def _prefix(prefix: str) -> str:
    if any(segment in ("", ".", "..") for segment in prefix.removesuffix("/").split("/")):
        raise ValueError
    return prefix


class Settings(ServiceSettings):
    """Everything the consumer can be told. Frozen; made by `shared.settings.load` only."""

    kafka_group_id: Text = "consumer-group-1"
    kafka_start_from: Literal["earliest", "latest"] = "earliest"
    kafka_on_data_loss: Literal["stop", "skip"] = "stop"
    kafka_session_timeout_seconds: Seconds = 45.0
    kafka_rebalance_timeout_seconds: Seconds = 60.0
    s3_bucket: Annotated[
        str,
        AfterValidator(_bucket),
        Allowed("the name of one general-purpose bucket: 3 to 63 of a-z, 0-9, dot and hyphen; no ARN, no path"),
    ]
    s3_prefix: (
        Annotated[
            str, AfterValidator(_prefix), Allowed("a folder like market/data/: no empty segment, '.' or '..' in it")
        ]
        | None
    ) = None
    s3_key_template: Text = DEFAULT_TEMPLATE
    s3_acl: Text | None = None
    s3_storage_class: Text | None = None
    s3_sse: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = None
    s3_sse_kms_key_id: Text | None = None
    s3_expected_bucket_owner: (
        Annotated[str, Field(pattern=r"^[0-9]{12}$"), Allowed("an AWS account's number of 12 digits")] | None
    ) = None
    aws_endpoint_url_s3: (
        Annotated[str, AfterValidator(_endpoint), Allowed("an http:// or https:// URL"), Shown(without_credentials)]
        | None
    ) = None
    batch_max_records: Count = 100_000
    batch_max_bytes: Bytes = 16 * 1024 * 1024
    batch_max_seconds: Seconds = 60.0
    compression: Literal["gzip", "zstd", "none"] = "gzip"
    compression_level: (
        Annotated[int, Field(ge=1, le=19), Allowed("a whole number: 1 to 9 with gzip, 1 to 19 with zstd")] | None
    ) = None
    record_format: Literal["value", "envelope"] = "value"
    memory_limit_bytes: Annotated[
        int, Field(ge=16 * 1024 * 1024, le=10**15), Allowed("a whole number from 16777216 (16 MiB) to 10^15 (bytes)")
    ] = 256 * 1024 * 1024
    upload_concurrency: Annotated[int, Field(ge=1, le=1000), Allowed("a whole number from 1 to 1000")] = 4
    upload_timeout_seconds: Seconds = 60.0

    @property
    def keys(self) -> KeyTemplate:
        """The names of objects. Only after `load` has looked for contradictions it cannot raise TemplateError."""
        ext = extension(
            record_format=self.record_format, compression=self.compression, max_records=self.batch_max_records
        )
        return KeyTemplate(self.s3_key_template, prefix=self.s3_prefix or "", topic=self.kafka_topic, ext=ext)

    def contradictions(self) -> Iterator[str]:
        """Faults between fields, each naming the variables."""
        yield from super().contradictions()
        try:
            _ = self.keys
        except TemplateError as error:
            yield f"S3_KEY_TEMPLATE: {self.s3_key_template!r}: {error}"
        if self.s3_sse_kms_key_id is not None and self.s3_sse not in ("aws:kms", "aws:kms:dsse"):
            yield "S3_SSE_KMS_KEY_ID: set, but S3_SSE is not aws:kms or aws:kms:dsse; allowed: with those only"
        yield from self._level_faults()
        if self.batch_max_bytes * _WORKING_SHARE > self.memory_limit_bytes:
            yield (
                f"BATCH_MAX_BYTES: {self.batch_max_bytes} is more than a quarter of MEMORY_LIMIT_BYTES"
                f" ({self.memory_limit_bytes}); allowed: at most {self.memory_limit_bytes // _WORKING_SHARE}"
            )

    def _level_faults(self) -> Iterator[str]:
        level, compression = self.compression_level, self.compression
        if level is None:
            return
        if compression == "none":
            yield f"COMPRESSION_LEVEL: {level} is set, but COMPRESSION is none; allowed: with gzip and zstd only"
        elif level > MAX_LEVELS[compression]:
            yield f"COMPRESSION_LEVEL: {level} is above what {compression} has; allowed: 1 to {MAX_LEVELS[compression]}"
        elif (needed := codec(compression, level).bytes) * _OPEN_BATCHES > self.memory_limit_bytes:
            yield (
                f"COMPRESSION_LEVEL: at {compression} {level} an open batch takes {needed} bytes of memory; allowed: a"
                f" level of which {_OPEN_BATCHES} fit into MEMORY_LIMIT_BYTES ({self.memory_limit_bytes}), or a limit"
                f" of at least {needed * _OPEN_BATCHES}"
            )
