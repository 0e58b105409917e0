"""A cost between points as a user gives it, and the powers of the distance."""

from __future__ import annotations

import math

from torch import Tensor

from sinkdiv.costs.powers import Cost, Length, power


class PointCost:
    """A cost between points: a streamed cost |φ(x)−φ(y)|ᵖ of what a subclass makes of the points, or of these."""

    makes_features = False
    """Whether the streamed cost sees features of the points instead of the points."""

    def __init__(self, streamed: Cost | None) -> None:
        self.streamed = streamed
        """The cost that streams over pairs; None if the cost comes as a matrix, which knows no lengths."""

    def from_length(self, length: Length) -> Length:
        """The cost units of a length: ε of a blur, ρ of a reach."""
        assert self.streamed is not None, "a matrix knows no lengths"
        return self.streamed.from_length(length)

    def features(self, name: str, points: Tensor) -> Tensor:
        """What the streamed cost sees of the points (B, n, d) of that name: (B, n, k).

        Raises:
            ValueError: naming them, if they have no features.
        """
        return points


class PowerCost(PointCost):
    """|x−y|ᵖ, any power of the Euclidean distance, streamed. A length σ is p·σᵖ in cost units.

    Up to p = 2 the Sinkhorn divergence is positive, as with the named costs, which p = 1 ("euclidean") and p = 2
    ("sqeuclidean") are. Above 2, where exp(−c/ε) is no positive kernel, that is not guaranteed. For p ≤ 1 the gradient
    between coincident points, where there is none, is taken to be 0.

    Args:
        exponent: p > 0.

    Raises:
        ValueError: if the exponent is not a positive finite number.

    Example:
        >>> x, y = torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])
        >>> float(sinkdiv.transport_cost(x, y, eps=0.1, cost=sinkdiv.PowerCost(3)))
        125.0
    """

    def __init__(self, exponent: float) -> None:
        if isinstance(exponent, bool) or not isinstance(exponent, (int, float)) or not 0 < exponent < math.inf:
            raise ValueError(f"exponent must be a positive finite number, not {exponent!r}")
        super().__init__(power(exponent))
        self.exponent = exponent

    def __repr__(self) -> str:
        return f"PowerCost({self.exponent!r})"
