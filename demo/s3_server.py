"""A local S3 server: MiniStack for demo and tests, versitygw as a second opinion for the tests.

Owns: bringing them, their processes, where they keep objects. Does not own: buckets (`buckets`, or any S3 client).

Objects are files one can look at. MiniStack: `data/000000000000/BUCKET/KEY`, and `KEY.meta.json` beside each with its
headers and metadata; any credentials are accepted. versitygw: `data/BUCKET/KEY`, metadata in the file's
extended attributes (in `sidecar/` where the file system has none); signatures and checksums are checked.
"""

from __future__ import annotations

import http.client
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from demo import environment, installation
from demo.ports import HOST, free_port
from demo.server_process import READY_SECONDS, Server, ServerProcess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REGION = "us-east-1"
ACCESS_KEY, SECRET_KEY = "ticklake-local", "ticklake-local-secret"
ANSWER_SECONDS = 5.0
VERSITYGW = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"


class S3Server(Server):
    """One server on the loopback address. `start` = `spawn` (main thread) + `wait_ready`; ports and data stay."""

    def __init__(self, name: str, folder: Path, *, port: int | None, environ: Mapping[str, str] | None) -> None:
        self._folder = folder
        self._environ = dict(environ if environ is not None else installation.SHELL)
        self.port = free_port(port)
        self.process = ServerProcess(name, folder / f"{name}.log")

    @property
    def endpoint_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def bucket_folder(self, bucket: str) -> Path:
        """Where the bucket's objects lie as files."""
        raise NotImplementedError

    def start(self, seconds: float = READY_SECONDS) -> None:
        self.spawn()
        self.wait_ready(seconds)

    def spawn(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        environ = environment.for_service(self._environ, self._settings())
        self.process.spawn(self._command(), environ, self._folder)

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        self.process.wait_ready(self._missing, seconds)

    @property
    def data(self) -> Path:
        return self._folder / "data"

    def _command(self) -> Sequence[str]:
        raise NotImplementedError

    def _settings(self) -> Mapping[str, str]:
        raise NotImplementedError

    def _missing(self) -> str | None:
        """Any HTTP answer will do: a refusal for want of a signature is an answer too."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
        except (OSError, http.client.HTTPException) as error:
            return f"no answer on {self.endpoint_url}: {error!r}"
        finally:
            connection.close()
        return None


class MiniStack(S3Server):
    """MiniStack, cut down to S3."""

    def __init__(
        self, python: Path, folder: Path, *, port: int | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        """`python` is the interpreter of the `s3` environment."""
        super().__init__("ministack", folder, port=port, environ=environ)
        self._python = python

    def bucket_folder(self, bucket: str) -> Path:
        return self.data / "000000000000" / bucket

    def _command(self) -> Sequence[str]:
        return [str(self._python), "-m", "ministack"]

    def _settings(self) -> Mapping[str, str]:
        return {
            "BIND_HOST": HOST,
            "GATEWAY_PORT": str(self.port),
            "SERVICES": "s3",
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(self.data),
            "MINISTACK_REGION": REGION,
            "TMPDIR": str(self._folder),  # it writes a file with its process id there
            "LOG_LEVEL": "WARNING",
        }


class VersityGateway(S3Server):
    """versitygw on a folder of plain files. Left to itself it closes the connection after each answer, as S3 does not:
    whoever measures clients sets `keep_alive`.
    """

    def __init__(
        self,
        binary: Path,
        folder: Path,
        *,
        port: int | None = None,
        environ: Mapping[str, str] | None = None,
        keep_alive: bool = False,
    ) -> None:
        super().__init__("versitygw", folder, port=port, environ=environ)
        self._binary = binary
        self._keep_alive = keep_alive

    def bucket_folder(self, bucket: str) -> Path:
        return self.data / bucket

    def _command(self) -> Sequence[str]:
        if _has_extended_attributes(self.data):
            return [str(self._binary), "posix", str(self.data)]
        sidecar = self._folder / "sidecar"
        sidecar.mkdir(exist_ok=True)
        return [str(self._binary), "posix", "--sidecar", str(sidecar), str(self.data)]

    def _settings(self) -> Mapping[str, str]:
        return {
            "ROOT_ACCESS_KEY": ACCESS_KEY,
            "ROOT_SECRET_KEY": SECRET_KEY,
            "VGW_PORT": f"{HOST}:{self.port}",
            "VGW_REGION": REGION,
            "VGW_KEEP_ALIVE": str(self._keep_alive).lower(),
        }


def _has_extended_attributes(folder: Path) -> bool:
    if sys.platform != "linux":
        return False
    try:
        os.setxattr(folder, "user.ticklake-probe", b"1")
        os.removexattr(folder, "user.ticklake-probe")
    except OSError:
        return False
    return True


def versitygw_binary() -> Path:
    """The versitygw of PATH, else the one built once by Go into `.local/bin` (160 CPU seconds, at low priority)."""
    found = shutil.which("versitygw", path=installation.SHELL.get("PATH"))
    if found is not None:
        return Path(found)
    binary = installation.STATE / "bin" / "versitygw"
    with installation.locked(binary):
        if not binary.exists():
            bin_ = f"GOBIN={binary.parent}"
            installation.run(["env", bin_, "nice", "-n", "19", "go", "install", VERSITYGW], "building versitygw")
    return binary
