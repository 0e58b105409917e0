"""How accurately the linear systems behind derivatives are solved, and what is said where that failed."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

#: How much more accurate a linear system is than the solution it differentiates, unless it is posed for a difference.
ACCURACY = 0.1

#: The least relative residual that is asked of a linear system, in units of the dtype's rounding.
RESOLUTION = 64


#: How many times the wanted residual is accepted: what keeps nearly singular systems solvable leaves a few.
SLACK = 10


class DerivativeWarning(UserWarning):
    """A linear system behind a derivative was not solved as accurately as the problem itself."""


def least_residual(dtype: torch.dtype) -> float:
    """The least relative residual that can be asked of a linear system."""
    return RESOLUTION * torch.finfo(dtype).eps


def report(residual: Tensor, wanted: float) -> None:
    """Warn if the relative residual (B, k) of a linear system is not what was wanted."""
    worst = float(residual.max())
    if not worst <= SLACK * wanted:
        warnings.warn(
            f"the linear system of a derivative was solved to a relative residual of {worst:.1e} only, and not to "
            f"{wanted:.1e}: the derivative may be that inaccurate. Use float64, or a larger eps (blur)",
            DerivativeWarning,
            stacklevel=3,
        )
