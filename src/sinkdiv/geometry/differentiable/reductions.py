"""What derivatives ask of a geometry: its reductions as functions that can be differentiated to any order.

They say the same as the reductions of the geometry itself, of tensors with a graph. Weights are factors here, not
logarithms, so that a weight of zero has a derivative. ``costs`` are the tensors that the cost is made of: (x, y)
between points, (C,) for a matrix, () where the costs are fixed. Side 1 is the transposed problem.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from sinkdiv.measures import equalised
from sinkdiv.transforms import Tensors

#: Beyond every density of a plan whose weights are normal numbers; exp of it is finite in float32.
LARGEST_EXPONENT = 80.0


class DifferentiableReductions(ABC):
    """Reductions over the pairs of B problems (B, n, m), at a regularisation ``eps`` (B, 1)."""

    def __init__(self, eps: Tensor) -> None:
        self.eps = eps

    def centred(self, costs: Tensors) -> Tensors:
        """The tensors of the cost as these reductions take them, from those that the caller gave."""
        return costs

    def normalised(self, inputs: Tensors, *, equal_masses: bool) -> Tensors:
        """The caller's (a, b, *costs) as a solver sees them: of equal masses where the marginals are hard, centred."""
        a, b, *costs = inputs
        return a, equalised(b, a) if equal_masses else b, *self.centred(tuple(costs))

    @abstractmethod
    def softmin(self, potential: Tensor, weights: Tensor, costs: Tensors, side: int) -> Tensor:
        """−ε log Σ_j b_j exp((g_j − C_ij)/ε), (B, n), of the other side's potential and weights (B, m)."""

    def kernel_softmin(
        self, potential: Tensor, weights: Tensor, costs: Tensors, side: int, *, positive: bool
    ) -> Tensor:
        """The same by the kernels, where they serve: faster, but it does not share the rounding of `product`.

        Where all weights are known to be ``positive`` its derivative is by the kernels too.
        """
        return self.softmin(potential, weights, costs, side)

    @abstractmethod
    def product(self, f: Tensor, g: Tensor, left: Tensor, right: Tensor, costs: Tensors, side: int) -> Tensor:
        """left_i Σ_j exp((f_i + g_j − C_ij)/ε) right_jk, (B, n, k), for left (B, n) and right (B, m, k)."""

    @abstractmethod
    def plan_cost(self, f: Tensor, g: Tensor, a: Tensor, b: Tensor, costs: Tensors) -> Tensor:
        """<P, C>, (B,)."""

    def plan(self, f: Tensor, g: Tensor, a: Tensor, b: Tensor, costs: Tensors) -> Tensor:
        """P itself, (B, n, m): memory O(nm).

        Raises:
            NotImplementedError: if the geometry has no dense plan.
        """
        raise NotImplementedError("this kind of cost has no dense plan: use apply on vectors instead")
