"""README and docs say what is so: their code runs, their reference has every option, error, flag and name."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer.main

import ingest
from ingest.cli import app
from ingest.metrics import METRICS
from ingest.sections import PROFILES
from tests.pages import PAGES, ROOT, blocks, needs_curl, run_page
from tests.promises.record import BEGIN, DATA, END, PAGE, table

REFERENCE = ROOT / "docs" / "reference"


@needs_curl
@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page)], ids=lambda page: str(page.relative_to(ROOT))
)
async def test_the_code_of_a_page_does_what_the_page_says(page: Path, tmp_path: Path) -> None:
    await run_page(page, tmp_path, serving=page.name == "README.md")


def test_every_page_is_in_the_navigation() -> None:
    def pages(entries: list[dict[str, Any]]) -> Iterator[str]:
        for entry in entries:
            for target in entry.values():
                if isinstance(target, str):
                    yield target
                else:
                    yield from pages(target)

    navigation = list(pages(tomllib.loads((ROOT / "docs" / "zensical.toml").read_text())["project"]["nav"]))
    there = [str(page.relative_to(ROOT / "docs")) for page in PAGES if page.name != "README.md"]
    assert sorted(navigation) == sorted(there)


def test_every_option_is_documented_with_its_default() -> None:
    options: dict[str, str] = {}
    for section in msgspec.structs.fields(ingest.Config):
        if section.name == "kafka":
            continue
        heading = "[[routes]]" if section.name == "routes" else f"[{section.name}]"
        struct = ingest.Route if section.name == "routes" else section.type
        for field in msgspec.structs.fields(struct):
            default = (
                "required"
                if field.required
                else "unset"
                if field.default is None
                else f"`{json.dumps(field.default)}`"
            )
            options[f"{heading} {field.name}"] = default
    for setting, value in ingest.Config().kafka_defaults.items():
        options[f"[kafka] {setting}"] = f"`{json.dumps(value)}`"
    assert documented("configuration.md") == options


def test_every_setting_of_a_profile_is_explained() -> None:
    page = (REFERENCE / "configuration.md").read_text()
    rows = re.findall(r"^\| (\w+) \| `([\w.]+) = (\S+)` \| \S", page, re.MULTILINE)
    assert rows == [
        (profile, name, json.dumps(value))
        for profile, settings in PROFILES.items()
        for name, value in settings.items()
    ]


def every_error(base: type[ingest.IngestError] = ingest.IngestError) -> Iterator[type[ingest.IngestError]]:
    for error in base.__subclasses__():
        if error.__module__.startswith("ingest."):
            yield error
            yield from every_error(error)


def test_every_error_is_documented() -> None:
    page = (REFERENCE / "errors.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (\d+) \| `(\w+)` \| (\w+) \| (yes|no) \|", page, re.MULTILINE)
    assert sorted(rows) == sorted(
        (
            str(error.status),
            str(error.error_code),
            error.__name__,
            error.outcome.value,
            "yes" if error.retriable else "no",
        )
        for error in every_error()
    )


def test_503_and_504_say_their_outcome() -> None:
    outcomes = {(error.status, error.outcome.value) for error in every_error() if error.status in (503, 504)}
    assert outcomes == {(503, "not_written"), (504, "unknown")}


def test_delivery_names_a_test_for_each_thing_that_it_says() -> None:
    page = (ROOT / "docs" / "explanation" / "delivery.md").read_text()
    text, _, notes = page.partition("\n[^")
    defined = set(re.findall(r"^\[\^(\w+)\]:", "\n[^" + notes, re.MULTILINE))
    assert set(re.findall(r"\[\^(\w+)\]", text)) == defined
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", notes)
    assert len(named) >= len(defined)
    for file, test in named:
        assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE), test
    for said in re.split(r"\n\n|\n(?=\| )", text):
        is_frame = said.startswith(("#", "**", "| ---", "Every error")) or said in HEADS_OF_DELIVERY
        assert is_frame or "[^" in said, said


HEADS_OF_DELIVERY = (
    "| Answer | What it promises |",
    "| Outcome | What is so |",
    "| What | What is so afterwards |",
)


def test_every_command_and_flag_is_documented() -> None:
    commands: dict[str, Any] = vars(typer.main.get_command(app))["commands"]
    there = {
        f"ingest {name} {flag}"
        for name, command in commands.items()
        for parameter in command.params
        for flag in (parameter.opts if parameter.param_type_name == "option" else [parameter.name.upper()])
    }
    assert documented("command-line.md").keys() == there


def test_every_public_name_is_documented() -> None:
    page = (REFERENCE / "python.md").read_text()
    assert sorted(re.findall(r"^::: ingest\.(\w+)$", page, re.MULTILINE)) == sorted(
        [*ingest.__all__, "testing"]
    )


def test_every_metric_is_documented() -> None:
    page = (REFERENCE / "metrics.md").read_text()
    rows = re.findall(r"^\| `(ingest_\w+)` \| (\w+) \| (.*?)\s?\| (.*) \|$", page, re.MULTILINE)
    assert rows == [
        (name, kind, ", ".join(f"`{label}`" for label in labels), text)
        for name, kind, labels, text in METRICS
    ]


def test_the_table_of_promises_says_what_was_measured() -> None:
    records = json.loads(DATA.read_text())
    assert BEGIN + table(records) + END in PAGE.read_text()


def documented(page: str) -> dict[str, str]:
    """`{"heading name": second cell}` of the tables on a reference page whose first cell is `name …`."""
    rows: dict[str, str] = {}
    heading = ""
    for line in (REFERENCE / page).read_text().splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ").strip("`")
        elif match := re.match(r"\| `([\w.-]+)[^`]*` \| (.*?) \|", line):
            rows[f"{heading} {match[1]}"] = match[2]
    return rows
