"""How fast is one tree beside another?

    python -m benchmarks.regression.times A/src B/src

Each tree works in a process of its own, on the same core, and the two take turns, many short ones, so that whatever
else the machine does meets both. Both are started anew several times, since where a process happens to lie in memory
matters too. A turn is one number: the mean seconds of a call, of value and gradient, over enough calls to last
``--turn`` seconds. The table holds the median turn of each tree; the median of the ratios B over A of turns that follow
each other, with the standard error of this median; the same median for each start, which shows what the error does not
know; and the ratio of the fastest turns. Give the same tree twice to see the noise.

The workloads are those of the speed benchmark, at sizes that take about two minutes together. ``--cpu`` counts the
processor's seconds instead of the clock's, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: Seconds of the turns of both trees.
Turns = tuple[list[float], list[float]]


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.worker:
        return work()
    turns: dict[str, list[Turns]] = {name: [] for name in WORKLOADS if name.startswith(tuple(options.only))}
    for start in range(options.starts):
        trees = [Tree(source, options) for source in options.trees]
        for name, taken in turns.items():
            sys.stderr.write(f"start {start + 1} of {options.starts}, {name}\n")
            taken.append(raced(name, trees, options))
        for tree in trees:
            tree.end()
    sys.stdout.write("\n".join(table(turns)) + "\n")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="*", help="two folders that hold the package, such as src")
    parser.add_argument("--only", nargs="+", default=[""], help="workloads that begin so: T1, T2, T5, T6, T7")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each workload and start")
    parser.add_argument("--starts", type=int, default=3, help="how often both processes are started")
    parser.add_argument("--turn", type=float, default=0.05, help="seconds of one turn")
    parser.add_argument("--threads", type=int, default=1, help="with more than 1 the processes choose their cores")
    parser.add_argument("--cpu", action="store_true", help="count the processor's seconds")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not options.worker and len(options.trees) != 2:
        parser.error("give two folders")
    return options


# The process that asks.


class Tree:
    """A process that works with one tree."""

    def __init__(self, source: str, options: argparse.Namespace) -> None:
        self.cpu = options.cpu
        environment = {
            **os.environ, "PYTHONPATH": str(Path(source).resolve()), "OMP_NUM_THREADS": str(options.threads)
        }  # fmt: skip
        command = [sys.executable, "-m", "benchmarks.regression.times", "--worker"]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if options.threads == 1 and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self.process.pid, {max(os.sched_getaffinity(0))})

    def turn(self, name: str, calls: int) -> float:
        """The mean seconds of so many calls."""
        asked, answered = self.process.stdin, self.process.stdout
        assert asked, "a pipe"
        assert answered, "a pipe"
        asked.write(json.dumps([name, calls, self.cpu]) + "\n")
        asked.flush()
        answer = answered.readline()
        if not answer:
            raise RuntimeError(f"a tree failed at {name}")
        return float(answer)

    def end(self) -> None:
        self.process.communicate()


def raced(name: str, trees: list[Tree], options: argparse.Namespace) -> Turns:
    """Turns of both trees, one after the other, until the time is up."""
    for tree in trees:
        tree.turn(name, 2)
    calls = max(1, round(options.turn / max(tree.turn(name, 1) for tree in trees)))
    turns: Turns = ([], [])
    end = time.perf_counter() + options.seconds
    while time.perf_counter() < end or len(turns[0]) < 4:
        for which in (0, 1) if len(turns[0]) % 2 == 0 else (1, 0):
            turns[which].append(trees[which].turn(name, calls))
    return turns


def table(turns: dict[str, list[Turns]]) -> Iterator[str]:
    yield "| workload | A, ms | B, ms | B / A | error | each start | fastest B / A | turns |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, starts in turns.items():
        first, second = ([seconds for start in starts for seconds in start[which]] for which in (0, 1))
        ratios = [later / earlier for earlier, later in zip(first, second, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        error = 1.86 * (high - low) / 2 / len(ratios) ** 0.5  # of the median, as if the ratios were normal
        each = ", ".join(f"{statistics.median(b / a for a, b in zip(*start, strict=True)):.3f}" for start in starts)
        cells = [
            name, f"{1e3 * statistics.median(first):.3g}", f"{1e3 * statistics.median(second):.3g}", f"{middle:.3f}",
            f"{100 * error:.1f} %", each, f"{min(second) / min(first):.3f}", str(len(ratios)),
        ]  # fmt: skip
        yield "| " + " | ".join(cells) + " |"


# The processes that work.


def work() -> int:
    """Answer each line, a workload and a number of calls, by the mean seconds of a call."""
    warnings.simplefilter("ignore")
    calls: dict[str, Callable[[], object]] = {}
    for line in sys.stdin:
        name, count, cpu = json.loads(line)
        call = calls.setdefault(name, calls.get(name) or WORKLOADS[name]())
        clock = time.process_time if cpu else time.perf_counter
        begin = clock()
        for _ in range(count):
            call()
        sys.stdout.write(f"{(clock() - begin) / count!r}\n")
        sys.stdout.flush()
    return 0


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
    sys.exit(main())
