"""Base64 as other servers take it: without padding, and with white space in it.

msgspec reads it strictly and fast.  Only what it refuses is read a second time, as strings, and decoded here.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from typing import TypeVar

import msgspec

REFUSED = "Invalid base64 encoded string"
"""How msgspec's refusal begins."""

B = TypeVar("B")
"""What a value in base64 is read as: bytes, or the string that it is written as."""
S = TypeVar("S")
L = TypeVar("L")

_WHITE_SPACE = b" \t\n\r\v\f"


def read_leniently(
    text: bytes, strict: Callable[[bytes], S], loose: Callable[[bytes], L], decode: Callable[[L], S]
) -> S:
    """What `strict` reads; where it refuses base64, what `loose` reads with strings that `decode` decodes.

    Raises what `strict` raises.
    """
    try:
        return strict(text)
    except msgspec.ValidationError as error:
        if REFUSED not in str(error):
            raise
    return decode(loose(text))


def from_base64(text: str | None, place: str = "", *at: object) -> bytes | None:
    """The bytes; white space does not count, and padding may be missing (RFC 4648, section 3.2).

    Raises `msgspec.ValidationError` that says where, as msgspec does: `place` with `at` in it.
    """
    if text is None:
        return None
    try:
        data = text.encode("ascii").translate(None, _WHITE_SPACE)
        # CPython's strict mode passes over padding that is too long.
        digits = data.rstrip(b"=")
        padding = b"=" * (-len(digits) % 4)
        if len(data) - len(digits) > len(padding):
            raise ValueError("too much padding")
        return binascii.a2b_base64(digits + padding, strict_mode=True)
    except ValueError:
        where = f" - at `{place % at}`" if place else ""
        raise msgspec.ValidationError(f"{REFUSED}{where}") from None
