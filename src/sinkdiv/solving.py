"""From what a user gives to solved problems: the door, the solver, and the warning if they did not converge."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from sinkdiv import checks
from sinkdiv.costs import FunctionCost
from sinkdiv.derivatives import UnrolledIterations
from sinkdiv.differentiable import DifferentiableSolution
from sinkdiv.geometry import DifferentiableReductions, geometry_of
from sinkdiv.measures import (
    CostMatrix,
    Measures,
    Samples,
    check_any,
    equalised,
    is_list_of_clouds,
)
from sinkdiv.options import Numbers, Settings
from sinkdiv.solvers import Problem, Solution, Status
from sinkdiv.solvers import solve as run_solver
from sinkdiv.solvers import solve_stored as run_stored_solver
from sinkdiv.solvers.choice import Earlier, IterativeSolver, Unrolled
from sinkdiv.transforms import full_precision, outside


class ConvergenceWarning(UserWarning):
    """A solve ended before its marginal error fell below the tolerance."""


def checked_samples(x: Any, y: Any, a: Any, b: Any, settings: Settings) -> list[Samples]:
    """The samples that the cost sees: one pair, or for lists of clouds one for each.

    Raises:
        ValueError: naming the argument that is wrong, before any work.
    """
    samples = check_any(x, y, a, b, balanced=settings.balanced)
    check_eps(settings, samples, listed=is_list_of_clouds(x))
    return [_featured(one, settings) for one in samples]


def solve_samples(
    samples: Sequence[Samples], settings: Settings, earlier: Sequence[Earlier | None] = ()
) -> list[DifferentiableSolution]:
    """Solve problems between featured samples together; the caller reports what did not converge.

    ``earlier`` holds for each of them, or for none, a solved problem to start from, or None.
    """
    return solve_posed([_posed(one, settings) for one in samples], settings, earlier)


def solve_posed(
    posed: Sequence[Measures], settings: Settings, earlier: Sequence[Earlier | None] = ()
) -> list[DifferentiableSolution]:
    """Solve checked problems, outside every graph and transform, and outside autocast.

    Raises:
        ValueError: if numbers are beyond the range of the dtype.
    """
    if settings.limits.tested and checks.is_captured(posed[0].a):
        raise ValueError("tol must be None while a CUDA graph is captured: a convergence test waits for the device")

    def solved(*numbers: Tensor) -> list[DifferentiableSolution]:
        left = iter(numbers)
        each = eps_of_each(settings.eps, posed)
        problems = [
            _problem(one, tuple(next(left) for _ in one.tensors), eps, settings)
            for one, eps in zip(posed, each, strict=True)
        ]
        with full_precision(posed[0].a):
            solutions = _solutions(problems, posed, settings, earlier)
        return [DifferentiableSolution(*one, settings) for one in zip(problems, solutions, posed, strict=True)]

    found: list[DifferentiableSolution] = outside(solved, *(t for one in posed for t in one.tensors))
    return found


def unrolled_values(samples: Sequence[Samples], settings: Settings) -> list[Tensor]:
    """The values (B,) that are wanted of problems after some iterations, which are differentiated."""
    return [
        _unrolled_value(one, eps, settings)
        for one, eps in zip(samples, eps_of_each(settings.eps, samples), strict=True)
    ]


def eps_of_each(eps: Numbers, problems: Sequence[Measures]) -> list[Numbers]:
    """ε for each of several problems: a number, or a tensor (B,) for a batch.

    Where there are several problems for each ε, such as the three of a divergence, they stand together.
    """
    if not isinstance(eps, Tensor) or problems[0].batched:
        return [eps] * len(problems)
    several = len(problems) // len(eps)
    return [one for one in eps.tolist() for _ in range(several)]


def warn_unless_converged(solved: Sequence[DifferentiableSolution]) -> None:
    """One `ConvergenceWarning` for all the problems that did not converge, with the first one's status in it."""
    solutions = [one.solution for one in solved]
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
        warnings.warn(message, ConvergenceWarning, stacklevel=_callers_level())


