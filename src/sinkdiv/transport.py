"""One entropic transport problem, solved: potentials, values, certificate, and the plan as an operator.

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
from sinkdiv.geometry import Geometry
from sinkdiv.geometry.protocol import Points
from sinkdiv.ground import FeatureCost
from sinkdiv.measures import CostMatrix, Samples, check_finite_tensor
from sinkdiv.settings import Settings
from sinkdiv.solvers import Problem, Solution, Start, Status
from sinkdiv.transforms import Partials, outside, pulled_back


class Transport:
    """A solved transport problem, or a batch of them.

    For a single problem values are 0-d tensors, `converged` a bool, `status` a `Status` and `passes` an int; for a
    batch they are (B,) tensors and a tuple of B statuses.
    """

    def __init__(self, problem: Problem, solution: Solution, inputs: Samples | CostMatrix, settings: Settings) -> None:
        self._problem, self._solution, self._inputs, self._settings = problem, solution, inputs, settings

    # What was computed, and how well.

    @property
    def value(self) -> Tensor:
        """OT_ε, the dual value at the potentials, differentiable in points, cost matrix and weights.

        A lower bound up to rounding, and accurate to second order in the marginal error.
        """
        return self.as_given(self.wide_value)

    @property
    def wide_value(self) -> Tensor:
        """The value (B,) in the dtype of the computation."""
        return attach_value(self._solution.value, self, *self.differentiable_inputs())

    @property
    def sharp(self) -> Tensor:
        """<P, C> = OT_ε − ε KL(P|abᵀ), one pass; differentiable like the value (Q23)."""
        return self.as_given(self.wide_sharp)

    @property
    def wide_sharp(self) -> Tensor:
        """The sharp value (B,) in the dtype of the computation."""
        value = outside(lambda: self._problem.geometry.plan_cost(*self._logarithms()))
        return attach_value(value, _Sharp(self), *self.differentiable_inputs())

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """An interval (lower, upper) that contains OT_ε, in float64: four float64 passes, at each access."""
        lower, upper = certificates.bounds(self._problem, self._solution.g)
        return self._unbatch(lower), self._unbatch(upper)

    @property
    def unregularised_bounds(self) -> tuple[Tensor, Tensor]:
        """An interval (lower, upper) that contains the optimum at ε = 0: the cost of transport without regularisation.

        Of the same weights and costs, with marginals as hard or soft as here; in float64, by seven float64 passes at
        each access. It shrinks with ε. ``upper`` may be +∞ where pairs are forbidden.
        """
        lower, upper = certificates.unregularised_bounds(self._problem, self._solution.g)
        return self._unbatch(lower), self._unbatch(upper)

    @property
    def marginal_error(self) -> Tensor:
        """The plan's L1 marginal error relative to the mass, rows and columns added up."""
        return self._unbatch(self._solution.marginal_error).to(self._inputs.dtype)

    @property
    def converged(self) -> bool | Tensor:
        """Whether a test has found the marginal error below the tolerance; with ``tol=None`` there is no test."""
        flags = [status is Status.CONVERGED for status in self._solution.status]
        return torch.tensor(flags, device=self._problem.a.device) if self._inputs.batched else flags[0]

    @property
    def status(self) -> Status | tuple[Status, ...]:
        """How the solve ended; ``str(status)`` is a sentence."""
        return self._solution.status if self._inputs.batched else self._solution.status[0]

    @property
    def passes(self) -> int | Tensor:
        """Passes over all pairs that were spent, those of the annealing included."""
        return self._solution.passes if self._inputs.batched else int(self._solution.passes)

    @property
    def history(self) -> tuple[tuple[int, float], ...]:
        """(passes, marginal error) at each convergence test; the largest error of the batch."""
        return self._solution.history

    # The potentials.

    @property
    def f(self) -> Tensor:
        """The potential of the first side, (n,) or (B, n), in cost units.

        Hard marginals leave a constant free, which is chosen so that <a, f> = <b, g>.
        """
        return self._known(lambda: self._balanced_potentials[0], self._functions.f)

    @property
    def g(self) -> Tensor:
        """The potential of the second side, (m,) or (B, m), in cost units."""
        return self._known(lambda: self._balanced_potentials[1], self._functions.g)

    def potentials_at(self, points: Tensor, side: int = 0) -> Tensor:
        """The potential f (``side=0``) or g (``side=1``) at new points (k, d) or (B, k, d): (k,) or (B, k).

        The softmin extends a potential to the whole space: f(z) = −ε log Σ_j b_j exp((g_j − c(z, y_j))/ε).

        Raises:
            ValueError: if the problem was given as a matrix, or the points do not fit.
        """
        points_of = self._points("potentials_at")
        ground = self._settings.ground
        dimension = None if isinstance(ground, FeatureCost) else self.differentiable_inputs()[2].shape[-1]
        points = ground.features("points", self._operand("points", points, None, dimension))
        problem, other = self._problem, (self._solution.g, self._solution.f)[_check_side(side)]

        def extended(points: Tensor) -> Tensor:
            eps = problem.eps_column()
            raw = points_of.at(points, side).softmin(problem.log_weights[1 - side] + other / eps, eps, 0)
            constant = self._functions.constant(self._solution.f, self._solution.g)
            return problem.damped(raw, eps, side) + (constant if side == 0 else -constant)

        return self._known(extended, partial(self._functions.potential_at, side=side), points)

    # The plan, as an operator.

    def apply(self, v: Tensor) -> Tensor:
        """P v for v (m,), (m, k), or batched (B, m), (B, m, k): one pass, no matrix is formed."""
        return self._product("v", v, side=0)

    def apply_transpose(self, u: Tensor) -> Tensor:
        """Pᵀ u for u (n,), (n, k), or batched (B, n), (B, n, k)."""
        return self._product("u", u, side=1)

    def marginals(self) -> tuple[Tensor, Tensor]:
        """The plan's actual row sums, (n,) or (B, n), and column sums, (m,) or (B, m)."""
        return self._marginal(0), self._marginal(1)

    def barycentric_map(self) -> Tensor:
        """T(x_i) = Σ_j P_ij y_j / Σ_j P_ij, the mean of where x_i is sent: (n, d) or (B, n, d).

        A point of weight zero has no mean and gets NaN.

        Raises:
            ValueError: if the cost is a matrix, learned or of directions; use ``apply`` on your own targets.
        """
        points = self._points("barycentric_map")
        if self._settings.ground.makes_features:
            raise ValueError("barycentric_map would average features: use apply(y), divided by marginals()[0], instead")

        def means() -> Tensor:
            sent = self._problem.geometry.plan_product(*self._logarithms(), points.y, 0)
            return sent / self._row_sums(0)[:, :, None] + points.center

        return self._known(means, self._functions.barycentric_map)

    def plan(self) -> Tensor:
        """The plan as a matrix, (n, m) or (B, n, m): memory O(nm)."""
        dense = self._problem.geometry.dense
        if dense is None:
            raise NotImplementedError("this kind of cost has no dense plan: use apply on vectors instead")
        return self._known(lambda: dense.plan_matrix(*self._logarithms()), self._functions.plan)

    # For derivatives.

    def partials(self, wanted: tuple[bool, ...]) -> Partials:
        """Derivatives of the value with respect to (a, b, *cost inputs), batched; None where not wanted."""
        wanted_a, wanted_b, *wanted_cost = wanted
        grad_a = self._weight_gradient(0) if wanted_a else None
        grad_b = self._weight_gradient(1) if wanted_b else None
        return grad_a, grad_b, *self._cost_partials(tuple(wanted_cost))

    def differentiable_partials(self, wanted: tuple[bool, ...], inputs: tuple[Tensor, ...]) -> Partials:
        """The same, as functions of the inputs."""
        return self._functions.partials(wanted, inputs)

    def hessian_product(
        self, directions: Partials, wanted: tuple[bool, ...], one_sided: bool = False
    ) -> Partials | None:
        """How the partials change along directions, by native passes; None where these do not serve.

        ``one_sided``: see `EntropicHessian`.
        """
        if not self.between_points or not self.all_have_mass:
            return None
        zeros = (torch.zeros_like(one) for one in self.differentiable_inputs())
        da, db, dx, dy = (zero if one is None else one for zero, one in zip(zeros, directions, strict=True))
        hessian = EntropicHessian(self._problem, self._solution, self._settings.limits.tol, one_sided=one_sided)
        return hessian.product((da, db, dx, dy), wanted)

    # For losses.

    def detached(self) -> Transport:
        """The same solution, without the caller's graph."""
        inputs = self._inputs
        names = ("a", "b", *(("x", "y") if isinstance(inputs, Samples) else ("C",)))
        detached = {name: getattr(inputs, name).detach() for name in names}
        return Transport(
            self._problem, replace(self._solution, gradient=None), replace(inputs, **detached), self._settings
        )

    def extended_to(self, geometry: Geometry) -> Start | None:
        """A start for a problem between other points, the same or others: the softmin extends g to them, in one pass.

        None where the points do not fit.
        """
        mine, points = self._problem.geometry.points, geometry.points
        if mine is None or points is None or not mine.resembles(points):
            return None
        eps = self._problem.eps_column()
        h = self._problem.a.log() + self._solution.f / eps
        raw = mine.at(points.y + points.center, 1).softmin(h, eps, 0)
        return Start(self._problem.damped(raw, eps, side=1))

    # For the divergence.

    @property
    def detached_value(self) -> Tensor:
        """The value (B,) in the dtype of the computation, without derivative."""
        return self._solution.value

    @property
    def eps(self) -> Tensor:
        """The regularisation ε (B,), in cost units."""
        return self._problem.eps_column()[:, 0]

    @property
    def excess_mass(self) -> Tensor | None:
        """m_α − m_β, (B,), where the marginals are soft; None where they are hard."""
        return self.excess_mass_of(self._problem.a, self._problem.b)

    def excess_mass_of(self, a: Tensor, b: Tensor) -> Tensor | None:
        """The same for other weights (B, n) and (B, m) in a problem like this."""
        return None if self._problem.balanced else a.sum(-1) - b.sum(-1)

    @property
    def between_points(self) -> bool:
        """Whether the cost streams between points, or is a matrix."""
        return isinstance(self._inputs, Samples)

    @cached_property
    def all_have_mass(self) -> bool:
        """Whether all weights are positive."""
        return self._inputs.unit_masses or all(
            bool((weights > 0).all()) for weights in (self._problem.a, self._problem.b)
        )

    @property
    def symmetric(self) -> bool:
        """Whether swapping the sides changes nothing."""
        return self._problem.symmetric

    def differentiable_inputs(self) -> tuple[Tensor, ...]:
        """(a, b, *cost inputs), attached to the caller's graph."""
        return self._inputs.tensors

    def as_given(self, value: Tensor) -> Tensor:
        """A value (B,) in the caller's form."""
        return given_form(value, self._inputs)

    def __repr__(self) -> str:
        batch, n, m = self._problem.geometry.shape
        count = f"{batch} problems " if self._inputs.batched else ""
        statuses = self._solution.status
        done = sum(status is Status.CONVERGED for status in statuses)
        state = ("converged" if done else "not converged") if batch == 1 else f"{done} of {batch} converged"
        state = state if self._settings.limits.tested else "not tested"
        error, passes = float(self._solution.marginal_error.max()), int(self._solution.passes.max())
        eps = self._problem.eps[0]
        return f"Transport({count}{n}×{m}, eps={eps:g}, {state}, error {error:.1e}, {passes} passes)"

    def _cost_partials(self, wanted: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        known = self._solution.gradient
        if not any(wanted):
            return (None,) * len(wanted)
        if known is not None and self._problem.symmetric:
            return known, known
        if known is not None and not wanted[1]:
            return known, None
        return self._problem.geometry.gradients(*self._logarithms(), wanted)

    def _weight_gradient(self, side: int) -> Tensor:
        problem = self._problem
        # The softmin's extension is right for points of little or no mass too, of which the iteration takes no notice.
        raw = (self._solution.raw_f, self._solution.raw_g)[side]
        constant = self._functions.constant(self._solution.f, self._solution.g)
        potential = problem.damped(raw, problem.eps_column(), side) + (constant if side == 0 else -constant)
        return self._functions.weight_partial(potential, side)

    @cached_property
    def _functions(self) -> SolutionFunctions:
        return SolutionFunctions(self._problem, self._solution, self._settings.limits.tol)

    @cached_property
    def _balanced_potentials(self) -> tuple[Tensor, Tensor]:
        """(f, g), the softmin's extension where weights are zero, with the constant chosen."""
        problem, solution = self._problem, self._solution
        extension = problem.damped(solution.raw_g, problem.eps_column(), side=1)
        g = torch.where(problem.b > 0, solution.g, extension)
        constant = self._functions.constant(solution.f, g)
        return solution.f + constant, g - constant

    def _marginal(self, side: int) -> Tensor:
        return self._known(lambda: self._row_sums(side), partial(self._functions.marginal, side=side))

    def _row_sums(self, side: int) -> Tensor:
        s = self._solution
        potential, raw = ((s.f, s.raw_f), (s.g, s.raw_g))[side]
        return self._problem.marginal(potential, raw, self._problem.eps_column(), side)

    def _logarithms(self) -> tuple[Tensor, Tensor, Tensor]:
        """(u, h, ε) of `sinkdiv.kernels.reference`; u is h for a symmetric problem."""
        eps = self._problem.eps_column()
        u = self._problem.a.log() + self._solution.f / eps
        if self._problem.symmetric:
            return u, u, eps
        return u, self._problem.b.log() + self._solution.g / eps, eps

    def _points(self, asker: str) -> Points:
        points = self._problem.geometry.points
        if points is None:
            raise ValueError(f"{asker} needs points, but this problem was given as a cost matrix")
        return points

    def _product(self, name: str, operand: Tensor, side: int) -> Tensor:
        count = self._problem.geometry.shape[2 - side]
        check_finite_tensor(name, operand)
        flat = operand.ndim == 1 + self._inputs.batched
        columns = self._operand(name, operand.unsqueeze(-1) if flat else operand, count, None)

        def result(columns: Tensor) -> Tensor:
            return self._problem.geometry.plan_product(*self._logarithms(), columns, side)

        product = self._known(result, partial(self._functions.product, side=side), columns)
        return product.squeeze(-1) if flat else product

    def _operand(self, name: str, tensor: Tensor, rows: int | None, columns: int | None) -> Tensor:
        """A caller's (rows, columns) matrix, one for each problem, brought to (B, rows, columns)."""
        check_finite_tensor(name, tensor)
        geometry = self._problem.geometry
        batch = [geometry.shape[0]] if self._inputs.batched else []
        expected = (*batch, rows, columns)
        fits = tensor.ndim == len(expected) and all(
            want is None or have == want for have, want in zip(tensor.shape, expected, strict=True)
        )
        if not fits:
            layout = ", ".join("k" if size is None else str(size) for size in expected)
            raise ValueError(f"{name} must have shape ({layout}), not {tuple(tensor.shape)}")
        tensor = tensor.to(geometry.dtype)
        return tensor if self._inputs.batched else tensor.unsqueeze(0)

    def _known(self, numbers: Callable[..., Tensor], function: Callable[..., Tensor], *operands: Tensor) -> Tensor:
        """numbers(*operands), with the derivatives of function(*operands, *inputs), in the caller's form."""
        result = outside(numbers, *operands)
        attached = attach_result(result, function, *operands, *self.differentiable_inputs())
        return self._unbatch(attached).to(self._inputs.dtype)

    def _unbatch(self, tensor: Tensor) -> Tensor:
        return tensor if self._inputs.batched else tensor.squeeze(0)


class _Sharp:
    """The derivatives of a transport's sharp value: numbers by the analytic formulas, functions by composition."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def partials(self, wanted: tuple[bool, ...]) -> Partials:
        t = self._transport
        if t.all_have_mass:
            return SharpValue(t._problem, t._solution, t._settings.limits.tol).partials(wanted)
        inputs = tuple(one.detach() for one in self._transport.differentiable_inputs())
        return self.differentiable_partials(wanted, inputs)

    def differentiable_partials(self, wanted: tuple[bool, ...], inputs: tuple[Tensor, ...]) -> Partials:
        return pulled_back(self._transport._functions.sharp, inputs, wanted, torch.ones_like(inputs[0][:, 0]))

    def hessian_product(self, directions: Partials, wanted: tuple[bool, ...]) -> None:
        """Not known in numbers."""


def given_form(value: Tensor, inputs: Samples | CostMatrix) -> Tensor:
    """A value (B,) in the caller's form: 0-d if there was no batch, in the dtype of the inputs."""
    return (value if inputs.batched else value.squeeze(0)).to(inputs.dtype)


def _check_side(side: int) -> int:
    if side not in (0, 1):
        raise ValueError(f"side must be 0 (rows) or 1 (columns), not {side!r}")
    return side
