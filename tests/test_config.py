from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ingest.config import Config
from ingest.errors import ConfigError
from ingest.route import Route
from ingest.sections import HTTP, Limits, Management, Shutdown, Timeouts, Topics


def test_routes_may_be_a_list_and_are_kept_as_a_tuple() -> None:
    config = Config(routes=[Route("/clicks", topic="clicks")], kafka={"bootstrap.servers": "localhost:9092"})
    assert config.routes == (Route("/clicks", "clicks"),)


def test_a_config_cannot_be_changed() -> None:
    given: dict[str, str | int] = {"linger.ms": 5}
    config = Config(kafka=given)
    given["linger.ms"] = 6
    assert config.kafka["linger.ms"] == 5
    with pytest.raises(TypeError):
        config.kafka["linger.ms"] = 7  # type: ignore[index]
    with pytest.raises(AttributeError):
        config.http.port = 1  # type: ignore[misc]


def test_equal_options_make_equal_configs() -> None:
    assert Config(http=HTTP(port=1), kafka={"acks": "all"}) == Config(
        http=HTTP(port=1), kafka={"acks": "all"}
    )
    assert Config(http=HTTP(port=1)) != Config(http=HTTP(port=2))


def test_a_replaced_section_is_checked_again() -> None:
    with pytest.raises(ConfigError, match="held_bytes"):
        msgspec.structs.replace(Config(), limits=Limits(held_bytes=1))


def test_the_native_route_comes_last_and_can_be_configured_or_left_out() -> None:
    native = "/topics/{topic}/records"
    assert [route.path for route in Config().all_routes] == ["/", native]
    assert [route.path for route in Config(http=HTTP(native=False)).all_routes] == ["/"]
    own = Route(native, key_field="id")
    assert Config(routes=[own]).all_routes == (own,)


def test_the_paths_of_the_rest_proxy_are_there_with_the_native_one_unless_configured() -> None:
    assert Config().serves_rest_proxy
    assert not Config(http=HTTP(native=False)).serves_rest_proxy
    assert Config(http=HTTP(native=False, rest_proxy=True)).serves_rest_proxy
    assert not Config(http=HTTP(rest_proxy=False)).serves_rest_proxy


