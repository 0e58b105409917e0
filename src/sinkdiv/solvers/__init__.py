"""Algorithms. A solver sees a problem, that is a geometry's protocol and two weights, and returns potentials."""

from sinkdiv.solvers.alternating import alternating
from sinkdiv.solvers.problem import Check, Limits, Problem, Solution, Status
from sinkdiv.solvers.symmetric import symmetric

__all__ = ["Check", "Limits", "Problem", "Solution", "Status", "alternating", "solve", "symmetric"]


def solve(problem: Problem, limits: Limits) -> Solution:
    """Solve with the algorithm that fits: the symmetric one needs a third of the passes where it applies."""
    return symmetric(problem, limits) if problem.symmetric else alternating(problem, limits)
