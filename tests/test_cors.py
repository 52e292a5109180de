"""CORS: pages of listed origins may send and read every answer, errors too; others are told nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ingest.config import Config
from ingest.cors import CORS
from ingest.errors import ConfigError
from ingest.http.engines import ENGINES
from ingest.http.protocol import HTTPProtocol
from ingest.loading import load
from ingest.records import Record
from ingest.route import Route
from ingest.testing import MemoryProducer
from tests.client import Answer, request
from tests.exchange import open_exchanges

APP, OTHER = "https://app.example.org", "https://evil.example.org"
LISTED = Config(cors=CORS(allow_origins=[APP, "http://localhost:3000"], allow_credentials=True))
EVERYONE = Config(cors=CORS(allow_origins=["*"]))
BY_ROUTE = Config(
    cors=CORS(max_age_seconds=5),
    routes=[
        Route("/", "events", cors_allow_origins=[APP], cors_allow_credentials=True, cors_expose_fields=[]),
        Route("/closed", "closed"),
    ],
)
PREFLIGHT = (
    f"Origin: {APP}",
    "Access-Control-Request-Method: POST",
    "Access-Control-Request-Headers: content-type,kafka-header-trace",
)


@pytest.fixture(params=list(ENGINES))
def make_protocol(request: pytest.FixtureRequest) -> Callable[[], HTTPProtocol]:
    made: Callable[[], HTTPProtocol] = ENGINES[request.param]
    return made


def cors(answer: Answer) -> dict[str, str]:
    return {
        name.removeprefix("access-control-"): value
        for name, value in answer.fields.items()
        if name.startswith("access-control-") or name == "vary"
    }


ALLOWED = {
    "allow-origin": APP,
    "allow-credentials": "true",
    "expose-headers": "Retry-After, X-Request-Id",
    "vary": "origin",
}


async def test_a_browser_that_asks_first_is_told_what_it_may_send(
    make_protocol: Callable[[], HTTPProtocol],
) -> None:
    async with open_exchanges(MemoryProducer(), LISTED) as exchanges:
        client = exchanges.connect(make_protocol=make_protocol)
        answer = await client.ask(request("OPTIONS /topics/orders/records", *PREFLIGHT))
        assert (answer.status, answer.content) == (204, b"")
        assert cors(answer) == {
            "allow-origin": APP,
            "allow-credentials": "true",
            "allow-methods": "POST, DELETE, OPTIONS",
            "allow-headers": "content-type,kafka-header-trace",
            "max-age": "600",
            "vary": "origin, access-control-request-method, access-control-request-headers",
        }
        sent = await client.ask(request("POST /topics/orders/records", f"Origin: {APP}", content=b"{}"))
        assert (sent.status, cors(sent)) == (200, ALLOWED)


@pytest.mark.parametrize(
    "asked",
    [
        request("POST /nowhere", f"Origin: {APP}", content=b"x"),
        request("PUT /", f"Origin: {APP}", content=b"x"),
        request("POST /?key=a&key_field=b", f"Origin: {APP}", content=b"x"),
        request("POST /", f"Origin: {APP}", "Content-Encoding: br", content=b"x"),
        request("POST /", f"Origin: {APP}", "Content-Encoding: gzip", content=b"x"),
        request("POST /", f"Origin: {APP}", content=bytes(2_000_000)),
        request("POST /topics/__a/records", f"Origin: {APP}", content=b"x"),
        request("POST /topics/none/records", f"Origin: {APP}", content=b"x"),
        request("GET /topics/none", f"Origin: {APP}"),
        request("GET /topics", f"Origin: {APP}"),
        request("POST /?offsets=true", f"Origin: {APP}", "Content-Type: application/jsonl", content=b"1\n"),
        request("POST /", f"Origin: {APP}", "Prefer: respond-async", content=b"x"),
        request("POST /", f"Origin: {APP}", "Prefer: return=minimal", content=b"x"),
    ],
)
async def test_every_answer_can_be_read_errors_too(asked: bytes) -> None:
    async with open_exchanges(MemoryProducer(topics=["events"]), LISTED) as exchanges:
        assert cors(await exchanges.ask(asked)) == ALLOWED


@pytest.mark.parametrize(
    "origin",
    [
        OTHER,
        "null",
        APP.upper(),
        f"{APP}.evil.org",
        f"{APP}:444",
        "http://app.example.org",
        f"{APP}/",
        "*",
        "",
    ],
)
@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
async def test_another_origin_is_told_nothing(origin: str, method: str) -> None:
    producer = MemoryProducer()
    fields = f"Origin: {origin}", "Access-Control-Request-Method: POST"
    async with open_exchanges(producer, LISTED) as exchanges:
        content = b"x" if method == "POST" else None
        answer = await exchanges.ask(request(f"{method} /", *fields, content=content))
    assert list(cors(answer)) == ["vary"]
    assert cors(answer)["vary"].startswith("origin")
    assert origin not in "".join(answer.fields.values()) or not origin or origin == "*"


async def test_a_request_without_an_origin_is_nobodys_page_but_a_cache_may_see_it() -> None:
    async with open_exchanges(MemoryProducer(), LISTED) as exchanges:
        assert cors(await exchanges.ask(request("POST /", content=b"x"))) == {"vary": "origin"}


async def test_every_origin_is_answered_the_same() -> None:
    async with open_exchanges(MemoryProducer(), EVERYONE) as exchanges:
        for fields in ([f"Origin: {OTHER}"], []):
            answer = await exchanges.ask(request("POST /", *fields, content=b"x"))
            assert cors(answer) == {"allow-origin": "*", "expose-headers": "Retry-After, X-Request-Id"}


async def test_unless_configured_nothing_is_said() -> None:
    async with open_exchanges(MemoryProducer()) as exchanges:
        answer = await exchanges.ask(request("OPTIONS /", *PREFLIGHT))
        assert (answer.status, answer.fields["allow"], cors(answer)) == (
            204,
            "POST, DELETE, GET, HEAD, OPTIONS",
            {},
        )
        assert cors(await exchanges.ask(request("POST /", f"Origin: {APP}", content=b"x"))) == {}


async def test_a_route_can_have_its_own() -> None:
    async with open_exchanges(MemoryProducer(), BY_ROUTE) as exchanges:
        asked = await exchanges.ask(request("OPTIONS /", *PREFLIGHT))
        assert (cors(asked)["allow-origin"], cors(asked)["max-age"]) == (APP, "5")
        sent = await exchanges.ask(request("POST /", f"Origin: {APP}", content=b"x"))
        assert cors(sent) == {"allow-origin": APP, "allow-credentials": "true", "vary": "origin"}
        for line in ("OPTIONS /closed", "OPTIONS /topics/a/records", "OPTIONS /nowhere"):
            assert cors(await exchanges.ask(request(line, *PREFLIGHT))) == {}


@pytest.mark.parametrize("wanted", ["x y", "a, b;c", "a\tb", "", ",", "é"])
async def test_what_is_no_name_of_a_field_is_not_repeated(wanted: str) -> None:
    fields = *PREFLIGHT[:2], f"Access-Control-Request-Headers: {wanted}"
    async with open_exchanges(MemoryProducer(), LISTED) as exchanges:
        answer = await exchanges.ask(request("OPTIONS /", *fields))
    assert answer.status == 204
    assert "allow-headers" not in cors(answer)


async def test_a_beacon_is_a_record_as_text_without_asking_and_as_json_with() -> None:
    producer = MemoryProducer()
    async with open_exchanges(producer, LISTED) as exchanges:
        client = exchanges.connect()
        text = "Content-Type: text/plain;charset=UTF-8"
        assert (await client.ask(request("POST /", f"Origin: {OTHER}", text, content=b"{}"))).status == 200
        assert (await client.ask(request("OPTIONS /", *PREFLIGHT))).status == 204
        json = "Content-Type: application/json", "Cookie: a=b"
        assert (await client.ask(request("POST /", f"Origin: {APP}", *json, content=b"{}"))).status == 200
    assert producer.records == [
        Record("events", b"{}", None, (("content-type", b"text/plain;charset=UTF-8"),)),
        Record("events", b"{}", None, (("content-type", b"application/json"),)),
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CORS(allow_origins=["*"], allow_credentials=True),
            r'cors.allow_credentials = true with cors.allow_origins = \["\*"\]',
        ),
        (
            lambda: Config(
                cors=CORS(allow_credentials=True), routes=[Route("/", "a", cors_allow_origins=["*"])]
            ),
            r'routes: "/": with what it does not set itself: cors.allow_credentials = true with',
        ),
        (
            lambda: Config(
                cors=CORS(allow_origins=["*"]), routes=[Route("/", "a", cors_allow_credentials=True)]
            ),
            r'routes: "/": with what it does not set itself: cors.allow_credentials = true with',
        ),
        (lambda: CORS(allow_origins=["*", APP]), 'allow_origins: "\\*" is every origin'),
        (lambda: CORS(allow_origins=["app.example.org"]), '"app.example.org": must be as browsers write it'),
        (lambda: CORS(allow_origins=[f"{APP}/"]), "without a path"),
        (lambda: CORS(allow_origins=["https://App.example.org"]), "in lower case"),
        (lambda: CORS(allow_origins=["null"]), '"null": must be as browsers write it'),
        (lambda: CORS(allow_origins=[f"{APP}:443"]), 'a browser leaves ":443" out'),
        (lambda: CORS(max_age_seconds=-1), "cors.max_age_seconds = -1: must be a whole number of at least 0"),
        (lambda: CORS(expose_fields=["a b"]), 'expose_fields: "a b": must be the name of a field'),
        (lambda: CORS(allow_origins="*"), 'allow_origins = "\\*": must be a list'),
    ],
)  # fmt: skip
def test_wrong_ones_are_refused_with_what_fails(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_origins_in_the_environment_are_separated_by_commas() -> None:
    config = load(None, {"INGEST_CORS__ALLOW_ORIGINS": f"{APP}, http://localhost:3000"}, {})
    assert config.cors.allow_origins == (APP, "http://localhost:3000")
