"""What docker-compose.yml, .env.example and the two Dockerfiles promise, read by a real Compose binary."""

from __future__ import annotations

import importlib.resources
import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from consumer.settings import Settings as ConsumerSettings
from producer.settings import Settings as ProducerSettings
from shared.settings import load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
OURS = {"producer", "consumer", "market-api"}
JOBS = {"topic", "bucket"}
SDK_KEYS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SHARED_CREDENTIALS_FILE"}
OF_COMPOSE = {"HOST_PORT_PRODUCER", "HOST_PORT_MARKET_API", "HOST_PORT_S3", "STOP_GRACE_PERIOD", "CONSUMER_MEMORY"}
MIB = 1024 * 1024


def services(tmp_path: Path, settings: Mapping[str, str] | None = None, *overrides: Path) -> dict[str, dict[str, Any]]:
    """The services as Compose sees them with `settings` in .env and nothing of this shell's environment."""
    files = [argument for file in (ROOT / "docker-compose.yml", *overrides) for argument in ("-f", file)]
    env_file = tmp_path / "env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in (settings or {}).items()))
    with importlib.resources.as_file(importlib.resources.files("compose") / "docker-compose") as binary:
        result = subprocess.run(
            [binary, "--env-file", env_file, *files, "config", "--format", "json"],
            env={"HOME": str(tmp_path), "PATH": "/nonexistent"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    found: dict[str, dict[str, Any]] = json.loads(result.stdout)["services"]
    return found


def environment(service: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = service["environment"]
    return found


def seconds(duration: str) -> float:
    """Compose's "1m5s" as a number."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([hms])", duration))


def names_of(settings: type[ServiceSettings]) -> set[str]:
    # The region's second name is folded into the first.
    return {name.upper() for name in settings.model_fields} - {"AWS_DEFAULT_REGION"}


def env_example() -> list[tuple[str, str]]:
    """The settings of .env.example in order; all of them are commented out."""
    text = (ROOT / ".env.example").read_text()
    assert all(line.startswith("#") for line in text.splitlines() if line)
    return re.findall(r"^#([A-Z0-9_]+)=(.*)$", text, re.MULTILINE)


def test_images_are_pinned_to_exact_tags(tmp_path: Path) -> None:
    pulled = {name: service["image"] for name, service in services(tmp_path).items() if "build" not in service}
    assert pulled == {
        "kafka": "apache/kafka:4.3.1",
        "topic": "apache/kafka:4.3.1",
        "s3": "versity/versitygw:v1.8.0",
    }
    for dockerfile in ("producer/Dockerfile", "consumer/Dockerfile"):
        bases = re.findall(r"^FROM (\S+:\S+)", (ROOT / dockerfile).read_text(), re.MULTILINE)
        assert set(bases) == {"python:3.13-slim"}
        assert "syntax=" not in (ROOT / dockerfile).read_text()


def test_any_number_of_consumers_fits_beside_each_other(tmp_path: Path) -> None:
    found = services(tmp_path)
    assert all("container_name" not in service for service in found.values())
    assert found["consumer"]["deploy"]["replicas"] == 2
    assert all("published" not in port for port in found["consumer"]["ports"])


def test_ports_are_open_on_this_machine_only(tmp_path: Path) -> None:
    ports = [port for service in services(tmp_path).values() for port in service.get("ports", [])]
    assert ports
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_services_run_without_rights(tmp_path: Path, name: str) -> None:
    service = services(tmp_path)[name]
    assert service["read_only"] is True
    assert service["init"] is True
    assert [mount.split(":")[0] for mount in service["tmpfs"]] == ["/tmp"]
    dockerfile = (ROOT / service["build"]["dockerfile"]).read_text()
    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE) == ["10001:10001"]


def test_every_container_is_bounded(tmp_path: Path) -> None:
    for name, service in services(tmp_path).items():
        limits = service["deploy"]["resources"]["limits"]
        assert limits.keys() >= {"cpus", "memory", "pids"}, name
        assert float(limits["cpus"]) <= 1, f"{name}: does not start on a machine with one processor"
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name


def test_the_consumer_has_room_for_its_buffers(tmp_path: Path) -> None:
    limit = int(services(tmp_path)["consumer"]["deploy"]["resources"]["limits"]["memory"])
    assert ConsumerSettings.model_fields["memory_limit_bytes"].default + 200 * MIB < limit


@pytest.mark.parametrize(("name", "settings"), [("producer", ProducerSettings), ("consumer", ConsumerSettings)])
def test_a_stop_leaves_more_time_than_the_service_takes(
    tmp_path: Path, name: str, settings: type[ServiceSettings]
) -> None:
    grace = seconds(services(tmp_path)[name]["stop_grace_period"])
    assert grace >= settings.model_fields["shutdown_timeout_seconds"].default + 5


def test_what_flushes_stops_before_what_it_flushes_to(tmp_path: Path) -> None:
    found = services(tmp_path)
    assert found["producer"]["depends_on"].keys() >= {"kafka"}
    assert found["consumer"]["depends_on"].keys() >= {"kafka", "s3"}


def test_no_service_waits_for_a_server_to_be_healthy(tmp_path: Path) -> None:
    found = services(tmp_path)
    for name in OURS:
        waits = found[name].get("depends_on", {})
        assert {other for other, how in waits.items() if how["condition"] == "service_healthy"} == set(), name
        assert {o for o, how in waits.items() if how["condition"] == "service_completed_successfully"} <= JOBS, name


def test_health_checks_are_patient_and_need_no_extra_program(tmp_path: Path) -> None:
    found = services(tmp_path)
    for name in ("kafka", "s3"):
        assert seconds(found[name]["healthcheck"]["timeout"]) >= 10
    assert ".sh" not in str(found["kafka"]["healthcheck"]["test"]), "each kafka-*.sh starts a JVM"
    for dockerfile in ("producer/Dockerfile", "consumer/Dockerfile"):
        text = (ROOT / dockerfile).read_text()
        probes = re.findall(r"^HEALTHCHECK (.*?)\\\n +CMD (\[.*\])$", text, re.MULTILINE)
        assert len(probes) == len(re.findall(r"^HEALTHCHECK", text, re.MULTILINE)) > 0
        for options, command in probes:
            assert "--timeout=10s" in options
            program, *flags, code = json.loads(command)
            assert (program, flags) == ("python", ["-I", "-S", "-c"])
            compile(code, "probe", "exec")


@pytest.mark.parametrize(("name", "settings"), [("producer", ProducerSettings), ("consumer", ConsumerSettings)])
def test_compose_passes_every_setting_and_no_other(tmp_path: Path, name: str, settings: type[ServiceSettings]) -> None:
    assert environment(services(tmp_path)[name]).keys() - SDK_KEYS == names_of(settings)


@pytest.mark.parametrize("name", ["producer", "consumer"])
def test_every_setting_of_the_env_file_arrives(tmp_path: Path, name: str) -> None:
    # A port is a number; the path of the demo's credentials is not the file's to set.
    kept = {"HTTP_PORT": "9999", "AWS_SHARED_CREDENTIALS_FILE": "/etc/ticklake/unused/aws-credentials"}
    passed = environment(services(tmp_path)[name])
    wanted = {variable: kept.get(variable, f"set-{variable}") for variable in passed}
    assert environment(services(tmp_path, wanted)[name]) == wanted


def test_a_setting_set_to_nothing_is_unset_in_the_service(tmp_path: Path) -> None:
    demo = {
        "API_URL",  # all three have to go for API_ENDPOINTS
        "API_KEY",
        "API_RECORDS_POINTER",
        "RECORD_KEY_POINTER",
        "SELECT",
        "BATCH_MAX_SECONDS",
        "AWS_ENDPOINT_URL_S3",
    }
    found = services(tmp_path, dict.fromkeys(demo, ""))
    passed = environment(found["consumer"]) | environment(found["producer"])
    assert {name: passed[name] for name in demo} == dict.fromkeys(demo, "")


def test_the_override_of_the_documentation_leads_to_several_endpoints(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "endpoints.md").read_text()
    blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```", document, re.DOTALL | re.MULTILINE))
    (tmp_path / "override.yml").write_text(blocks["yaml"])
    (tmp_path / "endpoints.toml").write_text(blocks["toml"])
    producer = services(tmp_path, {"MASSIVE_API_KEY": "k"}, tmp_path / "override.yml")["producer"]
    (mount,) = producer["volumes"]
    assert mount["target"] == environment(producer)["API_ENDPOINTS"]
    assert mount["read_only"] is True
    environ = {**environment(producer), "API_ENDPOINTS": str(tmp_path / "endpoints.toml")}
    endpoints = load(ProducerSettings, environ).endpoints
    assert [endpoint.name for endpoint in endpoints] == ["snapshot", "dividends", "rates"]
    assert ["k" in endpoint.endpoint.secrets for endpoint in endpoints] == [True, True, False]


def test_keys_of_the_shell_are_not_offered_to_the_local_server(tmp_path: Path) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "hush", "AWS_SESSION_TOKEN": "token"}
    local = environment(services(tmp_path, keys)["consumer"])
    assert {local[name] for name in keys} == {""}
    assert local["AWS_SHARED_CREDENTIALS_FILE"] == "/etc/ticklake/aws-credentials"
    aws = environment(services(tmp_path, keys | {"AWS_ENDPOINT_URL_S3": ""})["consumer"])
    assert {name: aws[name] for name in keys} == keys
    assert aws["AWS_SHARED_CREDENTIALS_FILE"] != "/etc/ticklake/aws-credentials"


def test_the_mounted_key_is_the_local_servers(tmp_path: Path) -> None:
    server = environment(services(tmp_path)["s3"])
    text = (ROOT / "demo/aws-credentials").read_text()
    assert f"aws_access_key_id = {server['ROOT_ACCESS_KEY']}\n" in text
    assert f"aws_secret_access_key = {server['ROOT_SECRET_KEY']}\n" in text


def test_the_jobs_never_touch_a_foreign_server(tmp_path: Path) -> None:
    foreign = {"KAFKA_BOOTSTRAP_SERVERS": "foreign:9092", "AWS_ENDPOINT_URL_S3": "http://foreign"}
    found = services(tmp_path, foreign | {"AWS_ACCESS_KEY_ID": "foreign"})
    for name in JOBS:
        assert "foreign" not in json.dumps(found[name]), name


def test_env_example_names_every_setting_and_what_is_composes_own() -> None:
    named = {name for name, _ in env_example()}
    assert named == names_of(ProducerSettings) | names_of(ConsumerSettings) | OF_COMPOSE


def test_env_example_is_understood_line_by_line(tmp_path: Path) -> None:
    found = services(tmp_path, dict(reversed(env_example())))
    assert environment(found["consumer"])["S3_KEY_TEMPLATE"] == ConsumerSettings.model_fields["s3_key_template"].default


def test_nothing_reaches_a_build_unless_it_is_named() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    assert all(re.fullmatch(r"!(requirements/(producer|consumer)\.txt|\w+/\*\*/\*\.py)", line) for line in lines[1:])
