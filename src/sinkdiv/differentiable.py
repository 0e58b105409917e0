"""A solution, attached to the caller's inputs: what losses, divergences and transports are made of.

    OT_ε(a,b) = min over P1=a, Pᵀ1=b of <P,C> + ε KL(P|abᵀ),    KL(P|Q) = Σ P log(P/Q) − P + Q
    P_ij = a_i b_j exp((f_i + g_j − C_ij)/ε)

Derivatives of the entropic value at the optimum: ∂/∂C = P, ∂/∂x_i = Σ_j P_ij ∂₁c(x_i, y_j), and for the weights
∂/∂a = f + ε(m_b − 1) if the marginals are hard (along directions that keep the masses equal) and
∂/∂a = ρ + ε m_b − (ρ+ε) e^{−f/ρ} if they are soft. Everything else is differentiated through the potentials
(`sinkdiv.derivatives`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial

import torch
from torch import Tensor

from sinkdiv import certificates
from sinkdiv.derivatives import EntropicHessian, SharpValue, SolutionFunctions, attach_result, attach_value
from sinkdiv.geometry import Points
from sinkdiv.measures import Measures
from sinkdiv.options import Settings
from sinkdiv.solvers import Problem, Solution, Start
from sinkdiv.solvers.choice import Earlier
from sinkdiv.transforms import Partials, outside, pulled_back


class DifferentiableSolution(Earlier):
    """A solved problem, or a batch of them, as a function of the inputs (a, b, *costs); everything is batched here.

    Attributes:
        problem: the problem that was solved, of detached tensors.
        solution: what the solver found.
        inputs: what the caller gave, attached to the caller's graph.
        settings: what was asked for.
    """

    def __init__(self, problem: Problem, solution: Solution, inputs: Measures, settings: Settings) -> None:
        self.problem, self.solution, self.inputs, self.settings = problem, solution, inputs, settings

    @property
    def parts(self) -> tuple[DifferentiableSolution, ...]:
        """The solutions this is made of: itself."""
        return (self,)

    # Values (B,).

    @property
    def value(self) -> Tensor:
        """OT_ε, the dual value at the potentials."""
        return attach_value(self.solution.value, self, *self.inputs.tensors)

    @property
    def sharp(self) -> Tensor:
        """<P, C>: one pass."""
        value = outside(lambda: self.problem.geometry.plan_cost(*self._logarithms()))
        return attach_value(value, _Sharp(self), *self.inputs.tensors)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """An interval for OT_ε, in float64."""
        return certificates.bounds(self.problem, self.solution.g)

    def unregularised_bounds(self) -> tuple[Tensor, Tensor]:
        """An interval for the optimum at ε = 0, in float64."""
        return certificates.unregularised_bounds(self.problem, self.solution.g)

    # Potentials and the plan.

    def f(self) -> Tensor:
        """The first potential, (B, n), with <a, f> = <b, g> where marginals are hard."""
        return self._known(lambda: self._shared_potentials[0], self._composed.f)

    def g(self) -> Tensor:
        """The second potential, (B, m)."""
        return self._known(lambda: self._shared_potentials[1], self._composed.g)

    def potential_at(self, points: Tensor, side: int) -> Tensor:
        """The potential of a side, (B, k), at points (B, k, d) that the streamed cost sees."""
        problem, other = self.problem, (self.solution.g, self.solution.f)[side]
        own = self._points()

        def extended(points: Tensor) -> Tensor:
            eps = problem.eps_column()
            raw = own.at(points, side).softmin(problem.log_weights[1 - side] + other / eps, eps, 0)
            return problem.damped(raw, eps, side) + self._constant(side)

        return self._known(extended, partial(self._composed.potential_at, side=side), points)

    def product(self, columns: Tensor, side: int) -> Tensor:
        """P v, (B, n, k), for v (B, m, k), or on side 1 Pᵀ v for v (B, n, k): one pass."""

        def result(columns: Tensor) -> Tensor:
            return self.problem.geometry.plan_product(*self._logarithms(), columns, side)

        return self._known(result, partial(self._composed.product, side=side), columns)

    def marginal(self, side: int) -> Tensor:
        """The plan's row sums, (B, n), or on side 1 its column sums, (B, m)."""
        return self._known(lambda: self._sums(side), partial(self._composed.marginal, side=side))

    def barycentric_map(self) -> Tensor:
        """Where the rows are sent on average, (B, n, d); NaN for a point of weight zero."""
        points = self._points()

        def means() -> Tensor:
            sent = self.problem.geometry.plan_product(*self._logarithms(), points.y, 0)
            return sent / self._sums(0)[:, :, None] + points.center

        return self._known(means, self._composed.barycentric_map)

    def plan(self) -> Tensor:
        """P, (B, n, m).

        Raises:
            NotImplementedError: if this kind of cost has no dense plan.
        """
        dense = self.problem.geometry.dense
        if dense is None:
            raise NotImplementedError("this kind of cost has no dense plan: use apply on vectors instead")
        return self._known(lambda: dense.plan_matrix(*self._logarithms()), self._composed.plan)

    # What derivatives ask (`sinkdiv.derivatives.attach.Differentiable`).

    def partials(self, wanted: tuple[bool, ...]) -> Partials:
        """Derivatives of the value with respect to (a, b, *costs); None where not wanted."""
        wanted_a, wanted_b, *wanted_costs = wanted
        grad_a = self._weight_gradient(0) if wanted_a else None
        grad_b = self._weight_gradient(1) if wanted_b else None
        return grad_a, grad_b, *self._cost_partials(tuple(wanted_costs))

    def differentiable_partials(self, wanted: tuple[bool, ...], inputs: tuple[Tensor, ...]) -> Partials:
        """The same, as functions of the inputs."""
        return self._composed.partials(wanted, inputs)

    def hessian_product(
        self, directions: Partials, wanted: tuple[bool, ...], one_sided: bool = False
    ) -> Partials | None:
        """How the partials change along directions, by native passes; None where these do not serve.

        ``one_sided``: see `EntropicHessian`.
        """
        if not self.has_points or not self.all_have_mass:
            return None
        zeros = (torch.zeros_like(one) for one in self.inputs.tensors)
        da, db, dx, dy = (zero if one is None else one for zero, one in zip(zeros, directions, strict=True))
        hessian = EntropicHessian(self.problem, self.solution, self.settings.limits.tol, one_sided=one_sided)
        return hessian.product((da, db, dx, dy), wanted)

    # What divergences and warm starts ask.

    @property
    def has_points(self) -> bool:
        """Whether the costs are between points, and not given as a matrix, say."""
        return self.problem.geometry.points is not None

    @cached_property
    def all_have_mass(self) -> bool:
        """Whether all weights are positive."""
        return self.inputs.unit_masses or all(bool((w > 0).all()) for w in (self.problem.a, self.problem.b))

    def detached(self) -> DifferentiableSolution:
        """The same solution, without the caller's graph."""
        solution = replace(self.solution, gradient=None)
        return DifferentiableSolution(self.problem, solution, self.inputs.detached(), self.settings)

    def _start_for(self, problem: Problem) -> Start | None:
        """A start for another problem; None if the two do not fit.

        Between points, the same or others, the softmin extends g to them, in one pass. Other costs must have the same
        shape, and take g over as it is.
        """
        mine, other = self.problem.geometry.points, problem.geometry.points
        if other is None:
            g, fits = self.solution.g, self.problem.geometry.shape == problem.geometry.shape
            return Start(g) if fits and (g.dtype, g.device) == (problem.b.dtype, problem.b.device) else None
        if mine is None or not mine.resembles(other):
            return None
        eps = self.problem.eps_column()
        h = self.problem.a.log() + self.solution.f / eps
        raw = mine.at(other.y + other.center, 1).softmin(h, eps, 0)
        return Start(self.problem.damped(raw, eps, side=1))

    # Parts.

    @cached_property
    def _composed(self) -> SolutionFunctions:
        return SolutionFunctions(self.problem, self.solution, self.settings.limits.tol)

    @cached_property
    def _shared_potentials(self) -> tuple[Tensor, Tensor]:
        """(f, g), the softmin's extension where weights are zero, with the constant chosen."""
        problem, solution = self.problem, self.solution
        extension = problem.damped(solution.raw_g, problem.eps_column(), side=1)
        g = torch.where(problem.b > 0, solution.g, extension)
        constant = self._composed.constant(solution.f, g)
        return solution.f + constant, g - constant

    def _points(self) -> Points:
        points = self.problem.geometry.points
        assert points is not None, "there are no points"
        return points

    def _constant(self, side: int) -> Tensor:
        """What is added to a side's potential so that both sides gain the same where marginals are hard, (B, 1)."""
        constant = self._composed.constant(self.solution.f, self.solution.g)
        return constant if side == 0 else -constant

    def _cost_partials(self, wanted: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        known = self.solution.gradient
        if not any(wanted):
            return (None,) * len(wanted)
        if known is not None and self.problem.symmetric:
            return known, known
        if known is not None and not wanted[1]:
            return known, None
        return self.problem.geometry.gradients(*self._logarithms(), wanted)

    def _weight_gradient(self, side: int) -> Tensor:
        # The softmin's extension is right for points of little or no mass too, of which the iteration takes no notice.
        raw = (self.solution.raw_f, self.solution.raw_g)[side]
        potential = self.problem.damped(raw, self.problem.eps_column(), side) + self._constant(side)
        return self._composed.weight_partial(potential, side)

    def _sums(self, side: int) -> Tensor:
        s = self.solution
        potential, raw = ((s.f, s.raw_f), (s.g, s.raw_g))[side]
        return self.problem.marginal(potential, raw, self.problem.eps_column(), side)

    def _logarithms(self) -> tuple[Tensor, Tensor, Tensor]:
        """(u, h, ε) of `sinkdiv.kernels.reference`; u is h for a symmetric problem."""
        eps = self.problem.eps_column()
        u = self.problem.a.log() + self.solution.f / eps
        if self.problem.symmetric:
            return u, u, eps
        return u, self.problem.b.log() + self.solution.g / eps, eps

    def _known(self, numbers: Callable[..., Tensor], function: Callable[..., Tensor], *operands: Tensor) -> Tensor:
        """numbers(*operands), with the derivatives of function(*operands, *inputs)."""
        result = outside(numbers, *operands)
        return attach_result(result, function, *operands, *self.inputs.tensors)


class _Sharp:
    """The derivatives of a solution's sharp value: numbers by the analytic formulas, functions by composition."""

    def __init__(self, solved: DifferentiableSolution) -> None:
        self._solved = solved

    def partials(self, wanted: tuple[bool, ...]) -> Partials:
        s = self._solved
        if s.all_have_mass:
            return SharpValue(s.problem, s.solution, s.settings.limits.tol).partials(wanted)
        inputs = tuple(one.detach() for one in s.inputs.tensors)
        return self.differentiable_partials(wanted, inputs)

    def differentiable_partials(self, wanted: tuple[bool, ...], inputs: tuple[Tensor, ...]) -> Partials:
        return pulled_back(self._solved._composed.sharp, inputs, wanted, torch.ones_like(inputs[0][:, 0]))

    def hessian_product(self, directions: Partials, wanted: tuple[bool, ...]) -> None:
        """Not known in numbers."""
