"""Conjugate gradients for many right-hand sides of a batch of positive (semi)definite systems at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    v: Tensor,
    tol: float,
    most: int,
    project: Callable[[Tensor], Tensor] = lambda residual: residual,
) -> tuple[Tensor, int]:
    """t (B, m, k) with apply(t) = v to a relative residual of ``tol`` for each column, and the products it took.

    Columns that are done stand still. ``project`` takes off what no t can match and rounding brings back.
    """
    t, r = torch.zeros_like(v), v
    p, rr = r, _dot(r, r)
    enough = tol**2 * rr
    for products in range(most):
        running = rr > enough
        if not bool(running.any()):
            return t, products
        q = apply(p)
        step = torch.where(running, rr / _dot(p, q), 0.0)
        t, r = t + step * p, project(r - step * q)
        rr, before = torch.where(running, _dot(r, r), rr), rr
        p = r + torch.where(running, rr / before, 0.0) * p
    return t, most


def relative_residual(apply: Callable[[Tensor], Tensor], t: Tensor, v: Tensor) -> Tensor:
    """|v − apply(t)| / |v|, (B, k), and 0 where v is."""
    missing, size = (v - apply(t)).norm(dim=1), v.norm(dim=1)
    return torch.where(size > 0, missing / size, 0.0)


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(1, keepdim=True)
