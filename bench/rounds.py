"""The run: each case in interleaved rounds, each system fresh for each measurement."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import load
from bench.brokers import BROKERS, Broker
from bench.cases import RECORD, Case
from bench.check import CheckFailed, check, checked_as
from bench.load import LoadFailed
from bench.processes import Cores, cores, ended, resident_bytes, running, spent
from bench.results import Measurement, Metrics
from bench.systems import LOOPS, SYSTEMS, NotStarted, request_target, serving

WARM_SECONDS = 1.0


class Run:
    """One run; what it has measured, and what could not take part."""

    def __init__(self, *, rounds: int, seconds: float, content_type: str, say: Callable[[str], None]) -> None:
        self.measurements: list[Measurement] = []
        self.left_out: dict[str, str] = {}
        """Systems that are not measured at all or in part, and why."""
        self.checks: list[str] = []
        self._rounds = rounds
        self._seconds = seconds
        self._content_type = content_type
        self._wrk = load.find_wrk()
        self._say = say
        self._checked: dict[tuple[str, ...], bool] = {}

    def measure(self, cases: Sequence[Case], systems: Sequence[str]) -> None:
        """Every case with every system that has a part in it: A B C, A B C, and so on."""
        for case in cases:
            self._say(f"\n{case}")
            where = cores(pinned=case.pinned)
            with BROKERS[case.broker](where.others) as broker:
                for number in range(self._rounds):
                    for name in systems:
                        self._once(name, case, broker, where, number)

    def _once(self, name: str, case: Case, broker: Broker, where: Cores, number: int) -> None:
        if name in LOOPS:
            takes, measure = LOOPS[name](case), self._loop
        else:
            takes, measure = SYSTEMS[name].takes(case), self._system
        if not takes or name in self.left_out or self._checked.get((name, *checked_as(case))) is False:
            return
        try:
            metrics = measure(name, case, broker, where)
        except NotStarted as error:
            if any(each.system == name for each in self.measurements):  # it is there, and has come up before
                self._failed(case, name, number, error)
                return
            self.left_out[name] = str(error)
            self._say(f"  {name}: left out, {error}")
            return
        except CheckFailed as error:
            self._checked[name, *checked_as(case)] = False
            self._say(f"  {name}: left out of this, {error}")
            self.checks.append(f"{name}, {case}: {error}")
            return
        except LoadFailed as error:
            self._failed(case, name, number, error)
            return
        self.measurements.append(Measurement(case, name, number, metrics))
        self._say(f"  {name}: {metrics}")

    def _failed(self, case: Case, name: str, number: int, error: Exception) -> None:
        self.measurements.append(Measurement(case, name, number, None, str(error)))
        self._say(f"  {name}: failed, {error}")

    def _system(self, name: str, case: Case, broker: Broker, where: Cores) -> Metrics:
        as_what = (name, *checked_as(case))
        if as_what not in self._checked:
            with (
                tempfile.TemporaryDirectory(prefix="ingest-bench-") as folder,
                broker() as target,
                serving(SYSTEMS[name], case, target, where.server, Path(folder)) as server,
            ):
                count = check(server, case, target)
            self._checked[as_what] = True
            self.checks.append(f"{name}, {case}: {count} records sent, each found once")
        with (
            tempfile.TemporaryDirectory(prefix="ingest-bench-") as folder,
            broker() as target,
            serving(SYSTEMS[name], case, target, where.server, Path(folder)) as server,
        ):
            content = Path(folder, "content")
            content.write_bytes(load.content(case))
            url = f"http://127.0.0.1:{server.port}{request_target(case, target.topic)}"
            content_type = self._content_type if case.content == RECORD else load.LINE_TYPE

            def put(seconds: float) -> tuple[load.Load, float]:
                command = load.command(self._wrk, url, content, case, seconds, content_type)
                wrk = ended(command, where.others, seconds + 60)
                return load.parse(wrk.output), wrk.seconds

            put(WARM_SECONDS)
            before, others_before = spent(server.pid), spent(target.pid)
            counted, wrk_seconds = put(self._seconds)
            after, others_after = spent(server.pid), spent(target.pid)
            return Metrics(
                requests_per_second=counted.requests / counted.seconds,
                records_per_second=counted.requests * case.lines / counted.seconds,
                p50_us=counted.p50_us,
                p99_us=counted.p99_us,
                p999_us=counted.p999_us,
                user_us=(after.user_seconds - before.user_seconds) / counted.requests * 1e6,
                system_us=(after.system_seconds - before.system_seconds) / counted.requests * 1e6,
                resident_bytes=resident_bytes(server.pid),
                others_busy=(sum(others_after) - sum(others_before) + wrk_seconds) / counted.seconds,
            )

    def _loop(self, name: str, case: Case, broker: Broker, where: Cores) -> Metrics:
        with broker() as target:
            command = [sys.executable, "-m", "bench.bare", name.partition("-")[0]]
            command += [f"--brokers={target.address}", f"--topic={target.topic}"]
            command += [f"--linger-ms={case.linger_ms:g}", f"--batch-bytes={case.batch_bytes}"]
            command += [f"--size-bytes={case.size_bytes}", f"--seconds={self._seconds}"]
            before = spent(target.pid)
            with running(command, where.server, sys.stderr.buffer, talks=True) as process:
                output, _ = process.communicate(timeout=self._seconds + 90)
            after = spent(target.pid)
            if process.returncode:
                raise LoadFailed(f"bench.bare ended with {process.returncode}")
            counted = json.loads(output)
            rate = counted["requests"] / counted["seconds"]
            return Metrics(
                requests_per_second=rate,
                records_per_second=rate,
                p50_us=counted.get("p50_us"),
                p99_us=counted.get("p99_us"),
                p999_us=counted.get("p999_us"),
                user_us=counted["user_seconds"] / counted["requests"] * 1e6,
                system_us=counted["system_seconds"] / counted["requests"] * 1e6,
                resident_bytes=counted["resident_bytes"],
                others_busy=(sum(after) - sum(before)) / counted["seconds"],
            )
