"""Method and request target in, topic and key out.  Pure: no I/O, no state that changes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from ingest.errors import BadRequest, MethodNotAllowed, NotFound, UnknownPartition
from ingest.route import KEY_FIELD_BYTES, MOST_KEY_NAMES, NATIVE_PATH, Route

# RFC 3986, 3.1 and 3.2: a scheme and an authority, at the beginning and nowhere else.
_SCHEME_AND_AUTHORITY = re.compile(r"[A-Za-z][0-9A-Za-z+.\-]*+://[^/?]*+")
_COLON = re.compile("%3A", re.IGNORECASE)
_PARAMETERS = frozenset({"key", "key_field", "offsets", "validate"})


class Match(NamedTuple):
    """What a request's head asks for, as far as its method and target say."""

    route: Route
    topic: str
    key: bytes | None
    """From `?key=`; None where there is none."""
    key_field: str | None
    """The JSON field of the content that becomes the key: from `?key_field=`, else the route's."""
    tombstone: bool
    """DELETE: a record with this key and no value."""
    offsets: bool
    """`?offsets=true`: stream each line's result."""
    validate: bool
    """Not `?validate=false`: each line is to be JSON."""
    partition: int | None = None
    """Out of the path."""
    cluster: str | None = None
    """The same."""
    query: str = ""
    """All of the query, as it came."""


class Router:
    """The routes of a service."""

    def __init__(self, routes: Iterable[Route], can_be_read: Callable[[str], bool] = lambda _: False) -> None:
        """`can_be_read` says whether a path is for GET and HEAD too, which are not served from here."""
        self._can_be_read = can_be_read
        self._fixed: dict[str, Route] = {}
        self._patterns: list[tuple[re.Pattern[str], Route]] = []
        for route in routes:
            if "{" in route.path:
                self._patterns.append((path_pattern(route.path), route))
            else:
                self._fixed[route.path] = route

    def match(self, method: str, target: bytes) -> Match:
        """Find the route of a request.

        `target` is a request target in origin-form or absolute-form (RFC 9112, section 3.2).  Raises
        `NotFound`, `MethodNotAllowed`, or `BadRequest` for a query that cannot be meant.
        """
        path, _, query = origin_form(target).partition("?")
        route, parts = self._find(path)
        if route.format is not None and method != "POST":
            raise MethodNotAllowed(f"{method} is not served here; POST writes records", self.allow(path))
        if method not in ("POST", "DELETE"):
            raise MethodNotAllowed(
                f"{method} is not served here; POST writes a record, DELETE a tombstone", self.allow(path)
            )
        # A webhook's sender may add a query of its own to a configured path, and the clients of a format may
        # too; on the native way's own it is a typo.
        arguments = _parse_query(query, strict=route.path == NATIVE_PATH and route.format is None)
        key = arguments.get("key")
        key_field = None
        if "key_field" in arguments:
            given = len(arguments["key_field"])
            if given > KEY_FIELD_BYTES:
                raise BadRequest(f"key_field has {given} bytes; {KEY_FIELD_BYTES} is the most")
            key_field = _text(arguments, "key_field")
            if not all(key_field.split(".")):
                raise BadRequest(f"key_field={key_field!a} names no field; write it like user.id")
            if key_field.count(".") >= MOST_KEY_NAMES:
                raise BadRequest(f"key_field has more than {MOST_KEY_NAMES} names, which is the limit")
        if key is not None and key_field is not None:
            raise BadRequest("key and key_field are both given; one of them makes the key")
        if key is None and key_field is None:
            key_field = route.key_field
        tombstone = method == "DELETE"
        if tombstone:
            if key is None:
                raise BadRequest("DELETE writes a tombstone for a key and needs ?key=")
            if "offsets" in arguments or "validate" in arguments:
                raise BadRequest("DELETE takes only ?key=")
        offsets = _flag(arguments, "offsets", default=False)
        validate = _flag(arguments, "validate", default=True)
        if not validate and key_field is not None:
            raise BadRequest("validate=false leaves lines unread, so key_field cannot be found in them")
        partition = parts.get("partition")
        return Match(
            route,
            # What is no topic's name is refused later, by the rule for names.
            route.topic or path_segment(parts["topic"]),
            key,
            key_field,
            tombstone,
            offsets,
            validate,
            None if partition is None else _partition(partition),
            path_segment(parts["cluster"]) if "cluster" in parts else None,
            query,
        )

    def route(self, path: str) -> Route | None:
        """Whose path it is; None where nothing can be written there."""
        found = self._look_for(path)
        return None if found is None else found[0]

    def allow(self, path: str) -> str:
        """The methods that a path is for, as the Allow field lists them."""
        route = self.route(path)
        methods = [] if route is None else ["POST"] if route.format is not None else ["POST", "DELETE"]
        if self._can_be_read(path):
            methods += ["GET", "HEAD"]
        return ", ".join([*methods, "OPTIONS"])

    def _look_for(self, path: str) -> tuple[Route, dict[str, str]] | None:
        route = self._fixed.get(path)
        if route is not None:
            return route, {}
        for pattern, route in self._patterns:
            if match := pattern.fullmatch(path):
                return route, match.groupdict()
        # A colon delimits nothing in a path, so percent-encoded it means the same (RFC 3986, section 2.2), as
        # some clients write that of records:batch.
        plain = _COLON.sub(":", path)
        return self._look_for(plain) if plain != path else None

    def _find(self, path: str) -> tuple[Route, dict[str, str]]:
        found = self._look_for(path)
        if found is not None:
            return found
        if self._can_be_read(path):
            # Who had the route that is there without any, and configured another, is to see why it has gone.
            why = "routes are configured, and / is not one of them: " if path == "/" else ""
            raise MethodNotAllowed(
                f"{why}nothing can be written here; GET shows what is there", self.allow(path)
            )
        shown = path if len(path) <= 100 else path[:100] + "…"
        raise NotFound(f"nothing is served at {shown}")


