"""The self problem OT_ε(α, α), whose two potentials are equal: averaging f with its own softmin finds it in few passes.

Source: F19 §3.1. What differs from the textbook: annealed, damped for soft marginals, and stopped by the marginal
error, which the pass that updates f also measures.
"""

from __future__ import annotations

import torch

from sinkdiv.solvers.annealing import Annealing
from sinkdiv.solvers.problem import Limits, Problem, Solution
from sinkdiv.solvers.progress import Iterate, Progress


def symmetric(problem: Problem, limits: Limits) -> Solution:
    """Solve a problem whose `Problem.symmetric` holds. Both marginals of the returned plan carry the same error."""
    annealing = Annealing(problem, limits, passes_per_step=1)
    progress = Progress(problem, limits)
    f = torch.zeros_like(problem.a)
    for step in range(limits.max_passes):
        eps = annealing.eps(step)
        raw = problem.raw_potential(f, eps, side=0)
        updated = problem.damped(raw, eps, side=0)
        # A point without mass sends nothing back, so there is nothing to average: its potential is the softmin itself.
        f = torch.where(problem.a > 0, f, updated)
        error = 2 * problem.residual(problem.marginal(f, raw, eps, side=0), f, side=0)
        if progress.record(Iterate(f, f, raw, raw, error), annealing.at_target(step), step + 1, eps):
            break
        f = (f + updated) / 2
    return progress.solution()
