"""Anderson's extrapolation of a fixed-point iteration x ← x + r(x), for a batch of iterations that go their own ways.

Type II, in differences: from the last few (Δx_j, Δr_j) it finds the combination whose residual is least,

    γ = argmin |r − Σ γ_j Δr_j|,    step = β r − Σ γ_j (Δx_j + β Δr_j),

in the norm given by the weights of the points: a point without mass has no say. Near a solution Sinkhorn's residuals
are the semi-dual's gradient in just this norm, in which its Hessian has the spectrum of a contraction.

What differs from the textbook: when the history is full all but its newest pairs are dropped at once. With a window
that slides by one pair the iteration stagnates on problems with many slow modes (docs/decisions/0006).
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Pairs that a full history holds, and those it keeps when it starts anew.
DEPTH = 8
KEPT = 2

#: Regularisation of the normal equations, relative to their trace.
RIDGE = 1e-8


class Anderson:
    """The history of B iterations of vectors (B, m); the small algebra is done in float64.

    Vectors are kept and multiplied one pair at a time: operations on all of them at once would start PyTorch's threads,
    which then spin beside those of the next pass.
    """

    def __init__(self, weights: Tensor, mixing: float, *, modulo_constants: bool) -> None:
        """``mixing`` is β; ``modulo_constants``: vectors that differ by a constant are the same (a gauge)."""
        batch = weights.shape[0]
        self.weights = (weights / weights.sum(-1, keepdim=True)).double()
        self.mixing, self.modulo_constants = mixing, modulo_constants
        zeros = torch.zeros_like(weights)
        self.dx, self.dr = [zeros] * DEPTH, [zeros] * DEPTH
        self.weighted = [torch.zeros_like(self.weights)] * DEPTH  # the weights times Δr_j, centred
        self.gram = self.weights.new_zeros(batch, DEPTH, DEPTH)
        self.valid = torch.zeros(batch, DEPTH, dtype=torch.bool, device=weights.device)
        self._indices = torch.arange(DEPTH, device=weights.device)
        self.newest = 0

    def forget(self, which: Tensor) -> None:
        """Start anew with the iterations marked in ``which`` (B,)."""
        self.valid = self.valid & ~which[:, None]

    def append(self, dx: Tensor, dr: Tensor, which: Tensor) -> None:
        """Take note of a pair (B, m) of differences, for the iterations marked in ``which`` (B,)."""
        self.dx[self._next], self.dr[self._next] = dx, dr
        centred = self._centred(dr)
        self.weighted[self._next] = self.weights * centred
        self._note(centred, which)

    def step(self, r: Tensor) -> Tensor:
        """The step (B, m) from the point with residual ``r``: β r where there is no history."""
        gamma = self._least_squares(self._products(r.double())).to(r.dtype)
        step = self.mixing * r
        for j in range(DEPTH):
            step = step - gamma[:, j, None] * (self.dx[j] + self.mixing * self.dr[j])
        return step

    @property
    def _next(self) -> int:
        return (self.newest + 1) % DEPTH

    def _note(self, centred: Tensor, which: Tensor) -> None:
        """Take the pair that was stored last, with Δr centred, into the normal equations."""
        self.newest = newest = self._next
        self.gram[:, newest] = self.gram[:, :, newest] = self._products(centred)
        self.valid[:, newest] = which
        ages = (newest - self._indices) % DEPTH
        self.valid = self.valid & ((ages < KEPT) | ~self.valid.all(1, keepdim=True))

    def norm(self, vector: Tensor) -> Tensor:
        """The norm (B,) of vectors (B, m)."""
        return (self.weights * self._centred(vector).square()).sum(-1).sqrt()

    def _products(self, vector: Tensor) -> Tensor:
        """The inner products (B, DEPTH) of a vector (B, m) with all Δr_j."""
        return torch.stack([(weighted * vector).sum(-1) for weighted in self.weighted], -1)

    def _centred(self, vector: Tensor) -> Tensor:
        vector = vector.double()
        return vector - (self.weights * vector).sum(-1, keepdim=True) if self.modulo_constants else vector

    def _least_squares(self, right: Tensor) -> Tensor:
        """γ (B, DEPTH) of the regularised normal equations; zero for pairs that are not valid or say nothing."""
        gram = torch.where(self.valid[:, :, None] & self.valid[:, None, :], self.gram, 0.0)
        trace = gram.diagonal(dim1=1, dim2=2).sum(-1, keepdim=True)
        ridge = torch.where(self.valid & (trace > 0), RIDGE * trace, 1.0)
        factor, _ = torch.linalg.cholesky_ex(gram + torch.diag_embed(ridge))
        right = torch.where(self.valid, right, 0.0)[:, :, None]
        # Not by cholesky_solve, which may leave a batch on CUDA to MAGMA, and that waits for the device.
        half = torch.linalg.solve_triangular(factor, right, upper=False)
        gamma: Tensor = torch.linalg.solve_triangular(factor.mT, half, upper=True)[:, :, 0]
        return gamma.nan_to_num(0.0, 0.0, 0.0)


class StackedAnderson(Anderson):
    """The same with all pairs in one tensor: fewer, larger operations, where their threads are no matter."""

    def __init__(self, weights: Tensor, mixing: float, *, modulo_constants: bool) -> None:
        super().__init__(weights, mixing, modulo_constants=modulo_constants)
        batch, m = weights.shape
        self._mixed = weights.new_zeros(batch, DEPTH, m)  # Δx_j + β Δr_j
        self._weighted = self.weights.new_zeros(batch, DEPTH, m)

    def append(self, dx: Tensor, dr: Tensor, which: Tensor) -> None:
        self._mixed[:, self._next] = torch.add(dx, dr, alpha=self.mixing)
        centred = self._centred(dr)
        torch.mul(self.weights, centred, out=self._weighted[:, self._next])
        self._note(centred, which)

    def step(self, r: Tensor) -> Tensor:
        gamma = self._least_squares(self._products(r.double())).to(r.dtype)
        return torch.baddbmm(r[:, None, :], gamma[:, None, :], self._mixed, beta=self.mixing, alpha=-1)[:, 0]

    def _products(self, vector: Tensor) -> Tensor:
        return torch.bmm(self._weighted, vector[:, :, None])[:, :, 0]


def suited_to(device: torch.device) -> type[Anderson]:
    """On accelerators each operation is a launch, of which the second has half as many."""
    return Anderson if device.type == "cpu" else StackedAnderson
