"""Settings from environment variables: what both services read, how any setting is read, and how faults are told.

Owns: the shared variables, the value types, the one list of every variable's name, masking, the wording of faults.
Does not own: what a single service reads besides (`producer.settings`, `consumer.settings` subclass ServiceSettings).

Invariants: `load` is the only door. A field `some_name` is the variable SOME_NAME (its aliases, if it has any, are
variables too). Empty means unset. Contradictions between fields are looked at only once every field is right. No
fault, warning or effective value contains a secret: pydantic's own texts, which quote the whole input, are never used.
"""

from __future__ import annotations

import difflib
import re
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin
from urllib.parse import urlsplit, urlunsplit

from pydantic import AfterValidator, AliasChoices, Field, PrivateAttr, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from pydantic.fields import FieldInfo
    from pydantic_settings import PydanticBaseSettingsSource

# Every variable of both services (design §3), whoever reads it: the services share a shell, so neither may warn
# of the other's. A test holds it against both settings classes.
SHARED_VARIABLES = (
    "KAFKA_BOOTSTRAP_SERVERS",
    "KAFKA_TOPIC",
    "KAFKA_SECURITY_PROTOCOL",
    "KAFKA_SASL_MECHANISM",
    "KAFKA_SASL_USERNAME",
    "KAFKA_SASL_PASSWORD",
    "KAFKA_SSL_CAFILE",
    "KAFKA_SSL_CERTFILE",
    "KAFKA_SSL_KEYFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "LOG_LEVEL",
    "LOG_FORMAT",
    "HTTP_HOST",
    "HTTP_PORT",
    "SHUTDOWN_TIMEOUT_SECONDS",
)
PRODUCER_VARIABLES = (
    "API_URL",
    "API_KEY",
    "API_AUTH",
    "API_RECORDS_POINTER",
    "API_NEXT_POINTER",
    "API_ENDPOINTS",
    "API_TIMEOUT_SECONDS",
    "API_MAX_BODY_BYTES",
    "API_MAX_RECORDS",
    "API_RATE_LIMIT_PER_MINUTE",
    "PUBLISH_MAX_UNACKED_BYTES",
    "POLL_INTERVAL_SECONDS",
    "SELECT",
    "RECORD_KEY_POINTER",
)
CONSUMER_VARIABLES = (
    "KAFKA_GROUP_ID",
    "KAFKA_START_FROM",
    "KAFKA_ON_DATA_LOSS",
    "KAFKA_SESSION_TIMEOUT_SECONDS",
    "KAFKA_REBALANCE_TIMEOUT_SECONDS",
    "S3_BUCKET",
    "S3_PREFIX",
    "S3_KEY_TEMPLATE",
    "S3_ACL",
    "S3_STORAGE_CLASS",
    "S3_SSE",
    "S3_SSE_KMS_KEY_ID",
    "S3_EXPECTED_BUCKET_OWNER",
    "AWS_ENDPOINT_URL_S3",
    "BATCH_MAX_RECORDS",
    "BATCH_MAX_BYTES",
    "BATCH_MAX_SECONDS",
    "COMPRESSION",
    "COMPRESSION_LEVEL",
    "RECORD_FORMAT",
    "MEMORY_LIMIT_BYTES",
    "UPLOAD_CONCURRENCY",
    "UPLOAD_TIMEOUT_SECONDS",
)
VARIABLES = SHARED_VARIABLES + PRODUCER_VARIABLES + CONSUMER_VARIABLES

# A set variable that begins like this and is not in VARIABLES is probably a misspelling.
OUR_PREFIXES = (
    "KAFKA_",
    "API_",
    "PUBLISH_",
    "POLL_",
    "SELECT",
    "RECORD_",
    "S3_",
    "BATCH_",
    "COMPRESS",
    "MEMORY_",
    "UPLOAD_",
    "LOG_",
    "HTTP_",
    "SHUTDOWN_",
)
NOT_OURS = frozenset({"HTTP_PROXY"})  # begins like ours, means something else to everybody

MASK = "********"
_SHOWN_CHARACTERS = 200


