"""What the ``cost`` of a public function may be: a name, a power, a learned module, any function."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn

from sinkdiv.costs.features import FeatureCost
from sinkdiv.costs.functions import FunctionCost
from sinkdiv.costs.named import NAMED_COSTS, named_cost
from sinkdiv.costs.point_costs import PointCost, PowerCost

CostLike: TypeAlias = str | PowerCost | nn.Module | FeatureCost | Callable[[Tensor, Tensor], Tensor]


def point_cost(cost: CostLike) -> PointCost:
    """The cost between points that is meant.

    Raises:
        ValueError: if there is no such cost.
    """
    if isinstance(cost, str):
        return named_cost(cost)
    if isinstance(cost, PointCost):
        return cost
    if isinstance(cost, nn.Module):
        return FeatureCost(cost)
    if callable(cost):
        return FunctionCost(cost)
    names = ", ".join(map(repr, NAMED_COSTS))
    raise ValueError(
        f"cost must be one of {names}, a PowerCost, a module, a FeatureCost or a function of (x, y), not {cost!r}"
    )
