"""Hessian-vector products of the entropic value in numbers, without a graph, streamed.

The Hessian is symmetric, so its product with directions (a', b', x', y') is how the partial derivatives change along
them. Costs move by C' (`tangent_marginals`), the potentials follow, and with them the plan:

    κ₁ = 1/k₁,   f' = α − κ₁ P g'/r   with   r∘α = κ₁ [(P∘C')1 − ε P(b'/b)],
    D g' = ε b' e^{−g/ρ₂} − Pᵀ(ε a'/a + α) − ε (c/b)∘b' + (P∘C')ᵀ1,
    P' = P∘(a'/a ⊕ b'/b + (f'⊕g' − C')/ε).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sinkdiv.derivatives.accuracy import ACCURACY, least_residual
from sinkdiv.derivatives.linear_systems import LinearSystems
from sinkdiv.solvers import Problem, Solution
from sinkdiv.transforms import Partials, full_precision

Directions = tuple[Tensor, Tensor, Tensor, Tensor]


class EntropicHessian:
    """The Hessian of OT_ε between points in (a, b, x, y), at what was solved. All weights are positive.

    ``one_sided``: both sides are one and move as one; directions of the two then are the same.
    """

    def __init__(self, problem: Problem, solution: Solution, tol: float, *, one_sided: bool) -> None:
        points = problem.geometry.points
        assert points is not None, "there are no points that could move"
        wanted = max(ACCURACY * tol, least_residual(problem.a.dtype))
        self._at = LinearSystems(problem, solution, wanted, one_sided=one_sided)
        self._points = points

    def product(self, directions: Directions, wanted: tuple[bool, ...]) -> Partials:
        """How the partial derivatives in (a, b, x, y) change along ``directions``, None where not wanted."""
        at, (da, db, dx, dy) = self._at, directions
        moved_costs = self._points.tangent_marginals(*at.plan.logarithms, dx, dy)
        relative_a, relative_b = da / at.problem.a, db / at.problem.b
        with full_precision(at.f):
            df, dg = self._moved_potentials(moved_costs, relative_a, relative_b, db)
        change = (relative_a + df / at.eps, relative_b + dg / at.eps, dx, dy)
        constant = self._moved_constant(da, db, df, dg)
        return (
            self._weight_change(df + constant, db, 0) if wanted[0] else None,
            self._weight_change(dg - constant, da, 1) if wanted[1] else None,
            self._points.gradient_tangent(*at.plan.logarithms, *change, 0) if wanted[2] else None,
            self._points.gradient_tangent(*at.plan.logarithms, *change, 1) if wanted[3] else None,
        )

    def _moved_potentials(
        self, moved_costs: tuple[Tensor, Tensor], relative_a: Tensor, relative_b: Tensor, db: Tensor
    ) -> tuple[Tensor, Tensor]:
        at = self._at
        right = moved_costs[0] - at.eps * at.product(relative_b, 0)
        if at.one_sided:
            both = at.both(right)
            return both, both
        alpha = at.relative(right)
        sent = at.product(at.eps * relative_a + alpha, 1)
        relaxed = db * torch.exp(-at.g / at.problem.rho[1]) - at.plan.marginals[1] * relative_b
        terms = at.eps * relaxed.abs() + sent.abs() + moved_costs[1].abs()
        dg = at.columns(at.eps * relaxed - sent + moved_costs[1], terms)
        return at.rows(right, dg), dg

    def _moved_constant(self, da: Tensor, db: Tensor, df: Tensor, dg: Tensor) -> Tensor | float:
        """How the constant moves, (B, 1), that keeps <a, f> = <b, g> where the marginals are hard."""
        at, a, b = self._at, self._at.problem.a, self._at.problem.b
        if at.one_sided or not at.problem.balanced:
            return 0.0
        total = (a.sum(-1) + b.sum(-1))[:, None]
        constant = (_inner(b, at.g) - _inner(a, at.f)) / total
        gains = _inner(db, at.g - constant) + _inner(b, dg) - _inner(da, at.f + constant) - _inner(a, df)
        return gains / total

    def _weight_change(self, change: Tensor, other: Tensor, side: int) -> Tensor:
        """How the derivative in a side's weights follows its potential and the other side's mass."""
        at = self._at
        more_mass = at.eps * other.sum(-1, keepdim=True)
        if at.problem.balanced:
            return change + more_mass
        potential = (at.f, at.g)[side]
        return more_mass + at.stiffness(side) * torch.exp(-potential / at.problem.rho[side]) * change


def _inner(weights: Tensor, potential: Tensor) -> Tensor:
    return (weights * potential).sum(-1, keepdim=True)
