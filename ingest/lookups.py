"""What can be looked up: what this is, the topics that may be written, the cluster as REST Proxy v3 shows it.

Every answer comes out of what is known of the cluster; nothing here asks it, and only what comes before the
first list of topics waits, for that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from ingest.answers import json_response
from ingest.config import Config
from ingest.errors import NotFound, UnknownTopic
from ingest.http.messages import Request, Response
from ingest.kafka.topics import check_name
from ingest.producer import Cluster, Producer, Topic
from ingest.routing import origin_form, path_pattern, path_segment

INDEX, DOCUMENT = "/", "/openapi.json"
TOPICS, TOPIC = "/topics", "/topics/{topic}"
CLUSTERS, CLUSTER = "/v3/clusters", "/v3/clusters/{cluster}"
CLUSTER_TOPICS, CLUSTER_TOPIC = f"{CLUSTER}/topics", f"{CLUSTER}/topics/{{topic}}"
UNKNOWN_TOPIC_CODE = 40403
"""What Confluent's server answers to the look-up of a topic that is not there; to writing to it, another."""
BELOW = "/kafka"
"""Where the paths of v3 are served a second time, as Confluent's own server has them."""


class _Asked(NamedTuple):
    """A look-up, as its answer needs it."""

    base: str
    """What stands in front of the path in a link: scheme, authority, and `BELOW` where that was asked."""
    parts: Mapping[str, str]
    """What stood in the place of the path's placeholders."""


class Lookups:
    """The paths that GET and HEAD are for."""

    def __init__(self, config: Config, producer: Producer, version: str, document: bytes) -> None:
        """`document` is what `/openapi.json` answers."""
        self._producer = producer
        self._allow = None if config.topics.allow is None else frozenset(config.topics.allow)
        self._record_bytes = config.limits.record_bytes
        self._scheme = "http" if config.http.tls_certificate_file is None else "https"
        self._version = version
        self._document = Response(200, ((b"content-type", b"application/json"),), document)
        answers: dict[str, Callable[[_Asked], Awaitable[Response]]] = {
            INDEX: self._index,
            DOCUMENT: self._openapi,
        }
        for path in served(config):
            answers |= {
                TOPICS: {path: self._topics},
                TOPIC: {path: self._topic},
                CLUSTERS: {path: self._clusters},
                CLUSTER: {path: self._cluster},
                CLUSTER_TOPICS: {path: self._cluster_topics},
                CLUSTER_TOPIC: {path: self._cluster_topic},
            }.get(path.removeprefix(BELOW), {})
        self._answers = [(path_pattern(path), path, answer) for path, answer in answers.items()]

    def find(self, path: str) -> str | None:
        """The one of `served` that a request's path is; None where nothing can be looked up."""
        for pattern, found, _ in self._answers:
            if pattern.fullmatch(path):
                return found
        return None

    async def answer(self, request: Request) -> Response:
        """What is there.

        Raises `UnknownTopic`, `NotFound`, `BadRequest` or `TopicDenied` for a topic's name, and
        `Overloaded` or `KafkaUnavailable` where nothing is known of the cluster in time.
        """
        path = origin_form(request.target).partition("?")[0]
        host = (request.field(b"host") or b"").decode("latin-1")
        base = f"{self._scheme}://{host}" if host else ""
        for pattern, found, answer in self._answers:
            if match := pattern.fullmatch(path):
                parts = {name: path_segment(text) for name, text in match.groupdict().items()}
                return await answer(_Asked(base + (BELOW if found.startswith(f"{BELOW}/") else ""), parts))
        raise NotFound("there is nothing to be looked up")

    # What is answered --------------------------------------------------------------------------------

    async def _index(self, asked: _Asked) -> Response:
        links = {"openapi": asked.base + DOCUMENT}
        if any(path == TOPICS for _, path, _ in self._answers):
            links["topics"] = asked.base + TOPICS
        if any(path == CLUSTERS for _, path, _ in self._answers):
            links["clusters"] = asked.base + CLUSTERS
        return json_response(200, {"name": "ingest", "version": self._version, "links": links})

    async def _openapi(self, asked: _Asked) -> Response:
        return self._document

    async def _topics(self, asked: _Asked) -> Response:
        return json_response(200, self._names(await self._producer.cluster()))

    async def _topic(self, asked: _Asked) -> Response:
        name, topic, cluster = await self._find_topic(asked)
        partitions = [{"partition": number, "leader": leader} for number, leader in enumerate(topic.leaders)]
        most = min(cluster.record_bytes.get(name, self._record_bytes), self._record_bytes)
        return json_response(200, {"name": name, "partitions": partitions, "record_bytes": most})

    async def _clusters(self, asked: _Asked) -> Response:
        cluster = await self._producer.cluster()
        return _list("KafkaClusterList", asked.base + CLUSTERS, [_cluster_data(asked.base, cluster)])

    async def _cluster(self, asked: _Asked) -> Response:
        return json_response(200, _cluster_data(asked.base, await self._find_cluster(asked)))

    async def _cluster_topics(self, asked: _Asked) -> Response:
        cluster = await self._find_cluster(asked)
        data = [_topic_data(asked.base, cluster, name, cluster.topics[name]) for name in self._names(cluster)]
        return _list("KafkaTopicList", f"{asked.base}{CLUSTERS}/{cluster.id}/topics", data)

    async def _cluster_topic(self, asked: _Asked) -> Response:
        await self._find_cluster(asked)
        name, topic, cluster = await self._find_topic(asked)
        return json_response(200, _topic_data(asked.base, cluster, name, topic))

    # What is known -----------------------------------------------------------------------------------

    def _names(self, cluster: Cluster) -> list[str]:
        """The topics that may be written."""
        names = cluster.topics if self._allow is None else cluster.topics.keys() & self._allow
        return sorted(name for name in names if not name.startswith("__"))

    async def _find_topic(self, asked: _Asked) -> tuple[str, Topic, Cluster]:
        name = asked.parts["topic"]
        check_name(name, self._allow)
        cluster = await self._producer.cluster()
        topic = cluster.topics.get(name)
        if topic is None:
            await self._producer.cluster(doubted=True)
            raise UnknownTopic(
                f"topic {name} does not exist in the Kafka cluster, or has just been made",
                error_code=UNKNOWN_TOPIC_CODE,
            )
        return name, topic, cluster

    async def _find_cluster(self, asked: _Asked) -> Cluster:
        cluster = await self._producer.cluster()
        wanted = asked.parts["cluster"]
        if wanted != cluster.id:
            raise NotFound(f"there is no cluster {wanted[:60]!a}; {cluster.id} is the one here")
        return cluster


