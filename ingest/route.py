"""A route of the configuration: a request target, the topic behind it, and what is promised there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from ingest.errors import ConfigError
from ingest.options import Section, check_topic

_Text: TypeAlias = Annotated[str, Meta(min_length=1)]
_Seconds: TypeAlias = Annotated[float, Meta(gt=0)]

Dialect: TypeAlias = Literal["confluent", "karapace", "strimzi"]
"""Whose answers the clients of REST Proxy v2 know."""

NATIVE_PATH = "/topics/{topic}/records"
"""The native way's own path, a route while `http.native` is true."""
MOST_KEY_NAMES = 8
"""How deep in the content a key may be: each name is looked for in what may be all of it."""
KEY_FIELD_BYTES = 256
"""The most bytes of a `key_field`, in a route and in a request."""

_OTHER_PLACEHOLDERS = ("{partition}", "{cluster}")
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/{}-]*")


class Route(Section, frozen=True):
    """One request target and the topic behind it: `[[routes]]` in the file."""

    path: str
    """The request target's path: fixed (`/clicks`), or with a placeholder (`/in/{topic}`).  Beside that one
    there may be `{partition}`, and `{cluster}`, which is not looked at."""
    topic: str | None = None
    """The topic written to; required unless the path has the placeholder, forbidden if it has."""
    format: _Text | None = None
    """The name of the format of every request; unset, it is that of the REST Proxy where the path is one of
    its paths, and else the media type says which one it is."""
    key_field: _Text | None = None
    """The JSON field that becomes the key where the request does not say: `user.id`, 8 names and 256 bytes
    at most.  Not for the REST Proxy's formats."""
    v2_dialect: Dialect | None = None
    """Whose answers REST Proxy v2 gives here; unset, those of `compat.v2_dialect`.  A route is one of its two
    paths, and both need it.  Not for another format."""
    promise: Literal["delivered", "queued"] = "delivered"
    """What a 2xx promises: `delivered`, Kafka has it; `queued`, this process has it in memory.
    Not for `rest_v3` and `rest_v3_batch`, which always wait for Kafka."""
    respond_async: bool = True
    """Whether `Prefer: respond-async` is honoured: 202 once the record is in the pipeline."""
    when_full: Literal["reject", "wait"] = "reject"
    """What a request meets while there is no room: 503 at once, or a bounded wait."""
    wait_seconds: _Seconds = 5.0
    """Seconds that `when_full = "wait"` waits at most."""
    content_coding: Literal["inflate", "keep"] = "inflate"
    """What becomes of compressed content: `inflate`, it is inflated; `keep`, it is the value as it came, and
    `Content-Encoding` becomes a header."""
    cors_allow_origins: Sequence[str] | None = None
    """In place of `cors.allow_origins` on this route, and not beside it; unset, that one.

    The other three are on their own: what is unset of them is that of `cors` for these origins too.
    """
    cors_allow_credentials: bool | None = None
    """In place of `cors.allow_credentials` on this route; unset, that one."""
    cors_max_age_seconds: Annotated[int, Meta(ge=0)] | None = None
    """In place of `cors.max_age_seconds` on this route; unset, that one."""
    cors_expose_fields: Sequence[str] | None = None
    """In place of `cors.expose_fields` on this route; unset, that one."""

    def _called(self, option: str) -> str:
        return f"routes: {self.path!r}: {option}"

    def __post_init__(self) -> None:
        super().__post_init__()
        segments = self.path.split("/")[1:]
        called = f'routes: "{self.path}"'
        if not _PATH.fullmatch(self.path):
            raise ConfigError(f'{called}: a path begins with "/" and holds no query, blank or raw non-ASCII')
        if "" in segments[:-1] or not {".", ".."}.isdisjoint(segments):
            raise ConfigError(f'{called}: a path has no empty, "." or ".." segment')
        placeholders = [segment for segment in segments if "{" in segment or "}" in segment]
        others = [placeholder for placeholder in placeholders if placeholder not in _OTHER_PLACEHOLDERS]
        if others not in ([], ["{topic}"]) or len({*placeholders}) < len(placeholders):
            raise ConfigError(f'{called}: the one placeholder is "{{topic}}", a whole segment, once')
        if others and self.topic is not None:
            raise ConfigError(f'{called}: topic = "{self.topic}": the path names the topic; leave this out')
        if not others and self.topic is None:
            raise ConfigError(f'{called}: a topic is required, or the placeholder "{{topic}}" in the path')
        if self.topic is not None:
            check_topic(f"{called}: topic", self.topic)
        if self.key_field is not None and self.content_coding == "keep":
            raise ConfigError(
                f'{called}: key_field = "{self.key_field}": cannot be found in compressed content, which '
                'content_coding = "keep" leaves as it is; one of them has to go'
            )
        if self.key_field is not None and not all(self.key_field.split(".")):
            raise ConfigError(f'{called}: key_field = "{self.key_field}": must be written like user.id')
        if self.key_field is not None and self.key_field.count(".") >= MOST_KEY_NAMES:
            raise ConfigError(f"{called}: key_field: {MOST_KEY_NAMES} names are the most")
        if self.key_field is not None and len(self.key_field.encode()) > KEY_FIELD_BYTES:
            raise ConfigError(
                f'{called}: key_field = "{self.key_field[:60]}…": must have at most {KEY_FIELD_BYTES} bytes'
            )
