"""What is said of a broker that did not let us in: each cause in its own words, with the setting to look at.

The errors are as aiokafka, ssl and Kafka 4.3.1 raise them; tests/integration/test_kafka_security.py makes real ones.
"""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from shared.kafka_diagnosis import explained


def verification(code: int, message: str = "said so") -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, f"certificate verify failed: {message}")
    error.verify_code, error.verify_message = code, message
    return error


def alert(reason: str) -> KafkaConnectionError:
    """As it comes with TLS 1.3: after the handshake, to the first request."""
    error = ssl.SSLError(1, f"[SSL: {reason}]")
    error.reason = reason
    return closed(error)


def closed(cause: Exception) -> KafkaConnectionError:
    error = KafkaConnectionError("Connection at h:1 closed")
    error.__cause__ = cause
    return error


def said(error: Exception, protocol: str = "SASL_SSL", mechanism: str | None = "PLAIN") -> str:
    return explained(error, protocol=protocol, mechanism=mechanism, user="me")


@pytest.mark.parametrize(
    ("error", "words", "setting"),
    [
        (verification(10), "has expired", "clock"),
        (verification(9), "not valid yet", "clock"),
        (verification(18), "not signed by an authority", "KAFKA_SSL_CAFILE"),
        (verification(19), "not signed by an authority", "KAFKA_SSL_CAFILE"),
        (verification(20), "not signed by an authority", "KAFKA_SSL_CAFILE"),
        (verification(21), "not signed by an authority", "KAFKA_SSL_CAFILE"),
        (verification(62, "not valid for 'h'."), "is for another name (not valid for 'h')", "KAFKA_BOOTSTRAP_SERVERS"),
        (verification(64), "is for another name", "KAFKA_BOOTSTRAP_SERVERS"),
        (verification(26, "unsuitable"), "is refused (unsuitable)", "KAFKA_SSL_CAFILE"),
        (alert("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "wants a client certificate", "KAFKA_SSL_CERTFILE"),
        (alert("SSLV3_ALERT_CERTIFICATE_UNKNOWN"), "refuses the client certificate", "KAFKA_SSL_CERTFILE"),
        (alert("SSLV3_ALERT_BAD_CERTIFICATE"), "refuses the client certificate", "KAFKA_SSL_CERTFILE"),
        (alert("TLSV1_ALERT_UNKNOWN_CA"), "refuses the client certificate", "KAFKA_SSL_CERTFILE"),
        (alert("TLSV1_ALERT_PROTOCOL_VERSION"), "tlsv1 alert protocol version", "KAFKA_SSL_*"),
        (closed(ConnectionResetError()), "hangs up after the TLS handshake", "KAFKA_SSL_CERTFILE"),
        (ConnectionResetError(), "breaks off the TLS handshake", "KAFKA_SECURITY_PROTOCOL"),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), "breaks off the TLS", "KAFKA_SECURITY_PROTOCOL"),
        (SaslAuthenticationFailed("no"), "refuses user 'me' by PLAIN", "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"),
        (UnsupportedSaslMechanismError("no"), "does not offer PLAIN", "KAFKA_SASL_MECHANISM"),
        (IllegalSaslStateError("no"), "takes no login", "KAFKA_SECURITY_PROTOCOL"),
        (ValueError("Server sent wrong signature!"), "as a broker that knows the password would", "PLAIN"),
        (ConnectionRefusedError(111, "refused"), "nothing listens there", "KAFKA_BOOTSTRAP_SERVERS"),
        (socket.gaierror(-2, "Name or service not known"), "name cannot be resolved", "KAFKA_BOOTSTRAP_SERVERS"),
        (TimeoutError(), "does not answer in time", ""),
        (OSError(113, "No route to host"), "No route to host", ""),
        (KafkaConnectionError("broken"), "broken", ""),
    ],
)
def test_each_cause_has_its_words_and_its_setting(error: Exception, words: str, setting: str) -> None:
    told = said(error)
    assert words in told
    assert setting in told


@pytest.mark.parametrize(("protocol", "advice"), [("PLAINTEXT", "SSL or SASL_SSL?"), ("SASL_PLAINTEXT", "SASL_SSL?")])
def test_a_tls_alert_in_place_of_an_answer_is_recognised(protocol: str, advice: str) -> None:
    record = bytes.fromhex("15030300020250")
    cut_short = asyncio.IncompleteReadError(record[4:], int.from_bytes(record[:4]))
    told = said(closed(cut_short), protocol)
    assert "it speaks TLS" in told
    assert f"KAFKA_SECURITY_PROTOCOL ({protocol}; {advice})" in told


def test_an_answer_cut_short_is_not_taken_for_tls() -> None:
    told = said(closed(asyncio.IncompleteReadError(b"", 4)), "PLAINTEXT")
    assert "hangs up without an answer" in told
    assert "KAFKA_SECURITY_PROTOCOL (PLAINTEXT)" in told


def test_of_a_refused_login_the_brokers_text_is_not_repeated_but_for_msk_where_it_says_what_is_not_allowed() -> None:
    refused = SaslAuthenticationFailed("Access denied" + "x" * 1000)
    assert "Access denied" not in said(refused, mechanism="SCRAM-SHA-512")
    told = said(refused, mechanism="OAUTHBEARER")
    assert "Access denied" in told
    assert len(told) < 400
