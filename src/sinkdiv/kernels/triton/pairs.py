"""The operations of `sinkdiv.kernels.reference`, each one launch (or two, where few rows leave processors idle)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor
from triton.runtime.errors import OutOfResources

from sinkdiv.costs import LOW_DIMENSION, Cost
from sinkdiv.kernels import reference
from sinkdiv.kernels.triton.operands import (
    PRODUCT_TILES,
    SUM_TILES,
    Operands,
    Points,
    Tile,
    of_matrix,
    of_points,
    planar,
)
from sinkdiv.kernels.triton.products import Weight, products_kernel
from sinkdiv.kernels.triton.softmin import ctransform_kernel, joined_kernel, softmin_kernel
from sinkdiv.kernels.triton.sums import Term, sums_kernel

#: Programs that are wanted for each multiprocessor: rows that make fewer are joined by parts of the columns.
PROGRAMS = 4

#: Tiles of columns that a part has at least.
PART_TILES = 4

#: Columns of a product that one program makes.
PRODUCT_COLUMNS = 64

#: Entries that one program joins.
JOINED = 256

#: How matrix products of plans with float32 values are computed, by precision.
DOT_PRECISION = {"high": "tf32x3", "tf32": "tf32"}

Counts = tuple[Tensor, Tensor]


@cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def on_device(tensor: Tensor) -> AbstractContextManager[object]:
    """Where kernels for this tensor are launched: its device, whichever is the current one."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


@dataclass(frozen=True)
class _Values:
    """What a product is taken with: Σ_j w_ij q_j for q (B, m, k), or Σ_j w_ij (p_i − q_j) if there is p (B, n, k)."""

    q: Tensor
    p: Tensor | None = None


@dataclass(frozen=True)
class _Movement:
    """Points and their tangents, coordinate by coordinate: x and dx (B, d, n), y and dy (B, d, m)."""

    x: Tensor
    y: Tensor
    dx: Tensor
    dy: Tensor


