"""The key of a record, taken from a JSON field of its value."""

from __future__ import annotations

from typing import Any

import msgspec

from ingest.errors import InvalidRecord


class _Number(str):
    """A number with a fraction or an exponent, as it was written: as a float it could lose digits."""

    __slots__ = ()


_decode = msgspec.json.Decoder(float_hook=_Number).decode


def decode_json(data: bytes) -> Any:
    """`data` as one JSON value (RFC 8259), UTF-8 included.

    Raises `InvalidRecord` that says where it goes wrong.
    """
    try:
        return _decode(data)
    except msgspec.DecodeError as error:
        raise InvalidRecord(f"invalid JSON: {str(error).removeprefix('JSON is malformed: ')}") from None
    except UnicodeDecodeError as error:
        raise InvalidRecord(f"invalid JSON: not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise InvalidRecord("invalid JSON: nested too deeply") from None


def key_at(value: Any, path: tuple[str, ...]) -> bytes:
    """The key that the field at `path`, as `("user", "id")`, gives.

    A string's UTF-8, a number as it is written, a boolean's JSON.  Raises `InvalidRecord` where there is
    no such field, or it holds null, an array or an object.
    """
    for name in path:
        if not isinstance(value, dict) or name not in value:
            raise InvalidRecord(f"there is no field {'.'.join(path)!a} to take the key from")
        value = value[name]
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, int):
        return b"%d" % value
    raise InvalidRecord(f"field {'.'.join(path)!a} cannot be a key: it is not a string, number or boolean")
