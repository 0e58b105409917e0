"""Sinkhorn's iteration as a differentiable program: the derivative of G18 and P19.

A fixed number of plain iterations at the target ε, from g = 0, is differentiated as it is; what it returns is the value
of the plan that it has reached, converged or not. Each softmin forms its tiles anew when it is differentiated, so the
memory is that of the potentials, not of a matrix for each iteration.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sinkdiv.geometry import DifferentiableReductions
from sinkdiv.transforms import Tensors


class UnrolledIterations:
    """The plan after ``iterations`` updates of both potentials, as a function of (a, b, *costs)."""

    def __init__(
        self, reductions: DifferentiableReductions, rho: tuple[float, float], iterations: int, *, positive: bool
    ) -> None:
        """``positive`` tells whether all weights are known to be."""
        self._reductions, self._rho, self._iterations, self._positive = reductions, rho, iterations, positive

    def sharp(self, a: Tensor, b: Tensor, costs: Tensors) -> Tensor:
        """<P, C>, (B,)."""
        f, g = self._potentials(a, b, costs)
        return self._reductions.plan_cost(f, g, a, b, costs)

    def entropic(self, a: Tensor, b: Tensor, costs: Tensors) -> Tensor:
        """The dual value of the potentials, (B,)."""
        f, g = self._potentials(a, b, costs)
        plan_mass = self._reductions.product(f, g, a, b[:, :, None], costs, side=0).sum((1, 2))
        gains = _gain(a, f, self._rho[0]) + _gain(b, g, self._rho[1])
        return gains - self._reductions.eps[:, 0] * (plan_mass - a.sum(-1) * b.sum(-1))

    def _potentials(self, a: Tensor, b: Tensor, costs: Tensors) -> tuple[Tensor, Tensor]:
        f, g = torch.zeros_like(a), torch.zeros_like(b)
        damping = [1 / (1 + self._reductions.eps / rho) for rho in self._rho]
        for _ in range(self._iterations):
            f = self._reductions.kernel_softmin(g, b, costs, side=0, positive=self._positive) * damping[0]
            g = self._reductions.kernel_softmin(f, a, costs, side=1, positive=self._positive) * damping[1]
        return f, g


def _gain(weights: Tensor, potential: Tensor, rho: float) -> Tensor:
    gain = potential if math.isinf(rho) else -rho * torch.expm1(-potential / rho)
    return (weights * gain).sum(-1)
