"""One real broker with a listener for each way of securing a connection, and the certificates for it.

Owns: the certificates (made anew each time, of authorities of its own), the broker's listeners and users, the settings
with which a service gets in through each of them, the count of connections. Does not own: the broker's life (its
fixture), what services do with it.

Users are the same for PLAIN and SCRAM but for OTHER, which SCRAM alone knows and tests may give another password.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trustme
from cryptography.hazmat.primitives import serialization

from demo.kafka_server import KafkaServer, runtime
from demo.ports import HOST, free_port
from tests.servers import Kafka

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

USER: Final = "ticklake"
PASSWORD: Final = "CANARY-correct horse;%s"  # with what other formats could stumble over
OTHER_USER: Final = "changing"
CONFIGS: Final = "kafka.admin.ConfigCommand"

# Listener → its protocol.
LISTENERS: Final[Mapping[str, str]] = {
    "SSL": "SSL",
    "MTLS": "SSL",
    "SASLPLAINTEXT": "SASL_PLAINTEXT",
    "SASLSSL": "SASL_SSL",
    "FRONTED": "SASL_PLAINTEXT",  # the broker names its front's port as its own: see `fronted`
    "EXPIRED": "SSL",
    "MISNAMED": "SSL",
}
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Files in PEM. A pair is for KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE; a store holds both, for the broker."""

    authority: Path
    other_authority: Path
    client: tuple[Path, Path]
    strange_client: tuple[Path, Path]  # of the other authority
    expired_client: tuple[Path, Path]
    stores: Mapping[str, Path]  # by listener

    @classmethod
    def make(cls, folder: Path) -> Certificates:
        """Write them all into the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        authority, other = trustme.CA(), trustme.CA()
        now = dt.datetime.now(dt.UTC)
        began, ended = now - dt.timedelta(days=9), now - dt.timedelta(days=2)
        issued = {
            "server": authority.issue_cert(HOST, "localhost"),
            "expired": authority.issue_cert(HOST, not_before=began, not_after=ended),
            "misnamed": authority.issue_cert("kafka.example.com", "192.0.2.7"),
        }
        for name, made in {"authority": authority, "other-authority": other}.items():
            made.cert_pem.write_to_path(str(folder / f"{name}.pem"))
        stores = {name: _store(certificate, folder / f"store-{name}.pem") for name, certificate in issued.items()}
        return cls(
            authority=folder / "authority.pem",
            other_authority=folder / "other-authority.pem",
            client=_pair(authority.issue_cert("client@example.com"), folder, "client"),
            strange_client=_pair(other.issue_cert("client@example.com"), folder, "strange-client"),
            expired_client=_pair(
                authority.issue_cert("client@example.com", not_before=began, not_after=ended), folder, "expired-client"
            ),
            stores={name: stores.get(name.lower(), stores["server"]) for name in LISTENERS},
        )


def _pair(certificate: trustme.LeafCert, folder: Path, name: str) -> tuple[Path, Path]:
    files = folder / f"{name}.pem", folder / f"{name}-key.pem"
    certificate.cert_chain_pems[0].write_to_path(str(files[0]))
    certificate.private_key_pem.write_to_path(str(files[1]))
    return files


def _store(certificate: trustme.LeafCert, file: Path) -> Path:
    """Key and certificate as Kafka reads them: the key in PKCS #8."""
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), password=None)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(pem + b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    return file


class SecuredKafka:
    """The broker. `plain` is its listener without security, for the tests' own clients."""

    def __init__(self, folder: Path) -> None:
        self.certificates = Certificates.make(folder / "certificates")
        self._ports = {name: free_port() for name in ("PLAINTEXT", "CONTROLLER", *LISTENERS)}
        self.front_port = free_port()
        users = [
            f"--add-scram={mechanism}=[name={user},password={PASSWORD}]"
            for mechanism in MECHANISMS
            if mechanism != "PLAIN"
            for user in (USER, OTHER_USER)
        ]
        self.server = KafkaServer(
            runtime(),
            folder / "kafka",
            port=self._ports["PLAINTEXT"],
            settings=self._broker_settings(),
            format_options=tuple(users),
        )
        self.plain = Kafka(self.server)

    def set_password(self, mechanism: str, password: str) -> None:
        """Of OTHER_USER, at once (2 s, blocking); connections that are already in stay."""
        change = ("--alter", "--entity-type", "users", "--entity-name", OTHER_USER)
        done = self.server.tool(CONFIGS, *change, "--add-config", f"{mechanism}=[password={password}]")
        assert done.returncode == 0, done.stdout + done.stderr

    def port(self, listener: str) -> int:
        return self._ports[listener]

    def environ(self, listener: str, mechanism: str = "", user: str = USER, password: str = PASSWORD) -> dict[str, str]:
        """The KAFKA_ settings with which a service gets in through the listener."""
        protocol = LISTENERS.get(listener, "PLAINTEXT")
        settings = {
            "KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{self._ports[listener]}",
            "KAFKA_SECURITY_PROTOCOL": protocol,
        }
        if protocol.startswith("SASL"):
            settings |= {
                "KAFKA_SASL_MECHANISM": mechanism,
                "KAFKA_SASL_USERNAME": user,
                "KAFKA_SASL_PASSWORD": password,
            }
        if protocol.endswith("SSL"):
            settings["KAFKA_SSL_CAFILE"] = str(self.certificates.authority)
        if listener == "MTLS":
            settings |= key_pair(self.certificates.client)
        return settings

    def _broker_settings(self) -> dict[str, str]:
        ports = self._ports
        everything = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **LISTENERS}
        named = {**ports, "FRONTED": self.front_port}
        settings = {
            "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in everything.items()),
            "listeners": ",".join(f"{name}://{HOST}:{ports[name]}" for name in everything),
            "advertised.listeners": ",".join(
                f"{name}://{HOST}:{named[name]}" for name in everything if name != "CONTROLLER"
            ),
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.quorum.voters": f"1@{HOST}:{ports['CONTROLLER']}",
        }
        for name, protocol in LISTENERS.items():
            prefix = f"listener.name.{name.lower()}."
            if protocol.endswith("SSL"):
                settings |= self._tls_settings(name, prefix)
            if protocol.startswith("SASL"):
                settings |= _sasl_settings(prefix)
        return settings

    def _tls_settings(self, name: str, prefix: str) -> dict[str, str]:
        return {
            f"{prefix}ssl.keystore.type": "PEM",
            f"{prefix}ssl.keystore.location": str(self.certificates.stores[name]),
            f"{prefix}ssl.truststore.type": "PEM",
            f"{prefix}ssl.truststore.location": str(self.certificates.authority),
            f"{prefix}ssl.client.auth": "required" if name == "MTLS" else "none",
        }


