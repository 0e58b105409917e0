"""Conjugate gradients for many right-hand sides of a batch of positive (semi)definite systems at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    v: Tensor,
    enough: Tensor,
    most: int,
    project: Callable[[Tensor], Tensor] = lambda residual: residual,
) -> tuple[Tensor, int]:
    """t (B, m, k) with apply(t) = v up to a residual of norm ``enough`` (B, 1, k), and the products it took.

    Columns that are done stand still. ``project`` takes off what no t can match and rounding brings back.
    """
    t, r = torch.zeros_like(v), v
    p, rr = r, _dot(r, r)
    for products in range(most):
        running = rr > enough**2
        if not bool(running.any()):
            return t, products
        q = apply(p)
        step = torch.where(running, rr / _dot(p, q), 0.0)
        t, r = t + step * p, project(r - step * q)
        rr, before = torch.where(running, _dot(r, r), rr), rr
        p = r + torch.where(running, rr / before, 0.0) * p
    return t, most


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(1, keepdim=True)
