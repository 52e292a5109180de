"""What a row ran out of, as one sentence made of its figures."""

from __future__ import annotations

from bench.study.findings import Rate

FULL = 0.9
"""Of a core: from here on there is no more to be had of it."""


def load_was_the_limit(rate: Rate) -> bool:
    """Whether the other core was used up, mostly by wrk, and the server's own was not."""
    observed, parts = rate.observed, rate.observed.parts
    used_up = parts.others / observed.seconds >= FULL > parts.server / observed.seconds
    return used_up and parts.load > parts.broker + parts.wire


def ran_out_of(rate: Rate) -> str:
    """The first of these that was used up: accept queue, descriptors, its own core, the other core, time."""
    observed, parts = rate.observed, rate.observed.parts
    seconds = observed.seconds
    server, others = parts.server / seconds, parts.others / seconds
    if observed.overflows:
        return (
            f"Room in the accept queue: {observed.overflows:,} connections found all of its "
            f"{observed.accept_limit:,} places taken."
        )
    if rate.case.open_files and observed.descriptors >= rate.case.open_files:
        return f"Descriptors: it had {observed.descriptors:,} open, all that it may."
    if server >= FULL:
        share = parts.server_system / parts.server
        return f"Its own core: {server:.2f} of 1 were in use, {share:.0%} of that in the kernel."
    if others >= FULL:
        wire = f", the wire {parts.wire / seconds:.2f}" if parts.wire else ""
        return (
            f"The other core, not its own: the broker took {parts.broker / seconds:.2f} of it, the load "
            f"{parts.load / seconds:.2f}{wire}; its own was in use for {server:.2f}."
        )
    answer_ms = rate.p50_us / 1000
    waits = f"linger.ms {rate.case.linger_ms:g}" if rate.case.promise == "delivered" else "the answer"
    return (
        f"Time: its {rate.case.connections} connections waited {answer_ms:.1f} ms for each answer ({waits}), "
        f"while its core was in use for {server:.2f} and the other one for {others:.2f}."
    )
