"""The settings of one endpoint, whichever form they were written in.

Owns: the type of each member, once for the variables of the one-endpoint short form (`settings`) and for the tables of
a file (`endpoints_file`); which members contradict each other; the parsed settings of one endpoint. Does not own:
where a member is read from, what the values mean (`endpoint`, `pointer`, `selection`).

Invariants: no text made here holds a key, user info or a query. `members` is a mapping by the names of the file.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import parse_qsl

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from producer.endpoint import AUTH_ALLOWED, build_endpoint, check_key, parse_auth, split_url
from producer.plan import Plan
from producer.pointer import parse_pointer
from producer.selection import Select
from shared.settings import MASK, VARIABLES, Allowed, Bytes, Count, Seconds, Shown, Topic, without_credentials

if TYPE_CHECKING:
    from collections.abc import Mapping


NO_KEYS: Final = "none"
URL_ALLOWED: Final = "http://HOST[:PORT]/PATH[?QUERY] or https://…, spaces and the like percent-encoded"
ENDPOINT_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_POINTER_ALLOWED: Final = "a JSON pointer, for example /tickers or /results/0 ('~' is written ~0, '/' inside a name ~1)"


def _url(text: str) -> str:
    split_url(text)
    return text


def _auth(text: str) -> str:
    way, colon, name = text.partition(":")
    lowered = way.lower() + colon + name
    parse_auth(lowered)
    if re.search(r"[\s=&?#%]", name):  # query:apiKey=… : the name was wanted, not the key
        raise ValueError
    return lowered


def _shown_auth(text: str) -> str:
    """A text that does not look like a way and a name may be the key itself, pasted into the wrong place."""
    way, colon, name = text.partition(":")
    way = way if re.fullmatch(r"[A-Za-z]{0,10}", way) else MASK
    return f"{way}{colon}{name if re.fullmatch(r'[A-Za-z0-9_.-]{0,40}', name) else MASK}"


def _pointer(text: str) -> str:
    parse_pointer(text)
    return text


def _key_pointer(text: str) -> str:
    return NO_KEYS if text.lower() == NO_KEYS else _pointer(text)


def _select(text: str) -> str:
    return Select(text.lower()).value


def _name(text: str) -> str:
    if not ENDPOINT_NAME.fullmatch(text):
        raise ValueError
    return text


def _variable(text: str) -> str:
    if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,127}", text) or text in VARIABLES:
        raise ValueError
    return text


def shown_variable(text: str) -> str:
    """A text that does not look like a variable's name may be the key itself, pasted into the wrong place."""
    return text if re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+", text) else MASK


Url = Annotated[str, AfterValidator(_url), Shown(without_credentials), Allowed(URL_ALLOWED)]
AuthWay = Annotated[str, AfterValidator(_auth), Shown(_shown_auth), Allowed(AUTH_ALLOWED)]
RecordsPointer = Annotated[str, AfterValidator(_pointer), Allowed(f"unset for the root, or {_POINTER_ALLOWED}")]
NextPointer = Annotated[
    str, AfterValidator(_pointer), Allowed("unset for no further pages, or a JSON pointer to their URL, e.g. /next_url")
]
KeyPointer = Annotated[str, AfterValidator(_key_pointer), Allowed(f"{NO_KEYS} for no keys, or {_POINTER_ALLOWED}")]
SelectWord = Annotated[str, AfterValidator(_select), Allowed(", ".join(Select))]
RateLimit = Count


class EndpointTable(BaseModel):
    """One `[[endpoint]]` as it is written. Strict: a text is no number, a boolean neither."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[
        str, AfterValidator(_name), Allowed("1 to 40 of a-z, 0-9, '_' and '-', the first a letter or a digit")
    ]
    url: Annotated[Url, Field(repr=False)]
    auth: AuthWay = "bearer"
    key_variable: (
        Annotated[
            str,
            AfterValidator(_variable),
            Shown(shown_variable),
            Allowed(
                "the name of the environment variable that holds the key, in capitals, none of ticklake's own,"
                " for example MASSIVE_API_KEY"
            ),
        ]
        | None
    ) = None
    records_pointer: RecordsPointer = ""
    next_pointer: NextPointer | None = None
    key_pointer: KeyPointer | None = None
    interval_seconds: Seconds | None = None
    timeout_seconds: Seconds | None = None
    max_body_bytes: Bytes | None = None
    max_records: Count | None = None
    select: SelectWord | None = None
    topic: Topic | None = None
    rate_limit_per_minute: RateLimit | None = None


def parse_endpoint(name: str, members: Mapping[str, Any], key: str | None, called: Mapping[str, str]) -> Plan:
    """The settings of validated members, all of which are there."""
    next_pointer, key_pointer = members["next_pointer"], members["key_pointer"]
    return Plan(
        name=name,
        endpoint=build_endpoint(split_url(members["url"]), parse_auth(members["auth"]), key),
        records_pointer=parse_pointer(members["records_pointer"]),
        next_pointer=None if next_pointer is None else parse_pointer(next_pointer),
        key_pointer=None if key_pointer == NO_KEYS else parse_pointer(key_pointer),
        timeout_seconds=members["timeout_seconds"],
        max_body_bytes=members["max_body_bytes"],
        max_records=members["max_records"],
        rate_limit_per_minute=members["rate_limit_per_minute"],
        interval_seconds=members["interval_seconds"],
        select=Select(members["select"]),
        topic=members["topic"],
        called=called,
    )


def contradiction(url: str, way: str, key: str | None, called: Mapping[str, str]) -> tuple[str, str] | None:
    """The member at fault and why it cannot go with the others, or None. Bearer without a key is a public API."""
    parts, auth = split_url(url), parse_auth(way)
    named = called["key_variable"]
    if key is None:
        if auth.way in {"query", "header"}:
            return "auth", f"{_shown_auth(way)} needs {named}, which is not set"
        return None
    if auth.way == "none":
        return "auth", f"none sends no key, but {named} is set; unset one of them"
    if parts.username is not None and (auth.way == "bearer" or auth.name.lower() == "authorization"):
        return "url", f"its user info and {named} would both be the Authorization header; remove one of them"
    if auth.way == "query" and auth.name in dict(parse_qsl(parts.query, keep_blank_values=True)):
        return "auth", f"the query of {called['url']} has the parameter {auth.name} already; remove one of them"
    try:
        check_key(key, auth)
    except ValueError as error:
        return "key_variable", f"'{MASK}' is not allowed with {called['auth']}={_shown_auth(way)!r}; allowed: {error}"
    return None
