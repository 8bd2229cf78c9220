"""A real Apache Kafka broker on this machine: one KRaft node on the loopback address, for the demo and the tests.

Owns: bringing the jars and the Java runtime, the broker's settings, its data folder, its ports. Does not own: topics
(clients make them). Invariants: ports and data stay the same over stop, kill and start, so that clients see one
broker that was away.
"""

from __future__ import annotations

import base64
import json
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demo import environment, installation, kafka_jars, kafka_protocol
from demo.ports import HOST, free_port
from demo.server_process import READY_SECONDS, Server, ServerError, ServerProcess

if TYPE_CHECKING:
    from collections.abc import Mapping


FORMAT_SECONDS = 60.0
# Small and quick to start; a benchmark leaves the second compiler on and gives 1 GB.
JVM_OPTIONS = ("-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
# What kafka-consumer-groups.sh of a Kafka installation runs.
TOPICS = "org.apache.kafka.tools.TopicCommand"
CONSUMER_GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
TOOL_SECONDS = 120.0
SETTINGS: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": str(len(kafka_protocol.PROBE_GROUPS)),
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",  # tests let members die quickly
    "log.cleaner.dedupe.buffer.size": "4194304",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaRuntime:
    """The Java runtime and the broker's jars."""

    java: Path
    jars: Path

    def command(self, main_class: str, *arguments: str, options: tuple[str, ...] = JVM_OPTIONS) -> list[str]:
        logger = "-Dorg.slf4j.simpleLogger."
        format_ = (f"{logger}showDateTime=true", f"{logger}dateTimeFormat=HH:mm:ss.SSS")
        return [str(self.java), *options, *format_, "-cp", f"{self.jars}/*", main_class, *arguments]


def runtime(state: Path = installation.STATE) -> KafkaRuntime:
    """Kafka and Java as they lie under `state`, brought there first when they do not (20 s). Needs no network later."""
    folder = state / kafka_jars.folder_name()
    with installation.locked(folder):
        if not _is_whole(folder):
            python = installation.ensure("kafka")
            installation.run([str(python), str(kafka_jars.__file__), str(folder)], "bringing Apache Kafka by jgo")
        java = json.loads((folder / "runtime.json").read_text())["java"]
    return KafkaRuntime(java=Path(java), jars=folder / "jars")


def _is_whole(folder: Path) -> bool:
    try:
        known = json.loads((folder / "runtime.json").read_text())
    except FileNotFoundError:
        return False
    wanted = [known["java"], *(folder / "jars" / name for name in known["jars"])]
    return all(folder.joinpath(path).exists() for path in wanted)


class KafkaServer(Server):
    """One broker. `start` = `prepare` (slow, any thread) + `spawn` (main thread) + `wait_ready`."""

    def __init__(
        self,
        kafka: KafkaRuntime,
        folder: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        jvm_options: tuple[str, ...] = JVM_OPTIONS,
        environ: Mapping[str, str] | None = None,
        format_options: tuple[str, ...] = (),
    ) -> None:
        """State lies under `folder`; `port` is preferred, not promised; `settings` are added to ours.

        `format_options` are the storage tool's, for a new data folder: users that are there from the start.
        """
        self._kafka = kafka
        self._folder = folder
        self._extra = dict(settings or {})
        self._jvm_options = jvm_options
        self._format_options = format_options
        self._environ = dict(environ if environ is not None else installation.SHELL)
        self.port = free_port(port)
        self._controller_port = free_port()
        self.process = ServerProcess("kafka", folder / "kafka.log")

    @property
    def bootstrap_servers(self) -> str:
        return f"{HOST}:{self.port}"

    def start(self, seconds: float = READY_SECONDS) -> None:
        """Start, or start again on the same data and ports; back when clients and groups are served."""
        self.prepare()
        self.spawn()
        self.wait_ready(seconds)

    def prepare(self) -> None:
        """Write the settings and format the data folder when it is new (1 s)."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in self._settings().items()))
        if (self._data / "meta.properties").exists():
            return
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        # The equals sign keeps an id that begins with a dash from being read as an option.
        arguments = ("format", f"--cluster-id={cluster_id}", f"--config={self._properties}", "--ignore-formatted")
        command = self._kafka.command("kafka.tools.StorageTool", *arguments, *self._format_options)
        done = subprocess.run(
            command, env=self._service_environ(), capture_output=True, text=True, timeout=FORMAT_SECONDS, check=False
        )
        if done.returncode:
            message = f"formatting {self._data} for Kafka failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            raise ServerError(message)

    def spawn(self) -> None:
        command = self._kafka.command("kafka.Kafka", str(self._properties), options=self._jvm_options)
        self.process.spawn(command, self._service_environ(), self._folder)

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        self.process.wait_ready(lambda: kafka_protocol.missing(HOST, self.port), seconds)

    def tool(self, main_class: str, *arguments: str, seconds: float = TOOL_SECONDS) -> subprocess.CompletedProcess[str]:
        """Run one of Kafka's own tools on this broker (1 s, blocking, any thread): exit code, stdout, stderr.

        Of its log only warnings are kept, on stderr. Raises subprocess.TimeoutExpired when it takes longer.
        """
        options = (*JVM_OPTIONS, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
        server = ("--bootstrap-server", self.bootstrap_servers)
        command = self._kafka.command(main_class, *server, *arguments, options=options)
        return subprocess.run(
            command, env=self._service_environ(), capture_output=True, text=True, timeout=seconds, check=False
        )

    @property
    def _properties(self) -> Path:
        return self._folder / "server.properties"

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _service_environ(self) -> dict[str, str]:
        return environment.for_service(self._environ, {})

    def _settings(self) -> dict[str, str]:
        ports = {
            "listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port}",
            "controller.quorum.voters": f"1@{HOST}:{self._controller_port}",
            "log.dirs": str(self._data),
        }
        return {**SETTINGS, **ports, **self._extra}
