"""The costs between points that have a name."""

from __future__ import annotations

from sinkdiv.costs.cosine import CosineCost
from sinkdiv.costs.point_costs import PointCost
from sinkdiv.costs.powers import COSTS

#: The costs that a user may name.
NAMED_COSTS: dict[str, PointCost] = {
    **{name: PointCost(cost) for name, cost in COSTS.items()},
    "cosine": CosineCost(),
}


def named_cost(name: str) -> PointCost:
    """The cost of that name.

    Raises:
        ValueError: if there is none.
    """
    if not isinstance(name, str) or name not in NAMED_COSTS:
        raise ValueError(
            f"cost must be one of {', '.join(map(repr, NAMED_COSTS))}, a PowerCost, a module, a FeatureCost "
            f"or a function of (x, y), not {name!r}"
        )
    return NAMED_COSTS[name]
