"""What a start imports: each command its own modules and libraries, the containers' health probe next to nothing.

Each test starts interpreters of its own, since this one has imported everything already.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from bootstrap import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OURS = {"bench", "bootstrap", "consumer", "demo", "producer", "shared", "tests"}
S3_LIBRARIES = {"aioboto3", "aiobotocore", "boto3", "botocore", "s3transfer"}
HEALTH_CHECKS = [
    (dockerfile, number, command)
    for dockerfile in ("consumer/Dockerfile", "producer/Dockerfile")
    for number, command in enumerate(
        re.findall(r"^HEALTHCHECK .*?\\\n +CMD (\[.*\])$", (ROOT / dockerfile).read_text(), re.MULTILINE)
    )
]


def imported(code: str) -> set[str]:
    """The modules that an interpreter holds which has run the code."""
    report = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    command = [sys.executable, "-c", report]
    return set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())


def packages(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def test_the_consumer_starts_without_what_its_other_commands_need() -> None:
    # aiobotocore imports httpx where it is installed, which it is not in the consumer's image.
    modules = imported("import sys; sys.modules['httpx'] = None\nimport consumer.__main__, consumer.service")
    assert "consumer.worker" in modules
    assert packages(modules) & OURS == {"consumer", "shared"}
    wanted_by_commands = {"check", "verify", "auditor", "audit", "deep_audit", "inspector", "log_reader", "findings"}
    assert modules & {f"consumer.{name}" for name in wanted_by_commands} == set()


def test_the_producer_starts_without_the_aws_sdk_and_the_consumers_gzip() -> None:
    modules = imported("import producer.__main__")
    assert "producer.service" in modules
    assert packages(modules) & OURS == {"producer", "shared"}
    assert packages(modules) & (S3_LIBRARIES | {"aws_msk_iam_sasl_signer", "isal"}) == set()


@asynccontextmanager
async def answering(status: int) -> AsyncIterator[int]:
    """The port of a server that answers /healthz so, on the library that serves it in the containers."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(status=status)

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def probed(command: str, port: int, *flags: str) -> tuple[int | None, str]:
    """Exit code and stderr of a health check's very command, in the folder of our packages."""
    program, *arguments, code = json.loads(command)
    assert program == "python"
    probe = await asyncio.create_subprocess_exec(
        sys.executable,
        *flags,
        *arguments,
        code.replace("8000", str(port)),  # the sample API's, which has no setting for it
        cwd=ROOT,
        env={"HTTP_PORT": str(port), "PYTHONPATH": str(ROOT)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await probe.communicate()
    return probe.returncode, said.decode()


@pytest.mark.parametrize(
    ("dockerfile", "number", "command"), HEALTH_CHECKS, ids=[f"{name}-{number}" for name, number, _ in HEALTH_CHECKS]
)
async def test_a_containers_health_probe_tells_health_and_imports_nothing_of_ours_nor_of_any_package(
    dockerfile: str, number: int, command: str
) -> None:
    async with answering(200) as port:
        code, said = await probed(command, port, "-X", "importtime")
    modules = set(re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", said, re.MULTILINE))
    assert code == 0, said
    assert "socket" in modules
    assert packages(modules) <= sys.stdlib_module_names | {"encodings", "zipimport"}
    assert len(modules) < 80
    async with answering(503) as port:
        assert (await probed(command, port))[0] == 1
    assert (await probed(command, port))[0] == 1  # nobody listens any more
