"""A solved problem in numbers, and the linear systems that say how its potentials move.

With r and c the plan's *actual* marginals and k = 1 + ε/ρ (1 where they are hard), changes of the potentials solve

    [k₁ diag r, P; Pᵀ, k₂ diag c] [s_u; s_v] = right-hand side.

Eliminating s_u leaves D (`sinkdiv.solvers.hessian`). Where both sides are one, s_u = s_v and k diag r + P alone is to
be inverted: its spectrum relative to r lies in [k, k+1], so that a few products are enough.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from sinkdiv.derivatives.accuracy import report
from sinkdiv.solvers import Problem, Solution
from sinkdiv.solvers.conjugate_gradients import conjugate_gradients
from sinkdiv.solvers.hessian import Plan, SemiDualHessian

#: More than ever needed where both sides are one.
MAX_SYMMETRIC_PRODUCTS = 200


class LinearSystems:
    """The plan of a problem whose weights are all positive, its marginals, products with it, and its linear systems.

    ``one_sided`` says that both sides are one and move as one; the plan is then the symmetric one of f = g. Otherwise
    its rows are exact.
    """

    def __init__(self, problem: Problem, solution: Solution, wanted: float, *, one_sided: bool) -> None:
        self.problem, self.eps, self.one_sided, self._wanted = problem, problem.eps_column(), one_sided, wanted
        self.f, self.g, self._raw_f = solution.f, solution.g, solution.raw_f
        if problem.symmetric and not one_sided:
            self.f = problem.damped(solution.raw_f, self.eps, side=0)

    @cached_property
    def plan(self) -> Plan:
        """The plan."""
        if not self.one_sided:
            return self._hessian.plan
        u = self.problem.log_weights[0] + self.f / self.eps
        return Plan(self.problem.geometry, u, u, self.eps)

    def product(self, v: Tensor, side: int) -> Tensor:
        """P v (B, n) for v (B, m), or Pᵀ v."""
        return self.plan.product(v[:, :, None], side).squeeze(-1)

    def stiffness(self, side: int) -> Tensor:
        """k of a side, (B, 1)."""
        return 1 + self.eps / self.problem.rho[side]

    def rows(self, right: Tensor, columns: Tensor) -> Tensor:
        """s_u (B, n), given its right-hand side and s_v (B, m)."""
        return self.relative(right - self.product(columns, 0))

    def relative(self, rows: Tensor) -> Tensor:
        """rows/(k₁ r), (B, n); 0 where soft marginals leave a row without mass."""
        stiff = self.stiffness(0) * self.plan.marginals[0]
        return torch.where(stiff > 0, rows / stiff, 0.0)

    def columns(self, right: Tensor, terms: Tensor) -> Tensor:
        """s_v (B, m) with D s_v = right, which is a sum of terms of the size of ``terms`` (B, m)."""
        solved = self._hessian.solve(
            right[:, :, None], self._wanted, shift=self._hessian.rounding, terms=terms[:, :, None]
        )  # fmt: skip
        report(solved.residual, self._wanted)
        return solved.s.squeeze(-1)

    def both(self, right: Tensor) -> Tensor:
        """s (B, n) with (k diag r + P) s = right, where both sides are one."""
        sums = self.plan.marginals[0]
        inverse_root = torch.where(sums > 0, sums.rsqrt(), 0.0)[:, :, None]

        def apply(t: Tensor) -> Tensor:
            return self.stiffness(0)[:, :, None] * t + inverse_root * self.plan.product(inverse_root * t, 0)

        scaled = inverse_root * right[:, :, None]
        enough = (self._wanted * scaled.norm(dim=1, keepdim=True)).clamp(min=torch.finfo(right.dtype).tiny)
        t, _ = conjugate_gradients(apply, scaled, enough, MAX_SYMMETRIC_PRODUCTS)
        report(self._wanted * (scaled - apply(t)).norm(dim=1, keepdim=True) / enough, self._wanted)
        return (inverse_root * t).squeeze(-1)

    @cached_property
    def _hessian(self) -> SemiDualHessian:
        return SemiDualHessian(self.problem, self.g, self._raw_f)
