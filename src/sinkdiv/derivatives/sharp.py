"""The sharp value's first derivative in numbers, without a graph, streamed (Q23 §3).

With μ = (P∘C)1 and ν = (P∘C)ᵀ1 as right-hand sides of the linear system (`sinkdiv.derivatives.linear_systems`):

    d<P,C>/dC = P∘(1 + (s_u⊕s_v − C)/ε),    d/da = k₁ (r/a) s_u,    d/db = k₂ (c/b) s_v

Computed with the reduced costs R = C − f⊕g = −ε log(P/(a⊗b)), whose solution is (σ, τ) = (s_u − f, s_v − g), the
derivative in C is P∘(1 + (σ⊕τ − R)/ε). R is small where there is mass, and with it what a tolerance leaves of an error;
taken as the logarithm of the plan's own entries it also has no rounding that they do not share.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from sinkdiv.derivatives.accuracy import least_residual
from sinkdiv.derivatives.linear_systems import LinearSystems
from sinkdiv.solvers import Problem, Solution
from sinkdiv.transforms import Partials, full_precision


class _Multipliers(NamedTuple):
    """σ (B, n) and τ (B, m)."""

    rows: Tensor
    columns: Tensor


class SharpValue:
    """<P, C> of a solved problem, and, if all weights are positive, its derivatives at the inputs that were solved."""

    def __init__(self, problem: Problem, solution: Solution, tol: float) -> None:
        wanted = max(tol, least_residual(problem.a.dtype))
        self._at = LinearSystems(problem, solution, wanted, one_sided=problem.symmetric)
        self._geometry = problem.geometry

    def partials(self, wanted: tuple[bool, ...]) -> Partials:
        """The derivatives with respect to (a, b, *costs), None where not wanted."""
        multipliers = self._multipliers()
        grad_a = self._weight_partial(multipliers, 0) if wanted[0] else None
        grad_b = self._weight_partial(multipliers, 1) if wanted[1] else None
        return grad_a, grad_b, *self._cost_partials(multipliers, wanted[2:])

    def _multipliers(self) -> _Multipliers:
        at = self._at
        with full_precision(at.f):
            right_rows, right_columns = self._right_hand_sides()
            if at.one_sided:
                s = at.both(right_rows)
                return _Multipliers(s, s)
            eliminated = at.product(at.relative(right_rows), 1)
            terms = right_columns.abs() + at.eps * at.plan.marginals[1]
            columns = at.columns(right_columns - eliminated, terms)
            return _Multipliers(at.rows(right_rows, columns), columns)

    def _right_hand_sides(self) -> tuple[Tensor, Tensor]:
        """(P∘R)1 and (P∘R)ᵀ1, less what f and g leave of themselves where marginals are soft."""
        at, (log_a, log_b) = self._at, self._at.problem.log_weights
        densities = self._geometry.weighted_marginals(*at.plan.logarithms, -log_a, -log_b)
        rows, columns = (
            -at.eps * density - (at.stiffness(side) - 1) * marginal * potential
            for side, (density, marginal, potential) in enumerate(
                zip(densities, at.plan.marginals, (at.f, at.g), strict=True)
            )
        )
        return rows, columns

    def _weight_partial(self, multipliers: _Multipliers, side: int) -> Tensor:
        at = self._at
        weights, potential = ((at.problem.a, at.f), (at.problem.b, at.g))[side]
        return at.stiffness(side) * at.plan.marginals[side] / weights * (potential + multipliers[side])

    def _cost_partials(self, multipliers: _Multipliers, wanted: tuple[bool, ...]) -> Partials:
        geometry, at, (log_a, log_b) = self._geometry, self._at, self._at.problem.log_weights
        if at.one_sided:
            # Half of the 1 for each side, so that the factors of both sides are the same.
            factor = 0.5 + multipliers.rows / at.eps - log_a
            factors = factor, factor
        else:
            factors = 1 + multipliers.rows / at.eps - log_a, multipliers.columns / at.eps - log_b
        return geometry.weighted_gradients(*at.plan.logarithms, *factors, wanted)
