"""How fast is one tree beside another?

Each tree works in a process of its own, on the same core, and the two take turns, many short ones, so that whatever
else the machine does meets both. Both are started anew several times, since where a process happens to lie in memory
matters too. A turn is one number: the mean seconds of a call, of value and gradient, over enough calls to last
`TURN_S`. The seconds are the processor's, which other work on the machine disturbs less than those of the clock.

The workloads are those of the speed benchmark, at sizes that take seconds together.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from benchmarks.frame.clock import say
from benchmarks.frame.rows import Row
from benchmarks.regression.trees import require_own_package, started

#: Seconds of one turn.
TURN_S = 0.05
#: Turns that each workload gets in each start, however long they take.
LEAST_TURNS = 4

#: Seconds of the turns of both trees.
Turns = tuple[list[float], list[float]]


# The process that asks.


def raced(trees: tuple[Path, Path], workloads: tuple[str, ...], starts: int, seconds: float) -> list[Row]:
    """A row for each of the workloads whose name begins with one of ``workloads``."""
    turns: dict[str, list[Turns]] = {name: [] for name in WORKLOADS if name.startswith(workloads)}
    for start in range(starts):
        say(f" start {start + 1} of {starts}")
        workers = [Worker(tree) for tree in trees]
        for name, taken in turns.items():
            taken.append(in_turns(name, workers, seconds))
        for worker in workers:
            worker.end()
    return [row(name, taken) for name, taken in turns.items()]


class Worker:
    """A process that works with one tree."""

    def __init__(self, tree: Path) -> None:
        self.process = started(tree, "benchmarks.regression.times", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self.process.pid, {max(os.sched_getaffinity(0))})

    def turn(self, name: str, calls: int) -> float:
        """The mean seconds of so many calls."""
        asked, answered = self.process.stdin, self.process.stdout
        assert asked, "a pipe"
        assert answered, "a pipe"
        asked.write(json.dumps([name, calls]) + "\n")
        asked.flush()
        answer = answered.readline()
        if not answer:
            raise RuntimeError(f"a tree failed at {name}")
        return float(answer)

    def end(self) -> None:
        self.process.communicate()


def in_turns(name: str, workers: list[Worker], seconds: float) -> Turns:
    """Turns of both trees, one after the other, until the time is up."""
    for worker in workers:
        worker.turn(name, 2)
    calls = max(1, round(TURN_S / max(worker.turn(name, 1) for worker in workers)))
    turns: Turns = ([], [])
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(turns[0]) < LEAST_TURNS:
        for which in (0, 1) if len(turns[0]) % 2 == 0 else (1, 0):
            turns[which].append(workers[which].turn(name, calls))
    return turns


def row(name: str, starts: list[Turns]) -> Row:
    """``starts`` has the median ratio of turns that follow each other, for each start."""
    before, after = ([seconds for start in starts for seconds in start[which]] for which in (0, 1))
    return {
        "workload": name, "before_s": statistics.median(before), "after_s": statistics.median(after),
        "starts": [statistics.median(b / a for a, b in zip(*start, strict=True)) for start in starts],
        "fastest": min(after) / min(before), "turns": len(before),
    }  # fmt: skip


# The processes that work.


def work() -> None:
    """Answer each line, a workload and a number of calls, by the mean seconds of a call."""
    require_own_package()
    warnings.simplefilter("ignore")
    calls: dict[str, Callable[[], object]] = {}
    for line in sys.stdin:
        name, count = json.loads(line)
        call = calls.setdefault(name, calls.get(name) or WORKLOADS[name]())
        begin = time.process_time()
        for _ in range(count):
            call()
        sys.stdout.write(f"{(time.process_time() - begin) / count!r}\n")
        sys.stdout.flush()


def between_clouds(make: str, *sizes: int, **options: object) -> Callable[[], Callable[[], object]]:
    """Prepares the Sinkhorn divergence of a workload and its gradient in x, at the default tolerance."""

    def prepare() -> Callable[[], object]:
        import sinkdiv
        from benchmarks.frame import workloads

        workload = getattr(workloads, make)(*sizes, **options)
        x = workload.x.requires_grad_()

        def call() -> object:
            value = sinkdiv.sinkhorn_divergence(x, workload.y, blur=workload.blur)
            value.sum().backward()
            return x.grad

        return call

    return prepare


def of_matrix(eps: float, n: int = 1000) -> Callable[[], Callable[[], object]]:
    """Prepares the sharp value of uniform costs, in float64 and to 1e-6, and its gradient in the costs."""

    def prepare() -> Callable[[], object]:
        import torch

        import sinkdiv

        C = torch.rand(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()

        def call() -> object:
            sinkdiv.solve_matrix(C, eps=eps, tol=1e-6).sharp.backward()
            return C.grad

        return call

    return prepare


WORKLOADS: dict[str, Callable[[], Callable[[], object]]] = {
    "T1: 2,500² cubes d=3": between_clouds("cubes", 2500),
    "T2: 1,200² Gaussians d=64": between_clouds("gaussians", 1200),
    "T5: 128² sphere d=10": between_clouds("spheres", 128),
    "T5: 256² images d=784": between_clouds("images", 256),
    "T6: 64 × 256² d=3": between_clouds("cubes", 256, batch=(64,)),
    "T6: 64 × 32² d=3": between_clouds("cubes", 32, batch=(64,)),
    "T7: 1,000² costs, eps .1": of_matrix(0.1),
    "T7: 1,000² costs, eps .01": of_matrix(0.01),
}


if __name__ == "__main__":
    work()
