"""The cosine cost, streamed as a squared distance between directions."""

from __future__ import annotations

import math

from torch import Tensor

from sinkdiv import checks
from sinkdiv.costs.point_costs import PointCost
from sinkdiv.costs.powers import Length, power


class CosineCost(PointCost):
    """1 − x·y/(|x||y|) = ½|x̂−ŷ|², streamed as the squared distance of directions x̂ = x/|x| and ŷ over √2.

    So it loses no digits between nearly parallel vectors. A length σ is one of chords |x̂−ŷ| and σ² in cost units:
    exp(−c/ε) is the Gaussian kernel of standard deviation σ in the chord.
    """

    makes_features = True

    def __init__(self) -> None:
        super().__init__(power(2))

    def from_length(self, length: Length) -> Length:
        return super().from_length(length / math.sqrt(2))

    def features(self, name: str, points: Tensor) -> Tensor:
        largest = points.detach().abs().amax(-1, keepdim=True)
        if not checks.is_captured(points) and bool((largest == 0).any()):
            *_, index, _ = (largest == 0).nonzero()[0].tolist()
            raise ValueError(f"{name} holds a zero vector (index {index}), which has no direction for the cosine cost")
        scaled = points / largest  # whose squares stay within the range of the dtype
        return scaled * (2 * scaled.square().sum(-1, keepdim=True)).rsqrt()
