"""Where the SDK is bent for speed (consumer/s3_client.py), held against the SDK that is installed."""

from __future__ import annotations

import asyncio
import json
import re
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import pytest
from botocore.endpoint_provider import RuleSet
from botocore.exceptions import EndpointConnectionError
from botocore.loaders import Loader

from consumer.ports import PutAnswer, Upload
from consumer.s3_client import ClientOptions, open_client
from consumer.store import open_store

if TYPE_CHECKING:
    from collections.abc import Mapping

NOBODY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def test_no_rule_of_the_sdk_reads_the_key_to_find_out_where_to_send_a_request() -> None:
    rules = json.dumps(Loader().load_service_model("s3", "endpoint-rule-set-1")["rules"])
    read = set(re.findall(r'"ref": "(\w+)"|\{(\w+)[}#]', rules))
    names = {name for pair in read for name in pair}
    assert {"Bucket", "Region", "Endpoint"} <= names
    assert "Key" not in names


async def test_the_sdk_walks_its_rules_once_for_all_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    walked: list[Mapping[str, object]] = []
    evaluate = RuleSet.evaluate

    def counting(rules: object, parameters: Mapping[str, object]) -> object:
        walked.append(parameters)
        return evaluate(rules, parameters)

    monkeypatch.setattr(RuleSet, "evaluate", counting)
    options = ClientOptions(region="us-east-1", endpoint_url=NOBODY, concurrency=1, timeout_seconds=10)
    async with open_client(options) as client:
        for call in (client.put_object, client.head_object, client.get_object):
            for key in ("a", "b", "c"):
                with pytest.raises(EndpointConnectionError):
                    await call(Bucket="bucket", Key=key)
    assert len(walked) == 1


async def test_a_body_is_never_copied_as_a_whole_on_its_way() -> None:
    body = bytes(range(256)) * (1 << 16)
    received: list[int] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"100-continue" in head
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        checksum, left = 0, len(body)
        while left:
            piece = await reader.read(1 << 16)
            checksum, left = zlib.crc32(piece, checksum), left - len(piece)
        received.append(checksum)
        writer.write(b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 0\r\n\r\n')
        await writer.drain()
        writer.close()

    upload = Upload(key="key", body=body, crc32=zlib.crc32(body), content_type="text/plain", metadata={})
    server = await asyncio.start_server(take, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, open_store(bucket="bucket", endpoint_url=url) as store:
        async with store._clients.client():
            pass  # made before memory is counted
        tracemalloc.start()
        try:
            assert await store.put_if_absent(upload) is PutAnswer.CREATED
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert received == [upload.crc32]
    assert peak < len(body) / 2
