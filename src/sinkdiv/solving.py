"""From samples or a cost matrix to solved problems and their values: checks, the solver, warnings."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

from torch import Tensor

from sinkdiv.derivatives import UnrolledIterations
from sinkdiv.geometry import CloudGeometry, DifferentiableReductions, Geometry, MatrixGeometry
from sinkdiv.ground import CostLike, GroundCost, find_ground_cost
from sinkdiv.measures import CostMatrix, Samples, check_matrix, check_samples, equalised, is_captured
from sinkdiv.settings import Callback, ConvergenceWarning, Length, Settings, Wanted
from sinkdiv.solvers import MATRIX_METHODS, Problem, Start, Status
from sinkdiv.solvers import solve as run_solver
from sinkdiv.solvers import solve_matrix as run_matrix_solver
from sinkdiv.transforms import outside
from sinkdiv.transport import Transport, given_form


def solve(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    blur: float | None = None,
    eps: float | None = None,
    cost: CostLike = "sqeuclidean",
    reach: Length | None = None,
    rho: Length | None = None,
    tol: float | None = 1e-3,
    max_passes: int = 2000,
    progress: bool = False,
    callback: Callback | None = None,
    precision: str = "high",
) -> Transport:
    """Solve the entropic transport problem between two weighted samples.

    Args:
        x: points (n, d), or a batch (B, n, d) of equally many.
        y: points (m, d) or (B, m, d), of x's dtype and device.
        a: weights of x, (n,) or (B, n); uniform of mass 1 if omitted.
        b: weights of y, (m,) or (B, m); uniform of mass 1 if omitted.
        blur: the regularisation as a length σ in the units of the points: ε = p·σᵖ for the cost |x−y|ᵖ.
        eps: the regularisation ε in cost units. Exactly one of ``blur`` and ``eps`` is required.
        cost: "sqeuclidean", |x−y|², or "euclidean", |x−y|; any other power as `PowerCost`; "cosine", 1 − x·y/(|x||y|),
            for which a length is one of chords between directions, ε = blur²; or learned: a module that maps points to
            features (under |·|², or see `FeatureCost`), streamed like the named ones, or any function of (x, y) that
            returns their cost matrix, (n, m) or (B, n, m), which takes ``eps`` and ``rho`` and is held in memory.
        reach: softens the marginals: a length, ρ = p·reachᵖ, or a pair for the two sides. Balanced if omitted.
        rho: the same in cost units. At most one of ``reach`` and ``rho``.
        tol: the relative L1 marginal error to reach at the target ε. None asks for just ``max_passes`` and no test
            (in pairs of passes, unless both sides are one): nothing is then read back from the device, so that the
            solve can be captured into a CUDA graph, where values of the samples are not checked either. Its status is
            ``Status.FIXED``, `converged` is False, and nothing warns: look at `marginal_error`.
        max_passes: bound on the passes over all pairs, annealing included.
        progress: draw the passes and the error on stderr.
        callback: sees a `Check` at each convergence test and ends the solve by returning True. A CPU tests after each
            step, an accelerator, where a test makes the host wait, after several steps if it takes many.
        precision: how GPUs multiply float32 coordinates of more than 8 dimensions under |x−y|²: "high", about as
            precisely as float32, or "tf32", with two thirds of that arithmetic, which solves the problem of points that
            have moved by a relative 2⁻¹². CPUs, other costs and float64 do not look at it.

    Returns:
        A `Transport`. If it did not converge, a `ConvergenceWarning` was issued and its status says why.

    Raises:
        ValueError: naming the argument that is wrong, before any work.
    """
    settings = Settings.check(
        find_ground_cost(cost), blur=blur, eps=eps, reach=reach, rho=rho, tol=tol, max_passes=max_passes,
        progress=progress, callback=callback, precision=precision,
    )  # fmt: skip
    samples = settings.ground.featured(check_samples(x, y, a, b, balanced=settings.balanced))
    (transport,) = solve_samples([samples], settings)
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
    tol: float | None = 1e-3,
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
        GroundCost(None), blur=None, eps=eps, reach=None, rho=rho, tol=tol, max_passes=max_passes,
        progress=progress, callback=callback, precision="high",
    )  # fmt: skip
    if method not in MATRIX_METHODS:
        names = ", ".join(f'"{name}"' for name in MATRIX_METHODS)
        raise ValueError(f"method must be one of {names}, not {method!r}")
    if tol is None and method not in ("auto", "sinkhorn"):
        raise ValueError(f'method="{method}" goes by convergence tests, but tol=None asks for none: give a tol')
    inputs = check_matrix(C, a, b, balanced=settings.balanced)
    (transport,) = _solve([inputs], settings, method=method)
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
    cost: CostLike = "sqeuclidean",
    reach: Length | None = None,
    rho: Length | None = None,
    value: str = "entropic",
    derivative: str = "auto",
    iterations: int | None = None,
    tol: float | None = 1e-3,
    max_passes: int = 2000,
    progress: bool = False,
    callback: Callback | None = None,
    precision: str = "high",
) -> Tensor:
    """OT_ε between two weighted samples: the cost itself, not debiased (it is not zero for equal samples).

    Args:
        value, derivative, iterations: as in `sinkdiv.sinkhorn_divergence`.
        x, y, a, b, blur, eps, cost, reach, rho, tol, max_passes, progress, callback, precision: as in `solve`.

    Returns:
        A 0-d tensor, or (B,) for a batch.
    """
    wanted = Wanted.check(value, derivative, iterations)
    settings = Settings.check(
        find_ground_cost(cost), blur=blur, eps=eps, reach=reach, rho=rho, tol=tol, max_passes=max_passes,
        progress=progress, callback=callback, precision=precision,
    )  # fmt: skip
    samples = settings.ground.featured(check_samples(x, y, a, b, balanced=settings.balanced))
    return transport_value(samples, settings, wanted)


def transport_value(
    samples: Samples, settings: Settings, wanted: Wanted, solve: Callable[[], Transport] | None = None
) -> Tensor:
    """The value that is wanted between featured samples; ``solve`` may have its own way of finding the transport."""
    if wanted.iterations is not None:
        return given_form(unrolled_value(samples, settings, wanted), samples)
    transport = solve() if solve else solve_samples([samples], settings)[0]
    warn_unless_converged(transport, stacklevel=4)
    return transport.value if wanted.value == "entropic" else transport.sharp


def unrolled_value(samples: Samples, settings: Settings, wanted: Wanted) -> Tensor:
    """The value (B,) that is wanted, after as many iterations, which are differentiated."""
    assert wanted.iterations is not None, "a solve is not unrolled"
    posed = settings.ground.posed(samples)
    a, b, *costs = posed.tensors
    if settings.balanced and not posed.unit_masses:
        b = equalised(b, a)
    reductions: DifferentiableReductions = outside(
        lambda *numbers: _reductions(_problem(posed, numbers, settings)), *posed.tensors
    )
    unrolled = UnrolledIterations(reductions, settings.rho, wanted.iterations, positive=samples.positive)
    value = unrolled.entropic if wanted.value == "entropic" else unrolled.sharp
    return value(a, b, reductions.centred(tuple(costs)))


def _reductions(problem: Problem) -> DifferentiableReductions:
    return problem.geometry.differentiable(problem.eps_column())


def solve_samples(samples: Sequence[Samples], settings: Settings, previous: Transport | None = None) -> list[Transport]:
    """Solve problems between featured samples together; the caller reports what did not converge.

    ``previous`` is a solved problem that resembles the first: its potential is where that one starts from.
    """
    return _solve([settings.ground.posed(one) for one in samples], settings, previous)


def warn_unless_converged(*transports: Transport, stacklevel: int = 3) -> None:
    """One `ConvergenceWarning` for all the problems that did not converge, with the first one's status in it.

    ``stacklevel`` points at the caller of the public function that asks.
    """
    solutions = [transport._solution for transport in transports]
    failed = [
        (status, float(solution.marginal_error[index]))
        for solution in solutions
        for index, status in enumerate(solution.status)
        if status not in (Status.CONVERGED, Status.FIXED)
    ]
    if failed:
        total = sum(len(solution.status) for solution in solutions)
        status, error = failed[0]
        message = f"{len(failed)} of {total} transport problems {status} (marginal error {error:.2g})"
        warnings.warn(message, ConvergenceWarning, stacklevel=stacklevel)


def _solve(
    given: Sequence[Samples | CostMatrix], settings: Settings, previous: Transport | None = None,
    method: str | None = None,
) -> list[Transport]:  # fmt: skip
    """Solve checked problems, outside every graph and transform."""
    if settings.limits.tested and is_captured(given[0].a):
        raise ValueError("tol must be None while a CUDA graph is captured: a convergence test waits for the device")
    transports: list[Transport] = outside(
        lambda *numbers: _solve_numbers(given, numbers, settings, previous, method),
        *(t for one in given for t in one.tensors),
    )
    return transports


def _solve_numbers(
    given: Sequence[Samples | CostMatrix],
    numbers: tuple[Tensor, ...],
    settings: Settings,
    previous: Transport | None,
    method: str | None,
) -> list[Transport]:
    left = iter(numbers)
    problems = [_problem(one, tuple(next(left) for _ in one.tensors), settings) for one in given]
    differentiate = [isinstance(one, Samples) and one.x.requires_grad for one in given]
    starts: list[Start | None] = [None] * len(problems)
    if previous is not None:
        starts[0] = previous.extended_to(problems[0].geometry)
    try:
        if method is not None:
            solutions = [run_matrix_solver(problem, settings.limits, method) for problem in problems]
        else:
            solutions = run_solver(problems, settings.limits, starts, differentiate)
    except OverflowError:
        names = "x and y hold points" if isinstance(given[0], Samples) else "C holds costs"
        raise ValueError(
            f"{names} so far apart that costs overflow {problems[0].a.dtype}: rescale them or use float64"
        ) from None
    return [
        Transport(problem, solution, one, settings)
        for problem, solution, one in zip(problems, solutions, given, strict=True)
    ]


def _problem(given: Samples | CostMatrix, numbers: tuple[Tensor, ...], settings: Settings) -> Problem:
    a, b, *costs = numbers
    if not given.unit_masses:  # they are the caller's, and as with points may change in place
        a, b = a.clone(), b.clone()
    if given.b is given.a:
        b = a
    elif settings.balanced and not given.unit_masses:
        b = equalised(b, a)
    return Problem(_geometry(given, costs, settings), a, b, (settings.eps,) * len(a), settings.rho)


def _geometry(given: Samples | CostMatrix, costs: Sequence[Tensor], settings: Settings) -> Geometry:
    if isinstance(given, CostMatrix):
        return MatrixGeometry(costs[0], forbids=given.forbids)
    cost = settings.ground.cost
    assert cost is not None, "points need a cost between them"
    x, y = costs
    return CloudGeometry(x, x if given.y is given.x else y, cost, precision=settings.precision)
