"""What a solver may ask of a geometry.

Side 0 reduces over the columns and gives one number for each row; side 1 is the same for the transposed problem. For
the meaning of ``u``, ``h`` and ``eps`` see `sinkdiv.kernels.reference`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from sinkdiv.kernels import Reductions, native


class Geometry(ABC):
    """A batch of costs (B, n, m), reachable only through reductions. Holds no graph: all its tensors are detached."""

    shape: tuple[int, int, int]
    dtype: torch.dtype
    device: torch.device
    symmetric: bool = False
    """Whether rows and columns are the same points, so that C is symmetric."""

    @abstractmethod
    def pairs(self, side: int) -> Reductions:
        """The kernels over the pairs of C (side 0) or of Cᵀ (side 1)."""

    @abstractmethod
    def spread(self) -> Tensor:
        """An upper bound (B,) of max C − min C, tight enough to start an annealing from."""

    @abstractmethod
    def gradients(self, u: Tensor, h: Tensor, eps: Tensor, wanted: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        """Σ_ij P_ij ∂C_ij/∂θ for each tensor θ the cost was made of; None where it is not wanted."""

    @abstractmethod
    def to(self, dtype: torch.dtype) -> Geometry:
        """The same geometry computed in another dtype."""

    def native_reductions(self) -> native.AnyReductions | None:
        """The problem as the native kernels take it whole, or None if they do not know its cost."""
        return None

    @property
    def forbids(self) -> bool:
        """Whether some costs are +∞: forbidden pairs."""
        return False

    @property
    def matrix(self) -> Tensor | None:
        """The costs (B, n, m), where they are stored anyway."""
        return None

    def softmin(self, h: Tensor, eps: Tensor, side: int) -> Tensor:
        """−ε log Σ_j exp(h_j − C_ij/ε): one pass."""
        return self.pairs(side).softmin(h, eps)

    def softmin_near(self, h: Tensor, near: Tensor, eps: Tensor, side: int) -> Tensor:
        """The same, of which ``near`` is a guess that may save time: one pass."""
        return self.pairs(side).softmin(h, eps, near)

    def softmin_by_marginal(self, h: Tensor, near: Tensor, eps: Tensor) -> Tensor:
        """The softmin (B, m) that h (B, n) sends to the columns, for a good guess ``near`` (B, m): one pass."""
        return self.softmin_near(h, near, eps, 1)

    def ctransform(self, g: Tensor, side: int) -> Tensor:
        """min_j C_ij − g_j, (B, n), for g (B, m), or (B, m) for g (B, n) on side 1: one pass.

        A point without weight sends −∞, and is not seen.
        """
        return self.pairs(side).ctransform(g)

    def plan_product(self, u: Tensor, h: Tensor, eps: Tensor, v: Tensor, side: int) -> Tensor:
        """P v for v (B, m, k), or Pᵀ v for v (B, n, k) on side 1: one pass. ``u`` always belongs to the rows of P."""
        own, other = (u, h) if side == 0 else (h, u)
        return self.pairs(side).plan_product(own, other, eps, v)

    def plan_cost(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor:
        """<P, C>, (B,): one pass."""
        return self.pairs(0).plan_cost(u, h, eps)

    def plan_matrix(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor:
        """P itself, (B, n, m): memory O(nm)."""
        return self.pairs(0).plan_matrix(u, h, eps)

    def marginals(self, u: Tensor, h: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """P 1, (B, n), and Pᵀ 1, (B, m): one pass for both."""
        return self.pairs(0).marginals(u, h, eps)

    def weighted_marginals(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The sums of P_ij (s_i + t_j + log P_ij) over the columns, (B, n), and rows, (B, m): one pass for both."""
        return self.pairs(0).weighted_marginals(u, h, eps, s, t)

    def corrected_primal(
        self, a: Tensor, b: Tensor, log_u: Tensor, log_h: Tensor, eps: Tensor, p: Tensor, q: Tensor
    ) -> Tensor:
        """The pass behind upper bounds; see `reference.TiledReductions.corrected_primal`."""
        return self.pairs(0).corrected_primal(a, b, log_u, log_h, eps, p, q)
