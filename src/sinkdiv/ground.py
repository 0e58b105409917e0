"""Ground costs: what a user may give as the cost between points: a name, a power, a learned module, any function."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from torch import Tensor, nn

from sinkdiv.costs import COSTS, Cost, find_cost, power
from sinkdiv.measures import CostMatrix, Samples, check_cost_values, check_features


class GroundCost:
    """A cost between points by its name; all else is a subclass."""

    def __init__(self, cost: Cost | None) -> None:
        self.cost = cost
        """The cost that streams over pairs, which also turns lengths into cost units; None for a matrix."""

    def features(self, points: Tensor) -> Tensor:
        """What the streamed cost sees of points (B, n, d): (B, n, k)."""
        return points

    def featured(self, samples: Samples) -> Samples:
        """The samples that the streamed cost sees; two sides that are one stay one."""
        return samples

    def posed(self, samples: Samples) -> Samples | CostMatrix:
        """The problem between featured samples."""
        return samples


class PowerCost(GroundCost):
    """|x−y|ᵖ, any power of the Euclidean distance, streamed. A length σ is p·σᵖ in cost units.

    Up to p = 2 the Sinkhorn divergence is positive, as with the named costs, which p = 1 ("euclidean") and p = 2
    ("sqeuclidean") are; above, where exp(−c/ε) is no positive kernel, that is not guaranteed. For p ≤ 1 the gradient
    between coincident points, where there is none, is taken to be 0.

    Args:
        exponent: p > 0.
    """

    def __init__(self, exponent: float) -> None:
        if isinstance(exponent, bool) or not isinstance(exponent, (int, float)) or not 0 < exponent < math.inf:
            raise ValueError(f"exponent must be a positive finite number, not {exponent!r}")
        super().__init__(power(exponent))
        self.exponent = exponent

    def __repr__(self) -> str:
        return f"PowerCost({self.exponent!r})"


class FeatureCost(GroundCost):
    """A learned cost c(φ(x), φ(y)), streamed: ``cost`` between the features that a module φ makes of points.

    Args:
        module: maps points (N, d) to features (N, ...), which are flattened. Its parameters are differentiated like the
            points are. A ``blur`` or ``reach`` is a length between features.
        cost: the cost between features, by its name or a `PowerCost`. G18's learned cost is "euclidean".
    """

    def __init__(self, module: nn.Module, cost: str | PowerCost = "sqeuclidean") -> None:
        if not isinstance(module, nn.Module):
            raise ValueError(f"module must be a torch.nn.Module, not {type(module).__name__}")
        super().__init__(cost.cost if isinstance(cost, PowerCost) else find_cost(cost))
        self.module, self.between = module, cost

    def features(self, points: Tensor) -> Tensor:
        batch, count = points.shape[:2]
        features: Tensor = self.module(points.flatten(0, 1))
        check_features(features, batch * count)
        return features.to(points.dtype).reshape(batch, count, -1)

    def featured(self, samples: Samples) -> Samples:
        x = self.features(samples.x)
        return replace(samples, x=x, y=x if samples.y is samples.x else self.features(samples.y))

    def __repr__(self) -> str:
        return f"FeatureCost({type(self.module).__name__}, cost={self.between!r})"


class FunctionCost(GroundCost):
    """Any function of two clouds that returns their cost matrix; the matrix is held in memory."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(None)
        self.function = function

    def posed(self, samples: Samples) -> CostMatrix:
        x, y = (samples.x, samples.y) if samples.batched else (samples.x.squeeze(0), samples.y.squeeze(0))
        C = self.function(x, y)
        check_cost_values(C, (*x.shape[:-1], y.shape[-2]))
        C = (C if samples.batched else C.unsqueeze(0)).to(samples.x.dtype)
        return CostMatrix(C, samples.a, samples.b, samples.batched, samples.dtype, samples.unit_masses)


#: What the ``cost`` of a public function may be.
CostLike: TypeAlias = "str | PowerCost | nn.Module | FeatureCost | Callable[[Tensor, Tensor], Tensor]"


def find_ground_cost(cost: CostLike) -> GroundCost:
    """The ground cost that is meant.

    Raises:
        ValueError: if there is no such cost.
    """
    if isinstance(cost, str):
        return GroundCost(find_cost(cost))
    if isinstance(cost, GroundCost):
        return cost
    if isinstance(cost, nn.Module):
        return FeatureCost(cost)
    if callable(cost):
        return FunctionCost(cost)
    names = ", ".join(map(repr, COSTS))
    raise ValueError(
        f"cost must be one of {names}, a PowerCost, a module, a FeatureCost or a function of (x, y), not {cost!r}"
    )