def test_content_of_many_records_has_a_limit_that_fits_the_budget() -> None:
    assert Limits().most_batch_bytes == 16 << 20
    assert Limits(held_bytes=8_000_000).most_batch_bytes == 1_000_000
    assert Limits(batch_bytes=5).most_batch_bytes == 5


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: HTTP(port="80"), 'http.port = "80": must be a whole number from 0 to 65535'),  # type: ignore[arg-type]
    (lambda: HTTP(port=True), "http.port = true: must be a whole number"),
    (lambda: HTTP(port=70_000), "http.port = 70000: must be a whole number from 0 to 65535"),
    (lambda: HTTP(engine="x"), 'http.engine = "x": must be "auto" or "builtin" or "h11"'),  # type: ignore[arg-type]
    (lambda: HTTP(host=""), 'http.host = "": must be a string that is not empty'),
    (lambda: Timeouts(answer_seconds=0), "timeouts.answer_seconds = 0: must be a number above 0"),
    (lambda: Timeouts(answer_seconds=float("nan")), "timeouts.answer_seconds"),
    (lambda: Timeouts(idle_seconds=float("inf")), "timeouts.idle_seconds.*must be finite"),
    (lambda: Limits(connections=0), "limits.connections = 0: .* at least 1"),
    (lambda: Shutdown(drain_delay_seconds=-1), "shutdown.drain_delay_seconds = -1.* at least 0"),
    (lambda: Topics(allow=["a b"]), 'topics.allow = "a b": a topic has 1 to 249'),
    (lambda: Topics(allow="orders"), 'topics.allow = "orders": must be a list, each item a string'),
    (lambda: Config(http=80), "http = 80: must be"),  # type: ignore[arg-type]
    (lambda: Config(routes=["/=a"]), "routes = .*: must be a list"),  # type: ignore[list-item]
    (lambda: Config(kafka=[]), "kafka = .*: must be a table"),  # type: ignore[arg-type]
    (lambda: Config(kafka={"acks": ["all"]}), r"\[kafka\] acks = .*: must be a string"),  # type: ignore[dict-item]
    (lambda: Route("/a"), 'routes: "/a": a topic is required'),
    (lambda: Route("/a/{topic}", "b"), 'topic = "b": the path names the topic'),
    (lambda: Route("a", "b"), 'routes: "a": a path begins with "/"'),
    (lambda: Route("", "b"), 'a path begins with "/"'),
    (lambda: Route("/a?b", "b"), "holds no query"),
    (lambda: Route("/a b", "b"), "holds no query, blank"),
    (lambda: Route("/a//b", "b"), "no empty"),
    (lambda: Route("/a/..", "b"), 'no empty, "." or ".." segment'),
    (lambda: Route("/a-{topic}"), "a whole segment"),
    (lambda: Route("/{topic}/{topic}"), "a whole segment, once"),
    (lambda: Route("/{name}"), 'the one placeholder is "{topic}"'),
    (lambda: Route("/{partition}"), "a topic is required"),
    (lambda: Route("/{topic}/{partition}/{partition}"), "a whole segment, once"),
    (lambda: Route("/a", "b", v2_dialect="x"), 'v2_dialect = "x": must be "confluent" or'),  # type: ignore[arg-type]
    (
        lambda: Config(limits=Limits(held_bytes=10_000_000, batch_bytes=5_000_000)),
        r"at least 2 \* limits.batch_bytes \+ 262144 = 10262144",
    ),
    (
        lambda: Config(
            http=HTTP(native=False, rest_proxy=True),
            routes=[Route("/a", "a", promise="queued")],
            kafka={"acks": 1},
        ),
        'acks = 1: must be "all" while route "/topics/{topic}" promises',
    ),
    (lambda: Route("/a", "__offsets"), "internal to Kafka"),
    (lambda: Route("/a", "x" * 250), "1 to 249"),
    (lambda: Route("/a", ".."), 'neither "." nor ".."'),
    (lambda: Route("/a", "b", key_field="a.b.c.d.e.f.g.h.i"), "key_field: 8 names are the most"),
    (lambda: Route("/a", "b", key_field="user..id"), "key_field = .*: must be written like user.id"),
    (lambda: Route("/a", "b", key_field="é" * 129), "key_field = .*: must have at most 256 bytes"),
    (lambda: Config(routes=[Route("/a", "a"), Route("/a", "b")]), 'routes: "/a" is there 2 times'),
    (lambda: Config(http=HTTP(tls_key_file="k")), "tls_key_file is set without http.tls_ce"),
    (lambda: Config(http=HTTP(tls_certificate_file="k")), "without http.tls_key_file"),
    (
        lambda: Config(limits=Limits(held_bytes=1000, request_bytes=1000, record_bytes=1000)),
        r"limits.held_bytes = 1000 .* must be at least limits.request_bytes \+ 262144 = 263144",
    ),
    (
        lambda: Config(limits=Limits(held_bytes=2_000_000)),
        r"limits.held_bytes = 2000000 .* must be at least 2 \* \(limits.record_bytes \+ 262144\) = 2524288",
    ),
    (
        lambda: Config(kafka={"message.max.bytes": 999_999}),
        r"limits.record_bytes = 1000000 is more than \[kafka\] message.max.bytes = 999999",
    ),
    (lambda: Config(limits=Limits(record_bytes=10**9)), "limits.record_bytes .* at most 999998976"),
    (
        lambda: Config(shutdown=Shutdown(drain_delay_seconds=24)),
        "grace_seconds = 25 .*drain_delay_seconds = 24",
    ),
    (lambda: Config(kafka={"delivery.timeout.ms": 0}), "message.timeout.ms = 0: must be above 0"),
    (lambda: Config(kafka={"message.timeout.ms": "8s"}), 'message.timeout.ms = "8s": must be a num'),
    (
        lambda: Config(routes=[Route("/", "a", when_full="wait", wait_seconds=10)]),
        "wait_seconds = 10: must be below timeouts.answer_seconds = 10",
    ),
    (lambda: Config(kafka={"acks": 1}), r'\[kafka\] acks = 1: must be "all" while route "/" promises'),
    (lambda: Config(kafka={"request.required.acks": "0"}), 'acks = "0": must be "all"'),
    (lambda: Config(kafka={"acks": "all", "request.required.acks": "all"}), "acks is set in two ways"),
    (
        lambda: Config(kafka={"sasl.password": "a", "sasl.password_file": "b"}),
        "sasl.password is set in two ways",
    ),
    (
        lambda: Config(kafka={"delivery.report.only.error": True}),
        "delivery.report.only.error = true: no answer could be given",
    ),
]


