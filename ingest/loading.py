"""Where a configuration comes from: a TOML file, then the environment, then flags; and back to TOML.

Each later source overrides the earlier.  An unknown option is refused wherever it stands, with the
nearest right one, and a message names its source.  What an option may be is `ingest.sections`'s to say.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ingest.config import Config
from ingest.errors import ConfigError
from ingest.options import MASK, convert, is_secret
from ingest.route import Route
from ingest.settings import KafkaValue, check_kafka_value, kafka_name

PREFIX = "INGEST_"

FLAGS = {
    "--host": "http.host",
    "--port": "http.port",
    "--http": "http.engine",
    "--bootstrap-servers": "kafka.bootstrap.servers",
    "--grace-seconds": "shutdown.grace_seconds",
    "--log-format": "log.format",
    "--access-log": "log.access",
    "--management-port": "management.port",
    "--workers": "tuning.workers",
    "--profile": "tuning.profile",
}
"""The option behind each flag; `--kafka`, `--route` and `--topic` are read on their own."""

SECTIONS: dict[str, dict[str, Any]] = {
    section.name: {field.name: field.type for field in msgspec.structs.fields(section.type)}
    for section in msgspec.structs.fields(Config)
    if section.name not in ("routes", "kafka")
}
"""The options of each section, with their types."""

_LISTS = ("topics.allow", "compat.webhook_origins", "cors.allow_origins", "cors.expose_fields")

_ROUTE_OPTIONS = {field.name: field.type for field in msgspec.structs.fields(Route)}

# Kubernetes puts these into every pod beside a Service whose name begins with "ingest".
_SERVICE_LINK = re.compile(r"INGEST_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_SERVICE_PORT = re.compile(r"INGEST_(\w+_)?PORT")  # its value is an address such as tcp://10.0.0.7:80


def load(file: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Config:
    """Make one checked configuration of the three sources, each of which may be empty.

    `environ` is looked through for `INGEST_SECTION__OPTION`, `INGEST_KAFKA__NAME` (`_` for librdkafka's
    dots; a last `_FILE` stays `_file`) and `INGEST_ROUTES` (`PATH=TOPIC`, separated by commas); other
    variables with the prefix are refused, except those that Kubernetes makes for services.  `flags` maps
    `FLAGS`, `--kafka` (a list of `NAME=VALUE`), `--route` (a list of `PATH=TOPIC`) and `--topic` to
    values; None and empty lists are flags that were not given.

    Raises ConfigError.
    """
    options = _Options()
    if file is not None:
        with _named(str(file)):
            options.add_file(file)
    options.add_environment(environ)
    options.add_flags(flags)
    return options.config()


def as_toml(config: Config, workers: int = 1) -> str:
    """Write the configuration in force as TOML, with secrets masked; `load` reads it again.

    What is not set and in force all the same is written as comments, so that it follows from the rest still
    where that is changed.  Limits among it are those of each of so many processes.
    """
    derived = config.share(workers).derived
    lines = []
    for section in SECTIONS:
        values = _values(getattr(config, section))
        lines += [f"[{section}]", *_assignments(values)]
        lines += _comments(_assignments(_others(derived.get(section, {}), values)))
        lines.append("")
    for route in config.routes:
        lines += ["[[routes]]", *_assignments(_values(route)), ""]
    if not config.routes:
        lines.insert(0, "routes = []\n")
    lines.append("[kafka]")
    lines += _assignments(config.kafka, quoted=True)
    lines += _comments(_assignments(_others(derived["kafka"], config.kafka), quoted=True))
    lines.insert(0, "# In force, what is behind a # too: that is not set, and follows from the rest.\n")
    return "\n".join(lines) + "\n"


def route_pair(text: str) -> Route:
    """Make the route that `PATH=TOPIC` stands for; `PATH` alone where it has the placeholder `{topic}`."""
    path, separator, topic = text.strip().rpartition("=")
    return Route(path, topic or None) if separator else Route(topic)


class _Options:
    """What was said so far, source by source."""

    def __init__(self) -> None:
        self.sections: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
        self.routes: Sequence[Route] | None = None
        self.kafka: dict[str, KafkaValue] = {}

    def config(self) -> Config:
        given: dict[str, Any] = {
            field.name: field.type(**self.sections[field.name])
            for field in msgspec.structs.fields(Config)
            if field.name in SECTIONS
        }
        if self.routes is not None:
            given["routes"] = self.routes
        return Config(**given, kafka=self.kafka)

    def add_file(self, file: Path) -> None:
        try:
            document = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot be read: {error.strerror}") from None
        except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
            raise ConfigError(f"not TOML: {error}") from None
        for section, content in document.items():
            if section == "routes":
                self.routes = [_route(table) for table in _list_of_tables(content)]
            elif section not in SECTIONS and section != "kafka":
                raise _no_such_section(section)
            elif not isinstance(content, dict):
                raise ConfigError(f"{section} = {content!r}: must be a section, [{section}]")
            elif section == "kafka":
                self.add_kafka((f"[kafka] {name}", name, value) for name, value in _flat(content))
            else:
                for option, value in content.items():
                    if option not in SECTIONS[section]:
                        near = _nearest(option, SECTIONS[section], '"{}"')
                        raise ConfigError(f'[{section}] "{option}": no such option{near}')
                    self.add(f"[{section}] {option}", f"{section}.{option}", value, strict=True)

    def add_environment(self, environ: Mapping[str, str]) -> None:
        variables = {name: value for name, value in sorted(environ.items()) if name.startswith(PREFIX)}
        kafka = []
        for name, value in variables.items():
            section, _, option = name.removeprefix(PREFIX).lower().partition("__")
            if not value.isprintable() and not _is_utf8(value):
                raise ConfigError(f"{name}: must be UTF-8")
            if section == "kafka" and option:
                kafka.append((name, re.sub(r"\.file$", "_file", option.replace("_", ".")), value))
            elif name == f"{PREFIX}ROUTES":
                with _named(name):
                    self.routes = [route_pair(pair) for pair in value.split(",") if pair.strip()]
            elif option in SECTIONS.get(section, ()):
                self.add(name, f"{section}.{option}", value, strict=False)
            elif not _is_service_link(name, value):
                known = [_variable(section, option) for section in SECTIONS for option in SECTIONS[section]]
                near = _nearest(name, [*known, f"{PREFIX}ROUTES"], "{}")
                raise ConfigError(f"{name}: no such option in the environment{near}")
        self.add_kafka(kafka)

    def add_flags(self, flags: Mapping[str, object]) -> None:
        given = {flag: value for flag, value in flags.items() if value not in (None, [], ())}
        kafka: list[tuple[str, str, object]] = []
        for flag, option in FLAGS.items():
            if flag not in given:
                continue
            section, _, name = option.partition(".")
            if section == "kafka":
                kafka.append((flag, name, given[flag]))
            else:
                self.add(flag, option, given[flag], strict=False)
        for setting in convert("--kafka", given.get("--kafka", []), list[str]):
            name, separator, value = setting.partition("=")
            if not separator or not name:
                raise ConfigError(f"--kafka {name}: must be NAME=VALUE, as in --kafka acks=all")
            kafka.append((f"--kafka {name}", name, value))
        self.add_kafka(kafka)
        if "--route" in given:
            with _named("--route"):
                self.routes = [route_pair(pair) for pair in convert("--route", given["--route"], list[str])]
        if "--topic" in given:
            with _named("--topic"):
                self._set_topic(convert("--topic", given["--topic"], str), replaces="--route" not in given)

    def add(self, name: str, option: str, value: object, *, strict: bool) -> None:
        """Set `option`, which the source calls `name`."""
        section, _, key = option.partition(".")
        type_ = SECTIONS[section][key]
        if not strict and isinstance(value, str) and option in _LISTS:
            value = [item.strip() for item in value.split(",") if item.strip()]
        self.sections[section][key] = convert(name, value, type_, strict=strict)

    def add_kafka(self, settings: Iterable[tuple[str, str, Any]]) -> None:
        """Set librdkafka's settings out of one source: what the source calls it, its name, its value."""
        seen = set()
        for called, name, value in settings:
            canonical = kafka_name(name)
            setting = canonical.removesuffix("_file")
            if setting in seen:
                raise ConfigError(f"{called}: {setting} is set in two ways; one of them has to go")
            check_kafka_value(called, name, value)
            seen.add(setting)
            self.kafka.pop(setting, None)
            self.kafka.pop(f"{setting}_file", None)
            self.kafka[canonical] = value

    def _set_topic(self, topic: str, *, replaces: bool) -> None:
        routes = list(Config().routes if self.routes is None else self.routes)
        for index, route in enumerate(routes):
            if route.path == "/":
                if not replaces:
                    raise ConfigError('--route names the topic of "/" already; one of them has to go')
                routes[index] = msgspec.structs.replace(route, topic=topic)
                break
        else:
            routes.append(Route("/", topic))
        self.routes = routes


