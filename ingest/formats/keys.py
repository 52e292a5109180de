"""JSON as far as it has to be read: whether it is JSON, and the key in one of its fields.

Nothing is made of a value that nobody asks for: objects for a megabyte of JSON take a hundred times as
long as passing over it, and everybody else would wait.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, TypedDict

import msgspec

from ingest.errors import InvalidRecord, shown

REMEMBERED_NAMES = 64
"""For how many fields' names it is remembered how they are read; making that takes as long as a request."""

JSON_FAULTS = msgspec.DecodeError, UnicodeDecodeError, RecursionError
"""What reading text that should be JSON raises."""
_GZIP = b"\x1f\x8b"
"""How gzip begins (RFC 1952), which is no UTF-8."""
_pass_over = msgspec.json.Decoder(msgspec.Raw).decode
_pass_over_lines = msgspec.json.Decoder(msgspec.Raw).decode_lines
_string = msgspec.json.Decoder(str).decode


def json_fault(error: Exception) -> str:
    """What was wrong with JSON that could not be read, in words for whoever sent it.

    `error` is what reading it raised, one of `JSON_FAULTS`.
    """
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        if error.object.startswith(_GZIP):
            return "it looks like gzip, and Content-Encoding: gzip is missing"
        return f"not UTF-8 at byte {error.start}"
    words = shown(str(error)).removeprefix("JSON is malformed: ")
    if words == "Input data was truncated":  # msgspec's for both
        return "it ends too early, or has half of a surrogate pair"
    return words


def check_json(data: bytes) -> None:
    """Whether `data` is one JSON value (RFC 8259), UTF-8 included.

    Raises `InvalidRecord` that says where it goes wrong.
    """
    try:
        data.decode()  # passing over a string does not look at its bytes
        _pass_over(data)
    except JSON_FAULTS as error:
        raise InvalidRecord(f"invalid JSON: {json_fault(error)}") from None


def are_json(text: bytes, lines: int) -> bool:
    """Whether each of so many lines of `text` is one JSON value, which `check_json` says of one.

    No for white space around a value too, for which each line has to be looked at.
    """
    try:
        values = _pass_over_lines(text)
        text.decode()
    except JSON_FAULTS:
        return False
    # A value can go on in the next line, and a line can have two.
    return len(values) == lines and b"\n".join(values) == text


def keys_at(text: bytes, path: tuple[str, ...], lines: int) -> list[bytes] | None:
    """`key_at` of each of so many lines of `text`; None where it has to be asked line by line."""
    if len(path) > 1 or not are_json(text, lines):
        return None
    (name,) = path
    try:
        try:
            return [line[name].encode() for line in _field_reader(name, str).decode_lines(text)]
        except msgspec.ValidationError:  # some are no strings
            return [_key(bytes(line[name])) for line in _field_reader(name).decode_lines(text)]
    except (msgspec.MsgspecError, ValueError, KeyError, RecursionError):
        return None


def key_at(data: bytes, path: tuple[str, ...]) -> bytes:
    """The key that the field at `path`, as `("user", "id")`, of the JSON `data` gives.

    A string's UTF-8, a number as it is written, a boolean's JSON.  Raises `InvalidRecord` where `data` is
    no JSON, there is no such field, or it holds null, an array or an object.
    """
    check_json(data)
    value: bytes | msgspec.Raw = data
    for name in path:
        try:
            value = _field_reader(name).decode(value)[name]
        except (msgspec.ValidationError, KeyError):  # no object, or one without the field
            raise InvalidRecord(f"there is no field {_shown(path)} to take the key from") from None
    try:
        return _key(bytes(value))
    except ValueError:
        raise InvalidRecord(
            f"field {_shown(path)} cannot be a key: it is not a string, number or boolean"
        ) from None


def _key(value: bytes) -> bytes:
    """The key that a JSON value is; raises `ValueError` where it is none."""
    if value.startswith(b'"'):
        return _string(value).encode()
    if value.startswith((b"n", b"[", b"{")):
        raise ValueError(value)
    return value


@functools.lru_cache(REMEMBERED_NAMES)
def _field_reader(name: str, type_: Any = msgspec.Raw) -> msgspec.json.Decoder[Mapping[str, Any]]:
    """Reads the field `name` of an object, if it is there, and passes over all others."""
    # msgspec compares with the name's UTF-8, which it finds only where somebody asked for it before.
    msgspec.json.encode(name)
    only: Any = TypedDict("only", {name: type_}, total=False)  # type: ignore[misc]  # named when it is run
    return msgspec.json.Decoder[Mapping[str, Any]](only)


def _shown(path: tuple[str, ...]) -> str:
    # Every line that fails says this to its client, so it is kept short.
    shown = ascii(".".join(path))
    return shown if len(shown) <= 66 else f"{shown[:61]}...'"
