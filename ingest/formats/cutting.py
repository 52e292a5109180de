"""JSON text cut into its objects as it comes: brackets and strings are looked at, and nothing is read."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Sequence

import msgspec

from ingest.errors import BadRequest, IngestError, InvalidRecord, TooLarge, shown
from ingest.formats.keys import check_json, json_fault

TOKENS_AT_ONCE = 4_000
"""How many brackets are looked at before others get their turn, which is about a millisecond's work."""

STEP_BYTES = 16_384
"""How much of a large array is cut at a time."""
FRAME_BYTES = 262_144
"""The most bytes of an object beside the one array that is cut."""
_STANDS_FOR_ARRAY = b'["%b"]' % secrets.token_hex(16).encode()
"""Another one in each process, so that nobody can send it."""
BESIDE_BYTES = 4_096
"""How many bytes of an object are left beside its record's, in whatever way that is written: names, types."""
MOST_AT_ONCE = 500
"""The most objects that are handed out at a time."""

MOST_NESTED = 900
"""How deep an object may be nested, give or take the few brackets that are skipped at once; it could not be
read where it is much deeper."""
_OPEN_AT_ONCE = 256
"""How many brackets are looked at together."""
_LOOK_BYTES = 16_384
"""How much text is: what is nested in it may be gone through once for each bracket around it."""

_STRING = rb'[^"\\]*+(?:\\.[^"\\]*+)*+'


def _skipped(depth: int) -> bytes:
    """A pattern of what has no bracket, or brackets nested no deeper than `depth`."""
    nested = rb"|\{%b\}|\[%b\]" % (2 * (_skipped(depth - 1),)) if depth else b""
    return rb'(?:[^"{}\[\]]++|"%b"%b)*+' % (_STRING, nested)


# What can be skipped at once, and then brackets that open, each with what can be skipped behind it, or some
# that close, or the beginning of a string without an end.
_SKIPPED = _skipped(4)
_NEXT = re.compile(
    rb'%b(?:((?:[{\[]%b){1,%d}+)|([}\]]++)|("))?' % (_SKIPPED, _SKIPPED, _OPEN_AT_ONCE), re.DOTALL
)
_STRING_REST = re.compile(_STRING, re.DOTALL)
_WHOLE_STRING = re.compile(rb'"%b"' % _STRING, re.DOTALL)
_BLANK = re.compile(rb"[ \t\r\n]*+")
_INDEX, _BYTE = re.compile(r"`\$\[(\d+)\]"), re.compile(r"\(byte (\d+)\)")
"""How msgspec says where something was wrong."""


class Cutter:
    """Objects one after another, with nothing but white space between them, or the objects of one array."""

    def __init__(self, most_bytes: float, *, array: bool = False) -> None:
        """`most_bytes` is the most of one object; `array` says that nothing but an array may come."""
        self._most_bytes = most_bytes
        self._text = bytearray()
        self._at = 0  # where to look on
        self._depth = 0  # of brackets, within an object
        self._in_string = False
        self._array = array
        self._expected = b"[" if array else b"{["
        self.cut_bytes = 0
        """Bytes of the text up to the end of the last object, or of the array."""
        self.ended = False
        """Whether the array has ended; nothing may come behind it."""

    @property
    def held_bytes(self) -> int:
        """Bytes that are kept of an object that has begun, or were not looked at yet."""
        return len(self._text)

    def feed(self, data: bytes) -> None:
        """Take more of the text."""
        self._text += data

    def next(self) -> bytes | None:
        """The next object; None where its end has not come, and b"" where others are to have their turn.

        Raises `BadRequest` for what is no object where one has to be, and `TooLarge`.
        """
        text = self._text
        if not self._depth and not self._begin():
            return None
        left = TOKENS_AT_ONCE
        while left > 0:
            if self._in_string:
                self._at = _STRING_REST.match(text, self._at).end()  # type: ignore[union-attr]  # always matches
                if self._at == len(text) or text[self._at] != ord('"'):
                    break
                self._in_string = False
                self._at += 1
            end = self._at + _LOOK_BYTES
            skipped = _NEXT.match(text, self._at, end)
            assert skipped is not None  # noqa: S101  # it matches nothing, too
            self._at = skipped.end()
            opened, closed, quote = skipped.groups()
            if opened is not None:
                left -= self._open(opened)
            elif closed is not None:
                left -= 1
                if len(closed) >= self._depth:
                    self._at -= len(closed) - self._depth
                    found = bytes(text[: self._at])
                    self._depth = 0
                    self._drop(self._at)
                    self._expected = b",]" if self._array else b"{"
                    return found
                self._depth -= len(closed)
            elif quote is not None:
                left -= 1
                self._in_string = True
            elif end >= len(text):
                break
        else:
            return b""
        if len(text) > self._most_bytes:
            raise TooLarge(
                f"an object has more than {self._most_bytes} bytes, which is the most here: twice "
                f"limits.record_bytes, or what the topic takes if that is less, and {BESIDE_BYTES}"
            )
        return None

    def _open(self, opened: bytes) -> int:
        """Count brackets that stay open, among some that do not; as how many tokens that counts."""
        brackets = _WHOLE_STRING.sub(b"", opened) if b'"' in opened else opened
        ends = brackets.count(b"]") + brackets.count(b"}")
        more = brackets.count(b"[") + brackets.count(b"{") - ends
        self._depth += more
        if self._depth > MOST_NESTED:
            raise BadRequest(
                f"invalid JSON: nested too deeply; about {MOST_NESTED} brackets in one another are the most"
            )
        return 1 + len(opened) // 4

    def end(self) -> None:
        """The text has come to its end.  Raises `BadRequest` where that is too soon, or too late."""
        if self._depth or self._begin() or (self._array and not self.ended):
            raise BadRequest("invalid JSON: it ends too soon")

    def _begin(self) -> bool:
        """Go to the beginning of an object; False where it has not come."""
        text = self._text
        while True:
            self._drop(_BLANK.match(text).end())  # type: ignore[union-attr]  # it matches nothing, too
            if not text:
                return False
            mark = text[:1]
            if mark not in self._expected or self.ended:
                raise BadRequest(
                    f"invalid JSON: {bytes(text[:20]).decode('ascii', 'replace')!a} where "
                    f"{'nothing more' if self.ended else ' or '.join(map(chr, self._expected))} has to be"
                )
            if mark == b"{":
                self._at = self._depth = 1
                return True
            if mark == b"[":
                self._array = True
                self._expected = b"{]"
            elif mark == b"]":
                self.ended = True
            else:
                self._expected = b"{"
            self._drop(1)
            if self.ended:
                return False

    def _drop(self, size: int) -> None:
        del self._text[:size]
        self.cut_bytes += size
        self._at = 0


