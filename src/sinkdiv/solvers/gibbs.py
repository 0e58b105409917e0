"""Sinkhorn's algorithm with a stored Gibbs kernel: the accelerated iteration, by products instead of exponentials.

The iteration is that of `sinkdiv.solvers.accelerated`, annealed and extrapolated alike. A pass is a product with the
kernel (`sinkdiv.solvers.stored`) as long as that is right, and forms the kernel anew where it is not, or where ε has
changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from sinkdiv.geometry import Whole
from sinkdiv.solvers.accelerated import Ascent
from sinkdiv.solvers.anderson import StackedAnderson
from sinkdiv.solvers.annealing import Annealing
from sinkdiv.solvers.problem import Limits, Problem, Solution, Start
from sinkdiv.solvers.small import engine_of, solve_small
from sinkdiv.solvers.step import sinkhorn_step
from sinkdiv.solvers.stored import StoredKernel, VerifiedProgress

#: No step of a climb is longer, relative to the spread of the cost: potentials need not, and where forbidden pairs make
#: the supports infeasible, nothing else would stop them.
REACH = 4.0

#: The first ε, relative to the spread: a quarter of that of the streaming solver, for each level forms a kernel, which
#: takes as long as several products.
FIRST = 1 / 32

#: Up to this many pairs the native solver of small problems is faster, exponentials and all.
QUICK_ENTRIES = 2**18


def quick_engine(problem: Problem, limits: Limits) -> Whole | None:
    """What solves this problem whole, where one native call is faster than products with a stored kernel."""
    _, n, m = problem.geometry.shape
    return engine_of([problem], limits) if n * m <= QUICK_ENTRIES else None


def sinkhorn(problem: Problem, limits: Limits, start: Start | None = None) -> Solution:
    """Solve the problem of a cost matrix. The rows of the returned plan are exact; its columns carry the error."""
    engine = quick_engine(problem, limits)
    if engine is not None:
        return solve_small(engine, [problem], limits, [start], [False])[0]
    gibbs = Gibbs(problem, limits, start)
    gibbs.run()
    return gibbs.progress.solution()


class Gibbs:
    """A solve under way: it can be left and taken up again."""

    def __init__(self, problem: Problem, limits: Limits, start: Start | None = None) -> None:
        self.kernel = StoredKernel(problem)
        self.problem = replace(problem, geometry=self.kernel)
        self.progress = VerifiedProgress(problem, self.kernel, limits)
        self._annealing = Annealing(problem, limits, warm=start is not None, first=FIRST)
        longest = REACH * (problem.geometry.spread()[:, None] + problem.eps_column())
        self._ascent = Ascent(problem, StackedAnderson, longest if problem.geometry.forbids else None)
        self._g = torch.zeros_like(problem.b) if start is None else start.g

    def run(self, leave: Callable[[], bool] = lambda: False) -> bool:
        """Iterate until all is done, the passes are spent, or ``leave`` says so; True if nothing is left to do."""
        while not self.progress.exhausted():
            if self._step():
                return True
            if leave():
                return False
        return True

    @property
    def reached(self) -> Tensor:
        """The g (B, m) of the greatest dual value. (Where clusters exchange mass the least error tells nothing.)"""
        return self._ascent.g

    def take_up(self, g: Tensor) -> None:
        """Go on from another g (B, m), at the target ε."""
        self._g = g
        self._ascent.restart(torch.ones_like(self.progress.running))

    def _step(self) -> bool:
        eps = self._annealing.eps()
        iterate = sinkhorn_step(self.problem, self._g, eps)
        if self.progress.note(iterate, self._annealing.at_target(), eps):
            return True
        self._g = self._ascent.after(iterate, self._annealing, eps)
        return False
