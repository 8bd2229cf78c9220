"""What is asked of whom: the request to one API, and which parts of it are secret.

Owns: the grammar of `API_URL` and `API_AUTH`, the request's URL and headers, the event source, the request for a next
page. Does not own: sending. Pure.

Invariants: `source` holds no user info, query or fragment; the secrets stand in `url`, `headers`, `query_pair` and
`secrets` only, which no repr shows. Every page is asked of the endpoint's own scheme, host and port, whatever a body
says: no key can be lured elsewhere.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal
from urllib.parse import SplitResult, parse_qsl, quote, unquote, unquote_plus, urljoin, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

AUTH_ALLOWED = "bearer, query:NAME, header:NAME, none"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_OURS = {"host", "connection", "content-length", "transfer-encoding", "accept-encoding"}
_SHORTEST_MASKED_VALUE = 4
_LINK_CHARACTERS = 16_384  # percent-encoded, it is still below what the HTTP client takes
_QUOTED_CHARACTERS = 100  # of a host's name that came in a body
_DEFAULT_PORTS = {"http": 80, "https": 443}
_URL_CHARACTERS = "!#$%&'()*+,-./:;=?@[]_~"  # what `quote` leaves as it is, besides letters and digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """How the key is sent. `name` is the query parameter's or the header's."""

    way: Literal["bearer", "query", "header", "none"]
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One API as it is asked. `source` is its URL without anything secret: `ce_source`, logs, pages."""

    source: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    query_pair: str = field(repr=False, default="")

    def page(self, link: str) -> Endpoint:
        """The request for the page that this one's body links to (RFC 3986 reference), with the key again.

        Of the link only path and query are used. ValueError names the host when it is another one.
        """
        if len(link) > _LINK_CHARACTERS:
            msg = f"is longer than {_LINK_CHARACTERS} characters"
            raise ValueError(msg)
        try:
            parts = urlsplit(urljoin(self.url, quote(link.strip(), safe=_URL_CHARACTERS)))
            own = urlsplit(self.url)
            host, port = parts.hostname, parts.port
        except ValueError:
            msg = "is no URL"
            raise ValueError(msg) from None
        # A link without a port may name the scheme wrongly, as servers behind a TLS proxy do.
        own_port = own.port or _DEFAULT_PORTS[own.scheme]
        if parts.scheme not in _DEFAULT_PORTS or host != own.hostname or port not in {None, own_port}:
            msg = (
                f"leads to {parts.scheme}://{parts.netloc.rpartition('@')[2][:_QUOTED_CHARACTERS]}, which is not asked"
            )
            raise ValueError(msg)
        query = parts.query
        if self.query_pair:
            name = unquote_plus(self.query_pair.partition("=")[0])
            kept = [pair for pair in query.split("&") if pair and unquote_plus(pair.partition("=")[0]) != name]
            query = "&".join([*kept, self.query_pair])
        url = f"{own.scheme}://{own.netloc}{parts.path or '/'}"
        return replace(self, url=f"{url}?{query}" if query else url)


def parse_auth(text: str) -> Auth:
    """The way named by `API_AUTH`; ValueError says what is allowed."""
    way, colon, name = text.partition(":")
    if way == "bearer" and not colon:
        return Auth(way="bearer")
    if way == "none" and not colon:
        return Auth(way="none")
    if way == "query" and name:
        return Auth(way="query", name=name)
    if way == "header" and _TOKEN.fullmatch(name):
        if name.lower() in _OURS:
            msg = f"the header {name} is the HTTP client's own"
            raise ValueError(msg)
        return Auth(way="header", name=name)
    msg = f"allowed: {AUTH_ALLOWED}"
    raise ValueError(msg)


def split_url(text: str) -> SplitResult:
    """`API_URL` in parts; ValueError says what is wrong and quotes nothing of it."""
    wrong = "allowed: http://HOST[:PORT]/PATH[?QUERY] or https://…"
    if not re.fullmatch(r"[!-~]+", text) or "\\" in text:
        msg = f"holds a space or a character that must be percent-encoded; {wrong}"
        raise ValueError(msg)
    try:
        parts = urlsplit(text)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a broken IPv6 address
        good = False
    if not good:
        raise ValueError(wrong)
    return parts


def check_key(key: str, auth: Auth) -> None:
    """Raises ValueError, without quoting the key, when it cannot be sent that way."""
    if auth.way in {"bearer", "header"} and not re.fullmatch(r"[!-~]([ -~]*[!-~])?", key):
        msg = "a key sent in a header has printable ASCII characters only and no spaces around it"
        raise ValueError(msg)


def build_endpoint(parts: SplitResult, auth: Auth, key: str | None) -> Endpoint:
    """The request, ready to be sent."""
    host = parts.netloc.rpartition("@")[2]
    path = parts.path or "/"
    query = parts.query
    query_pair = ""
    headers = {"accept": "application/json", "accept-encoding": "gzip", "user-agent": "ticklake"}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    if key is not None:
        if auth.way == "bearer":
            headers["authorization"] = f"Bearer {key}"
        elif auth.way == "header":
            headers[auth.name.lower()] = key
        elif auth.way == "query":
            query_pair = f"{quote(auth.name, safe='')}={quote(key, safe='')}"
            query = f"{query}&{query_pair}" if query else query_pair
    source = f"{parts.scheme}://{host}{path}"
    return Endpoint(
        source=source,
        url=f"{source}?{query}" if query else source,
        headers=headers,
        secrets=_secrets(parts, key),
        query_pair=query_pair,
    )


def _secrets(parts: SplitResult, key: str | None) -> tuple[str, ...]:
    """Whatever must not be read anywhere. Short query values (limit=5) are no secrets and would mask every 5."""
    values = [value for _, value in parse_qsl(parts.query) if len(value) >= _SHORTEST_MASKED_VALUE]
    userinfo = parts.netloc.rpartition("@")[0]
    # The Basic header's pair has a colon even where the URL has none.
    basic = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}" if userinfo else ""
    candidates = [key, parts.password, parts.username, userinfo, unquote(userinfo), basic, parts.query, *values]
    return tuple(secret for secret in candidates if secret)
