"""Reading a raw stream at the parser seam, however it is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from ingest.errors import IngestError
from ingest.http.messages import Content, Request, Response
from ingest.http.protocol import HTTPProtocol, Signal
from tests.conformance.case import Read

MakeProtocol = Callable[[], HTTPProtocol]


class Outcome(NamedTuple):
    """What became of a stream."""

    requests: list[Read]
    refused: int | None = None
    ended: bool = False
    """The stream was read to its end."""


def feed(protocol: HTTPProtocol, pieces: Iterable[bytes], *, takes: bool = True) -> Outcome:
    """Read the pieces, and answer each request, as a connection would that never closes by itself.

    `takes` says that content which has come with its head is taken at once, and a whole request as one.
    """
    return read(protocol, pieces, takes=takes)[0]


def read(
    protocol: HTTPProtocol, pieces: Iterable[bytes], *, takes: bool = True
) -> tuple[Outcome, IngestError | None]:
    """The same, and why no more was read where something was refused."""
    requests: list[Read] = []
    request: Request | None = None
    content: list[bytes] = []
    waiting = iter(pieces)
    try:
        while True:
            event = protocol.next_event()
            if isinstance(event, Request):
                request, content = event, []
                if takes and (here := protocol.take_content()) is not None:
                    content.append(here)
                    assert protocol.next_event() is Signal.END_OF_MESSAGE
            elif isinstance(event, Content):
                assert event.data
                content.append(event.data)
            elif event is Signal.NEED_DATA:
                piece = next(waiting, None)
                if piece is None:
                    return Outcome(requests), None
                whole = protocol.whole(piece) if takes else None
                if whole is None:
                    protocol.receive_data(piece)
                    continue
                known, rest = whole  # answered past the protocol
                requests.append(Read(known.method, known.target, rest))
                if not known.keep_alive:
                    return Outcome(requests, ended=True), None
            elif event is Signal.END_OF_STREAM:
                return Outcome(requests, ended=True), None
            else:
                assert request is not None
                requests.append(Read(request.method, request.target, b"".join(content)))
                request = None
                protocol.send_head(Response(204))
                protocol.end()
                if not protocol.keeps_alive:
                    return Outcome(requests, ended=True), None
                protocol.start_next_cycle()
    except IngestError as error:
        return Outcome(requests, refused=error.status), error


def bytewise(raw: bytes) -> list[bytes]:
    """One byte at a time."""
    return [raw[i : i + 1] for i in range(len(raw))]
