"""Two independent readers of HTTP/1, Node's and Go's, and where and why they read otherwise than we do."""

from __future__ import annotations

import base64
import json
import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.conformance.case import Read

FOLDER = Path(__file__).parent
OPTIONS = Read("OPTIONS", b"*", b"")
"""What Go answers itself."""
SECONDS = 600.0
"""What one batch of streams may take."""


class Theirs(NamedTuple):
    """What another reader made of a stream."""

    requests: list[Read]
    refused: str | None
    """Why it read no more, in its own words; None at the end of the stream."""


class Oracle(NamedTuple):
    """A reader that is installed here."""

    name: str
    command: list[str]

    def read(self, streams: Sequence[bytes]) -> list[Theirs]:
        """What it makes of each stream."""
        framed = b"".join(struct.pack(">I", len(stream)) + stream for stream in streams)
        done = subprocess.run(self.command, input=framed, stdout=subprocess.PIPE, timeout=SECONDS, check=True)
        outcomes = []
        for line in done.stdout.splitlines():
            told = json.loads(line)
            requests = [
                Read(method, target.encode("latin-1", "replace"), base64.b64decode(content))
                for method, target, content in told["requests"]
            ]
            outcomes.append(Theirs(requests, told["refused"]))
        assert len(outcomes) == len(streams), f"{self.name} told of {len(outcomes)} of {len(streams)} streams"
        return outcomes


def installed(folder: Path) -> list[Oracle]:
    """The readers that are here; Go's is compiled into `folder`."""
    found = []
    if (node := shutil.which("node")) is not None:
        found.append(Oracle("node", [node, str(FOLDER / "node_http.js")]))
    if (go := shutil.which("go")) is not None:
        program = folder / "go_http"
        subprocess.run([go, "build", "-o", str(program), "."], cwd=FOLDER / "go_http", check=True)
        found.append(Oracle("go", [str(program)]))
    return found


class Difference(NamedTuple):
    """Where two readers part: what the one reads and the other does not, and why the other does not."""

    kind: str
    """`we refuse`, `they refuse`, `they pass over` (a request, and go on), or `read otherwise`."""
    reason: str


def difference(ours: Sequence[Read], why: str, theirs: Theirs) -> Difference | None:
    """The first place where a stream is read in two ways; None where it is read alike.

    `why` says why our reader read no more.
    """
    for at, (mine, other) in enumerate(zip(ours, theirs.requests, strict=False)):
        if mine != other:
            if mine == OPTIONS or [other] == ours[at + 1 : at + 2]:
                return Difference("they pass over", f"{mine.method} {mine.target.decode()}")
            return Difference("read otherwise", f"{mine} and {other}")
    if len(theirs.requests) > len(ours):
        return Difference("we refuse", shape(why))
    if len(ours) > len(theirs.requests):
        return Difference("they refuse", shape(theirs.refused or "the end of the stream"))
    return None


def shape(reason: str) -> str:
    """A reason without what it quotes and counts."""
    quoted = re.sub(r"b?'(?:[^'\\]|\\.)*'|b?\"(?:[^\"\\]|\\.)*\"", "…", reason).replace("…...", "…")
    return re.sub(r"\d+", "#", quoted).strip()
