"""Small problems, solved whole in one native call: no Python between two passes, and every problem on its own.

The algorithms are those of `accelerated` and `symmetric`, written again in C++ (kernels/native/small.h) for a cost
matrix that stays in the cache. Each problem of a batch runs until it has converged itself; the problems of several
batches, such as the three of a divergence, share the threads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sinkdiv.kernels import native
from sinkdiv.solvers.problem import History, Limits, Problem, Solution, Start, check_spread
from sinkdiv.solvers.progress import status_of

#: Costs of one problem that are stored: 4 MB in float32, about a core's cache.
ENTRIES = 2**20


def is_small(problem: Problem, limits: Limits) -> bool:
    """Whether `solve_small` takes this problem: small, on a CPU, and watched by nobody."""
    _, n, m = problem.geometry.shape
    return (
        limits.watch is None
        and n * m <= ENTRIES
        and native.serves(problem.a)
        and max(n, m) <= native.SMALL_SIDE
        and problem.geometry.native() is not None
    )


def solve_small(problems: Sequence[Problem], limits: Limits, starts: Sequence[Start | None]) -> list[Solution]:
    """Solve problems of one dtype for which `is_small` holds."""
    results = [_Results(problem, limits, start) for problem, start in zip(problems, starts, strict=True)]
    native.solve_small([result.batch for result in results], problems[0].a.dtype, limits.tol, limits.max_passes)
    return [result.solution() for result in results]


class _Results:
    """Room for the results of one batch of problems."""

    def __init__(self, problem: Problem, limits: Limits, start: Start | None) -> None:
        batch, n, m = problem.geometry.shape
        self.problem, self.limits = problem, limits
        pairs, dtype, symmetric = problem.geometry.native(), problem.a.dtype, problem.symmetric
        assert pairs is not None, "is_small holds"
        self.f, self.raw_f = torch.empty(batch, n, dtype=dtype), torch.empty(batch, n, dtype=dtype)
        self.g = self.f if symmetric else torch.empty(batch, m, dtype=dtype)
        self.raw_g = self.raw_f if symmetric else torch.empty(batch, m, dtype=dtype)
        self.error, self.value, self.spread = (torch.empty(batch, dtype=dtype) for _ in range(3))
        self.passes = torch.empty(batch, dtype=torch.int64)
        checks = limits.max_passes if symmetric else max(1, limits.max_passes // 2)
        self.history = torch.empty(batch, checks, dtype=torch.float32)
        a = problem.a.contiguous()
        self.inputs = (a, a if symmetric else problem.b.contiguous())
        self.start = None if start is None else (start.f.contiguous(), start.g.contiguous())
        self.batch = native.small_batch(
            pairs, problem.eps, problem.rho, symmetric, inputs=self.inputs, start=self.start,
            outputs=(self.f, self.g, self.raw_f, self.raw_g, self.error, self.value, self.spread, self.passes,
                     self.history),
        )  # fmt: skip

    def solution(self) -> Solution:
        spreads = self.spread.tolist()
        check_spread(spreads)
        status = tuple(
            status_of(error, spread, self.problem, self.limits)
            for error, spread in zip(self.error.tolist(), spreads, strict=True)
        )
        return Solution(
            self.f, self.g, self.raw_f, self.raw_g, self.error, self.value, self.passes, status, self._history
        )

    def _history(self) -> History:
        step = 1 if self.problem.symmetric else 2
        last = int(self.passes.max()) // step
        checks = torch.arange(last)[None, :]
        # A problem that is done counts with the error it was done with.
        done = checks >= (self.passes // step)[:, None]
        errors = torch.where(done, self.error[:, None].float(), self.history[:, :last])
        worst = errors.amax(0)  # NaN where one is above its target ε
        at_target = ~worst.isnan()
        return tuple(zip(((checks[0] + 1) * step)[at_target].tolist(), worst[at_target].tolist(), strict=True))
