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
from sinkdiv.solvers.hessian import STORED_ENTRIES, SemiDualHessian

#: More than ever needed where both sides are one.
MAX_SYMMETRIC_PRODUCTS = 200


class Linearised:
    """The plan of a problem whose weights are all positive, its marginals, products with it, and its linear systems.

    ``one_sided`` says that both sides are one and move as one; the plan is then the symmetric one of f = g. Otherwise
    its rows are exact.
    """

    def __init__(self, problem: Problem, solution: Solution, wanted: float, *, one_sided: bool) -> None:
        self.problem, self.eps, self.one_sided, self._wanted = problem, problem.eps_column(), one_sided, wanted
        self.f, self.g, self.raw_f, self.raw_g = solution.f, solution.g, solution.raw_f, solution.raw_g
        if problem.symmetric and not one_sided:
            self.f = problem.damped(self.raw_f, self.eps, side=0)
            self.raw_g = problem.raw_potential(self.f, self.eps, side=1)

    @cached_property
    def logarithms(self) -> tuple[Tensor, Tensor, Tensor]:
        """(u, h, ε) of `sinkdiv.kernels.reference`."""
        log_a, log_b = self.problem.log_weights
        u = log_a + self.f / self.eps
        return u, u if self.one_sided else log_b + self.g / self.eps, self.eps

    def marginal(self, side: int) -> Tensor:
        """r (B, n), or c (B, m)."""
        potential, raw = ((self.f, self.raw_f), (self.g, self.raw_g))[side]
        return self.problem.marginal(potential, raw, self.eps, side)

    def product(self, v: Tensor, side: int) -> Tensor:
        """P v (B, n) for v (B, m), or Pᵀ v."""
        columns = v[:, :, None]
        if self._stored is not None:
            product: Tensor = self._stored @ columns if side == 0 else self._stored.mT @ columns
        else:
            product = self.problem.geometry.plan_product(*self.logarithms, columns, side)
        return product.squeeze(-1)

    def stiffness(self, side: int) -> float:
        """k of a side."""
        return 1 + self.problem.eps / self.problem.rho[side]

    def rows(self, right: Tensor, columns: Tensor) -> Tensor:
        """s_u (B, n), given its right-hand side and s_v (B, m)."""
        return (right - self.product(columns, 0)) / (self.stiffness(0) * self.marginal(0))

    def columns(self, right: Tensor, terms: Tensor, start: Tensor | None = None) -> Tensor:
        """s_v (B, m) with D s_v = right, which is a sum of terms of the size of ``terms`` (B, m).

        The tolerance is relative to what is left of ``right`` beside ``start``, but for the rounding of the terms.
        """
        reduced = right[:, :, None]
        if start is not None:
            reduced = reduced - self._hessian.product(start[:, :, None])
        solved = self._hessian.solve(
            reduced, self._wanted, shift=self._hessian.rounding, terms=terms[:, :, None]
        )  # fmt: skip
        report(solved.residual, self._wanted)
        s = solved.s.squeeze(-1)
        return s if start is None else start + s

    def both(self, right: Tensor, start: Tensor | None = None) -> Tensor:
        """s (B, n) with (k diag r + P) s = right, where both sides are one."""
        root = self.marginal(0).sqrt()

        def apply(t: Tensor) -> Tensor:
            return self.stiffness(0) * t + (self.product(t.squeeze(-1) / root, 0) / root)[:, :, None]

        terms = (right / root)[:, :, None]
        scaled = terms if start is None else terms - apply((start * root)[:, :, None])
        least = self._hessian.rounding[:, None, None] * terms.norm(dim=1, keepdim=True)
        least = least.clamp(min=torch.finfo(terms.dtype).tiny)
        enough = torch.maximum(self._wanted * scaled.norm(dim=1, keepdim=True), least)
        t, _ = conjugate_gradients(apply, scaled, enough, MAX_SYMMETRIC_PRODUCTS)
        report(self._wanted * (scaled - apply(t)).norm(dim=1, keepdim=True) / enough, self._wanted)
        s = t.squeeze(-1) / root
        return s if start is None else start + s

    @cached_property
    def _stored(self) -> Tensor | None:
        """P itself, where it is small enough to be kept."""
        batch, n, m = self.problem.geometry.shape
        stores = batch * n * m <= STORED_ENTRIES
        return self.problem.geometry.plan_matrix(*self.logarithms) if stores else None

    @cached_property
    def _hessian(self) -> SemiDualHessian:
        return SemiDualHessian(self.problem, self.g, self.raw_f, self.raw_g)
