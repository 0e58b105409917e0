"""Sinkhorn divergences that can be trusted, in PyTorch."""

from sinkdiv.derivatives import DerivativeWarning
from sinkdiv.divergence import Divergence, sinkhorn_divergence, solve_divergence
from sinkdiv.ground import FeatureCost, PowerCost
from sinkdiv.losses import MMD, SinkhornDivergence, TransportCost
from sinkdiv.mmd import mmd
from sinkdiv.settings import ConvergenceWarning
from sinkdiv.solvers import Check, Status
from sinkdiv.solving import solve, solve_matrix, transport_cost
from sinkdiv.transport import Transport

__version__ = "0.1.0"

__all__ = [
    "MMD",
    "Check",
    "ConvergenceWarning",
    "DerivativeWarning",
    "Divergence",
    "FeatureCost",
    "PowerCost",
    "SinkhornDivergence",
    "Status",
    "Transport",
    "TransportCost",
    "__version__",
    "mmd",
    "sinkhorn_divergence",
    "solve",
    "solve_divergence",
    "solve_matrix",
    "transport_cost",
]
