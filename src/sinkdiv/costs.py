"""Cost functions c(x, y) between points: their names, values, derivatives, and the length scale that belongs to each.

Names are scipy's, without hidden halves: ``sqeuclidean`` is |x−y|². A cost |x−y|ᵖ turns a length σ (a *blur* or a
*reach*) into cost units as p·σᵖ, so that for ``sqeuclidean`` exp(−c/ε) is the Gaussian kernel of standard deviation σ.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

#: Up to this dimension distances are summed from coordinate differences, which cancel nothing.
LOW_DIMENSION = 8


class Cost(ABC):
    """A cost |x−y|ᵖ between points; its exponent p tells it from others."""

    exponent: float

    @abstractmethod
    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """Costs (B, n, m) between x (B, n, d) and y (B, m, d)."""

    @abstractmethod
    def smooth_matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """The same, by operations that can be differentiated to any order."""

    @abstractmethod
    def depth(self, dimension: int) -> int:
        """How many numbers `smooth_matrix` holds for one pair."""

    @abstractmethod
    def gradient(self, weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Σ_j w_ij ∂c(x_i, y_j)/∂x_i, (B, n, d), for weights (B, n, m)."""

    @abstractmethod
    def tangent(self, x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
        """The derivative of `matrix` as x moves along dx (B, n, d) and y along dy (B, m, d)."""

    @abstractmethod
    def gradient_tangent(self, weights: Tensor, x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
        """The derivative of `gradient` as x moves along dx and y along dy, while the weights stay."""

    def from_length(self, length: float) -> float:
        """The cost units p·σᵖ of a length σ: ε of a blur, ρ of a reach."""
        return float(self.exponent * length**self.exponent)


class SquaredEuclidean(Cost):
    """|x−y|²."""

    exponent = 2

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        return squared_distances(x, y).clamp_(min=0)

    def smooth_matrix(self, x: Tensor, y: Tensor) -> Tensor:
        squares = squared_distances(x, y)
        # What rounding makes negative is corrected; its derivatives are right as they are.
        return squares - squares.detach().clamp(max=0)

    def depth(self, dimension: int) -> int:
        return 1

    def gradient(self, weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return 2 * _weighted_differences(weights, x, y)

    def tangent(self, x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
        return 2 * _difference_products(x, y, dx, dy)

    def gradient_tangent(self, weights: Tensor, x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
        return 2 * _weighted_differences(weights, dx, dy)


class Power(Cost):
    """|x−y|ᵖ for any p > 0.

    Of s = |x−y|² it is s^{p/2}, its gradient in x is p s^{p/2−1} (x−y), and with velocities ẋ, ẏ and q = (x−y)·(ẋ−ẏ)

        tangent            p s^{p/2−1} q
        gradient_tangent   p s^{p/2−1} [(ẋ−ẏ) + (p−2) q/s (x−y)].

    At coincident points all three are 0, and all derivatives of `smooth_matrix`: the true value of those of order below
    p, while the others do not exist unless p is even. A point's pair with itself loses nothing, because its cost stays
    0 wherever the point moves.
    """

    def __init__(self, exponent: float) -> None:
        self.exponent = exponent

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        return _distances(x, y).pow_(self.exponent)

    def smooth_matrix(self, x: Tensor, y: Tensor) -> Tensor:
        squares = (x[:, :, None, :] - y[:, None, :, :]).square().sum(-1)
        if self.exponent % 2 == 0:
            return squares.pow(self.exponent / 2)
        apart = squares.detach() >= torch.finfo(squares.dtype).tiny
        return torch.where(apart, torch.where(apart, squares, 1.0).pow(self.exponent / 2), 0.0)

    def depth(self, dimension: int) -> int:
        return dimension

    def gradient(self, weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return _weighted_differences(weights * self._slopes(_distances(x, y)), x, y)

    def tangent(self, x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
        return _difference_products(x, y, dx, dy).mul_(self._slopes(_distances(x, y)))

    def gradient_tangent(self, weights: Tensor, x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
        distances = _distances(x, y)
        moved = weights * self._slopes(distances)
        stretch = _difference_products(x, y, dx, dy).div_(distances.square_()).masked_fill_(moved == 0, 0.0)
        turned = (stretch * moved).mul_(self.exponent - 2)
        return _weighted_differences(moved, dx, dy) + _weighted_differences(turned, x, y)

    def _slopes(self, distances: Tensor) -> Tensor:
        """p r^{p−2}, by which x−y becomes a gradient, and 0 at coincident points.

        Those are points whose squared distance is no normal number, so that a slope is finite whatever p.
        """
        coincident = distances <= torch.finfo(distances.dtype).tiny ** 0.5
        return distances.pow(self.exponent - 2).mul_(self.exponent).masked_fill_(coincident, 0.0)


class Euclidean(Power):
    """|x−y|."""

    def __init__(self) -> None:
        super().__init__(1)


COSTS: dict[str, Cost] = {"sqeuclidean": SquaredEuclidean(), "euclidean": Euclidean()}


def find_cost(name: str) -> Cost:
    """The cost of that name.

    Raises:
        ValueError: if there is none.
    """
    if not isinstance(name, str) or name not in COSTS:
        raise ValueError(f"cost must be one of {', '.join(map(repr, COSTS))}, not {name!r}")
    return COSTS[name]


def power(exponent: float) -> Cost:
    """The cost |x−y|ᵖ: a named one where p is 1 or 2."""
    named = (cost for cost in COSTS.values() if cost.exponent == exponent)
    return next(named, None) or Power(exponent)


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


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i − y_j|, (B, n, m), by differences in every dimension.

    The root would magnify what a matrix product cancels near the diagonal.
    """
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _difference_products(x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """(x_i − y_j)·(dx_i − dy_j), (B, n, m)."""
    if x.shape[-1] <= LOW_DIMENSION:
        total = x.new_zeros(x.shape[0], x.shape[1], y.shape[1])
        for k in range(x.shape[-1]):
            total.addcmul_(x[:, :, None, k] - y[:, None, :, k], dx[:, :, None, k] - dy[:, None, :, k])
        return total
    wide_x, wide_y, wide_dx, wide_dy = map(_widen, (x, y, dx, dy))
    total = (wide_x * wide_dx).sum(-1)[:, :, None] + (wide_y * wide_dy).sum(-1)[:, None]
    return total.baddbmm_(wide_x, wide_dy.mT, alpha=-1).baddbmm_(wide_dx, wide_y.mT, alpha=-1).to(x.dtype)


def _weighted_differences(weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Σ_j w_ij (x_i − y_j), (B, n, d)."""
    if x.shape[-1] > LOW_DIMENSION:
        return weights.sum(-1, keepdim=True) * x - weights @ y
    columns = [(weights * (x[:, :, None, k] - y[:, None, :, k])).sum(-1) for k in range(x.shape[-1])]
    return torch.stack(columns, -1)