class SettingsError(Exception):
    """The settings cannot be used. `faults`: one line each, naming variable, value (masked) and what is allowed."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


@dataclass(frozen=True, slots=True)
class Allowed:
    """Annotation: what a value may be, in words, for the fault line."""

    text: str


@dataclass(frozen=True, slots=True)
class Shown:
    """Annotation: how a value that may carry credentials is shown in faults and in the start-up line."""

    mask: Callable[[str], str]


def without_credentials(url: str) -> str:
    """The URL without user info, query and fragment; masked further when it cannot be taken apart for certain."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASK
    if not parts.scheme or not parts.netloc:
        return MASK
    if "@" in parts.path + parts.query + parts.fragment:
        # Perhaps a password with an unescaped / ? or #: what looks like the host is then the password's beginning.
        return f"{parts.scheme}://{MASK}"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _servers(text: str) -> str:
    """Validator: host:port, comma-separated; an address of IPv6 in brackets."""
    for server in text.split(","):
        match = re.fullmatch(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?", server.strip())
        if match is None or (match[1] and not 1 <= int(match[1]) <= 65535):  # noqa: PLR2004 -- the last TCP port
            raise ValueError
    return text


def _topic(text: str) -> str:
    """Validator: what Kafka takes as a topic's name."""
    if text in {".", ".."} or re.fullmatch(r"[A-Za-z0-9._-]{1,249}", text) is None:
        raise ValueError
    return text


Count = Annotated[int, Field(ge=1, le=10**15), Allowed("a whole number from 1 to 10^15")]
Bytes = Annotated[int, Field(ge=1, le=10**15), Allowed("a whole number from 1 to 10^15 (bytes)")]
Seconds = Annotated[
    float, Field(gt=0, le=31_536_000, allow_inf_nan=False), Allowed("a number of seconds above 0, at most 31536000")
]
Port = Annotated[int, Field(ge=0, le=65535), Allowed("a port from 0 to 65535, 0 = any free one")]
Text = Annotated[str, Field(min_length=1), Allowed("text")]
Servers = Annotated[str, AfterValidator(_servers), Allowed("host:port, more of them separated by commas")]
Topic = Annotated[
    str,
    AfterValidator(_topic),
    Allowed("a topic's name: letters, digits, '.', '_' and '-', at most 249"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsFile:
    """A file that a variable names, read. `faults`: a line each; `variables`: those that the file names in its turn."""

    path: str
    faults: tuple[str, ...] = ()
    variables: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return self.path


class KafkaSettings(BaseSettings):
    """How to reach Kafka. `aws_region` is here because signing for AWS_MSK_IAM needs it."""

    # Direct construction skips `contradictions`; nothing but `load` should do it outside tests.
    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, hide_input_in_errors=True, loc_by_alias=False
    )

    kafka_bootstrap_servers: Servers = "localhost:9092"
    kafka_topic: Topic = "task"
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "AWS_MSK_IAM"] | None = None
    kafka_sasl_username: Text | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_cafile: Text | None = None
    kafka_ssl_certfile: Text | None = None
    kafka_ssl_keyfile: Text | None = None
    aws_region: Text | None = Field(None, validation_alias=AliasChoices("AWS_REGION", "AWS_DEFAULT_REGION"))

    _warnings: tuple[str, ...] = PrivateAttr(())

    @property
    def warnings(self) -> tuple[str, ...]:
        """Odd but harmless: set variables that look like a misspelling of ours, one line each."""
        return self._warnings

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 -- the hook's signature, here and below
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` hands in: neither os.environ nor files behind its back."""
        return (init_settings,)

    @classmethod
    def files(cls, given: Mapping[str, str], environ: Mapping[str, str]) -> Mapping[str, SettingsFile]:  # noqa: ARG003
        """Fields whose value is what a file holds, not its path; `given`: the texts by field. Never raises."""
        return {}

    @classmethod
    def missing(cls, given: Mapping[str, str]) -> Iterator[str]:  # noqa: ARG003 -- for subclasses
        """Faults about fields that are required only where others are not set."""
        yield from ()

    def effective_besides(self) -> Mapping[str, object]:
        """What the start-up line shows besides the variables, secrets masked."""
        return {}

    def contradictions(self) -> Iterator[str]:
        """Faults between fields, each line naming the variables. Subclasses add theirs after super's."""
        yield from self._sasl_contradictions()
        yield from self._tls_contradictions()

    def _sasl_contradictions(self) -> Iterator[str]:
        protocol, mechanism = self.kafka_security_protocol, self.kafka_sasl_mechanism
        credentials = {
            "KAFKA_SASL_USERNAME": self.kafka_sasl_username is not None,
            "KAFKA_SASL_PASSWORD": self.kafka_sasl_password is not None,
        }
        if not protocol.startswith("SASL_"):
            for name, is_set in {"KAFKA_SASL_MECHANISM": mechanism is not None, **credentials}.items():
                if is_set:
                    yield (
                        f"{name}: set, but KAFKA_SECURITY_PROTOCOL is {protocol!r}; "
                        "allowed: with SASL_SSL or SASL_PLAINTEXT only"
                    )
        elif mechanism is None:
            yield (
                f"KAFKA_SASL_MECHANISM: not set, but KAFKA_SECURITY_PROTOCOL is {protocol!r}; "
                "allowed: one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, AWS_MSK_IAM"
            )
        elif mechanism == "AWS_MSK_IAM":
            yield from self._msk_contradictions(name for name, is_set in credentials.items() if is_set)
        else:
            for name, is_set in credentials.items():
                if not is_set:
                    yield f"{name}: not set, but KAFKA_SASL_MECHANISM is {mechanism!r}; allowed: text"

    def _msk_contradictions(self, needless: Iterable[str]) -> Iterator[str]:
        for name in needless:
            yield f"{name}: set, but AWS_MSK_IAM signs with the AWS credentials; allowed: unset"
        if self.kafka_security_protocol != "SASL_SSL":
            yield f"KAFKA_SECURITY_PROTOCOL: {self.kafka_security_protocol!r} with AWS_MSK_IAM; allowed: SASL_SSL"
        if self.aws_region is None:
            yield "AWS_REGION: not set, but AWS_MSK_IAM signs for a region; allowed: the cluster's region"

    def _tls_contradictions(self) -> Iterator[str]:
        files = {
            "KAFKA_SSL_CAFILE": self.kafka_ssl_cafile,
            "KAFKA_SSL_CERTFILE": self.kafka_ssl_certfile,
            "KAFKA_SSL_KEYFILE": self.kafka_ssl_keyfile,
        }
        protocol = self.kafka_security_protocol
        tls = protocol in {"SSL", "SASL_SSL"}
        for name, path in files.items():
            if path is None:
                continue
            if not tls:
                yield f"{name}: set, but KAFKA_SECURITY_PROTOCOL is {protocol!r}; allowed: with SSL or SASL_SSL only"
            elif reason := _unreadable(path):
                yield f"{name}: {cut(repr(path))} cannot be read ({reason}); allowed: a readable PEM file"
        pair = ("KAFKA_SSL_CERTFILE", "KAFKA_SSL_KEYFILE")
        for name, other in (pair, pair[::-1]):
            if files[name] is None and files[other] is not None:
                yield f"{name}: not set, but {other} is; allowed: both or neither"


class ServiceSettings(KafkaSettings):
    """What both services read."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "console", "json"] = "auto"
    http_host: Text = "0.0.0.0"  # noqa: S104 -- the side-port is meant to be asked by the orchestrator
    http_port: Port = 8080
    shutdown_timeout_seconds: Seconds = 25.0


S = TypeVar("S", bound=KafkaSettings)


def load(cls: type[S], environ: Mapping[str, str]) -> S:
    """Settings of `cls` from environment variables. Raises SettingsError with every fault found."""
    given = dict(_given(cls, environ))
    # Bytes that are not UTF-8 come as lone surrogates, over which pydantic stumbles without saying where.
    wrong = {name for name, value in given.items() if not is_unicode(value)}
    right = {name: value for name, value in given.items() if name not in wrong}
    files = cls.files(right, environ)
    known = {*VARIABLES, *(name for file in files.values() for name in file.variables)}
    unknown = tuple(_unknown(environ, known))
    faults = [*cls.missing(given), *(fault for file in files.values() for fault in file.faults)]
    try:
        settings = cls.model_validate({**right, **files})
    except ValidationError as error:
        wrong |= {str(fault["loc"][0]) for fault in error.errors(include_url=False, include_input=False)}
        # `from None`: the cause would print the input, secrets included.
        raise SettingsError((*_faults(cls, wrong, given), *faults, *unknown)) from None
    if wrong or faults:
        raise SettingsError((*_faults(cls, wrong, given), *faults, *unknown))  # a misspelt name may be what is missing
    if faults := list(settings.contradictions()):
        raise SettingsError((*faults, *unknown))
    settings._warnings = unknown  # noqa: SLF001 -- its only writer; the field stays out of the schema
    return settings


def effective(settings: KafkaSettings) -> dict[str, object]:
    """Every setting by the name of its variable, for the start-up line; secrets masked."""
    shown: dict[str, object] = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = MASK
        elif isinstance(value, str):
            value = _mask(field)(value)
        elif isinstance(value, SettingsFile):
            value = str(value)
        shown[variables_of(name, field)[0]] = value
    return {**shown, **settings.effective_besides()}


def variables_of(name: str, field: FieldInfo) -> tuple[str, ...]:
    """The variables that set a field; the first that is not empty counts."""
    if isinstance(field.validation_alias, AliasChoices):
        return tuple(str(choice) for choice in field.validation_alias.choices)
    return (name.upper(),)


def _given(cls: type[KafkaSettings], environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, field in cls.model_fields.items():
        value = next((text for variable in variables_of(name, field) if (text := environ.get(variable))), None)
        if value is not None:
            # Words are taken in any case (LOG_LEVEL=info) and kept in the spelling of the settings.
            spelling = {choice.casefold(): choice for choice in _choices(field.annotation)}
            yield name, spelling.get(value.casefold(), value)


def is_unicode(text: str) -> bool:
    """False for bytes that were not UTF-8 and came as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _faults(cls: type[KafkaSettings], wrong: Collection[str], given: Mapping[str, str]) -> Iterator[str]:
    """A line for each wrong field, in the order of the fields."""
    for name, field in cls.model_fields.items():
        if name in wrong:
            yield f"{variables_of(name, field)[0]}: {wrong_value(field, given.get(name))}"


def wrong_value(field: FieldInfo, value: str | None) -> str:
    """What is wrong with a field's text, masked, and what is allowed; None = not set."""
    problem = "not set" if value is None else f"{cut(repr(_mask(field)(value)))} is not allowed"
    return f"{problem}; allowed: {allowed(field)}"


def allowed(field: FieldInfo) -> str:
    """What a field's value may be, in words."""
    choices = _choices(field.annotation)
    return f"one of {', '.join(choices)}" if choices else _annotation(field, Allowed, Allowed("text")).text


def may_be_secret(field: FieldInfo) -> bool:
    """Whether a value of the field is not shown as it is."""
    return SecretStr in _flat(field.annotation) or any(isinstance(a, Shown) for a in _annotations(field))


def _unknown(environ: Mapping[str, str], known: Collection[str]) -> Iterator[str]:
    for name in sorted(environ):
        if environ[name] and name.startswith(OUR_PREFIXES) and name not in known and name not in NOT_OURS:
            near = difflib.get_close_matches(name, VARIABLES, n=1)
            yield f"{name}: no such setting, ignored" + (f"; did you mean {near[0]}?" if near else "")


def _mask(field: FieldInfo) -> Callable[[str], str]:
    if SecretStr in _flat(field.annotation):
        return lambda _: MASK
    return _annotation(field, Shown, Shown(lambda text: text)).mask


A = TypeVar("A", Allowed, Shown)


def _annotation(field: FieldInfo, kind: type[A], default: A) -> A:
    """The annotation of a field, be it on the field or inside `X | None`."""
    return next((a for a in _annotations(field) if isinstance(a, kind)), default)


def _annotations(field: FieldInfo) -> Iterator[Any]:
    yield from field.metadata
    yield from _flat(field.annotation)


def _choices(annotation: Any) -> tuple[str, ...]:  # noqa: ANN401 -- whatever may stand in an annotation
    literal = next((part for part in _flat(annotation) if get_origin(part) is Literal), None)
    return tuple(str(choice) for choice in get_args(literal))


def _flat(annotation: Any) -> Iterator[Any]:  # noqa: ANN401 -- whatever may stand in an annotation
    """The annotation, the members of its union and what Annotated adds to them."""
    yield annotation
    if get_origin(annotation) in {Union, types.UnionType}:
        for part in get_args(annotation):
            yield from _flat(part)
    elif metadata := getattr(annotation, "__metadata__", ()):
        yield from _flat(annotation.__origin__)
        yield from metadata


def _unreadable(path: str) -> str | None:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 -- a path as given
            file.read(1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        return getattr(error, "strerror", None) or str(error)
    return None


def cut(text: str) -> str:
    """The text, short enough for a line."""
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