def _sasl_settings(prefix: str) -> dict[str, str]:
    module = "org.apache.kafka.common.security"
    return {
        f"{prefix}sasl.enabled.mechanisms": ",".join(MECHANISMS),
        f"{prefix}plain.sasl.jaas.config": (
            f'{module}.plain.PlainLoginModule required user_{USER}="{PASSWORD}" user_other="other";'
        ),
        f"{prefix}scram-sha-256.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
        f"{prefix}scram-sha-512.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
    }


def key_pair(files: tuple[Path, Path]) -> dict[str, str]:
    """The settings that name a client's certificate and key."""
    return {"KAFKA_SSL_CERTFILE": str(files[0]), "KAFKA_SSL_KEYFILE": str(files[1])}


@dataclass(slots=True)
class Front:
    """What came through a port that leads to another: when each connection was made."""

    port: int = 0
    made: list[float] = field(default_factory=list)
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    def since(self, moment: float) -> int:
        """How many connections were made since (time.monotonic)."""
        return sum(1 for at in self.made if at >= moment)

    def cut(self) -> None:
        """Break every connection there is."""
        for writer in list(self._open):
            writer.transport.abort()


@asynccontextmanager
async def front(to_port: int, port: int = 0) -> AsyncIterator[Front]:
    """A port (any free one, or the given) whose connections lead to `to_port`, counted."""
    through = Front()
    tasks: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        through._open.add(writer)
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # cut, by either side
        finally:
            through._open.discard(writer)
            writer.close()

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        through.made.append(time.monotonic())
        try:
            there_reader, there_writer = await asyncio.open_connection(HOST, to_port)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(carry(reader, there_writer), carry(there_reader, writer))

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(lead(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, HOST, port)
    through.port = server.sockets[0].getsockname()[1]
    try:
        yield through
    finally:
        server.close()
        through.cut()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
