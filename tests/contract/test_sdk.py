"""Where the SDK is bent for speed (consumer/s3_client.py), held against the SDK that is installed."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from botocore.endpoint_provider import RuleSet
from botocore.exceptions import EndpointConnectionError
from botocore.loaders import Loader

from consumer.s3_client import ClientOptions, open_client

if TYPE_CHECKING:
    from collections.abc import Mapping

NOBODY = "http://127.0.0.1:9"


def test_no_rule_of_the_sdk_reads_the_key_to_find_out_where_to_send_a_request() -> None:
    rules = json.dumps(Loader().load_service_model("s3", "endpoint-rule-set-1")["rules"])
    read = set(re.findall(r'"ref": "(\w+)"|\{(\w+)[}#]', rules))
    names = {name for pair in read for name in pair}
    assert {"Bucket", "Region", "Endpoint"} <= names
    assert "Key" not in names


async def test_the_sdk_walks_its_rules_once_for_all_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
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
