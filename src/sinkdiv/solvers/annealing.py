"""The schedule of regularisations: from the spread of the cost down to the target, by a constant factor.

A large ε mixes all pairs in one update and hands the next level a good start; iterating at the target alone would need
about spread/ε updates before potentials have moved over the whole cloud. Every problem of a batch has its own number
of levels and meets its target by itself, so a batch does what a loop over its problems would do.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sinkdiv.solvers.problem import Limits, Problem

#: ε falls by this factor at each level; for a squared cost the blur is halved.
FACTOR = 0.25


class Annealing:
    """ε at step t, (B, 1): target·FACTOR^−(levels − t), never below the target."""

    def __init__(self, problem: Problem, limits: Limits, passes_per_step: int) -> None:
        self.target = problem.eps_column()
        # Half of the passes at most are spent above the target, however few are allowed.
        most = max(0, limits.max_passes // (2 * passes_per_step) - 1)
        ratio = (problem.geometry.spread()[:, None] / self.target).clamp(min=1)
        self.levels = (ratio.log() / math.log(1 / FACTOR)).ceil().clamp(max=most)

    def eps(self, step: int) -> Tensor:
        return self.target * FACTOR ** -(self.levels - step).clamp(min=0)

    def at_target(self, step: int) -> Tensor:
        """Which problems (B,) iterate at their target ε at this step."""
        return torch.le(self.levels[:, 0], step)
