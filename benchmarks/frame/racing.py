"""A race: every method is warmed up, its time is predicted, and then all are timed in turns on the same workload."""

from __future__ import annotations

import time
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.frame.clock import deadline, say, seconds
from benchmarks.frame.methods import Answer, Method, Prepared
from benchmarks.frame.references import Exact, errors
from benchmarks.frame.rows import Row, attempted, joined
from benchmarks.frame.workloads import Workload

#: A call shorter than this is timed three times in a turn, after one that is not timed: threads of the previous
#: library have gone to sleep by then, and the caches are its own.
SHORT_S = 0.05
#: Problems of at most this many pairs are warmed up as a whole, larger ones on some of their points.
WARM_UP_PAIRS = 2_000_000
#: A fraction of the points on which the time of a large problem is predicted, by the number of pairs.
PROBE = 4


@dataclass(frozen=True)
class Limits:
    """Seconds: ``call`` is the longest that a call may take, ``method`` what a method may spend on its repetitions."""

    call: float = 400.0
    method: float = 80.0
    repetitions: int = 7


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the sections of a benchmark that races methods share; each benchmark adds its own to it."""

    out: Path
    methods: str = ""
    """Only methods whose name contains this."""
    cache: Path | None = None
    limits: Limits = field(default_factory=Limits)

    @staticmethod
    def add_options(parser: ArgumentParser, limit: float) -> None:
        """The options that `given` reads; ``limit`` is the default of --limit."""
        parser.add_argument("--methods", default="", help="only methods whose name contains this")
        parser.add_argument("--cache", type=Path, help="folder that keeps float64 references between runs")
        parser.add_argument("--limit", type=float, default=limit, help="seconds that one call may take")

    @staticmethod
    def given(options: Namespace, **limits: Any) -> dict[str, Any]:
        """The fields above."""
        chosen = Limits(options.limit, options.limit / 5, **limits)
        return {"out": options.out, "methods": options.methods, "cache": options.cache, "limits": chosen}


@dataclass
class Runner:
    """A method that takes part, and what was measured of it."""

    method: Method
    prepared: Prepared
    row: Row
    answer: Answer | None = None


def race(methods: list[Method], workload: Workload, limits: Limits, exact: Exact | None) -> list[Row]:
    """One row for each method: its seconds, its errors, its notes."""
    runners = [start(method, workload, limits) for method in methods]
    repeat([runner for runner in runners if runner.answer is not None], limits)
    for runner in runners:
        if runner.answer is not None:
            runner.row |= {
                "value": float(runner.answer.value.flatten()[0]),  # of a batch, the first
                "errors": errors(runner.answer, exact),
                "note": joined(runner.row["note"], runner.answer.note),
            }
            if runner.method.details is not None:
                with quiet():  # the details say whether it converged
                    runner.row["details"] = runner.method.details(workload)
    return [runner.row for runner in runners]


def start(method: Method, workload: Workload, limits: Limits) -> Runner:
    """Warm a method up, predict its time and take its first timed call; whatever stops it becomes its note."""
    row: Row = {"method": method.name, "seconds": [], "note": method.obstacle(workload.pairs)}
    runner = Runner(method, Prepared(lambda: None), row)

    def begin() -> Row:
        warm_up(runner, workload, limits)
        if not row["note"]:
            first_call(runner, workload, limits)
        return {}

    if not row["note"]:
        row |= attempted({}, begin, limits.call)
    say(f"  {method.name}: {row['seconds'] or row['note']}")
    return runner


def warm_up(runner: Runner, workload: Workload, limits: Limits) -> None:
    """The first use on a small part, which imports and compiles, and the prediction from a larger part."""
    whole = workload.pairs <= WARM_UP_PAIRS
    small = workload if whole else workload.head(min(300, workload.x.shape[-2] // PROBE))
    with quiet(), deadline(limits.call):
        runner.row["first_use_s"] = seconds(lambda: runner.method.prepare(small).run())
    if whole:
        return
    probe = workload.head(workload.x.shape[-2] // PROBE)
    scale = workload.pairs / probe.pairs
    with quiet():
        prepared = runner.method.prepare(probe)
        try:
            with deadline(limits.call / scale):
                predicted = scale * seconds(prepared.run)
        except TimeoutError:
            predicted = limits.call
    if predicted >= limits.call:
        runner.row["note"] = (
            f"not run: a quarter of the points took more than {limits.call / scale:.1f} s, so all would take more than "
            f"{limits.call:.0f} s"
        )


def first_call(runner: Runner, workload: Workload, limits: Limits) -> None:
    """The first timed call, whose answer is judged."""
    begin = time.perf_counter()
    runner.prepared = runner.method.prepare(workload)
    runner.row["prepare_s"] = time.perf_counter() - begin
    with recorded(runner.row), deadline(limits.call):
        begin = time.perf_counter()
        result = runner.prepared.run()
        runner.row["seconds"].append(time.perf_counter() - begin)
    runner.answer = runner.prepared.read(result)


def repeat(runners: list[Runner], limits: Limits) -> None:
    """Turns of all methods, one after the other, until each has its repetitions or has spent its time."""
    for _ in range(limits.repetitions):
        for runner in runners:
            times = runner.row["seconds"]
            if len(times) >= limits.repetitions or sum(times) + times[0] > limits.method:
                continue
            with quiet():
                if times[-1] < SHORT_S:
                    runner.prepared.run()
                    times += [seconds(runner.prepared.run) for _ in range(3)]
                else:
                    times.append(seconds(runner.prepared.run))
    for runner in runners:
        times = runner.row["seconds"]
        if len(times) > 1 and times[0] < SHORT_S:
            del times[0]  # the call that no untimed one preceded


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def recorded(row: dict[str, Any]) -> Iterator[None]:
    """Warnings about convergence become notes; the others are dropped."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    texts = {
        str(warning.message).split(":")[0].splitlines()[0][:100]
        for warning in caught
        if "converge" in str(warning.message)
    }
    row["note"] = "; ".join(sorted(texts))
