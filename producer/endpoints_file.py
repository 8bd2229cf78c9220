"""Several endpoints: the TOML file that `API_ENDPOINTS` names, read and validated table by table.

Owns: the grammar of the file, the lookup of the keys in the environment, the wording of its faults. Does not own: what
a member may be (`endpoint_settings`), what a member that is not given means (`settings`: the general variable's value).

Invariants: every fault of the file is told at once, a line each, naming file, endpoint, member and what is allowed. No
line quotes what may be a secret: no line of a file that is no TOML, no value of a member that is unknown, a table or an
array, no key. An empty text is a member not given.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr, ValidationError

from producer.endpoint_settings import ENDPOINT_NAME, EndpointTable, shown_variable
from shared.settings import MASK, SettingsFile, allowed, cut, is_unicode, may_be_secret, wrong_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic.fields import FieldInfo

MAX_FILE_BYTES: Final = 1024 * 1024
_FILE_ALLOWED: Final = "a TOML file of [[endpoint]] tables, see docs/endpoints.md"
_KEY_HINT: Final = "keys never stand in the file; allowed: key_variable, the name of the variable that holds the key"
_KEY_MEMBERS: Final = frozenset({"key", "api_key", "apikey", "token", "secret", "password"})
_QUOTABLE_BITS: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedTable:
    """A table with the key that its variable holds."""

    table: EndpointTable
    key: SecretStr | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointsFile(SettingsFile):
    """The file of `API_ENDPOINTS`; `tables` is whole only where there are no faults."""

    tables: tuple[KeyedTable, ...] = ()

    def place(self, name: str) -> str:
        """How a fault line names one endpoint."""
        return _place(repr(name), self.path)


def read_endpoints_file(path: str, environ: Mapping[str, str]) -> EndpointsFile:
    """The endpoints of the file with their keys from `environ`, or its faults. Never raises."""
    shown_path = cut(repr(path))
    try:
        written, unknown = _tables(_content(path))
    except _UnusableError as error:
        return EndpointsFile(path=path, faults=(f"API_ENDPOINTS: {shown_path} {error}; allowed: {_FILE_ALLOWED}",))
    faults = [f"API_ENDPOINTS: {shown_path}: {fault}" for fault in unknown]
    tables: list[KeyedTable] = []
    numbers: dict[str, int] = {}
    for number, members in enumerate(written, 1):
        keyed, found = _read_table(members, environ)
        name, label = members.get("name"), str(number)
        if isinstance(name, str) and ENDPOINT_NAME.fullmatch(name):
            if (first := numbers.setdefault(name, number)) == number:
                label = repr(name)
            else:
                found.append(f"name: {name!r} is that of endpoint {first} already; allowed: a name of its own")
        faults += [f"{_place(label, path)}: {fault}" for fault in found]
        tables += [] if keyed is None else [keyed]
    variables = frozenset(keyed.table.key_variable for keyed in tables if keyed.table.key_variable is not None)
    return EndpointsFile(path=path, faults=tuple(faults), variables=variables, tables=tuple(tables))


def _place(label: str, path: str) -> str:
    return f"API_ENDPOINTS: endpoint {label} of {cut(repr(path))}"


class _UnusableError(Exception):
    """The file as a whole cannot be read; the text says why and quotes nothing of it."""


def _content(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 -- a path as given
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        msg = f"cannot be read ({getattr(error, 'strerror', None) or 'no path'})"
        raise _UnusableError(msg) from None
    if len(content) > MAX_FILE_BYTES:
        msg = f"is larger than {MAX_FILE_BYTES} bytes"
        raise _UnusableError(msg)
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        msg = f"is not UTF-8 (byte {error.start})"
    except RecursionError:
        msg = "is nested too deeply"
    except ValueError as error:  # of tomllib, or a number of thousands of digits
        # Only the position: the rest of the text may quote the file, and a key may stand there.
        position = re.search(r"\bat (line [0-9]+, column [0-9]+|end of document)\)", str(error))
        msg = f"is not TOML ({position[1] if position else 'a number too long'})"
    raise _UnusableError(msg) from None


def _tables(content: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """The tables as they are written, and a line for each member beside them."""
    tables = content.get("endpoint", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        msg = "holds an endpoint that is not written as a table [[endpoint]]"
        raise _UnusableError(msg)
    if not tables:
        near = difflib.get_close_matches("endpoint", content.keys() - {"endpoint"}, n=1)
        msg = "holds no [[endpoint]]" + (f", but {_quoted(near[0])}" if near else "")
        raise _UnusableError(msg)
    return tables, [_unknown(member, ["endpoint"]) for member in content if member != "endpoint"]


def _read_table(members: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[KeyedTable | None, list[str]]:
    """The table, None when it cannot be used, and a line for each fault in the order of the fields."""
    fields = EndpointTable.model_fields
    given = {member: value for member, value in members.items() if member in fields and value != ""}
    table, wrong = None, {}
    try:
        table = EndpointTable.model_validate(given)
    except ValidationError as error:
        wrong = {str(fault["loc"][0]): fault["type"] for fault in error.errors(include_url=False, include_input=False)}
    faults = [
        f"{member}: {_wrong(fields[member], given.get(member), wrong[member])}" for member in fields if member in wrong
    ]
    variable = None if "key_variable" in wrong else given.get("key_variable")
    key = None if variable is None else environ.get(variable, "")
    if variable is not None and key is not None and (fault := _key_fault(variable, key)) is not None:
        faults.append(f"key_variable: {fault}")
    faults += [_unknown(member, fields) for member in members if member not in fields]
    if table is None or faults:
        return None, faults
    return KeyedTable(table=table, key=None if key is None else SecretStr(key)), faults


def _key_fault(variable: str, key: str) -> str | None:
    if not key:
        return f"the variable {shown_variable(variable)} is not set; allowed: the name of one that holds the key"
    if not is_unicode(key):
        return f"'{MASK}' in the variable {shown_variable(variable)} is not allowed; allowed: text in UTF-8"
    return None


def _wrong(field: FieldInfo, value: object, kind: str) -> str:
    """In the words of the variables; what no variable could hold is told by its kind alone."""
    if value is None or isinstance(value, str):
        return ("the text " if kind in {"int_type", "float_type"} else "") + wrong_value(field, value)
    if may_be_secret(field) and isinstance(value, int | float):
        return f"a number is not allowed; allowed: {allowed(field)}"
    return f"{_kind(value)} is not allowed; allowed: {allowed(field)}"


def _kind(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() if value.bit_length() > _QUOTABLE_BITS:  # its digits may be too many to be printed
            return "a huge number"
        case int() | float():
            return f"the number {value}"
        case list():
            return "an array"
        case dict():
            return "a table"
        case _:
            return "a date or time"


def _unknown(member: str, known: Iterable[str]) -> str:
    if member.lower() in _KEY_MEMBERS:
        return f"{member}: {_KEY_HINT}"
    near = difflib.get_close_matches(member, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(known)}"
    return f"{_quoted(member)}: no such member; {hint}"


def _quoted(member: str) -> str:
    return member if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", member) else cut(repr(member))
