"""The differentiable reductions of any geometry whose costs are fixed: derivatives in weights and potentials.

All of them are made of products with the kernel K_ij = exp((f_i + g_j − C_ij)/ε), or with K∘C, and the derivative of
such a product is made of such products again. So a geometry that has plan and cost products needs nothing else to be
differentiated to any order.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from sinkdiv.geometry.differentiable.reductions import DifferentiableReductions
from sinkdiv.transforms import Partials, Tensors, UnbatchedFunction, saved


class Products(Protocol):
    """The reductions of a geometry (`sinkdiv.geometry.protocol`) that are needed here."""

    def softmin(self, h: Tensor, eps: Tensor, side: int) -> Tensor: ...
    def plan_product(self, u: Tensor, h: Tensor, eps: Tensor, v: Tensor, side: int) -> Tensor: ...
    def cost_product(self, u: Tensor, h: Tensor, eps: Tensor, v: Tensor, side: int) -> Tensor: ...


class OfFixedCosts(DifferentiableReductions):
    """The reductions of a geometry; there are no tensors that its cost is made of."""

    def __init__(self, eps: Tensor, geometry: Products) -> None:
        super().__init__(eps)
        self._geometry = geometry

    def softmin(self, potential: Tensor, weights: Tensor, costs: Tensors, side: int) -> Tensor:
        result: Tensor = _Softmin.apply(self, side, potential, weights)
        return result

    def product(self, f: Tensor, g: Tensor, left: Tensor, right: Tensor, costs: Tensors, side: int) -> Tensor:
        return left[:, :, None] * self.kernel_product(f, g, right, side)

    def plan_cost(self, f: Tensor, g: Tensor, a: Tensor, b: Tensor, costs: Tensors) -> Tensor:
        return (a * self.kernel_product(f, g, b[:, :, None], side=0, times_cost=True).squeeze(-1)).sum(-1)

    def kernel_product(self, f: Tensor, g: Tensor, v: Tensor, side: int, *, times_cost: bool = False) -> Tensor:
        """K v, (B, n, k), or (K∘C) v, for f (B, n), g (B, m) and v (B, m, k); on side 1 f belongs to the columns."""
        result: Tensor = _KernelProduct.apply(self, side, times_cost, f, g, v)
        return result

    def numbers(self, f: Tensor, g: Tensor, v: Tensor, side: int, times_cost: bool) -> Tensor:
        """`kernel_product` without a graph: one pass."""
        u, h = (f, g) if side == 0 else (g, f)
        product = self._geometry.cost_product if times_cost else self._geometry.plan_product
        return product(u / self.eps, h / self.eps, self.eps, v, side)

    def softmin_numbers(self, potential: Tensor, weights: Tensor, side: int) -> Tensor:
        """`softmin` without a graph: one pass."""
        return self._geometry.softmin(weights.log() + potential / self.eps, self.eps, side)


class _KernelProduct(UnbatchedFunction):
    """K v or (K∘C) v, of (f, g, v)."""

    @staticmethod
    def forward(reductions: OfFixedCosts, side: int, times_cost: bool, f: Tensor, g: Tensor, v: Tensor) -> Tensor:
        return reductions.numbers(f, g, v, side, times_cost)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.reductions, ctx.side, ctx.times_cost, *tensors = inputs
        ctx.save_for_backward(output, *tensors)
        ctx.save_for_forward(output, *tensors)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Partials:
        product, f, g, v = saved(ctx)
        eps = ctx.reductions.eps
        back = ctx.reductions.kernel_product(g, f, cotangent, 1 - ctx.side, times_cost=ctx.times_cost)
        return None, None, None, (cotangent * product).sum(-1) / eps, (v * back).sum(-1) / eps, back

    @staticmethod
    def jvp(ctx: Any, *given: Tensor | None) -> Tensor:
        product, f, g, v = saved(ctx)
        df, dg, dv = given[3:]
        eps = ctx.reductions.eps[:, :, None]
        moved = torch.zeros_like(v) if dv is None else dv
        if dg is not None:
            moved = moved + dg[:, :, None] * v / eps
        change: Tensor = ctx.reductions.kernel_product(f, g, moved, ctx.side, times_cost=ctx.times_cost)
        return change if df is None else change + df[:, :, None] * product / eps


class _Softmin(UnbatchedFunction):
    """The softmin of (potential, weights), whose derivative is that of a plan with rows of mass 1."""

    @staticmethod
    def forward(reductions: OfFixedCosts, side: int, potential: Tensor, weights: Tensor) -> Tensor:
        return reductions.softmin_numbers(potential, weights, side)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.reductions, ctx.side, *tensors = inputs
        ctx.save_for_backward(output, *tensors)
        ctx.save_for_forward(output, *tensors)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Partials:
        raw, potential, weights = saved(ctx)
        back = ctx.reductions.kernel_product(potential, raw, cotangent[:, :, None], 1 - ctx.side).squeeze(-1)
        return None, None, -weights * back, -ctx.reductions.eps * back

    @staticmethod
    def jvp(ctx: Any, *given: Tensor | None) -> Tensor:
        raw, potential, weights = saved(ctx)
        moved_potential, moved_weights = given[2:]
        moved = torch.zeros_like(weights)
        if moved_potential is not None:
            moved = moved + weights * moved_potential
        if moved_weights is not None:
            moved = moved + ctx.reductions.eps * moved_weights
        change: Tensor = ctx.reductions.kernel_product(raw, potential, moved[:, :, None], ctx.side)
        return -change.squeeze(-1)
