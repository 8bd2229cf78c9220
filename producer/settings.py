"""The producer's settings.

Owns: the variables only the producer reads, and which of them contradict each other; that the variables of one API are
the short form of one endpoint, and those of the whole the values of members that a file does not give. Does not own:
how a setting is read and how a fault is told (`shared.settings`), what a member may be (`endpoint_settings`), the file
(`endpoints_file`).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field, SecretStr

from producer.endpoint_settings import (
    URL_ALLOWED,
    AuthWay,
    KeyPointer,
    NextPointer,
    RateLimit,
    RecordsPointer,
    SelectWord,
    Url,
    contradiction,
    parse_endpoint,
)
from producer.endpoints_file import EndpointsFile, read_endpoints_file
from producer.selection import Select
from shared.settings import Bytes, Count, Seconds, ServiceSettings, without_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from producer.endpoint_settings import EndpointTable
    from producer.plan import Plan
    from shared.settings import SettingsFile

SHORT_FORM_NAME: Final = "api"
# Member of a table → field: those of one API, refused beside a file; those whose value holds where a table gives none.
_OF_ONE_API: Final = {
    "url": "api_url",
    "auth": "api_auth",
    "key_variable": "api_key",
    "records_pointer": "api_records_pointer",
    "next_pointer": "api_next_pointer",
    "rate_limit_per_minute": "api_rate_limit_per_minute",
}
_GENERAL: Final = {
    "key_pointer": "record_key_pointer",
    "interval_seconds": "poll_interval_seconds",
    "timeout_seconds": "api_timeout_seconds",
    "max_body_bytes": "api_max_body_bytes",
    "max_records": "api_max_records",
    "select": "select",
    "topic": "kafka_topic",
}


class Settings(ServiceSettings):
    """What `python -m producer` runs on. Frozen; made by `shared.settings.load` only."""

    api_url: Annotated[Url | None, Field(repr=False)] = None
    api_key: SecretStr | None = None
    api_auth: AuthWay = "bearer"
    api_records_pointer: RecordsPointer = ""
    api_next_pointer: NextPointer | None = None
    api_rate_limit_per_minute: RateLimit | None = None
    api_endpoints: EndpointsFile | None = None
    api_timeout_seconds: Seconds = 10.0
    api_max_body_bytes: Bytes = 67_108_864
    api_max_records: Count = 100_000
    publish_max_unacked_bytes: Bytes = 67_108_864
    poll_interval_seconds: Seconds = 2.0
    select: SelectWord = Select.RANDOM.value
    record_key_pointer: KeyPointer = "/symbol"

    @classmethod
    def files(cls, given: Mapping[str, str], environ: Mapping[str, str]) -> Mapping[str, SettingsFile]:
        """The file of `API_ENDPOINTS`, read with the keys that it names."""
        path = given.get("api_endpoints")
        return {} if path is None else {"api_endpoints": read_endpoints_file(path, environ)}

    @classmethod
    def missing(cls, given: Mapping[str, str]) -> Iterator[str]:
        """One of the two forms is needed."""
        if "api_url" not in given and "api_endpoints" not in given:
            yield f"API_URL: not set; allowed: {URL_ALLOWED}; for several APIs set API_ENDPOINTS, a file, instead"

    def contradictions(self) -> Iterator[str]:
        """Faults between fields, one line each."""
        yield from super().contradictions()
        if self.api_endpoints is None:
            called = {member: field.upper() for member, field in _OF_ONE_API.items()}
            if (found := contradiction(self.api_url or "", self.api_auth, _text(self.api_key), called)) is not None:
                yield f"{called[found[0]]}: {found[1]}"
            return
        for member, field in _OF_ONE_API.items():
            if field in self.model_fields_set:
                yield (
                    f"{field.upper()}: set, but API_ENDPOINTS is too; "
                    f"allowed: one of them, in the file the member {member} stands for it"
                )
        for keyed in self.api_endpoints.tables:
            called = {member: member for member in _OF_ONE_API}
            if (found := contradiction(keyed.table.url, keyed.table.auth, _text(keyed.key), called)) is not None:
                yield f"{self.api_endpoints.place(keyed.table.name)}: {found[0]}: {found[1]}"

    @cached_property
    def endpoints(self) -> tuple[Plan, ...]:
        """Every endpoint to be polled: those of the file, else the one of the variables."""
        if self.api_endpoints is None:
            called = {member: field.upper() for member, field in {**_OF_ONE_API, **_GENERAL}.items()}
            members = {**self._values(_OF_ONE_API), **self._values(_GENERAL)}
            return (parse_endpoint(SHORT_FORM_NAME, members, _text(self.api_key), called),)
        return tuple(
            parse_endpoint(keyed.table.name, self._members(keyed.table), _text(keyed.key), self._called(keyed.table))
            for keyed in self.api_endpoints.tables
        )

    @property
    def topics(self) -> tuple[str, ...]:
        """Every topic that is published to, once."""
        return tuple(dict.fromkeys(endpoint.topic for endpoint in self.endpoints))

    @property
    def secrets(self) -> tuple[str, ...]:
        """Everything that must not be read in any output."""
        password = _text(self.kafka_sasl_password)
        of_endpoints = (secret for endpoint in self.endpoints for secret in endpoint.endpoint.secrets)
        return tuple(dict.fromkeys((*of_endpoints, *(() if password is None else (password,)))))

    def effective_besides(self) -> Mapping[str, object]:
        """The endpoints of the file for the start-up line, with the values of members that it does not give."""
        if self.api_endpoints is None:
            return {}
        tables = [keyed.table for keyed in self.api_endpoints.tables]
        return {"endpoints": [{**self._members(table), "url": without_credentials(table.url)} for table in tables]}

    def _members(self, table: EndpointTable) -> dict[str, Any]:
        return {**table.model_dump(), **self._values(_GENERAL), **table.model_dump(exclude_unset=True)}

    def _called(self, table: EndpointTable) -> dict[str, str]:
        own = {member: f"{member} of endpoint {table.name!r}" for member in (*_OF_ONE_API, *table.model_fields_set)}
        return {**{member: field.upper() for member, field in _GENERAL.items()}, **own}

    def _values(self, fields: Mapping[str, str]) -> dict[str, Any]:
        return {member: getattr(self, field) for member, field in fields.items()}


def _text(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
