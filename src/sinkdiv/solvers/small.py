"""Small problems, solved whole (`sinkdiv.geometry.whole`): what goes in, and what their results say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor

from sinkdiv.geometry import Whole, WholeProblem, WholeSolution
from sinkdiv.solvers import padded
from sinkdiv.solvers.problem import History, Limits, Problem, Solution, Start, Status, check_spread
from sinkdiv.solvers.progress import statuses

#: Convergence tests of one problem that its history has room for.
RECORDED = 2**14


def engine_of(problems: Sequence[Problem], limits: Limits) -> Whole | None:
    """What solves all these problems whole: None if some are too large or of another kind, or a callback watches."""
    if limits.watch is not None:
        return None
    first = problems[0].geometry.whole
    return first if all(problem.geometry.whole is first for problem in problems[1:]) else None


def solve_small(
    engine: Whole,
    problems: Sequence[Problem],
    limits: Limits,
    starts: Sequence[Start | None],
    differentiate: Sequence[bool],
) -> list[Solution]:
    """Solve problems of one dtype and device whose `engine_of` that is.

    ``differentiate`` as in `sinkdiv.solvers.solve`; on a GPU a gradient is one more pass, made when it is asked for.
    """
    if not engine.joins:
        return _solve(engine, limits, zip(problems, starts, differentiate, strict=True))

    def solve(batches: Sequence[Problem], limits: Limits, starts: Sequence[Start | None]) -> list[Solution]:
        return _solve(engine, limits, zip(batches, starts, repeat(False), strict=False))

    return padded.solve_joined(problems, limits, starts, solve)


def _solve(engine: Whole, limits: Limits, each: Iterable[tuple[Problem, Start | None, bool]]) -> list[Solution]:
    """Solve problems from their starts; the third says whether the gradient is wanted."""
    problems, given = [], []
    for problem, start, wanted in each:
        begin, checks = None if start is None else start.g, _checks(problem, limits)
        numbers = problem.a, problem.b, problem.eps, problem.rho
        problems.append(problem)
        given.append(WholeProblem(problem.geometry, *numbers, problem.symmetric, begin, checks, wanted))
    found = engine.solve(given, limits.tol, limits.max_passes)
    return _solutions([_Solved(*pair) for pair in zip(problems, found, strict=True)], limits)


@dataclass(frozen=True)
class _Solved:
    """A batch of problems, and what was found of it."""

    problem: Problem
    found: WholeSolution

    @property
    def numbers(self) -> Tensor:
        """The marginal error, the dual value and the spread of the cost of each problem, (B, 3)."""
        return self.found.results[:, -3:]

    def solution(self, status: tuple[Status, ...], limits: Limits) -> Solution:
        f, raw_f, *others, _ = torch.split_with_sizes(self.found.results, _sizes(self.problem), 1)
        g, raw_g = others or (f, raw_f)
        error, value, _ = self.numbers.unbind(1)
        return Solution(
            f, g, raw_f, raw_g, error, value, self.found.passes, status, lambda: self._histories(limits),
            self.found.gradient,
        )  # fmt: skip

    def _histories(self, limits: Limits) -> tuple[History, ...]:
        """Of each part of the batch."""
        parts = self.problem.parts or (len(self.found.passes),)
        if not limits.tested:
            return ((),) * len(parts)
        recorded = self.found.errors, self.found.passes, self.numbers[:, 0]
        each = zip(*(tensor.cpu().split(parts) for tensor in recorded), strict=True)
        step = 1 if self.problem.symmetric else 2
        return tuple(_history(errors, passes, final, step) for errors, passes, final in each)


def _solutions(solved: Sequence[_Solved], limits: Limits) -> list[Solution]:
    """The solutions, and how they ended: the only wait for a GPU."""
    numbers = torch.cat([one.numbers for one in solved])
    if not limits.tested and numbers.device.type != "cpu":
        return [one.solution((Status.FIXED,) * len(one.found.passes), limits) for one in solved]
    errors, _, spreads = zip(*numbers.tolist(), strict=True)
    check_spread(spreads)
    solutions, first = [], 0
    for one in solved:
        own = slice(first, first + len(one.found.passes))
        solutions.append(one.solution(statuses(errors[own], spreads[own], one.problem, limits), limits))
        first = own.stop
    return solutions


def _history(errors: Tensor, passes: Tensor, final: Tensor, step: int) -> History:
    """From the errors (B, checks) at the first tests, of ``step`` passes each, and the final ones (B,)."""
    spent = int(passes.max())
    last = min(spent // step, errors.shape[1])
    checks = torch.arange(last)[None, :]
    # A problem that is done counts with the error it was done with.
    done = checks >= (passes // step)[:, None]
    worst = torch.where(done, final[:, None].float(), errors[:, :last]).amax(0)  # NaN where one is above its target ε
    at_target = ~worst.isnan()
    history = list(zip(((checks[0] + 1) * step)[at_target].tolist(), worst[at_target].tolist(), strict=True))
    if last < spent // step:
        history.append((spent, float(final.max())))
    return tuple(history)


def _sizes(problem: Problem) -> list[int]:
    """Of the parts of a result: f, raw_f, g, raw_g, and three numbers."""
    _, n, m = problem.geometry.shape
    return [n, n, 3] if problem.symmetric else [n, n, m, m, 3]


def _checks(problem: Problem, limits: Limits) -> int:
    """Convergence tests that are recorded."""
    return min(limits.max_passes if problem.symmetric else max(1, limits.max_passes // 2), RECORDED)