def _callers_level() -> int:
    """The ``stacklevel``, for a warning in the function that asks, of the first frame that is not the library's."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("sinkdiv", "torch"):
        level, frame = level + 1, frame.f_back
    return level


def check_eps(settings: Settings, problems: Sequence[Measures], *, listed: bool) -> None:
    """Refuse a tensor of ε that does not hold one number for each problem, on their device or in the host's memory.

    And numbers that are 0 or infinite in the dtype of the computation.
    """
    eps, name, first = settings.eps, settings.eps_name, problems[0]
    if not isinstance(eps, Tensor):
        _check_range(name, eps, first.a.dtype)
        return
    if not (listed or first.batched):
        raise ValueError(f"{name} is a tensor (B,), but there is one problem and no batch: give a number")
    count = len(problems) if listed else len(first.a)
    if len(eps) != count:
        shape = checks.shape_text(eps)
        raise ValueError(f"{name} must hold one number for each of {count} problems, ({count},), not {shape}")
    if eps.device not in (first.a.device, torch.device("cpu")):
        raise ValueError(f"{name} must be on the device {first.a.device} of the samples or the CPU, not {eps.device}")
    if checks.is_captured(eps):
        raise ValueError(f"{name} must be a tensor on the CPU while a CUDA graph is captured: its numbers are read")
    for number in (eps.min(), eps.max()):
        _check_range(name, float(number), first.a.dtype)


def _check_range(name: str, eps: float, dtype: torch.dtype) -> None:
    info = torch.finfo(dtype)
    if not info.tiny <= eps <= info.max:
        raise ValueError(f"{name} comes to {eps:g} in cost units, beyond the range of {dtype}: rescale the costs")


def _featured(samples: Samples, settings: Settings) -> Samples:
    """The samples that the streamed cost sees; two sides that are one stay one."""
    cost = settings.cost
    if cost is None or not cost.makes_features:
        return samples
    x = cost.features("x", samples.x)
    return replace(samples, x=x, y=x if samples.y is samples.x else cost.features("y", samples.y))


def _posed(samples: Samples, settings: Settings) -> Samples | CostMatrix:
    """The problem between samples: with a cost matrix, if that is what the cost makes of them."""
    if not isinstance(settings.cost, FunctionCost):
        return samples
    x, y = (samples.x, samples.y) if samples.batched else (samples.x.squeeze(0), samples.y.squeeze(0))
    C = settings.cost.matrix(x, y)
    C = (C if samples.batched else C.unsqueeze(0)).to(samples.x.dtype)
    return CostMatrix(C, samples.a, samples.b, samples.batched, samples.dtype, samples.unit_masses, forbids=False)


def _problem(posed: Measures, numbers: Sequence[Tensor], eps: Numbers, settings: Settings) -> Problem:
    """What the solver is given: detached, of equal masses if the marginals are hard."""
    a, b, *costs = numbers
    if not posed.unit_masses:  # they are the caller's, and as with points may change in place
        a, b = a.clone(), b.clone()
    if posed.b is posed.a:
        b = a
    elif settings.balanced and not posed.unit_masses:
        b = equalised(b, a)
    streamed = None if settings.cost is None else settings.cost.streamed
    precision = settings.solver.precision if isinstance(settings.solver, IterativeSolver) else "high"
    geometry = geometry_of(posed, costs, streamed, precision)
    each = tuple(eps.tolist()) if isinstance(eps, Tensor) else (eps,) * len(a)
    return Problem(geometry, a, b, each, settings.rho)


def _solutions(
    problems: Sequence[Problem],
    posed: Sequence[Measures],
    settings: Settings,
    earlier: Sequence[Earlier | None],
) -> list[Solution]:
    """What the solver finds, from where earlier problems ended."""
    begun = zip_longest(earlier, problems)
    starts = [None if one is None else one._start_for(problem) for one, problem in begun]
    geometry = problems[0].geometry
    # What was given as a matrix is solved as one, if it is one: other costs stream.
    held = settings.iterative.holds_costs or (settings.cost is None and geometry.dense is not None)
    try:
        if held:
            method = settings.solver.name
            return [
                run_stored_solver(one, settings.limits, method, start)
                for one, start in zip(problems, starts, strict=True)
            ]
        differentiate = [geometry.points is not None and one.tensors[2].requires_grad for one in posed]
        return run_solver(problems, settings.limits, starts, differentiate)
    except OverflowError:
        names = "C holds costs" if geometry.points is None else "x and y hold points"
        raise ValueError(
            f"{names} so far apart that costs overflow {problems[0].a.dtype}: rescale them or use float64"
        ) from None


def _unrolled_value(samples: Samples, eps: Numbers, settings: Settings) -> Tensor:
    posed = _posed(samples, settings)
    assert isinstance(settings.solver, Unrolled), "others are solved"

    def reductions_of(*numbers: Tensor) -> DifferentiableReductions:
        problem = _problem(posed, numbers, eps, settings)
        return problem.geometry.differentiable(problem.eps_column())

    reductions: DifferentiableReductions = outside(reductions_of, *posed.tensors)
    equal_masses = settings.balanced and not posed.unit_masses
    a, b, *costs = reductions.normalised(posed.tensors, equal_masses=equal_masses)
    iterations = UnrolledIterations(reductions, settings.rho, settings.solver.iterations, positive=samples.positive)
    value = iterations.entropic if settings.value == "entropic" else iterations.sharp
    return value(a, b, tuple(costs))
