"""The rules of the strict reading, each as a change to its source text that takes it out or moves it.

What the syntax shows (a `raise`, a condition) is found by `tests.conformance.mutants`; these are the
parts of expressions, the limits, and changes that somebody might make in good faith.
"""

from __future__ import annotations

from typing import NamedTuple

HEADS, FRAMING = "ingest.http.heads", "ingest.http.framing"


class Mutant(NamedTuple):
    """`module` with `new` in place of the `old` text, which occurs once."""

    name: str
    module: str
    old: str
    new: str


def heads(name: str, old: str, new: str) -> Mutant:
    return Mutant(name, HEADS, old, new)


def framing(name: str, old: str, new: str) -> Mutant:
    return Mutant(name, FRAMING, old, new)


RULES = [
    # What heads are made of.
    heads("a head may have 32 KiB less one", "HEAD_BYTES = 32 * 1024", "HEAD_BYTES = 32 * 1024 - 1"),
    heads("a head may have 32 KiB and one", "HEAD_BYTES = 32 * 1024", "HEAD_BYTES = 32 * 1024 + 1"),
    heads("99 fields", "HEAD_FIELDS = 100", "HEAD_FIELDS = 99"),
    heads("101 fields", "HEAD_FIELDS = 100", "HEAD_FIELDS = 101"),
    heads("brackets in tokens", "|~0-9A-Za-z]", "|~0-9A-Za-z()]"),
    heads("quotes in tokens", "|~0-9A-Za-z]", '|~0-9A-Za-z\\"]'),
    heads("slashes in tokens", "|~0-9A-Za-z]", "|~0-9A-Za-z/]"),
    heads("obs-text in tokens", "|~0-9A-Za-z]", r"|~0-9A-Za-z\x80-\xff]"),
    heads("NUL in tokens", "|~0-9A-Za-z]", r"|~0-9A-Za-z\0]"),
    heads("no capitals in tokens", "|~0-9A-Za-z]", "|~0-9a-z]"),
    heads("no digits in tokens", "|~0-9A-Za-z]", "|~A-Za-z]"),
    heads("NUL in values", r"[\t -~\x80-\xff]", r"[\0\t -~\x80-\xff]"),
    heads("vertical tab in values", r"[\t -~\x80-\xff]", r"[\t\x0b -~\x80-\xff]"),
    heads("DEL in values", r"[\t -~\x80-\xff]", r"[\t -\xff]"),
    heads("CR in values", r"[\t -~\x80-\xff]", r"[\t\r -~\x80-\xff]"),
    heads("LF in values", r"[\t -~\x80-\xff]", r"[\t\n -~\x80-\xff]"),
    heads("no tab in values", r"[\t -~\x80-\xff]", r"[ -~\x80-\xff]"),
    heads("no obs-text in values", r"[\t -~\x80-\xff]", r"[\t -~]"),
    heads("empty names", 'TOKEN + rb"++:"', 'TOKEN + rb"*+:"'),
    heads("space before the colon", 'TOKEN + rb"++:"', 'TOKEN + rb"++ ?:"'),
    heads("tab before the colon", 'TOKEN + rb"++:"', r'TOKEN + rb"++\t?:"'),
    heads("space before the name", 'rb"(?:" + TOKEN + rb"++:"', 'rb"(?: ?" + TOKEN + rb"++:"'),
    heads("no colon", 'TOKEN + rb"++:"', 'TOKEN + rb"++:?"'),
    heads("no empty values", r'VALUE + rb"*+\r\n)"', r'VALUE + rb"++\r\n)"'),
    heads("LF ends a field line", r'VALUE + rb"*+\r\n)"', r'VALUE + rb"*+\r?\n)"'),
    heads("CR ends a field line", r'VALUE + rb"*+\r\n)"', r'VALUE + rb"*+\r\n?)"'),
    heads("folded lines", r'VALUE + rb"*+\r\n)"', r'VALUE + rb"*+\r\n(?:[ \t]" + VALUE + rb"*+\r\n)*+)"'),
    heads("methods of 31", "{1,32}+", "{1,31}+"),
    heads("methods of 33", "{1,32}+", "{1,33}+"),
    heads("empty methods", "{1,32}+", "{0,32}+"),
    heads("number sign in targets", r"[!\"$-~]++", r"[!-~]++"),
    heads("quotes refused in targets", r"[!\"$-~]++", r"[!$-~]++"),
    heads("tilde refused in targets", r"[!\"$-~]++", r"[!\"$-z]++"),
    heads("spaces in targets", r" [!\"$-~]++ HTTP", r" [ !\"$-~]+ HTTP"),
    heads("obs-text in targets", r"[!\"$-~]++", r"[!\"$-~\x80-\xff]++"),
    heads("DEL in targets", r"[!\"$-~]++", r"[!\"$-\x7f]++"),
    heads("tab in targets", r"[!\"$-~]++", r"[\t!\"$-~]++"),
    heads("two spaces before the target", r" [!\"$-~]++ HTTP", r" ++[!\"$-~]++ HTTP"),
    heads("tab before the target", r" [!\"$-~]++ HTTP", r"[ \t][!\"$-~]++ HTTP"),
    heads("two spaces before the version", r"[!\"$-~]++ HTTP", r"[!\"$-~]++ ++HTTP"),
    heads("tab before the version", r"[!\"$-~]++ HTTP", r"[!\"$-~]++[ \t]HTTP"),
    heads("no target", r" [!\"$-~]++ HTTP", r"(?: [!\"$-~]++)? HTTP"),
    heads("another protocol", "++ HTTP/", "++ [A-Z]+/"),
    heads("http in lower case", "++ HTTP/", "++ (?:HTTP|http)/"),
    heads("1.2 in a head", r'rb"(1\.[01])\r\n"', r'rb"(1\.[0-2])\r\n"'),
    heads("2.0 in a head", r'rb"(1\.[01])\r\n"', r'rb"([12]\.[01])\r\n"'),
    heads("any byte for the version's dot", r'rb"(1\.[01])\r\n"', r'rb"(1.[01])\r\n"'),
    heads("no 1.0", r'rb"(1\.[01])\r\n"', r'rb"(1\.1)\r\n"'),
    heads("LF ends the request line", r'rb"(1\.[01])\r\n"', r'rb"(1\.[01])\r?\n"'),
    heads("white space behind the version", r'rb"(1\.[01])\r\n"', r'rb"(1\.[01])[ \t]*\r\n"'),
    heads("versions of two digits", r'rb"([0-9]\.[0-9])"', r'rb"([0-9]+\.[0-9]+)"'),
    heads("any byte for an old version's dot", r'rb"([0-9]\.[0-9])"', 'rb"([0-9].[0-9])"'),
    heads("no version 0.9", r'rb"([0-9]\.[0-9])"', r'rb"([1-9]\.[0-9])"'),
    heads(
        "trailers that begin with anything",
        "_TRAILERS = re.compile(_FIELD_LINE",
        '_TRAILERS = re.compile(rb"(?s:.)*?(?:" + _FIELD_LINE + rb")"',
    ),
    # The fields that decide.
    heads("names that end in Host and so on", r'rb"\r\n(host', r'rb"[\r\n\-](host'),
    heads("names in one case", r'([^\r]*)", re.IGNORECASE', r'([^\r]*)", 0'),
    heads("Host is not looked at", "(host|", "(xhost|"),
    heads("Content-Length is not looked at", "|content-length|", "|xcontent-length|"),
    heads("Transfer-Encoding is not looked at", "|transfer-encoding|", "|xtransfer-encoding|"),
    heads("Connection is not looked at", "|connection|", "|xconnection|"),
    heads("Expect is not looked at", "|expect)", "|xexpect)"),
    heads("white space stays around values", r'append(value.strip(b" \t"))', "append(value)"),
    heads("more white space is stripped", r'append(value.strip(b" \t"))', r'append(value.strip(b" \t\xa0"))'),
    # Host.
    heads("commas and spaces in hosts", r"[0-9A-Za-z\-._~!", r"[ 0-9A-Za-z\-._~!"),
    heads("user information", r"[0-9A-Za-z\-._~!", r"[@0-9A-Za-z\-._~!"),
    heads("slashes in hosts", r"[0-9A-Za-z\-._~!", r"[/0-9A-Za-z\-._~!"),
    heads("colons in hosts", r"[0-9A-Za-z\-._~!", r"[:0-9A-Za-z\-._~!"),
    heads("number signs in hosts", r"[0-9A-Za-z\-._~!", r"[#0-9A-Za-z\-._~!"),
    heads("question marks in hosts", r"[0-9A-Za-z\-._~!", r"[?0-9A-Za-z\-._~!"),
    heads("backslashes in hosts", r"[0-9A-Za-z\-._~!", r"[\\0-9A-Za-z\-._~!"),
    heads("quotes in hosts", r"[0-9A-Za-z\-._~!", r"[\x220-9A-Za-z\-._~!"),
    heads("angle brackets in hosts", r"[0-9A-Za-z\-._~!", r"[<>0-9A-Za-z\-._~!"),
    heads("obs-text in hosts", r"[0-9A-Za-z\-._~!", r"[\x80-\xff0-9A-Za-z\-._~!"),
    heads("no underscore in hosts", r"[0-9A-Za-z\-._~!", r"[0-9A-Za-z\-.~!"),
    heads("no sub-delims in hosts", "~!$&'()*+,;=]", "~]"),
    heads("no percent-encoding", "|%[0-9A-Fa-f]{2})++)", ")++)"),
    heads("percent-encoding of one digit", "|%[0-9A-Fa-f]{2})++)", "|%[0-9A-Fa-f]{1,2})++)"),
    heads("percent signs alone", "|%[0-9A-Fa-f]{2})++)", "|%)++)"),
    heads("empty hosts before a port", "|%[0-9A-Fa-f]{2})++)", "|%[0-9A-Fa-f]{2})*+)"),
    heads("no IPv6", r"\[(?P<ipv6>", r"\[!(?P<ipv6>"),
    heads("zones", "[0-9A-Fa-f:.]{2,45}", "[0-9A-Za-z:.%]{2,45}"),
    heads("short IPv6 only", "[0-9A-Fa-f:.]{2,45}", "[0-9A-Fa-f:.]{2,4}"),
    heads("no IPv4 in IPv6", "[0-9A-Fa-f:.]{2,45}", "[0-9A-Fa-f:]{2,45}"),
    heads("ports of four digits", "(?::[0-9]{0,5})?", "(?::[0-9]{0,4})?"),
    heads("ports of six digits", "(?::[0-9]{0,5})?", "(?::[0-9]{0,6})?"),
    heads("no empty ports", "(?::[0-9]{0,5})?", "(?::[0-9]{1,5})?"),
    heads("ports of letters", "(?::[0-9]{0,5})?", "(?::[0-9a-z]{0,5})?"),
    heads("ports with a sign", "(?::[0-9]{0,5})?", "(?::-?[0-9]{0,5})?"),
    heads("two ports", "(?::[0-9]{0,5})?", "(?::[0-9]{0,5})*"),
    heads("no ports", "(?::[0-9]{0,5})?", ""),
    # Lengths and codings.
    heads("lengths of 17 digits", "len(lengths[0]) <= 18", "len(lengths[0]) <= 17"),
    heads("lengths of 19 digits", "len(lengths[0]) <= 18", "len(lengths[0]) <= 19"),
    heads(
        "lengths that int() takes",
        "lengths[0].isdigit()",
        "lengths[0].strip(b'+-').replace(b'_', b'').isdigit()",
    ),
    heads("two lengths, the first counts", "if len(lengths) == 1 and", "if"),
    heads("no coding means chunked in capitals", 'coding.lower() == b"chunked"', 'coding == b"chunked"'),
    heads(
        "a coding that begins with chunked",
        'coding.lower() == b"chunked"',
        'coding.lower().startswith(b"chunked")',
    ),
    heads(
        "a coding that ends in chunked", 'coding.lower() == b"chunked"', 'coding.lower().endswith(b"chunked")'
    ),
    heads("the last coding counts", 'b",".join(codings)', "codings[-1]"),
    heads("the first coding counts", 'b",".join(codings)', "codings[0]"),
    heads("chunked need not be last", 'parts[-1] != b"chunked" or ', ""),
    heads("chunked may come twice", ' or parts.count(b"chunked") > 1', ""),
    heads("empty codings", ' or b"" in parts', ""),
    heads("codings in one case", r'parts = [part.strip(b" \t").lower()', r'parts = [part.strip(b" \t")'),
    heads("1.0 PUT needs no length", 'b"PUT", ', ""),
    heads("1.0 PATCH needs no length", ', b"PATCH"', ""),
    heads("1.0 POST needs no length", 'b"POST", ', ""),
    # Expectation and connection.
    heads("expectations on 1.0", 'version == b"1.1" and _expects_continue', "_expects_continue"),
    heads("some expectation is 100-continue", '== {b"100-continue"}', '>= {b"100-continue"}'),
    heads("close in one case", r'options = {part.strip(b" \t").lower()', r'options = {part.strip(b" \t")'),
    heads(
        "close without a look at white space",
        r'options = {part.strip(b" \t").lower()',
        "options = {part.lower()",
    ),
    heads("close is ignored", 'b"close" not in options and ', ""),
    heads("keep-alive is ignored", ' or b"keep-alive" in options)', ")"),
    heads("1.0 keeps the connection", 'return version == b"1.1"\n', "return True\n"),
    # Framing.
    framing("lines of 255 bytes", "CHUNK_LINE_BYTES = 256", "CHUNK_LINE_BYTES = 255"),
    framing("lines of 257 bytes", "CHUNK_LINE_BYTES = 256", "CHUNK_LINE_BYTES = 257"),
    framing(
        "a chunk-size line is refused one byte late",
        "- start >= CHUNK_LINE_BYTES",
        "- start > CHUNK_LINE_BYTES",
    ),
    framing(
        "a section is refused one byte late", "self._scanned >= HEAD_BYTES", "self._scanned > HEAD_BYTES"
    ),
    framing("sizes of 15 digits", "[0-9A-Fa-f]{1,16}", "[0-9A-Fa-f]{1,15}"),
    framing("sizes of 17 digits", "[0-9A-Fa-f]{1,16}", "[0-9A-Fa-f]{1,17}"),
    framing("empty sizes", "([0-9A-Fa-f]{1,16})", "(0?[0-9A-Fa-f]{0,16})"),
    framing("letters in sizes", "([0-9A-Fa-f]{1,16})", "([0-9A-Fa-f]{1,16})g?"),
    framing("no small hexadecimal digits", "[0-9A-Fa-f]{1,16}", "[0-9A-F]{1,16}"),
    framing("sizes that int() takes", "([0-9A-Fa-f]{1,16})", r"((?:0x|\+|-)?[0-9A-Fa-f_]{1,16})"),
    framing("space behind sizes", "([0-9A-Fa-f]{1,16})", "([0-9A-Fa-f]{1,16}) ?"),
    framing("tab behind sizes", "([0-9A-Fa-f]{1,16})", r"([0-9A-Fa-f]{1,16})\t?"),
    framing("space before sizes", "([0-9A-Fa-f]{1,16})", " ?([0-9A-Fa-f]{1,16})"),
    framing("CR behind sizes", "([0-9A-Fa-f]{1,16})", r"([0-9A-Fa-f]{1,16})\r?"),
    framing("space before extensions", 'rb"(?:;" + TOKEN', 'rb"(?: ?;" + TOKEN'),
    framing("space in extensions", 'rb"(?:;" + TOKEN', 'rb"(?:; ?" + TOKEN'),
    framing("extensions without name", 'rb"(?:;" + TOKEN + rb"++"', 'rb"(?:;" + TOKEN + rb"*+"'),
    framing("CR in extensions", 'rb"(?:;" + TOKEN + rb"++"', r'rb"(?:;(?:\r|" + TOKEN + rb")++"'),
    framing("extensions that are anything", 'rb"(?:;" + TOKEN + rb"++"', r'rb"(?:;[^\n]*?"'),
    framing("no values of extensions", 'rb"(?:=(?:"', 'rb"(?:!=(?:"'),
    framing("two values of extensions", "))?+)*+", "))*+)*+"),
    framing("one extension", "?+)*+", "?+)?+"),
    framing("empty values of extensions", 'rb"(?:=(?:" + TOKEN + rb\'++', 'rb"(?:=(?:" + TOKEN + rb\'*+'),
    framing("no quotes", '|"(?:[', '|!"(?:['),
    framing("NUL in quotes", r"[\t !#-\[", r"[\0\t !#-\["),
    framing("CR in quotes", r"[\t !#-\[", r"[\r\t !#-\["),
    framing("no tab in quotes", r"[\t !#-\[", r"[ !#-\["),
    framing("no space in quotes", r"[\t !#-\[", r"[\t!#-\["),
    framing("DEL in quotes", r"\]-~\x80-\xff]", r"\]-\xff]"),
    framing("no obs-text in quotes", r"\]-~\x80-\xff]", r"\]-~]"),
    framing("no quoted pairs", r"|\\' + VALUE + rb'", ""),
    framing("anything behind a backslash", r"|\\' + VALUE + rb'", r"|\\[^\n]"),
    framing("LF ends a chunk-size line", r")*+\r\n'", r")*+\r?\n'"),
    framing("sizes are decimal", "int(match[1], 16)", "int(match[1])"),
    framing("sizes wrap around at 32 bits", "int(match[1], 16)", "int(match[1], 16) & 0xffffffff"),
    framing(
        "lengths wrap around at 32 bits",
        "self._left = length or 0",
        "self._left = (length or 0) & 0xffffffff",
    ),
    framing("LF alone is not seen early", r"(?<!\r)\n|", ""),
    framing("CR alone is not seen early", r"|\r(?!\n|\Z)", ""),
    framing("CR at the end of what has come is refused", r"\r(?!\n|\Z)", r"\r(?!\n)"),
    framing("controls are not seen early", r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", ""),
    framing("tab is taken for a control", r"[\x00-\x08\x0b", r"[\x00-\x09\x0b"),
    framing("two empty lines", "self._skipped_empty_line = True", "pass"),
    framing("the end of a head is missed at a cut", "self._scanned - 3", "self._scanned"),
    framing(
        "the end of the request line is missed at a cut",
        "self._scanned - 1)\n        if",
        "self._scanned)\n        if",
    ),
    framing(
        "LF CR LF ends a section",
        r'buffer.find(b"\r\n\r\n", start + max',
        r'buffer.find(b"\n\r\n", start + max',
    ),
    framing("the empty line is not taken", "return end + 4 - start", "return end + 2 - start"),
    framing("the limit counts from the buffer's start", "limit = start + HEAD_BYTES", "limit = HEAD_BYTES"),
    framing(
        "content ends one byte early",
        "self._left -= len(data)\n        if not self._left:\n            self._state = _State.END",
        "self._left -= len(data)\n        if self._left <= 1:\n            self._state = _State.END",
    ),
    framing(
        "LF behind a chunk's data", r'if found == b"\r\n":', r'if found[:1] == b"\n" or found == b"\r\n":'
    ),
    framing("any two bytes behind a chunk's data", r'if found == b"\r\n":', "if len(found) == 2:"),
    framing("nothing behind a chunk's data is a fault", r'and found != b"\r":', "and False:"),
    framing("no trailers", r'if self._buffer.startswith(b"\r\n", self._start):', "if True:"),
    framing(
        "trailers are not checked",
        "check_trailers(bytes(self._buffer[self._start : self._start + size]))",
        "pass",
    ),
    framing(
        "the request line is not checked early", "check_request_line(bytes(buffer[start:line_end]))", "pass"
    ),
]

_MESSAGE = "only what a message says"
_FASTER = "only faster, or less held"
_MISUSE = "a call of our own out of turn; see tests/http/test_protocol.py"
_CONTINUE = "100 (Continue) is no part of the framing; see tests/http/test_connection.py"
_STEP = "how much is read in one step; see tests/http/test_protocol.py and tests/test_streaming.py"
_EQUAL = "what follows comes to the same"
UNSEEN = {
    "shown: len(data) <= 60 is True": _MESSAGE,
    "shown: len(data) <= 60 is False": _MESSAGE,
    "_ONE_FIELD_LINE": _MESSAGE,
    "read_head: expects_continue is True": _CONTINUE,
    "read_head: expects_continue is False": _CONTINUE,
    "read_head: length != 0 is True": _CONTINUE,
    "read_head: length != 0 is False": _CONTINUE,
    "_keep_alive: not values is False": _FASTER,
    "receive_data: self._start == len(self._buffer) is False": _FASTER,
    "receive_data: isinstance(self._buffer, bytearray) is False": _FASTER,
    "_let_go: self._start == len(self._buffer) is False": _FASTER,
    "_read_chunk_part: self._read_whole_chunks(pieces) is False": _FASTER,
    "_read_whole_chunks: line is None is True": _FASTER,
    "_read_whole_chunks: not size or buffer[end:end + 2] != b'\\r\\n' is True": _FASTER,
    "_read_whole_chunks: not size is True": _FASTER,
    "_read_whole_chunks: buffer[end:end + 2] != b'\\r\\n' is True": _FASTER,
    "_read_chunked: len(pieces) < CHUNKS_AT_ONCE is True": _STEP,
    "CHUNKS_AT_ONCE": _STEP,
    "receive_data: self._closed is False": _MISUSE,
    "receive_data: no raise RuntimeError": _MISUSE,
    "start_next_message: self._state is not _State.END is False": _MISUSE,
    "start_next_message: no raise RuntimeError": _MISUSE,
    "next_event: self.error is not None is False": _MISUSE,
    "next_event: no raise type": _MISUSE,
    "_read: self._state is _State.END is False": _EQUAL,
    "_read_head: size <= REMEMBERED_BYTES is True": _EQUAL,
    "_read_head: size <= REMEMBERED_BYTES is False": _EQUAL,
    "_read_head: len(_known) >= REMEMBERED_HEADS is False": _EQUAL,
    "next_event: self._read_known_head() is False": _FASTER,
    "_read_known_head: self._state is not _State.HEAD is True": _FASTER,
    "_read_known_head: end < 4 is True": _FASTER,
    "_read_known_head: end < 4 is False": "three bytes are no head that is known",
    "take_content: self._state is not _State.CONTENT or end > len(self._buffer) is True": _FASTER,
    "take_content: self._state is not _State.CONTENT is True": _FASTER,
    "take_content: end > len(self._buffer) is True": _FASTER,
    "take_content: self._state is _State.END is False": _FASTER,
    "whole: self._state is not _State.HEAD or self._buffer or self._skipped_empty_line is True": _FASTER,
    "whole: self._state is not _State.HEAD is True": _FASTER,
    "whole: self._buffer is True": _FASTER,
    "whole: self._skipped_empty_line is True": _FASTER,
    "whole: request is None or request.content_length != len(data) - end is True": _FASTER,
    "whole: request is None is True": _FASTER,
    "whole: request.content_length != len(data) - end is True": _FASTER,
    "REMEMBERED_HEADS": _EQUAL,
    "REMEMBERED_BYTES": _EQUAL,
    "_read_head: len(buffer) - start == 1 is False": _EQUAL,
    "_read_chunk_part: self._state is _State.TRAILERS is True": _EQUAL,
    "_read_chunked: not pieces is True": "a request in front of the fault is not read to its end either way",
}
"""Changes that no stream can show, each by its name, with the reason."""