@contextlib.contextmanager
def _named(source: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def _route(table: Mapping[str, object]) -> Route:
    path = table.get("path")
    if path is None:
        raise ConfigError('[[routes]] path: is required, as in path = "/clicks"')
    for option in table:
        if option not in _ROUTE_OPTIONS:
            near = _nearest(option, _ROUTE_OPTIONS, '"{}"')
            raise ConfigError(f'[[routes]] "{option}": no such option{near}')
    return Route(**table)  # type: ignore[arg-type]  # Route checks the types itself


def _list_of_tables(content: object) -> list[dict[str, object]]:
    if isinstance(content, list) and all(isinstance(table, dict) for table in content):
        return content
    raise ConfigError("routes: must be tables, each headed [[routes]]")


def _flat(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """`bootstrap.servers = …` without quotes is a table in a table to TOML; here it is one name again."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _no_such_section(name: str) -> ConfigError:
    for section, options in SECTIONS.items():
        if name in options:
            return ConfigError(f'"{name}": no such section; did you mean "{name}" in [{section}]?')
    return ConfigError(f"[{name}]: no such section{_nearest(name, [*SECTIONS, 'routes', 'kafka'], '[{}]')}")


def _nearest(name: str, known: Iterable[str], form: str) -> str:
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {form.format(matches[0])}?" if matches else ""


def _variable(section: str, option: str) -> str:
    return f"{PREFIX}{section}__{option}".upper()


def _is_service_link(name: str, value: str) -> bool:
    if "__" in name:
        return False
    if _SERVICE_LINK.fullmatch(name):
        return True
    return _SERVICE_PORT.fullmatch(name) is not None and value.startswith(("tcp://", "udp://", "sctp://"))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _values(struct: msgspec.Struct) -> dict[str, object]:
    values = {name: getattr(struct, name) for name in struct.__struct_fields__}
    return {name: value for name, value in values.items() if value is not None}


def _others(values: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """Those of `values` that are not given: what `NAME_file` stands for is."""
    return {name: value for name, value in values.items() if not {name, f"{name}_file"} & given.keys()}


def _comments(lines: Iterable[str]) -> list[str]:
    return [f"# {line}" for line in lines]


def _assignments(values: Mapping[str, object], *, quoted: bool = False) -> list[str]:
    lines = []
    for name, value in values.items():
        shown = MASK if is_secret(name) else value
        lines.append(f"{_toml(name) if quoted else name} = {_toml(shown)}")
    return lines


def _toml(value: object) -> str:
    # JSON's strings, numbers, booleans and lists are TOML's too, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
