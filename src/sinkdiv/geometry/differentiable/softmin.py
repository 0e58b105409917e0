"""The softmin between points: numbers by the kernels, its first derivative too; anything else by composition.

Unrolled iterations are made of it. What follows from optimality is composed throughout: it needs marginals and
softmins that share their rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sinkdiv.costs import Cost
from sinkdiv.kernels import of_points
from sinkdiv.transforms import Partials, Tensors, is_differentiated_again, pulled_back, pushed_forward, saved


class PointSoftmin:
    """−ε log Σ_j b_j exp((g_j − c(x_i, y_j))/ε), (B, n), of (g, b, x, y).

    ``composed`` is the same, differentiable; ``positive`` tells whether all weights are known to be.
    """

    def __init__(self, cost: Cost, eps: Tensor, composed: Callable[..., Tensor], *, positive: bool) -> None:
        self.cost, self.eps, self.composed, self.positive = cost, eps, composed, positive

    def __call__(self, g: Tensor, b: Tensor, x: Tensor, y: Tensor) -> Tensor:
        result: Tensor = _PointSoftmin.apply(self, g, b, x, y)
        return result

    def numbers(self, g: Tensor, b: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The softmin, one pass."""
        return of_points(x, y, self.cost).softmin(b.log() + g / self.eps, self.eps)

    def gradients(self, raw: Tensor, cotangent: Tensor, inputs: Tensors, wanted: tuple[bool, ...]) -> Partials:
        """Those of <cotangent, softmin>, from its value ``raw``; all weights are positive.

        The derivative in C_ij is the softmax S_ij, which is a plan whose rows have mass 1.
        """
        g, b, x, y = inputs
        eps = self.eps
        u, h = raw / eps, b.log() + g / eps
        own, transposed = of_points(x, y, self.cost), of_points(y, x, self.cost)
        grad_x = cotangent[:, :, None] * own.plan_gradient(u, h, eps) if wanted[2] else None
        grad_y = None
        if wanted[3]:  # a plan has no negative entries: the two signs of the cotangent take turns
            signs = (transposed.plan_gradient(h, u + (sign * cotangent).clamp(min=0).log(), eps) for sign in (1, -1))
            grad_y = next(signs) - next(signs)
        if not wanted[0] and not wanted[1]:
            return None, None, grad_x, grad_y
        sums = transposed.plan_product(h, u, eps, cotangent[:, :, None]).squeeze(-1)
        return -sums, -eps * sums / b, grad_x, grad_y


class _PointSoftmin(torch.autograd.Function):
    """A `PointSoftmin` of its inputs."""

    @staticmethod
    def forward(softmin: PointSoftmin, *inputs: Tensor) -> Tensor:
        return softmin.numbers(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.softmin, *tensors = inputs
        ctx.save_for_backward(output, *tensors)
        ctx.save_for_forward(output, *tensors)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Partials:
        softmin, (raw, *inputs), wanted = ctx.softmin, saved(ctx), tuple(ctx.needs_input_grad[1:])
        if is_differentiated_again() or not softmin.positive:
            return None, *pulled_back(softmin.composed, tuple(inputs), wanted, cotangent)
        return None, *softmin.gradients(raw, cotangent, tuple(inputs), wanted)

    @staticmethod
    def jvp(ctx: Any, *given: Tensor | None) -> Tensor:
        _, *inputs = saved(ctx)
        moved: Tensor = pushed_forward(ctx.softmin.composed, tuple(inputs), given[1:])
        return moved

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], softmin: PointSoftmin, *inputs: Tensor) -> tuple[Tensor, int]:
        return torch.vmap(softmin.composed, in_dims[1:], 0)(*inputs), 0
