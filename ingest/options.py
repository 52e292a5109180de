"""One option at a time: what its value may be, in types and in words, and what of it may be shown.

The options themselves are `ingest.sections`'s, and the relations between them `ingest.config`'s.
"""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

from ingest.errors import ConfigError

MASK = "********"
"""Stands for a secret."""

TOPIC_NAME = re.compile(r"(?!\.{1,2}\Z)[a-zA-Z0-9._-]{1,249}")
"""What Kafka takes as a topic's name (org.apache.kafka.common.internals.Topic)."""

_SECRET = re.compile(r"password|passphrase|secret|key\.pem|jaas|oauthbearer\.config|token(?!\.endpoint)")


def expected(type_: msgspec.inspect.Type) -> str:
    """Say what a value of this type may be; for messages and for the reference page."""
    match type_:
        case msgspec.inspect.UnionType(types=types):
            return " or ".join(expected(each) for each in types if each != msgspec.inspect.NoneType())
        case msgspec.inspect.LiteralType(values=values):
            return " or ".join(f'"{value}"' for value in values)
        case msgspec.inspect.IntType(ge=ge, le=le, gt=gt):
            return "a whole number" + _bounds(ge, le, gt)
        case msgspec.inspect.FloatType(ge=ge, le=le, gt=gt):
            return "a number" + _bounds(ge, le, gt)
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.StrType(min_length=min_length):
            return "a string" if not min_length else "a string that is not empty"
        case msgspec.inspect.ListType(item_type=item) | msgspec.inspect.CollectionType(item_type=item):
            return f"a list, each item {expected(item)}"
        case msgspec.inspect.StructType(cls=cls):
            return f"an {cls.__module__}.{cls.__qualname__}"
    raise AssertionError(type_)


def _bounds(ge: float | None, le: float | None, gt: float | None) -> str:
    if ge is not None and le is not None:
        return f" from {ge} to {le}"
    if gt is not None:
        return f" above {gt:g}"
    return "" if ge is None else f" of at least {ge}"


def convert(name: str, value: object, type_: object, *, strict: bool = True) -> Any:
    """Make a `type_` of `value`; `strict=False` reads numbers and booleans out of strings.

    Raises ConfigError, which calls the option `name`.
    """
    try:
        converted = msgspec.convert(value, type_, strict=strict)
    except msgspec.ValidationError:
        right = expected(msgspec.inspect.type_info(type_))
        raise ConfigError(f"{name} = {shown(name, value)}: must be {right}") from None
    if isinstance(converted, float) and not math.isfinite(converted):
        raise ConfigError(f"{name} = {shown(name, value)}: must be finite")
    return converted


def shown(name: str, value: object) -> str:
    """Write `value` as a message or a page may show it: masked where the option `name` is a secret."""
    if is_secret(name):
        return f'"{MASK}"'
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError):
        return repr(value)


def is_secret(name: str) -> bool:
    """Tell whether the setting `name` holds a secret; a `*_file` setting only says where one is."""
    lower = name.lower().replace("_", ".")
    return _SECRET.search(lower) is not None and not lower.endswith((".file", ".location"))


def check_topic(name: str, topic: str) -> None:
    """Hold `topic`, the value of the option `name`, against Kafka's rule; raises ConfigError."""
    if not TOPIC_NAME.fullmatch(topic):
        raise ConfigError(
            f'{name} = {shown(name, topic)}: a topic has 1 to 249 of a-z, A-Z, 0-9, ".", "_" and "-", '
            'and is neither "." nor ".."'
        )
    if topic.startswith("__"):
        raise ConfigError(f'{name} = "{topic}": topics that begin with "__" are internal to Kafka')


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options that belong together; each value is converted to its type."""

    def _called(self, option: str) -> str:
        return f"{type(self).__name__.lower()}.{option}"

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            converted = convert(self._called(field.name), value, field.type)
            if isinstance(converted, list):
                converted = tuple(converted)
            msgspec.structs.force_setattr(self, field.name, converted)
