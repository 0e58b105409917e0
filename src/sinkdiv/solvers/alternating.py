"""Sinkhorn's algorithm: each potential in turn becomes the softmin of the other.

What differs from the textbook: ε is annealed to the target and the iteration then goes on *at the target* until the
marginal error is below the tolerance; the softmin that would update g also measures the column error of the current
plan, so the test costs nothing; soft marginals damp the update.
"""

from __future__ import annotations

import torch

from sinkdiv.solvers.annealing import Annealing
from sinkdiv.solvers.problem import Limits, Problem, Solution
from sinkdiv.solvers.progress import Iterate, Progress


def alternating(problem: Problem, limits: Limits) -> Solution:
    """Solve any problem. The rows of the returned plan are exact; its columns carry the marginal error."""
    annealing = Annealing(problem, limits, passes_per_step=2)
    progress = Progress(problem, limits)
    g = torch.zeros_like(problem.b)
    for step in range(max(1, limits.max_passes // 2)):
        eps = annealing.eps(step)
        raw_f = problem.raw_potential(g, eps, side=0)
        f = problem.damped(raw_f, eps, side=0)
        raw_g = problem.raw_potential(f, eps, side=1)
        error = problem.residual(problem.marginal(g, raw_g, eps, side=1), g, side=1)
        iterate = Iterate(f, g, raw_f, raw_g, error)
        if progress.record(iterate, annealing.at_target(step), 2 * (step + 1), eps):
            break
        g = problem.damped(raw_g, eps, side=1)
    return progress.solution()
