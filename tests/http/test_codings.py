"""Content codings, without I/O: what senders write is read however it is cut, and nothing grows unasked."""

from __future__ import annotations

import functools
import gzip
import sys
import zlib
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import BadRequest, IngestError, TooLarge, UnsupportedCoding
from ingest.http.codings import IDLE_BYTES, MEMBERS, WINDOW_BYTES, Inflater, read_coding, zstd_window

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


gzipped = functools.partial(gzip.compress, mtime=0)
"""The same bytes each time: they are in the names of tests."""


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def zstd_stream(data: bytes, window_log: int = 21, level: int = 3) -> bytes:
    """As a sender writes it that does not know the length before: the frame names its window."""
    options: Mapping[int, int] = {
        zstd.CompressionParameter.window_log: window_log,
        zstd.CompressionParameter.compression_level: level,
    }
    compressor = zstd.ZstdCompressor(options=options)
    return compressor.compress(data) + compressor.flush()


SIMPLE: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzipped,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}
WRITERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzipped),
    "deflate": ("deflate", zlib.compress),
    "deflate, best": ("deflate", lambda data: zlib.compress(data, 9)),
    "deflate, raw": ("deflate", raw_deflate),
    "zstd": ("zstd", zstd.compress),
    "zstd, length not known": ("zstd", zstd_stream),
    "zstd, checksum": (
        "zstd",
        lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
    ),
}


def inflate(coding: str, pieces: list[bytes], most: int = 1000) -> bytes:
    """The content, never more than `most` bytes of it at once."""
    inflater = Inflater(coding)
    content = b""
    for piece in pieces:
        inflater.feed(piece)
        while (made := inflater.inflate(most)) or inflater.paused:
            assert len(made) <= most
            content += made
    inflater.end()
    assert inflater.made_bytes == len(content)
    return content


@pytest.mark.parametrize("writer", list(WRITERS))
@given(
    content=st.binary(max_size=3000) | st.text().map(lambda text: text.encode() * 50),
    wishes=st.lists(st.integers(0, 10_000), max_size=5),
    most=st.integers(1, 5000),
)
def test_what_was_coded_is_read_however_it_is_cut(
    writer: str, content: bytes, wishes: list[int], most: int
) -> None:
    coding, write = WRITERS[writer]
    coded = write(content)  # a library may write the same in another length each time
    cuts = sorted(wish % (len(coded) + 1) for wish in wishes)
    pieces = [coded[start:end] for start, end in zip([0, *cuts], [*cuts, len(coded)], strict=True)]
    assert inflate(coding, pieces, most) == content


@pytest.mark.parametrize("writer", list(WRITERS))
def test_what_comes_byte_by_byte_is_read_byte_by_byte(writer: str) -> None:
    coding, write = WRITERS[writer]
    content = b"records, records and records" * 10
    coded = write(content)
    assert inflate(coding, [coded[at : at + 1] for at in range(len(coded))], most=1) == content


