"""The steps of a run: each has a key, a broker that it wants, and a function that finds something."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench import link
from bench.brokers import Broker
from bench.cases import ROUND_TRIPS_MS, Case
from bench.check import check
from bench.processes import Cores
from bench.study import hypotheses, plan, steady, storms
from bench.study.findings import Checked, Finding, LinkFound
from bench.study.plan import Pace, StormPlan
from bench.study.rates import calls_per_request, closed_loop, open_system
from bench.systems import SYSTEMS, serving

Find = Callable[[Broker, Cores], list[Finding]]
PROMISES = ("delivered", "queued")


@dataclass(frozen=True)
class Step:
    """`finds` gives what is kept under `key`, and under `key/1` and so on where it is more than one thing."""

    key: str
    broker: str
    system: str
    find: Find


def steps(pace: Pace, systems: list[str]) -> list[Step]:
    """Everything, ordered by broker, each of which is started once; rounds are interleaved: A B C, A B C."""
    found = [*_on_mock(pace, systems), *_on_kafka(pace, systems)]
    order = {name: number for number, name in enumerate(["mock", "kafka", *ROUND_TRIPS_MS])}
    return sorted(found, key=lambda step: order[step.broker])


def _on_mock(pace: Pace, systems: list[str]) -> Iterator[Step]:
    for promise in PROMISES:
        for name in systems:
            yield Step(f"check, {name}, {promise}", "mock", name, _check(name, promise))
    for number in range(pace.rounds):
        for case in pace.grid:
            for name in systems:
                if SYSTEMS[name].takes(case):
                    yield _rate(name, case, number, pace)
    for each in pace.storms:
        for name in systems:
            if not each.systems or name in each.systems:
                what = " ".join([each.kind, f"ulimit -n {each.open_files}", *_options(each)])
                yield Step(f"storm, {name}, {what}", "mock", name, _storm(name, each, pace))


def _on_kafka(pace: Pace, systems: list[str]) -> Iterator[Step]:
    second = plan.phase_2()
    cases = [plan.PHASE_1, second, *(plan.factors()[name] for name in pace.factors)]
    wanted = [(name, case) for case in dict.fromkeys(cases) for name in systems if SYSTEMS[name].takes(case)]
    phases = (plan.PHASE_1, second)
    for number in range(pace.phase_rounds):
        for name, case in wanted:
            if number == 0 or case in phases:
                with_calls = number == 0 and case in phases
                yield _rate(name, case, number, pace, with_calls=with_calls)
    if pace.hypotheses:
        for name, case in hypotheses.cases():
            if name in systems and (name, case) not in wanted:
                yield _rate(name, case, 0, pace)
    for broker in dict.fromkeys(case.broker for case in cases if case.broker in ROUND_TRIPS_MS):
        yield Step(f"link, {broker}", broker, "", _link(broker))
    for name in systems:
        yield Step(f"constant rate, {name}", plan.holding().broker, name, _hold(name, pace))


def _check(name: str, promise: str) -> Find:
    case = Case(promise=promise)

    def find(broker: Broker, where: Cores) -> list[Finding]:
        with (
            tempfile.TemporaryDirectory(prefix="ingest-study-") as folder,
            broker() as target,
            serving(SYSTEMS[name], case, target, where.server, Path(folder)) as server,
        ):
            return [Checked(name, promise, check(server, case, target))]

    return find


def _rate(name: str, case: Case, number: int, pace: Pace, *, with_calls: bool = False) -> Step:
    # The old linger is a second: as many of them as make a rate, though the last is cut.
    seconds = max(pace.seconds, case.linger_ms / 125)

    def find(broker: Broker, where: Cores) -> list[Finding]:
        if not case.pinned:
            where = Cores(where.server | where.others, where.others)
        with open_system(SYSTEMS[name], case, broker, where) as serving:
            rate = closed_loop(serving, name, case, where, seconds)
            if with_calls:
                calls, by = calls_per_request(serving, case, where)
                observed = msgspec.structs.replace(rate.observed, calls_per_request=calls, calls_by=by)
                rate = msgspec.structs.replace(rate, observed=observed)
            return [rate]

    return Step(f"closed loop, {name}, {case}, round {number + 1}", case.broker, name, find)


def _link(broker_name: str) -> Find:
    def find(broker: Broker, _where: Cores) -> list[Finding]:
        with broker() as target:
            assert target.link is not None
            quality = link.quality(target.link)
        return [LinkFound(broker_name, **dataclasses.asdict(quality))]

    return find


def _hold(name: str, pace: Pace) -> Find:
    case = plan.holding()

    def find(broker: Broker, where: Cores) -> list[Finding]:
        with open_system(SYSTEMS[name], case, broker, where) as serving:
            closed = closed_loop(serving, name, case, where, pace.seconds)
            load = steady.Load(serving.server, case, where, serving.folder)
            hold = steady.hold(name, case, load, closed.per_second, pace.durations)
            capacity = hold.held.per_second if hold.held else closed.per_second
            return [hold, closed, steady.overload(name, case, load, capacity, pace.durations)]

    return find


def _options(each: StormPlan) -> list[str]:
    return [*each.options, *([f"tcp_tw_reuse={each.reuse}"] if each.reuse else [])]


def _storm(name: str, each: StormPlan, pace: Pace) -> Find:
    case = Case(open_files=each.open_files, connections=pace.storm_connections, promise=each.promise)

    def find(broker: Broker, where: Cores) -> list[Finding]:
        with contextlib.ExitStack() as stack:
            options, far = each.options, None
            if each.reuse:
                options += ("--host=0.0.0.0",)
                far = stack.enter_context(link.open_link(0, where.others))
                link.set_there(far, "/proc/sys/net/ipv4/tcp_tw_reuse", each.reuse)
                link.set_there(far, "/proc/sys/net/ipv4/ip_local_port_range", storms.PORTS)
            serving = stack.enter_context(open_system(SYSTEMS[name], case, broker, where, options))
            found = storms.storm(
                serving,
                name,
                each.kind,
                case,
                where,
                tuple(_options(each)),
                seconds=each.seconds or pace.storm_seconds,
                patience_seconds=pace.patience_seconds,
                link=far,
            )
            return [found]

    return find
