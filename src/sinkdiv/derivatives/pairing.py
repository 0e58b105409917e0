"""The reductions over pairs that values, plans and potentials are made of, as functions that can be differentiated.

They say the same as `sinkdiv.kernels.reference`, of tensors with a graph: weights are factors here, not logarithms, so
that a weight of zero has a derivative. ``costs`` are the tensors that the cost is made of, (x, y) or (C,).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from sinkdiv.costs import Cost
from sinkdiv.derivatives.softmin import PointSoftmin
from sinkdiv.derivatives.streamed import Reduction, Tensors

#: Beyond every density of a plan whose weights are normal numbers; exp of it is finite in float32.
LARGEST_EXPONENT = 80.0


class Pairing(ABC):
    """A kind of cost and an ε: reductions over the pairs of (B, n, m) problems. Side 1 is the transposed problem."""

    def __init__(self, eps: float) -> None:
        self.eps = eps

    @abstractmethod
    def operands(self, costs: Tensors, side: int) -> tuple[Tensors, Tensors]:
        """What a tile's costs are made of: tensors (B, n, ...) that are cut into rows, and tensors given whole."""

    @abstractmethod
    def tile(self, operands: Tensors, side: int) -> Tensor:
        """The costs (B, r, m) of a tile, from its operands."""

    @abstractmethod
    def width(self, costs: Tensors, side: int) -> int:
        """How many numbers a tile holds for one row of one problem."""

    def softmin(self, potential: Tensor, weights: Tensor, costs: Tensors, side: int) -> Tensor:
        """−ε log Σ_j b_j exp((g_j − C_ij)/ε), (B, n), of the other side's potential and weights (B, m)."""

        def function(C: Tensor, potential: Tensor, weights: Tensor) -> Tensors:
            scores = (potential[:, None, :] - C) / self.eps
            top = scores.detach().masked_fill(weights.detach()[:, None, :] == 0, -torch.inf).amax(-1, keepdim=True)
            top = top.clamp(min=torch.finfo(top.dtype).min)
            total = (weights[:, None, :] * self._exp(scores - top)).sum(-1)
            return (-self.eps * (top.squeeze(-1) + total.log()),)

        return self._reduce(function, (), (potential, weights), costs, side)

    def kernel_softmin(
        self, potential: Tensor, weights: Tensor, costs: Tensors, side: int, *, positive: bool
    ) -> Tensor:
        """The same by the kernels, where they serve: faster, but it does not share the rounding of `product`.

        Where all weights are known to be ``positive`` its derivative is by the kernels too.
        """
        return self.softmin(potential, weights, costs, side)

    def product(self, f: Tensor, g: Tensor, left: Tensor, right: Tensor, costs: Tensors, side: int) -> Tensor:
        """left_i Σ_j exp((f_i + g_j − C_ij)/ε) right_jk, (B, n, k), for left (B, n) and right (B, m, k)."""

        def function(C: Tensor, f: Tensor, left: Tensor, g: Tensor, right: Tensor) -> Tensors:
            return (left[:, :, None] * (self._density(C, f, g) @ right),)

        return self._reduce(function, (f, left), (g, right), costs, side)

    def plan_cost(self, f: Tensor, g: Tensor, a: Tensor, b: Tensor, costs: Tensors) -> Tensor:
        """<P, C>, (B,)."""

        def function(C: Tensor, f: Tensor, a: Tensor, g: Tensor, b: Tensor) -> Tensors:
            finite = C.masked_fill(C.detach() == torch.inf, 0.0)
            return ((a * ((self._density(C, f, g) * finite) @ b[:, :, None]).squeeze(-1)),)

        return self._reduce(function, (f, a), (g, b), costs, side=0).sum(-1)

    def plan(self, f: Tensor, g: Tensor, a: Tensor, b: Tensor, costs: Tensors) -> Tensor:
        """P itself, (B, n, m): memory O(nm)."""

        def function(C: Tensor, f: Tensor, a: Tensor, g: Tensor, b: Tensor) -> Tensors:
            return (a[:, :, None] * self._density(C, f, g) * b[:, None, :],)

        return self._reduce(function, (f, a), (g, b), costs, side=0)

    def _density(self, C: Tensor, f: Tensor, g: Tensor) -> Tensor:
        """P_ij / (a_i b_j), (B, r, m)."""
        return self._exp((f[:, :, None] + g[:, None, :] - C) / self.eps)

    def _exp(self, exponents: Tensor) -> Tensor:
        """exp, kept finite: only between two points of weight zero could it be anything else."""
        return exponents.clamp(max=LARGEST_EXPONENT).exp()

    def _reduce(
        self, function: Callable[..., Tensors], rows: Tensors, shared: Tensors, costs: Tensors, side: int
    ) -> Tensor:
        cost_rows, cost_shared = self.operands(costs, side)
        first, last = len(cost_rows), len(cost_rows) + len(rows)

        def of_tile(*inputs: Tensor) -> Tensors:
            cut, own, whole = inputs[:first], inputs[first:last], inputs[last:]
            C = self.tile((*cut, *whole[: len(cost_shared)]), side)
            return function(C, *own, *whole[len(cost_shared) :])

        reduction = Reduction(of_tile, last, 1, self.width(costs, side))
        (result,) = reduction(*cost_rows, *rows, *cost_shared, *shared)
        return result


class CloudPairing(Pairing):
    """Costs between points x (B, n, d) and y (B, m, d)."""

    def __init__(self, eps: float, cost: Cost) -> None:
        super().__init__(eps)
        self.cost = cost

    def kernel_softmin(
        self, potential: Tensor, weights: Tensor, costs: Tensors, side: int, *, positive: bool
    ) -> Tensor:
        def composed(potential: Tensor, weights: Tensor, own: Tensor, other: Tensor) -> Tensor:
            points = (own, other) if side == 0 else (other, own)
            return self.softmin(potential, weights, points, side)

        own, other = costs if side == 0 else reversed(costs)
        return PointSoftmin(self.cost, self.eps, composed, positive=positive)(potential, weights, own, other)

    def operands(self, costs: Tensors, side: int) -> tuple[Tensors, Tensors]:
        x, y = costs
        return ((x,), (y,)) if side == 0 else ((y,), (x,))

    def tile(self, operands: Tensors, side: int) -> Tensor:
        own, other = operands
        return self.cost.smooth_matrix(own, other)

    def width(self, costs: Tensors, side: int) -> int:
        other = costs[1 - side]
        return other.shape[1] * self.cost.depth(other.shape[2])


class MatrixPairing(Pairing):
    """Costs C (B, n, m)."""

    def operands(self, costs: Tensors, side: int) -> tuple[Tensors, Tensors]:
        (C,) = costs
        return (C if side == 0 else C.mT,), ()

    def tile(self, operands: Tensors, side: int) -> Tensor:
        (C,) = operands
        return C

    def width(self, costs: Tensors, side: int) -> int:
        return int(costs[0].shape[2 - side])


def pairing_of(cost: Cost | None, eps: float) -> Pairing:
    """The pairing of points under a cost, or of a matrix."""
    return MatrixPairing(eps) if cost is None else CloudPairing(eps, cost)