class _Reductions:
    """What points and matrices share. Shapes as in the reference; ``eps`` is (B, 1)."""

    _operands: Operands
    _precision: str

    def __init__(self, counts: Counts | None) -> None:
        self._given_counts = counts

    def softmin(self, h: Tensor, eps: Tensor) -> Tensor:
        """−ε log Σ_j exp(h_j − C_ij/ε), (B, n)."""
        return self._softmin(h, None, eps)

    def softmin_near(self, h: Tensor, near: Tensor, eps: Tensor) -> Tensor:
        """The same, sooner if ``near`` (B, n) is a good guess of it."""
        return self._softmin(h, near, eps)

    def ctransform(self, g: Tensor) -> Tensor:
        """min_j (C_ij − g_j), (B, n)."""
        batch, n, _ = self._operands.shape
        (minima,) = self._launch(ctransform_kernel, (g,), lambda parts: (self._new(parts, batch, n),))
        return minima.amin(0)

    def plan_product(self, u: Tensor, h: Tensor, eps: Tensor, v: Tensor) -> Tensor:
        """P v, (B, n, k), for v (B, m, k)."""
        return self._product(Weight.PLAN, u, h, eps, _Values(v.contiguous()))

    def plan_cost(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor:
        """<P, C>, (B,)."""
        return self._sums(Term.COST, u, h, eps, both=False)[0].sum(-1)

    def marginals(self, u: Tensor, h: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """P 1 (B, n) and Pᵀ 1 (B, m), from one exponential for each pair."""
        return self._sums(Term.MASS, u, h, eps, both=True)

    def weighted_marginals(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The row and column sums of `weighted_plan`, likewise."""
        return self._sums(Term.WEIGHTED, u, h, eps, both=True, s=s, t=t)

    def corrected_primal(
        self, a: Tensor, b: Tensor, log_u: Tensor, log_h: Tensor, eps: Tensor, p: Tensor, q: Tensor
    ) -> Tensor:
        """See `reference.corrected_primal`."""
        return (a * self._sums(Term.PRIMAL, log_u, log_h, eps, both=False, s=p, t=q, weights=b)[0]).sum(-1)

    # Launches.

    def _softmin(self, h: Tensor, near: Tensor | None, eps: Tensor) -> Tensor:
        batch, n, _ = self._operands.shape
        guess = h if near is None else near

        def outputs(parts: int) -> tuple[Tensor, ...]:
            return self._new(parts, batch, n), self._new(parts if parts > 1 else 0, batch, n)

        bases, sums = self._launch(softmin_kernel, (h, guess, eps), outputs, WARM=near is not None)
        parts = bases.shape[0]
        if parts == 1:
            return bases[0]
        softmins = self._new(batch, n)
        with on_device(h):
            joined_kernel[(math.ceil(batch * n / JOINED),)](
                bases, sums, eps.contiguous(), softmins, batch * n, n, parts, BLOCK=JOINED, enable_fp_fusion=True
            )
        return softmins

    def _sums(
        self, term: Term, u: Tensor, h: Tensor, eps: Tensor, *, both: bool,
        s: Tensor | None = None, t: Tensor | None = None, weights: Tensor | None = None,
        movement: _Movement | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """The sums over the columns, (B, n), and if ``both`` those over the rows, (B, m)."""
        batch, n, _ = self._operands.shape

        def outputs(parts: int) -> tuple[Tensor, ...]:
            return self._new(parts, batch, n), torch.zeros_like(h, memory_format=torch.contiguous_format)

        inputs = (u, h, _or(s, u), _or(t, h), _or(weights, h), *_moves(movement, u), eps)
        width = 0 if movement is None else movement.x.shape[1]
        rows, columns = self._launch(sums_kernel, inputs, outputs, (width,), TERM=int(term), BOTH=both)
        return _added(rows), columns

    def _product(
        self, weight: Weight, u: Tensor, h: Tensor, eps: Tensor, values: _Values,
        s: Tensor | None = None, t: Tensor | None = None, movement: _Movement | None = None,
    ) -> Tensor:  # fmt: skip
        batch, n, _ = self._operands.shape
        p, q = values.p, values.q
        columns = q.shape[2]
        # Few differences are summed as they are, and cancel nothing.
        by_differences = p is not None and columns <= LOW_DIMENSION
        if by_differences:
            assert p is not None, "there are differences to sum"
            p, q = planar(p), planar(q)
        group = 8 if by_differences else min(PRODUCT_COLUMNS, max(16, 2 ** math.ceil(math.log2(columns))))

        def outputs(parts: int) -> tuple[Tensor, ...]:
            return (self._new(parts, batch, n, columns),)

        inputs = (u, h, _or(s, u), _or(t, h), _or(p, u), q, *_moves(movement, u), eps)
        width = 0 if movement is None else movement.x.shape[1]
        (results,) = self._launch(
            products_kernel, inputs, outputs, (width, columns), math.ceil(columns / group), PRODUCT_TILES,
            WEIGHT=int(weight), BY_DIFFERENCES=by_differences, MINUS=p is not None,
            PRECISION=DOT_PRECISION[self._precision], COLUMNS=group,
        )  # fmt: skip
        return _added(results)

    def _launch(
        self, kernel: Any, inputs: tuple[Tensor, ...], outputs: Callable[[int], tuple[Tensor, ...]],
        integers: tuple[int, ...] = (), groups: int = 1, tiles: Mapping[Any, Sequence[Tile]] = SUM_TILES,
        **constants: object,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Launch with the largest tile that the device has room for; ``outputs`` makes room for so many parts."""
        inputs = tuple(tensor.contiguous() for tensor in inputs)
        choices = tiles[self._operands.form, self._operands.wide]
        for tile in choices[:-1]:
            try:
                return self._launch_tile(tile, kernel, inputs, outputs, integers, groups, constants)
            except OutOfResources:
                continue
        return self._launch_tile(choices[-1], kernel, inputs, outputs, integers, groups, constants)

    def _launch_tile(
        self, tile: Tile, kernel: Any, inputs: tuple[Tensor, ...], outputs: Callable[[int], tuple[Tensor, ...]],
        integers: tuple[int, ...], groups: int, constants: dict[str, object],
    ) -> tuple[Tensor, ...]:  # fmt: skip
        operands = self._operands
        parts, blocks = self._parts(tile), math.ceil(operands.shape[1] / tile.rows)
        if kernel is softmin_kernel:
            constants = {**constants, "WHOLE": parts == 1}
        made = outputs(parts)
        with on_device(inputs[0]):
            kernel[(blocks * operands.shape[0], parts, groups)](
                *operands.pointers, *inputs, *self._counts, operands.scales, *made, *operands.sizes, *integers,
                blocks, *operands.strides, **operands.constants, **constants, **tile.options,
            )  # fmt: skip
        return made

    @cached_property
    def _counts(self) -> Counts:
        """How many rows and columns of each problem are real, (B,) each."""
        if self._given_counts is not None:
            rows, columns = self._given_counts
            return rows.to(torch.int32), columns.to(torch.int32)
        batch, n, m = self._operands.shape
        full = self._operands.scales.new_full
        return full((batch,), n, dtype=torch.int32), full((batch,), m, dtype=torch.int32)

    def _parts(self, tile: Tile) -> int:
        """Parts that the columns are cut into, so that all multiprocessors have work."""
        batch, n, m = self._operands.shape
        programs = batch * math.ceil(n / tile.rows)
        wanted = math.ceil(PROGRAMS * _multiprocessors(self._operands.scales.device) / programs)
        return max(1, min(wanted, math.ceil(m / tile.columns) // PART_TILES))

    def _new(self, *shape: int) -> Tensor:
        """Zeros where rows are padding, which no kernel writes."""
        make = torch.empty if self._given_counts is None else torch.zeros
        dtype = torch.float64 if self._operands.wide else torch.float32
        return make(shape, dtype=dtype, device=self._operands.scales.device)


class Pairs(_Reductions):
    """The pairs of x (B, n, d) and y (B, m, d) under a cost that this package knows."""

    def __init__(
        self, x: Tensor, y: Tensor, cost: Cost, *, precision: str = "high", counts: Counts | None = None
    ) -> None:
        left = Points(x, precision)
        self._take(left, left if y is x else Points(y, precision), cost, precision, counts)

    def _take(self, x: Points, y: Points, cost: Cost, precision: str, counts: Counts | None) -> None:
        super().__init__(counts)
        self._x, self._y, self._cost, self._precision = x, y, cost, precision
        self._operands = of_points(x, y, cost, precision)

    def swapped(self) -> Pairs:
        """The pairs of y and x, from the same operands."""
        other = object.__new__(Pairs)
        counts = self._given_counts
        other._take(self._y, self._x, self._cost, self._precision, None if counts is None else (counts[1], counts[0]))
        return other

    def plan_gradient(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor:
        """Σ_j P_ij ∂c(x_i, y_j)/∂x_i, (B, n, d)."""
        return self._product(Weight.GRADIENT, u, h, eps, self._points)

    def weighted_gradient(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """Σ_j P_ij (s_i + t_j + log P_ij) ∂c(x_i, y_j)/∂x_i, (B, n, d)."""
        return self._product(Weight.WEIGHTED, u, h, eps, self._points, s, t)

    def tangent_marginals(self, u: Tensor, h: Tensor, eps: Tensor, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_j P_ij Ċ_ij (B, n) and Σ_i P_ij Ċ_ij (B, m) of the cost's tangent Ċ along dx (B, n, d) and dy (B, m, d)."""
        return self._sums(Term.TANGENT, u, h, eps, both=True, movement=self._movement(dx, dy))

    def gradient_tangent(
        self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor, dx: Tensor, dy: Tensor
    ) -> Tensor:
        """See `reference.gradient_tangent`."""
        turned = self._product(Weight.TANGENT, u, h, eps, self._points, s, t, self._movement(dx, dy))
        return turned + self._product(Weight.GRADIENT, u, h, eps, _Values(dy.contiguous(), dx.contiguous()))

    # Dense results are as large as the cost matrix: there is nothing to stream.

    def plan_matrix(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor:
        """P itself, (B, n, m)."""
        return self._reference.plan_matrix(u, h, eps)

    def weighted_plan(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """P_ij (s_i + t_j + log P_ij), (B, n, m)."""
        return self._reference.weighted_plan(u, h, eps, s, t)

    def costs(self) -> Tensor:
        """C, (B, n, m)."""
        return self._reference.costs()

    @property
    def _reference(self) -> reference.Pairs:
        return reference.Pairs(self._x.points, self._y.points, self._cost)

    @property
    def _points(self) -> _Values:
        return _Values(self._y.points, self._x.points)

    def _movement(self, dx: Tensor, dy: Tensor) -> _Movement:
        return _Movement(self._x.planar, self._y.planar, planar(dx), planar(dy))


class MatrixPairs(_Reductions):
    """The pairs whose costs are C (B, n, m), of which some may be +∞: forbidden."""

    _precision = "high"

    def __init__(self, C: Tensor) -> None:
        super().__init__(None)
        self._C, self._operands = C, of_matrix(C)

    def plan_matrix(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor:
        """P itself, (B, n, m)."""
        return reference.MatrixPairs(self._C).plan_matrix(u, h, eps)

    def weighted_plan(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """P_ij (s_i + t_j + log P_ij), (B, n, m)."""
        return reference.MatrixPairs(self._C).weighted_plan(u, h, eps, s, t)

    def costs(self) -> Tensor:
        """C, (B, n, m)."""
        return self._C


def _added(parts: Tensor) -> Tensor:
    """The sum over parts (parts, ...)."""
    return parts.sum(0) if parts.shape[0] > 1 else parts[0]


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    """What a kernel is given for a tensor that it does not read."""
    return other if tensor is None else tensor


def _moves(movement: _Movement | None, other: Tensor) -> tuple[Tensor, ...]:
    return (other,) * 4 if movement is None else (movement.x, movement.y, movement.dx, movement.dy)
