"""The sharp value's first derivative in numbers, without a graph, streamed (Q23 §3).

With μ = (P∘C)1 and ν = (P∘C)ᵀ1 as right-hand sides of the linear system (`sinkdiv.derivatives.linearised`):

    d<P,C>/dC = P∘(1 + (s_u⊕s_v − C)/ε),    d/da = k₁ (r/a) s_u,    d/db = k₂ (c/b) s_v

The solution for C = f⊕g would be (f, g); what is solved for is the difference from it, because the reduced costs
C − f⊕g are small where there is mass, and with them all that a tolerance leaves of an error.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

from torch import Tensor

from sinkdiv.derivatives.accuracy import least_residual
from sinkdiv.derivatives.known import Partials
from sinkdiv.derivatives.linearised import Linearised
from sinkdiv.geometry import CloudGeometry
from sinkdiv.solvers import Problem, Solution
from sinkdiv.transforms import full_precision


class _Multipliers(NamedTuple):
    """s_u (B, n) and s_v (B, m)."""

    rows: Tensor
    columns: Tensor


class SharpValue:
    """<P, C> of a solved problem, and, if all weights are positive, its derivatives at the inputs that were solved."""

    def __init__(self, problem: Problem, solution: Solution, tol: float) -> None:
        wanted = max(tol, least_residual(problem.a.dtype))
        self._at = Linearised(problem, solution, wanted, one_sided=problem.symmetric)
        self._geometry = problem.geometry

    @property
    def value(self) -> Tensor:
        """<P, C>, (B,)."""
        return self._cost_marginals[0].sum(-1)

    def partials(self, wanted: tuple[bool, ...]) -> Partials:
        """The derivatives with respect to (a, b, *costs), None where not wanted."""
        with full_precision(self._at.f):
            multipliers = self._multipliers()
        grad_a = self._weight_partial(multipliers, 0) if wanted[0] else None
        grad_b = self._weight_partial(multipliers, 1) if wanted[1] else None
        return grad_a, grad_b, *self._cost_partials(multipliers, wanted[2:])

    @cached_property
    def _cost_marginals(self) -> tuple[Tensor, Tensor]:
        """(μ, ν)."""
        return self._geometry.cost_marginals(*self._at.logarithms)

    def _multipliers(self) -> _Multipliers:
        at, (mu, nu) = self._at, self._cost_marginals
        if at.one_sided:
            s = at.both(mu, start=at.f)
            return _Multipliers(s, s)
        eliminated = at.product(mu / (at.stiffness(0) * at.marginal(0)), 1)
        columns = at.columns(nu - eliminated, terms=nu.abs() + (at.marginal(1) * at.g).abs(), start=at.g)
        return _Multipliers(at.rows(mu, columns), columns)

    def _weight_partial(self, multipliers: _Multipliers, side: int) -> Tensor:
        weights = self._at.problem.b if side else self._at.problem.a
        return self._at.stiffness(side) * self._at.marginal(side) / weights * multipliers[side]

    def _cost_partials(self, multipliers: _Multipliers, wanted: tuple[bool, ...]) -> Partials:
        geometry, eps = self._geometry, self._at.eps
        s, t = 1 + multipliers.rows / eps, multipliers.columns / eps
        if not isinstance(geometry, CloudGeometry):
            pairs = geometry.pairs(0)
            return (pairs.weighted_plan(*self._at.logarithms, s, t, -1 / eps) if wanted[0] else None,)

        def gradient(side: int) -> Tensor:
            return geometry.weighted_gradient(*self._at.logarithms, s, t, -1 / eps, side)

        first = gradient(0) if wanted[0] else None
        if first is not None and self._at.one_sided:
            return first, first
        return first, gradient(1) if wanted[1] else None
