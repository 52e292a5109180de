"""README and docs as something that can be run: reads their code blocks and does what they say.

How a block is written decides what happens to it; all blocks of one page run in order in one folder:

- ```` ```console ````: a line that begins with `$ ` is a command (a backslash at its end continues it), the
  lines below it are all of its output; `…` stands for any text, a line of nothing but `…` for any lines.
  A command has to exit with 0 unless the next one is `echo $?`.
- `$ ingest serve …` goes on running beside the later commands, until the next one of its kind or the page's
  end; of its output the lines shown have to come, in this order.  A line `^C` interrupts it; it has to exit.
- ```` ```toml ```` is held against `ingest check`, ```` ```python ```` is run.  With `title="name"` either is
  written to that file, and Python is left for a command to run.
- ```` ```sh ```` and all other blocks are for reading.

`<!-- needs kafka -->` above a block leaves it to the tests that have a real Kafka, `<!-- not run: why -->` to
nobody.  8080 and localhost:9092 stand for a port and a Kafka that are free for the test.
"""

from __future__ import annotations

import functools
import math
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(
    r"(?:^[ ]*<!--[ ](?P<mark>needs kafka|not run: [^\n]+?)[ ]-->\n\s*)?"
    r'^(?P<indent>[ ]*)```(?P<language>\w+)(?:[ ]+title="(?P<title>[^"]+)")?[^\n]*\n'
    r"(?P<text>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
needs_curl = pytest.mark.skipif(
    shutil.which("curl") is None and "CI" not in os.environ,
    reason="curl is not on PATH, and the pages use it",
)

_SECONDS = 30.0  # for one command, or one line of a server's output; far above what any takes


@dataclass(frozen=True)
class Block:
    """One fenced block: `line` is where it begins in its page."""

    line: int
    language: str
    title: str | None
    mark: str | None
    text: str


@dataclass(frozen=True)
class Command:
    """One command of a console block, and the output shown below it.  `^C` is a command too."""

    text: str
    output: tuple[str, ...]


def blocks(page: Path) -> list[Block]:
    """The blocks of `page` that are to be run or checked."""
    text = page.read_text()
    return [
        Block(
            line=text.count("\n", 0, match.start("language")) + 1,
            language=match["language"],
            title=match["title"],
            mark=match["mark"],
            text=textwrap.dedent(match["text"]),
        )
        for match in _BLOCK.finditer(text)
        if match["language"] in ("console", "python", "toml")
        and not (match["mark"] or "").startswith("not run")
    ]


def commands(text: str) -> Iterator[Command]:
    """The commands of a console block's `text`, in order."""
    command: str | None = None
    output: list[str] = []
    for line in text.splitlines():
        if command is not None and command.endswith("\\") and not output:
            command = command[:-1] + line.removeprefix("> ")
        elif line.startswith("$ ") or line == "^C":
            if command is not None:
                yield Command(command, tuple(output))
            command, output = line.removeprefix("$ "), []
        else:
            assert command is not None, f"output without a command: {line!r}"
            output.append(line)
    if command is not None:
        yield Command(command, tuple(output))


def pattern(lines: Iterable[str]) -> re.Pattern[str]:
    """What output has to match whole to be the one shown in `lines`."""
    parts = [
        r"(?:.*\n)*" if line == "…" else ".*".join(map(re.escape, line.rstrip().split("…"))) + r"[ ]*\n"
        for line in lines
    ]
    return re.compile("".join(parts))


async def run_page(page: Path, folder: Path, *, serving: bool, bootstrap_servers: str | None = None) -> None:
    """Run the blocks of `page` in `folder`; AssertionError names the block that does not do what it says.

    `serving` starts `ingest serve` first, for a page whose reader has it running.  Without
    `bootstrap_servers`, blocks that need Kafka are left out.
    """
    reader = _Reader(folder, bootstrap_servers)
    async with trio.open_nursery() as nursery:
        try:
            if serving:
                await reader.serve(nursery, Command("ingest serve", ()))
            for block in blocks(page):
                if block.mark == "needs kafka" and bootstrap_servers is None:
                    continue
                try:
                    await reader.follow(nursery, block)
                except AssertionError as error:
                    raise AssertionError(f"{page.relative_to(ROOT)}, line {block.line}: {error}") from None
            await reader.stop()
        finally:
            nursery.cancel_scope.cancel()  # kills a server that is left


class _Reader:
    """Somebody who follows a page word for word, in a folder of their own."""

    def __init__(self, folder: Path, bootstrap_servers: str | None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._folder = folder
        self._means = {"8080": str(self._port), "localhost:9092": bootstrap_servers or "localhost:9092"}
        self._exit_code = 0
        self._server: _Server | None = None
        bin_ = folder / ".venv" / "bin"
        bin_.mkdir(parents=True)
        for name, arguments in {"ingest": "-m ingest", "python": ""}.items():
            (bin_ / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
            (bin_ / name).chmod(0o755)
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("INGEST_")},
            "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "XDG_RUNTIME_DIR": str(folder),
            "INGEST_HTTP__PORT": str(self._port),
            "INGEST_MANAGEMENT__PORT": "0",
            "NO_COLOR": "1",
        }

    async def follow(self, nursery: trio.Nursery, block: Block) -> None:
        text = block.text
        for written, meant in self._means.items():
            text = text.replace(written, meant)
        if block.language == "console":
            for command in commands(text):
                if command.text == "^C":
                    await self.stop(command.output)
                elif re.match(r"(\S*/)?ingest serve\b", command.text):
                    await self.serve(nursery, command)
                else:
                    await self._run(command)
            assert self._exit_code == 0, f"the last command exits with {self._exit_code}"
            return
        path = self._folder / (block.title or f"block.{block.language}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if block.language == "toml":
            await self._run(Command(f"ingest check {path.name}", ("…",)), must_succeed=True)
        elif block.title is None:
            await self._run(Command(f"python {path.name}", ("…",)), must_succeed=True)

    async def _run(self, command: Command, *, must_succeed: bool = False) -> None:
        asks = command.text == "echo $?"
        assert self._exit_code == 0 or asks, (
            f"the command before {command.text!r} exits with {self._exit_code}"
        )
        with trio.move_on_after(_SECONDS) as scope:
            done = await trio.run_process(
                ["sh", "-c", f"(exit {self._exit_code}); {command.text}"],
                cwd=self._folder,
                env=self._environment,
                check=False,
                capture_stdout=True,
                stderr=subprocess.STDOUT,
            )
        assert not scope.cancelled_caught, f"{command.text!r} has not ended after {_SECONDS} s"
        self._exit_code = done.returncode
        output = done.stdout.decode()
        if output and not output.endswith("\n"):
            output += "\n"
        assert self._exit_code == 0 or not must_succeed, f"{command.text!r} fails:\n{output}"
        shown = "\n".join(command.output)
        assert pattern(command.output).fullmatch(output), (
            f"{command.text!r} prints\n{output}instead of\n{shown}"
        )

    async def serve(self, nursery: trio.Nursery, command: Command) -> None:
        await self.stop()
        process = await nursery.start(
            functools.partial(
                trio.run_process,
                ["sh", "-c", f"exec {command.text}"],
                cwd=self._folder,
                env=self._environment,
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
        self._server = _Server(command.text, process)
        nursery.start_soon(self._server.read)
        await self._server.shows(command.output or [f"…:{self._port}…"])

    async def stop(self, output: Sequence[str] = ()) -> None:
        """Interrupt the server that runs, if one does, and see it off."""
        server, self._server = self._server, None
        if server is None:
            assert not output, "^C, and nothing is running"
            return
        server.process.send_signal(signal.SIGINT)
        await server.shows(output)
        with trio.move_on_after(_SECONDS) as scope:
            self._exit_code = await server.process.wait()
        assert not scope.cancelled_caught, f"{server.command!r} goes on after ^C"


class _Server:
    """A command that goes on, and what it has printed."""

    def __init__(self, command: str, process: trio.Process) -> None:
        self.command = command
        self.process = process
        self._send, self._lines = trio.open_memory_channel[str](math.inf)
        self._seen: list[str] = []

    async def read(self) -> None:
        stdout = self.process.stdout
        assert stdout is not None
        async with self._send, stdout:
            rest = b""
            async for data in stdout:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    await self._send.send(line.decode())

    async def shows(self, expected: Iterable[str]) -> None:
        for line in expected:
            if line == "…":
                continue
            wanted = pattern([line])
            with trio.move_on_after(_SECONDS) as scope:
                async for printed in self._lines:
                    self._seen.append(printed)
                    if wanted.fullmatch(printed + "\n"):
                        break
                else:
                    scope.cancel()
            seen = "\n".join(self._seen)
            assert not scope.cancel_called, f"{self.command!r} does not print\n{line}\nbut\n{seen}"
