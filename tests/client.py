"""A client for tests: the bytes of a request, and answers read from a stream by their own framing."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, Protocol

import trio

RECEIVE_BYTES = 65_536


def request(line: str, *fields: str, content: bytes | None = None, version: str = "1.1") -> bytes:
    """A request; `content` brings its Content-Length along."""
    lines = [f"{line} HTTP/{version}", "Host: a", *fields]
    if content is not None:
        lines.append(f"Content-Length: {len(content)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (content or b"")


def chunk(data: bytes) -> bytes:
    """One chunk; of b"" the last."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Answer(NamedTuple):
    """A response, read to its end."""

    status: int
    fields: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.content.splitlines()]

    @property
    def closes(self) -> bool:
        return self.fields.get("connection") == "close"


class Stream(Protocol):
    async def send_all(self, data: bytes) -> None: ...

    async def receive_some(self, max_bytes: int) -> bytes | bytearray: ...

    async def aclose(self) -> None: ...


class Client:
    """The client's end of a connection."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._buffer = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def ask(self, data: bytes) -> Answer:
        """Send a request and read its answer."""
        await self.send(data)
        return await self.answer(to_head=data.startswith(b"HEAD "))

    async def answer(self, *, to_head: bool = False) -> Answer:
        """The next answer; an informational one (1xx) counts as one."""
        status, fields = await self.head()
        if to_head or status < 200 or status == 204:
            return Answer(status, fields, b"")
        return Answer(status, fields, await self.content(fields))

    async def content(self, fields: dict[str, str]) -> bytes:
        """The whole content of an answer, by the fields of its head."""
        if "content-length" in fields:
            return await self._take(int(fields["content-length"]))
        content = b""
        if fields.get("transfer-encoding") == "chunked":
            while piece := await self.chunk():
                content += piece
        else:
            assert fields["connection"] == "close"
            content = await self.rest()
        return content

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and fields of the next answer, for one whose content is read as it comes."""
        lines = (await self._take_until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        version, status, *_ = lines[0].split(" ")
        assert version == "HTTP/1.1"
        fields = [line.split(": ", 1) for line in lines[1:-2]]
        names = [name.lower() for name, _ in fields]
        assert len(set(names)) == len(names)
        return int(status), dict(zip(names, (value for _, value in fields), strict=True))

    async def chunk(self) -> bytes:
        """The next chunk's data; b"" for the last chunk."""
        size = int(await self._take_until(b"\r\n"), 16)
        data = await self._take(size + 2)
        assert data.endswith(b"\r\n")
        return data[:-2]

    async def rest(self) -> bytes:
        """Everything up to the end of the stream."""
        while data := await self.stream.receive_some(RECEIVE_BYTES):
            self._buffer += data
        data, self._buffer = self._buffer, b""
        return data

    async def close(self) -> None:
        await self.stream.aclose()

    async def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._receive()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    async def _take_until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            await self._receive()
        return await self._take(self._buffer.index(end) + len(end))

    async def _receive(self) -> None:
        data = await self.stream.receive_some(RECEIVE_BYTES)
        if not data:
            raise trio.EndOfChannel(f"the server closed; {self._buffer!r} had come of an answer")
        self._buffer += data
