"""The bucket: conditional put, head, listing and reading, over aioboto3.

Owns: the requests and their settings, the deadline of one attempt, and the sorting of every client exception into a
StoreError. Does not own: retries (the caller's; the SDK's are off), keys and bodies, what an answer means to the
chain, the wording of S3's error answers (`diagnosis`), the client's life (`s3_client`).
Invariants: a put never overwrites; CREATED and EXISTS are said only when S3 said so (a success without an ETag is
somebody else's page); no call outlasts its deadline; no call hashes the body on the event loop over https (there the
caller's CRC32 guards it; over plain http the signature covers it, as every SDK has it).

A HEAD has no body, so its 404 cannot tell a missing bucket from a missing key. It counts as absent: in a missing
bucket every key is. The put or get that follows names the bucket (NoSuchBucket, refused).

aiohttp re-sends a put once by itself when a kept-alive connection drops, so the answer to one's own first put may be
EXISTS. The caller tells by the metadata whose object it is.
"""

from __future__ import annotations

import base64
import struct
from asyncio import timeout
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol, cast

from consumer.bucket_name import bucket_fault
from consumer.diagnosis import ErrorAnswer, Place, diagnose, refused_as_foreign
from consumer.ports import Failure, Found, PutAnswer, StoreError, Upload
from consumer.s3_client import CLIENT_ERRORS, ClientOptions, Clients, describe, error_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from consumer.s3_client import Answer, S3Client

PAGE_SIZE = 1000
PIECE_BYTES = 1 << 18


class _Body(Protocol):
    async def read(self, amt: int | None = None) -> bytes: ...
    def close(self) -> None: ...
