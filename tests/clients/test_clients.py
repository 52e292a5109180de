"""Clients that others have written, each against `ingest serve` with a real Kafka behind it.

What a client was told has arrived is counted in the topic.  A client that is not there is left out by name,
with how to get it.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trio

from tests.broker.ingest_process import IngestProcess, open_ingest
from tests.broker.kafka_server import RealKafka, StoredRecord

FOLDER = Path(__file__).parent
SECONDS = 120.0
"""For one client, which is far above what any takes."""
INSTALL_SECONDS = 300.0

HOW_TO_GET = {
    "curl": "apt-get install curl",
    "gzip": "apt-get install gzip",
    "npm": "apt-get install nodejs npm",
    "javac": "apt-get install default-jdk-headless",
    "mvn": "apt-get install maven",
    "syslog-ng": "apt-get install syslog-ng-core syslog-ng-mod-http",
    "h2load": "apt-get install nghttp2-client",
    "vegeta": "go install github.com/tsenart/vegeta/v12@v12.13.0, and have it on PATH",
    "chromium-headless-shell": "apt-get install chromium-headless-shell",
}

NewTopic = Callable[..., str]
Report = Callable[[str], None]


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on PATH: {HOW_TO_GET[program]}")


async def run(*command: str, stdin: bytes = b"", folder: Path = FOLDER, seconds: float = SECONDS) -> str:
    """What a program prints; it has to end well, and in time."""
    with trio.fail_after(seconds):
        done = await trio.run_process(
            command, stdin=stdin, capture_stdout=True, capture_stderr=True, check=False, cwd=folder
        )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return done.stdout.decode()


class Place:
    """A running service, and a topic of the real Kafka behind it."""

    def __init__(self, kafka: RealKafka, server: IngestProcess, topic: str, report: Report) -> None:
        self.server = server
        self.topic = topic
        self.base = f"http://127.0.0.1:{server.port}"
        self.url = f"{self.base}/topics/{topic}/records"
        self._kafka = kafka
        self._report = report

    def stored(self) -> list[StoredRecord]:
        return self._kafka.read_all(self.topic)

    def arrived(self, client: str, count: int) -> list[StoredRecord]:
        """What is in the topic, which has to be so many records."""
        stored = self.stored()
        self._report(f"{client}: {len(stored)} of {count} arrived")
        assert len(stored) == count
        return stored


@contextlib.asynccontextmanager
async def open_place(
    kafka: RealKafka, new_topic: NewTopic, report: Report, environ: dict[str, str]
) -> AsyncIterator[Place]:
    topic = new_topic(partitions=3)
    async with open_ingest("--bootstrap-servers", kafka.bootstrap_servers, environ=environ) as server:
        yield Place(kafka, server, topic, report)


Open = Callable[..., contextlib.AbstractAsyncContextManager[Place]]


@pytest.fixture
def opened(kafka: RealKafka, new_topic: NewTopic, report: Report) -> Open:
    def open_(**environ: str) -> contextlib.AbstractAsyncContextManager[Place]:
        return open_place(kafka, new_topic, report, environ)

    return open_


# From the command line --------------------------------------------------------------------------------


async def test_curl(opened: Open, tmp_path: Path) -> None:
    need("curl", "gzip")
    lines = b"".join(b'{"n":%d}\n' % number for number in range(5000))
    ndjson = "-H", "Content-Type: application/x-ndjson"
    async with opened() as place:
        curl = "curl", "-sS", "--fail-with-body", "--data-binary", "@-"
        assert json.loads(await run(*curl, place.url, stdin=b"one"))["topic"] == place.topic
        counted = await run(*curl, *ndjson, place.url, stdin=lines)
        assert json.loads(counted) == {"accepted": 5000, "failed": 0}
        (tmp_path / "lines").write_bytes(lines)
        await run("gzip", "lines", folder=tmp_path)
        compressed = (tmp_path / "lines.gz").read_bytes()
        packed = "-H", "Content-Encoding: gzip"
        # Above a megabyte, or asked to, curl waits for 100 (Continue).
        waits = "-H", "Expect: 100-continue"
        counted = await run(*curl, *ndjson, *packed, *waits, place.url, stdin=compressed)
        assert json.loads(counted) == {"accepted": 5000, "failed": 0}
        envelope = b'{"records":[{"value":1},{"value":2}]}'
        v2 = "-H", "Content-Type: application/vnd.kafka.json.v2+json"
        answer = json.loads(await run(*curl, *v2, f"{place.base}/topics/{place.topic}", stdin=envelope))
        assert [item["error_code"] for item in answer["offsets"]] == [None, None]
        (cluster,) = json.loads(await run("curl", "-sS", f"{place.base}/v3/clusters"))["data"]
        v3 = f"{place.base}/v3/clusters/{cluster['cluster_id']}/topics/{place.topic}/records"
        stream = b'{"value":{"type":"JSON","data":3}}' * 10
        chunked = "-H", "Content-Type: application/json", "-H", "Transfer-Encoding: chunked"
        reports = await run(*curl, *chunked, v3, stdin=stream)
        assert reports.count('"error_code":200') == 10
        place.arrived("curl", 1 + 5000 + 5000 + 2 + 10)


# Python -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ["requests", "httpx", "aiohttp", "cloudevents"])
async def test_python(opened: Open, client: str) -> None:
    pytest.importorskip(client, reason=f"pip install {client}")
    async with opened() as place:
        await run(sys.executable, str(FOLDER / "python_clients.py"), client, place.url, "200")
        stored = place.arrived(f"Python's {client}", 200)
    if client == "cloudevents":
        binary = [record for record in stored if "ce_type" in dict(record.headers)]
        assert len(binary) == 100


# Node -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages and programs for Node."""
    need("npm")
    folder = tmp_path_factory.mktemp("node")
    for file in (FOLDER / "node").iterdir():
        shutil.copy(file, folder)
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(command, cwd=folder, check=True, timeout=INSTALL_SECONDS)
    return folder


