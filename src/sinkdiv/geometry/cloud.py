"""A cost between points, streamed: memory O(n + m) however many pairs there are."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sinkdiv.costs import Cost
from sinkdiv.geometry.protocol import Geometry
from sinkdiv.kernels import reference

#: A cost matrix of at most this many entries is formed once and kept: a mini-batch pays for its distances once.
KEPT_ENTRIES = 2**22


class CloudGeometry(Geometry):
    """Costs c(x_i, y_j) of points x (B, n, d) and y (B, m, d). The tensors its cost is made of are x and y."""

    def __init__(self, x: Tensor, y: Tensor, cost: Cost, *, center: Tensor | None = None) -> None:
        """``center`` (B, 1, d) is subtracted from all points (the mean of y if omitted).

        Costs depend on differences only, and coordinates near zero lose fewer digits in them.
        """
        self.cost = cost
        self.symmetric = y is x
        self.center = y.detach().mean(1, keepdim=True) if center is None else center
        self.x = x.detach() - self.center
        self.y = self.x if self.symmetric else y.detach() - self.center
        self.shape = (x.shape[0], x.shape[1], y.shape[1])
        self.dtype, self.device = x.dtype, x.device
        self._kept: Tensor | None = None

    def tiles(self, side: int) -> Iterator[reference.Tile]:
        batch, n, m = self.shape
        if batch * n * m <= KEPT_ENTRIES:
            if self._kept is None:
                self._kept = self.cost.matrix(self.x, self.y)
            return reference.matrix_tiles(self._kept if side == 0 else self._kept.mT)
        x, y = self._sides(side)
        return reference.cloud_tiles(x, y, self.cost)

    def spread(self) -> Tensor:
        points = torch.cat([self.x, self.y], 1)
        extent = points.amax(1) - points.amin(1)
        return extent.square().sum(-1).pow(self.cost.exponent / 2)

    def gradients(self, u: Tensor, h: Tensor, eps: Tensor, wanted: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        def gradient(side: int) -> Tensor:
            x, y = self._sides(side)
            own, other = (u, h) if side == 0 else (h, u)
            return reference.plan_gradient(self.tiles(side), own, other, eps, x, y, self.cost)

        grad_x = gradient(0) if wanted[0] else None
        if self.symmetric and u is h and grad_x is not None:
            return grad_x, grad_x
        return grad_x, gradient(1) if wanted[1] else None

    def to(self, dtype: torch.dtype) -> CloudGeometry:
        # float32 coordinates are exact in float64, so the original points are recovered to their last place.
        center = self.center.to(dtype)
        x = self.x.to(dtype)
        return CloudGeometry(x, x if self.symmetric else self.y.to(dtype), self.cost, center=torch.zeros_like(center))

    def at(self, points: Tensor, side: int) -> CloudGeometry:
        """The geometry whose rows are new points (B, k, d) and whose columns are y (side 0) or x (side 1)."""
        _, columns = self._sides(side)
        return CloudGeometry(points.detach() - self.center, columns, self.cost, center=torch.zeros_like(self.center))

    def _sides(self, side: int) -> tuple[Tensor, Tensor]:
        return (self.x, self.y) if side == 0 else (self.y, self.x)