def served(config: Config) -> tuple[str, ...]:
    """The paths of all look-ups, written as `Route.path`."""
    paths = [INDEX, DOCUMENT]
    if config.http.native or config.serves_rest_proxy:
        paths += [TOPICS, TOPIC]
    if config.serves_rest_proxy:
        v3 = CLUSTERS, CLUSTER, CLUSTER_TOPICS, CLUSTER_TOPIC
        paths += [*v3, *(BELOW + path for path in v3)]
    return tuple(paths)


def _list(kind: str, url: str, data: list[dict[str, Any]]) -> Response:
    return json_response(200, {"kind": kind, "metadata": {"self": url, "next": None}, "data": data})


def _cluster_data(base: str, cluster: Cluster) -> dict[str, Any]:
    """A cluster as Confluent's clients read it; it links to what is served here."""
    url = f"{base}{CLUSTERS}/{cluster.id}"
    return {
        "kind": "KafkaCluster",
        "metadata": {"self": url, "resource_name": f"crn:///kafka={cluster.id}"},
        "cluster_id": cluster.id,
        "topics": {"related": f"{url}/topics"},
    }


def _topic_data(base: str, cluster: Cluster, name: str, topic: Topic) -> dict[str, Any]:
    url = f"{base}{CLUSTERS}/{cluster.id}/topics/{name}"
    return {
        "kind": "KafkaTopic",
        "metadata": {"self": url, "resource_name": f"crn:///kafka={cluster.id}/topic={name}"},
        "cluster_id": cluster.id,
        "topic_name": name,
        "is_internal": False,
        "replication_factor": topic.replicas,
        "partitions_count": len(topic.leaders),
    }
