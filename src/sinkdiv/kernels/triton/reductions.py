"""The operations of `sinkdiv.kernels.reference`, each in one launch, or in two where the columns are cut into parts."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from sinkdiv.costs import LOW_DIMENSION, Cost
from sinkdiv.kernels import reference
from sinkdiv.kernels.triton.dense import costs_kernel
from sinkdiv.kernels.triton.launching import MOST_PARTS, Counts, Launches, on_device
from sinkdiv.kernels.triton.operands import (
    PRODUCT_TILES,
    SUM_TILES,
    SYMMETRIC_TILES,
    Operands,
    Points,
    of_matrix,
    of_points,
    planar,
)
from sinkdiv.kernels.triton.products import Weight, products_kernel
from sinkdiv.kernels.triton.softmin import Start, ctransform_kernel, joined_kernel, softmin_kernel
from sinkdiv.kernels.triton.sums import Term, sums_kernel
from sinkdiv.kernels.triton.symmetric import symmetric_sums_kernel

#: From this many points on, a softmin between points and themselves uses the symmetry, for another launch.
SYMMETRIC_POINTS = 4096

#: Most columns of a product that one program makes.
PRODUCT_COLUMNS = 64

#: Entries that one program joins.
JOINED = 256

#: How matrix products of plans with float32 values are computed, by precision.
DOT_PRECISION = {"high": "tf32x3", "tf32": "tf32"}


@dataclass(frozen=True)
class _Values:
    """What a product is taken with: Σ_j w_ij q_j for q (B, m, k), or Σ_j w_ij (p_i − q_j) if there is p (B, n, k)."""

    q: Tensor
    p: Tensor | None = None


@dataclass(frozen=True)
class _Motion:
    """What kernels read of points that move (`tiles.motion_of`).

    ``width`` is the dimension where kernels subtract coordinates, and 0 where they multiply them.
    """

    pointers: tuple[Tensor, ...]
    scales: Tensor
    width: int


class _Reductions(ABC):
    """What points and matrices share. Shapes as in the reference; ``eps`` is (B, 1)."""

    _precision: str

    def __init__(self, operands: Operands, counts: Counts | None = None) -> None:
        self._operands, self._launches = operands, Launches(operands, counts)

    @abstractmethod
    def swapped(self) -> _Reductions:
        """The reductions over the rows."""

    def softmin(self, h: Tensor, eps: Tensor, near: Tensor | None = None) -> Tensor:
        """−ε log Σ_j exp(h_j − C_ij/ε), (B, n); sooner if ``near`` (B, n) is a good guess of it."""
        return self._softmin(h, eps, Start.COLD if near is None else Start.NEAR, near)

    def ctransform(self, g: Tensor) -> Tensor:
        """min_j (C_ij − g_j), (B, n)."""
        batch, n, _ = self._operands.shape
        (minima,) = self._launches.run(
            ctransform_kernel, (g,), lambda parts: (self._launches.new(parts, batch, n),), SUM_TILES
        )
        return minima.amin(0)

    def plan_product(self, u: Tensor, h: Tensor, eps: Tensor, v: Tensor) -> Tensor:
        """P v, (B, n, k), for v (B, m, k)."""
        return self._product(Weight.PLAN, u, h, eps, _Values(v.contiguous()))

    def cost_product(self, u: Tensor, h: Tensor, eps: Tensor, v: Tensor) -> Tensor:
        """(P∘C) v, (B, n, k), for v (B, m, k); ε may be ∞."""
        return self._product(Weight.COST, u, h, eps, _Values(v.contiguous()))

    def plan_cost(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor:
        """<P, C>, (B,); ε may be ∞."""
        return self._row_sums(Term.COST, u, h, eps).sum(-1)

    def marginals(self, u: Tensor, h: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """P 1 (B, n) and Pᵀ 1 (B, m), from one exponential for each pair."""
        return self._both_sums(Term.MASS, u, h, eps)

    def weighted_marginals(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The row and column sums of `weighted_plan`, likewise."""
        return self._both_sums(Term.WEIGHTED, u, h, eps, s, t)

    def corrected_primal(
        self, a: Tensor, b: Tensor, log_u: Tensor, log_h: Tensor, eps: Tensor, p: Tensor, q: Tensor
    ) -> Tensor:
        """See `reference.TiledReductions.corrected_primal`."""
        return (a * self._row_sums(Term.PRIMAL, log_u, log_h, eps, p, q, weights=b)).sum(-1)

    # Launches.

    def _softmin(
        self, h: Tensor, eps: Tensor, start: Start = Start.COLD, near: Tensor | None = None, sums: Tensor | None = None
    ) -> Tensor:
        batch, n, _ = self._operands.shape

        def outputs(parts: int) -> tuple[Tensor, ...]:
            new = self._launches.new
            return new(parts, batch, n), new(parts if parts > 1 else 0, batch, n) if sums is None else sums

        # Sums that are known already are over all columns.
        most_parts = MOST_PARTS if sums is None else 1
        inputs = (self._operands.padded(h), _or(near, h), eps)
        tiles = self._operands.softmin_tiles
        bases, parts_sums = self._launches.run(
            softmin_kernel, inputs, outputs, tiles, most_parts=most_parts, START=int(start), WHOLE=True
        )
        if bases.shape[0] == 1:
            return bases[0]
        if start == Start.NEAR:
            return self._softmin(h, eps, Start.SUMMED, near, parts_sums.sum(0))
        return self._joined(bases, parts_sums, eps)

    def _joined(self, bases: Tensor, sums: Tensor, eps: Tensor) -> Tensor:
        """The softmins (B, n) from the softmins over parts of the columns."""
        parts, batch, n = bases.shape
        softmins = self._launches.new(batch, n)
        with on_device(bases):
            joined_kernel[(math.ceil(batch * n / JOINED),)](
                bases, sums, eps.contiguous(), softmins, batch * n, n, parts, BLOCK=JOINED, enable_fp_fusion=True
            )
        return softmins

    def _both_sums(
        self, term: Term, u: Tensor, h: Tensor, eps: Tensor, s: Tensor | None = None, t: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The sums over the columns, (B, n), and over the rows, (B, m)."""
        if torch.are_deterministic_algorithms_enabled():
            return self._row_sums(term, u, h, eps, s, t), self.swapped()._row_sums(term, h, u, eps, t, s)
        columns = torch.zeros_like(h).contiguous()
        return self._row_sums(term, u, h, eps, s, t, columns=columns), columns

    def _row_sums(
        self, term: Term, u: Tensor, h: Tensor, eps: Tensor, s: Tensor | None = None, t: Tensor | None = None, *,
        weights: Tensor | None = None, motion: _Motion | None = None, columns: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """The sums over the columns; those over the rows are added to ``columns``, if they are wanted."""
        batch, n, _ = self._operands.shape

        def outputs(parts: int) -> tuple[Tensor, ...]:
            rows = self._launches.new(parts, batch, n)
            return rows, _or(columns, rows)

        inputs = (u, self._operands.padded(h), _or(s, u), _or(t, h), _or(weights, h), *_read(motion, u), eps)
        width = 0 if motion is None else motion.width
        rows, _ = self._launches.run(
            sums_kernel, inputs, outputs, SUM_TILES, (width,), keeps=motion is None, TERM=int(term),
            BOTH=columns is not None,
        )  # fmt: skip
        return _added(rows)

    def _product(
        self, weight: Weight, u: Tensor, h: Tensor, eps: Tensor, values: _Values,
        s: Tensor | None = None, t: Tensor | None = None, motion: _Motion | None = None,
    ) -> Tensor:  # fmt: skip
        batch, n, _ = self._operands.shape
        p, q = values.p, values.q
        columns = q.shape[2]
        # Few differences are summed as they are, and cancel nothing.
        by_differences = p is not None and columns <= LOW_DIMENSION
        if by_differences:
            assert p is not None, "there are differences to sum"
            p, q = planar(p), planar(q)
        # Points that move take registers, so that there is room for fewer columns.
        most = PRODUCT_COLUMNS if motion is None else PRODUCT_COLUMNS // 2
        group = 8 if by_differences else min(most, max(16, 2 ** math.ceil(math.log2(columns))))

        def outputs(parts: int) -> tuple[Tensor, ...]:
            return (self._launches.new(parts, batch, n, columns),)

        inputs = (u, self._operands.padded(h), _or(s, u), _or(t, h), _or(p, u), q, *_read(motion, u), eps)
        width = 0 if motion is None else motion.width
        (results,) = self._launches.run(
            products_kernel, inputs, outputs, PRODUCT_TILES, (width, columns),
            groups=math.ceil(columns / group), keeps=motion is None, WEIGHT=int(weight),
            BY_DIFFERENCES=by_differences, MINUS=p is not None, PRECISION=DOT_PRECISION[self._precision],
            COLUMNS=group,
        )  # fmt: skip
        return _added(results)


class PointReductions(_Reductions):
    """Reductions over the pairs of x (B, n, d) and y (B, m, d) under a cost that this package knows."""

    def __init__(
        self, x: Tensor, y: Tensor, cost: Cost, *, precision: str = "high", counts: Counts | None = None
    ) -> None:
        left = Points(x, precision)
        self._take(left, left if y is x else Points(y, precision), cost, precision, counts)

    def _take(self, x: Points, y: Points, cost: Cost, precision: str, counts: Counts | None) -> None:
        super().__init__(of_points(x, y, cost, precision), counts)
        self._x, self._y, self._cost, self._precision = x, y, cost, precision

    def swapped(self) -> PointReductions:
        """The reductions over the pairs of y and x, from the same operands."""
        other = object.__new__(PointReductions)
        counts = self._launches.given_counts
        other._take(self._y, self._x, self._cost, self._precision, None if counts is None else (counts[1], counts[0]))
        return other

    def softmin(self, h: Tensor, eps: Tensor, near: Tensor | None = None) -> Tensor:
        """As for all reductions. Between points and themselves a guess saves half of the exponentials."""
        by_symmetry = self._x is self._y and self._operands.shape[1] >= SYMMETRIC_POINTS
        if near is None or not by_symmetry or torch.are_deterministic_algorithms_enabled():
            return super().softmin(h, eps, near)
        sums = torch.zeros_like(near, memory_format=torch.contiguous_format)
        self._launches.run(
            symmetric_sums_kernel,
            (h, near, eps),
            lambda _: (sums,),
            SYMMETRIC_TILES,
            folded=True,
        )
        return self._softmin(h, eps, Start.SUMMED, near, sums)

    def plan_gradient(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor:
        """Σ_j P_ij ∂c(x_i, y_j)/∂x_i, (B, n, d)."""
        return self._product(Weight.GRADIENT, u, h, eps, self._points)

    def weighted_gradient(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """Σ_j P_ij (s_i + t_j + log P_ij) ∂c(x_i, y_j)/∂x_i, (B, n, d)."""
        return self._product(Weight.WEIGHTED, u, h, eps, self._points, s, t)

    def tangent_marginals(self, u: Tensor, h: Tensor, eps: Tensor, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_j P_ij Ċ_ij (B, n) and Σ_i P_ij Ċ_ij (B, m) of the cost's tangent Ċ along dx (B, n, d) and dy (B, m, d)."""
        if torch.are_deterministic_algorithms_enabled():
            rows = self._row_sums(Term.TANGENT, u, h, eps, motion=self._motion(dx, dy))
            return rows, self.swapped()._row_sums(Term.TANGENT, h, u, eps, motion=self.swapped()._motion(dy, dx))
        columns = torch.zeros_like(h).contiguous()
        return self._row_sums(Term.TANGENT, u, h, eps, motion=self._motion(dx, dy), columns=columns), columns

    def gradient_tangent(
        self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor, dx: Tensor, dy: Tensor
    ) -> Tensor:
        """See `reference.PointReductions.gradient_tangent`."""
        turned = self._product(Weight.TANGENT, u, h, eps, self._points, s, t, self._motion(dx, dy))
        return turned + self._product(Weight.GRADIENT, u, h, eps, _Values(dy.contiguous(), dx.contiguous()))

    # Results as large as the cost matrix are rarely needed: the specification computes them.

    def plan_matrix(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor:
        """P itself, (B, n, m)."""
        return self._reference.plan_matrix(u, h, eps)

    def weighted_plan(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """P_ij (s_i + t_j + log P_ij), (B, n, m)."""
        return self._reference.weighted_plan(u, h, eps, s, t)

    def costs(self) -> Tensor:
        """C, (B, n, m)."""
        shape = self._operands.shape
        (matrix,) = self._launches.run(costs_kernel, (), lambda _: (self._launches.new(*shape),), SUM_TILES)
        return matrix

    @property
    def _reference(self) -> reference.PointReductions:
        return reference.PointReductions(self._x.points, self._y.points, self._cost)

    @property
    def _points(self) -> _Values:
        return _Values(self._y.points, self._x.points)

    def _motion(self, dx: Tensor, dy: Tensor) -> _Motion:
        x, y = self._x, self._y
        if not self._operands.multiplied:
            pointers = x.planar, y.planar, planar(dx), planar(dy), x.points, y.points
            return _Motion(pointers, self._operands.scales, x.points.shape[2])
        moved_x, moved_y = Points(dx, self._precision), Points(dy, self._precision)
        pointers = *moved_x.rounded, x.dots(moved_x), *moved_y.rounded, y.dots(moved_y)
        return _Motion(pointers, torch.stack([1 / (x.factor * moved_y.factor), 1 / (moved_x.factor * y.factor)], 1), 0)


class MatrixReductions(_Reductions):
    """Reductions over pairs whose costs are C (B, n, m), of which some may be +∞: forbidden."""

    _precision = "high"

    def __init__(self, C: Tensor) -> None:
        super().__init__(of_matrix(C))
        self._C = C

    def swapped(self) -> MatrixReductions:
        """The reductions over the pairs of Cᵀ, of which no copy is made."""
        return MatrixReductions(self._C.mT)

    def plan_matrix(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor:
        """P itself, (B, n, m)."""
        return reference.MatrixReductions(self._C).plan_matrix(u, h, eps)

    def weighted_plan(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """P_ij (s_i + t_j + log P_ij), (B, n, m)."""
        return reference.MatrixReductions(self._C).weighted_plan(u, h, eps, s, t)

    def costs(self) -> Tensor:
        """C, (B, n, m)."""
        return self._C


def _added(parts: Tensor) -> Tensor:
    """The sum over parts (parts, ...)."""
    return parts.sum(0) if parts.shape[0] > 1 else parts[0]


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    """The tensor, or another in its place that the kernel does not read."""
    return other if tensor is None else tensor


def _read(motion: _Motion | None, other: Tensor) -> tuple[Tensor, ...]:
    return (other,) * 7 if motion is None else (*motion.pointers, motion.scales)
