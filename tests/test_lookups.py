"""What can be looked up, over HTTP: out of what is known of the cluster, without asking it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ingest.budget import Budget
from ingest.config import Config
from ingest.errors import IngestError, KafkaUnavailable
from ingest.http.engines import ENGINES
from ingest.http.protocol import HTTPProtocol
from ingest.openapi import ANYWHERE, LOOKING_UP, WRITING, every_error
from ingest.producer import Cluster, Topic
from ingest.route import Route
from ingest.sections import HTTP, Topics
from ingest.testing import MemoryProducer
from ingest.version import __version__
from tests.client import Answer, request
from tests.exchange import open_exchanges
from tests.mock_kafka import open_mock_kafka


class Known(MemoryProducer):
    """A producer of a cluster that is known."""

    def __init__(self, known: Cluster | None) -> None:
        super().__init__()
        self._known = known
        self.doubts = 0

    async def cluster(self, *, doubted: bool = False) -> Cluster:
        self.doubts += doubted
        if self._known is None:
            raise KafkaUnavailable("Kafka cannot be reached")
        return self._known


CLUSTER = Cluster(
    "c1",
    {"orders": Topic((1, 2, -1), 3), "clicks": Topic((1,), 1), "__offsets": Topic((1,), 1)},
    {"orders": 5000},
)


async def look(target: str, known: Cluster | None = CLUSTER, config: Config = Config()) -> Answer:  # noqa: B008
    async with open_exchanges(Known(known), config) as exchanges:
        return await exchanges.ask(request(f"GET {target}"))


@pytest.fixture(params=list(ENGINES))
def make_protocol(request: pytest.FixtureRequest) -> Callable[[], HTTPProtocol]:
    made: Callable[[], HTTPProtocol] = ENGINES[request.param]
    return made


async def test_the_root_says_what_this_is_and_where_to_go_on() -> None:
    answer = await look("/")
    assert answer.status == 200
    assert answer.json == {
        "name": "ingest",
        "version": __version__,
        "links": {
            "openapi": "http://a/openapi.json",
            "topics": "http://a/topics",
            "clusters": "http://a/v3/clusters",
        },
    }


async def test_topics_are_those_that_may_be_written() -> None:
    assert (await look("/topics")).json == ["clicks", "orders"]
    config = Config(topics=Topics(allow=["orders", "absent"]))
    assert (await look("/topics", config=config)).json == ["orders"]


async def test_a_topic_has_its_partitions_and_its_limit() -> None:
    assert (await look("/topics/orders")).json == {
        "name": "orders",
        "partitions": [
            {"partition": 0, "leader": 1},
            {"partition": 1, "leader": 2},
            {"partition": 2, "leader": -1},
        ],
        "record_bytes": 5000,
    }
    assert (await look("/topics/clicks")).json["record_bytes"] == 1_000_000


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/topics/none", 404, 40403),
        ("/topics/__offsets", 403, 40301),
        ("/topics/a%20b", 400, 400),
        ("/v3/clusters/c1/topics/none", 404, 40403),
        ("/v3/clusters/c2", 404, 404),
        ("/v3/clusters/c2/topics", 404, 404),
        ("/topics/orders/nothing", 404, 404),
    ],
)
async def test_what_is_not_there_says_so(target: str, status: int, code: int) -> None:
    answer = await look(target)
    assert (answer.status, answer.json["error_code"]) == (status, code)


async def test_a_topic_that_is_not_known_is_looked_for_soon_and_not_now() -> None:
    producer = Known(CLUSTER)
    async with open_exchanges(producer) as exchanges:
        await exchanges.ask(request("GET /topics/orders"))
        assert producer.doubts == 0
        assert (await exchanges.ask(request("GET /topics/new"))).status == 404
        assert producer.doubts == 1


@pytest.mark.parametrize("target", ["/topics", "/topics/orders", "/v3/clusters", "/v3/clusters/c1/topics"])
async def test_where_nothing_is_known_there_is_no_answer(target: str) -> None:
    answer = await look(target, known=None)
    assert (answer.status, answer.json["error_code"]) == (503, 50302)


@pytest.mark.parametrize("path", ["/topics", "/topics/orders", "/v3/clusters"])
async def test_what_is_asked_right_after_the_start_waits_for_the_first_list(path: str) -> None:
    budget = Budget(1 << 30)
    with open_mock_kafka() as kafka:
        kafka.create("orders")
        async with kafka.open_producer(budget=budget) as producer:
            assert producer.trouble == "Kafka has not been heard of yet"
            async with open_exchanges(producer, budget=budget) as exchanges:
                assert (await exchanges.ask(request(f"GET {path}"))).status == 200


@pytest.mark.parametrize("base", ["", "/kafka"])
async def test_the_cluster_is_shown_as_clients_of_v3_read_it(base: str) -> None:
    clusters = (await look(f"{base}/v3/clusters")).json
    assert (clusters["kind"], clusters["metadata"]["next"]) == ("KafkaClusterList", None)
    assert [data["cluster_id"] for data in clusters["data"]] == ["c1"]
    (data,) = clusters["data"]
    assert data["metadata"]["self"] == f"http://a{base}/v3/clusters/c1"
    assert (await look(data["metadata"]["self"].removeprefix("http://a"))).json == data
    topics = (await look(data["topics"]["related"].removeprefix("http://a"))).json
    assert [topic["topic_name"] for topic in topics["data"]] == ["clicks", "orders"]
    orders = topics["data"][1]
    assert (orders["partitions_count"], orders["replication_factor"], orders["is_internal"]) == (3, 3, False)
    assert (await look(orders["metadata"]["self"].removeprefix("http://a"))).json == orders


@pytest.mark.parametrize("target", ["/", "/topics", "/topics/none", "/openapi.json", "/v3/clusters"])
async def test_head_is_get_without_the_content(
    make_protocol: Callable[[], HTTPProtocol], target: str
) -> None:
    async with open_exchanges(Known(CLUSTER)) as exchanges:
        client = exchanges.connect(make_protocol=make_protocol)
        got = await client.ask(request(f"GET {target}"))
        head = await client.ask(request(f"HEAD {target}"))
        assert (head.status, head.content) == (got.status, b"")
        assert head.fields["content-length"] == str(len(got.content))
        assert head.fields["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("line", "allow"),
    [
        ("POST /topics", "GET, HEAD, OPTIONS"),
        ("POST /v3/clusters", "GET, HEAD, OPTIONS"),
        ("DELETE /topics/orders", "POST, GET, HEAD, OPTIONS"),
        ("PUT /openapi.json", "GET, HEAD, OPTIONS"),
    ],
)
async def test_another_method_is_told_those_that_are_served(line: str, allow: str) -> None:
    async with open_exchanges(Known(CLUSTER)) as exchanges:
        answer = await exchanges.ask(request(line, content=b"{}"))
    assert (answer.status, answer.fields["allow"]) == (405, allow)


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
async def test_root_says_that_the_routes_that_are_configured_leave_it_out(
    make_protocol: Callable[[], HTTPProtocol], method: str
) -> None:
    config = Config(routes=[Route("/clicks", "clicks")])
    async with open_exchanges(Known(CLUSTER), config) as exchanges:
        client = exchanges.connect(make_protocol=make_protocol)
        answer = await client.ask(request(f"{method} /", content=b"x"))
        assert (answer.status, answer.fields["allow"]) == (405, "GET, HEAD, OPTIONS")
        assert "routes are configured, and / is not one of them" in answer.json["message"]
        other = await client.ask(request(f"{method} /topics", content=b"x"))
        assert "routes" not in other.json["message"]


async def test_what_is_not_served_cannot_be_looked_up() -> None:
    config = Config(http=HTTP(native=False))
    assert (await look("/", config=config)).json["links"] == {"openapi": "http://a/openapi.json"}
    assert (await look("/topics", config=config)).status == 404
    config = Config(http=HTTP(rest_proxy=False))
    assert (await look("/topics", config=config)).status == 200
    assert (await look("/v3/clusters", config=config)).status == 404


async def test_the_document_has_every_path_that_is_served_and_every_error() -> None:
    document = json.loads((await look("/openapi.json")).content)
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"] == __version__
    assert {path: sorted(item.keys() - {"parameters"}) for path, item in document["paths"].items()} == {
        "/": ["delete", "get", "post"],
        "/openapi.json": ["get"],
        "/topics": ["get"],
        "/topics/{topic}": ["get", "post"],
        "/topics/{topic}/partitions/{partition}": ["post"],
        "/topics/{topic}/records": ["delete", "post"],
        **{
            f"{base}/v3/clusters{path}": methods
            for base in ("", "/kafka")
            for path, methods in {
                "": ["get"],
                "/{cluster}": ["get"],
                "/{cluster}/topics": ["get"],
                "/{cluster}/topics/{topic}": ["get"],
                "/{cluster}/topics/{topic}/records": ["post"],
                "/{cluster}/topics/{topic}/records:batch": ["post"],
            }.items()
        },
    }
    statuses = set(document["paths"]["/"]["post"]["responses"])
    assert {str(error.status) for error in every_error(IngestError)} <= statuses


async def test_the_document_has_what_stands_beside_the_content_of_each_route() -> None:
    routes = [
        Route("/kept", "kept", content_coding="keep"),
        Route("/waits", "waits", format="rest_v2", respond_async=False),
        Route("/topics/{topic}", v2_dialect="strimzi"),
    ]
    document = json.loads((await look("/openapi.json", config=Config(routes=routes))).content)

    def parameters(path: str) -> dict[str, Any]:
        return {each["name"]: each for each in document["paths"][path]["post"]["parameters"]}

    v3 = parameters("/v3/clusters/{cluster}/topics/{topic}/records")
    assert v3.keys() == {"Content-Encoding"}
    assert "gzip" in v3["Content-Encoding"]["schema"]["enum"]
    assert "enum" not in parameters("/kept")["Content-Encoding"]["schema"]
    assert "respond-async" in parameters("/kept")["Prefer"]["description"]
    waits = parameters("/waits")
    assert waits.keys() == {"Content-Encoding", "Prefer"}
    assert "respond-async" not in waits["Prefer"]["description"]
    bridge = parameters("/topics/{topic}")
    assert bridge.keys() == {"Content-Encoding", "Prefer", "async"}
    assert "async" not in parameters("/topics/{topic}/partitions/{partition}")
    missing = document["paths"]["/topics/{topic}"]["get"]["responses"]["404"]["description"]
    assert ("40403" in missing, "40401" in missing) == (True, False)


@pytest.mark.parametrize("path", ["/topics/{topic}", "/topics/{topic}/partitions/{partition}"])
async def test_the_document_has_every_media_type_of_an_envelope_where_one_is_meant(
    make_protocol: Callable[[], HTTPProtocol], path: str
) -> None:
    types = {f"application/vnd.kafka{of}{version}+json"
             for of in ("", ".json", ".binary", ".text") for version in ("", ".v1", ".v2")}  # fmt: skip
    types |= {"application/json", "application/octet-stream"}
    async with open_exchanges(Known(CLUSTER)) as exchanges:
        client = exchanges.connect(make_protocol=make_protocol)
        document = (await client.ask(request("GET /openapi.json"))).json
        assert document["paths"][path]["post"]["requestBody"]["content"].keys() == types
        for type_ in types:
            content = b'{"records":[{"value":"AAAA"}]}'
            target = path.format(topic="orders", partition=0)
            answer = await client.ask(request(f"POST {target}", f"Content-Type: {type_}", content=content))
            assert answer.status == 200


async def test_the_document_has_204_of_an_envelope_only_where_it_is_answered() -> None:
    for dialect, options, status in (
        ("confluent", {}, False),
        ("karapace", {"promise": "queued"}, False),
        ("strimzi", {}, True),
        ("strimzi", {"respond_async": False}, False),
        ("strimzi", {"respond_async": False, "promise": "queued"}, True),
    ):
        route = Route("/topics/{topic}", v2_dialect=dialect, **options)  # type: ignore[arg-type]
        document = (await look("/openapi.json", config=Config(routes=[route]))).json
        assert ("204" in document["paths"][route.path]["post"]["responses"]) == status
        assert "204" in document["paths"]["/topics/{topic}/records"]["post"]["responses"]


def test_every_error_has_its_place_in_the_document() -> None:
    own = {error for error in every_error() if error.__module__.startswith("ingest.")}
    assert own == {*ANYWHERE, *LOOKING_UP, *WRITING}
