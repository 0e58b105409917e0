"""The one normalisation: what a solver is given, and what is differentiated, has equal masses and is centred."""

from __future__ import annotations

import torch
from torch import Tensor


def mass(weights: Tensor) -> Tensor:
    """Total mass (B,) of weights (B, n), summed in float64 and returned in the weights' dtype."""
    return weights.sum(-1, dtype=torch.float64).to(weights.dtype)


def equalised(b: Tensor, a: Tensor) -> Tensor:
    """b (B, m) scaled to the mass of a (B, n): they agree to the door's tolerance, a balanced problem needs them equal.

    The factor has no derivative: that would be one in a direction in which the problem does not exist.
    """
    return b * (mass(a) / mass(b)).detach()[:, None]


def center_of(points: Tensor) -> Tensor:
    """The mean (B, 1, d) of points (B, n, d), without derivative: costs depend on differences only."""
    return points.detach().mean(1, keepdim=True)
