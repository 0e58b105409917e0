"""The potentials of a solved problem as a differentiable function of weights, points and costs.

With f eliminated by its softmin, the potential g is where the columns have the mass they should have:

    E(g; z) = b e^{−g/ρ₂} − Pᵀ1 = 0,    z = (a, b, *costs),    ∂E/∂g = −D/ε.

The implicit function theorem gives dg = ε D⁻¹ ∂E/∂z dz, and, since D is symmetric, the derivative of any loss L(g) as
∂/∂z <s, E> with D s = ε ∂L/∂g (Q23 §3, for any loss). Everything else is composed of softmins and sums over the plan,
each with derivatives of its own, so that values, plans and maps can be differentiated to any order, in both directions.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sinkdiv.derivatives.accuracy import ACCURACY, least_residual, report
from sinkdiv.derivatives.known import Partials, pulled_back, pushed_forward
from sinkdiv.derivatives.pairing import Pairing
from sinkdiv.derivatives.streamed import Tensors, saved
from sinkdiv.solvers import Problem, Solution
from sinkdiv.solvers.hessian import SemiDualHessian
from sinkdiv.transforms import VMAP, UnbatchedFunction, full_precision


class Semidual:
    """The optimality conditions of a solved problem, as functions of g (B, m) and z = (a, b, *costs)."""

    def __init__(self, problem: Problem, solution: Solution, pairing: Pairing, tol: float) -> None:
        self._problem, self._solution, self._pairing = problem, solution, pairing
        self._tol = max(ACCURACY * tol, least_residual(problem.a.dtype))
        self.eps = problem.eps

    # Functions with derivatives of every order.

    def potential(self, z: Tensors) -> Tensor:
        """g at the solution as a function of z; hard marginals leave it up to a constant."""
        g: Tensor = _Potential.apply(self, *z)
        return g

    def partner(self, potential: Tensor, z: Tensors, side: int) -> Tensor:
        """The best potential of this side, given that of the other: its damped softmin, at weights of zero too."""
        return self._pairing.softmin(potential, z[1 - side], z[2:], side) * self._damping(side)

    def column_excess(self, g: Tensor, z: Tensors) -> Tensor:
        """E(g; z), (B, m)."""
        a, b, *costs = z
        f = self.partner(g, z, side=0)
        sums = self._pairing.product(g, f, b, a[:, :, None], tuple(costs), side=1).squeeze(-1)
        return b * torch.exp(-g / self._problem.rho[1]) - sums

    def hessian_product(self, s: Tensor, g: Tensor, z: Tensors) -> Tensor:
        """D s, (B, m, k)."""
        a, b, *rest = z
        costs, pairing, one = tuple(rest), self._pairing, torch.ones_like(a)
        raw_f = pairing.softmin(g, b, costs, side=0)
        means = pairing.product(raw_f, g, one, b[:, :, None] * s, costs, side=0)
        sent = a[:, :, None] * torch.cat([one[:, :, None], -self._damping(0) * means], -1)
        back = pairing.product(g, raw_f * self._damping(0), b, sent, costs, side=1)
        diagonal, spread = back[:, :, :1], back[:, :, 1:]
        if not self._problem.balanced:
            target = b * torch.exp(-g / self._problem.rho[1])
            diagonal = diagonal + self.eps / self._problem.rho[1] * target[:, :, None]
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

    def _damping(self, side: int) -> float:
        rho = self._problem.rho[side]
        return 1.0 if math.isinf(rho) else 1 / (1 + self.eps / rho)


class _Potential(UnbatchedFunction):
    """g (B, m) as a function of z."""

    @staticmethod
    def forward(semidual: Semidual, *z: Tensor) -> Tensor:
        return semidual.g.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.semidual, *z = inputs
        ctx.save_for_backward(output, *z)
        ctx.save_for_forward(output, *z)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Partials:
        semidual, (g, *z), wanted = ctx.semidual, saved(ctx), ctx.needs_input_grad[1:]
        s = _solve(semidual, cotangent * semidual.eps, g, tuple(z))
        return None, *pulled_back(lambda *z: semidual.column_excess(g, z), tuple(z), wanted, s)

    @staticmethod
    def jvp(ctx: Any, *given: Tensor | None) -> Tensor:
        semidual, (g, *z) = ctx.semidual, saved(ctx)
        moved = pushed_forward(lambda *z: semidual.column_excess(g, z), tuple(z), given[1:])
        return _solve(semidual, moved * semidual.eps, g, tuple(z))


class _LinearSolve(torch.autograd.Function):
    """s (B, m, k) with D(g, z) s = v."""

    @staticmethod
    def forward(semidual: Semidual, v: Tensor, g: Tensor, *z: Tensor) -> Tensor:
        return semidual.solve(v)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.semidual, _, *g_z = inputs
        ctx.save_for_backward(output, *g_z)
        ctx.save_for_forward(output, *g_z)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Partials:
        semidual, (s, g, *z) = ctx.semidual, saved(ctx)
        w = _LinearSolve.apply(semidual, cotangent, g, *z)
        wanted = tuple(ctx.needs_input_grad[2:])
        if not any(wanted):
            return None, w, *[None] * len(wanted)
        return None, w, *pulled_back(lambda g, *z: -semidual.hessian_product(s, g, z), (g, *z), wanted, w)

    @staticmethod
    def jvp(ctx: Any, *given: Tensor | None) -> Tensor:
        semidual, (s, *g_z), (_, v, *tangents) = ctx.semidual, saved(ctx), given
        right = torch.zeros_like(s) if v is None else v
        if any(tangent is not None for tangent in tangents):
            product = pushed_forward(lambda g, *z: semidual.hessian_product(s, g, z), tuple(g_z), tuple(tangents))
            right = right - product
        result: Tensor = _LinearSolve.apply(semidual, right, *g_z)
        return result

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], semidual: Semidual, v: Tensor, *g_z: Tensor
    ) -> tuple[Tensor, int]:
        if in_dims[1] is None or any(dim is not None for dim in in_dims[2:]):
            raise NotImplementedError(VMAP)
        columns = v.movedim(in_dims[1], -1)
        solved = _LinearSolve.apply(semidual, columns.flatten(2), *g_z)
        return solved.view(columns.shape), columns.ndim - 1


def _solve(semidual: Semidual, v: Tensor, g: Tensor, z: Tensors) -> Tensor:
    s: Tensor = _LinearSolve.apply(semidual, v.unsqueeze(-1), g, *z)
    return s.squeeze(-1)
