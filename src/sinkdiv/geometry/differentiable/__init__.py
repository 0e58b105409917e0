"""A geometry's reductions as functions that can be differentiated: one file a kind of cost."""

from sinkdiv.geometry.differentiable.fixed import OfFixedCosts
from sinkdiv.geometry.differentiable.reductions import DifferentiableReductions
from sinkdiv.geometry.differentiable.tiled import OfMatrix, OfPoints

__all__ = ["DifferentiableReductions", "OfFixedCosts", "OfMatrix", "OfPoints"]