def most_bytes(record_bytes: int) -> int:
    """The most bytes of the object of a record of `record_bytes`.

    Base64 is four thirds of what it stands for, and an escaped character up to six bytes.
    """
    return 2 * record_bytes + BESIDE_BYTES


def find_array(content: bytes, name: str) -> int | None:
    """Where the array begins that is the value of `name`, if it is within the first `FRAME_BYTES`."""
    pattern = rb'"%b"[ \t\r\n]*+:[ \t\r\n]*+(?=\[)' % name.encode()
    match = re.compile(pattern).search(content, 0, FRAME_BYTES)
    return None if match is None else match.end()


def begins_object(content: bytes) -> bool:
    """Whether an object begins in the first `FRAME_BYTES` of `content`, behind nothing but white space."""
    return content[:FRAME_BYTES].lstrip().startswith(b"{")


class ArrayInSteps:
    """The objects of one array that is somewhere in `content`, some at a time."""

    def __init__(self, content: bytes, most_bytes: int, called: str, begin: int = 0) -> None:
        """`most_bytes` is the most of one object, and `called` what messages call it.

        The array begins at `begin`, perhaps behind white space.
        """
        self._content = content
        self._called = called
        self._most_bytes = most_bytes
        self._begin = begin
        self.end = begin
        """Where the array ends; known once all objects have been handed out."""
        self.before = 0
        """How many objects were handed out before the last ones; in the end, all."""

    def __iter__(self) -> Iterator[list[bytes]]:
        """At most `MOST_AT_ONCE` objects, or about `STEP_BYTES`, or none where others are to have their turn.

        Raises `BadRequest` for anything but an array of objects, and `TooLarge`.
        """
        cutter = Cutter(self._most_bytes, array=True)
        objects: list[bytes] = []
        size = 0
        try:
            for at in range(self._begin, len(self._content), STEP_BYTES):
                cutter.feed(self._content[at : at + STEP_BYTES])
                while (found := cutter.next()) is not None:
                    if found:
                        objects.append(found)
                        size += len(found)
                    if len(objects) == MOST_AT_ONCE or size > STEP_BYTES or not found:
                        yield objects
                        self.before += len(objects)
                        objects, size = [], 0
                if cutter.ended:
                    break
                yield []
            if not cutter.ended:
                cutter.end()
        except (BadRequest, TooLarge) as error:
            if not cutter.cut_bytes:
                raise  # it is no array
            number = self.before + len(objects) + 1
            raise type(error)(f"{self._called} {number}: {error.message}") from None
        self.end = self._begin + cutter.cut_bytes
        yield objects
        self.before += len(objects)

    def fault(self, error: Exception, objects: Sequence[bytes], name: str) -> str:
        """What was wrong with `objects`, the last ones, and where in all of the array, the value of `name`.

        `error`, one of `JSON_FAULTS`, is what reading them as one array raised.
        """
        if isinstance(error, msgspec.ValidationError):
            return _INDEX.sub(lambda place: f"`$.{name}[{self.before + int(place[1])}]", shown(str(error)))
        for number, text in enumerate(objects, self.before + 1):
            try:
                check_json(text)
            except InvalidRecord as wrong:
                return f"{self._called} {number}: {wrong.message}"
        return f"invalid JSON: {json_fault(error)}"

    def check_frame(self, read_array: Callable[[bytes], bytes], rule: str, none: IngestError) -> None:
        """Hold what is around the array against what it has to be; once all objects have been handed out.

        `read_array` reads an object and returns the text of the array in it.  Raises what that raises,
        `UnicodeDecodeError`, `TooLarge` where there are more than `FRAME_BYTES`, `none` where the object has
        no such array, and `BadRequest` with the `rule` where the array that was found is not the one.
        """
        if self._begin + len(self._content) - self.end > FRAME_BYTES:
            raise TooLarge(f"there are more than {FRAME_BYTES} bytes beside the records, which is the most")
        frame = self._content[: self._begin] + _STANDS_FOR_ARRAY + self._content[self.end :]
        frame.decode()
        try:
            found = read_array(frame)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError as error:
            raise msgspec.DecodeError(_BYTE.sub(self._placed, str(error))) from None
        if found in (b"", b"null", b"[]"):
            raise none
        if found != _STANDS_FOR_ARRAY:
            raise BadRequest(rule)

    def _placed(self, place: re.Match[str]) -> str:
        """The place in the content that is at this place in its frame."""
        at = int(place[1])
        missing = self.end - self._begin - len(_STANDS_FOR_ARRAY)
        return f"(byte {at + missing if at > self._begin else at})"
