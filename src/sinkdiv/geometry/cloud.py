"""A cost between points, streamed: memory O(n + m) however many pairs there are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from sinkdiv.costs import Cost
from sinkdiv.geometry.differentiable import DifferentiableReductions, OfPoints
from sinkdiv.geometry.padding import stacked
from sinkdiv.geometry.pairwise import PairwiseGeometry
from sinkdiv.geometry.protocol import Geometry, Points
from sinkdiv.geometry.whole import Operand
from sinkdiv.kernels import PointReductions, Reductions, forms_fast, native, of_matrix, of_points
from sinkdiv.measures import center_of

#: A cost matrix of at most this many entries is formed once and kept, where forming it again would cost more.
KEPT_ENTRIES = 2**22


class CloudGeometry(PairwiseGeometry):
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
        self._like = self._given[0]
        self.shape = (x.shape[0], x.shape[1], y.shape[1])
        self.dtype, self.device = x.dtype, x.device
        self._point_reductions: dict[int, PointReductions] = {}
        self._kept_reductions: dict[int, Reductions] = {}

    @cached_property
    def center(self) -> Tensor:
        """What was subtracted from the points, (B, 1, d)."""
        return center_of(self._given[1]) if self._given_center is None else self._given_center

    @cached_property
    def x(self) -> Tensor:
        """The centred rows' points (B, n, d)."""
        return self._given[0] - self.center

    @cached_property
    def y(self) -> Tensor:
        """The centred columns' points (B, m, d)."""
        return self.x if self.symmetric else self._given[1] - self.center

    def reductions(self, side: int) -> Reductions:
        batch, n, m = self.shape
        if forms_fast(self._given[0], self.cost) or batch * n * m > KEPT_ENTRIES:
            return self._of_points(side)
        if not self._kept_reductions:
            C = self._of_points(0).costs()
            self._kept_reductions = {0: of_matrix(C), 1: of_matrix(C.mT)}
        return self._kept_reductions[side]

    def native_operand(self) -> Operand | None:
        return self._native_operand

    @cached_property
    def _native_operand(self) -> Operand | None:
        x, y = self._given  # centred or not: a small problem of low dimension need not pay for it
        return native.PointReductions(x, y, self.cost) if native.serves(x) and native.knows(self.cost) else None

    def _of_points(self, side: int) -> PointReductions:
        if not self._point_reductions:
            own = of_points(self.x, self.y, self.cost, precision=self.precision, counts=self.counts)
            self._point_reductions = {0: own, 1: own if self.symmetric else own.swapped()}
        return self._point_reductions[side]

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

    def weighted_gradients(
        self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor, wanted: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        def gradient(side: int) -> Tensor:
            plan, factors = ((u, h), (s, t)) if side == 0 else ((h, u), (t, s))
            return self._of_points(side).weighted_gradient(*plan, eps, *factors)

        grad_x = gradient(0) if wanted[0] else None
        if self.symmetric and u is h and s is t and grad_x is not None:
            return grad_x, grad_x
        return grad_x, gradient(1) if wanted[1] else None

    def differentiable(self, eps: Tensor) -> DifferentiableReductions:
        return OfPoints(eps, self.cost, self.center)

    @property
    def points(self) -> Points:
        return self

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

    def exact(self) -> CloudGeometry:
        # float32 coordinates are exact in float64, so the original points are recovered to their last place.
        return self._with(self.x.double(), self.y.double())

    def part(self, which: Tensor) -> CloudGeometry:
        return self._with(self.x[which], self.y[which])

    def at(self, points: Tensor, side: int) -> CloudGeometry:
        """The geometry whose rows are new points (B, k, d) and whose columns are y (side 0) or x (side 1)."""
        _, columns = self._sides(side)
        points, center = points.detach() - self.center, torch.zeros_like(self.center)
        return CloudGeometry(points, columns, self.cost, center=center, precision=self.precision)

    def resembles(self, other: Points) -> bool:
        """Whether the other's points could be these: as many problems, of one dimension, dtype, device and cost."""
        return isinstance(other, CloudGeometry) and self._likeness == other._likeness

    @property
    def batch_kind(self) -> object:
        return self._likeness[1:], self.precision, self.symmetric

    def joined(self, others: Sequence[Geometry]) -> CloudGeometry:
        """What is padded are copies of a problem's own first point: the spread of the costs stays what it was."""
        clouds = [self, *(other for other in others if isinstance(other, CloudGeometry))]
        counts = tuple(
            # Made on the device: a copy from the host would wait for it.
            torch.cat([self._like.new_full(cloud.shape[:1], cloud.shape[side], dtype=torch.int32) for cloud in clouds])
            for side in (1, 2)
        )
        x = stacked([cloud.x for cloud in clouds], repeat=True)
        y = x if self.symmetric else stacked([cloud.y for cloud in clouds], repeat=True)
        center = torch.zeros_like(x[:, :1])  # the points are centred, each problem's at its own
        return CloudGeometry(x, y, self.cost, center=center, counts=(counts[0], counts[1]), precision=self.precision)

    @property
    def _likeness(self) -> tuple[object, ...]:
        return self.shape[0], self._given[0].shape[-1], self.dtype, self.device, self.cost.exponent

    def _with(self, x: Tensor, y: Tensor) -> CloudGeometry:
        """The same between other points, which are centred already."""
        center = torch.zeros_like(x[:, :1])
        return CloudGeometry(x, x if self.symmetric else y, self.cost, center=center, precision=self.precision)

    def _sides(self, side: int) -> tuple[Tensor, Tensor]:
        return (self.x, self.y) if side == 0 else (self.y, self.x)
