"""A real Apache Kafka in KRaft mode: one process, which a test starts, stops and freezes.

The jars come from Maven Central, once, into a cache folder.  Nothing of `ingest` is known here, and
nothing is skipped: what is missing raises `KafkaMissing`, which says what to install.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

FOLDER = Path(__file__).parent
JAVA_AT_LEAST = 17
START_SECONDS = 120.0
"""A few on a quiet machine."""
STOP_SECONDS = 30.0
READ_SECONDS = 60.0

SERVER_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={log_folder}
auto.create.topics.enable=false
num.partitions=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
# After a crash the broker is let in again once its old session has ended.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
# Records with old timestamps must still be there when a test reads them back.
log.retention.ms=-1
"""


class KafkaMissing(Exception):
    """A real Kafka cannot be had on this machine; the text says what to install or what did not answer."""


class KafkaFailed(Exception):
    """Kafka is there and did not do what it should; the text ends with its own output."""


class StoredRecord(NamedTuple):
    """A record as a consumer sees it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int
    """Milliseconds since 1970."""


def kafka_version() -> str:
    """The version that pom.xml pins."""
    match = re.search(r"<kafka\.version>([^<]+)</kafka\.version>", (FOLDER / "pom.xml").read_text())
    assert match is not None, "pom.xml names no kafka.version"
    return match[1]


def find_java() -> str:
    """The `java` to run Kafka with; raises `KafkaMissing` where there is none, or too old a one."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home, "bin"))) if home else shutil.which("java")
    advice = (
        f"tests/broker needs a JDK {JAVA_AT_LEAST} or newer (Debian: apt-get install openjdk-17-jdk-headless)"
    )
    if java is None:
        where = f"in JAVA_HOME, {home}" if home else "on the PATH"
        raise KafkaMissing(f"{advice}; there is no `java` {where}")
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False).stderr
    match = re.search(r'version "(\d+)', shown)
    if match is None or int(match[1]) < JAVA_AT_LEAST:
        raise KafkaMissing(
            f"{advice}; {java} is {shown.splitlines()[0] if shown else 'silent about its version'}"
        )
    return java


def fetch_jars() -> Path:
    """The folder with Kafka's jars; Maven fills it the first time.

    Raises `KafkaMissing` where Maven is not installed or Maven Central does not answer.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ingest-tests"
    # The pom is part of the name, so that a changed list of jars is fetched anew.
    digest = hashlib.sha256((FOLDER / "pom.xml").read_bytes()).hexdigest()[:8]
    jars = cache / f"kafka-{kafka_version()}-{digest}"
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaMissing(
            "tests/broker fetches Apache Kafka with Maven, and there is no `mvn` on the PATH "
            "(Debian: apt-get install maven)"
        )
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetching-") as unfinished:
        fetched = Path(unfinished, "jars")
        _copy_dependencies(maven, fetched)
        # Another session may have been faster: its folder is as good as this one.
        with contextlib.suppress(OSError):
            fetched.rename(jars)
    if not jars.is_dir():
        raise KafkaMissing(f"Kafka's jars could not be put into {jars}; is the folder {cache} writable?")
    return jars


def _copy_dependencies(maven: str, into: Path) -> None:
    command = [maven, "--batch-mode", "--file", str(FOLDER / "pom.xml"), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={into}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired:
        raise KafkaMissing("Maven Central did not answer: Kafka's jars were not here after 600 s") from None
    if done.returncode == 0:
        return
    errors = [line for line in done.stdout.splitlines() if "[ERROR]" in line]
    first = errors[0] if errors else done.stdout[-2000:] + done.stderr[-2000:]
    if re.search(r"Could not transfer|Unknown host|Connect|timed out|offline mode", "\n".join(errors)):
        raise KafkaMissing(f"Maven Central did not answer: {first}")
    raise KafkaMissing(f"`{' '.join(command)}` failed: {first}")


def free_port() -> int:
    """A port for a listener, below the range that outgoing connections take theirs from.

    So nobody gets it while its owner is down: not another program, and not a client that connects to itself.
    """
    for _ in range(1000):
        port = random.randrange(20_000, 32_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise KafkaMissing("no port between 20000 and 32000 is free on 127.0.0.1")


def _watermarks(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """Its offsets, lowest and next; a broker that has just started does not lead it for a moment."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return consumer.get_watermark_offsets(partition, timeout=30)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


