from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.config import Config
from ingest.errors import ConfigError
from ingest.loading import as_toml, load
from ingest.route import Route
from ingest.sections import HTTP, Limits, Shutdown, Topics


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ingest.toml"


def test_nothing_given_is_the_defaults() -> None:
    assert load(None, {}, {}) == Config()


def test_later_sources_override_earlier_ones(file: Path) -> None:
    file.write_text(
        '[http]\nhost = "::1"\nport = 1\nengine = "h11"\n[kafka]\n"acks" = "all"\n"linger.ms" = 2\n'
    )
    environ = {"INGEST_HTTP__PORT": "2", "INGEST_HTTP__ENGINE": "auto", "INGEST_KAFKA__LINGER_MS": "3"}
    config = load(file, environ, {"--port": "3", "--kafka": ["client.id=a=b"]})
    assert config.http == HTTP(host="::1", port=3, engine="auto")
    assert config.kafka == {"acks": "all", "linger.ms": "3", "client.id": "a=b"}


def test_kafka_names_may_stand_without_quotes(file: Path) -> None:
    file.write_text(
        '[kafka]\nbootstrap.servers = "a:1"\nsasl.password_file = "p"\nsocket.keepalive.enable = true\n'
    )
    expected = {"bootstrap.servers": "a:1", "sasl.password_file": "p", "socket.keepalive.enable": True}
    assert load(file, {}, {}).kafka == expected


def test_a_setting_by_its_other_name_overrides_the_earlier_source(file: Path) -> None:
    file.write_text('[kafka]\ndelivery.timeout.ms = 5000\nsasl.password_file = "p"\n')
    config = load(file, {"INGEST_KAFKA__SASL_PASSWORD": "s"}, {"--kafka": ["message.timeout.ms=6000"]})
    assert config.kafka == {"message.timeout.ms": "6000", "sasl.password": "s"}


def test_routes_come_from_tables(file: Path) -> None:
    file.write_text(
        '[[routes]]\npath = "/a"\ntopic = "a"\npromise = "queued"\n[[routes]]\npath = "/in/{topic}"\n'
    )
    assert load(file, {}, {}).routes == (Route("/a", "a", promise="queued"), Route("/in/{topic}"))


def test_routes_come_from_the_environment() -> None:
    environ = {"INGEST_ROUTES": "/a=a, /in/{topic} ,/x=y=z"}
    assert load(None, environ, {}).routes == (Route("/a", "a"), Route("/in/{topic}"), Route("/x=y", "z"))


def test_route_flags_replace_all_routes(file: Path) -> None:
    file.write_text('[[routes]]\npath = "/a"\ntopic = "a"\n')
    assert load(file, {}, {"--route": ["/b=b", "/c/{topic}"]}).routes == (
        Route("/b", "b"),
        Route("/c/{topic}"),
    )


def test_the_topic_flag_sets_the_topic_of_the_root_alone(file: Path) -> None:
    assert load(None, {}, {"--topic": "t"}).routes == (Route("/", "t"),)
    file.write_text(
        '[[routes]]\npath = "/"\ntopic = "a"\nkey_field = "id"\n[[routes]]\npath = "/b"\ntopic = "b"\n'
    )
    assert load(file, {}, {"--topic": "t"}).routes == (Route("/", "t", key_field="id"), Route("/b", "b"))
    assert load(None, {}, {"--topic": "t", "--route": ["/b=b"]}).routes == (Route("/b", "b"), Route("/", "t"))


def test_the_environment_s_strings_become_what_the_option_is() -> None:
    environ = {
        "INGEST_HTTP__NATIVE": "false",
        "INGEST_LIMITS__CONNECTIONS": "100",
        "INGEST_SHUTDOWN__GRACE_SECONDS": "2.5",
        "INGEST_TOPICS__ALLOW": "a, b",
        "INGEST_TOPICS__AUTO_CREATE": "true",
        "INGEST_KAFKA__SASL_PASSWORD_FILE": "p",
    }
    assert load(None, environ, {}) == Config(
        http=HTTP(native=False),
        limits=Limits(connections=100),
        shutdown=Shutdown(grace_seconds=2.5),
        topics=Topics(allow=["a", "b"], auto_create=True),
        kafka={"sasl.password_file": "p"},
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INGEST_SERVICE_HOST", "10.0.0.1"),
        ("INGEST_SERVICE_PORT", "80"),
        ("INGEST_SERVICE_PORT_HTTP", "80"),
        ("INGEST_PORT", "tcp://10.0.0.1:80"),
        ("INGEST_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("INGEST_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("INGEST_KAFKA_PORT", "tcp://10.0.0.1:80"),
        ("OTHER", "1"),
    ],
)
def test_variables_that_kubernetes_makes_for_a_service_called_ingest_are_left_alone(
    name: str, value: str
) -> None:
    assert load(None, {name: value}, {}) == Config()


WRONG_FILES = [
    ("[limits]\nrecord_byte = 1\n", '[limits] "record_byte": no such option; did you mean "record_bytes"?'),
    ("[limit]\n", "[limit]: no such section; did you mean [limits]?"),
    ("port = 8080\n", '"port": no such section; did you mean "port" in [http]?'),
    ("[zzz]\n", "[zzz]: no such section"),
    ("http = 3\n", "http = 3: must be a section, [http]"),
    ('[http]\nport = "8080"\n', '[http] port = "8080": must be a whole number from 0 to 65535'),
    ("routes = [1]\n", "routes: must be tables, each headed [[routes]]"),
    ('[[routes]]\ntopic = "a"\n', '[[routes]] path: is required, as in path = "/clicks"'),
    ('[[routes]]\npath = "/a"\ntopc = "a"\n', '[[routes]] "topc": no such option; did you mean "topic"?'),
    ("[[routes]]\npath = 1\n", "path = 1: must be a string"),
    ("[kafka]\nacks = 1979-05-27\n", "[kafka] acks = "),
    (
        "[kafka]\nacks = 'all'\nrequest.required.acks = 'all'\n",
        "[kafka] request.required.acks: acks is set in two",
    ),
    ("[http\n", "not TOML: "),
]


