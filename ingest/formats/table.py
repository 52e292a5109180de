"""The formats that are there, in the order in which they are asked whether a request is theirs.

To add one: its file, and its line here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from ingest.config import Config, Route
from ingest.errors import ConfigError
from ingest.formats.cloudevents import CloudEvents
from ingest.formats.ndjson import NDJSON
from ingest.formats.plain import Plain
from ingest.formats.rest_v2 import RestV2
from ingest.formats.rest_v3 import RestV3, RestV3Batch
from ingest.formats.seam import Format


def built_in(config: Config) -> tuple[Format, ...]:
    """One of each; the last claims whatever is left."""
    return (
        CloudEvents(config.compat),
        RestV2(config.compat, paths=config.serves_rest_proxy),
        RestV3(paths=config.serves_rest_proxy),
        RestV3Batch(paths=config.serves_rest_proxy),
        NDJSON(),
        Plain(),
    )


def routes(config: Config, formats: Sequence[Format]) -> Iterator[Route]:
    """Every route that is served: those of the configuration, and behind them the formats' own paths.

    Raises `ConfigError` for a format that is not there.
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
        yield route
    for path, name in own.items():
        yield Route(path, format=name)


def check_formats(config: Config) -> None:
    """Raises `ConfigError` for a route of a format that is not built in."""
    tuple(routes(config, built_in(config)))
