"""Small problems, solved whole in one call of C++ or one launch on a GPU: no Python between two passes.

The algorithms are those of `sinkdiv.solvers`, accelerated and symmetric, written again in C++ (kernels/native/small/)
and for GPUs (kernels/triton/small.py) for a cost matrix that stays in the cache or in registers. Each problem of a
batch runs until it has converged itself, on a thread or a multiprocessor of its own. The host waits for a GPU once, for
the errors of all problems of all batches, such as the three of a divergence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from sinkdiv.geometry.protocol import Whole, WholeProblem, WholeSolution
from sinkdiv.kernels import native, triton

#: Costs of one problem that are stored: 4 MB in float32, about a core's cache.
ENTRIES = 2**20

#: Most rows or columns of a problem that a GPU's multiprocessor solves, and costs of a batch that are formed for it.
GPU_SIDE, GPU_ENTRIES = 256, 2**26

Operand = native.AnyReductions


class Storable(Protocol):
    """A geometry whose cost matrix can be formed."""

    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def forbids(self) -> bool: ...

    def native_operand(self) -> Operand | None:
        """The problem as the native solver takes it, or None if it does not know this cost."""


def engine(geometry: Storable, like: Tensor) -> Whole | None:
    """What solves problems of this geometry whole: None if they are too large, or nothing knows their cost.

    ``like`` is any tensor of the geometry's dtype and device.
    """
    batch, n, m = geometry.shape
    if n * m > ENTRIES:
        return None
    if triton.serves(like):
        small = max(n, m) <= GPU_SIDE and batch * n * m <= GPU_ENTRIES
        return FUSED if small and not geometry.forbids else None
    small = native.serves(like) and max(n, m) <= native.SMALL_SIDE
    return NATIVE if small and geometry.native_operand() is not None else None


class NativeSolver:
    """All problems of all batches on the threads of the CPU, in one call."""

    joins = False

    def solve(self, problems: Sequence[WholeProblem], tol: float, max_passes: int) -> list[WholeSolution]:
        solutions, batches, kept = [], [], []
        for problem in problems:
            operand = problem.geometry.native_operand()
            solution = WholeSolution(
                results=problem.a.new_empty(len(problem.a), _numbers(problem)),
                passes=torch.empty(len(problem.a), dtype=torch.int64),
                errors=torch.empty(len(problem.a), problem.checks, dtype=torch.float32),
                gradient=_empty_gradient(operand) if problem.differentiate else None,
            )
            a = problem.a.contiguous()
            weights = (a, a if problem.symmetric else problem.b.contiguous())
            g = None if problem.start is None else problem.start.contiguous()
            eps = torch.tensor(problem.eps, dtype=torch.float64)
            kept.append((operand, weights, g, eps))  # alive until the call returns
            outputs = (solution.results, solution.passes, solution.errors)
            batches.append(
                native.small_batch(operand, eps, problem.rho, problem.symmetric, weights, g, outputs, solution.gradient)
            )
            solutions.append(solution)
        native.solve_small(batches, problems[0].a.dtype, tol, max_passes)
        return solutions


class FusedSolver:
    """One program of a GPU for each problem. A gradient is another pass, made when it is asked for."""

    joins = True

    def solve(self, problems: Sequence[WholeProblem], tol: float, max_passes: int) -> list[WholeSolution]:
        from sinkdiv.kernels.triton.small import solve_small

        return [
            WholeSolution(
                *solve_small(
                    problem.geometry.costs(), problem.a, problem.b, problem.geometry.spread(), _on_device(problem),
                    problem.rho, symmetric=problem.symmetric, start=problem.start, tol=tol, max_passes=max_passes,
                    checks=problem.checks,
                )
            )
            for problem in problems
        ]  # fmt: skip


def _empty_gradient(operand: Operand) -> Tensor | None:
    return torch.empty_like(operand.x) if isinstance(operand, native.PointReductions) else None


def _on_device(problem: WholeProblem) -> Tensor:
    """ε (B,) in float64; one number for all is filled in without a copy from the host."""
    device, first = problem.a.device, problem.eps[0]
    if all(number == first for number in problem.eps):
        return torch.full((len(problem.eps),), first, dtype=torch.float64, device=device)
    return torch.tensor(problem.eps, dtype=torch.float64, device=device)


def _numbers(problem: WholeProblem) -> int:
    """How many numbers a result holds (`WholeSolution.results`)."""
    n, m = problem.a.shape[1], problem.b.shape[1]
    return 2 * n + 3 if problem.symmetric else 2 * (n + m) + 3


NATIVE, FUSED = NativeSolver(), FusedSolver()
