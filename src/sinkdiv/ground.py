"""Ground costs: what a user may give as the cost between points: a name, a power, a learned module, any function."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from torch import Tensor, nn

from sinkdiv.costs import COSTS, Cost, power
from sinkdiv.measures import CostMatrix, Samples, check_cost_values, check_features, is_captured


class GroundCost:
    """A cost |x−y|ᵖ between points by its name; all else is a subclass."""

    makes_features = False
    """Whether the streamed cost sees features of the points instead of these."""

    def __init__(self, cost: Cost | None) -> None:
        self.cost = cost
        """The cost that streams over pairs; None for a matrix."""

    def from_length(self, length: float) -> float:
        """The cost units of a length: ε of a blur, ρ of a reach."""
        assert self.cost is not None, "a matrix has no lengths"
        return self.cost.from_length(length)

    def features(self, name: str, points: Tensor) -> Tensor:
        """What the streamed cost sees of the points (B, n, d) of that name: (B, n, k).

        Raises:
            ValueError: naming them, if they have no features.
        """
        return points

    def featured(self, samples: Samples) -> Samples:
        """The samples that the streamed cost sees; two sides that are one stay one."""
        if not self.makes_features:
            return samples
        x = self.features("x", samples.x)
        return replace(samples, x=x, y=x if samples.y is samples.x else self.features("y", samples.y))

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


class CosineCost(GroundCost):
    """1 − x·y/(|x||y|) = ½|x̂−ŷ|², streamed as the squared distance of directions x̂ = x/|x| and ŷ over √2.

    So it loses no digits between nearly parallel vectors. A length σ is one of chords |x̂−ŷ| and σ² in cost units:
    exp(−c/ε) is the Gaussian kernel of standard deviation σ in the chord.
    """

    makes_features = True

    def __init__(self) -> None:
        super().__init__(power(2))

    def from_length(self, length: float) -> float:
        return super().from_length(length / math.sqrt(2))

    def features(self, name: str, points: Tensor) -> Tensor:
        largest = points.detach().abs().amax(-1, keepdim=True)
        if not is_captured(points) and bool((largest == 0).any()):
            *_, index, _ = (largest == 0).nonzero()[0].tolist()
            raise ValueError(f"{name} holds a zero vector (index {index}), which has no direction for the cosine cost")
        scaled = points / largest  # whose squares stay within the range of the dtype
        return scaled * (2 * scaled.square().sum(-1, keepdim=True)).rsqrt()


class FeatureCost(GroundCost):
    """A learned cost c(φ(x), φ(y)), streamed: ``cost`` between the features that a module φ makes of points.

    Args:
        module: maps points (N, d) to features (N, ...), which are flattened. Its parameters are differentiated like the
            points are. A ``blur`` or ``reach`` is a length between features.
        cost: the cost between features, a name or a `PowerCost`. G18's learned cost is "euclidean".
    """

    makes_features = True

    def __init__(self, module: nn.Module, cost: str | PowerCost = "sqeuclidean") -> None:
        if not isinstance(module, nn.Module):
            raise ValueError(f"module must be a torch.nn.Module, not {type(module).__name__}")
        self.between = cost if isinstance(cost, PowerCost) else _named(cost)
        super().__init__(self.between.cost)
        self.module, self._given = module, cost

    def from_length(self, length: float) -> float:
        return self.between.from_length(length)

    def features(self, name: str, points: Tensor) -> Tensor:
        batch, count = points.shape[:2]
        features: Tensor = self.module(points.flatten(0, 1))
        check_features(features, batch * count)
        features = features.to(points.dtype).reshape(batch, count, -1)
        return self.between.features("what the module of the cost returned", features)

    def __repr__(self) -> str:
        return f"FeatureCost({type(self.module).__name__}, cost={self._given!r})"


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
        return CostMatrix(C, samples.a, samples.b, samples.batched, samples.dtype, samples.unit_masses, forbids=False)


#: The costs that have a name.
NAMED: dict[str, GroundCost] = {**{name: GroundCost(cost) for name, cost in COSTS.items()}, "cosine": CosineCost()}

#: What the ``cost`` of a public function may be.
CostLike: TypeAlias = "str | PowerCost | nn.Module | FeatureCost | Callable[[Tensor, Tensor], Tensor]"


def find_ground_cost(cost: CostLike) -> GroundCost:
    """The ground cost that is meant.

    Raises:
        ValueError: if there is no such cost.
    """
    if isinstance(cost, str):
        return _named(cost)
    if isinstance(cost, GroundCost):
        return cost
    if isinstance(cost, nn.Module):
        return FeatureCost(cost)
    if callable(cost):
        return FunctionCost(cost)
    raise ValueError(f"cost must be {_choices()}, a module, a FeatureCost or a function of (x, y), not {cost!r}")


def _named(name: str) -> GroundCost:
    if not isinstance(name, str) or name not in NAMED:
        raise ValueError(f"cost must be {_choices()}, not {name!r}")
    return NAMED[name]


def _choices() -> str:
    return f"one of {', '.join(map(repr, NAMED))}, a PowerCost"