class RealKafka:
    """One Kafka broker on the loopback, with data and ports that outlive a restart.

    `folder` is taken whole: properties, data and log; `properties` are added to them.  Nothing runs
    before `start`.  Elsewhere than on the loopback is where `inside`, put in front of its command, takes it
    (`ip netns exec …`), at that place's address `host`.
    """

    def __init__(
        self, folder: Path, properties: str = "", *, host: str = "127.0.0.1", inside: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.bootstrap_servers = f"{host}:{self.port}"
        self._host = host
        self._inside = inside
        self._java = find_java()
        self._classpath = f"{fetch_jars()}/*"
        self._properties = folder / "server.properties"
        self._output = folder / "kafka.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._admin: AdminClient | None = None
        controller_port = free_port()
        while controller_port == self.port:
            controller_port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self._properties.write_text(
            SERVER_PROPERTIES.format(
                host=host, port=self.port, controller_port=controller_port, log_folder=folder / "data"
            )
            + properties
        )

    # The process ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, with the data of the last run, and wait until the broker answers."""
        assert self._process is None, "Kafka runs already"
        if not (self.folder / "data").exists():
            self._format()
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [*self._inside, *self._jvm("-Xms512m", "-Xmx512m"), "kafka.Kafka", str(self._properties)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A Ctrl-C in the terminal is for pytest, which then stops Kafka in its own order.
                start_new_session=True,
            )
        try:
            self._wait_until_ready(time.monotonic() + START_SECONDS)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop as an operator does (SIGTERM) and wait; a frozen one is thawed first."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Stop as a crash does (SIGKILL)."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop the process in its tracks (SIGSTOP): connections stay open, and nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on (SIGCONT)."""
        self._running().send_signal(signal.SIGCONT)

    def wait_until_unfenced(self) -> None:
        """Wait until topics can be created: after `thaw` the controller still takes the broker for dead."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.create_topic(f"unfenced-{secrets.token_hex(4)}")
            except KafkaException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    @property
    def pid(self) -> int:
        """Of the running process."""
        return self._running().pid

    def is_running(self) -> bool:
        return self._process is not None

    def state(self) -> str:
        """What has become of the process, and what it said last; for the message of a test that fails."""
        process = self._running()
        ended = process.poll()
        status = Path(f"/proc/{process.pid}/status").read_text() if ended is None else f"ended with {ended}"
        return f"Kafka: {status.partition('Tgid')[0]!r}\n{self.output()}"

    def output(self) -> str:
        """The end of what Kafka itself said."""
        return self._output.read_text(errors="replace")[-4000:] if self._output.exists() else ""

    # Its content ---------------------------------------------------------------------------------

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """Create the topic and return its name, once the broker lists all of its partitions."""
        admin = self._administration()
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=dict(config or {}))
        admin.create_topics([topic], operation_timeout=30)[name].result(30)
        deadline = time.monotonic() + 30
        while True:
            listed = admin.list_topics(timeout=10).topics.get(name)
            if listed is not None and len(listed.partitions) == partitions:
                return name
            if time.monotonic() > deadline:
                raise KafkaFailed(f"topic {name} did not appear within 30 s\n{self.output()}")
            time.sleep(0.05)

    def delete_topic(self, name: str) -> None:
        """Delete the topic, and return once the broker has."""
        admin = self._administration()
        admin.delete_topics([name], operation_timeout=30)[name].result(30)
        deadline = time.monotonic() + 30
        while name in admin.list_topics(timeout=10).topics:
            if time.monotonic() > deadline:
                raise KafkaFailed(f"topic {name} was still there after 30 s\n{self.output()}")
            time.sleep(0.05)

    def read_all(self, topic: str) -> list[StoredRecord]:
        """Every record of the topic up to its high watermarks, in order of partition and offset."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "group.id": "tests",  # required by the client; nothing joins it and nothing is committed
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
                "log_level": 2,
            }
        )
        try:
            metadata = consumer.list_topics(topic, timeout=30).topics[topic]
            missing = 0
            assigned = []
            for partition in sorted(metadata.partitions):
                low, high = _watermarks(consumer, TopicPartition(topic, partition))
                missing += high - low
                if high > low:
                    assigned.append(TopicPartition(topic, partition, OFFSET_BEGINNING))
            consumer.assign(assigned)
            records: list[StoredRecord] = []
            deadline = time.monotonic() + READ_SECONDS
            while len(records) < missing:
                if time.monotonic() > deadline:
                    raise KafkaFailed(
                        f"{topic}: read {len(records)} of {missing} records in {READ_SECONDS} s"
                    )
                for message in consumer.consume(10_000, timeout=0.2):
                    error = message.error()
                    if error is not None:
                        raise KafkaException(error)
                    partition, offset = message.partition(), message.offset()
                    assert partition is not None
                    assert offset is not None
                    headers: Any = tuple(message.headers() or ())  # annotated too widely
                    timestamp = message.timestamp()[1]
                    records.append(
                        StoredRecord(partition, offset, message.key(), message.value(), headers, timestamp)
                    )
        finally:
            consumer.close()
        records.sort(key=lambda record: record[:2])
        return records

    # Below --------------------------------------------------------------------------------------

    def _jvm(self, *options: str) -> list[str]:
        # The first compiler and the serial collector: half the start-up time on a small machine.
        quick = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Djava.awt.headless=true"]
        logging = f"-Dlog4j2.configurationFile={FOLDER / 'log4j2.properties'}"
        return [self._java, *quick, *options, logging, "-cp", self._classpath]

    def _format(self) -> None:
        cluster_id = base64.urlsafe_b64encode(b"tests of ingest!").decode().rstrip("=")
        command = [*self._jvm("-Xmx128m"), "kafka.tools.StorageTool", "format"]
        command += ["--cluster-id", cluster_id, "--config", str(self._properties)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            raise KafkaFailed(f"kafka.tools.StorageTool failed:\n{done.stdout}{done.stderr}")

    def _wait_until_ready(self, deadline: float) -> None:
        process = self._running()
        while True:
            if process.poll() is not None:
                raise KafkaFailed(f"Kafka ended with {process.returncode} while starting\n{self.output()}")
            if time.monotonic() > deadline:
                raise KafkaFailed(f"Kafka was not ready after {START_SECONDS} s\n{self.output()}")
            try:
                # The client would wait out its own backoff; the bare connection says when to ask.
                socket.create_connection((self._host, self.port), timeout=1).close()
                if self._administration().list_topics(timeout=2).brokers:
                    return
            except (OSError, KafkaException):
                pass
            time.sleep(0.05)

    def _administration(self) -> AdminClient:
        if self._admin is None:
            self._admin = AdminClient(
                {"bootstrap.servers": self.bootstrap_servers, "reconnect.backoff.max.ms": 200, "log_level": 2}
            )
        return self._admin

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "Kafka does not run"
        return self._process

    def _end(self, how: signal.Signals) -> None:
        process = self._running()
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        self._process = None
        # Its librdkafka would go on trying to reach the broker.
        self._admin = None
