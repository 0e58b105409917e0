"""The table that picks a geometry: one line for each kind of measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from sinkdiv.costs import Cost
from sinkdiv.geometry.cloud import CloudGeometry
from sinkdiv.geometry.matrix import MatrixGeometry
from sinkdiv.geometry.protocol import Geometry
from sinkdiv.measures import CostMatrix, Measures, Samples


def _of_samples(samples: Samples, costs: Sequence[Tensor], cost: Cost | None, precision: str) -> Geometry:
    assert cost is not None, "there is a cost between points"
    x, y = costs
    return CloudGeometry(x, x if samples.y is samples.x else y, cost, precision=precision)


def _of_matrix(matrix: CostMatrix, costs: Sequence[Tensor], cost: Cost | None, precision: str) -> Geometry:
    return MatrixGeometry(costs[0], forbids=matrix.forbids)


#: How the measures that a user gave become a geometry, from their tensors outside of every graph.
GEOMETRIES: dict[type, Callable[..., Geometry]] = {Samples: _of_samples, CostMatrix: _of_matrix}


def geometry_of(measures: Measures, costs: Sequence[Tensor], cost: Cost | None, precision: str) -> Geometry:
    """The geometry of checked measures; ``costs`` are the detached tensors that their cost is made of.

    ``cost`` is the one that streams between points, None for a matrix. ``precision`` is one of
    `sinkdiv.kernels.PRECISIONS`.
    """
    return GEOMETRIES[type(measures)](measures, costs, cost, precision)
