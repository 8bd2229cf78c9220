"""From settings to the two adapters: the topic and the bucket as the settings name them.

Owns: which setting goes where. Does not own: opening and closing (each command's own order).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from consumer.source import KafkaSource
from consumer.store import open_store
from shared.kafka import connection_options

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from consumer.settings import Settings
    from consumer.store import S3Store

LEAVE_SHARE: Final = 0.1  # of SHUTDOWN_TIMEOUT_SECONDS


def new_source(settings: Settings) -> KafkaSource:
    """The topic; not connected yet."""
    return KafkaSource(
        topic=settings.kafka_topic,
        group=settings.kafka_group_id,
        connection=connection_options(settings),
        session_timeout_seconds=settings.kafka_session_timeout_seconds,
        rebalance_timeout_seconds=settings.kafka_rebalance_timeout_seconds,
        leave_timeout_seconds=max(1.0, LEAVE_SHARE * settings.shutdown_timeout_seconds),
    )


def new_store(settings: Settings) -> AbstractAsyncContextManager[S3Store]:
    """The bucket; to be entered."""
    return open_store(
        bucket=settings.s3_bucket,
        region=settings.aws_region,
        endpoint_url=settings.aws_endpoint_url_s3,
        concurrency=settings.upload_concurrency,
        timeout_seconds=settings.upload_timeout_seconds,
        acl=settings.s3_acl,
        storage_class=settings.s3_storage_class,
        sse=settings.s3_sse,
        sse_kms_key_id=settings.s3_sse_kms_key_id,
        expected_bucket_owner=settings.s3_expected_bucket_owner,
    )
