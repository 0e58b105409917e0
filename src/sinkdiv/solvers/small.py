"""Small problems, solved whole (`sinkdiv.geometry.whole`): what goes in, and what their results say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sinkdiv.geometry import WholeSolution
from sinkdiv.solvers import padded
from sinkdiv.solvers.problem import History, Limits, Problem, Solution, Start, Status, check_spread
from sinkdiv.solvers.progress import statuses

#: Convergence tests of one problem that its history has room for.
RECORDED = 2**14


def is_small(problem: Problem, limits: Limits) -> bool:
    """Whether `solve_small` takes this problem: its geometry does, and no callback watches."""
    return limits.watch is None and problem.geometry.whole is not None


def solve_small(
    problems: Sequence[Problem], limits: Limits, starts: Sequence[Start | None], differentiate: Sequence[bool]
) -> list[Solution]:
    """Solve problems of one dtype and device for which `is_small` holds.

    ``differentiate`` as in `sinkdiv.solvers.solve`; on a GPU a gradient is one more pass, made when it is asked for.
    """
    whole = problems[0].geometry.whole
    assert whole is not None, "is_small holds"

    def solve(problems: Sequence[Problem], limits: Limits, starts: Sequence[Start | None]) -> list[Solution]:
        given = [None if start is None else start.g for start in starts]
        checks = [_checks(problem, limits) for problem in problems]
        found = whole.solve(problems, limits.tol, limits.max_passes, given, checks, differentiate)
        return _solutions([_Solved(*pair) for pair in zip(problems, found, strict=True)], limits)

    if whole.joins:
        return padded.solve_joined(problems, limits, starts, solve)
    return solve(problems, limits, starts)


@dataclass(frozen=True)
class _Solved:
    """A batch of problems, and what was found of it."""

    problem: Problem
    found: WholeSolution

    @property
    def passes(self) -> Tensor:
        """What each problem took, (B,)."""
        return self.found.passes

    @property
    def numbers(self) -> Tensor:
        """The marginal error, the dual value and the spread of the cost of each problem, (B, 3)."""
        return self.found.results[:, -3:]

    def solution(self, status: tuple[Status, ...], limits: Limits) -> Solution:
        f, raw_f, *others, _ = torch.split_with_sizes(self.found.results, _sizes(self.problem), 1)
        g, raw_g = others or (f, raw_f)
        error, value, _ = self.numbers.unbind(1)
        return Solution(
            f, g, raw_f, raw_g, error, value, self.passes, status, lambda: self._histories(limits), self.found.gradient
        )

    def _histories(self, limits: Limits) -> tuple[History, ...]:
        """Of each part of the batch."""
        parts = self.problem.parts or (len(self.passes),)
        if not limits.tested:
            return ((),) * len(parts)
        recorded = self.found.errors, self.passes, self.numbers[:, 0]
        each = zip(*(tensor.cpu().split(parts) for tensor in recorded), strict=True)
        step = 1 if self.problem.symmetric else 2
        return tuple(_history(errors, passes, final, step) for errors, passes, final in each)


def _solutions(solved: Sequence[_Solved], limits: Limits) -> list[Solution]:
    """The solutions, and how they ended: the only wait for a GPU."""
    numbers = torch.cat([one.numbers for one in solved])
    if not limits.tested and numbers.device.type != "cpu":
        return [one.solution((Status.FIXED,) * len(one.passes), limits) for one in solved]
    errors, _, spreads = zip(*numbers.tolist(), strict=True)
    check_spread(spreads)
    solutions, first = [], 0
    for one in solved:
        own = slice(first, first + len(one.passes))
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
