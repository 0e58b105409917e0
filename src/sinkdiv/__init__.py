"""Sinkhorn divergences that can be trusted, in PyTorch."""

from sinkdiv.costs import FeatureCost, PowerCost
from sinkdiv.derivatives import DerivativeWarning
from sinkdiv.divergence import Divergence
from sinkdiv.functional import sinkhorn_divergence, solve, solve_divergence, solve_matrix, transport_cost
from sinkdiv.losses import MMD, SinkhornDivergence, TransportCost
from sinkdiv.mmd import mmd
from sinkdiv.solvers import Check, Status
from sinkdiv.solvers.choice import LBFGS, Auto, Newton, Sinkhorn, Unrolled
from sinkdiv.solving import ConvergenceWarning
from sinkdiv.transport import Transport

__version__ = "0.1.0"

__all__ = [
    "LBFGS",
    "MMD",
    "Auto",
    "Check",
    "ConvergenceWarning",
    "DerivativeWarning",
    "Divergence",
    "FeatureCost",
    "Newton",
    "PowerCost",
    "Sinkhorn",
    "SinkhornDivergence",
    "Status",
    "Transport",
    "TransportCost",
    "Unrolled",
    "__version__",
    "mmd",
    "sinkhorn_divergence",
    "solve",
    "solve_divergence",
    "solve_matrix",
    "transport_cost",
]
