"""A cost between learned features."""

from __future__ import annotations

from torch import Tensor, nn

from sinkdiv import checks
from sinkdiv.costs.named import named_cost
from sinkdiv.costs.point_costs import PointCost, PowerCost
from sinkdiv.costs.powers import Length


class FeatureCost(PointCost):
    """A learned cost c(φ(x), φ(y)), streamed: ``cost`` between the features that a module φ makes of points.

    Args:
        module: maps points (N, d) to features (N, ...), which are flattened. Its parameters are differentiated like the
            points are. A ``blur`` or ``reach`` is a length between features.
        cost: the cost between features, a name or a `PowerCost`. G18's learned cost is "euclidean".

    Raises:
        ValueError: naming the argument that is wrong.

    Example:
        >>> features = torch.nn.Linear(3, 2)
        >>> x, y = torch.randn(50, 3), torch.randn(40, 3)
        >>> loss = sinkdiv.sinkhorn_divergence(x, y, blur=0.5, cost=sinkdiv.FeatureCost(features, cost="euclidean"))
        >>> loss.backward()
        >>> features.weight.grad.shape
        torch.Size([2, 3])
    """

    makes_features = True

    def __init__(self, module: nn.Module, cost: str | PowerCost = "sqeuclidean") -> None:
        if not isinstance(module, nn.Module):
            raise ValueError(f"module must be a torch.nn.Module, not {type(module).__name__}")
        self.between = cost if isinstance(cost, PowerCost) else named_cost(cost)
        super().__init__(self.between.streamed)
        self.module, self._given = module, cost

    def from_length(self, length: Length) -> Length:
        return self.between.from_length(length)

    def features(self, name: str, points: Tensor) -> Tensor:
        batch, count = points.shape[:2]
        features: Tensor = self.module(points.flatten(0, 1))
        _check_features(features, batch * count)
        features = features.to(points.dtype).reshape(batch, count, -1)
        return self.between.features("what the module of the cost returned", features)

    def __repr__(self) -> str:
        return f"FeatureCost({type(self.module).__name__}, cost={self._given!r})"


def _check_features(features: Tensor, count: int) -> None:
    """Check what the module made of ``count`` points."""
    name = "what the module of the cost returned"
    checks.check_operand(name, features)
    if features.ndim < 2 or features.shape[0] != count:
        shape = checks.shape_text(features)
        raise ValueError(f"{name} must have shape ({count}, ...), one row for each point, not {shape}")