@pytest.mark.parametrize(("content", "message"), WRONG_FILES, ids=[row[1] for row in WRONG_FILES])
def test_what_is_wrong_in_a_file_is_named_with_the_file(file: Path, content: str, message: str) -> None:
    file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load(file, {}, {})
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"ingest.toml: cannot be read: No such file or directory"):
        load(file, {}, {})


def test_a_file_that_is_not_utf_8_is_refused(file: Path) -> None:
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not TOML"):
        load(file, {}, {})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("INGEST_HTTP__PROT", "1", "no such option in the environment; did you mean INGEST_HTTP__PORT?"),
        ("INGEST_HTTP_PORT", "8080", "no such option in the environment; did you mean INGEST_HTTP__PORT?"),
        ("INGEST_ROUTE", "/=a", "did you mean INGEST_ROUTES?"),
        ("INGEST_KAFKA", "a", "no such option in the environment"),
        ("INGEST_HTTP__PORT", "http", ' = "http": must be a whole number from 0 to 65535'),
        ("INGEST_HTTP__HOST", "", ' = "": must be a string that is not empty'),
        ("INGEST_ROUTES", "/a", ': routes: "/a": a topic is required'),
        ("INGEST_HTTP__HOST", "\udcff", ": must be UTF-8"),
    ],
)
def test_what_is_wrong_in_the_environment_is_named_with_the_variable(
    name: str, value: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {name: value}, {})
    assert str(caught.value).startswith(name)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--port", "http", '--port = "http": must be a whole number from 0 to 65535'),
        ("--log-format", "xml", '--log-format = "xml": must be "json" or "text"'),
        ("--kafka", ["acks"], "--kafka acks: must be NAME=VALUE"),
        ("--kafka", ["acks=all", "acks=1"], "--kafka acks: acks is set in two ways"),
        ("--route", ["/a"], '--route: routes: "/a": a topic is required'),
        ("--topic", "a b", '--topic: routes: "/": topic = "a b"'),
    ],
)
def test_what_is_wrong_in_a_flag_is_named_with_the_flag(flag: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {}, {flag: value})
    assert str(caught.value).startswith(message)


def test_the_root_s_topic_cannot_be_named_by_two_flags() -> None:
    with pytest.raises(ConfigError, match="--route names the topic"):
        load(None, {}, {"--topic": "a", "--route": ["/=b"]})


def test_secrets_in_the_environment_do_not_reach_a_message() -> None:
    environ = {"INGEST_KAFKA__SASL_PASSWORD": "hunter2", "INGEST_KAFKA__SASL_PASSWORD_FILE": "f"}
    with pytest.raises(ConfigError, match="set in two ways") as caught:
        load(None, environ, {})
    assert "hunter2" not in str(caught.value)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(host=TEXT, client_id=TEXT, grace=st.floats(min_value=2, max_value=1e9), native=st.booleans())
def test_written_toml_is_read_back_as_the_same_config(
    tmp_path_factory: pytest.TempPathFactory, host: str, client_id: str, grace: float, native: bool
) -> None:
    config = Config(
        http=HTTP(host=host, native=native),
        shutdown=Shutdown(grace_seconds=grace),
        topics=Topics(allow=["a", "b"], auto_create=False),
        routes=[Route("/a", "a", key_field=client_id.replace(".", "") or "k"), Route("/in/{topic}")],
        kafka={"client.id": client_id, "linger.ms": 0.5, "retries": 3, "socket.keepalive.enable": True},
    )
    file = tmp_path_factory.mktemp("written") / "ingest.toml"
    file.write_text(as_toml(config), encoding="utf-8", newline="")
    assert load(file, {}, {}) == config


def test_a_config_without_routes_is_read_back_too(file: Path) -> None:
    file.write_text(as_toml(Config(routes=[])))
    assert load(file, {}, {}) == Config(routes=[])


@pytest.mark.parametrize(
    "name",
    [
        "sasl.password",
        "ssl.key.password",
        "ssl.keystore.password",
        "ssl.key.pem",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.jaas.config",
    ],
)
def test_secrets_are_masked_in_what_is_written(name: str) -> None:
    written = as_toml(Config(kafka={name: "hunter2"}))
    assert "hunter2" not in written
    assert f'"{name}" = "********"' in written


@pytest.mark.parametrize(
    "name", ["sasl.username", "sasl.password_file", "ssl.key.location", "sasl.oauthbearer.token.endpoint.url"]
)
def test_what_is_no_secret_is_not_masked(name: str) -> None:
    assert f'"{name}" = "seen"' in as_toml(Config(kafka={name: "seen"}))


def test_lists_in_the_environment_have_commas() -> None:
    environ = {"INGEST_TOPICS__ALLOW": "a, b", "INGEST_COMPAT__WEBHOOK_ORIGINS": "x.example,y.example"}
    config = load(None, environ, {})
    assert config.topics.allow == ("a", "b")
    assert config.compat.webhook_origins == ("x.example", "y.example")
