"""Which pages in browsers may send, and read the answers: CORS, as https://fetch.spec.whatwg.org has it.

An origin is held against a list, byte for byte; one that is not on it is told nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from ingest.errors import ConfigError
from ingest.http.messages import Fields, Request
from ingest.options import Section

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9.\-_~:\[\]]+")
_FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+|\*")
_FIELD_NAMES = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:[ \t]*,[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+)*")
_DEFAULT_PORTS = (("http://", ":80"), ("https://", ":443"))
_PREFLIGHT_VARY = b"origin, access-control-request-method, access-control-request-headers"


class CORS(Section, frozen=True, kw_only=True):
    """What pages in browsers may do."""

    allow_origins: Sequence[str] = ()
    """The origins whose pages may send and read answers, as `https://app.example.org`; `*` is every one."""
    allow_credentials: bool = False
    """Whether they may send cookies and the like along, as `sendBeacon` does; not with `*`."""
    max_age_seconds: Annotated[int, Meta(ge=0)] = 600
    """Seconds for which a browser need not ask again before it sends."""
    expose_fields: Sequence[str] = ("Retry-After", "X-Request-Id")
    """The fields of answers that they may read, beside those that every page may."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("cors.")

    def check(self, called: str) -> None:
        """Hold the values against each other; raises `ConfigError`, with `called` in front of each option."""
        for origin in self.allow_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ConfigError(
                    f'{called}allow_origins: "{origin}": must be as browsers write it, like '
                    '"https://app.example.org" or "http://localhost:3000", in lower case and without a path, '
                    'or "*"'
                )
            for scheme, port in _DEFAULT_PORTS:
                if origin.startswith(scheme) and origin.endswith(port):
                    raise ConfigError(
                        f'{called}allow_origins: "{origin}": a browser leaves "{port}" out, so nobody has it'
                    )
        if "*" in self.allow_origins and len(self.allow_origins) > 1:
            raise ConfigError(f'{called}allow_origins: "*" is every origin; leave out the others, or it')
        if "*" in self.allow_origins and self.allow_credentials:
            raise ConfigError(
                f'{called}allow_credentials = true with {called}allow_origins = ["*"]: any page could send '
                "in its visitor's name, and browsers refuse that; name the origins"
            )
        for name in self.expose_fields:
            if not _FIELD_NAME.fullmatch(name):
                raise ConfigError(f'{called}expose_fields: "{name}": must be the name of a field')


class Policy:
    """What is answered to whom."""

    def __init__(self, cors: CORS) -> None:
        self._everyone = "*" in cors.allow_origins
        self._origins = frozenset(origin.encode() for origin in cors.allow_origins)
        self._credentials = cors.allow_credentials
        self._max_age = b"%d" % cors.max_age_seconds
        self._exposes = ", ".join(cors.expose_fields).encode()

    def fields(self, request: Request) -> Fields:
        """What an answer to this request has beside its own."""
        origin = request.field(b"origin")
        allowed = self._allowed(origin)
        if allowed and self._exposes:
            allowed += ((b"access-control-expose-headers", self._exposes),)
        # A cache must not give one origin's answer to another; to everyone it is the same.
        return allowed if self._everyone else (*allowed, (b"vary", b"origin"))

    def preflight(self, request: Request, methods: str) -> Fields:
        """What the answer to OPTIONS has beside its own, where a browser asks whether it may send.

        Every field may be sent: those that nothing here knows are ignored.
        """
        allowed = self._allowed(request.field(b"origin"))
        if allowed:
            allowed += (
                (b"access-control-allow-methods", methods.encode()),
                (b"access-control-max-age", self._max_age),
            )
            wanted = request.field(b"access-control-request-headers")
            if wanted is not None and _FIELD_NAMES.fullmatch(wanted):
                allowed += ((b"access-control-allow-headers", wanted),)
        return (*allowed, (b"vary", _PREFLIGHT_VARY))

    def _allowed(self, origin: bytes | None) -> Fields:
        if self._everyone:
            return ((b"access-control-allow-origin", b"*"),)
        if origin is None or origin not in self._origins:
            return ()
        allowed: Fields = ((b"access-control-allow-origin", origin),)
        return (*allowed, (b"access-control-allow-credentials", b"true")) if self._credentials else allowed


def is_preflight(request: Request) -> bool:
    """Whether a browser asks before it sends something else."""
    return (
        request.method == "OPTIONS"
        and request.field(b"origin") is not None
        and request.field(b"access-control-request-method") is not None
    )
