"""How a cost is reduced over pairs: one class for each shape a cost can have, behind one protocol."""

from sinkdiv.geometry.choice import geometry_of
from sinkdiv.geometry.cloud import CloudGeometry
from sinkdiv.geometry.differentiable import DifferentiableReductions
from sinkdiv.geometry.matrix import MatrixGeometry
from sinkdiv.geometry.protocol import Geometry, Points, RoundedPlan, Whole, WholeProblem, WholeSolution

__all__ = [
    "CloudGeometry",
    "DifferentiableReductions",
    "Geometry",
    "MatrixGeometry",
    "Points",
    "RoundedPlan",
    "Whole",
    "WholeProblem",
    "WholeSolution",
    "geometry_of",
]
