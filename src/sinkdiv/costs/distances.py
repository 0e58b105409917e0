"""Distances between all pairs of two clouds, and the sums over pairs that derivatives of costs are made of."""

from __future__ import annotations

import torch
from torch import Tensor

#: Up to this dimension distances are summed from coordinate differences, which cancel nothing.
LOW_DIMENSION = 8


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i − y_j|², (B, n, m), accurate to a few units in the last place of each entry or of |x|²·1e-16.

    By so much it may be negative.
    """
    if x.shape[-1] <= LOW_DIMENSION:
        total = x.new_zeros(x.shape[0], x.shape[1], y.shape[1])
        for k in range(x.shape[-1]):
            difference = x[:, :, None, k] - y[:, None, :, k]
            total = torch.addcmul(total, difference, difference)
        return total
    # |x|² − 2xy + |y|² cancels; float64 products keep float32 answers right and are still matrix products.
    wide_x, wide_y = _widen(x), _widen(y)
    square_x, square_y = (wide.square().sum(-1, keepdim=True) for wide in (wide_x, wide_y))
    left = torch.cat([-2 * wide_x, square_x, torch.ones_like(square_x)], -1)
    right = torch.cat([wide_y, torch.ones_like(square_y), square_y], -1)
    return (left @ right.mT).to(x.dtype)


def _widen(x: Tensor) -> Tensor:
    return x if x.device.type == "mps" else x.double()  # MPS has no float64


def distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i − y_j|, (B, n, m), by differences in every dimension.

    The root would magnify what a matrix product cancels near the diagonal.
    """
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def difference_products(x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """(x_i − y_j)·(dx_i − dy_j), (B, n, m)."""
    if x.shape[-1] <= LOW_DIMENSION:
        total = x.new_zeros(x.shape[0], x.shape[1], y.shape[1])
        for k in range(x.shape[-1]):
            total.addcmul_(x[:, :, None, k] - y[:, None, :, k], dx[:, :, None, k] - dy[:, None, :, k])
        return total
    wide_x, wide_y, wide_dx, wide_dy = map(_widen, (x, y, dx, dy))
    total = (wide_x * wide_dx).sum(-1)[:, :, None] + (wide_y * wide_dy).sum(-1)[:, None]
    return total.baddbmm_(wide_x, wide_dy.mT, alpha=-1).baddbmm_(wide_dx, wide_y.mT, alpha=-1).to(x.dtype)


def weighted_differences(weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Σ_j w_ij (x_i − y_j), (B, n, d)."""
    if x.shape[-1] > LOW_DIMENSION:
        return weights.sum(-1, keepdim=True) * x - weights @ y
    columns = [(weights * (x[:, :, None, k] - y[:, None, :, k])).sum(-1) for k in range(x.shape[-1])]
    return torch.stack(columns, -1)
