"""The storms as Markdown: who was answered meanwhile, who recovered, and what stood in the way."""

from __future__ import annotations

from bench.report import grid
from bench.study.figures import survives
from bench.study.findings import Findings, Sample, Storm
from bench.study.storms import ELSEWHERE, FROZEN, PORTS, good


def storm_line(storm: Storm) -> str:
    """One in a few words."""
    during = storm.during
    answered = sum(good(probe) for probe in during)
    return f"{answered} of {len(during)} probes answered meanwhile, recovered {_recovered(storm)}"


def _recovered(storm: Storm) -> str:
    if storm.died:
        return "never: it ended"
    if storm.recovered_seconds is None:
        last = max((probe.at for probe in storm.probes), default=storm.seconds)
        return f"not within {last - storm.seconds:.0f} s"
    return f"{storm.recovered_seconds:.1f} s"


def storms(findings: Findings) -> str:
    """A row for each storm and system, and a sentence for each that was not survived."""
    found: list[Storm] = findings.of(Storm)
    if not found:
        return "Not measured."
    rows = [_row(storm) for storm in found]
    heading = (
        "Storm", "ulimit -n", "System", "Opened, of so many at once", "Probes answered meanwhile",
        "Recovered after", "Server, cores", "Accepts/s", "Accept queue, longest", "Descriptors, most",
        "TIME_WAIT, most", "io_uring: submitted, unread, overflow", "Failed",
    )  # fmt: skip
    parts = [grid(heading, rows)]
    parts += [sentence for storm in found if (sentence := what_stood_in_the_way(storm))]
    parts += _one_change(found)
    parts += [_frozen(storm) for storm in found if storm.kind == FROZEN]
    parts += [_ports(storm) for storm in found if storm.kind == ELSEWHERE]
    return "\n\n".join(parts)


def _row(storm: Storm) -> tuple[str, ...]:
    samples, during = storm.samples, storm.during
    rings = any(sample.submitted for sample in samples)
    return (
        " ".join([storm.kind, *storm.options]),
        f"{storm.open_files:,}",
        storm.system,
        f"{storm.opened:,} of {storm.connections:,}",
        f"{sum(good(probe) for probe in during)} of {len(during)}",
        _recovered(storm),
        f"{storm.busy:.2f}",
        f"{storm.accepts_per_second:,.0f}",
        f"{max((sample.accept_queue for sample in samples), default=0):,}",
        f"{max((sample.descriptors for sample in samples), default=0):,}",
        f"{max((sample.time_wait for sample in samples), default=0):,}",
        ", ".join(f"{most:,}" for most in _rings(samples)) if rings else "",
        ", ".join(f"{name} {count:,}" for name, count in storm.failed.items()),
    )


def _rings(samples: list[Sample]) -> tuple[int, int, int]:
    """Of the io_uring rings: submissions meanwhile, and the most completions unread, and in overflow."""
    tails = [sample.submitted for sample in samples if sample.submitted]
    unread, overflow = (sample.unread for sample in samples), (sample.overflow for sample in samples)
    return max(tails) - min(tails), max(unread), max(overflow)


def _frozen(storm: Storm) -> str:
    """What the producer's queue took while Kafka stood still, and what that did to others' requests."""
    refused = sum(count for name, count in storm.failed.items() if name.isdigit())
    during = storm.during
    answered = sum(good(probe) for probe in during)
    slowest = max((probe.seconds for probe in during), default=0.0)
    return (
        f"Kafka frozen for {storm.seconds:.1f} s, {storm.system}: {storm.answered - refused:,} records were "
        f"taken and {refused:,} refused; of others, {answered} of {len(during)} were answered as promised, "
        f"and none was waited for longer than {slowest:.1f} s; {storm.busy:.2f} of its core were in use."
    )


def what_stood_in_the_way(storm: Storm) -> str:
    """Of a storm that was not survived, what its last samples show; "" of one that was."""
    if survives(storm):
        return ""
    what = f"{storm.system} in “{storm.kind}” with ulimit -n {storm.open_files:,}"
    if storm.options:
        what += f" and {' '.join(storm.options)}"
    if storm.died:
        return f"{what}: the process ended."
    last = storm.samples[-1]
    after = [probe for probe in storm.probes if probe.at >= storm.seconds]
    connected = sum(probe.connected for probe in after)
    answered = sum(probe.status > 0 for probe in after)
    parts = [
        f"of {len(after)} probes after it {connected} were connected by the kernel and {answered} answered"
    ]
    if last.descriptors >= storm.open_files:
        parts.append(f"it still had all of its {last.descriptors:,} descriptors open")
    else:
        parts.append(f"it had {last.descriptors:,} of {storm.open_files:,} descriptors open")
    parts.append(f"{last.accept_queue:,} connections waited to be accepted")
    late = [sample for sample in storm.samples if sample.at > storm.seconds]
    if late and late[-1].submitted:
        moved = late[-1].submitted - late[0].submitted
        parts.append(
            f"its io_uring had taken {moved:,} more submissions since, with {last.unread:,} completions "
            f"unread and {last.overflow:,} in overflow"
        )
    return f"{what}: {'; '.join(parts)}."


def _one_change(found: list[Storm]) -> list[str]:
    """Storms that differ in one option alone, one survived and the other not: a cause that comes and goes."""
    sentences = []
    for number, storm in enumerate(found):
        for other in found[number + 1 :]:
            same = (storm.system, storm.kind) == (other.system, other.kind)
            files, options = storm.open_files != other.open_files, storm.options != other.options
            if not same or files == options or survives(storm) == survives(other):
                continue
            bad, well = (other, storm) if survives(storm) else (storm, other)
            sentences.append(
                f"One change for {storm.system} in “{storm.kind}”: with {_with(bad)} it "
                f"{_came_back(bad)}, with {_with(well)} it {_came_back(well)}."
            )
    return sentences


def _ports(storm: Storm) -> str:
    """Whether the storm's own end ran out of ports, while others were answered."""
    answered = sum(good(probe) for probe in storm.during)
    return (
        f"Ports {PORTS.replace(' ', '–')} elsewhere, {storm.system}, {' '.join(storm.options)}: "
        f"{storm.opened:,} connections left "
        f"{storm.client_time_wait:,} sockets in TIME_WAIT there; {storm.failed.get('EADDRNOTAVAIL', 0):,} "
        f"further ones found no port; of others, {answered} of {len(storm.during)} were answered meanwhile."
    )


def _came_back(storm: Storm) -> str:
    if storm.died:
        return "ended"
    recovered = _recovered(storm)
    if storm.recovered_seconds is None:
        return f"was {recovered.replace('not', 'not back')}"
    return f"was back after {recovered}"


def _with(storm: Storm) -> str:
    return " ".join([f"ulimit -n {storm.open_files:,}", *storm.options])
