"""The envelope of REST Proxy v2 as it is written: keys and values as JSON, in base64, or as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from ingest.formats.base64 import B, from_base64, read_leniently
from ingest.formats.plain import MOST_HEADERS

_NULL = b"null"

T = TypeVar("T")


class _Header(Struct, Generic[B], forbid_unknown_fields=True, gc=False):
    key: str
    value: B | None = None


class Item(Struct, Generic[T, B], forbid_unknown_fields=True, gc=False):
    """One record as it is written in an envelope."""

    value: T = None  # type: ignore[assignment]  # T is one that may be None, or Raw, of which this is no value
    key: T = None  # type: ignore[assignment]
    partition: Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)] | None = None
    timestamp: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] | None = None
    headers: list[_Header[B]] | None = None


class _Envelope(Struct, Generic[T], forbid_unknown_fields=True):
    records: T = None  # type: ignore[assignment]  # as above
    # Of the kinds with a schema; not used in these.
    key_schema: Raw = Raw()
    key_schema_id: Raw = Raw()
    value_schema: Raw = Raw()
    value_schema_id: Raw = Raw()


def _as_json(value: Any) -> bytes | None:
    """JSON keys and values are written as they came, byte for byte."""
    if value is None:
        return None
    written = bytes(value)
    return None if written == _NULL else written


def _as_bytes(value: Any) -> bytes | None:
    written: bytes | None = value  # base64 is taken off already
    return written


def _as_text(value: Any) -> bytes | None:
    return None if value is None else value.encode()


class Kind:
    """One of the three ways to write keys and values."""

    def __init__(self, type_: Any, write: Callable[[Any], bytes | None]) -> None:
        self.write = write
        """A key or a value as its record has it."""
        self._encoded = write is _as_bytes
        loose: Any = str | None if self._encoded else type_
        self._whole = msgspec.json.Decoder(_Envelope[list[Item[type_, bytes]] | None]).decode
        self._items = msgspec.json.Decoder(list[Item[type_, bytes]]).decode
        self._loose_whole = msgspec.json.Decoder(_Envelope[list[Item[loose, str]] | None]).decode
        self._loose_items = msgspec.json.Decoder(list[Item[loose, str]]).decode

    def whole(self, content: bytes) -> Any:
        """An envelope."""
        return read_leniently(content, self._whole, self._loose_whole, self._decode_whole)

    def items(self, text: bytes) -> Any:
        """An array of records."""
        return read_leniently(text, self._items, self._loose_items, self._decode)

    def values(self, items: Sequence[Item[Any, bytes]]) -> list[bytes] | None:
        """What is written of records that all have a value; None where one of them is JSON's null."""
        values: list[Any]
        if self.write is not _as_json:
            write = self.write
            values = [write(item.value) for item in items]
            return values
        values = [bytes(item.value) for item in items]
        return None if _NULL in values else values

    def _decode_whole(self, envelope: Any) -> Any:
        self._decode(envelope.records, "$.records")
        return envelope

    def _decode(self, items: Any, where: str = "$") -> Any:
        """Decode what is in base64, in its place."""
        for number, item in enumerate(items or ()):
            if self._encoded:
                item.key = from_base64(item.key, "%s[%d].key", where, number)
                item.value = from_base64(item.value, "%s[%d].value", where, number)
            headers = item.headers or ()
            if len(headers) <= MOST_HEADERS:  # what has more is refused anyway
                for place, header in enumerate(headers):
                    header.value = from_base64(header.value, "%s[%d].headers[%d].value", where, number, place)
        return items


KINDS = {
    "json": Kind(Raw, _as_json),
    "binary": Kind(bytes | None, _as_bytes),
    "text": Kind(str | None, _as_text),
}
_read_frame = msgspec.json.Decoder(_Envelope[Raw]).decode


def read_frame(content: bytes) -> bytes:
    """The text of an envelope's records, which are passed over; empty where it has none."""
    records: Raw | None = _read_frame(content).records  # None where there are none, as above
    return b"" if records is None else bytes(records)
