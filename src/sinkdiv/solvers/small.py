"""Small problems, solved whole in one call of C++ or one launch on a GPU: no Python between two passes.

The algorithms are those of `accelerated` and `symmetric`, written again in C++ (kernels/native/small/) and for GPUs
(kernels/triton/small.py) for a cost matrix that stays in the cache or in registers. Each problem of a batch runs until
it has converged itself, on a thread or a multiprocessor of its own. The host waits for a GPU once, for the errors of
all problems of all batches, such as the three of a divergence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sinkdiv.kernels import native, triton
from sinkdiv.solvers import padded
from sinkdiv.solvers.problem import History, Limits, Problem, Solution, Start, Status, check_spread
from sinkdiv.solvers.progress import statuses

#: Costs of one problem that are stored: 4 MB in float32, about a core's cache.
ENTRIES = 2**20

#: Most rows or columns of a problem that a GPU's multiprocessor solves, and costs of a batch that are formed for it.
GPU_SIDE, GPU_ENTRIES = 256, 2**26

#: Convergence tests of one problem that its history has room for.
RECORDED = 2**14


def is_small(problem: Problem, limits: Limits) -> bool:
    """Whether `solve_small` takes this problem: small, on a CPU or a GPU, and watched by nobody."""
    batch, n, m = problem.geometry.shape
    if limits.watch is not None or n * m > ENTRIES:
        return False
    if triton.serves(problem.a):
        return max(n, m) <= GPU_SIDE and batch * n * m <= GPU_ENTRIES and not problem.geometry.forbids
    served = native.serves(problem.a) and max(n, m) <= native.SMALL_SIDE
    return served and problem.geometry.native_reductions() is not None


def solve_small(
    problems: Sequence[Problem], limits: Limits, starts: Sequence[Start | None], differentiate: Sequence[bool]
) -> list[Solution]:
    """Solve problems of one dtype and device for which `is_small` holds.

    ``differentiate`` as in `sinkdiv.solvers.solve`; on a GPU a gradient is one more pass, made when it is asked for.
    """
    if triton.serves(problems[0].a):
        return padded.solve_joined(problems, limits, starts, _solve_on_gpu)
    return _solutions(_on_cpu(problems, limits, starts, differentiate), limits)


@dataclass(frozen=True)
class _Solved:
    """A batch of problems after its solve: what a kernel returns of it (`native.small_batch`, `triton.small`)."""

    problem: Problem
    results: Tensor
    passes: Tensor
    errors: Tensor
    gradient: Tensor | None = None

    @property
    def numbers(self) -> Tensor:
        """The marginal error, the dual value and the spread of the cost of each problem, (B, 3)."""
        return self.results[:, -3:]

    def solution(self, status: tuple[Status, ...], limits: Limits) -> Solution:
        f, raw_f, *others, _ = torch.split_with_sizes(self.results, _sizes(self.problem), 1)
        g, raw_g = others or (f, raw_f)
        error, value, _ = self.numbers.unbind(1)
        return Solution(
            f, g, raw_f, raw_g, error, value, self.passes, status, lambda: self._histories(limits), self.gradient
        )

    def _histories(self, limits: Limits) -> tuple[History, ...]:
        """Of each part of the batch."""
        parts = self.problem.parts or (len(self.passes),)
        if not limits.tested:
            return ((),) * len(parts)
        recorded = zip(*(t.cpu().split(parts) for t in (self.errors, self.passes, self.numbers[:, 0])), strict=True)
        step = 1 if self.problem.symmetric else 2
        return tuple(_history(errors, passes, final, step) for errors, passes, final in recorded)


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


def _solve_on_gpu(problems: Sequence[Problem], limits: Limits, starts: Sequence[Start | None]) -> list[Solution]:
    return _solutions(
        [_on_gpu(problem, limits, start) for problem, start in zip(problems, starts, strict=True)], limits
    )


def _on_gpu(problem: Problem, limits: Limits, start: Start | None) -> _Solved:
    from sinkdiv.kernels.triton.small import solve_small

    geometry = problem.geometry
    C = geometry.pairs(0).costs() if geometry.matrix is None else geometry.matrix
    eps = torch.full((C.shape[0],), problem.eps, dtype=torch.float64, device=C.device)
    outputs = solve_small(
        C, problem.a, problem.b, geometry.spread(), eps, problem.rho, symmetric=problem.symmetric,
        start=None if start is None else start.g, tol=limits.tol, max_passes=limits.max_passes,
        checks=_checks(problem, limits),
    )  # fmt: skip
    return _Solved(problem, *outputs)


def _on_cpu(
    problems: Sequence[Problem], limits: Limits, starts: Sequence[Start | None], differentiate: Sequence[bool]
) -> list[_Solved]:
    solved, batches, kept = [], [], []
    for problem, start, wanted in zip(problems, starts, differentiate, strict=True):
        batch, dtype = problem.geometry.shape[0], problem.a.dtype
        pairs = problem.geometry.native_reductions()
        assert pairs is not None, "is_small holds"
        results = torch.empty(batch, sum(_sizes(problem)), dtype=dtype)
        passes = torch.empty(batch, dtype=torch.int64)
        errors = torch.empty(batch, _checks(problem, limits), dtype=torch.float32)
        gradient = torch.empty_like(pairs.x) if wanted and isinstance(pairs, native.PointReductions) else None
        a = problem.a.contiguous()
        weights = (a, a if problem.symmetric else problem.b.contiguous())
        g = None if start is None else start.g.contiguous()
        eps = torch.full((batch,), problem.eps, dtype=torch.float64)
        kept.append((weights, g, eps))  # alive until the call returns
        batches.append(
            native.small_batch(
                pairs, eps, problem.rho, problem.symmetric, weights, g, (results, passes, errors), gradient
            )
        )
        solved.append(_Solved(problem, results, passes, errors, gradient))
    native.solve_small(batches, problems[0].a.dtype, limits.tol, limits.max_passes)
    return solved
