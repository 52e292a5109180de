"""What the command line sets for its whole process: open files, collector, allocator, interpreter's lock.

A library does not change what belongs to the program that uses it, so nothing else imports this.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import resource
import sys

log = logging.getLogger(__name__)

GC_THRESHOLDS = (50_000, 20, 100)
"""How many new objects, collections of the youngest and of the middle generation a collection waits for."""
MMAP_BYTES = 131_072
"""From which size on a block of memory goes back to the system when it is freed."""

ARENAS = 2
"""How many heaps glibc keeps; by itself it makes one for each thread, and librdkafka has many."""

SWITCH_SECONDS = 0.0001
"""How long a thread waits for the interpreter's lock before it asks for it.

A busy loop lets go of the lock for a moment in each pass, and each time the thread's patience begins anew
(CPython's ceval_gil.c): with Python's own 5 ms it was kept waiting for 500.  So this is less than a pass.
"""

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h of glibc


def raise_file_limit() -> None:
    """Have as many files open as the system lets this process have, since each connection is one.

    What was done is logged.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:  # macOS has a lower bound of its own
        log.warning("file limit not raised", extra={"files": soft, "error": str(error)})
    else:
        log.info("file limit raised", extra={"files": hard, "before": soft})


def share_interpreter() -> None:
    """Have threads take turns more often than Python does by itself."""
    sys.setswitchinterval(SWITCH_SECONDS)


def spare_memory() -> None:
    """Set up the collector and the allocator; once everything is imported, and before there are threads."""
    _collect_rarely()
    _keep_little()


def _collect_rarely() -> None:
    """Look for circles of garbage seldom: a thousand new connections are no garbage.

    With Python's own thresholds, ten thousand connections that come at once have everything looked at
    every few hundred of them, in which time nobody is answered.
    """
    gc.freeze()  # what was loaded stays
    gc.set_threshold(*GC_THRESHOLDS)


def _keep_little() -> None:
    """Keep glibc from keeping what was freed.

    Once a large block was freed it takes the next ones from its heap, where holes stay resident: 256 MiB of
    content that came in pieces took 417 MB with what it was copied to, and 299 MB like this.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library has its own ways
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, MMAP_BYTES)
        mallopt(_M_ARENA_MAX, ARENAS)
