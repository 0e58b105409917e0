"""The one normalisation: solvers are given, and derivatives are taken of, equal masses and centred points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def mass(weights: Tensor) -> Tensor:
    """Total mass (B,) of weights (B, n), summed in float64 and returned in the weights' dtype."""
    return weights.sum(-1, dtype=torch.float64).to(weights.dtype)


def equalised(b: Tensor, a: Tensor) -> Tensor:
    """b (B, m) scaled to the mass of a (B, n): they agree to a tolerance only, and a balanced problem needs them equal.

    The factor has no derivative: that would be one in a direction in which the problem does not exist.
    """
    return b * (mass(a) / mass(b)).detach()[:, None]


def center_of(points: Tensor) -> Tensor:
    """The mean (B, 1, d) of points (B, n, d), without derivative: costs depend on differences only."""
    return points.detach().mean(1, keepdim=True)


def normalised(
    a: Tensor, b: Tensor, costs: Sequence[Tensor], *, equal_masses: bool, center: Tensor | None
) -> tuple[Tensor, ...]:
    """(a, b, *costs) as functions of the same inputs, with equal masses and centred points.

    Args:
        a: weights (B, n).
        b: weights (B, m).
        costs: points (x, y), or a cost matrix (C,).
        equal_masses: whether the marginals are hard, so that b is scaled to the mass of a.
        center: (B, 1, d), subtracted from the points; None for a cost matrix.
    """
    if equal_masses:
        b = equalised(b, a)
    if center is not None:
        costs = [points - center for points in costs]
    return a, b, *costs
