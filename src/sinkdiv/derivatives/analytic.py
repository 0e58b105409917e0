"""The sharp value's first derivative in numbers, without a graph, streamed (Q23 §3).

With r and c the plan's *actual* marginals, k = 1 + ε/ρ (1 where they are hard), μ = (P∘C)1 and ν = (P∘C)ᵀ1:

    [k₁ diag r, P; Pᵀ, k₂ diag c] [s_u; s_v] = [μ; ν]
    d<P,C>/dC = P∘(1 + (s_u⊕s_v − C)/ε),    d/da = k₁ (r/a) s_u,    d/db = k₂ (c/b) s_v

Eliminating s_u leaves D s_v = ν − κ₁ Pᵀ(μ/r) (`sinkdiv.solvers.hessian`). As D g is what C = f⊕g would give for the
right-hand side, s_v − g is solved for: the reduced costs C − f⊕g are small where there is mass, and so is what a
tolerance leaves of it. Where both sides are one, s_u = s_v and k diag r + P alone is to be inverted: its spectrum
relative to r lies in [k, k+1], and a few products are enough.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from sinkdiv.derivatives.accuracy import report, wanted_residual
from sinkdiv.derivatives.known import Partials
from sinkdiv.geometry import CloudGeometry
from sinkdiv.solvers import Problem, Solution
from sinkdiv.solvers.conjugate_gradients import conjugate_gradients, relative_residual
from sinkdiv.solvers.hessian import SemiDualHessian

#: More than ever needed where both sides are one.
MAX_SYMMETRIC_PRODUCTS = 200

#: What a weight of zero is taken for, relative to the mean: too little to be seen, enough for its derivative.
LEAST_WEIGHT = 1e-20


class _Multipliers(NamedTuple):
    """s_u (B, n) and s_v (B, m)."""

    rows: Tensor
    columns: Tensor


class SharpValue:
    """<P, C> of a solved problem, and its derivatives at the inputs that were solved."""

    def __init__(self, problem: Problem, solution: Solution, tol: float) -> None:
        self._wanted = wanted_residual(tol, problem.a.dtype)
        self._eps = problem.eps_column()
        a = _positive(problem.a)
        self._problem = replace(problem, a=a, b=a if problem.symmetric else _positive(problem.b))
        extension = problem.damped(solution.raw_g, self._eps, side=1)
        self._solution = replace(solution, g=torch.where(problem.b > 0, solution.g, extension))

    @property
    def value(self) -> Tensor:
        """<P, C>, (B,)."""
        return self._cost_marginals[0].sum(-1)

    def partials(self, wanted: tuple[bool, ...]) -> Partials:
        """The derivatives with respect to (a, b, *costs), None where not wanted."""
        multipliers = self._symmetric_multipliers() if self._problem.symmetric else self._multipliers()
        grad_a = self._weight_partial(multipliers, 0) if wanted[0] else None
        grad_b = self._weight_partial(multipliers, 1) if wanted[1] else None
        return grad_a, grad_b, *self._cost_partials(multipliers, wanted[2:])

    @cached_property
    def _logarithms(self) -> tuple[Tensor, Tensor, Tensor]:
        """(u, h, ε) of `sinkdiv.kernels.reference`."""
        log_a, log_b = self._problem.log_weights
        u = log_a + self._solution.f / self._eps
        return u, u if self._problem.symmetric else log_b + self._solution.g / self._eps, self._eps

    @cached_property
    def _cost_marginals(self) -> tuple[Tensor, Tensor]:
        """(μ, ν)."""
        return self._problem.geometry.cost_marginals(*self._logarithms)

    def _marginal(self, side: int) -> Tensor:
        s = self._solution
        potential, raw = ((s.f, s.raw_f), (s.g, s.raw_g))[side]
        return self._problem.marginal(potential, raw, self._eps, side)

    def _multipliers(self) -> _Multipliers:
        problem, s = self._problem, self._solution
        mu, nu = self._cost_marginals
        r, shrinkage = self._marginal(0), 1 / self._stiffness(0)
        hessian = SemiDualHessian(problem, s.g, s.raw_f, s.raw_g)
        right = nu - shrinkage * self._product(mu / r, 1)
        reduced = right - hessian.product(s.g[:, :, None]).squeeze(-1)
        solved = hessian.solve(reduced[:, :, None], self._wanted)
        report(solved.residual, self._wanted)
        columns = s.g + solved.s.squeeze(-1)
        return _Multipliers(shrinkage * (mu - self._product(columns, 0)) / r, columns)

    def _symmetric_multipliers(self) -> _Multipliers:
        mu, r = self._cost_marginals[0], self._marginal(0)
        root, stiffness = r.sqrt()[:, :, None], self._stiffness(0)

        def apply(t: Tensor) -> Tensor:
            return stiffness * t + self._product((t / root).squeeze(-1), 0)[:, :, None] / root

        f = self._solution.f  # what C = f⊕f would give: the rest is small where there is mass
        right = mu[:, :, None] / root - apply(f[:, :, None] * root)
        t, _ = conjugate_gradients(apply, right, self._wanted, MAX_SYMMETRIC_PRODUCTS)
        report(relative_residual(apply, t, right), self._wanted)
        s = f + (t / root).squeeze(-1)
        return _Multipliers(s, s)

    def _product(self, v: Tensor, side: int) -> Tensor:
        return self._problem.geometry.plan_product(*self._logarithms, v[:, :, None], side).squeeze(-1)

    def _stiffness(self, side: int) -> float:
        return 1 + self._problem.eps / self._problem.rho[side]

    def _weight_partial(self, multipliers: _Multipliers, side: int) -> Tensor:
        weights = self._problem.b if side else self._problem.a
        return self._stiffness(side) * self._marginal(side) / weights * multipliers[side]

    def _cost_partials(self, multipliers: _Multipliers, wanted: tuple[bool, ...]) -> Partials:
        geometry, eps = self._problem.geometry, self._eps
        s, t = 1 + multipliers.rows / eps, multipliers.columns / eps
        if not isinstance(geometry, CloudGeometry):
            return (self._matrix_partial(s, t) if wanted[0] else None,)

        def gradient(side: int) -> Tensor:
            return geometry.weighted_gradient(*self._logarithms, s, t, -1 / eps, side)

        first = gradient(0) if wanted[0] else None
        if first is not None and self._problem.symmetric:
            return first, first
        return first, gradient(1) if wanted[1] else None

    def _matrix_partial(self, s: Tensor, t: Tensor) -> Tensor:
        """P∘(1 + (s_u⊕s_v − C)/ε), and 0 at forbidden pairs."""
        geometry = self._problem.geometry
        plan, C = geometry.plan_matrix(*self._logarithms), geometry.pairs(0).costs()
        change = s[:, :, None] + t[:, None, :] - C / self._eps[:, :, None]
        return torch.where(plan > 0, plan * change, 0.0)


def _positive(weights: Tensor) -> Tensor:
    """Weights (B, n), a little above zero."""
    return torch.maximum(weights, LEAST_WEIGHT * weights.mean(-1, keepdim=True))
