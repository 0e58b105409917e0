"""Transport distances between two sets of images, in pixels or in features."""

import math

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import sinkdiv


def exact_wasserstein(x: Tensor, y: Tensor) -> float:
    """The Wasserstein-2 distance of two equally large point sets, exactly: the optimal assignment.

    Lower is better; the length units of the points. It is far above zero for two samples of one law, by an amount that
    falls like n^(−1/d): compare with that of real images only. Computed in float64; time O(n³), memory O(n²).

    Args:
        x, y: (n, d).
    """
    if len(x) != len(y):
        raise ValueError(f"x and y must be equally many, not {len(x)} and {len(y)}")
    squares = torch.cdist(x.double(), y.double()).square().numpy()
    rows, columns = linear_sum_assignment(squares)
    return math.sqrt(float(squares[rows, columns].mean()))


def certified_divergence(x: Tensor, y: Tensor, blur: float) -> dict[str, float | bool]:
    """The Sinkhorn divergence of |x−y|² between (n, d) and (m, d), with its certified interval (F19).

    Lower is better, 0 for the same points; squared length units. The wider the blur, the less noise there is from
    having few points, and the fewer details are seen.
    """
    divergence = sinkdiv.solve_divergence(x, y, blur=blur)
    lower, upper = divergence.bounds
    return {
        "value": float(divergence.value),
        "lower": float(lower),
        "upper": float(upper),
        "blur": blur,
        "converged": bool(divergence.converged),
    }


def root_mean_square_distance(points: Tensor) -> float:
    """√E|y−y'|² over pairs of different points (n, d): the scale that blurs are chosen by."""
    return math.sqrt(2 * float(points.double().var(0).sum()))
