"""How a solved problem is differentiated: values first and fast, everything else through the potentials."""

from sinkdiv.derivatives.implicit import DerivativeWarning
from sinkdiv.derivatives.known import Partials, known_result, known_value, pulled_back
from sinkdiv.derivatives.solved import Solved

__all__ = ["DerivativeWarning", "Partials", "Solved", "known_result", "known_value", "pulled_back"]
