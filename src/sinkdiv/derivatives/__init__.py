"""How a solved problem is differentiated: values first and fast, everything else through the potentials."""

from sinkdiv.derivatives.accuracy import DerivativeWarning
from sinkdiv.derivatives.analytic import SharpValue
from sinkdiv.derivatives.known import Partials, known_result, known_value, pulled_back
from sinkdiv.derivatives.pairing import pairing_of
from sinkdiv.derivatives.second import EntropicHessian
from sinkdiv.derivatives.solved import Solved
from sinkdiv.derivatives.unrolled import Unrolled

__all__ = [
    "DerivativeWarning",
    "EntropicHessian",
    "Partials",
    "SharpValue",
    "Solved",
    "Unrolled",
    "known_result",
    "known_value",
    "pairing_of",
    "pulled_back",
]
