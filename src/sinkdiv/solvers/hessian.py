"""The Hessian of the semi-dual, and the linear systems with it.

Eliminating f by its softmin leaves a concave function of g, whose Hessian is −D/ε with

    D = diag(c + (ε/ρ₂) b e^{−g/ρ₂}) − κ Pᵀ diag(1/r) P,        r = P1, c = Pᵀ1, κ = 1/(1 + ε/ρ₁)

(Q23 §3 for hard marginals, where the second term is absent and κ = 1). With the plan's *actual* marginals r and c it is
the Hessian wherever g is, and positive semidefinite whatever the marginal error. Newton's method, the implicit
derivative and second derivatives all solve systems with D. They do so in the scaled variables √d·s, d the first
diagonal, where D becomes I − κ K̂ᵀK̂ for the scaled plan K̂ = diag(r^−½) P diag(d^−½), whose singular values lie in
[0, 1]: conjugate gradients then take about the square root of the passes that Sinkhorn would. Hard marginals
leave one direction free, a constant added to g; its singular vector √c is deflated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sinkdiv.geometry import Geometry
from sinkdiv.solvers.conjugate_gradients import conjugate_gradients
from sinkdiv.solvers.problem import Problem

#: A scaled plan of at most this many entries is stored, so that products need no exponentials.
STORED_ENTRIES = 2**22

#: Up to this many columns the stored system is factorised, in float64; above, conjugate gradients are mostly faster,
#: and up to the second number it is factorised if they have spent what that costs.
FACTORISED_SIDE = 512
FACTORISABLE_SIDE = 2048

#: Columns whose products with D, formed all at once by a matrix product, take as long as one pass. (A matrix-vector
#: product waits for memory: at 1000 columns, forming and factorising D took as long as 136 of them.)
COLUMNS_A_PASS = 8

#: The rounding of the scaled system, in units of the dtype's: that of sums over rows and columns and of square roots.
ROUNDING = 8

#: The most products with D that conjugate gradients may spend.
MAX_PRODUCTS = 2000


@dataclass(frozen=True)
class LinearSolution:
    """What solves D s = v: ``s`` (B, m, k), and the relative residual (B, k) that was left, of D without a shift.

    ``products`` with D were spent; ``passes`` is all that was done, in passes over the pairs; ``factorised`` tells
    whether D was.
    """

    s: Tensor
    residual: Tensor
    products: int
    passes: int
    factorised: bool


class Plan:
    """The plan P_ij = exp(u_i + h_j − C_ij/ε) of a geometry, stored where it is small, and its actual marginals.

    Everything comes from the same entries: what rounding does to an exponent, which may be large, then changes the plan
    a little, and nothing that is said of it.
    """

    def __init__(self, geometry: Geometry, u: Tensor, h: Tensor, eps: Tensor) -> None:
        self.geometry, self.logarithms = geometry, (u, h, eps)

    def product(self, v: Tensor, side: int) -> Tensor:
        """P v (B, n, k) for v (B, m, k), or on side 1 Pᵀ v."""
        if self.stored is not None:
            return (self.stored if side == 0 else self.stored.mT) @ v
        return self.geometry.plan_product(*self.logarithms, v, side)

    @cached_property
    def marginals(self) -> tuple[Tensor, Tensor]:
        """(P1, Pᵀ1), (B, n) and (B, m)."""
        if self.stored is not None:
            return self.stored.sum(2), self.stored.sum(1)
        return self.geometry.marginals(*self.logarithms)

    @cached_property
    def stored(self) -> Tensor | None:
        """P (B, n, m), if it is small enough to be kept."""
        dense = self.geometry.dense
        if dense is None or math.prod(self.geometry.shape) > STORED_ENTRIES:
            return None
        return dense.plan_matrix(*self.logarithms)


class SemiDualHessian:
    """D at the potential g (B, m), given its softmin ``raw_f`` (B, n).

    Columns of weight zero do not take part: there products are zero, and so are solutions.
    """

    def __init__(self, problem: Problem, g: Tensor, raw_f: Tensor) -> None:
        self._problem, eps = problem, problem.eps_column()
        log_a, log_b = problem.log_weights
        f = problem.damped(raw_f, eps, side=0)
        self.plan = Plan(problem.geometry, log_a + f / eps, log_b + g / eps, eps)
        rows, diagonal = self.plan.marginals
        if not problem.balanced:
            diagonal = diagonal + (eps / problem.rho[1]) * problem.target(g, side=1)
        self._root = diagonal.sqrt()
        self._inverse_root, self._inverse_rows = (
            torch.where(sums > 0, sums.rsqrt(), 0.0)[:, :, None] for sums in (diagonal, rows)
        )
        self._shrinkage = 1 / (1 + eps[:, :, None] / problem.rho[0])

    def solve(
        self, v: Tensor, tol: float, *, shift: Tensor | None = None, terms: Tensor | None = None,
        factorise: bool | None = None, most: int | None = None,
    ) -> LinearSolution:  # fmt: skip
        """s with D s = v for v (B, m, k), to a relative residual of ``tol`` in the norm of v/√d.

        ``shift`` (B,) adds that multiple of d to the diagonal of D. If v is a sum of larger ``terms`` (B, m, k),
        nothing is asked of what their rounding leaves. ``factorise`` at once, if that is possible, or only when
        conjugate gradients have spent as much; the size decides if omitted. They spend ``most`` products, or
        `MAX_PRODUCTS`, in all.
        Hard marginals determine s up to a constant: the one with <c, s> = 0 is returned, and what v has along the
        constants, which no s can match, is ignored.
        """
        side, most = v.shape[1], MAX_PRODUCTS if most is None else most
        possible = side <= FACTORISABLE_SIDE and self.plan.stored is not None
        at_once = possible and (side <= FACTORISED_SIDE if factorise is None else factorise)
        more = torch.zeros_like(v[:, :1, :1]) if shift is None else shift[:, None, None]
        scaled = self._without_constants(v * self._inverse_root)
        least = self._rounded((v if terms is None else terms) * self._inverse_root)
        enough = torch.maximum(tol * scaled.norm(dim=1, keepdim=True), least)
        t, products, passes = torch.zeros_like(scaled), 0, 2
        factor: Tensor | None = None
        unsolved = True
        if not at_once:
            first = min(most, side // (2 * COLUMNS_A_PASS)) if possible else most
            t, products = self._by_conjugate_gradients(scaled, enough, more, first)
            unsolved = possible and products == first
        if unsolved:
            passes += side // COLUMNS_A_PASS
            factor = self._factor if shift is None else self._factorised(more)
            if factor is not None:
                t = self._by_cholesky(scaled, factor)
            else:
                t, count = self._by_conjugate_gradients(scaled, enough, more, most - products)
                products += count
        missing = self._without_constants(scaled - self._apply(t)).norm(dim=1, keepdim=True)
        residual = (tol * missing / enough).squeeze(1)
        s = t * self._inverse_root
        return LinearSolution(s, residual, products, passes + 2 * products, factor is not None)

    def product(self, s: Tensor) -> Tensor:
        """D s, (B, m, k): two passes."""
        return self._root[:, :, None] * self._apply(self._root[:, :, None] * s)

    def _apply(self, t: Tensor) -> Tensor:
        """(I − κ K̂ᵀK̂) t."""
        means = self._inverse_rows.square() * self.plan.product(self._inverse_root * t, 0)
        back = self._inverse_root * self.plan.product(means, 1)
        return torch.where(self._inverse_root > 0, t, 0.0) - self._shrinkage * back

    @cached_property
    def _factor(self) -> Tensor | None:
        return self._factorised(self._root.new_zeros(1, 1, 1))

    def _factorised(self, shift: Tensor) -> Tensor | None:
        """The Cholesky factor (B, m, m) in float64 of the scaled system, its constants moved from 0 to 1."""
        assert self.plan.stored is not None, "only a stored plan is factorised"
        plan = (self._inverse_rows * self.plan.stored * self._inverse_root.mT).double()
        # Squares of what is left here are no subnormal numbers, with which processors are many times slower.
        plan = plan.masked_fill(plan < torch.finfo(plan.dtype).tiny ** 0.5, 0.0)
        system = -self._shrinkage.double() * (plan.mT @ plan)
        if self._problem.balanced:
            system += self._constants.double() @ self._constants.double().mT
        system.diagonal(dim1=-2, dim2=-1).add_(1.0 + shift[:, :, 0].double())
        factor, failures = torch.linalg.cholesky_ex(system)
        return None if bool(failures.any()) else factor

    @cached_property
    def _constants(self) -> Tensor:
        """The unit vectors (B, m, 1) that span the kernel of the scaled system where the marginals are hard."""
        return torch.nn.functional.normalize(self._root, dim=-1)[:, :, None]

    def _without_constants(self, t: Tensor) -> Tensor:
        return t - self._constants * (self._constants * t).sum(1, keepdim=True) if self._problem.balanced else t

    def _by_cholesky(self, v: Tensor, factor: Tensor) -> Tensor:
        t: Tensor = torch.cholesky_solve(v.double(), factor)
        return self._without_constants(t.to(v.dtype))

    def _by_conjugate_gradients(self, v: Tensor, enough: Tensor, shift: Tensor, most: int) -> tuple[Tensor, int]:
        return conjugate_gradients(lambda t: self._apply(t) + shift * t, v, enough, most, self._without_constants)

    def _rounded(self, terms: Tensor) -> Tensor:
        """The norm (B, 1, k) of what rounding leaves of terms (B, m, k) that cancel."""
        least: Tensor = self.rounding[:, None, None] * terms.norm(dim=1, keepdim=True)
        return least.clamp(min=torch.finfo(terms.dtype).tiny)

    @property
    def rounding(self) -> Tensor:
        """How far from 0 rounding may move the smallest eigenvalues, (B,), relative to the largest."""
        return torch.full_like(self._root[:, 0], ROUNDING * torch.finfo(self._root.dtype).eps)
