"""The house of docs/explanation/architecture.md, held by its imports: down, never sideways, never up."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ingest"

# From the top.  A module may import from the rows below its own.  Within a row only the modules of one
# pattern may import each other (the rooms of one folder), and not in a circle.
ROWS = [
    ["__main__"],
    ["cli", "testing", "worker"],
    ["workers"],
    ["service", "control"],
    ["intake", "management.*"],
    ["openapi"],
    ["streaming", "whole", "lookups", "http.listeners", "access", "direct", "intent"],
    ["inflating"],
    ["http.connection", "http.engines", "kafka.*", "formats.*"],
    ["tally", "http.at_once"],
    ["answers", "http.exchange", "producer"],
    [
        "http.*_protocol",
        "http.streams",
        "http.arrivals",
        "delivery",
        "routing",
        "loading",
        "logs",
        "process",
        "systemd",
    ],
    ["http.framing", "http.writing", "http.codings", "budget", "metrics", "turn"],
    ["http.protocol", "http.heads", "parking"],
    ["config"],
    ["sections"],
    ["cors", "route"],
    ["http.messages", "records"],
    ["settings"],
    ["options"],
    ["errors", "faultlog", "version"],
]

# What only these may import; for trio, what must not.
ALONE = {
    "backports": ["http.codings"],
    "compression": ["http.codings"],
    "h11": ["http.h11_protocol"],
    "zlib": ["http.codings"],
    "confluent_kafka": ["kafka.*"],
    "prometheus_client": ["management.exposition", "management.sums"],
    "structlog": ["logs"],
    "typer": ["cli"],
}
WITHOUT_TRIO = [
    "errors", "options", "settings", "cors", "route", "sections", "records", "config", "loading", "routing",
    "metrics", "intent", "answers", "formats.*", "http.messages", "http.protocol", "http.heads",
    "http.framing", "http.writing", "http.codings", "http.*_protocol",
]  # fmt: skip


def module_name(path: Path) -> str:
    """`kafka.producer` for ingest/kafka/producer.py, `kafka.__init__` for a folder's own."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
EMPTY = [name for name in SOURCES if name.endswith(".__init__")]
MODULES = [name for name in SOURCES if name not in EMPTY and name != "__init__"]


def place(module: str) -> tuple[int, str]:
    """The row of `module`, from the top, and the pattern that put it there."""
    found = [
        (row, pattern)
        for row, patterns in enumerate(ROWS)
        for pattern in patterns
        if fnmatchcase(module, pattern)
    ]
    assert len(found) == 1, f"ingest.{module} has {len(found)} places in ROWS: a new module needs one"
    return found[0]


def imported(module: str) -> Iterator[str]:
    """What `module` imports, dotted: `trio`, `ingest.kafka.reports`; also inside functions and for types."""
    for node in ast.walk(ast.parse(SOURCES[module].read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"ingest.{module} has a relative import"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner.removeprefix("ingest.") in SOURCES else node.module


def rooms(module: str) -> list[str]:
    """The modules of this package that `module` imports.

    The command line may also use the public names, as any program would: it is the library's first user.
    """
    ours = [name for name in imported(module) if name.split(".")[0] == "ingest"]
    return [name.removeprefix("ingest.") for name in ours if not (name == "ingest" and module == "cli")]


def foreign(module: str) -> set[str]:
    return {name.split(".")[0] for name in imported(module)}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    row, pattern = place(module)
    for other in rooms(module):
        assert other in MODULES, f"ingest.{module} imports ingest.{other}: name the module that has it"
        below, beside = place(other)
        assert below > row or beside == pattern, (
            f"ingest.{module} imports ingest.{other}, which is not below it"
        )


def test_modules_of_one_folder_do_not_import_in_a_circle() -> None:
    tuple(graphlib.TopologicalSorter({module: rooms(module) for module in MODULES}).static_order())


@pytest.mark.parametrize("module", EMPTY)
def test_a_folder_has_no_code_of_its_own(module: str) -> None:
    assert not set(imported(module))


@pytest.mark.parametrize("module", MODULES)
def test_a_library_is_imported_where_it_has_its_room(module: str) -> None:
    for library in foreign(module) & ALONE.keys():
        homes = ALONE[library]
        assert any(fnmatchcase(module, home) for home in homes), (
            f"ingest.{module} imports {library}; {homes} may"
        )


@pytest.mark.parametrize(
    "module", [name for name in MODULES if any(fnmatchcase(name, each) for each in WITHOUT_TRIO)]
)
def test_what_needs_no_event_loop_does_not_import_trio(module: str) -> None:
    assert not foreign(module) & {"trio", "trio_util"}
