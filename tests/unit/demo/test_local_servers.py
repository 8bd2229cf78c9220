"""The room that the demo's own S3 server needs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from demo import local_servers, options
from demo.local_servers import Installed, LocalServers

if TYPE_CHECKING:
    import pytest

PYTHON = Path(sys.executable)


def servers(folder: Path, **variables: str) -> LocalServers:
    chosen = options.read({"DEMO_KAFKA": "127.0.0.1:9", "DEMO_STATE": str(folder), **variables})
    own_s3 = None if chosen.s3 else PYTHON
    return LocalServers(chosen, Installed(producer=PYTHON, consumer=PYTHON, kafka=None, s3=own_s3))


def test_a_disk_that_is_nearly_full_is_told_for_an_s3_server_of_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s3" / "data").mkdir(parents=True)
    assert servers(tmp_path).short_of_disk() is None
    monkeypatch.setattr(local_servers, "LEAST_FREE_BYTES", 1 << 60)
    assert f"MiB are free on the disk of {tmp_path}/s3/data" in str(servers(tmp_path).short_of_disk())
    theirs = {"DEMO_S3": "http://127.0.0.1:9", "DEMO_S3_ACCESS_KEY": "a", "DEMO_S3_SECRET_KEY": "b"}
    assert servers(tmp_path, **theirs).short_of_disk() is None
