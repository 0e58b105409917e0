"""The potentials of a solved problem as a differentiable function of weights, points and costs.

With f eliminated by its softmin, the potential g is where the columns have the mass they should have:

    E(g; z) = b e^{−g/ρ₂} − Pᵀ1 = 0,    z = (a, b, *costs),    ∂E/∂g = −D/ε.

The implicit function theorem gives dg = ε D⁻¹ ∂E/∂z dz, and, since D is symmetric, the derivative of any loss L(g) as
∂/∂z <s, E> with D s = ε ∂L/∂g (Q23 §3, for any loss). Everything else is composed of softmins and sums over the plan,
each with derivatives of its own, so that values, plans and maps can be differentiated to any order, in both directions.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sinkdiv.derivatives.accuracy import ACCURACY, least_residual, report
from sinkdiv.geometry import DifferentiableReductions
from sinkdiv.solvers import Problem, Solution
from sinkdiv.solvers.hessian import SemiDualHessian
from sinkdiv.transforms import (
    VMAP,
    Partials,
    Tensors,
    UnbatchedFunction,
    full_precision,
    pulled_back,
    pushed_forward,
    saved,
)


class OptimalityConditions:
    """The optimality conditions of a solved problem, as functions of g (B, m) and z = (a, b, *costs)."""

    def __init__(self, problem: Problem, solution: Solution, reductions: DifferentiableReductions, tol: float) -> None:
        self._problem, self._solution, self._reductions = problem, solution, reductions
        self._tol = max(ACCURACY * tol, least_residual(problem.a.dtype))
        self.eps = problem.eps_column()

    # Functions with derivatives of every order.

    def potential(self, z: Tensors) -> Tensor:
        """g at the solution as a function of z; hard marginals leave it up to a constant."""
        g: Tensor = _Potential.apply(self, *z)
        return g

    def partner(self, potential: Tensor, z: Tensors, side: int) -> Tensor:
        """The best potential of this side, given that of the other: its damped softmin, at weights of zero too."""
        return self._reductions.softmin(potential, z[1 - side], z[2:], side) * self._damping(side)

    def column_excess(self, g: Tensor, z: Tensors) -> Tensor:
        """E(g; z), (B, m)."""
        a, b, *costs = z
        f = self.partner(g, z, side=0)
        sums = self._reductions.product(g, f, b, a[:, :, None], tuple(costs), side=1).squeeze(-1)
        return b * torch.exp(-g / self._problem.rho[1]) - sums

    def hessian_product(self, s: Tensor, g: Tensor, z: Tensors) -> Tensor:
        """D s, (B, m, k)."""
        a, b, *rest = z
        costs, reductions, one = tuple(rest), self._reductions, torch.ones_like(a)
        raw_f = reductions.softmin(g, b, costs, side=0)
        means = reductions.product(raw_f, g, one, b[:, :, None] * s, costs, side=0)
        sent = a[:, :, None] * torch.cat([one[:, :, None], -self._damping(0)[:, :, None] * means], -1)
        back = reductions.product(g, raw_f * self._damping(0), b, sent, costs, side=1)
        diagonal, spread = back[:, :, :1], back[:, :, 1:]
        if not self._problem.balanced:
            target = b * torch.exp(-g / self._problem.rho[1])
            diagonal = diagonal + (self.eps / self._problem.rho[1] * target)[:, :, None]
        return diagonal * s + spread

    # At the solution.

    @cached_property
    def g(self) -> Tensor:
        """g (B, m), its softmin extension where the weight is zero."""
        problem, solution = self._problem, self._solution
        extension = problem.damped(solution.raw_g, problem.eps_column(), side=1)
        return torch.where(problem.b > 0, solution.g, extension)

    def solve(self, v: Tensor) -> Tensor:
        """s with D s = v, (B, m, k); a `DerivativeWarning` if it is less accurate than the tolerance asks."""
        with full_precision(v):
            solution = self.hessian.solve(v, self._tol, shift=self.hessian.rounding)
        report(solution.residual, self._tol)
        return solution.s

    @cached_property
    def hessian(self) -> SemiDualHessian:
        """D at the solution."""
        return SemiDualHessian(self._problem, self._solution.g, self._solution.raw_f)

    def _damping(self, side: int) -> Tensor:
        return 1 / (1 + self.eps / self._problem.rho[side])


class _Potential(UnbatchedFunction):
    """g (B, m) as a function of z."""

    @staticmethod
    def forward(conditions: OptimalityConditions, *z: Tensor) -> Tensor:
        return conditions.g.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.conditions, *z = inputs
        ctx.save_for_backward(output, *z)
        ctx.save_for_forward(output, *z)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Partials:
        conditions, (g, *z), wanted = ctx.conditions, saved(ctx), ctx.needs_input_grad[1:]
        s = _solve(conditions, cotangent * conditions.eps, g, tuple(z))
        return None, *pulled_back(lambda *z: conditions.column_excess(g, z), tuple(z), wanted, s)

    @staticmethod
    def jvp(ctx: Any, *given: Tensor | None) -> Tensor:
        conditions, (g, *z) = ctx.conditions, saved(ctx)
        moved = pushed_forward(lambda *z: conditions.column_excess(g, z), tuple(z), given[1:])
        return _solve(conditions, moved * conditions.eps, g, tuple(z))


class _LinearSolve(torch.autograd.Function):
    """s (B, m, k) with D(g, z) s = v."""

    @staticmethod
    def forward(conditions: OptimalityConditions, v: Tensor, g: Tensor, *z: Tensor) -> Tensor:
        return conditions.solve(v)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.conditions, _, *g_z = inputs
        ctx.save_for_backward(output, *g_z)
        ctx.save_for_forward(output, *g_z)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Partials:
        conditions, (s, g, *z) = ctx.conditions, saved(ctx)
        w = _LinearSolve.apply(conditions, cotangent, g, *z)
        wanted = tuple(ctx.needs_input_grad[2:])
        if not any(wanted):
            return None, w, *[None] * len(wanted)
        return None, w, *pulled_back(lambda g, *z: -conditions.hessian_product(s, g, z), (g, *z), wanted, w)

    @staticmethod
    def jvp(ctx: Any, *given: Tensor | None) -> Tensor:
        conditions, (s, *g_z), (_, v, *tangents) = ctx.conditions, saved(ctx), given
        right = torch.zeros_like(s) if v is None else v
        if any(tangent is not None for tangent in tangents):
            product = pushed_forward(lambda g, *z: conditions.hessian_product(s, g, z), tuple(g_z), tuple(tangents))
            right = right - product
        result: Tensor = _LinearSolve.apply(conditions, right, *g_z)
        return result

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], conditions: OptimalityConditions, v: Tensor, *g_z: Tensor
    ) -> tuple[Tensor, int]:
        if in_dims[1] is None or any(dim is not None for dim in in_dims[2:]):
            raise NotImplementedError(VMAP)
        columns = v.movedim(in_dims[1], -1)
        solved = _LinearSolve.apply(conditions, columns.flatten(2), *g_z)
        return solved.view(columns.shape), columns.ndim - 1


def _solve(conditions: OptimalityConditions, v: Tensor, g: Tensor, z: Tensors) -> Tensor:
    s: Tensor = _LinearSolve.apply(conditions, v.unsqueeze(-1), g, *z)
    return s.squeeze(-1)