@pytest.mark.parametrize(("build", "message"), WRONG, ids=[row[1] for row in WRONG])
def test_what_is_wrong_is_refused_in_one_line(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_weaker_acks_may_be_had_where_no_route_promises_delivery() -> None:
    routes = [Route("/", "logs", promise="queued")]
    config = Config(http=HTTP(native=False), routes=routes, kafka={"acks": "1", "enable.idempotence": False})
    assert config.producer_settings["acks"] == "1"


@pytest.mark.parametrize("acks", ["all", -1, "-1"])
def test_every_spelling_of_all_acks_is_taken(acks: str | int) -> None:
    assert Config(kafka={"acks": acks}).producer_settings["acks"] == acks


def test_producer_settings_are_the_defaults_under_what_is_configured() -> None:
    settings = Config(kafka={"queue.buffering.max.ms": 20, "client.id": "c"}).producer_settings
    assert settings == {
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "message.timeout.ms": 120_000,
        "linger.ms": 20,
        "message.max.bytes": 1_001_024,
        "reconnect.backoff.max.ms": 1000,
        "statistics.interval.ms": 5000,
        "allow.auto.create.topics": False,
        "client.id": "c",
    }


def test_secrets_are_read_from_files_without_their_last_line_end(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"top secret \r\n")
    settings = Config(kafka={"sasl.password_file": str(file)}).producer_settings
    assert settings["sasl.password"] == "top secret "
    assert "sasl.password_file" not in settings


def test_a_missing_secret_file_is_named(tmp_path: Path) -> None:
    config = Config(kafka={"sasl.password_file": str(tmp_path / "none")})
    with pytest.raises(ConfigError, match=r"sasl.password_file = .*none.*: cannot be read: No such file"):
        _ = config.producer_settings


def test_no_secret_is_in_a_config_s_repr_or_in_a_message() -> None:
    config = Config(kafka={"sasl.password": "hunter2", "ssl.key.pem": "hunter2", "sasl.password_callback": 1})
    assert "hunter2" not in repr(config)
    with pytest.raises(ConfigError) as caught:
        Config(kafka={"sasl.password": ["hunter2"]})  # type: ignore[dict-item]
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_needs_no_warning(host: str) -> None:
    assert Config(http=HTTP(host=host)).warnings == ()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "ingest.example"])
def test_listening_beyond_loopback_without_tls_is_warned_about(host: str) -> None:
    (warning,) = Config(http=HTTP(host=host)).warnings
    assert host in warning
    assert Config(http=HTTP(host=host, tls_certificate_file="c", tls_key_file="k")).warnings == ()


def test_a_route_to_a_topic_that_is_not_allowed_is_warned_about() -> None:
    (warning,) = Config(
        topics=Topics(allow=["orders"]), routes=[Route("/a", "a"), Route("/o", "orders")]
    ).warnings
    assert '"/a"' in warning


def test_a_producer_without_idempotence_is_warned_of() -> None:
    (warning,) = Config(kafka={"enable.idempotence": "false"}).warnings
    assert "may store a record twice" in warning


@pytest.mark.parametrize("timeout_ms", ["8000", 10_000])
def test_a_message_timeout_within_the_time_of_an_answer_is_warned_of(timeout_ms: str | int) -> None:
    (warning,) = Config(kafka={"delivery.timeout.ms": timeout_ms}).warnings
    assert f"message.timeout.ms = {timeout_ms} is not above timeouts.answer_seconds = 10" in warning
    assert Config(kafka={"message.timeout.ms": 10_001}).warnings == ()


@pytest.mark.parametrize(
    "servers", ["a", "a:1", "a:1, b:65535", "[::1]:9092", "PLAINTEXT://a.b:9092", "[::1]"]
)
def test_brokers_are_hosts_with_or_without_a_port(servers: str) -> None:
    assert Config(kafka={"bootstrap.servers": servers}).kafka["bootstrap.servers"] == servers


@pytest.mark.parametrize(
    "servers", ["", ",", "a,", "a:", "a:0", "a:65536", "a:x", "a:1:2", "a b", "http://a/"]
)
def test_what_is_no_broker_is_refused(servers: str) -> None:
    with pytest.raises(ConfigError, match="must be HOST:PORT"):
        Config(kafka={"bootstrap.servers": servers})


def test_both_listeners_cannot_have_one_port() -> None:
    with pytest.raises(ConfigError, match="each needs one of its own"):
        Config(http=HTTP(port=8081, host="0.0.0.0"))
    Config(http=HTTP(port=8081, host="192.0.2.1"))
    Config(http=HTTP(port=0), management=Management(port=0))
    Config(http=HTTP(port=8081), management=Management(enabled=False))


@pytest.mark.parametrize("name", ["acks_file", "request.required.acks_file", "message.timeout.ms_file"])
def test_what_is_checked_here_cannot_come_from_a_file(name: str) -> None:
    with pytest.raises(ConfigError, match="is no secret; give the value itself"):
        Config(kafka={name: "/tmp/value"})


def test_a_setting_and_its_second_name_are_one_setting_in_files_too() -> None:
    with pytest.raises(ConfigError, match="is set in two ways"):
        Config(kafka={"linger.ms": 1, "queue.buffering.max.ms_file": "x"})


def test_transactions_are_refused() -> None:
    with pytest.raises(ConfigError, match="no transactions here"):
        Config(kafka={"transactional.id": "t"})
