"""What solvers, certificates and derivatives may ask of a geometry.

A geometry is a batch of cost matrices C (B, n, m) that can be reached through reductions over their pairs only. A new
kind of cost (a grid, tiles, points on several machines) subclasses `Geometry` and writes its six abstract methods;
everything else is derived from them, and may be overridden where there is a faster way. What only some geometries have
is a *capability*: an attribute that is None where there is none. Callers ask for it, and never for a class.

Side 0 reduces over the columns and gives one number for each row; side 1 is the same for the transposed problem. Plans
are given by their scaled logarithms: P_ij = exp(u_i + h_j − C_ij/ε) with u = log a + f/ε (B, n), which always belongs
to the rows, and h = log b + g/ε (B, m). ε is (B, 1).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from sinkdiv.geometry.differentiable import DifferentiableReductions, OfFixedCosts
from sinkdiv.transforms import Partials


@dataclass(frozen=True)
class RoundedPlan:
    """A plan that was made feasible, by its density s_ij = exp(u_i + h_j − C_ij/ε) + p_i q_j relative to a bᵀ.

    ``a``, ``u`` and ``p`` are (B, n), ``b``, ``h`` and ``q`` (B, m), ``eps`` (B, 1). The first term is what scaling has
    left of a plan, the second is the rank-one correction that gives it exact marginals.
    """

    a: Tensor
    b: Tensor
    u: Tensor
    h: Tensor
    eps: Tensor
    p: Tensor
    q: Tensor


class Geometry(ABC):
    """A batch of costs (B, n, m). Holds no graph: all its tensors are detached."""

    shape: tuple[int, int, int]
    dtype: torch.dtype
    device: torch.device
    symmetric: bool = False
    """Whether rows and columns are the same points, so that C is symmetric."""

    # What every geometry writes.

    @abstractmethod
    def spread(self) -> Tensor:
        """An upper bound (B,) of max C − min C, tight enough to start an annealing from."""

    @abstractmethod
    def softmin(self, h: Tensor, eps: Tensor, side: int, near: Tensor | None = None) -> Tensor:
        """−ε log Σ_j exp(h_j − C_ij/ε): one pass. ``near`` is a guess of the result that may save time."""

    @abstractmethod
    def ctransform(self, g: Tensor, side: int) -> Tensor:
        """min_j C_ij − g_j, (B, n), for g (B, m), or (B, m) for g (B, n) on side 1: one pass.

        A point without weight sends −∞, which takes it out of the minimum.
        """

    @abstractmethod
    def plan_product(self, u: Tensor, h: Tensor, eps: Tensor, v: Tensor, side: int) -> Tensor:
        """P v, (B, n, k), for v (B, m, k), or Pᵀ v, (B, m, k), for v (B, n, k) on side 1: one pass."""

    @abstractmethod
    def cost_product(self, u: Tensor, h: Tensor, eps: Tensor, v: Tensor, side: int) -> Tensor:
        """(P∘C) v, likewise. An ε of +∞ leaves P_ij = exp(u_i + h_j)."""

    @abstractmethod
    def exact(self) -> Geometry:
        """The same costs in float64, with no pair left out."""

    # What follows from it.

    @property
    def price(self) -> int:
        """What a pass costs: in pairs, where they are visited one by one."""
        return math.prod(self.shape)

    @property
    def forbids(self) -> bool:
        """Whether some costs are +∞: forbidden pairs."""
        return False

    def marginals(self, u: Tensor, h: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """P 1, (B, n), and Pᵀ 1, (B, m)."""
        rows = self.plan_product(u, h, eps, torch.ones_like(h)[:, :, None], 0)
        columns = self.plan_product(u, h, eps, torch.ones_like(u)[:, :, None], 1)
        return rows.squeeze(-1), columns.squeeze(-1)

    def plan_cost(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor:
        """<P, C>, (B,)."""
        return self.cost_product(u, h, eps, torch.ones_like(h)[:, :, None], 0).sum((1, 2))

    def weighted_marginals(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The sums of P_ij (s_i + t_j + log P_ij) over the columns, (B, n), and over the rows, (B, m)."""
        return self._weighted_sums(u, h, eps, s, t, 0), self._weighted_sums(u, h, eps, s, t, 1)

    def energy(self, plan: RoundedPlan) -> Tensor:
        """An upper bound (B,) of Σ_ij a_i b_j s_ij (C_ij + ε log s_ij) for the density s of a rounded plan.

        Where pairs are visited one by one it is the sum itself. Here the logarithm of the sum of both parts is bounded
        by those of the parts (the log-sum inequality): that is too much by at most ε times the entropy of the two
        masses, and needs passes over the parts alone, which factorise wherever the kernel does.
        """
        a, b, eps = plan.a, plan.b, plan.eps
        log_a, log_b = a.log(), b.log()
        rows, columns = self.marginals(log_a + plan.u, log_b + plan.h, eps)
        kept = eps[:, 0] * (_times(rows, plan.u).sum(-1) + _times(columns, plan.h).sum(-1))
        p, q = a * plan.p, b * plan.q
        p_mass, q_mass = p.sum(-1), q.sum(-1)
        moved = self.plan_cost(p.log(), q.log(), torch.full_like(eps, torch.inf))
        entropy = _times(p, plan.p.log()).sum(-1) * q_mass + p_mass * _times(q, plan.q.log()).sum(-1)
        parts = torch.stack([rows.sum(-1), p_mass * q_mass])
        mixing = torch.xlogy(parts, parts.sum(0)).sum(0) - torch.xlogy(parts, parts).sum(0)
        return kept + moved + eps[:, 0] * (entropy + mixing)

    # Derivatives in the tensors θ that the cost is made of.

    def gradients(self, u: Tensor, h: Tensor, eps: Tensor, wanted: tuple[bool, ...]) -> Partials:
        """Σ_ij P_ij ∂C_ij/∂θ for each tensor θ; None where it is not wanted."""
        return ()

    def weighted_gradients(
        self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor, wanted: tuple[bool, ...]
    ) -> Partials:
        """Σ_ij P_ij (s_i + t_j + log P_ij) ∂C_ij/∂θ for each tensor θ, None where it is not wanted.

        Where both sides are one, u is h and s is t, that in x and that in y are the same.
        """
        return ()

    def differentiable(self, eps: Tensor) -> DifferentiableReductions:
        """The reductions as functions that can be differentiated to any order."""
        return OfFixedCosts(eps, self)

    # Capabilities.

    @property
    def dense(self) -> Dense | None:
        """The costs and the plan as matrices, where there is a way to form them."""
        return None

    @property
    def points(self) -> Points | None:
        """The points that the costs are between, where there are such."""
        return None

    @property
    def whole(self) -> Whole | None:
        """What solves small problems of this kind in one call, where these are small and there is such."""
        return None

    @property
    def batch_kind(self) -> object | None:
        """What geometries must have in common to be `joined`; None where this one cannot be joined with others."""
        return None

    def joined(self, others: Sequence[Geometry]) -> Geometry:
        """One geometry of all the problems of this one and of ``others``, padded to equal sizes.

        Raises:
            NotImplementedError: if `batch_kind` is None.
        """
        raise NotImplementedError("geometries of this kind are solved one after the other")

    def _weighted_sums(self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor, side: int) -> Tensor:
        own, other = (s + u, t + h) if side == 0 else (t + h, s + u)
        one = torch.ones_like(other)
        weighted = torch.where(other == -torch.inf, 0.0, other)  # without mass, as its own sum is
        sums = self.plan_product(u, h, eps, torch.stack([one, weighted], -1), side)
        costs = self.cost_product(u, h, eps, one[:, :, None], side).squeeze(-1)
        return _times(sums[:, :, 0], own) + sums[:, :, 1] - costs / eps


