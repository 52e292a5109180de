"""The findings as Markdown, section by section, and their places in the page."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

from bench.cases import Case
from bench.report import grid, put, shown
from bench.results import QUIET, ROOT
from bench.study import figures, hypotheses, plan
from bench.study.exhausted import load_was_the_limit, ran_out_of
from bench.study.findings import (
    Checked,
    Failed,
    Finding,
    Findings,
    Hold,
    LinkFound,
    Rate,
    Recovery,
    Storm,
    middle,
)
from bench.study.runs import runs
from bench.study.storm_report import storm_line, storms

PAGE = ROOT / "docs" / "explanation" / "study.md"

REFERENCE = "tokio-hyper"
"""What a change of the framework is a change from: the document's first row."""

REPORTED = {
    "tokio-hyper": ("132", ""),
    "tokio-tcp": ("", "4,459.9–4,656.2"),
    "uring-tcp": ("1,500", "3,924.6–3,939.5, stalling"),
}
"""What the document has, requests/s in phase 1 and 2."""


def write(findings: Findings, source: Path, page: Path = PAGE) -> None:
    """Put every section between its markers; `source` is the file that it was made of."""
    made = f"Made of `{source.relative_to(ROOT)}`.\n\n"
    for name, section in SECTIONS.items():
        text = (made if name == "origin" else "") + _pictures(name) + section(findings)
        put(page, f"<!-- study: {name} -->\n", text + "\n", f"<!-- study: {name} ends -->")


def _pictures(section: str) -> str:
    """The plots of a section that there are beside the page."""
    drawn = [(f"study-{name}.svg", what) for name, what in PICTURES.get(section, {}).items()]
    return "".join(f"![{what}]({name})\n\n" for name, what in drawn if PAGE.with_name(name).exists())


def markdown(findings: Findings) -> str:
    """All sections, for a terminal."""
    return "\n\n".join(f"## {name}\n\n{section(findings)}" for name, section in SECTIONS.items()) + "\n"


def line(finding: Finding) -> str:
    """One finding in a few words, for who waits."""
    match finding:
        case Rate():
            rate = f"{finding.per_second:,.0f} requests/s, p99 {finding.p99_us / 1000:.1f} ms"
            # What is said of its own core and the other one is about a server that has one.
            return f"{rate}. {ran_out_of(finding)}" if finding.case.pinned else rate
        case Hold():
            return f"held: {finding.held.per_second:,.0f} requests/s" if finding.held else "no rate held"
        case Recovery():
            return f"recovered after {_seconds(finding.recovered_seconds)}"
        case Storm():
            return storm_line(finding)
        case LinkFound():
            return f"round trip {finding.round_trip_p50_us / 1000:.2f} ms, {finding.how}"
        case Checked():
            return f"{finding.records} records sent, each found once"
        case Failed():
            return finding.reason


def _seconds(value: float | None) -> str:
    return "not within the time" if value is None else f"{value:.1f} s"


def origin(findings: Findings) -> str:
    """When, of what, where, and what had no part."""
    settings = findings.settings
    versions = ", ".join(f"{name} {version}" for name, version in findings.versions.items())
    ports = "–".join(settings["ephemeral_ports"])
    kernel = f"TCP with {settings['congestion_control']}, ephemeral ports {ports}"
    rounds = (
        f"Medians of interleaved rounds of {settings['seconds']:g} seconds: {settings['rounds']} for the "
        f"figures to reach, {settings['phase_rounds']} for the phases, and one for what is changed alone and "
        "for the hypotheses"
    )
    lines = [
        f"{findings.date}, commit {findings.commit}, on {findings.machine}.",
        f"{kernel}, tcp_tw_reuse {settings['tcp_tw_reuse']}.",
        f"{rounds}. {versions}.",
    ]
    many = settings["open_files_many"]
    if many < plan.FILES_MANY:
        lines.append(
            f"The hard limit of descriptors here is {many:,}, which takes the place of {plan.FILES_MANY:,}."
        )
    load_average = settings.get("load_average_before", 0.0)
    if load_average > QUIET:
        lines.append(f"Not alone on the machine: the load average was {load_average:.1f}.")
    lines += [f"Left out: {name} ({reason})." for name, reason in findings.left_out.items()]
    checked: dict[tuple[str, int], list[str]] = {}
    for each in findings.of(Checked):
        checked.setdefault((each.promise, each.records), []).append(each.system)
    lines += [
        f"Checked before, {promise}: of {records:,} records each was found once, of {', '.join(systems)}."
        for (promise, records), systems in checked.items()
    ]
    lines += [f"Failed: {each.what}: {each.reason}." for each in findings.of(Failed)]
    return "\n".join(lines)


