"""What costs have in common whose pairs are visited one by one: all reductions are kernels over the pairs."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from sinkdiv.geometry.protocol import Dense, Geometry, RoundedPlan, Whole
from sinkdiv.geometry.whole import Operand, engine
from sinkdiv.kernels import Reductions


class PairwiseGeometry(Geometry):
    """A geometry that visits its pairs; a subclass says by which kernels."""

    _like: Tensor
    """A tensor of the dtype and on the device of the costs."""

    @abstractmethod
    def reductions(self, side: int) -> Reductions:
        """The kernels over the pairs of C (side 0) or of Cᵀ (side 1)."""

    @abstractmethod
    def native_operand(self) -> Operand | None:
        """The problem as the native solver of small problems takes it, or None if it does not know this cost."""

    @abstractmethod
    def part(self, which: Tensor) -> PairwiseGeometry:
        """The geometry of the problems of the batch that are marked in ``which`` (B,)."""

    def softmin(self, h: Tensor, eps: Tensor, side: int, near: Tensor | None = None) -> Tensor:
        return self.reductions(side).softmin(h, eps, near)

    def ctransform(self, g: Tensor, side: int) -> Tensor:
        return self.reductions(side).ctransform(g)

    def plan_product(self, u: Tensor, h: Tensor, eps: Tensor, v: Tensor, side: int) -> Tensor:
        own, other = (u, h) if side == 0 else (h, u)
        return self.reductions(side).plan_product(own, other, eps, v)

    def cost_product(self, u: Tensor, h: Tensor, eps: Tensor, v: Tensor, side: int) -> Tensor:
        own, other = (u, h) if side == 0 else (h, u)
        return self.reductions(side).cost_product(own, other, eps, v)

    def plan_cost(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor:
        return self.reductions(0).plan_cost(u, h, eps)

    def marginals(self, u: Tensor, h: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """One pass for both."""
        return self.reductions(0).marginals(u, h, eps)

    def weighted_marginals(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """One pass for both."""
        return self.reductions(0).weighted_marginals(u, h, eps, s, t)

    def energy(self, plan: RoundedPlan) -> Tensor:
        """The sum itself: one pass."""
        return self.reductions(0).corrected_primal(plan.a, plan.b, plan.u, plan.h, plan.eps, plan.p, plan.q)

    @property
    def dense(self) -> Dense:
        return self

    def costs(self) -> Tensor:
        """C, (B, n, m)."""
        return self.reductions(0).costs()

    def plan_matrix(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor:
        """P, (B, n, m)."""
        return self.reductions(0).plan_matrix(u, h, eps)

    @property
    def whole(self) -> Whole | None:
        return engine(self, self._like)
