"""Why a connection to a broker was not made, in words that name the setting to look at.

Owns: the wording, from the error alone. Does not own: the attempts (`kafka_connection`), the settings.
Invariant: no password and no text of a broker's about one: what is said of a refused login is the user's name.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Final

from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_AUTHORITY = range(18, 22)  # self-signed (itself or in its chain), no issuer found, a first one unverifiable
_OTHER_NAME = (62, 64)
# A TLS record of alerts or a handshake, read as the length of an answer of Kafka's (RFC 8446, 5.1).
_TLS_RECORDS: Final = (0x1503, 0x1603)
_SHOWN_CHARACTERS: Final = 200

CLIENT_CERTIFICATE: Final = "KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE"
_NO_TLS: Final = "it breaks off the TLS handshake; is this a port for TLS? Check KAFKA_SECURITY_PROTOCOL and the port"
HUNG_UP: Final = "it hangs up at the first request; does it want a login? Check KAFKA_SECURITY_PROTOCOL and the port"


def explained(error: BaseException, *, protocol: str, mechanism: str | None, user: str | None) -> str:
    """What a broker did, as a sentence after its address. The last three as of the settings."""
    tls = protocol in {"SSL", "SASL_SSL"}
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _certificate(cause)
        if isinstance(cause, ssl.SSLError):
            return _alert(cause)
        if isinstance(cause, asyncio.IncompleteReadError) and (cause.expected or 0) >> 16 in _TLS_RECORDS and not tls:
            return f"it speaks TLS: check KAFKA_SECURITY_PROTOCOL ({protocol}; {_with_tls(protocol)}?) and the port"
        if said := _login(cause, protocol, mechanism, user):
            return said
    return _broken(error, protocol, tls=tls)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        # aiokafka's word for a connection that closed hides why; any other error speaks for itself.
        cause = cause.__cause__ if isinstance(cause, KafkaConnectionError) else None


def _certificate(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == _EXPIRED:
        return "its certificate (or its authority's) has expired: it needs a new one; or is the clock here wrong?"
    if error.verify_code == _NOT_YET_VALID:
        return "its certificate (or its authority's) is not valid yet; is the clock here wrong?"
    if error.verify_code in _UNKNOWN_AUTHORITY:
        return (
            "its certificate is not signed by an authority in KAFKA_SSL_CAFILE (the system's authorities when unset): "
            f"check KAFKA_SSL_CAFILE ({error.verify_message})"
        )
    if error.verify_code in _OTHER_NAME:
        return (
            f"its certificate is for another name ({error.verify_message.rstrip('.')}): check KAFKA_BOOTSTRAP_SERVERS, "
            "and the names that the broker advertises"
        )
    return f"its certificate is refused ({error.verify_message or error}): check KAFKA_SSL_CAFILE"


def _alert(error: ssl.SSLError) -> str:
    said = (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()
    if "certificate required" in said:
        return f"it wants a client certificate: set {CLIENT_CERTIFICATE}"
    if "alert" in said and ("certificate" in said or "unknown ca" in said):
        return (
            f"it refuses the client certificate ({said}): it is missing, has expired, or is of an authority that the "
            f"broker does not trust: check {CLIENT_CERTIFICATE}"
        )
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError) or "wrong version" in said or "record" in said:
        return _NO_TLS
    return f"TLS fails ({said}): check KAFKA_SECURITY_PROTOCOL, KAFKA_SSL_* and the port"


def _login(error: BaseException, protocol: str, mechanism: str | None, user: str | None) -> str | None:
    if isinstance(error, SaslAuthenticationFailed):
        if mechanism == "OAUTHBEARER":
            text = str(error.args[0] if error.args else error)[:_SHOWN_CHARACTERS]
            return f"it refuses the AWS credentials (AWS_MSK_IAM): {text}; check them, AWS_REGION and what they may do"
        return f"it refuses user {user!r} by {mechanism}: check KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
    if isinstance(error, UnsupportedSaslMechanismError):
        return f"it does not offer {mechanism}: check KAFKA_SASL_MECHANISM"
    if isinstance(error, IllegalSaslStateError):
        return f"it takes no login on this port: check KAFKA_SECURITY_PROTOCOL ({protocol}) and the port"
    if isinstance(error, ValueError | LookupError | AssertionError):  # of aiokafka's half of SASL
        return f"it does not answer {mechanism} as a broker that knows the password would ({type(error).__name__})"
    return None


def _broken(error: BaseException, protocol: str, *, tls: bool) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there (connection refused): is it up? Check KAFKA_BOOTSTRAP_SERVERS"
    if isinstance(error, socket.gaierror):
        return f"its name cannot be resolved ({error.strerror}): check KAFKA_BOOTSTRAP_SERVERS"
    if isinstance(error, KafkaConnectionError) and error.__cause__ is not None:  # the first request was on its way
        if tls:
            return (
                "it hangs up after the TLS handshake; does it want a (different) client certificate? "
                f"Check {CLIENT_CERTIFICATE}"
            )
        return f"it hangs up without an answer; is this a port for TLS? Check KAFKA_SECURITY_PROTOCOL ({protocol})"
    if tls and isinstance(error, ConnectionError):
        return _NO_TLS
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error) or type(error).__name__


def _with_tls(protocol: str) -> str:
    return "SASL_SSL" if protocol == "SASL_PLAINTEXT" else "SSL or SASL_SSL"
