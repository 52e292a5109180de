"""The formats that are there, in the order in which they are asked whether a request is theirs.

To add one: its file, and its line here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from ingest.config import Config
from ingest.errors import ConfigError
from ingest.formats.cloudevents import CloudEvents
from ingest.formats.ndjson import NDJSON
from ingest.formats.plain import Plain
from ingest.formats.rest_v2 import RestV2
from ingest.formats.rest_v3 import RestV3
from ingest.formats.rest_v3_batch import RestV3Batch
from ingest.formats.seam import Format
from ingest.route import NATIVE_PATH, Route


def built_in(config: Config) -> tuple[Format, ...]:
    """One of each; the last claims whatever is left."""
    native = any(route.path == NATIVE_PATH and route.format is None for route in config.all_routes)
    return (
        CloudEvents(config.compat),
        RestV2(config.compat, paths=config.serves_rest_proxy, native=native),
        RestV3(paths=config.serves_rest_proxy),
        RestV3Batch(paths=config.serves_rest_proxy),
        NDJSON(),
        Plain(),
    )


def routes(config: Config, formats: Sequence[Format]) -> Iterator[Route]:
    """Every route that is served: those of the configuration, and behind them the formats' own paths.

    Raises `ConfigError` for a format that is not there, and for options without a meaning there.
    """
    names = [each.name for each in formats]
    own = {path: each.name for each in reversed(formats) for path in each.paths}
    for route in config.all_routes:
        if route.format is not None and route.format not in names:
            known = ", ".join(sorted(set(names)))
            raise ConfigError(
                f'routes: "{route.path}": format = "{route.format}": must be one of those here: {known}'
            )
        name = own.pop(route.path, None)
        if route.format is None and name is not None:
            route = msgspec.structs.replace(route, format=name)
        if route.format is not None:
            _check_options(route, formats[names.index(route.format)])
        yield route
    for path, name in own.items():
        yield Route(path, format=name)


def _check_options(route: Route, format_: Format) -> None:
    """Raises `ConfigError` for an option without an effect on what `format_` does."""
    called = f'routes: "{route.path}": '
    if route.promise == "queued" and not format_.queues:
        raise ConfigError(
            f'{called}promise = "queued": format {format_.name} always waits for Kafka; leave this out'
        )
    if route.key_field is not None and not format_.key_fields:
        raise ConfigError(
            f'{called}key_field = "{route.key_field}": format {format_.name} has the key of each record '
            "beside its value; leave this out"
        )
    if route.v2_dialect is not None and not format_.dialects:
        raise ConfigError(
            f'{called}v2_dialect = "{route.v2_dialect}": is for format rest_v2 and not for {format_.name}; '
            "leave this out"
        )


def check_formats(config: Config) -> None:
    """Raises `ConfigError` for a route of a format that is not built in, or with options it does not know."""
    tuple(routes(config, built_in(config)))
