"""What a solved problem is as a function of its inputs (a, b, *costs): the entropic and the sharp value, plan, maps.

Values have first derivatives of their own, which need no graph. Everything else is a composition of the potentials
(`sinkdiv.derivatives.optimality`) with reductions over pairs (`sinkdiv.geometry.differentiable`).
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from sinkdiv.derivatives.optimality import OptimalityConditions
from sinkdiv.geometry import DifferentiableReductions
from sinkdiv.solvers import Problem, Solution
from sinkdiv.transforms import Partials, Tensors, outside, pulled_back


class SolutionFunctions:
    """A solved problem; its methods are functions of the inputs that were solved, in batched form."""

    def __init__(self, problem: Problem, solution: Solution, tol: float) -> None:
        self._problem, self._solution, self._tol = problem, solution, tol

    # Functions of the inputs (a, b, *costs).

    def f(self, *inputs: Tensor) -> Tensor:
        """The first potential, (B, n)."""
        z = self._prepared(inputs)
        f, g = self._potentials(z)
        return f + self._constant(f, g, z)

    def g(self, *inputs: Tensor) -> Tensor:
        """The second potential, (B, m)."""
        z = self._prepared(inputs)
        f, g = self._potentials(z)
        return self._conditions.partner(f, z, side=1) - self._constant(f, g, z)

    def sharp(self, *inputs: Tensor) -> Tensor:
        """<P, C>, (B,)."""
        z = self._prepared(inputs)
        f, g = self._potentials(z)
        return self._reductions.plan_cost(f, g, z[0], z[1], z[2:])

    def plan(self, *inputs: Tensor) -> Tensor:
        """P, (B, n, m)."""
        z = self._prepared(inputs)
        f, g = self._potentials(z)
        return self._reductions.plan(f, g, z[0], z[1], z[2:])

    def product(self, v: Tensor, *inputs: Tensor, side: int) -> Tensor:
        """P v, (B, n, k), for v (B, m, k); on side 1 Pᵀ v."""
        z = self._prepared(inputs)
        own, other = potentials = self._potentials(z)
        if side == 1:
            other, own = potentials
        return self._reductions.product(own, other, z[side], z[1 - side][:, :, None] * v, z[2:], side)

    def marginal(self, *inputs: Tensor, side: int) -> Tensor:
        """The plan's row sums, (B, n), or on side 1 its column sums."""
        ones = torch.ones_like(inputs[1 - side])[:, :, None]
        return self.product(ones, *inputs, side=side).squeeze(-1)

    def barycentric_map(self, *inputs: Tensor) -> Tensor:
        """Where the rows are sent on average, (B, n, d)."""
        _, b, *_, y = inputs
        sent = self.product(torch.cat([torch.ones_like(b)[:, :, None], y - self._center], -1), *inputs, side=0)
        return sent[:, :, 1:] / sent[:, :, :1] + self._center

    def potential_at(self, points: Tensor, *inputs: Tensor, side: int) -> Tensor:
        """The potential of a side at new points (B, k, d): (B, k)."""
        z = self._prepared(inputs)
        f, g = self._potentials(z)
        constant = self._constant(f, g, z)
        costs = (points - self._center, z[3]) if side == 0 else (z[2], points - self._center)
        at_points = self._conditions.partner(g if side == 0 else f, (*z[:2], *costs), side)
        return at_points + constant if side == 0 else at_points - constant

    def partials(self, wanted: tuple[bool, ...], inputs: Tensors) -> Partials:
        """The derivatives of the entropic value by the envelope theorem, as functions of the inputs."""
        z = self._prepared(inputs)
        f, g = self._potentials(z)
        grad_a, grad_b = self._weight_partials(f, g, z, wanted)
        if not any(wanted[2:]):
            return grad_a, grad_b, *[None] * len(wanted[2:])

        def plan_mass(*costs: Tensor) -> Tensor:
            a, b = z[:2]
            return self._reductions.product(f, g, a, b[:, :, None], costs, side=0).sum((1, 2))

        grad_costs = pulled_back(plan_mass, z[2:], wanted[2:], -self._problem.eps_column()[:, 0])
        return grad_a, grad_b, *grad_costs

    # Numbers.

    def constant(self, f: Tensor, g: Tensor) -> Tensor:
        """What is added to f and taken from g, (B, 1), so that both sides gain the same where marginals are hard."""
        return self._constant(f, g, (self._problem.a, self._problem.b))

    def weight_partial(self, potential: Tensor, side: int) -> Tensor:
        """The derivative of the entropic value with respect to a side's weights, given its potential."""
        return self._weight_partial(potential, (self._problem.b, self._problem.a)[side], side)

    # Parts.

    @cached_property
    def _reductions(self) -> DifferentiableReductions:
        problem = self._problem
        found: DifferentiableReductions = outside(lambda: problem.geometry.differentiable(problem.eps_column()))
        return found

    @cached_property
    def _conditions(self) -> OptimalityConditions:
        return OptimalityConditions(self._problem, self._solution, self._reductions, self._tol)

    @property
    def _center(self) -> Tensor:
        points = self._problem.geometry.points
        assert points is not None, "there are no points"
        center: Tensor = outside(lambda: points.center)
        return center

    def _prepared(self, inputs: Tensors) -> Tensors:
        """The inputs as the solver saw them: of equal masses where the marginals are hard, points centred."""
        return self._reductions.normalised(inputs, equal_masses=self._problem.balanced)

    def _potentials(self, z: Tensors) -> tuple[Tensor, Tensor]:
        g = self._conditions.potential(z)
        return self._conditions.partner(g, z, side=0), g

    def _constant(self, f: Tensor, g: Tensor, weights: Tensors) -> Tensor:
        if not self._problem.balanced:
            return torch.zeros_like(f[:, :1])
        a, b = weights[:2]
        excess = (b * g).sum(-1, keepdim=True) - (a * f).sum(-1, keepdim=True)
        return excess / (a.sum(-1, keepdim=True) + b.sum(-1, keepdim=True))

    def _weight_partials(self, f: Tensor, g: Tensor, z: Tensors, wanted: tuple[bool, ...]) -> Partials:
        if not any(wanted[:2]):
            return None, None
        constant = self._constant(f, g, z)
        grad_a = self._weight_partial(f + constant, z[1], 0) if wanted[0] else None
        extended = self._conditions.partner(f, z, side=1) - constant
        return grad_a, self._weight_partial(extended, z[0], 1) if wanted[1] else None

    def _weight_partial(self, potential: Tensor, other_weights: Tensor, side: int) -> Tensor:
        eps, rho = self._problem.eps_column(), self._problem.rho[side]
        other_mass = other_weights.sum(-1, keepdim=True)
        if self._problem.balanced:
            return potential + eps * (other_mass - 1)
        return rho + eps * other_mass - (rho + eps) * torch.exp(-potential / rho)
