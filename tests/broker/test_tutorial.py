"""The tutorial to its end, where it uses a real Kafka."""

from __future__ import annotations

from pathlib import Path

from tests.broker.kafka_server import RealKafka
from tests.pages import ROOT, needs_curl, run_page


@needs_curl
async def test_tutorial_ends_with_a_record_in_a_real_kafka(kafka: RealKafka, tmp_path: Path) -> None:
    kafka.create_topic("clicks")
    await run_page(
        ROOT / "docs" / "tutorial.md", tmp_path, serving=False, bootstrap_servers=kafka.bootstrap_servers
    )
    assert [record.value for record in kafka.read_all("clicks")] == [b'{"page":"/"}']
