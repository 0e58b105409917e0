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
    """The history of B iterations of vectors (B, m); the small algebra is done in float64."""

    def __init__(self, weights: Tensor, mixing: float, *, modulo_constants: bool) -> None:
        """``mixing`` is β; ``modulo_constants``: vectors that differ by a constant are the same (a gauge)."""
        batch, size = weights.shape
        self.weights = (weights / weights.sum(-1, keepdim=True)).double()
        self.mixing, self.modulo_constants = mixing, modulo_constants
        self.dx, self.dr = weights.new_zeros(2, batch, DEPTH, size)
        self.valid = torch.zeros(batch, DEPTH, dtype=torch.bool, device=weights.device)
        self.newest = 0

    def forget(self, which: Tensor) -> None:
        """Start anew with the iterations marked in ``which`` (B,)."""
        self.valid = self.valid & ~which[:, None]

    def append(self, dx: Tensor, dr: Tensor, which: Tensor) -> None:
        """Take note of a pair (B, m) of differences, for the iterations marked in ``which`` (B,)."""
        self.newest = (self.newest + 1) % DEPTH
        self.dx[:, self.newest], self.dr[:, self.newest] = dx, dr
        self.valid[:, self.newest] = which
        ages = (self.newest - torch.arange(DEPTH, device=dx.device)) % DEPTH
        self.valid = self.valid & ((ages < KEPT) | ~self.valid.all(1, keepdim=True))

    def step(self, r: Tensor) -> Tensor:
        """The step (B, m) from the point with residual ``r``: β r where there is no history."""
        differences = torch.where(self.valid[:, :, None], self.dr, 0.0)
        gram = self.products(torch.cat([differences, r[:, None]], 1))
        gamma = self._least_squares(gram[:, :DEPTH, :DEPTH], gram[:, :DEPTH, DEPTH:]).to(r.dtype)
        change = torch.where(self.valid[:, :, None], self.dx, 0.0) + self.mixing * differences
        return self.mixing * r - (gamma.mT @ change).squeeze(1)

    def products(self, vectors: Tensor) -> Tensor:
        """The inner products (B, k, k) of vectors (B, k, m)."""
        vectors = vectors.double()
        weights = self.weights[:, None]
        if self.modulo_constants:
            vectors = vectors - (weights * vectors).sum(-1, keepdim=True)
        return (weights * vectors) @ vectors.mT

    def norm(self, vector: Tensor) -> Tensor:
        """The norm (B,) of vectors (B, m)."""
        return self.products(vector[:, None])[:, 0, 0].sqrt()

    def _least_squares(self, gram: Tensor, right: Tensor) -> Tensor:
        """γ (B, k, 1) of the regularised normal equations; zero for pairs that are not valid or say nothing."""
        trace = gram.diagonal(dim1=1, dim2=2).sum(-1, keepdim=True)
        ridge = torch.where(self.valid & (trace > 0), RIDGE * trace, 1.0)
        factor, _ = torch.linalg.cholesky_ex(gram + torch.diag_embed(ridge))
        return torch.cholesky_solve(right, factor).nan_to_num(0.0, 0.0, 0.0)
