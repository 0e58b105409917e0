"""The differentiable reductions of costs whose pairs are visited one by one: tiles of rows, formed anew each time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from sinkdiv.costs import Cost
from sinkdiv.geometry.differentiable.reductions import LARGEST_EXPONENT, DifferentiableReductions
from sinkdiv.geometry.differentiable.softmin import PointSoftmin
from sinkdiv.kernels.streamed import Reduction
from sinkdiv.transforms import Tensors


class TiledReductions(DifferentiableReductions):
    """Reductions tile by tile; a kind of cost says what a tile is made of."""

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
        def function(C: Tensor, potential: Tensor, weights: Tensor) -> Tensors:
            scores = (potential[:, None, :] - C) / self.eps[:, :, None]
            top = scores.detach().masked_fill(weights.detach()[:, None, :] == 0, -torch.inf).amax(-1, keepdim=True)
            top = top.clamp(min=torch.finfo(top.dtype).min)
            total = (weights[:, None, :] * self._exp(scores - top)).sum(-1)
            return (-self.eps * (top.squeeze(-1) + total.log()),)

        return self._reduce(function, (), (potential, weights), costs, side)

    def product(self, f: Tensor, g: Tensor, left: Tensor, right: Tensor, costs: Tensors, side: int) -> Tensor:
        def function(C: Tensor, f: Tensor, left: Tensor, g: Tensor, right: Tensor) -> Tensors:
            return (left[:, :, None] * (self._density(C, f, g) @ right),)

        return self._reduce(function, (f, left), (g, right), costs, side)

    def plan_cost(self, f: Tensor, g: Tensor, a: Tensor, b: Tensor, costs: Tensors) -> Tensor:
        def function(C: Tensor, f: Tensor, a: Tensor, g: Tensor, b: Tensor) -> Tensors:
            finite = C.masked_fill(C.detach() == torch.inf, 0.0)
            return ((a * ((self._density(C, f, g) * finite) @ b[:, :, None]).squeeze(-1)),)

        return self._reduce(function, (f, a), (g, b), costs, side=0).sum(-1)

    def plan(self, f: Tensor, g: Tensor, a: Tensor, b: Tensor, costs: Tensors) -> Tensor:
        def function(C: Tensor, f: Tensor, a: Tensor, g: Tensor, b: Tensor) -> Tensors:
            return (a[:, :, None] * self._density(C, f, g) * b[:, None, :],)

        return self._reduce(function, (f, a), (g, b), costs, side=0)

    def _density(self, C: Tensor, f: Tensor, g: Tensor) -> Tensor:
        """P_ij / (a_i b_j), (B, r, m)."""
        return self._exp((f[:, :, None] + g[:, None, :] - C) / self.eps[:, :, None])

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


class OfPoints(TiledReductions):
    """Costs between points x (B, n, d) and y (B, m, d), from which ``center`` (B, 1, d) is subtracted."""

    def __init__(self, eps: Tensor, cost: Cost, center: Tensor) -> None:
        super().__init__(eps)
        self.cost, self._center = cost, center

    def centred(self, costs: Tensors) -> Tensors:
        return tuple(points - self._center for points in costs)

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


class OfMatrix(TiledReductions):
    """Costs C (B, n, m)."""

    def operands(self, costs: Tensors, side: int) -> tuple[Tensors, Tensors]:
        (C,) = costs
        return (C if side == 0 else C.mT,), ()

    def tile(self, operands: Tensors, side: int) -> Tensor:
        (C,) = operands
        return C

    def width(self, costs: Tensors, side: int) -> int:
        return int(costs[0].shape[2 - side])
