"""Algorithms. A solver sees a problem, that is a geometry's protocol and two weights, and returns potentials."""

from __future__ import annotations

from collections.abc import Sequence

from sinkdiv.solvers import padded
from sinkdiv.solvers.accelerated import accelerated
from sinkdiv.solvers.automatic import automatic
from sinkdiv.solvers.gibbs import sinkhorn
from sinkdiv.solvers.lbfgs import lbfgs
from sinkdiv.solvers.newton import newton
from sinkdiv.solvers.problem import Check, Limits, Problem, Solution, Start, Status, check_spread
from sinkdiv.solvers.small import engine_of, solve_small
from sinkdiv.solvers.symmetric import symmetric

__all__ = [
    "STORED_METHODS",
    "Check",
    "Limits",
    "Problem",
    "Solution",
    "Start",
    "Status",
    "accelerated",
    "solve",
    "solve_stored",
    "symmetric",
]

#: The methods that hold the cost matrix in memory, by name.
STORED_METHODS = {"auto": automatic, "sinkhorn": sinkhorn, "lbfgs": lbfgs, "newton": newton}


def solve(
    problems: Sequence[Problem], limits: Limits, starts: Sequence[Start | None], differentiate: Sequence[bool]
) -> list[Solution]:
    """Solve problems of one dtype and device, each with the algorithm that fits it.

    ``differentiate`` says of each problem whether its value will be differentiated in the first points: small problems
    then bring their gradient along, from the same native call.

    Raises:
        OverflowError: if the costs of a problem overflow the dtype, unless nothing is to be read from its device.
    """
    engine = engine_of(problems, limits)
    if engine is not None:
        return solve_small(engine, problems, limits, starts, differentiate)
    if padded.is_worthwhile(problems[0].a.device):
        return padded.solve_joined(problems, limits, starts, _solve_each)
    return _solve_each(problems, limits, starts)


def solve_stored(problem: Problem, limits: Limits, method: str, start: Start | None) -> Solution:
    """Solve a problem with one of `STORED_METHODS`, or pass by pass where nothing is tested.

    The costs are held in memory while the solve lasts. A problem of a measure with itself is solved by the symmetric
    algorithm, which needs a few passes only.

    Raises:
        NotImplementedError: if the costs cannot be formed.
        OverflowError: if the costs overflow the dtype.
    """
    if not limits.tested or problem.symmetric:  # a stored kernel needs tests of its own, which wait for the device
        return solve([problem], limits, [start], [False])[0]
    if problem.geometry.dense is None:
        raise NotImplementedError(f"this kind of cost has no matrix, which the solver {method!r} needs: use Auto()")
    check_spread(problem.spreads)
    return STORED_METHODS[method](problem, limits, start)


def _solve_each(problems: Sequence[Problem], limits: Limits, starts: Sequence[Start | None]) -> list[Solution]:
    return [_solve_one(problem, limits, start) for problem, start in zip(problems, starts, strict=True)]


def _solve_one(problem: Problem, limits: Limits, start: Start | None) -> Solution:
    """The symmetric algorithm needs a few passes only, where it applies."""
    if limits.tested or problem.a.device.type == "cpu":
        check_spread(problem.spreads)
    return symmetric(problem, limits, start) if problem.symmetric else accelerated(problem, limits, start)
