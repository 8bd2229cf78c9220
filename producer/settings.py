"""The producer's settings.

Owns: the variables only the producer reads, and which of them contradict each other. Does not own: how a setting is
read and how a fault is told (`shared.settings`), what the values mean (`endpoint`, `pointer`, `selection`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, SecretStr

from producer.endpoint import AUTH_ALLOWED, build_endpoint, check_key, contradiction, parse_auth, split_url
from producer.pointer import Pointer, parse_pointer
from producer.selection import Select
from shared.settings import MASK, Allowed, Bytes, Count, Seconds, ServiceSettings, Shown, without_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator

    from producer.endpoint import Endpoint

NO_KEYS = "none"


def _url(text: str) -> str:
    split_url(text)
    return text


def _auth(text: str) -> str:
    way, colon, name = text.partition(":")
    lowered = way.lower() + colon + name
    parse_auth(lowered)
    return lowered


def _pointer(text: str) -> str:
    parse_pointer(text)
    return text


def _key_pointer(text: str) -> str:
    return NO_KEYS if text.lower() == NO_KEYS else _pointer(text)


def _select(text: str) -> str:
    return Select(text.lower()).value


def _unavailable(text: str | None) -> None:
    if text is not None:
        raise ValueError


_POINTER_ALLOWED = "a JSON pointer, for example /tickers or /results/0 ('~' is written ~0, '/' inside a name ~1)"


class Settings(ServiceSettings):
    """What `python -m producer` runs on. A setting of design §3 that this version lacks is refused, not ignored."""

    api_url: Annotated[
        str,
        AfterValidator(_url),
        Field(repr=False),
        Shown(without_credentials),
        Allowed("http://HOST[:PORT]/PATH[?QUERY] or https://…, spaces and the like percent-encoded"),
    ]
    api_key: SecretStr | None = None
    api_auth: Annotated[str, AfterValidator(_auth), Allowed(AUTH_ALLOWED)] = "bearer"
    api_records_pointer: Annotated[
        str, AfterValidator(_pointer), Allowed(f"unset for the root, or {_POINTER_ALLOWED}")
    ] = ""
    api_timeout_seconds: Seconds = 10.0
    api_max_body_bytes: Bytes = 67_108_864
    api_max_records: Count = 100_000
    api_rate_limit_per_minute: Annotated[
        str | None, AfterValidator(_unavailable), Allowed("unset, the rate limit is not available in this version")
    ] = None
    publish_max_unacked_bytes: Bytes = 67_108_864
    poll_interval_seconds: Seconds = 2.0
    select: Annotated[
        str, AfterValidator(_select), Allowed("random, all; changed is not available in this version")
    ] = Select.RANDOM.value
    record_key_pointer: Annotated[
        str, AfterValidator(_key_pointer), Allowed(f"none for no keys, or {_POINTER_ALLOWED}")
    ] = "/symbol"

    def contradictions(self) -> Iterator[str]:
        """Faults between fields, one line each."""
        yield from super().contradictions()
        auth = parse_auth(self.api_auth)
        if (reason := contradiction(split_url(self.api_url), auth, self._key)) is not None:
            yield reason
        elif self._key is not None:
            try:
                check_key(self._key, auth)
            except ValueError as error:
                yield f"API_KEY: '{MASK}' is not allowed with API_AUTH={self.api_auth!r}; allowed: {error}"

    @property
    def endpoint(self) -> Endpoint:
        """The request of `API_URL`, `API_AUTH` and `API_KEY`."""
        return build_endpoint(split_url(self.api_url), parse_auth(self.api_auth), self._key)

    @property
    def records_pointer(self) -> Pointer:
        """Where in a body the records are."""
        return parse_pointer(self.api_records_pointer)

    @property
    def key_pointer(self) -> Pointer | None:
        """Where in a record its key is; None = no keys."""
        return None if self.record_key_pointer == NO_KEYS else parse_pointer(self.record_key_pointer)

    @property
    def select_mode(self) -> Select:
        """`SELECT` as a value."""
        return Select(self.select)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Everything that must not be read in any output."""
        password = self.kafka_sasl_password
        return (*self.endpoint.secrets, *(() if password is None else (password.get_secret_value(),)))

    @property
    def _key(self) -> str | None:
        return None if self.api_key is None else self.api_key.get_secret_value()
