"""One entropic transport problem, solved: potentials, values, certificate, and the plan as an operator.

    OT_ε(a,b) = min over P1=a, Pᵀ1=b of <P,C> + ε KL(P|abᵀ),    KL(P|Q) = Σ P log(P/Q) − P + Q
    P_ij = a_i b_j exp((f_i + g_j − C_ij)/ε)

Derivatives of the entropic value at the optimum: ∂/∂C = P, ∂/∂x_i = Σ_j P_ij ∂₁c(x_i, y_j), and for the weights
∂/∂a = f + ε(m_b − 1) if the marginals are hard (along directions that keep the masses equal) and
∂/∂a = ρ + ε m_b − (ρ+ε) e^{−f/ρ} if they are soft.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sinkdiv import certificate
from sinkdiv.costs import Cost, find_cost
from sinkdiv.derivatives import entropic_value, refuse_gradient
from sinkdiv.geometry import CloudGeometry, Geometry, MatrixGeometry
from sinkdiv.measures import CostMatrix, Samples, check_finite_tensor, check_matrix, check_samples, mass
from sinkdiv.settings import Callback, ConvergenceWarning, Length, Settings, check_value
from sinkdiv.solvers import MATRIX_METHODS, Problem, Solution, Start, Status
from sinkdiv.solvers import solve as run_solver
from sinkdiv.solvers import solve_matrix as run_matrix_solver

SHARP_GRADIENT = 'the gradient of the sharp value is not implemented. Use value="entropic", whose gradient is exact'
PLAN_GRADIENT = (
    "{} cannot be differentiated. Take it under torch.no_grad(), or detach the inputs; "
    "the entropic value is differentiable"
)


class Transport:
    """A solved transport problem, or a batch of them.

    For a single problem values are 0-d tensors, `converged` a bool, `status` a `Status` and `passes` an int; for a
    batch they are (B,) tensors and a tuple of B statuses.
    """

    def __init__(self, problem: Problem, solution: Solution, inputs: Samples | CostMatrix) -> None:
        self._problem, self._solution, self._inputs = problem, solution, inputs

    # What was computed, and how well.

    @property
    def value(self) -> Tensor:
        """OT_ε, the dual value at the potentials, differentiable once in points, cost matrix and weights.

        A lower bound up to rounding, and accurate to second order in the marginal error.
        """
        return self.as_given(entropic_value(self._solution.value, self, *self.differentiable_inputs()))

    @property
    def sharp(self) -> Tensor:
        """<P, C> = OT_ε − ε KL(P|abᵀ), without derivative: one pass."""
        return self.as_given(self.wide_sharp)

    @property
    def wide_sharp(self) -> Tensor:
        """The sharp value (B,) in the dtype of the computation."""
        value = self._problem.geometry.plan_cost(*self._logarithms())
        return refuse_gradient(value, SHARP_GRADIENT, *self.differentiable_inputs())

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """An interval (lower, upper) that contains OT_ε, in float64: four float64 passes, at each access."""
        lower, upper = certificate.bounds(self._problem, self._solution.g)
        return self._unbatch(lower), self._unbatch(upper)

    @property
    def marginal_error(self) -> Tensor:
        """The plan's L1 marginal error relative to the mass, rows and columns added up."""
        return self._unbatch(self._solution.marginal_error).to(self._inputs.dtype)

    @property
    def converged(self) -> bool | Tensor:
        """Whether the marginal error met the tolerance."""
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
        """The potential of the first side, (n,) or (B, n), in cost units; defined up to a constant if balanced."""
        return self._guarded(self._solution.f, "f")

    @property
    def g(self) -> Tensor:
        """The potential of the second side, (m,) or (B, m), in cost units."""
        return self._guarded(self._solution.g, "g")

    def potentials_at(self, points: Tensor, side: int = 0) -> Tensor:
        """The potential f (``side=0``) or g (``side=1``) at new points (k, d) or (B, k, d): (k,) or (B, k).

        The softmin extends a potential to the whole space: f(z) = −ε log Σ_j b_j exp((g_j − c(z, y_j))/ε).

        Raises:
            ValueError: if the problem was given as a matrix, or the points do not fit.
        """
        geometry = self._cloud("potentials_at")
        points = self._operand("points", points, None, geometry.x.shape[-1])
        other, weights = (self._solution.g, self._problem.b) if side == 0 else (self._solution.f, self._problem.a)
        eps = self._problem.eps_column()
        raw = geometry.at(points, _check_side(side)).softmin(weights.log() + other / eps, eps, 0)
        return self._guarded(self._problem.damped(raw, eps, side), "potentials_at", points)

    # The plan, as an operator.

    def apply(self, v: Tensor) -> Tensor:
        """P v for v (m,), (m, k), or batched (B, m), (B, m, k): one pass, no matrix is formed."""
        return self._product("v", v, side=0)

    def apply_transpose(self, u: Tensor) -> Tensor:
        """Pᵀ u for u (n,), (n, k), or batched (B, n), (B, n, k)."""
        return self._product("u", u, side=1)

    def marginals(self) -> tuple[Tensor, Tensor]:
        """The plan's actual row sums, (n,) or (B, n), and column sums, (m,) or (B, m)."""
        return self._guarded(self._marginal(0), "marginals"), self._guarded(self._marginal(1), "marginals")

    def barycentric_map(self) -> Tensor:
        """T(x_i) = Σ_j P_ij y_j / Σ_j P_ij, the mean of where x_i is sent: (n, d) or (B, n, d).

        A point of weight zero has no mean and gets NaN.

        Raises:
            ValueError: if the problem was given as a matrix; use ``apply`` on your own targets.
        """
        geometry = self._cloud("barycentric_map")
        sent = geometry.plan_product(*self._logarithms(), geometry.y, 0)
        return self._guarded(sent / self._marginal(0)[:, :, None] + geometry.center, "barycentric_map")

    def plan(self) -> Tensor:
        """The plan as a matrix, (n, m) or (B, n, m): memory O(nm)."""
        return self._guarded(self._problem.geometry.plan_matrix(*self._logarithms()), "plan")

    def partials(self, wanted: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        """Derivatives of the value with respect to (a, b, *cost inputs), batched; None where not wanted."""
        wanted_a, wanted_b, *wanted_cost = wanted
        grad_a = self._weight_gradient(0) if wanted_a else None
        grad_b = self._weight_gradient(1) if wanted_b else None
        return grad_a, grad_b, *self._cost_partials(tuple(wanted_cost))

    def self_partials(self, wanted_weights: bool, wanted_points: bool) -> tuple[Tensor | None, Tensor | None]:
        """Derivatives of OT_ε(α, α) with respect to α's weights and points, for samples whose two sides are one."""
        if self._problem.symmetric:  # both sides contribute the same
            grad_a, _, grad_x, _ = self.partials((wanted_weights, False, wanted_points, False))
            return None if grad_a is None else 2 * grad_a, None if grad_x is None else 2 * grad_x
        grad_a, grad_b, grad_x, grad_y = self.partials((wanted_weights, wanted_weights, wanted_points, wanted_points))
        return (
            None if grad_a is None or grad_b is None else grad_a + grad_b,
            None if grad_x is None or grad_y is None else grad_x + grad_y,
        )

    # For losses.

    def detached(self) -> Transport:
        """The same solution, without the caller's graph."""
        inputs = self._inputs
        names = ("a", "b", *(("x", "y") if isinstance(inputs, Samples) else ("C",)))
        detached = {name: getattr(inputs, name).detach() for name in names}
        return Transport(self._problem, replace(self._solution, gradient=None), replace(inputs, **detached))

    def extended_to(self, geometry: Geometry) -> Start | None:
        """A start for a problem between other points, the same or others: the softmin extends g to them, in one pass.

        None where the points do not fit.
        """
        mine = self._problem.geometry
        if not (isinstance(mine, CloudGeometry) and isinstance(geometry, CloudGeometry) and mine.resembles(geometry)):
            return None
        eps = self._problem.eps_column()
        h = self._problem.a.log() + self._solution.f / eps
        raw = mine.at(geometry.y + geometry.center, 1).softmin(h, eps, 0)
        return Start(self._problem.damped(raw, eps, side=1))

    # For the divergence.

    @property
    def detached_value(self) -> Tensor:
        """The value (B,) in the dtype of the computation, without derivative."""
        return self._solution.value

    @property
    def eps(self) -> float:
        """The regularisation ε, in cost units."""
        return self._problem.eps

    @property
    def excess_mass(self) -> Tensor | None:
        """m_α − m_β, (B,), where the marginals are soft; None where they are hard."""
        problem = self._problem
        return None if problem.balanced else problem.a.sum(-1) - problem.b.sum(-1)

    def differentiable_inputs(self) -> tuple[Tensor, ...]:
        """(a, b, *cost inputs), attached to the caller's graph."""
        inputs = self._inputs
        cost_inputs = (inputs.x, inputs.y) if isinstance(inputs, Samples) else (inputs.C,)
        return inputs.a, inputs.b, *cost_inputs

    def as_given(self, value: Tensor) -> Tensor:
        """A value (B,) in the caller's form: 0-d if there was no batch, in the dtype of the inputs."""
        return self._unbatch(value).to(self._inputs.dtype)

    def __repr__(self) -> str:
        batch, n, m = self._problem.geometry.shape
        count = f"{batch} problems " if self._inputs.batched else ""
        statuses = self._solution.status
        done = sum(status is Status.CONVERGED for status in statuses)
        state = ("converged" if done else "not converged") if batch == 1 else f"{done} of {batch} converged"
        error, passes = float(self._solution.marginal_error.max()), int(self._solution.passes.max())
        return f"Transport({count}{n}×{m}, eps={self._problem.eps:g}, {state}, error {error:.1e}, {passes} passes)"

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
        potential = problem.damped(raw, problem.eps_column(), side)
        other_mass = mass((problem.b, problem.a)[side])[:, None]
        rho = problem.rho[side]
        if problem.balanced:
            return potential + problem.eps * (other_mass - 1)
        return rho + problem.eps * other_mass - (rho + problem.eps) * torch.exp(-potential / rho)

    def _marginal(self, side: int) -> Tensor:
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

    def _cloud(self, asker: str) -> CloudGeometry:
        if not isinstance(self._problem.geometry, CloudGeometry):
            raise ValueError(f"{asker} needs points, but this problem was given as a cost matrix")
        return self._problem.geometry

    def _product(self, name: str, operand: Tensor, side: int) -> Tensor:
        count = self._problem.geometry.shape[2 - side]
        check_finite_tensor(name, operand)
        flat = operand.ndim == 1 + self._inputs.batched
        columns = self._operand(name, operand.unsqueeze(-1) if flat else operand, count, None)
        result = self._problem.geometry.plan_product(*self._logarithms(), columns.detach(), side)
        return self._guarded(result.squeeze(-1) if flat else result, "a plan product", columns)

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

    def _guarded(self, tensor: Tensor, what: str, *more: Tensor) -> Tensor:
        """A result without derivative: it says so when somebody differentiates it, instead of passing zeros."""
        inputs = (*self.differentiable_inputs(), *more)
        return self._unbatch(refuse_gradient(tensor, PLAN_GRADIENT.format(what), *inputs)).to(self._inputs.dtype)

    def _unbatch(self, tensor: Tensor) -> Tensor:
        return tensor if self._inputs.batched else tensor.squeeze(0)


def solve(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    blur: float | None = None,
    eps: float | None = None,
    cost: str = "sqeuclidean",
    reach: Length | None = None,
    rho: Length | None = None,
    tol: float = 1e-3,
    max_passes: int = 2000,
    progress: bool = False,
    callback: Callback | None = None,
) -> Transport:
    """Solve the entropic transport problem between two weighted samples.

    Args:
        x: points (n, d), or a batch (B, n, d) of equally many.
        y: points (m, d) or (B, m, d), of x's dtype and device.
        a: weights of x, (n,) or (B, n); uniform of mass 1 if omitted.
        b: weights of y, (m,) or (B, m); uniform of mass 1 if omitted.
        blur: the regularisation as a length σ in the units of the points: ε = p·σᵖ for the cost |x−y|ᵖ.
        eps: the regularisation ε in cost units. Exactly one of ``blur`` and ``eps`` is required.
        cost: "sqeuclidean", |x−y|², or "euclidean", |x−y|.
        reach: softens the marginals: a length, ρ = p·reachᵖ, or a pair for the two sides. Balanced if omitted.
        rho: the same in cost units. At most one of ``reach`` and ``rho``.
        tol: the relative L1 marginal error to reach at the target ε.
        max_passes: bound on the passes over all pairs, annealing included.
        progress: draw the passes and the error on stderr.
        callback: sees a `Check` at each convergence test and ends the solve by returning True.

    Returns:
        A `Transport`. If it did not converge, a `ConvergenceWarning` was issued and its status says why.

    Raises:
        ValueError: naming the argument that is wrong, before any work.
    """
    settings = Settings.check(
        find_cost(cost), blur=blur, eps=eps, reach=reach, rho=rho, tol=tol, max_passes=max_passes,
        progress=progress, callback=callback,
    )  # fmt: skip
    (transport,) = solve_samples([check_samples(x, y, a, b, balanced=settings.balanced)], settings)
    warn_unless_converged(transport)
    return transport


def solve_matrix(
    C: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    eps: float,
    rho: Length | None = None,
    method: str = "auto",
    tol: float = 1e-3,
    max_passes: int = 2000,
    progress: bool = False,
    callback: Callback | None = None,
) -> Transport:
    """Solve the entropic transport problem of an explicit cost matrix.

    Memory: a copy of C, so that C may change afterwards, and while the solve lasts as much again for a stored kernel.

    Args:
        C: costs, (n, m) or a batch (B, n, m). +inf forbids a pair: the plan is zero there.
        a: weights of the rows, (n,) or (B, n); uniform of mass 1 if omitted.
        b: weights of the columns, (m,) or (B, m); uniform of mass 1 if omitted.
        eps: the regularisation ε, in units of C.
        rho: softens the marginals, in units of C: one strength, or a pair. Balanced if omitted.
        method: "auto" is "sinkhorn", and "newton" where a forecast from the first passes says that it is cheaper.
            "sinkhorn" is the accelerated iteration, by products with a stored kernel; "lbfgs" and "newton" maximise the
            semi-dual (Q23 §3). All give the same solution, and all serve soft marginals.
        tol, max_passes, progress, callback: as in `solve`.

    Raises:
        ValueError: naming the argument that is wrong, before any work.
    """
    settings = Settings.check(
        None, blur=None, eps=eps, reach=None, rho=rho, tol=tol, max_passes=max_passes,
        progress=progress, callback=callback,
    )  # fmt: skip
    if method not in MATRIX_METHODS:
        names = ", ".join(f'"{name}"' for name in MATRIX_METHODS)
        raise ValueError(f"method must be one of {names}, not {method!r}")
    inputs = check_matrix(C, a, b, balanced=settings.balanced)
    solved: list[Transport] = _solve([(MatrixGeometry(inputs.C), inputs)], settings, method=method)
    (transport,) = solved
    warn_unless_converged(transport)
    return transport


def transport_cost(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    blur: float | None = None,
    eps: float | None = None,
    cost: str = "sqeuclidean",
    reach: Length | None = None,
    rho: Length | None = None,
    value: str = "entropic",
    derivative: str = "auto",
    tol: float = 1e-3,
    max_passes: int = 2000,
    progress: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    """OT_ε between two weighted samples: the cost itself, not debiased (it is not zero for equal samples).

    Args:
        value: "entropic", OT_ε itself, differentiable once in points and weights; or "sharp", <P_ε, C>, without
            derivative.
        derivative: "auto" or "envelope".
        x, y, a, b, blur, eps, cost, reach, rho, tol, max_passes, progress, callback: as in `solve`.

    Returns:
        A 0-d tensor, or (B,) for a batch.
    """
    check_value(value, derivative)
    settings = Settings.check(
        find_cost(cost), blur=blur, eps=eps, reach=reach, rho=rho, tol=tol, max_passes=max_passes,
        progress=progress, callback=callback,
    )  # fmt: skip
    (transport,) = solve_samples([check_samples(x, y, a, b, balanced=settings.balanced)], settings)
    warn_unless_converged(transport)
    return transport.value if value == "entropic" else transport.sharp


def solve_samples(samples: Sequence[Samples], settings: Settings, previous: Transport | None = None) -> list[Transport]:
    """Solve checked problems together; the caller reports what did not converge.

    ``previous`` is a solved problem that resembles the first: its potential is where that one starts from.
    """
    cost = settings.cost
    assert cost is not None, "points need a cost between them"
    solved: list[Transport] = _solve([(_cloud(one, cost), one) for one in samples], settings, previous)
    return solved


def _cloud(samples: Samples, cost: Cost) -> CloudGeometry:
    x = samples.x.detach()
    return CloudGeometry(x, x if samples.y is samples.x else samples.y.detach(), cost)


def warn_unless_converged(*transports: Transport, stacklevel: int = 3) -> None:
    """One `ConvergenceWarning` for all the problems that did not converge, with the first one's status in it.

    ``stacklevel`` points at the caller of the public function that asks.
    """
    solutions = [transport._solution for transport in transports]
    failed = [
        (status, float(solution.marginal_error[index]))
        for solution in solutions
        for index, status in enumerate(solution.status)
        if status is not Status.CONVERGED
    ]
    if failed:
        total = sum(len(solution.status) for solution in solutions)
        status, error = failed[0]
        message = f"{len(failed)} of {total} transport problems {status} (marginal error {error:.2g})"
        warnings.warn(message, ConvergenceWarning, stacklevel=stacklevel)


@torch.compiler.disable
def _solve(
    given: Sequence[tuple[Geometry, Samples | CostMatrix]], settings: Settings, previous: Transport | None = None,
    method: str | None = None,
) -> list[Transport]:  # fmt: skip
    problems = [_problem(geometry, inputs, settings) for geometry, inputs in given]
    differentiate = [isinstance(inputs, Samples) and inputs.x.requires_grad for _, inputs in given]
    starts: list[Start | None] = [None] * len(problems)
    if previous is not None:
        starts[0] = previous.extended_to(problems[0].geometry)
    try:
        if method is not None:
            solutions = [run_matrix_solver(problem, settings.limits, method) for problem in problems]
        else:
            solutions = run_solver(problems, settings.limits, starts, differentiate)
    except OverflowError:
        geometry, inputs = given[0]
        names = "x and y hold points" if isinstance(inputs, Samples) else "C holds costs"
        raise ValueError(
            f"{names} so far apart that costs overflow {geometry.dtype}: rescale them or use float64"
        ) from None
    return [
        Transport(problem, solution, inputs)
        for problem, solution, (_, inputs) in zip(problems, solutions, given, strict=True)
    ]


def _problem(geometry: Geometry, inputs: Samples | CostMatrix, settings: Settings) -> Problem:
    a, b = inputs.a.detach(), inputs.b.detach()
    if not inputs.unit_masses:  # they are the caller's, and as with points may change in place
        a, b = a.clone(), b.clone()
    if inputs.b is inputs.a:
        b = a
    elif settings.balanced and not inputs.unit_masses:
        # The masses agree to the door's tolerance; the problem needs them equal.
        b = b * (mass(a) / mass(b))[:, None]
    return Problem(geometry, a, b, settings.eps, settings.rho)


def _check_side(side: int) -> int:
    if side not in (0, 1):
        raise ValueError(f"side must be 0 (rows) or 1 (columns), not {side!r}")
    return side
