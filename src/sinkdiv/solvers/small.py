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
from sinkdiv.solvers.progress import statuses

#: Costs of one problem that are stored: 4 MB in float32, about a core's cache.
ENTRIES = 2**20

#: Convergence tests of one problem that its history has room for.
RECORDED = 2**14


def is_small(problem: Problem, limits: Limits) -> bool:
    """Whether `solve_small` takes this problem: small, on a CPU, and watched by nobody."""
    _, n, m = problem.geometry.shape
    return (
        limits.watch is None
        and n * m <= ENTRIES
        and native.serves(problem.a)
        and max(n, m) <= native.SMALL_SIDE
        and problem.geometry.native_pairs() is not None
    )


def solve_small(
    problems: Sequence[Problem], limits: Limits, starts: Sequence[Start | None], differentiate: Sequence[bool]
) -> list[Solution]:
    """Solve problems of one dtype for which `is_small` holds; ``differentiate`` as in `sinkdiv.solvers.solve`."""
    results = [
        _Results(problem, limits, start, wanted)
        for problem, start, wanted in zip(problems, starts, differentiate, strict=True)
    ]
    native.solve_small([result.batch for result in results], problems[0].a.dtype, limits.tol, limits.max_passes)
    return [result.solution() for result in results]


class _Results:
    """Room for the results of one batch of problems."""

    def __init__(self, problem: Problem, limits: Limits, start: Start | None, differentiate: bool) -> None:
        batch, n, m = problem.geometry.shape
        self.problem, self.limits = problem, limits
        pairs, dtype, symmetric = problem.geometry.native_pairs(), problem.a.dtype, problem.symmetric
        assert pairs is not None, "is_small holds"
        self.sizes = [n, n, 3] if symmetric else [n, n, m, m, 3]
        self.results = torch.empty(batch, sum(self.sizes), dtype=dtype)
        self.passes = torch.empty(batch, dtype=torch.int64)
        checks = limits.max_passes if symmetric else max(1, limits.max_passes // 2)
        self.history = torch.empty(batch, min(checks, RECORDED), dtype=torch.float32)
        self.gradient = torch.empty_like(pairs.x) if differentiate and isinstance(pairs, native.Pairs) else None
        a = problem.a.contiguous()
        self.weights = (a, a if symmetric else problem.b.contiguous())
        self.start = None if start is None else start.g.contiguous()
        self.batch = native.small_batch(
            pairs, problem.eps, problem.rho, symmetric, self.weights, self.start,
            (self.results, self.passes, self.history), self.gradient,
        )  # fmt: skip

    def solution(self) -> Solution:
        f, raw_f, *others, numbers = torch.split_with_sizes(self.results, self.sizes, 1)
        g, raw_g = others or (f, raw_f)
        errors, _, spreads = zip(*numbers.tolist(), strict=True)
        check_spread(spreads)
        status = statuses(errors, spreads, self.problem, self.limits)
        self.error, value = numbers[:, 0], numbers[:, 1]
        return Solution(
            f, g, raw_f, raw_g, self.error, value, self.passes, status, lambda: (self._history(),), self.gradient
        )

    def _history(self) -> History:
        if not self.limits.tested:
            return ()
        step = 1 if self.problem.symmetric else 2
        spent = int(self.passes.max())
        last = min(spent // step, self.history.shape[1])
        checks = torch.arange(last)[None, :]
        # A problem that is done counts with the error it was done with.
        done = checks >= (self.passes // step)[:, None]
        errors = torch.where(done, self.error[:, None].float(), self.history[:, :last])
        worst = errors.amax(0)  # NaN where one is above its target ε
        at_target = ~worst.isnan()
        history = list(zip(((checks[0] + 1) * step)[at_target].tolist(), worst[at_target].tolist(), strict=True))
        if last < spent // step:
            history.append((spent, float(self.error.max())))
        return tuple(history)
