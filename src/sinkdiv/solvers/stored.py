"""The Gibbs kernel of a cost matrix, stored: near the potentials it was formed with, softmins are products.

With reference potentials absorbed into it (Schmitzer 2019, §3), K_ij = exp(h⁰_j − C_ij/ε − t_i), where t_i is the
largest exponent of row i. A softmin is then one product with K or Kᵀ and no exponential of a pair:

    −ε log Σ_j exp(h_j − C_ij/ε) = −ε (t_i + log Σ_j K_ij exp(h_j − h⁰_j)).

All terms are positive, so such a softmin is as precise as one in the log domain, unless what was lost in K counts:
entries below `floor` were raised to it, and together they contribute at most floor·Σ_j exp(h_j − h⁰_j). Each product is
checked against that. What differs from Schmitzer's: this exact test in place of a bound on the scalings; and where it
fails the kernel is formed anew by the very pass in the log domain that answers instead, so forming it costs no pass of
its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sinkdiv.geometry.protocol import Dense, Geometry
from sinkdiv.solvers.problem import Limits, Problem, Solution
from sinkdiv.solvers.progress import Progress
from sinkdiv.solvers.step import Iterate

#: Entries that are exponentiated at once: half a megabyte or one, within a core's cache.
TILE_ENTRIES = 2**17

#: Passes in the log domain that `VerifiedProgress` ends with.
VERIFICATION = 2


class StoredKernel(Geometry):
    """The geometry of a cost matrix, with softmins and plan products by stored kernel. Memory: another n·m numbers."""

    def __init__(self, problem: Problem) -> None:
        dense = problem.geometry.dense
        assert dense is not None, "a stored kernel needs costs that can be formed"
        self.inner, self._C = problem.geometry, dense.costs()
        self.shape, self.dtype, self.device = self.inner.shape, self.inner.dtype, self.inner.device
        self._weightless = (problem.a == 0, problem.b == 0)
        self._K = torch.empty_like(self._C)
        self._eps: Tensor | None = None
        self._reference = (torch.zeros_like(problem.a), torch.zeros_like(problem.b))  # (−t, h⁰)
        smallest = torch.finfo(self.dtype).tiny
        self._log_floor = 0.75 * math.log(smallest)
        self._floor = math.exp(self._log_floor) / torch.finfo(self.dtype).eps
        self.passes = 0
        """Softmins so far, in the log domain or by product; plan products are for their caller to add."""

    @property
    def step_passes(self) -> int:
        """What a softmin to each side may cost: twice two, if both products fail."""
        return 2 if self._eps is None else 4

    @property
    def forbids(self) -> bool:
        return self.inner.forbids

    def spread(self) -> Tensor:
        return self.inner.spread()

    def exact(self) -> Geometry:
        return self.inner.exact()

    def ctransform(self, g: Tensor, side: int) -> Tensor:
        return self.inner.ctransform(g, side)

    def cost_product(self, u: Tensor, h: Tensor, eps: Tensor, v: Tensor, side: int) -> Tensor:
        return self.inner.cost_product(u, h, eps, v, side)

    def marginals(self, u: Tensor, h: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner.marginals(u, h, eps)

    def softmin(self, h: Tensor, eps: Tensor, side: int, near: Tensor | None = None) -> Tensor:
        if self._eps is not None and torch.equal(eps, self._eps):
            raw, exact = self._product(h, eps, side)
            if exact:
                return raw
        if side == 0:
            return self._formed(h, eps)
        self.passes += 1
        return self.inner.softmin(h, eps, side)

    def plan_product(self, u: Tensor, h: Tensor, eps: Tensor, v: Tensor, side: int) -> Tensor:
        own, other = (u, h) if side == 0 else (h, u)
        mine, theirs = self._scalings(own, side), self._scalings(other, 1 - side)
        return mine[:, :, None] * torch.bmm(self._K if side == 0 else self._K.mT, theirs[:, :, None] * v)

    @property
    def dense(self) -> Dense:
        return self

    def costs(self) -> Tensor:
        return self._C

    def part(self, which: Tensor) -> Geometry:
        dense = self.inner.dense
        assert dense is not None, "its costs were formed"
        return dense.part(which)

    def plan_matrix(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor:
        return self._scalings(u, 0)[:, :, None] * self._K * self._scalings(h, 1)[:, None, :]

    def _scalings(self, h: Tensor, side: int) -> Tensor:
        return torch.exp(h - self._reference[side])

    def _product(self, h: Tensor, eps: Tensor, side: int) -> tuple[Tensor, bool]:
        """The softmin by product, and whether it is right."""
        self.passes += 1
        scaling = self._scalings(h, 1 - side)
        sums = torch.bmm(self._K if side == 0 else self._K.mT, scaling[:, :, None])[:, :, 0]
        # Written so that NaN and ∞ fail.
        enough = sums > self._floor * scaling.sum(-1, keepdim=True)
        exact = bool((enough | self._weightless[side]).all()) and bool(sums.sum() < torch.inf)
        return self._of_mass(eps * (self._reference[side] - sums.log()), side), exact

    def _formed(self, h: Tensor, eps: Tensor) -> Tensor:
        """The softmin of h in the log domain, whose exponentials become the kernel."""
        self.passes += 1
        batch, n, m = self.shape
        step = max(1, TILE_ENTRIES // (batch * m))
        parts = [self._formed_rows(slice(start, start + step), h, eps) for start in range(0, n, step)]
        top, sums = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        # A column without weight has h = −∞: the kernel says nothing of it, and its scaling is always 0.
        self._eps, self._reference = eps, (-top, torch.where(self._weightless[1], 0.0, h))
        return self._of_mass(-eps * (top + sums.log()), side=0)

    def _of_mass(self, raw: Tensor, side: int) -> Tensor:
        """A softmin without what the kernel does not know: that of points without weight, of which nobody asks it."""
        return torch.where(self._weightless[side], 0.0, raw)

    def _formed_rows(self, rows: slice, h: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Form these rows of the kernel; returns their t and their sums, each (B, r)."""
        K = self._K[:, rows]
        torch.addcmul(h[:, None, :], self._C[:, rows], -1 / eps[:, :, None], out=K)
        top = K.amax(-1, keepdim=True).clamp_(min=torch.finfo(self.dtype).min)
        K.sub_(top).clamp_(min=self._log_floor).exp_()
        return top[:, :, 0], K.sum(-1)


