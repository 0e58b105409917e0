"""The schedule of regularisations: from the spread of the cost down to the target, by a constant factor.

A large ε mixes all pairs in one update and hands the next level a good start; iterating at the target alone would need
about spread/ε updates before potentials have moved over the whole cloud. A level ends as soon as its marginal error is
moderate: most need one step, but where mass has to move between clusters, a level left too early is paid for at the
next. Every problem of a batch has its own number of levels and meets its target by itself, so a batch does what a loop
over its problems would do.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sinkdiv.solvers.problem import Limits, Problem

#: ε falls by this factor at each level; for a squared cost the blur is halved.
FACTOR = 0.25

#: The first ε, relative to the spread of the cost (at the spread itself one step leaves next to no error).
FIRST = 1 / 8

#: A level ends at this marginal error, or after so many steps.
LEVEL_ERROR = 0.2
LEVEL_STEPS = 6

#: A warm start is good if its marginal error is below this; else the problem is annealed.
START_ERROR = 1.0


class Annealing:
    """Where each problem is: ``levels`` (B, 1) are left until its target ε."""

    def __init__(self, problem: Problem, limits: Limits, *, warm: bool, first: float = FIRST) -> None:
        """``first`` is the first ε, relative to the spread; a ``warm`` start that is good begins at the target."""
        self.target = problem.eps_column()
        # Half of the passes at most, of which a step has two, are spent above the target, however few are allowed.
        self.most = max(0, limits.max_passes // 4 - 1)
        ratio = (first * problem.geometry.spread()[:, None] / self.target).clamp(min=1)
        self.cold = (ratio.log() / math.log(1 / FACTOR)).ceil().clamp(max=self.most)
        self.levels = torch.zeros_like(self.cold) if warm else self.cold
        self.warm = warm
        self.steps = torch.zeros_like(self.cold)
        self.all_steps = 0

    def eps(self) -> Tensor:
        """The current ε (B, 1)."""
        return self.target * FACTOR**-self.levels

    def at_target(self) -> Tensor:
        """Which problems (B,) iterate at their target ε."""
        return self.levels[:, 0] == 0

    def advance(self, error: Tensor) -> Tensor:
        """Given the marginal errors (B,) of a step, go on; returns the problems (B,) whose ε has changed."""
        before = self.levels
        if self.warm and self.all_steps == 0:
            self.levels = torch.where(error[:, None] <= START_ERROR, self.levels, self.cold)
        else:
            done = (error[:, None] <= LEVEL_ERROR) | (self.steps + 1 >= LEVEL_STEPS)
            self.levels = torch.where(done, self.levels - 1, self.levels).clamp(min=0)
        self.all_steps += 1
        if self.all_steps >= self.most:
            self.levels = torch.zeros_like(self.levels)
        moved = self.levels != before
        self.steps = torch.where(moved, 0, self.steps + 1)
        return moved[:, 0]
