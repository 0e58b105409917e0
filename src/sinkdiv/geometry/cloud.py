"""A cost between points, streamed: memory O(n + m) however many pairs there are."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from sinkdiv.costs import Cost
from sinkdiv.geometry.protocol import Geometry
from sinkdiv.kernels import PointReductions, Reductions, forms_fast, native, of_matrix, of_points

#: A cost matrix of at most this many entries is formed once and kept, where forming it again would cost more.
KEPT_ENTRIES = 2**22


class CloudGeometry(Geometry):
    """Costs c(x_i, y_j) of points x (B, n, d) and y (B, m, d). The tensors its cost is made of are x and y."""

    def __init__(
        self, x: Tensor, y: Tensor, cost: Cost, *, center: Tensor | None = None,
        counts: tuple[Tensor, Tensor] | None = None, precision: str = "high",
    ) -> None:  # fmt: skip
        """``center`` (B, 1, d) is subtracted from all points (the mean of y if omitted).

        Costs depend on differences only, and coordinates near zero lose fewer digits in them.

        ``counts``, each (B,), tells how many of the rows and columns are a problem's own; those behind are without
        weight and need not be looked at. ``precision`` is one of `sinkdiv.kernels.PRECISIONS`.
        """
        self.counts, self.precision = counts, precision
        self.cost = cost
        self.symmetric = y is x
        self._given = x.detach(), x.detach() if self.symmetric else y.detach()
        self._given_center = center
        # Nothing of the caller's is kept: the points may move in place before somebody asks for a bound or a map.
        if native.serves(x) and native.knows(cost) and x.shape[-1] <= native.EXACT_DIMENSION:
            own = self._given[0].clone()
            self._given = own, own if self.symmetric else self._given[1].clone()  # centred when that is asked for
        else:
            self._given = self.x, self.y
        self.shape = (x.shape[0], x.shape[1], y.shape[1])
        self.dtype, self.device = x.dtype, x.device
        self._point_pairs: dict[int, PointReductions] = {}
        self._kept_pairs: dict[int, Reductions] = {}

    @cached_property
    def center(self) -> Tensor:
        """What was subtracted from the points, (B, 1, d)."""
        return self._given[1].mean(1, keepdim=True) if self._given_center is None else self._given_center

    @cached_property
    def x(self) -> Tensor:
        """The centred rows' points (B, n, d)."""
        return self._given[0] - self.center

    @cached_property
    def y(self) -> Tensor:
        """The centred columns' points (B, m, d)."""
        return self.x if self.symmetric else self._given[1] - self.center

    def pairs(self, side: int) -> Reductions:
        batch, n, m = self.shape
        if forms_fast(self._given[0], self.cost) or batch * n * m > KEPT_ENTRIES:
            return self._of_points(side)
        if not self._kept_pairs:
            C = self._of_points(0).costs()
            self._kept_pairs = {0: of_matrix(C), 1: of_matrix(C.mT)}
        return self._kept_pairs[side]

    def native_reductions(self) -> native.AnyReductions | None:
        return self._native

    @cached_property
    def _native(self) -> native.AnyReductions | None:
        x, y = self._given  # centred or not: a small problem of low dimension need not pay for it
        return native.PointReductions(x, y, self.cost) if native.serves(x) and native.knows(self.cost) else None

    def _of_points(self, side: int) -> PointReductions:
        if not self._point_pairs:
            pairs = of_points(self.x, self.y, self.cost, precision=self.precision, counts=self.counts)
            self._point_pairs = {0: pairs, 1: pairs if self.symmetric else pairs.swapped()}
        return self._point_pairs[side]

    def spread(self) -> Tensor:
        return self._spread

    @cached_property
    def _spread(self) -> Tensor:
        points = torch.cat([self.x, self.y], 1)
        extent = points.amax(1) - points.amin(1)
        return extent.square().sum(-1).pow(self.cost.exponent / 2)

    def gradients(self, u: Tensor, h: Tensor, eps: Tensor, wanted: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        def gradient(side: int) -> Tensor:
            own, other = (u, h) if side == 0 else (h, u)
            return self._of_points(side).plan_gradient(own, other, eps)

        grad_x = gradient(0) if wanted[0] else None
        if self.symmetric and u is h and grad_x is not None:
            return grad_x, grad_x
        return grad_x, gradient(1) if wanted[1] else None

    def weighted_gradient(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor, side: int) -> Tensor:
        """Σ_j P_ij (s_i + t_j + log P_ij) ∂c(x_i, y_j)/∂x_i, (B, n, d): one pass. ``s`` belongs to the rows, as ``u``.

        On side 1 the sum is over the rows, with ∂c(x_i, y_j)/∂y_j, (B, m, d).
        """
        (u, h), (s, t) = ((u, h), (s, t)) if side == 0 else ((h, u), (t, s))
        return self._of_points(side).weighted_gradient(u, h, eps, s, t)

    def tangent_marginals(self, u: Tensor, h: Tensor, eps: Tensor, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_j P_ij Ċ_ij, (B, n), and Σ_i P_ij Ċ_ij, (B, m), as x moves along dx and y along dy: one pass for both."""
        return self._of_points(0).tangent_marginals(u, h, eps, dx, dy)

    def gradient_tangent(
        self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor, dx: Tensor, dy: Tensor, side: int
    ) -> Tensor:
        """The derivative of one of the `gradients` as u, h, x and y move along s, t, dx and dy: one pass.

        Of that in x, (B, n, d), or on side 1 of that in y, (B, m, d).
        """
        (u, h), (s, t), (dx, dy) = ((u, h), (s, t), (dx, dy)) if side == 0 else ((h, u), (t, s), (dy, dx))
        return self._of_points(side).gradient_tangent(u, h, eps, s, t, dx, dy)

    def to(self, dtype: torch.dtype) -> CloudGeometry:
        # float32 coordinates are exact in float64, so the original points are recovered to their last place.
        center = self.center.to(dtype)
        x = self.x.to(dtype)
        return CloudGeometry(x, x if self.symmetric else self.y.to(dtype), self.cost, center=torch.zeros_like(center))

    def at(self, points: Tensor, side: int) -> CloudGeometry:
        """The geometry whose rows are new points (B, k, d) and whose columns are y (side 0) or x (side 1)."""
        _, columns = self._sides(side)
        points, center = points.detach() - self.center, torch.zeros_like(self.center)
        return CloudGeometry(points, columns, self.cost, center=center, precision=self.precision)

    def resembles(self, other: CloudGeometry) -> bool:
        """Whether the other's points could be these: as many problems, of one dimension, dtype, device and cost."""
        mine, others = ((g.shape[0], g._given[0].shape[-1], g.dtype, g.device, g.cost.exponent) for g in (self, other))
        return mine == others

    def _sides(self, side: int) -> tuple[Tensor, Tensor]:
        return (self.x, self.y) if side == 0 else (self.y, self.x)
