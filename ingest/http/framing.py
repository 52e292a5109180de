"""The strict reading of RFC 9112 in front of every engine: where a message begins and ends, or is refused.

The stream is cut into messages here, by the rules of `ingest.http.heads`; chunk-size lines and
trailers are read, and content is handed on without its coding.  An engine is asked to take apart one
head at a time, after that head was found to be in order, so that no parser's leniency decides anything.
This is no writer: see `ingest.http.writing`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import TypeAlias

from ingest.errors import BadFraming, HeadTooLarge, IngestError
from ingest.http.heads import HEAD_BYTES, TOKEN, VALUE, check_request_line, check_trailers, read_head, shown
from ingest.http.messages import Content, Fields, Request
from ingest.http.protocol import Event, Signal

CHUNK_LINE_BYTES = 256
"""Bytes of a chunk-size line with its extensions and CRLF (RFC 9112, 7.1.1 asks for some limit)."""

CHUNKS_AT_ONCE = 256
"""How many chunks become one piece of content: a read of 64 KiB can have ten thousand."""

REMEMBERED_HEADS = 256
"""How many heads that were found to be in order are remembered with what they say."""
REMEMBERED_BYTES = 1024
"""The largest of them: together they take about a megabyte."""

Parts: TypeAlias = tuple[bytes, bytes, Fields]
"""A head taken apart: method, request target, fields."""

# Only what can be known before the end of a section: CR and LF apart, and controls other than HTAB.
_NEVER_IN_A_SECTION = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

# RFC 9112, 7.1.1.  Stricter: no white space around ";" and "=", and at most 16 digits.
_CHUNK_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,16})"
    rb"(?:;" + TOKEN + rb"++"
    rb"(?:=(?:" + TOKEN + rb'++|"(?:[\t !#-\[\]-~\x80-\xff]|\\' + VALUE + rb')*+"))?+)*+\r\n'
)


def _read_request(parse_head: Callable[[bytes], Parts], head: bytes) -> Request:
    version, length, expects_continue, keep_alive = read_head(head)
    method, target, fields = parse_head(head)
    return Request(
        method.decode("ascii"), target, version, fields, length, expects_continue, keep_alive, len(head)
    )


# A client sends the same head again and again, and the same bytes are the same request.
_known: dict[tuple[Callable[[bytes], Parts], bytes], Request] = {}


class _State(enum.Enum):
    """What the next bytes are; the value completes "the stream ended in ..."."""

    HEAD = "a head"
    CONTENT = "content whose Content-Length promises more"
    CHUNK_LINE = "a chunk-size line"
    CHUNK_DATA = "a chunk's data"
    CHUNK_END = "the CRLF behind a chunk's data"
    TRAILERS = "a trailer section"
    END = "nothing"


class MessageReader:
    """Cuts a client's stream into requests and gives one request's events at a time.

    `parse_head` is the engine: it is called with one whole head that this module found to be in
    order, and returns method, request target and fields (names in lower case, values stripped).
    """

    __slots__ = (
        "_buffer",
        "_closed",
        "_left",
        "_line_checked",
        "_parse_head",
        "_scanned",
        "_skipped_empty_line",
        "_start",
        "_state",
        "error",
        "request",
    )

    request: Request | None
    """The current request, from its `Request` event to `start_next_message`."""
    error: IngestError | None
    """Why reading failed; nothing can be read after it."""

    def __init__(self, parse_head: Callable[[bytes], Parts]) -> None:
        self.request = None
        self.error = None
        self._parse_head = parse_head
        self._buffer: bytes | bytearray = b""
        self._start = 0  # what lies before it in the buffer was handed out
        self._closed = False
        self._state = _State.END
        self.start_next_message()

    @property
    def at_end(self) -> bool:
        """Whether the current request was read to its end."""
        return self._state is _State.END

    @property
    def waiting_bytes(self) -> int:
        """How many bytes wait that are no event yet."""
        return len(self._buffer) - self._start

    def receive_data(self, data: bytes | bytearray) -> None:
        """Take bytes from the socket; b"" is the end of the stream.

        `bytes` that arrive while nothing waits are kept as they are, without a copy.
        """
        if not data:
            self._closed = True
            return
        if self._closed:
            raise RuntimeError(f"{len(data)} bytes were received after the end of the stream")
        if self._start == len(self._buffer):
            self._buffer = bytes(data)
        else:
            if isinstance(self._buffer, bytearray):
                del self._buffer[: self._start]
            else:
                self._buffer = bytearray(memoryview(self._buffer)[self._start :])
            self._buffer += data
        self._start = 0

    def next_event(self) -> Event:
        """The next part of the current request; see `HTTPProtocol.next_event`."""
        if self.error is not None:
            raise type(self.error)(self.error.message)
        try:
            event = self._read_known_head() or self._read()
            if event is Signal.NEED_DATA and self._closed:
                return self._read_end_of_stream()
        except IngestError as error:
            # A copy: with its traceback the error would hold this reader, which holds the error.
            self.error = type(error)(error.message)
            raise
        self._let_go()
        return event

    def _let_go(self) -> None:
        """An idle connection holds nothing."""
        if self._start == len(self._buffer):
            self._buffer, self._start = b"", 0

    def take_content(self) -> bytes | None:
        """The content, or the rest of it, if its length is known and all of it is here; else None.

        The request is complete then.
        """
        end = self._start + self._left
        if self._state is not _State.CONTENT or end > len(self._buffer):
            return b"" if self._state is _State.END else None
        data = bytes(self._buffer[self._start : end])
        self._state = _State.END
        self._start = end
        self._let_go()
        return data

    def whole(self, data: bytes) -> tuple[Request, bytes] | None:
        """The request that `data` is, and its content, where it would be read as nothing but that.

        Only for a head that is remembered, and between two requests.  Nothing is taken: who does not
        answer it goes on with `receive_data`.
        """
        if self._state is not _State.HEAD or self._buffer or self._skipped_empty_line:
            return None
        end = data.find(b"\r\n\r\n", 0, REMEMBERED_BYTES) + 4
        request = _known.get((self._parse_head, data[:end]))
        if request is None or request.content_length != len(data) - end:
            return None
        return request, data[end:]

    def start_next_message(self) -> None:
        """Look at what lies behind the current request; only at its end."""
        if self._state is not _State.END:
            raise RuntimeError("the current request was not read to its end")
        self.request = None
        self._state = _State.HEAD
        self._left = 0  # bytes of content, or of this chunk, still to come
        self._scanned = 0  # bytes behind _start in which the section's end is not
        self._skipped_empty_line = self._line_checked = False

    def _read(self) -> Event:
        if self._state is _State.HEAD:
            return self._read_head()
        if self._state is _State.CONTENT:
            return self._read_content()
        if self._state is _State.END:
            return Signal.END_OF_MESSAGE
        return self._read_chunked()

    def _read_end_of_stream(self) -> Event:
        waiting = self.waiting_bytes
        if self._state is _State.HEAD and not waiting:
            return Signal.END_OF_STREAM
        raise BadFraming(f"the stream ended in {self._state.value}; a message must be complete")

    def _take(self, size: int) -> bytes:
        piece = bytes(self._buffer[self._start : self._start + size])
        self._start += len(piece)
        return piece

    # The head --------------------------------------------------------------------------------------

    def _read_known_head(self) -> Request | None:
        """A request whose head is the first in the buffer and is remembered: what `_read_head` would give."""
        if self._state is not _State.HEAD:
            return None
        buffer, start = self._buffer, self._start
        end = buffer.find(b"\r\n\r\n", start, start + REMEMBERED_BYTES) + 4
        if end < 4:
            return None
        request = _known.get((self._parse_head, bytes(buffer[start:end])))
        if request is not None:
            self._begin_content(request, end)
        return request

    def _read_head(self) -> Request | Signal:
        buffer, start = self._buffer, self._start
        # RFC 9112, 2.2: ignore at least one empty line before the request line.  Stricter: only one.
        if not self._skipped_empty_line and buffer.startswith(b"\r", start):
            if len(buffer) - start == 1:
                return Signal.NEED_DATA
            if buffer.startswith(b"\r\n", start):
                self._start += 2
                self._skipped_empty_line = True
        size = self._section_size()
        if size is None:
            return Signal.NEED_DATA
        head = bytes(buffer[self._start : self._start + size])
        request = _read_request(self._parse_head, head)
        if size <= REMEMBERED_BYTES:
            if len(_known) >= REMEMBERED_HEADS:
                del _known[next(iter(_known))]
            _known[self._parse_head, head] = request
        self._begin_content(request, self._start + size)
        return request

    def _begin_content(self, request: Request, start: int) -> None:
        self.request = request
        length = request.content_length
        self._left = length or 0
        if length is None:
            self._state = _State.CHUNK_LINE
        else:
            self._state = _State.CONTENT if length else _State.END
        self._start = start

    def _section_size(self) -> int | None:
        """Bytes of the head or trailer section that begins here; None while its end is not there.

        What can be refused early is: a client that ends its lines with LF alone would wait for ever.
        The order of the checks makes the answer independent of how the stream was cut.
        """
        buffer, start = self._buffer, self._start
        limit = start + HEAD_BYTES
        end = buffer.find(b"\r\n\r\n", start + max(0, self._scanned - 3), limit)
        if end >= 0:
            return end + 4 - start
        resume = start + max(0, self._scanned - 1)
        if self._state is _State.HEAD and not self._line_checked:
            line_end = buffer.find(b"\r\n", resume, limit)
            if line_end >= 0:
                check_request_line(bytes(buffer[start:line_end]))
                self._line_checked = True
        odd = _NEVER_IN_A_SECTION.search(buffer, resume, limit)
        if odd is not None:
            raise BadFraming(
                f"{bytes(odd[0])!r} in {self._state.value}; lines end with CRLF and hold no controls"
            )
        self._scanned = len(buffer) - start
        if self._scanned >= HEAD_BYTES:
            raise HeadTooLarge(f"{self._state.value} has more than {HEAD_BYTES} bytes, which is the limit")
        return None

    # The content -----------------------------------------------------------------------------------

    def _read_content(self) -> Content | Signal:
        data = self._take(self._left)
        if not data:
            return Signal.NEED_DATA
        self._left -= len(data)
        if not self._left:
            self._state = _State.END
        return Content(data)

    def _read_chunked(self) -> Content | Signal:
        """The content of the chunks that are there, up to `CHUNKS_AT_ONCE`, as one piece.

        A piece in front of a fault is given first; the fault is met again by the next call.
        """
        pieces: list[bytes | bytearray] = []
        try:
            while len(pieces) < CHUNKS_AT_ONCE and self._read_chunk_part(pieces):
                pass
        except IngestError:
            if not pieces:
                raise
        if pieces:
            return Content(b"".join(pieces))
        return Signal.END_OF_MESSAGE if self._state is _State.END else Signal.NEED_DATA

    def _read_chunk_part(self, pieces: list[bytes | bytearray]) -> bool:
        """One step of RFC 9112, 7.1; False when more data is needed or the message is complete."""
        if self._state is _State.CHUNK_DATA:
            data = self._take(self._left)
            if not data:
                return False
            pieces.append(data)
            self._left -= len(data)
            if not self._left:
                self._state = _State.CHUNK_END
            return True
        if self._state is _State.CHUNK_END:
            return self._read_chunk_end()
        if self._state is _State.CHUNK_LINE:
            return self._read_whole_chunks(pieces) or self._read_chunk_line()
        if self._state is _State.TRAILERS:
            self._read_trailers()
        return False

    def _read_whole_chunks(self, pieces: list[bytes | bytearray]) -> bool:
        """What the other steps would read of chunks that are here whole, in a fraction of their time."""
        buffer, start = self._buffer, self._start
        for _ in range(CHUNKS_AT_ONCE - len(pieces)):
            line = _CHUNK_LINE.match(buffer, start, start + CHUNK_LINE_BYTES)
            if line is None:
                break
            begin = line.end()
            size = int(line[1], 16)
            end = begin + size
            if not size or buffer[end : end + 2] != b"\r\n":
                break
            pieces.append(buffer[begin:end])
            start = end + 2
        found = start > self._start
        self._start = start
        return found

    def _read_chunk_line(self) -> bool:
        buffer, start = self._buffer, self._start
        end = buffer.find(b"\n", start, start + CHUNK_LINE_BYTES) + 1
        if not end:
            if len(buffer) - start >= CHUNK_LINE_BYTES:
                raise BadFraming(f"a chunk-size line has more than {CHUNK_LINE_BYTES} bytes")
            return False
        match = _CHUNK_LINE.fullmatch(buffer, start, end)
        if match is None:
            line = bytes(buffer[start:end])
            raise BadFraming(
                f"chunk-size line {shown(line)} is not 1 to 16 hexadecimal digits, extensions and CRLF"
            )
        self._left = int(match[1], 16)
        self._start = end
        if self._left:
            self._state = _State.CHUNK_DATA
        else:
            self._state = _State.TRAILERS
            self._scanned = 0
            self._line_checked = False
        return True

    def _read_chunk_end(self) -> bool:
        found = bytes(self._buffer[self._start : self._start + 2])
        if found == b"\r\n":
            self._start += 2
            self._state = _State.CHUNK_LINE
            return True
        if found and found != b"\r":
            raise BadFraming(f"a chunk's data is followed by {found!r}; it must be CRLF")
        return False

    def _read_trailers(self) -> None:
        """RFC 9112, 7.1.2.  Checked like a head's fields, then dropped: merging them is never safe."""
        if self._buffer.startswith(b"\r\n", self._start):
            self._start += 2
            self._state = _State.END
            return
        size = self._section_size()
        if size is None:
            return
        check_trailers(bytes(self._buffer[self._start : self._start + size]))
        self._start += size
        self._state = _State.END
