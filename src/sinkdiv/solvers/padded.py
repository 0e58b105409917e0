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
from torch import Tensor

from sinkdiv.geometry import CloudGeometry
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
    """What problems of one batch have in common; nobody else has it if a problem is to be solved alone."""
    geometry = problem.geometry
    if not isinstance(geometry, CloudGeometry) or math.prod(geometry.shape) > JOINED_PAIRS:
        return (object(),)
    of_points = geometry.x.shape[2], geometry.cost, geometry.precision
    return *of_points, problem.eps, problem.rho, problem.symmetric, start is None


def _joined(problems: Sequence[Problem]) -> Problem:
    """One batch of all problems, with a weight of zero where there was nothing."""
    first = problems[0]
    geometries = [problem.geometry for problem in problems if isinstance(problem.geometry, CloudGeometry)]
    x, a = _stacked([g.x for g in geometries], repeat=True), _stacked([problem.a for problem in problems])
    counts = _counts(problems, 1)
    if first.symmetric:
        y, b, both = x, a, (counts, counts)
    else:
        y, b = _stacked([g.y for g in geometries], repeat=True), _stacked([problem.b for problem in problems])
        both = counts, _counts(problems, 2)
    center = torch.zeros_like(x[:, :1])  # the points are centred, each problem's at its own
    one = geometries[0]
    geometry = CloudGeometry(x, y, one.cost, center=center, counts=both, precision=one.precision)
    return replace(first, geometry=geometry, a=a, b=b, parts=tuple(problem.geometry.shape[0] for problem in problems))


def _joined_start(starts: Sequence[Start | None]) -> Start | None:
    given = [start.g for start in starts if start is not None]
    return Start(_stacked(given)) if given else None


def _stacked(tensors: Sequence[Tensor], *, repeat: bool = False) -> Tensor:
    """Tensors (B_k, n_k, ...) as one (ΣB_k, max n_k, ...), filled up with zeros or with each one's first row."""
    count = max(tensor.shape[1] for tensor in tensors)

    def padded(tensor: Tensor) -> Tensor:
        missing = count - tensor.shape[1]
        if not missing:
            return tensor
        first = tensor[:, :1] if repeat else torch.zeros_like(tensor[:, :1])
        return torch.cat([tensor, first.expand(-1, missing, *first.shape[2:])], 1)

    return torch.cat([padded(tensor) for tensor in tensors])


def _counts(problems: Sequence[Problem], axis: int) -> Tensor:
    """How many rows (axis 1) or columns (axis 2) are a problem's own, (B,)."""
    shapes = (problem.geometry.shape for problem in problems)
    # Made on the device: a copy from the host would wait for it.
    return torch.cat([problems[0].a.new_full((shape[0],), shape[axis], dtype=torch.int32) for shape in shapes])


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