class Dense(Protocol):
    """The costs and the plan as matrices: memory O(nm)."""

    def costs(self) -> Tensor:
        """C, (B, n, m)."""

    def plan_matrix(self, u: Tensor, h: Tensor, eps: Tensor) -> Tensor:
        """P, (B, n, m): one pass."""

    def part(self, which: Tensor) -> Geometry:
        """The geometry of the problems of the batch that are marked in ``which`` (B,)."""


class Points(Protocol):
    """Costs between points x (B, n, d) and y (B, m, d), from which ``center`` (B, 1, d) has been subtracted."""

    @property
    def x(self) -> Tensor: ...
    @property
    def y(self) -> Tensor: ...
    @property
    def center(self) -> Tensor: ...

    def at(self, points: Tensor, side: int) -> Geometry:
        """The geometry whose rows are new points (B, k, d) and whose columns are y (side 0) or x (side 1)."""

    def resembles(self, other: Points) -> bool:
        """Whether the other's points could be these: as many problems, of one dimension, dtype, device and cost."""

    def tangent_marginals(self, u: Tensor, h: Tensor, eps: Tensor, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_j P_ij Ċ_ij, (B, n), and Σ_i P_ij Ċ_ij, (B, m), as x moves along dx and y along dy: one pass for both."""

    def gradient_tangent(
        self, u: Tensor, h: Tensor, eps: Tensor, s: Tensor, t: Tensor, dx: Tensor, dy: Tensor, side: int
    ) -> Tensor:
        """The derivative of one of the `Geometry.gradients` as u, h, x and y move along s, t, dx and dy: one pass.

        Of that in x, (B, n, d), or on side 1 of that in y, (B, m, d).
        """


@dataclass(frozen=True)
class WholeProblem:
    """A batch of problems that is solved whole.

    ``geometry`` is of the kind that `Whole` belongs to; weights ``a`` (B, n) and ``b`` (B, m), an ``eps`` for each
    problem, strengths ``rho`` and ``symmetric`` as in `sinkdiv.solvers.Problem`. ``start`` is a potential g (B, m) to
    start from, ``checks`` how many convergence tests are recorded, and ``differentiate`` tells whether the gradient in
    the first points is wanted.
    """

    geometry: Any
    a: Tensor
    b: Tensor
    eps: tuple[float, ...]
    rho: tuple[float, float]
    symmetric: bool
    start: Tensor | None
    checks: int
    differentiate: bool


@dataclass(frozen=True)
class WholeSolution:
    """A batch of problems after its solve.

    ``results`` (B, k) holds of each problem f (n), raw_f (n), g (m), raw_g (m), the marginal error, the dual value and
    the spread of its cost; g and raw_g are left out if the problem is symmetric. ``passes`` is (B,), int64; ``errors``
    (B, checks) are those at the first convergence tests, NaN above the target ε. ``gradient`` (B, n, d) is
    Σ_j P_ij ∂c(x_i, y_j)/∂x_i, where it was asked for and this kind of solve has it at hand.
    """

    results: Tensor
    passes: Tensor
    errors: Tensor
    gradient: Tensor | None = None


class Whole(Protocol):
    """Solves small problems whole, without Python between two passes."""

    joins: bool
    """Whether problems of resembling sizes are better solved as one batch."""

    def solve(self, problems: Sequence[WholeProblem], tol: float, max_passes: int) -> list[WholeSolution]:
        """Solve problems of one dtype and device, each as its algorithm in `sinkdiv.solvers` would."""


def _times(mass: Tensor, number: Tensor) -> Tensor:
    """mass·number, and 0 where there is no mass, whatever the number."""
    return torch.where(mass == 0, 0.0, mass * number)
