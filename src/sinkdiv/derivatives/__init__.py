"""How a solved problem is differentiated: values first and fast, everything else through the potentials."""

from sinkdiv.derivatives.accuracy import DerivativeWarning
from sinkdiv.derivatives.attach import attach_result, attach_value
from sinkdiv.derivatives.functions import SolutionFunctions
from sinkdiv.derivatives.hessian_products import EntropicHessian
from sinkdiv.derivatives.sharp import SharpValue
from sinkdiv.derivatives.unrolled import UnrolledIterations

__all__ = [
    "DerivativeWarning",
    "EntropicHessian",
    "SharpValue",
    "SolutionFunctions",
    "UnrolledIterations",
    "attach_result",
    "attach_value",
]
