"""Several problems between points as one batch: those whose sizes resemble each other are padded to equal ones.

On an accelerator a small problem takes as long as its operations take to be launched, and a batch needs no more of them
than one problem. What is padded are copies of a problem's own first point, without weight: they change neither the
spread of the costs nor anybody's softmin. Every problem of a batch goes its own way, so each one's result, passes and
history are those of a solve of its own, up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch

from sinkdiv.geometry.padding import stacked
from sinkdiv.solvers.problem import Limits, Problem, Solution, Start

#: Problems of more pairs than this are solved alone. Estimated, not measured: a pass over so many takes some 30 µs on a
#: large GPU, the launches of a step some 500 µs; padding and waiting for the slowest make it a few passes more.
JOINED_PAIRS = 2**25

#: No problem is padded to more than so many times its own pairs.
PADDED = 4

#: Solves batches of problems.
Solver = Callable[[Sequence[Problem], Limits, Sequence[Start | None]], list[Solution]]


def is_worthwhile(device: torch.device) -> bool:
    """Whether launches, and not arithmetic, are what small problems take on this device."""
    return device.type != "cpu"


def solve_joined(
    problems: Sequence[Problem], limits: Limits, starts: Sequence[Start | None], solver: Solver
) -> list[Solution]:
    """Solve problems of one dtype and device with a ``solver`` of batches, as few of them as possible."""
    groups = _groups(problems, starts)
    chosen = [[problems[k] for k in places] for places in groups]
    begun = [_joined_start([starts[k] for k in places]) for places in groups]
    found = solver([_joined(several) if len(several) > 1 else several[0] for several in chosen], limits, begun)
    solutions: dict[int, Solution] = {}
    for places, several, solution in zip(groups, chosen, found, strict=True):
        solutions.update(zip(places, _parts(solution, several) if len(places) > 1 else [solution], strict=True))
    return [solutions[k] for k in range(len(problems))]


@dataclass
class _Group:
    """Problems that make a batch: their places, the padded size, and the pairs of the smallest of them."""

    kind: tuple[object, ...]
    places: list[int]
    rows: int
    columns: int
    least: int

    def takes(self, kind: tuple[object, ...], rows: int, columns: int) -> bool:
        """Whether a problem of that size can join."""
        padded = max(self.rows, rows) * max(self.columns, columns)
        return self.kind == kind and padded <= PADDED * min(self.least, rows * columns)

    def add(self, place: int, rows: int, columns: int) -> None:
        self.places.append(place)
        self.rows, self.columns = max(self.rows, rows), max(self.columns, columns)
        self.least = min(self.least, rows * columns)


def _groups(problems: Sequence[Problem], starts: Sequence[Start | None]) -> list[list[int]]:
    """The places of problems that make a batch: each joins the first that takes it, the largest come first."""
    sizes = [problem.geometry.shape[1:] for problem in problems]
    groups: list[_Group] = []
    for k in sorted(range(len(problems)), key=lambda k: -math.prod(sizes[k])):
        kind = _kind(problems[k], starts[k])
        group = next((one for one in groups if one.takes(kind, *sizes[k])), None)
        if group is None:
            groups.append(_Group(kind, [k], *sizes[k], least=math.prod(sizes[k])))
        else:
            group.add(k, *sizes[k])
    return [group.places for group in groups]


def _kind(problem: Problem, start: Start | None) -> tuple[object, ...]:
    """What problems of one batch have in common; no other problem has it if one is to be solved alone."""
    kind = problem.geometry.batch_kind
    if kind is None or math.prod(problem.geometry.shape) > JOINED_PAIRS:
        return (object(),)
    return kind, problem.rho, problem.symmetric, start is None


def _joined(problems: Sequence[Problem]) -> Problem:
    """One batch of all problems, with a weight of zero where there was nothing."""
    first, *others = problems
    geometry = first.geometry.joined([problem.geometry for problem in others])
    a = stacked([problem.a for problem in problems])
    b = a if first.symmetric else stacked([problem.b for problem in problems])
    eps = tuple(number for problem in problems for number in problem.eps)
    parts = tuple(problem.geometry.shape[0] for problem in problems)
    return replace(first, geometry=geometry, a=a, b=b, eps=eps, parts=parts)


def _joined_start(starts: Sequence[Start | None]) -> Start | None:
    given = [start.g for start in starts if start is not None]
    return Start(stacked(given)) if given else None


def _parts(joined: Solution, problems: Sequence[Problem]) -> list[Solution]:
    """Each problem's part of the solution of them all."""
    batches = [problem.geometry.shape[0] for problem in problems]
    ends = list(accumulate(batches))
    return [
        _part(joined, place, slice(end - batch, end), problem)
        for place, (batch, end, problem) in enumerate(zip(batches, ends, problems, strict=True))
    ]


def _part(joined: Solution, place: int, rows: slice, problem: Problem) -> Solution:
    _, n, m = problem.geometry.shape
    return Solution(
        joined.f[rows, :n], joined.g[rows, :m], joined.raw_f[rows, :n], joined.raw_g[rows, :m],
        joined.marginal_error[rows], joined.value[rows], joined.passes[rows], joined.status[rows],
        lambda: (joined.read_histories()[place],),
    )  # fmt: skip
