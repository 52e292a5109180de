"""Why other readers read some streams otherwise: each reason, and what is right about ours.

Where somebody refuses, the first words are who does: we are stricter than the other, or the other is than we
are.  Either is safe.  What must not be is that both go on and read another request.  These are the reasons of
Node 20.20 and Go 1.26.
"""

from __future__ import annotations

from tests.fuzz.oracles import Difference


def _we(reason: str, why: str) -> tuple[Difference, str]:
    return Difference("we refuse", reason), why


def _they(reason: str, why: str) -> tuple[Difference, str]:
    return Difference("they refuse", reason), why


_BOTH = dict(
    (
        _we(
            "request line … is not a method, a request target and HTTP/#.#",
            "No empty line, bare LF or control is taken before or in a request line (RFC 9112, 2.2 and 3 "
            "let a "
            "reader be lenient); nor a method of more than 32 characters.",
        ),
        _we(
            "Host … is not a host with an optional port",
            "RFC 9112, 3.2: an invalid Host is refused.  They take it empty or do not look at it.",
        ),
        _we(
            "the request has # Host fields; HTTP/#.# allows one",
            "RFC 9112, 3.2.  Node answers 400 too, but reads the next request on the same connection; Go "
            "lets "
            "CONNECT and PRI have none.",
        ),
        _we(
            "expectation … cannot be met; only #-continue can",
            "RFC 9110, 10.1.1.  Node answers 417 too, and reads on; Go takes an empty one for none.",
        ),
        _we(
            "a chunk-size line has more than # bytes",
            "A bound of ours on chunk extensions (RFC 9112, 7.1.1 asks for one); theirs are thousands of "
            "bytes.",
        ),
        _we(
            "chunk-size line … is not # to # hexadecimal digits, extensions and CRLF",
            "Extensions are held against RFC 9112's grammar, and the line ends with CRLF.  They pass "
            "over what is "
            "behind a semicolon; Go takes blanks and a bare LF behind the digits.",
        ),
        _we(
            "HTTP/#.# POST needs a Content-Length",
            "Content that was meant cannot be told from none: 411 (RFC 9110, 8.6).  They take it for none.",
        ),
        _we("HTTP/#.# PUT needs a Content-Length", "As for POST."),
        _we("HTTP/#.# PATCH needs a Content-Length", "As for POST."),
        _we(
            "the request has Transfer-Encoding and Content-Length; it may have one of them",
            "RFC 9112, 6.3 lets it be refused; they let the first prevail, Node an empty one.",
        ),
        _we(
            "HTTP/#.# has no Transfer-Encoding; send Content-Length",
            "RFC 9112, 6.1: framing that is faulty.  Node reads chunks, Go ignores the field.",
        ),
        _we(
            "HTTP/#.# is not spoken here; HTTP/#.# and HTTP/#.# are",
            "505.  Node takes HTTP/0.9 and 2.0 too, Go the preface of HTTP/2.",
        ),
        _we(
            "Content-Length … is not one number of # digits or less",
            "A bound of ours: 18 digits, of which the others may be zeros.",
        ),
        _we(
            "the last request was answered with close",
            "Close was asked for, in a list or beside keep-alive, or HTTP/1.0 did not ask for the "
            "opposite in a "
            "field that is one; they look for the word in another way.",
        ),
    )
)

EXPLAINED: dict[str, dict[Difference, str]] = {
    "node": _BOTH
    | dict(
        (
            _we(
                "transfer coding … is not known here; only chunked is",
                "501 (RFC 9112, 6.1): content with another coding would be stored as it is.  Node leaves "
                "it to "
                "its user.",
            ),
            _we(
                "Transfer-Encoding … does not end with chunked, once",
                "RFC 9112, 6.3.  Node takes an empty one for none.",
            ),
            _they(
                "HPE_INVALID_METHOD", "llhttp has a list of methods; a method is any token (RFC 9110, 9.1)."
            ),
            _they(
                "HPE_CLOSED_CONNECTION",
                "Node heeds Proxy-Connection: close, which is no field of a standard (RFC 9112, C.2.2).",
            ),
            _they(
                "CONNECT", "Node hands the connection over to who wants a tunnel; we answer 405 and go on."
            ),
            _they("HPE_INVALID_URL", "llhttp reads targets; here what they may be is for routing (404)."),
            _they(
                "the end of the stream",
                "Node takes what follows an Upgrade for another protocol; we ignore it (RFC 9110, 7.8).",
            ),
            _they(
                "HPE_INVALID_CONTENT_LENGTH",
                "A tab around the number: white space around a value is none of it (RFC 9110, 5.5).",
            ),
            _they(
                "HPE_INVALID_TRANSFER_ENCODING",
                "A tab behind chunked, which is white space around a value (RFC 9110, 5.5); and fields of a "
                "trailer section, which frame nothing (RFC 9110, 6.5.1).",
            ),
        )
    ),
    "go": _BOTH
    | dict(
        (
            _we(
                "field line … is not a name, a colon and a value without controls",
                "Go lets a bare LF end a line (RFC 9112, 2.2 lets a reader do so), which has been a way to "
                "smuggle.",
            ),
            _they(
                "# Bad Request",
                "Go does not skip the empty line before a request line that RFC 9112, 2.2 asks a server "
                "to skip.",
            ),
            _they(
                "# Expectation Failed",
                "HTTP/1.0 has no expectations: the field is ignored (RFC 9110, 10.1.1).",
            ),
            _they(
                "the end of the stream",
                "Go answers OPTIONS * itself, and finds close in a list where other characters stand "
                "beside it.",
            ),
            (Difference("they pass over", "OPTIONS *"), "Go answers it itself, and reads on."),
        )
    ),
}
"""By reader: each difference, and why it is none that matters."""