def path_pattern(path: str) -> re.Pattern[str]:
    """What matches a route's path; each placeholder is a group of its name."""
    literals = re.split(r"\{(\w+)\}", path)
    names = literals[1::2]
    literals[::2] = map(re.escape, literals[::2])
    literals[1::2] = [f"(?P<{name}>[^/]+)" for name in names]
    return re.compile("".join(literals))


def path_segment(text: str) -> str:
    """What stands in the place of a placeholder."""
    return unquote_to_bytes(text).decode("ascii", "replace")


def _partition(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 1 << 31):
        raise UnknownPartition(f"there is no partition {text[:60]!a}; its number is meant")
    return int(text)


def origin_form(target: bytes) -> str:
    """A request target as it is written in origin-form: path and query.

    What is in neither origin-form nor absolute-form stays as it is: it does not begin with "/", so
    nothing is served there.
    """
    # The framing rules leave visible ASCII without "#" in a target.
    text = target.decode("ascii")
    absolute = _SCHEME_AND_AUTHORITY.match(text)
    if absolute is not None:
        # The authority is ours whatever it says, as nothing here depends on it.  An empty path is "/"
        # (RFC 9110, section 4.2.3).
        text = text[absolute.end() :]
        if not text.startswith("/"):
            text = "/" + text
    return text


def _parse_query(query: str, *, strict: bool) -> dict[str, bytes]:
    """The query's arguments as an HTML form writes them: `+` is a space, %XX is a byte."""
    arguments: dict[str, bytes] = {}
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name not in _PARAMETERS:
            if strict and part:
                known = ", ".join(sorted(_PARAMETERS))
                raise BadRequest(f"query parameter {name[:60]!a} is not known here; there are {known}")
            continue
        if name in arguments:
            raise BadRequest(f"query parameter {name} is given twice")
        arguments[name] = unquote_to_bytes(value.replace("+", " "))
    return arguments


def _text(arguments: dict[str, bytes], name: str) -> str:
    try:
        return arguments[name].decode()
    except UnicodeDecodeError:
        raise BadRequest(f"query parameter {name} is not UTF-8") from None


def _flag(arguments: dict[str, bytes], name: str, *, default: bool) -> bool:
    value = arguments.get(name)
    if value is None:
        return default
    if value not in (b"true", b"false"):
        raise BadRequest(
            f"query parameter {name} is {value[:60].decode('ascii', 'replace')!a}; true or false is meant"
        )
    return value == b"true"
