"""Attempts to connect to brokers: at most one a second and broker, and what became of the last ones is remembered.

Owns: the pace, the memory, and one log line a minute for a broker that cannot be reached again in mid-run. Does not
own: the wording (`kafka_diagnosis`), the clients and when they try (aiokafka, at every 100 ms).

aiokafka logs why it could not connect and then raises errors that no longer know. So this module stands where it opens
a connection (`AIOKafkaConnection.connect`, for every client of the process): it lets an attempt pass or, within a
second of a failed one, fails it with the same reason at once; nothing is sent then. What fails while a client starts,
its owner tells (`shared.kafka.unreachable`); a client that runs has nobody who sees it, so it is told here.

Invariants: a password is kept to tell logins apart, never shown. What is older than FRESH_SECONDS is not told any more:
brokers come and go by name.
"""

from __future__ import annotations

import asyncio
import functools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError, KafkaError

from shared import logs
from shared.kafka_diagnosis import HUNG_UP, explained

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

PACE_SECONDS: Final = 1.0
FRESH_SECONDS: Final = 90.0
_FIRST_ANSWER: Final = 1  # request: the versions; a broker that wants a login answers it, and hangs up at the next

log = logs.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How a client asks to be let in: what fails with one may succeed with another."""

    protocol: str
    ssl_context: object
    mechanism: str | None
    user: str | None
    password: str | None = field(repr=False)

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> Login:
        """From a client's keyword arguments; what is missing is as aiokafka takes it."""
        protocol = options.get("security_protocol", "PLAINTEXT")
        return cls(
            protocol=protocol,
            ssl_context=options.get("ssl_context"),
            mechanism=options.get("sasl_mechanism", "PLAIN") if protocol.startswith("SASL") else None,
            user=options.get("sasl_plain_username"),
            password=options.get("sasl_plain_password"),
        )

    @classmethod
    def of_connection(cls, connection: Any) -> Login:  # noqa: ANN401 -- aiokafka has no types
        """From what aiokafka made of them."""
        sasl = connection._security_protocol.startswith("SASL")  # noqa: SLF001 -- as all below
        return cls(
            protocol=connection._security_protocol,  # noqa: SLF001
            ssl_context=connection._ssl_context,  # noqa: SLF001
            mechanism=connection._sasl_mechanism if sasl else None,  # noqa: SLF001
            user=connection._sasl_plain_username,  # noqa: SLF001
            password=connection._sasl_plain_password,  # noqa: SLF001
        )


class Attempts:
    """The last failed attempt at each broker with each login. Times are of the clock given."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: dict[tuple[str, Login], tuple[float, str]] = {}
        self.reminders = logs.Reminders(clock)

    def barred(self, broker: str, login: Login) -> str | None:
        """Why another attempt would come too soon; None = it may be made."""
        at, reason = self._failed.get((broker, login), (float("-inf"), ""))
        return reason if self._clock() - at < PACE_SECONDS else None

    def made(self, broker: str, login: Login) -> None:
        """The broker let us in."""
        self._failed.pop((broker, login), None)

    def failed(self, broker: str, login: Login, reason: str) -> None:
        """It did not."""
        self._failed = {of: (at, why) for of, (at, why) in self._failed.items() if self._is_fresh(at)}
        self._failed[broker, login] = (self._clock(), reason)

    def reasons(self, login: Login) -> dict[str, str]:
        """By broker, why it could not be reached with this login lately."""
        return {broker: why for (broker, how), (at, why) in self._failed.items() if how == login and self._is_fresh(at)}

    def _is_fresh(self, at: float) -> bool:
        return self._clock() - at < FRESH_SECONDS


ATTEMPTS: Final = Attempts()


def watch() -> None:
    """For every client of the process, once and for all; a second call changes nothing."""
    if not hasattr(AIOKafkaConnection.connect, "__wrapped__"):
        AIOKafkaConnection.connect = paced(AIOKafkaConnection.connect, ATTEMPTS)
        AIOKafkaConnection.close = _heard(AIOKafkaConnection.close, ATTEMPTS)


def paced(connect: Callable[..., Awaitable[Any]], attempts: Attempts) -> Callable[..., Awaitable[Any]]:
    """The same `connect`, at most once in PACE_SECONDS after a failure; all that it raises is KafkaConnectionError."""

    @functools.wraps(connect)
    async def connecting(connection: Any) -> Any:  # noqa: ANN401 -- aiokafka has no types
        broker, login = _address(connection), Login.of_connection(connection)
        if (barred := attempts.barred(broker, login)) is not None:
            raise KafkaConnectionError(f"{broker}: {barred}")
        began = time.monotonic()
        starting = connection._on_close_cb is None  # noqa: SLF001 -- only running clients ask aiokafka to be called back
        try:
            answer = await connect(connection)
        except asyncio.CancelledError:
            if (seconds := time.monotonic() - began) >= PACE_SECONDS:  # by a deadline; less is somebody who stops
                attempts.failed(broker, login, f"it has not answered for {seconds:.0f} s")
            raise
        # What is not OSError or Kafka's comes out of aiokafka's half of SASL, and its clients would die of it.
        except (KafkaError, OSError, EOFError, ValueError, LookupError, AssertionError) as error:
            reason = explained(error, protocol=login.protocol, mechanism=login.mechanism, user=login.user)
            attempts.failed(broker, login, reason)
            if not starting and attempts.reminders.due(broker, reason):
                log.warning("No connection to Kafka", broker=broker, reason=reason)
            raise KafkaConnectionError(f"{broker}: {reason}") from error
        attempts.made(broker, login)
        return answer

    return connecting


def _heard(close: Callable[..., Any], attempts: Attempts) -> Callable[..., Any]:
    @functools.wraps(close)
    def heard(connection: Any, reason: object = None, exc: BaseException | None = None) -> Any:  # noqa: ANN401
        if reason is CloseReason.CONNECTION_BROKEN and _had_one_answer(connection):
            attempts.failed(_address(connection), Login.of_connection(connection), HUNG_UP)
        return close(connection, reason, exc)

    return heard


def _had_one_answer(connection: Any) -> bool:  # noqa: ANN401
    """To what anybody may ask; and it hangs up now that a second request waits."""
    asked = connection._correlation_id == _FIRST_ANSWER + 1  # noqa: SLF001
    login = connection._security_protocol.startswith("SASL")  # noqa: SLF001
    return bool(asked and connection._versions and connection._requests and not login)  # noqa: SLF001


def _address(connection: Any) -> str:  # noqa: ANN401
    host = f"[{connection.host}]" if ":" in connection.host else connection.host
    return f"{host}:{connection.port}"
