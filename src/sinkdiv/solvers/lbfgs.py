"""Limited-memory BFGS on the semi-dual, from Sinkhorn's start (Q23 §3).

The variables are scaled by 1/√b, in which the Hessian near the optimum has the spectrum of I − K̂ᵀK̂, in [0, 1]/ε;
unscaled, unequal weights make it useless. What differs from the textbook: the first step is Sinkhorn's own, a search
that finds nothing is followed by one of Sinkhorn's steps with the history dropped, and every problem of a batch has a
history and a line search of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sinkdiv.solvers.gibbs import Gibbs
from sinkdiv.solvers.problem import Limits, Problem, Solution, Start
from sinkdiv.solvers.semidual import Point, SemiDual, begun, climb

#: Pairs of differences that are kept.
DEPTH = 10

#: Steps in a row without progress that end the climb; Sinkhorn's algorithm then goes on alone.
FUTILE = 20


def lbfgs(problem: Problem, limits: Limits, start: Start | None = None) -> Solution:
    """Solve the problem of a cost matrix. The rows of the returned plan are exact; its columns carry the error."""
    gibbs = Gibbs(problem, limits, start)
    if not begun(gibbs) and not climb(gibbs, QuasiNewton(problem)):
        gibbs.run()
    return gibbs.progress.solution()


class QuasiNewton:
    """Pairs (Δg, −Δ∇F) in the scaled variables, and the steps they lead to. Scaled, g is √b·g and ∇F is ∇F/√b."""

    futile = FUTILE
    worst = 0

    def __init__(self, problem: Problem) -> None:
        self._eps = problem.eps_column()
        self._root = problem.b.sqrt()
        self._inverse_root = torch.where(problem.b > 0, 1 / self._root, 0.0)
        self._s: list[Tensor] = []
        self._y: list[Tensor] = []
        self._valid: list[Tensor] = []

    def direction(self, semidual: SemiDual, point: Point) -> tuple[Tensor, Tensor]:
        return self._recursion(point.gradient), torch.ones_like(point.dual)

    def note(self, before: Point, after: Point, lost: Tensor) -> None:
        """Take the pair of a step; problems that lost their way start anew."""
        self._valid = [valid & ~lost[:, None] for valid in self._valid]
        s = self._root * (after.iterate.g - before.iterate.g)
        y = self._inverse_root * (before.gradient - after.gradient)
        curved = _dot(s, y) > torch.finfo(s.dtype).eps * _dot(y, y) * self._eps
        for kept, new in ((self._s, s), (self._y, y), (self._valid, ~lost[:, None] & curved)):
            kept.append(new)
            del kept[:-DEPTH]

    def _recursion(self, gradient: Tensor) -> Tensor:
        """The direction (B, m) in g, by the two-loop recursion."""
        q, alphas = self._inverse_root * gradient, []
        scale = self._eps
        for s, y, valid in zip(reversed(self._s), reversed(self._y), reversed(self._valid), strict=True):
            alpha = torch.where(valid, _dot(s, q) / _dot(s, y), 0.0)
            q = q - alpha * y
            alphas.append(alpha)
        for s, y, valid in zip(self._s, self._y, self._valid, strict=True):
            scale = torch.where(valid, _dot(s, y) / _dot(y, y), scale)
        q = scale * q
        for s, y, valid, alpha in zip(self._s, self._y, self._valid, reversed(alphas), strict=True):
            q = q + torch.where(valid, alpha - _dot(y, q) / _dot(s, y), 0.0) * s
        return self._inverse_root * q


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(-1, keepdim=True)
