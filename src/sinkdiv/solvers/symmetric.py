"""The self problem OT_ε(α, α), whose two potentials are equal: averaging f with its own softmin finds it in few passes.

Source: F19 §3.1. What differs from the textbook: the averages are extrapolated, damped for soft marginals, and stopped
by the marginal error, which the pass that updates f also measures. There is no annealing: mass stays where it is, so
potentials need not move over the cloud, and levels would cost more than they save.
"""

from __future__ import annotations

import torch

from sinkdiv.solvers.anderson import suited_to
from sinkdiv.solvers.problem import Limits, Problem, Solution, Start
from sinkdiv.solvers.progress import Progress
from sinkdiv.solvers.step import Iterate


def symmetric(problem: Problem, limits: Limits, start: Start | None = None) -> Solution:
    """Solve a problem whose `Problem.symmetric` holds. Both marginals of the returned plan carry the same error."""
    a, eps = problem.a, problem.eps_column()
    progress = Progress(problem, limits)
    anderson = suited_to(a.device)(a, mixing=0.5, modulo_constants=False)
    f = torch.zeros_like(a) if start is None else start.g
    last_f, last_r, last_error = f, torch.zeros_like(f), torch.full_like(a[:, 0], torch.inf)
    averaging = torch.zeros_like(last_error, dtype=torch.bool)
    for step in range(limits.max_passes):
        raw = problem.raw_potential(f, eps, 0, near=f)
        updated = problem.damped(raw, eps, side=0)
        # A point without mass sends nothing back, so there is nothing to average: its potential is the softmin itself.
        f = torch.where(a > 0, f, updated)
        error = 2 * problem.residual(f, raw, eps, side=0)
        if progress.record(Iterate(f, f, raw, raw, error), torch.ones_like(averaging), step + 1, eps):
            break
        r = (updated - f) / eps
        # Averages converge from anywhere; a problem whose error grows goes on with them alone.
        averaging = averaging | (error > last_error)
        anderson.append((f - last_f) / eps, r - last_r, ~averaging & (last_error < torch.inf))
        anderson.forget(averaging)
        last_f, last_r, last_error = f, r, error
        f = f + eps * anderson.step(r)
    return progress.solution()