def links(findings: Findings) -> str:
    """The links as they were measured, without load."""
    rows = [
        (
            each.broker,
            each.how,
            f"{each.round_trip_p50_us / 1000:.2f} ({each.round_trip_p99_us / 1000:.2f})",
            f"{each.bulk_bytes_per_second / 1e6:,.0f}",
            f"{each.bulk_frames_per_second:,.0f}",
        )
        for each in findings.of(LinkFound)
    ]
    heading = ("Broker", "Link", "Round trip, ms: p50 (p99)", "One connection, MB/s", "Frames/s")
    return grid(heading, rows) if rows else "Not measured."


def reach(findings: Findings) -> str:
    """The figures to reach."""
    verdicts = figures.judge(findings)
    return grid(
        ("What", "To reach", "Measured", ""),
        [(verdict.what, verdict.bound, verdict.shown, verdict.word) for verdict in verdicts],
    )


def missed(findings: Findings) -> str:
    """Of each figure that was missed: what a request takes of a processor on both sides, and what ran out."""
    parts = []
    for verdict in figures.judge(findings):
        if verdict.word == "missed" and verdict.between:
            sides = "; ".join(_taken(findings, name, case) for name, case in verdict.between)
            end = ran_out_of(_middle_of(findings.rates(*verdict.between[0])))
            parts.append(f"{verdict.what}, {verdict.shown}: {sides}. What {plan.OURS} ran out of: {end}")
    return "\n\n".join(parts) if parts else "No figure that compares two systems was missed."


def _taken(findings: Findings, name: str, case: Case) -> str:
    rate = _middle_of(findings.rates(name, case))
    user, kernel = rate.user_us, rate.system_us
    of = f"{user:.1f} µs a request in its own code and its libraries' and {kernel:.1f} µs in the kernel"
    return f"{name} takes {of} (linger.ms {case.linger_ms:g})"


def phases(findings: Findings) -> str:
    """The document's rows beside ours, and what each row ran out of."""
    first, second = plan.PHASE_1, _second(findings)
    rows = []
    for name in findings.systems():
        said = REPORTED.get(name, ("", ""))
        rates = [shown(findings.spread(name, case), 0) for case in (first, second)]
        rows.append((name, said[0], rates[0], said[1], rates[1]))
    heading = ("System", "Phase 1, reported", "measured", "Phase 2, reported", "measured")
    parts = [
        f"Phase 1: {first}.\nPhase 2: {second}.\nRequests/s.",
        grid(heading, rows),
        _bottlenecks(findings, [first, second]),
    ]
    return "\n\n".join(parts)


def _second(findings: Findings) -> Case:
    return plan.phase_2(findings.settings["open_files_many"])


def _bottlenecks(findings: Findings, cases: list[Case]) -> str:
    heading = (
        "System, phase", "CPU a request, µs: user", "system", "Cores: server", "broker", "load", "wire",
        "Switches a request: waited", "preempted", "Calls a request", "Descriptors", "Accept queue",
        "TIME_WAIT", "Records a batch", "librdkafka: queue", "round trip, ms", "Ran out of",
    )  # fmt: skip
    rows = []
    for name in findings.systems():
        for number, case in enumerate(cases, 1):
            rates = findings.rates(name, case)
            if rates:
                rows.append((f"{name}, {number}", *_bottleneck(_middle_of(rates), rates)))
    by = {rate.observed.calls_by for rate in findings.of(Rate) if rate.observed.calls_by}
    counted = (
        f"\n\nSystem calls are counted by {', '.join(sorted(by))}, in a load of their own." if by else ""
    )
    return grid(heading, rows) + counted