async def test_undici(opened: Open, node: Path) -> None:
    async with opened() as place:
        await run("node", "undici.mjs", place.url, "500", folder=node)
        place.arrived("Node's undici", 500)


async def test_cloudevents_of_npm(opened: Open, node: Path) -> None:
    async with opened() as place:
        await run("node", "cloudevents.mjs", place.url, "100", folder=node)
        stored = place.arrived("npm's cloudevents", 101)
    assert sum("ce_type" in dict(record.headers) for record in stored) == 51
    assert {record.key for record in stored} == {b"k"}


async def test_autocannon(opened: Open, node: Path) -> None:
    async with opened() as place:
        command = "node_modules/.bin/autocannon", "--amount", "2000", "--connections", "8", "--json"
        told = json.loads(await run(*command, "-m", "POST", "-b", "{}", place.url, folder=node))
        assert (told["2xx"], told["non2xx"], told["errors"]) == (2000, 0, 0)
        place.arrived("autocannon", 2000)


# Java -------------------------------------------------------------------------------------------------


async def test_cloudevents_of_java_with_the_jdks_client(opened: Open, tmp_path: Path) -> None:
    need("javac", "mvn")
    path = tmp_path / "classpath"
    build = "dependency:build-classpath", f"-Dmdep.outputFile={path}"
    await run("mvn", "-q", "-B", *build, folder=FOLDER / "java", seconds=INSTALL_SECONDS)
    async with opened() as place:
        await run("java", "-cp", path.read_text(), str(FOLDER / "java" / "Send.java"), place.url, "100")
        stored = place.arrived("CloudEvents' Java SDK with the JDK's client", 100)
    assert sum("ce_type" in dict(record.headers) for record in stored) == 50


# Shippers of logs -------------------------------------------------------------------------------------


SYSLOG_NG = """\
@version: 3.38
source s {{ file("{folder}/in.log" follow-freq(0.1) flags(no-parse)); }};
destination d {{
  http(url("{url}") method("POST") headers("Content-Type: application/x-ndjson")
       body("$(format-json message=$MSG)") delimiter("\\n") batch-lines(100) batch-timeout(200));
}};
log {{ source(s); destination(d); }};
"""


async def test_http_of_syslog_ng(opened: Open, tmp_path: Path) -> None:
    need("syslog-ng")
    lines = [f"line {number}" for number in range(1000)]
    (tmp_path / "in.log").write_text("\n".join(lines) + "\n")
    async with opened() as place, trio.open_nursery() as nursery:
        config = tmp_path / "syslog-ng.conf"
        config.write_text(SYSLOG_NG.format(folder=tmp_path, url=place.url))
        own = (f"--{name}={tmp_path / name}" for name in ("persist-file", "pidfile", "control"))
        command = "syslog-ng", "--foreground", "--no-caps", f"--cfgfile={config}", *own
        nursery.start_soon(functools.partial(trio.run_process, command, check=False, capture_stderr=True))
        with trio.move_on_after(SECONDS):
            while len(await trio.to_thread.run_sync(place.stored)) < len(lines):  # noqa: ASYNC110
                await trio.sleep(0.2)
        nursery.cancel_scope.cancel()
        stored = place.arrived("syslog-ng's http()", len(lines))
    assert sorted(json.loads(record.value or b"")["message"] for record in stored) == sorted(lines)


