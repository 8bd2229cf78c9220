"""The plan of an endpoint for a test, which names only what matters to it."""

from __future__ import annotations

from typing import Any

from producer.endpoint import build_endpoint, parse_auth, split_url
from producer.plan import Plan
from producer.pointer import parse_pointer
from producer.selection import Select


def plan(url: str = "http://h/x", **changes: Any) -> Plan:
    """Everything of an array at the root, keyed by /symbol, every two seconds."""
    members: dict[str, Any] = {
        "name": "api",
        "endpoint": build_endpoint(split_url(url), parse_auth("bearer"), None),
        "topic": "task",
        "records_pointer": parse_pointer(""),
        "next_pointer": None,
        "key_pointer": parse_pointer("/symbol"),
        "select": Select.ALL,
        "interval_seconds": 2.0,
        "timeout_seconds": 10.0,
        "rate_limit_per_minute": None,
        "max_body_bytes": 1000,
        "max_records": 100,
    }
    return Plan(**{**members, **changes})