class VerifiedProgress(Progress):
    """Believes no stored kernel: what a solve ends with is measured again, in the log domain, from g alone.

    That costs two passes, for which solvers leave room (`exhausted`). An error that does not hold is corrected, and the
    problem goes on.
    """

    def __init__(self, problem: Problem, kernel: StoredKernel, limits: Limits) -> None:
        super().__init__(problem, limits)
        self.kernel = kernel
        self._verified = torch.zeros_like(self.running)

    def exhausted(self, passes: int | None = None) -> bool:
        """Whether so many more passes, by default those of a step, would leave no room for the verification."""
        passes = self.kernel.step_passes if passes is None else passes
        return self.kernel.passes + passes + VERIFICATION > self.limits.max_passes

    def note(self, iterate: Iterate, at_target: Tensor, eps: Tensor) -> bool:
        """`record` after as many passes as the kernel has counted."""
        error = torch.where(at_target, iterate.error, torch.inf)
        self._keep(iterate, error, self.running & (error <= self.best.error))
        self.passes = torch.where(self.running, self.kernel.passes, self.passes)
        if bool((self.best.error <= self.limits.tol).all()):
            self._verify()
        self.running = ~(self.best.error <= self.limits.tol)
        self._note(error, self.kernel.passes, eps)
        return self._test()

    def solution(self) -> Solution:
        if not bool(self._verified.all()):
            self._verify()
            self.histories[0].append((self.kernel.passes, float(self.best.error.max())))
        return super().solution()

    def _keep(self, iterate: Iterate, error: Tensor, better: Tensor) -> None:
        super()._keep(iterate, error, better)
        self._verified = self._verified & ~better

    def _magnitudes(self) -> Sequence[float]:
        """Where pairs are forbidden potentials have no bound; infeasible supports drive them away for ever."""
        if not self.problem.geometry.forbids:
            return super()._magnitudes()
        g, with_mass = self.best.g, self.problem.b > 0
        highest = torch.where(with_mass, g, -torch.inf).amax(-1)
        extent = highest - torch.where(with_mass, g, torch.inf).amin(-1)
        magnitudes: list[float] = torch.maximum(self.problem.geometry.spread(), extent).tolist()
        return magnitudes

    def _verify(self) -> None:
        problem, eps, g = self.problem, self.problem.eps_column(), self.best.g
        raw_f = problem.raw_potential(g, eps, side=0)
        f = problem.damped(raw_f, eps, side=0)
        raw_g = _softmin_to_columns(problem.geometry, problem.log_weights[0] + f / eps, g, eps)
        g = torch.where(problem.b > 0, g, problem.damped(raw_g, eps, side=1))
        error = problem.residual(g, raw_g, eps, side=1)
        super()._keep(Iterate(f, g, raw_f, raw_g, error), error, ~self._verified)
        self.passes = torch.where(self._verified, self.passes, self.passes + VERIFICATION)
        self.kernel.passes += VERIFICATION
        self._verified = torch.ones_like(self._verified)


def _softmin_to_columns(geometry: Geometry, h: Tensor, near: Tensor, eps: Tensor) -> Tensor:
    """The softmin (B, m) that h (B, n) sends to the columns, for a good guess ``near`` (B, m): one pass.

    With a good guess it is read off the columns' sums, which need no transposed copy of C.
    """
    _, columns = geometry.marginals(h, near / eps, eps)
    far = 1 / torch.finfo(geometry.dtype).tiny ** 0.5
    if bool(((columns > 1 / far) & (columns < far)).all()):
        return near - eps * columns.log()
    return geometry.softmin(h, eps, 1)