@pytest.mark.parametrize("writer", list(WRITERS))
def test_content_that_breaks_off_is_refused_wherever_it_does(writer: str) -> None:
    coding, write = WRITERS[writer]
    coded = write(b"some content of a record")
    for size in range(len(coded)):
        with pytest.raises(BadRequest, match="breaks off before its end"):
            inflate(coding, [coded[:size]])


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
@given(content=st.binary(min_size=1, max_size=300), pieces=st.lists(st.binary(max_size=50), max_size=3))
def test_whatever_comes_is_content_or_a_refusal(coding: str, content: bytes, pieces: list[bytes]) -> None:
    valid = SIMPLE[coding](content)
    for coded in ([content], [valid[: len(valid) // 2], *pieces], [valid, *pieces]):
        try:
            inflate(coding, coded)
        except IngestError as error:
            assert error.status in (400, 413)
            assert coding in error.message


@pytest.mark.parametrize(
    ("coding", "coded", "message"),
    [
        ("gzip", b"not gzip at all", "the gzip content is corrupt: incorrect header check"),
        ("gzip", gzipped(b"x" * 100)[:-8] + b"\0" * 8, "gzip content is corrupt: incorrect data check"),
        ("gzip", gzipped(b"x") + b"trailing", "gzip content is corrupt"),
        ("deflate", zlib.compress(b"x")[:-4] + b"\0" * 4, "deflate content is corrupt: incorrect data check"),
        ("deflate", zlib.compress(b"x") + b"y", "the deflate content goes on behind its end"),
        ("deflate", raw_deflate(b"x") + raw_deflate(b"y"), "the deflate content goes on behind its end"),
        ("zstd", b"not zstd at all", "the zstd content is corrupt: Unknown frame descriptor"),
        ("zstd", zstd.compress(b"x" * 99)[:-3] + b"\xff" * 3, "the zstd content is corrupt"),
    ],
)  # fmt: skip
def test_corrupt_content_is_refused_and_says_why(coding: str, coded: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        inflate(coding, [coded])


@pytest.mark.parametrize(
    ("coding", "coded"),
    [
        ("gzip", gzipped(b"one ") + gzipped(b"") + gzipped(b"two")),
        ("zstd", zstd.compress(b"one ") + zstd_stream(b"") + zstd.compress(b"two")),
        # A skippable frame (RFC 8878, 3.1.2), as pzstd writes them.
        ("zstd", b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstd.compress(b"one two")),
    ],
)
def test_members_that_follow_one_another_are_one_content(coding: str, coded: bytes) -> None:
    assert inflate(coding, [coded]) == b"one two"
    assert inflate(coding, [coded[at : at + 1] for at in range(len(coded))]) == b"one two"


@pytest.mark.parametrize(("coding", "empty"), [("gzip", gzipped(b"")), ("zstd", zstd.compress(b""))])
def test_a_thousand_members_of_nothing_are_too_many(coding: str, empty: bytes) -> None:
    assert inflate(coding, [empty * MEMBERS]) == b""
    with pytest.raises(TooLarge, match=f"the {coding} content has more than {MEMBERS} members"):
        inflate(coding, [empty * 1000])


def test_members_with_enough_in_each_may_be_many() -> None:
    """As bgzip writes them."""
    content = bytes(8192)
    assert inflate("gzip", [gzipped(content) * 1000], most=65_536) == content * 1000


@pytest.mark.parametrize(
    ("coding", "coded"),
    [
        ("gzip", b"\x1f\x8b\x08\x08\0\0\0\0\0\x03" + b"a name without an end" * IDLE_BYTES),
        ("deflate", b"\0\0\0\xff\xff" * IDLE_BYTES),
        ("zstd", b"\x50\x2a\x4d\x18\xff\xff\xff\xff" + b"a frame to be skipped" * IDLE_BYTES),
    ],
    ids=["name of a gzip file", "empty blocks of deflate", "skippable frame of zstd"],
)
def test_content_that_stands_for_nothing_comes_to_an_end(coding: str, coded: bytes) -> None:
    inflater = Inflater(coding)
    with pytest.raises(BadRequest, match=f"bytes of the {coding} content stand for nothing"):
        for start in range(0, len(coded), 65_536):
            inflater.feed(coded[start : start + 65_536])
            assert inflater.inflate(65_536) == b""


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_bomb_makes_no_more_than_it_is_asked_for(coding: str) -> None:
    bomb = SIMPLE[coding](bytes(64 << 20))
    assert len(bomb) < 100_000
    inflater = Inflater(coding)
    inflater.feed(bomb)
    for _ in range(16):
        assert inflater.inflate(65_536) == bytes(65_536)
    assert inflater.held_bytes <= len(bomb) + (2 << 20)


def test_a_window_is_the_most_that_a_sender_may_use_and_no_more() -> None:
    content = b"0123456789abcdef" * 1000
    assert inflate("zstd", [zstd_stream(content, window_log=23)]) == content
    with pytest.raises(TooLarge, match=rf"asks for a window of {16 << 20} bytes; {WINDOW_BYTES} is the most"):
        inflate("zstd", [zstd_stream(content, window_log=24)])


@pytest.mark.parametrize(
    ("head", "window"),
    [
        ("28b52ffd00 58", 2 << 20),
        ("28b52ffd00 68", 8 << 20),
        ("28b52ffd00 69", 9 << 20),
        ("28b52ffd00 88", 128 << 20),
        ("28b52ffd20 05", 5),  # one segment, its length in one byte
        ("28b52ffd60 0001", 512),  # in two, which count from 256
        ("28b52ffda0 00000101", 0x01010000),
        ("28b52ffde0 00000000 00000080", 1 << 63),
        ("28b52ffda1 aa 00000001", 1 << 24),  # behind the number of a dictionary
        ("28b52ffda3 aaaaaaaa 00000001", 1 << 24),
        ("28b52ffd", None),
        ("28b52ffd00", None),
        ("28b52ffda3 aaaaaaaa 000000", None),
        ("28b5", None),
        ("", None),
        ("502a4d18", 0),  # a frame that is skipped
        ("00", 0),
    ],
)
def test_a_frame_says_in_its_head_which_window_it_asks_for(head: str, window: int | None) -> None:
    assert zstd_window(bytes.fromhex(head)) == window


def test_what_is_held_is_what_is_in_use() -> None:
    def held(made: int) -> int:
        inflater = Inflater("zstd")
        inflater.feed(zstd_stream(bytes(4 << 20)))
        before = inflater.held_bytes
        for _ in range(made // 65_536):
            inflater.inflate(65_536)
        return inflater.held_bytes - before

    assert held(0) == 0
    assert held(1 << 20) <= 1 << 20
    assert held(4 << 20) <= 2 << 20  # the window that the frame names


@pytest.mark.parametrize(
    ("value", "coding"),
    [
        (None, None), (b"", None), (b"identity", None), (b"Identity", None),
        (b"gzip", "gzip"), (b"x-gzip", "gzip"), (b"GZIP", "gzip"), (b"deflate", "deflate"), (b"zstd", "zstd"),
    ],
)  # fmt: skip
def test_codings_have_names_in_any_case(value: bytes | None, coding: str | None) -> None:
    assert read_coding(value) == coding


@pytest.mark.parametrize(
    "value", [b"br", b"gzip, gzip", b"gzip, identity", b"compress", b"\xff", b"aws-chunked"]
)
def test_another_coding_and_two_are_refused_with_those_that_are_read(value: bytes) -> None:
    with pytest.raises(
        UnsupportedCoding, match="send the content as it is, or in one of gzip, deflate, zstd"
    ):
        read_coding(value)
