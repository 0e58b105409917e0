"""Newton's method on the semi-dual, from Sinkhorn's start.

A step solves D s = ε ∇F for the semi-dual's Hessian −D/ε, by conjugate gradients in the scaled variables or, where
those would take longer, by a Cholesky factorisation. What makes it dependable:

- F behaves like a sum of exponentials of g/ε. Far away their Hessian vanishes and steps run away, so at first no
  potential moves by more than `CAP` ε; then the value decides, along the line: where it goes on rising, as it does
  where clusters exchange mass, so does the step.
- D is singular beyond its constants where supports fall apart, or nearly so where ε is small. A multiple of the
  marginal error, which fades as it does, is added to its diagonal (Levenberg, Marquardt).
- Where no step raises the value beyond rounding, one of Sinkhorn's follows; if that does not help either, the rest is
  left to Sinkhorn's algorithm.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sinkdiv.solvers.gibbs import Gibbs
from sinkdiv.solvers.hessian import COLUMNS_A_PASS, FACTORISABLE_SIDE, SemiDualHessian
from sinkdiv.solvers.problem import Limits, Problem, Solution, Start
from sinkdiv.solvers.semidual import Point, SemiDual, begun, climb

#: No potential moves by more than this many ε in the first trial of a step.
CAP = 10.0

#: What is added to the diagonal of the scaled system, relative to the marginal error.
SHIFT = 0.01

#: A system is solved to this relative residual, or to the marginal error if that is less.
RESIDUAL = 0.1

#: Products with D that conjugate gradients may spend on a direction; one that they leave unfinished ascends too.
PRODUCTS = 100

#: Steps in a row without progress that end the climb.
FUTILE = 6


def newton(problem: Problem, limits: Limits, start: Start | None = None) -> Solution:
    """Solve the problem of a cost matrix. The rows of the returned plan are exact; its columns carry the error."""
    gibbs = Gibbs(problem, limits, start)
    if not begun(gibbs) and not climb(gibbs, NewtonDirections(gibbs)):
        gibbs.run()
    return gibbs.progress.solution()


def step_passes(problem: Problem) -> int:
    """What a step costs, in passes: a factorisation of D, or `PRODUCTS` with it where it has too many columns."""
    side = problem.geometry.shape[2]
    return 8 + (side // COLUMNS_A_PASS if side <= FACTORISABLE_SIDE else 2 * PRODUCTS)


class NewtonDirections:
    """Finds directions, and remembers that factorising was cheaper."""

    futile = FUTILE

    def __init__(self, gibbs: Gibbs) -> None:
        self._kernel = gibbs.kernel
        self._factorise: bool | None = None
        self.worst = 2 * step_passes(gibbs.problem) + 2 * PRODUCTS

    def direction(self, semidual: SemiDual, point: Point) -> tuple[Tensor, Tensor]:
        problem, iterate = semidual.problem, point.iterate
        hessian = SemiDualHessian(problem, iterate.g, iterate.raw_f)
        error = iterate.error.clamp(max=1.0)
        right = semidual.eps[:, :, None] * point.gradient[:, :, None]
        residual = min(RESIDUAL, float(error.max()))
        solved = hessian.solve(right, residual, shift=SHIFT * error, factorise=self._factorise, most=PRODUCTS)
        self._kernel.passes += solved.passes
        self._factorise = solved.factorised or None
        direction = solved.s[:, :, 0]
        largest = direction.abs().amax(-1).clamp(min=torch.finfo(direction.dtype).tiny)
        return direction, (CAP * semidual.eps[:, 0] / largest).clamp(max=1.0)

    def note(self, before: Point, after: Point, lost: Tensor) -> None:
        """The Hessian is new at each step: nothing is kept of the last one."""
