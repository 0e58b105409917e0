"""The costs |x−y|ᵖ between points: their values, their derivatives, and what a length is in cost units.

A length σ (a *blur* or a *reach*) is p·σᵖ in cost units. So for |x−y|² exp(−c/ε) is the Gaussian kernel of standard
deviation σ.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

import torch
from torch import Tensor

from sinkdiv.costs.distances import difference_products, distances, squared_distances, weighted_differences

#: A length, or a tensor of lengths.
Length = TypeVar("Length", float, Tensor)


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

    def from_length(self, length: Length) -> Length:
        """The cost units p·σᵖ of a length σ: ε of a blur, ρ of a reach. A tensor of lengths gives a tensor."""
        units: Length = self.exponent * length**self.exponent
        return units


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
        return 2 * weighted_differences(weights, x, y)

    def tangent(self, x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
        return 2 * difference_products(x, y, dx, dy)

    def gradient_tangent(self, weights: Tensor, x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
        return 2 * weighted_differences(weights, dx, dy)


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
        return distances(x, y).pow_(self.exponent)

    def smooth_matrix(self, x: Tensor, y: Tensor) -> Tensor:
        squares = (x[:, :, None, :] - y[:, None, :, :]).square().sum(-1)
        if self.exponent % 2 == 0:
            return squares.pow(self.exponent / 2)
        apart = squares.detach() >= torch.finfo(squares.dtype).tiny
        return torch.where(apart, torch.where(apart, squares, 1.0).pow(self.exponent / 2), 0.0)

    def depth(self, dimension: int) -> int:
        return dimension

    def gradient(self, weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return weighted_differences(weights * self._slopes(distances(x, y)), x, y)

    def tangent(self, x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
        return difference_products(x, y, dx, dy).mul_(self._slopes(distances(x, y)))

    def gradient_tangent(self, weights: Tensor, x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
        lengths = distances(x, y)
        moved = weights * self._slopes(lengths)
        stretch = difference_products(x, y, dx, dy).div_(lengths.square_()).masked_fill_(moved == 0, 0.0)
        turned = (stretch * moved).mul_(self.exponent - 2)
        return weighted_differences(moved, dx, dy) + weighted_differences(turned, x, y)

    def _slopes(self, lengths: Tensor) -> Tensor:
        """p r^{p−2}, by which x−y becomes a gradient, and 0 at coincident points.

        Those are points whose squared distance is no normal number, so that a slope is finite whatever p.
        """
        coincident = lengths <= torch.finfo(lengths.dtype).tiny ** 0.5
        return lengths.pow(self.exponent - 2).mul_(self.exponent).masked_fill_(coincident, 0.0)


class Euclidean(Power):
    """|x−y|."""

    def __init__(self) -> None:
        super().__init__(1)


#: The costs between points that have a name and are streamed as they are. Names are scipy's, without a hidden half.
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
