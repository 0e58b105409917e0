"""The problem a solver is given, the limits it keeps, and the solution it returns."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sinkdiv.geometry import Geometry
from sinkdiv.transforms import outside

History = tuple[tuple[int, float], ...]


class Status(enum.Enum):
    """How a solve ended. ``str(status)`` is a sentence."""

    CONVERGED = "converged: the marginal error is below the tolerance"
    MAX_PASSES = (
        "not converged: max_passes was reached before the marginal error fell below tol; "
        "raise max_passes, or accept a larger eps (blur) or tol"
    )
    PRECISION = (
        "not converged: tol is below what this dtype can resolve at this eps; "
        "use float64, or a larger eps (blur) or tol"
    )
    STOPPED = "not converged: the callback ended the solve"
    FIXED = "ended: max_passes passes were spent, as tol=None asks; marginal_error tells how close it came"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Check:
    """What a callback sees at each convergence test; numbers are those of the problem that is furthest from done."""

    passes: int
    eps: float
    marginal_error: float
    """NaN while the annealing is still above the target ε."""
    unfinished: int
    """How many problems of the batch are still being solved."""


@dataclass(frozen=True)
class Limits:
    """When to stop: at a relative L1 marginal error of ``tol``, after ``max_passes``, or when ``watch`` says True.

    A ``tol`` of −∞, which no error meets, asks for just ``max_passes`` and no test: a solve then never makes the host
    wait for the device.
    """

    tol: float
    max_passes: int
    watch: Callable[[Check], bool] | None = None

    @property
    def tested(self) -> bool:
        """Whether the solve ends when a marginal error is small enough."""
        return self.tol > -math.inf


@dataclass(frozen=True)
class Start:
    """The second potential g (B, m) to start from: that of a similar problem, solved before."""

    g: Tensor


@dataclass(frozen=True)
class Problem:
    """min <P,C> + ε KL(P|abᵀ) subject to, or softly attracted by (ρ < ∞), the marginals a and b.

    ``a`` (B, n) and ``b`` (B, m) are detached; ``b`` has been scaled to a's mass where the problem is balanced.
    ``eps`` holds the regularisation of each of the B problems, as numbers of the host: no device is waited for to know
    them.
    ``rho`` holds the strengths for the rows and the columns: both finite, or both infinite for hard constraints.
    ``parts`` tells how many of the batch belong to each of several problems that were joined; () if there is one only.
    """

    geometry: Geometry
    a: Tensor
    b: Tensor
    eps: tuple[float, ...]
    rho: tuple[float, float]
    parts: tuple[int, ...] = ()

    @property
    def balanced(self) -> bool:
        """Whether the marginals are hard constraints."""
        return math.isinf(self.rho[0])

    @cached_property
    def symmetric(self) -> bool:
        """Whether swapping rows and columns changes nothing, so that both potentials are equal."""
        return self.geometry.symmetric and self.a is self.b and self.rho[0] == self.rho[1]

    @cached_property
    def log_weights(self) -> tuple[Tensor, Tensor]:
        """(log a, log b)."""
        return self.a.log(), self.b.log()

    @cached_property
    def spreads(self) -> tuple[float, ...]:
        """The spread of each problem's cost, read from the device once."""
        return tuple(self.geometry.spread().tolist())

    def eps_column(self) -> Tensor:
        """ε as (B, 1), in the dtype and on the device of the problem."""
        return self._eps_column

    @cached_property
    def _eps_column(self) -> Tensor:
        column: Tensor = outside(self._made_eps_column)  # it is kept: no transform may wrap it
        return column

    def _made_eps_column(self) -> Tensor:
        if len(set(self.eps)) == 1:  # filled in without a copy from the host
            return self.a.new_full((len(self.eps), 1), self.eps[0])
        return self.a.new_tensor(self.eps)[:, None]

    def raw_potential(self, other: Tensor, eps: Tensor, side: int, near: Tensor | None = None) -> Tensor:
        """The softmin that ``other``, the potential of the other side, sends to this side: one pass.

        ``near`` is a guess of it, which saves some kernels time and changes nothing but the rounding.
        """
        h = self.log_weights[1 - side] + other / eps
        return self.geometry.softmin(h, eps, side, near)

    def damped(self, raw: Tensor, eps: Tensor, side: int) -> Tensor:
        """The optimal potential given the raw one: shrunk by 1/(1 + ε/ρ) where the marginal is soft."""
        return raw / (1 + eps / self.rho[side])

    def target(self, potential: Tensor, side: int) -> Tensor:
        """The marginal that an optimal plan with this potential has: a, or a·exp(−f/ρ) where it is soft."""
        weights = self.a if side == 0 else self.b
        return weights * torch.exp(-potential / self.rho[side])

    def marginal(self, potential: Tensor, raw: Tensor, eps: Tensor, side: int) -> Tensor:
        """The plan's actual marginal on this side, given the softmin ``raw`` of the other potential."""
        weights = self.a if side == 0 else self.b
        return weights * torch.exp((potential - raw) / eps)

    def residual(self, potential: Tensor, raw: Tensor, eps: Tensor, side: int) -> Tensor:
        """The L1 distance (B,) of the plan's marginal on this side from its target, relative to the target's mass.

        ``raw`` is the softmin of the other potential. Targets are taken relative to their largest entry: where
        marginals are soft and costs many times ρ, they may all be beyond the range of the dtype.
        """
        weights = self.a if side == 0 else self.b
        shift = potential / self.rho[side]
        logs = self.log_weights[side] - shift
        target = _exp(logs - logs.amax(-1, keepdim=True))
        ratio = _exp((potential - raw) / eps + shift)
        differences = torch.where(weights > 0, target * (ratio - 1).abs(), 0.0)
        return differences.sum(-1) / target.sum(-1)

    def dual(self, f: Tensor, g: Tensor, eps: Tensor) -> Tensor:
        """The dual value (B,) relative to ε·mass, up to a constant, in float64; f is the optimal one for this g."""
        f, g, a, b, eps = (tensor.double() for tensor in (f, g, self.a, self.b, eps))
        # The plan's own mass adds ε/ρ of what the rows gain, where they are soft.
        rows = _gain(a, f, self.rho[0]) * (1 + eps[:, 0] / self.rho[0])
        return (rows + _gain(b, g, self.rho[1])) / (eps[:, 0] * a.sum(-1))

    def dual_value(self, raw_f: Tensor, g: Tensor) -> Tensor:
        """The dual value (B,) of g (B, m) and its best partner, given the softmin raw_f (B, n) of g.

        A lower bound of OT_ε. The best f for a given g is the damped softmin; with it the mass of the plan is known
        without a pass.
        """
        f = self.damped(raw_f, self.eps_column(), side=0)
        attained = _gain(self.a, f, self.rho[0]) + _gain(self.b, g, self.rho[1])
        plan_mass = self.target(f, side=0).sum(-1)
        return attained - self.eps_column()[:, 0] * (plan_mass - self.a.sum(-1) * self.b.sum(-1))

    def translated(self, g: Tensor, raw_f: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """g + t and its softmin raw_f − t, with the constant t (B, 1) that is best for the dual value.

        Where the marginals are soft, it makes both sides' masses equal; plain updates would need about ρ/ε passes for
        it, and this needs none. Where they are hard, a constant changes nothing.
        """
        if self.balanced:
            return g, raw_f
        f = self.damped(raw_f, eps, side=0)
        rows, columns = (w - p / rho for w, p, rho in zip(self.log_weights, (f, g), self.rho, strict=True))
        excess = columns.logsumexp(-1, keepdim=True) - rows.logsumexp(-1, keepdim=True)
        t = excess / (1 / (self.rho[0] + eps) + 1 / self.rho[1])
        return g + t, raw_f - t


def check_spread(spreads: Sequence[float]) -> None:
    """Refuse costs that overflow.

    Raises:
        OverflowError: if a spread, one for each problem, is not finite.
    """
    if not all(map(math.isfinite, spreads)):
        raise OverflowError("costs overflow")


def _exp(exponents: Tensor) -> Tensor:
    """exp, as a power of 2: for a few thousand entries PyTorch's exp starts threads, which then spin for milliseconds
    beside those of the next pass (a sixth of its time was lost), and its exp2 does not."""
    return torch.exp2(exponents * (1 / math.log(2)))


def _gain(weights: Tensor, potential: Tensor, rho: float) -> Tensor:
    """What the dual gains from a potential: <a,f>, or <a, ρ(1 − e^{−f/ρ})> where the marginal is soft."""
    gain = potential if math.isinf(rho) else -rho * torch.expm1(-potential / rho)
    return (weights * gain).sum(-1)


@dataclass(frozen=True)
class Solution:
    """Potentials f (B, n) and g (B, m) of a plan, and the softmins that measure it.

    ``raw_f`` is the softmin of g and ``raw_g`` that of f, at the target ε: with them the plan's actual marginals are
    known without another pass (`Problem.marginal`). ``marginal_error`` (B,) adds up both sides' relative L1 errors;
    ``value`` (B,) is the dual value of g; ``passes`` (B,) counts softmins over all pairs. ``gradient`` (B, n, d) is
    Σ_j P_ij ∂c(x_i, y_j)/∂x_i, where the solver was asked for it and had it at hand.
    """

    f: Tensor
    g: Tensor
    raw_f: Tensor
    raw_g: Tensor
    marginal_error: Tensor
    value: Tensor
    passes: Tensor
    status: tuple[Status, ...]
    read_histories: Callable[[], Sequence[History]]
    """One history for each of the parts that were joined (`Problem.parts`)."""
    gradient: Tensor | None = None

    @property
    def history(self) -> History:
        """(passes, largest error of the batch) at each convergence test at the target ε."""
        (history,) = self.read_histories()
        return history
