"""How to connect to Kafka: keyword arguments for any aiokafka client, from the settings.

Owns: TLS contexts, SASL, the signing of AWS MSK IAM tokens, what is said of brokers that cannot be used. Does not own:
any client, or its time-outs; why an attempt failed (`kafka_connection`).
Invariant: whatever is wrong with the TLS files is a SettingsError that names the variable.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import ClusterAuthorizationFailedError, KafkaConnectionError, KafkaError

from shared import kafka_connection, kafka_transport
from shared.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from shared.settings import KafkaSettings

TOKEN_TIMEOUT_SECONDS: Final = 15.0
CONNECTION_VARIABLES: Final = "KAFKA_BOOTSTRAP_SERVERS, KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_* and KAFKA_SSL_*"


def connection_options(settings: KafkaSettings) -> dict[str, object]:
    """bootstrap_servers, security_protocol, ssl_context and sasl_* for AIOKafkaConsumer, -Producer and -AdminClient.

    Raises SettingsError when a certificate cannot be used. Whoever asks is about to make a client: on uvloop those need
    `kafka_transport`, and on all loops `kafka_connection` keeps them from knocking too often.
    """
    kafka_transport.mend()
    kafka_connection.watch()
    options: dict[str, object] = {
        "bootstrap_servers": [server.strip() for server in settings.kafka_bootstrap_servers.split(",")],
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol in {"SSL", "SASL_SSL"}:
        options["ssl_context"] = _ssl_context(settings)
    if settings.kafka_sasl_mechanism == "AWS_MSK_IAM":
        # MSK's IAM is OAUTHBEARER on the wire.
        options["sasl_mechanism"] = "OAUTHBEARER"
        options["sasl_oauth_token_provider"] = MskTokenProvider(_msk_signer(settings.aws_region or ""))
    elif settings.kafka_sasl_mechanism is not None:
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options["sasl_plain_username"] = settings.kafka_sasl_username
        password = settings.kafka_sasl_password
        options["sasl_plain_password"] = None if password is None else password.get_secret_value()
    return options


def unreachable(options: Mapping[str, object], error: Exception) -> str:
    """For people: which brokers cannot be used, why, and what to check. `options` as of `connection_options`.

    aiokafka's errors hide the cause: it is what the last attempts with these options ran into.
    """
    servers = ",".join(cast("Sequence[str]", options["bootstrap_servers"]))
    trouble = connection_trouble(options)
    if isinstance(error, TimeoutError):
        why = "no answer in time" + (f"; {trouble}" if trouble else "")
    elif isinstance(error, KafkaConnectionError) and trouble:
        return f"{servers} cannot be used: {trouble.removeprefix(f'{servers}: ')}"
    elif isinstance(error, KafkaConnectionError):
        # Its own text is a list of address tuples.
        why = f"none accepts the connection as {options.get('security_protocol', 'PLAINTEXT')}"
    elif isinstance(error, ClusterAuthorizationFailedError):
        # To the request for a producer id, which a broker grants to whoever may write to any topic at all.
        return f"{servers} lets the user in, but not write: grant WRITE on the topic ({type(error).__name__})"
    else:
        why = str(error) or type(error).__name__
    return f"{servers} cannot be used: {why}; check {CONNECTION_VARIABLES}"


def connection_trouble(options: Mapping[str, object]) -> str | None:
    """Why brokers cannot be connected to at present, each named; None when the last attempt at each was good."""
    brokers: dict[str, list[str]] = {}
    for broker, reason in kafka_connection.ATTEMPTS.reasons(kafka_connection.Login.of_options(options)).items():
        brokers.setdefault(reason, []).append(broker)
    return "; ".join(f"{','.join(named)}: {reason}" for reason, named in brokers.items()) or None


class TokenError(KafkaError):  # type: ignore[misc] # aiokafka has no types
    """No token could be signed. One of Kafka's errors, so that aiokafka's clients take it for a failed attempt."""

    retriable = True


class MskTokenProvider(AbstractTokenProvider):  # type: ignore[misc] # aiokafka has no types
    """Tokens for MSK IAM. Signing may ask the credential service over the network, so it runs in a thread."""

    def __init__(self, sign: Callable[[], str]) -> None:
        self._sign = sign

    async def token(self) -> str:
        """A fresh token; aiokafka asks at every connection. TimeoutError after TOKEN_TIMEOUT_SECONDS, or TokenError."""
        async with asyncio.timeout(TOKEN_TIMEOUT_SECONDS):
            try:
                return await _in_daemon_thread(self._sign)
            except Exception as error:  # whatever the AWS SDK raises is told, and asked again at the next connection
                said = f"{type(error).__name__}: {error}"
                raise TokenError(f"no token for AWS_MSK_IAM ({said}): check the AWS credentials") from error


async def _in_daemon_thread(work: Callable[[], str]) -> str:
    """What the work gives. A pool's thread that hangs would be waited for at the end of the process, for ever."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[str] = loop.create_future()

    def tell(settle: Callable[[], None]) -> None:
        try:
            loop.call_soon_threadsafe(lambda: None if done.done() else settle())
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    def run() -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 -- handed to whoever waits
            tell(partial(done.set_exception, error))
        else:
            tell(partial(done.set_result, result))

    threading.Thread(target=run, name="signer", daemon=True).start()
    return await done


def _msk_signer(region: str) -> Callable[[], str]:
    # Imported here: boto3 costs half a second and 30 MB, and only MSK needs it.
    from aws_msk_iam_sasl_signer import MSKAuthTokenProvider  # noqa: PLC0415

    def sign() -> str:
        token, _expires_ms = MSKAuthTokenProvider.generate_auth_token(region)
        return str(token)

    return sign


def _ssl_context(settings: KafkaSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ssl_cafile)
    except (OSError, ValueError) as error:
        raise _unusable("KAFKA_SSL_CAFILE", settings.kafka_ssl_cafile, error, "PEM certificates") from error
    if settings.kafka_ssl_certfile is not None:
        try:
            context.load_cert_chain(settings.kafka_ssl_certfile, settings.kafka_ssl_keyfile, password=_no_password)
        except (OSError, ValueError) as error:
            raise _unusable(
                "KAFKA_SSL_CERTFILE",
                settings.kafka_ssl_certfile,
                error,
                "a PEM certificate whose private key, not encrypted, is in KAFKA_SSL_KEYFILE",
            ) from error
    return context


def _no_password() -> str:
    """For an encrypted key, instead of OpenSSL's prompt on the terminal."""
    message = "the private key is encrypted"
    raise ValueError(message)


def _unusable(variable: str, path: str | None, error: Exception, allowed: str) -> SettingsError:
    return SettingsError([f"{variable}: {path!r} cannot be used ({error}); allowed: {allowed}"])
