"""How times are taken, and what is said meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any


def say(text: str) -> None:
    sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")
    sys.stderr.flush()


def seconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def quartiles(times: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(times) == 1:
        return times[0], times[0], times[0]
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return low, middle, high


@contextlib.contextmanager
def deadline(limit: float) -> Iterator[None]:
    """Raise TimeoutError after so many seconds, at the next return to Python."""

    def stop(*_: object) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def bind_threads() -> None:
    """Give XLA, which does not read OMP_NUM_THREADS, as many cores as the others have threads."""
    threads = os.environ.get("OMP_NUM_THREADS")
    usable = sorted(os.sched_getaffinity(0))
    if threads and int(threads) < len(usable):
        os.sched_setaffinity(0, usable[-int(threads) :])
