"""Content codings, taken off piece by piece: gzip, deflate (RFC 9110, 8.4.1) and zstd (RFC 8878, RFC 9659).

No more than is asked for is made at a time, whatever the content says about itself: a kilobyte can stand
for a megabyte, and a ratio bounds nothing.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Mapping
from typing import Protocol

from ingest.errors import BadRequest, TooLarge, UnsupportedCoding

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CODINGS = ("gzip", "deflate", "zstd")
"""The names of the codings that are read, as an Accept-Encoding field lists them."""
WINDOW_BYTES = 8 << 20
"""The longest window of zstd: what RFC 9659 lets a sender use."""
MEMBERS, MEMBER_BYTES = 100, 4_096
"""So many members of gzip, or frames of zstd, and one more for each so many bytes that were made: each
costs its making, and can be empty."""
MEMBERS_A_STEP = 8
"""How many that are empty are read in one step."""
IDLE_BYTES = 262_144
"""The most bytes of content in a row of which nothing is made: a block of zstd has half of them."""

_ZLIB_BYTES = 49_152
# What zlib's state and its window of 32 KiB take; libzstd's state, with a block that has not come to its end.
_ZSTD_BYTES = 393_216
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_ZSTD_OPTIONS: Mapping[int, int] = {zstd.DecompressionParameter.window_log_max: WINDOW_BYTES.bit_length() - 1}
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def is_coded(content_encoding: bytes | None) -> bool:
    """Whether a Content-Encoding field says that there is a coding."""
    return (content_encoding or b"identity").strip().lower() != b"identity"


def read_coding(value: bytes | None) -> str | None:
    """The one of `CODINGS` that a Content-Encoding field names; None where there is nothing to take off.

    Raises `UnsupportedCoding` for another, and for two.
    """
    if not is_coded(value):
        return None
    named = (value or b"").decode("latin-1").strip().lower()
    coding = "gzip" if named == "x-gzip" else named  # RFC 9110, 8.4.1.3: they are the same
    if coding not in CODINGS:
        raise UnsupportedCoding(
            f"content coding {named[:60]!a} is not read here; send the content as it is, or in one of "
            f"{', '.join(CODINGS)}",
            ", ".join(CODINGS),
        )
    return coding


class _Member(Protocol):
    """What zlib and libzstd have in common: one member, or frame."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class Inflater:
    """Takes one content coding off, in steps.  It may be asked in any thread, by one caller at a time.

    Members of gzip and frames of zstd that follow one another are one content.  Raises `BadRequest` for
    content that is not so coded, and `TooLarge` for members without an end and for windows that are too long.
    """

    def __init__(self, coding: str) -> None:
        """`coding` is one of `CODINGS`."""
        self._coding = coding
        self._data = b""  # has come, and nothing was made of it yet
        self._member: _Member | None = None
        self._members = 0
        self._full = False  # the last step gave all that was asked for, so there may be more
        self._idle_bytes = 0
        self._window_bytes = 0
        self._member_bytes = 0  # made in this member
        self.paused = False
        """Whether the last step made nothing only because it would have taken too long."""
        self.made_bytes = 0
        """Bytes that were made so far."""

    @property
    def needs_data(self) -> bool:
        """Whether nothing more can be made of what has come."""
        return not self._data and not self._full

    @property
    def held_bytes(self) -> int:
        """Bytes that are held for it: its state, as much of its window as was used, and what has come."""
        state = _ZSTD_BYTES if self._coding == "zstd" else _ZLIB_BYTES
        return state + min(self._window_bytes, self._member_bytes) + len(self._data)

    def feed(self, data: bytes) -> None:
        """Take what has come next."""
        self._data = self._data + data if self._data else data

    def inflate(self, most: int) -> bytes:
        """At most so many bytes of it; b"" where more has to come first, where it has ended, or `paused`."""
        end = self._members + MEMBERS_A_STEP
        self.paused = False
        while not self.needs_data:
            if self._member is None:
                if self._members == end:
                    self.paused = True
                    break
                self._member = self._next_member()
                if self._member is None:
                    break  # its head is not there whole
            before = len(self._data)
            made = self._step(self._member, most)
            self._full = len(made) == most
            self.made_bytes += len(made)
            self._member_bytes += len(made)
            self._idle_bytes = 0 if made else self._idle_bytes + before - len(self._data)
            if self._idle_bytes > IDLE_BYTES:
                raise BadRequest(f"{IDLE_BYTES} bytes of the {self._coding} content stand for nothing")
            if self._member.eof:
                self._member, self._full = None, False
            if made:
                return made
        return b""

    def end(self) -> None:
        """Whether the content could end here; raises `BadRequest` where it breaks off."""
        if self._member is not None or self._data or not self._members:
            raise BadRequest(f"the {self._coding} content breaks off before its end")

    def _step(self, member: _Member, most: int) -> bytes:
        try:
            made = member.decompress(self._data, most)
        except (zlib.error, zstd.ZstdError) as error:
            reason = str(error).removeprefix("Unable to decompress Zstandard data: ").rpartition(": ")[2]
            raise BadRequest(f"the {self._coding} content is corrupt: {reason}") from None
        # zlib gives back what it did not get to; libzstd's side keeps it.
        self._data = member.unused_data if member.eof else getattr(member, "unconsumed_tail", b"")
        return made

    def _next_member(self) -> _Member | None:
        if self._coding == "gzip":
            member: _Member | None = zlib.decompressobj(_GZIP)
        elif self._coding == "deflate":
            member = self._open_deflate()
        else:
            member = self._open_zstd()
        if member is not None:
            self._members += 1
            self._member_bytes = 0
            if self._members > MEMBERS + self.made_bytes // MEMBER_BYTES:
                raise TooLarge(
                    f"the {self._coding} content has more than {MEMBERS} members with less than "
                    f"{MEMBER_BYTES} bytes in each"
                )
        return member

    def _open_deflate(self) -> _Member | None:
        """In zlib's format (RFC 1950), as RFC 9110 says, or without it (RFC 1951), as some clients send."""
        if self._members:
            raise BadRequest("the deflate content goes on behind its end")
        if len(self._data) < 2:
            return None
        method, flags = self._data[:2]
        # As the first byte of raw deflate this would be a stored block with padding that nobody writes.
        is_zlib = method & 0x0F == 8 and method >> 4 <= 7 and (method << 8 | flags) % 31 == 0
        return zlib.decompressobj(_ZLIB if is_zlib else _RAW)

    def _open_zstd(self) -> _Member | None:
        window = zstd_window(self._data)
        if window is None:
            return None
        if window > WINDOW_BYTES:
            raise TooLarge(
                f"the zstd content asks for a window of {window} bytes; {WINDOW_BYTES} is the most (RFC 9659)"
            )
        self._window_bytes = window
        return zstd.ZstdDecompressor(options=_ZSTD_OPTIONS)


def zstd_window(head: bytes) -> int | None:
    """The window that a frame of zstd asks for, in bytes; None where more of its head is needed.

    RFC 8878, 3.1.1.1.  What is no frame with a head asks for none: the library says what it is.
    """
    if not head.startswith(_ZSTD_MAGIC):
        return None if _ZSTD_MAGIC.startswith(head) else 0
    if len(head) < 6:
        return None
    descriptor = head[4]
    if not descriptor & 0x20:
        exponent, mantissa = head[5] >> 3, head[5] & 7
        base = 1 << 10 + exponent
        return base + base // 8 * mantissa
    # A single segment: the window is the whole content.
    start = 5 + (0, 1, 2, 4)[descriptor & 3]
    size = 1 << (descriptor >> 6)
    if len(head) < start + size:
        return None
    return int.from_bytes(head[start : start + size], "little") + (256 if size == 2 else 0)
