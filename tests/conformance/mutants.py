"""The strict reading with one rule taken out: loaded beside the real one, and held against the table.

Nothing is written to disk, and nothing but the mutant sees the change.
"""

from __future__ import annotations

import ast
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, ModuleType
from unittest import mock

import ingest
from ingest.http.protocol import HTTPProtocol
from tests.conformance.case import CANARY, Case
from tests.conformance.cases import AT_ONCE, CASES, CUT_SHORT, IN_PIECES
from tests.conformance.reading import MakeProtocol, Outcome, bytewise, feed
from tests.conformance.rules import FRAMING, HEADS, Mutant

PACKAGE = Path(ingest.__file__).parent
_ABOVE = "ingest.http.http1_protocol"
HANGS_SECONDS = 0.5
"""Of processor time, after which a mutant is taken for one that never ends."""
BYTEWISE_BELOW = 300


def source(module: str) -> str:
    """The text of a module of the package."""
    return (PACKAGE / f"{module.removeprefix('ingest.').replace('.', '/')}.py").read_text()


def mutated(mutant: Mutant) -> str:
    """The text of the mutant's module, changed."""
    text = source(mutant.module)
    assert text.count(mutant.old) == 1, (
        f"{mutant.name}: {mutant.old!r} is {text.count(mutant.old)} times there"
    )
    return text.replace(mutant.old, mutant.new)


def mechanical_mutants(module: str) -> Iterator[tuple[str, str]]:
    """Name and text: without each `raise`, and with each condition true and false."""
    text = source(module)
    lines = text.splitlines(keepends=True)

    def replaced(node: ast.AST, new: str) -> str:
        assert isinstance(node, (ast.stmt, ast.expr))
        assert node.end_lineno is not None
        before = (
            "".join(lines[: node.lineno - 1]).encode() + lines[node.lineno - 1].encode()[: node.col_offset]
        )
        rest = lines[node.end_lineno - 1].encode()[node.end_col_offset :]
        return (before + new.encode() + rest).decode() + "".join(lines[node.end_lineno :])

    for function in ast.walk(ast.parse(text)):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Raise):
                yield f"{function.name}: no {ast.unparse(node).partition('(')[0]}", replaced(node, "pass")
            conditions = [node.test] if isinstance(node, (ast.If, ast.IfExp)) else []
            if isinstance(node, ast.BoolOp):
                conditions = list(node.values)
            for condition in conditions:
                if isinstance(condition, ast.Constant):
                    continue
                for value in (True, False):
                    name = f"{function.name}: {ast.unparse(condition)} is {value}"
                    yield name, replaced(condition, str(value))


def held_to(module: str) -> Iterator[tuple[str, str]]:
    """Name and text of each number, expression or part of one that the module is written with."""
    text = source(module)
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign):
            (name,) = node.targets
            yield ast.unparse(name), ast.get_source_segment(text, node) or ""


def load(module: str, text: str) -> MakeProtocol:
    """The protocol on the built-in engine, with `text` for `module`; nothing else sees the change."""
    modules = {}
    with mock.patch.dict(sys.modules):
        for name in (HEADS, FRAMING, _ABOVE):
            fresh = modules[name] = sys.modules[name] = ModuleType(name)
            exec(compile(text if name == module else source(name), name, "exec"), fresh.__dict__)
    make: MakeProtocol = modules[_ABOVE].HTTP1Protocol
    return make


class Hang(BaseException):
    """A mutant goes round for ever."""


def noticed(make_protocol: MakeProtocol) -> str | None:
    """The name of the first case that is read wrongly; None if all is well."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGVTALRM, give_up)
    try:
        for name, pieces, expected, takes in _streams():
            signal.setitimer(signal.ITIMER_VIRTUAL, HANGS_SECONDS)
            try:
                right = _is_read(make_protocol(), pieces, expected, takes)
            except (Exception, Hang):  # noqa: BLE001  # whatever a mutant does, it was noticed
                return name
            if not right:
                return name
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    return None


def _is_read(protocol: HTTPProtocol, pieces: list[bytes], expected: Outcome, takes: bool) -> bool:
    if pieces and not pieces[-1]:
        for piece in pieces:  # all of it, before anybody looks
            protocol.receive_data(piece)
        pieces = []
    outcome = feed(protocol, pieces, takes=takes)
    return (outcome.requests, outcome.refused) == (expected.requests, expected.refused)


def _streams() -> Iterator[tuple[str, list[bytes], Outcome, bool]]:
    tables: list[tuple[list[Case], bytes, list[bytes]]] = [
        (CASES, CANARY, []),
        (AT_ONCE, b"", []),
        (CUT_SHORT, b"", [b""]),
    ]
    # Whole once more, when each head is known.
    for is_cut, takes in ((False, False), (True, True), (False, True)):
        for cases, behind, end in tables:
            for case in cases:
                raw = case.raw + behind
                if is_cut and len(raw) >= BYTEWISE_BELOW:
                    continue
                requests = case.expected if behind else list(case.requests)
                first = bytewise(raw) if is_cut else [raw] if raw else []
                yield case.name, [*first, *end], Outcome(requests, case.refused), takes
    for name, cut, read, refused in IN_PIECES:
        yield name, cut, Outcome(read, refused), True
