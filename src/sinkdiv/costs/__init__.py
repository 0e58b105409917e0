"""Costs between points.

`powers` has the costs |x−y|ᵖ that kernels know, with the distances they are made of in `distances`. What a user may
give as a cost stands above: `point_costs` (powers of the distance), `cosine`, `features` (learned), `functions` (any
function, as a matrix), the names in `named`, and in `choice` how one of these is chosen.
"""

from sinkdiv.costs.choice import CostLike, point_cost
from sinkdiv.costs.distances import LOW_DIMENSION, squared_distances
from sinkdiv.costs.features import FeatureCost
from sinkdiv.costs.functions import FunctionCost
from sinkdiv.costs.named import NAMED_COSTS
from sinkdiv.costs.point_costs import PointCost, PowerCost
from sinkdiv.costs.powers import COSTS, Cost, Euclidean, SquaredEuclidean, find_cost, power

__all__ = [
    "COSTS",
    "LOW_DIMENSION",
    "NAMED_COSTS",
    "Cost",
    "CostLike",
    "Euclidean",
    "FeatureCost",
    "FunctionCost",
    "PointCost",
    "PowerCost",
    "SquaredEuclidean",
    "find_cost",
    "point_cost",
    "power",
    "squared_distances",
]