# Load -------------------------------------------------------------------------------------------------


async def test_vegeta(opened: Open, tmp_path: Path) -> None:
    need("vegeta")
    body = tmp_path / "body"
    body.write_text('{"n":1}')
    async with opened() as place:
        attack = "vegeta", "attack", "-rate", "500", "-duration", "2s", "-body", str(body)
        results = tmp_path / "results"
        await run(*attack, "-output", str(results), stdin=f"POST {place.url}\n".encode())
        told = json.loads(await run("vegeta", "report", "-type", "json", str(results)))
        assert told["status_codes"] == {"200": 1000}
        place.arrived("vegeta", 1000)


async def test_h2load(opened: Open, tmp_path: Path) -> None:
    need("h2load")
    body = tmp_path / "body"
    body.write_text('{"n":1}')
    async with opened() as place:
        told = await run("h2load", "--h1", "-n", "2000", "-c", "8", "-d", str(body), place.url)
        assert "2000 succeeded, 0 failed, 0 errored" in told
        place.arrived("h2load", 2000)


# A browser --------------------------------------------------------------------------------------------


PAGE = """<!doctype html><title>page</title><pre id="told">nothing</pre><script type="module">
const url = "URL", told = [];
const post = (to, body, more) => fetch(to, { method: "POST", body, ...more });
const json = { headers: { "Content-Type": "application/json", "Kafka-Header-Trace": "abc" } };
const tell = async (name, how) => {
  try { told.push([name, await how()]); } catch { told.push([name, "refused"]); }
};
await tell("fetch", async () => (await (await post(url, "1", json)).json()).topic);
await tell("keepalive", async () => (await post(url, "2", { keepalive: true, ...json })).status);
await tell("error", async () => (await (await post(url + "/none", "3")).json()).error_code);
await tell("text", async () => navigator.sendBeacon(url, "4"));
await tell("json", async () => navigator.sendBeacon(url, new Blob(["5"], { type: "application/json" })));
// Nobody is told when a beacon has arrived.
await new Promise((resolve) => setTimeout(resolve, 2000));
document.getElementById("told").textContent = JSON.stringify(Object.fromEntries(told));
</script>"""


@contextlib.contextmanager
def serve_page(text: str) -> Iterator[int]:
    """The port of a server that gives everybody this page."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the library's name
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["a listed origin", "another"])
async def test_a_page_in_chromium(
    kafka: RealKafka, new_topic: NewTopic, report: Report, tmp_path: Path, host: str
) -> None:
    need("chromium-headless-shell")
    pages: list[str] = []

    class Late(str):
        """The page names a port that is known once the service runs, which has to know the page's."""

        def encode(self, *_: object, **__: object) -> bytes:
            return pages[0].encode()

    with serve_page(Late()) as port:
        environ = {
            "INGEST_CORS__ALLOW_ORIGINS": f"http://127.0.0.1:{port}",
            "INGEST_CORS__ALLOW_CREDENTIALS": "true",
        }
        async with open_place(kafka, new_topic, report, environ) as place:
            pages.append(PAGE.replace("URL", place.url))
            shown = await run(
                "chromium-headless-shell",
                *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={tmp_path}"),
                *("--timeout=20000", "--virtual-time-budget=15000", "--dump-dom", f"http://{host}:{port}/"),
            )
            told = json.loads(shown.partition('<pre id="told">')[2].partition("</pre>")[0])
            listed = host == "127.0.0.1"
            if listed:
                expected = {"fetch": place.topic, "keepalive": 200, "error": 404, "text": True, "json": True}
                values = [b"1", b"2", b"4", b"5"]
            else:
                refused = dict.fromkeys(("fetch", "keepalive", "error"), "refused")
                expected = {**refused, "text": True, "json": True}  # what is sent later cannot be told
                values = [b"4"]
            stored = place.arrived(f"Chromium, {'a listed origin' if listed else 'another'}", len(values))
    assert told == expected
    assert Counter(record.value for record in stored) == Counter(values)
