"""Make buckets and look into them, on any S3 server: what stands before and behind the consumer in demo and tests.

Owns: one client per call, shielded from the shell's AWS settings by its explicit arguments. Does not own: how the
consumer stores (`consumer/store.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import aioboto3
from botocore.config import Config
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from contextlib import AbstractAsyncContextManager

OURS_ALREADY = {"BucketAlreadyOwnedByYou"}


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Access:
    """How to reach an S3 server."""

    endpoint_url: str
    access_key: str
    secret_key: str
    region: str

    def environ(self) -> dict[str, str]:
        """The consumer's settings for this server."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
        }


class S3Client(Protocol):
    """The calls that demo and tests make of aioboto3's untyped client; answers as botocore documents them."""

    async def create_bucket(self, **arguments: object) -> Mapping[str, object]: ...
    async def put_object(self, **arguments: object) -> Mapping[str, object]: ...
    async def get_object(self, **arguments: object) -> Mapping[str, object]: ...
    async def head_object(self, **arguments: object) -> Mapping[str, object]: ...
    async def delete_object(self, **arguments: object) -> Mapping[str, object]: ...
    async def list_objects_v2(self, **arguments: object) -> Mapping[str, object]: ...


def client(access: S3Access) -> AbstractAsyncContextManager[S3Client]:
    """An S3 client for `async with`, which retries little and never asks the environment."""
    config = Config(
        s3={"addressing_style": "path"}, connect_timeout=10, read_timeout=60, retries={"total_max_attempts": 3}
    )
    session = aioboto3.Session(
        aws_access_key_id=access.access_key, aws_secret_access_key=access.secret_key, region_name=access.region
    )
    made = session.client("s3", endpoint_url=access.endpoint_url, config=config)
    return cast("AbstractAsyncContextManager[S3Client]", made)


async def create(access: S3Access, bucket: str) -> None:
    """Make the bucket; fine when it is there and ours. Any other refusal is botocore's ClientError."""
    async with client(access) as s3:
        region = {} if access.region == "us-east-1" else {"LocationConstraint": access.region}
        try:
            await s3.create_bucket(Bucket=bucket, **({"CreateBucketConfiguration": region} if region else {}))
        except ClientError as error:
            if error.response["Error"]["Code"] not in OURS_ALREADY:
                raise


async def keys(access: S3Access, bucket: str, prefix: str = "") -> AsyncIterator[str]:
    """All keys that begin with `prefix`, in order."""
    async with client(access) as s3:
        more: dict[str, object] = {}
        while True:
            page = await s3.list_objects_v2(Bucket=bucket, Prefix=prefix, **more)
            for entry in cast("list[Mapping[str, str]]", page.get("Contents", [])):
                yield entry["Key"]
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}