def _middle_of(rates: list[Rate]) -> Rate:
    """The round in the middle: a sentence about a median of each figure would be about no round at all."""
    return sorted(rates, key=lambda rate: rate.per_second)[len(rates) // 2]


def _load_was_the_limit(findings: Findings) -> str:
    """Where wrk took most of a core that was used up, while the server still had some of its own."""
    limited = [
        f"{name} ({case})"
        for case in dict.fromkeys(rate.case for rate in findings.of(Rate))
        for name in findings.systems()
        if (rates := findings.rates(name, case)) and load_was_the_limit(_middle_of(rates))
    ]
    if not limited:
        return "wrk was the limit of no row: nowhere did it take most of a core that was used up."
    return (
        "In these rows wrk took more of the other core than the broker, and the core was used up before the "
        f"server's own was: the server could do more than they say. {'; '.join(limited)}."
    )


def _bottleneck(rate: Rate, rounds: list[Rate]) -> tuple[str, ...]:
    observed, parts, requests = rate.observed, rate.observed.parts, rate.requests
    calls = next(
        (each.observed.calls_per_request for each in rounds if each.observed.calls_per_request is not None),
        None,
    )
    cores = (parts.server, parts.broker, parts.load, parts.wire)
    return (
        f"{rate.user_us:.1f}",
        f"{rate.system_us:.1f}",
        *(f"{part / observed.seconds:.2f}" for part in cores),
        f"{observed.voluntary / requests:.2f}",
        f"{observed.involuntary / requests:.2f}",
        "" if calls is None else f"{calls:.2f}",
        f"{observed.descriptors:,}",
        f"{observed.accept_queue:,} of {observed.accept_limit:,}",
        f"{observed.time_wait:,}",
        "" if observed.batch_records is None else f"{observed.batch_records:,.1f}",
        "" if observed.queue_records is None else f"{observed.queue_records:,.0f}",
        "" if observed.round_trip_us is None else f"{observed.round_trip_us / 1000:.1f}",
        ran_out_of(rate),
    )


def changes(findings: Findings) -> str:
    """What each change is worth, alone and all together, as ratios to phase 1."""
    systems = [name for name in findings.systems() if findings.median(name, plan.PHASE_1)]
    first = {name: findings.median(name, plan.PHASE_1) or 0.0 for name in systems}
    rows = [("nothing: phase 1, requests/s", *(f"{value:,.0f}" for value in first.values()))]
    if REFERENCE in first:
        whole = [f"{value / first[REFERENCE]:.2f} ×" for value in first.values()]
        rows.append((f"the framework, against {REFERENCE}", *whole))
    named = plan.factors(findings.settings["open_files_many"])
    for what, case in {**named, "all of phase 2": _second(findings)}.items():
        worth = [ratio(findings, name, case) for name in systems]
        if any(value is not None for value in worth):
            rows.append((what, *("" if value is None else f"{value:.2f} ×" for value in worth)))
    parts = [grid(("Only this changed", *systems), rows)]
    for name in systems:
        found = {what: value for what, case in named.items() if (value := ratio(findings, name, case))}
        if found:
            what, value = max(found.items(), key=lambda each: max(each[1], 1 / each[1]))
            parts.append(f"For {name} most was changed by one thing: {what}, {value:.2f} ×.")
    return "\n\n".join(parts)


def ratio(findings: Findings, system: str, case: Case) -> float | None:
    """Requests/s in a case over those in phase 1."""
    value, base = findings.median(system, case), findings.median(system, plan.PHASE_1)
    return value / base if value and base else None


def explained(findings: Findings) -> str:
    """The hypotheses about the document's figures, and what came of their predictions."""
    rows = []
    for hypothesis in hypotheses.HYPOTHESES:
        for system in hypotheses.systems(hypothesis):
            tested = hypotheses.test(findings, hypothesis, system)
            rows.append(
                (
                    f"{hypothesis.figure:,}",
                    hypothesis.text,
                    system,
                    "" if tested.rate is None else f"{tested.rate:,.0f}",
                    "; ".join(_held(held) for held in tested.held),
                    tested.word,
                )
            )
    return grid(("Figure", "Hypothesis", "System", "Requests/s", "What must follow", ""), rows)


def _held(held: hypotheses.Held) -> str:
    value = "" if held.value is None else f"{held.value:.2f}, "
    return f"{held.prediction.text}: {value}{held.word}"


def constant(findings: Findings) -> str:
    """The highest constant rates, how even they were, and what came after an overload."""
    recoveries = {each.system: each for each in findings.of(Recovery)}
    rows = []
    for hold in findings.of(Hold):
        recovery = recoveries.get(hold.system)
        held = hold.held
        rows.append(
            (
                hold.system,
                f"{held.per_second:,.0f}" if held else "none",
                f"{held.seconds:g}" if held else "",
                " / ".join(f"{value / 1000:.1f}" for value in (held.p50_us, held.p99_us, held.p999_us))
                if held
                else "",
                f"{_variation(hold.seconds):.1%}" if hold.seconds else "",
                f"{min(hold.seconds):,}–{max(hold.seconds):,}" if hold.seconds else "",
                _failures(recovery.overload.wrong, recovery.overload.requests) if recovery else "",
                _seconds(recovery.recovered_seconds) if recovery else "",
            )
        )
    if not rows:
        return "Not measured."
    heading = (
        "System", "Requests/s held", "for, s", "p50 / p99 / p99.9, ms", "Spread of seconds",
        "least–most a second", "Failed in an overload of twice that", "Recovered after",
    )  # fmt: skip
    return f"Case: {plan.holding(findings.settings['open_files_many'])}.\n\n{grid(heading, rows)}"


def _variation(seconds: list[int]) -> float:
    mean = statistics.fmean(seconds)
    return statistics.pstdev(seconds) / mean if mean else 0.0


def _failures(wrong: dict[str, int], requests: int) -> str:
    named = ", ".join(f"{name} {count:,}" for name, count in wrong.items())
    return f"{sum(wrong.values()) / requests:.0%}: {named}" if named else "none"


def tables(findings: Findings) -> str:
    """The grid of the figures."""
    parts = []
    for case in plan.GRID:
        rows = []
        for name in findings.systems():
            rates = findings.rates(name, case)
            if rates:
                rows.append(
                    (
                        name,
                        shown(findings.spread(name, case, lambda rate: rate.records_per_second), 0),
                        *(
                            f"{middle([value(rate) for rate in rates]):.{digits}f}"
                            for value, digits in COLUMNS.values()
                        ),
                        ran_out_of(_middle_of(rates)),
                    )
                )
        if rows:
            heading = ("System", "Records/s" if case.lines > 1 else "Requests/s", *COLUMNS, "Ran out of")
            parts.append(f"### {str(case)[0].upper()}{str(case)[1:]}\n\n{grid(heading, rows)}")
    return "\n\n".join([_load_was_the_limit(findings), *parts]) if parts else "Not measured."


COLUMNS: dict[str, tuple[Callable[[Rate], float], int]] = {
    "p50, ms": (lambda rate: rate.p50_us / 1000, 2),
    "p99, ms": (lambda rate: rate.p99_us / 1000, 2),
    "CPU a request, µs": (lambda rate: rate.cpu_us, 1),
    "Server, cores": (lambda rate: rate.observed.parts.server / rate.seconds, 2),
    "Broker, cores": (lambda rate: rate.observed.parts.broker / rate.seconds, 2),
    "Load, cores": (lambda rate: rate.observed.parts.load / rate.seconds, 2),
}

SECTIONS: dict[str, Callable[[Findings], str]] = {
    "origin": origin,
    "figures": reach,
    "missed": missed,
    "runs": runs,
    "links": links,
    "phases": phases,
    "factors": changes,
    "hypotheses": explained,
    "constant rates": constant,
    "storms": storms,
    "tables": tables,
}

PICTURES: dict[str, dict[str, str]] = {
    "phases": {"phases": "Requests a second of each system in both phases"},
    "factors": {"factors": "What each change alone is worth, as a multiple of the rate of phase 1"},
    "constant rates": {
        "curves": "The 99th percentile of the times of answers against the constant rate",
        "seconds": "Answers in each second of the highest constant rate, as a share of that rate",
    },
    "storms": {"storms": "Seconds until each system had recovered from each storm"},
}
"""The plots of `bench.study.plots` by section and name, and what somebody hears who does not see them."""
