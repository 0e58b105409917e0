"""Sinkhorn's algorithm, accelerated: each potential in turn becomes the softmin of the other, extrapolated.

A step sends g to f and f back to g. At a fixed ε this is a fixed-point iteration in g, which ascends the dual value
and near its limit contracts like a symmetric operator; Anderson's extrapolation then needs about the square root of the
passes. What makes it dependable from far away, where neither holds:

- The dual value, known at each step without a pass, judges. If it falls, the extrapolation went too far: the next step
  is a secant step between that point and the one before; if this falls too, plain steps, which cannot fall, follow,
  twice as many each time.
- A step is at most `CAP` times as long as the one before (or as the plain step). Where clusters exchange mass,
  residuals stay the same over a long way, and the least squares alone would leap.

ε is annealed to the target and the iteration goes on *at the target* until the marginal error is below the tolerance.
The softmin that would update g also measures the column error of the current plan, so the test costs nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sinkdiv.solvers.anderson import Anderson, suited_to
from sinkdiv.solvers.annealing import Annealing
from sinkdiv.solvers.problem import Limits, Problem, Solution, Start
from sinkdiv.solvers.progress import Progress
from sinkdiv.solvers.step import Iterate, plain_update, sinkhorn_step

#: The extrapolation's mixing β. Residuals have contraction factors in [0, 1), so more than a full step is stable.
MIXING = 1.5

#: The longest step, relative to the last one.
CAP = 8.0

#: A fall of the dual value that counts, in units of ε·mass: small beside what overshooting costs, large beside
#: rounding.
FALL = 0.1

#: The longest run of plain steps after a failure.
PLAIN_STEPS = 64


def accelerated(problem: Problem, limits: Limits, start: Start | None = None) -> Solution:
    """Solve any problem. The rows of the returned plan are exact; its columns carry the marginal error."""
    annealing = Annealing(problem, limits, warm=start is not None)
    progress = Progress(problem, limits)
    ascent = Ascent(problem)
    g = torch.zeros_like(problem.b) if start is None else start.g
    iterate = None
    for steps in range(1, max(1, limits.max_passes // 2) + 1):
        eps = annealing.eps()
        iterate = sinkhorn_step(problem, g, eps, near=iterate)
        if progress.record(iterate, annealing.at_target(), 2 * steps, eps):
            break
        g = ascent.after(iterate, annealing, eps)
    return progress.solution()


class Ascent:
    """Chooses the next g from what the last step found, so that the dual value ascends."""

    def __init__(self, problem: Problem, anderson: type[Anderson] | None = None, longest: Tensor | None = None) -> None:
        """No potential moves by more than ``longest`` (B, 1) in a step, if that is given."""
        batch, b = problem.geometry.shape[0], problem.b
        self._problem, self._longest = problem, longest
        self.anderson = (anderson or suited_to(b.device))(b, MIXING, modulo_constants=True)
        self.with_mass = b > 0
        # The rounding of a dual value is that of a potential, which is of the size of the costs.
        exponents = problem.geometry.spread().double() / problem.eps_column()[:, 0].double()
        self.fall = FALL + 4 * torch.finfo(b.dtype).eps * exponents
        self.g, self.r = torch.zeros_like(b), torch.zeros_like(b)  # the reference: the last point that did not fall
        self.dual = torch.full_like(self.fall, -torch.inf)  # the greatest so far; −∞ without a reference
        self.length = torch.zeros_like(self.fall)
        self.failed = torch.zeros(batch, dtype=torch.bool, device=b.device)
        self.plain = torch.zeros(batch, dtype=torch.int64, device=b.device)
        self.penalty = torch.ones_like(self.plain)

    def after(self, iterate: Iterate, annealing: Annealing, eps: Tensor) -> Tensor:
        """The g (B, m) of the next step, after this iterate at the regularisation ``eps`` (B, 1) of the annealing."""
        problem, g = self._problem, iterate.g
        updated = plain_update(problem, iterate, eps)
        extrapolated = self.next(g, updated, problem.dual(iterate.f, g, eps), eps)
        if self._longest is not None:
            extrapolated = g + (extrapolated - g).clamp(-self._longest, self._longest)
        moved = annealing.advance(iterate.error)
        self.restart(moved)
        return torch.where(moved[:, None] | (problem.b == 0), updated, extrapolated)

    def restart(self, which: Tensor) -> None:
        """Forget everything of the problems marked in ``which`` (B,), whose ε has changed."""
        self.anderson.forget(which)
        self.dual = torch.where(which, -torch.inf, self.dual)
        self.length = torch.where(which, 0.0, self.length)
        self.failed = self.failed & ~which
        self.plain = torch.where(which, 0, self.plain)
        self.penalty = torch.where(which, 1, self.penalty)

    def next(self, g: Tensor, updated: Tensor, dual: Tensor, eps: Tensor) -> Tensor:
        """The next g (B, m), given this one, what a plain step makes of it, and its dual value (B,)."""
        r = torch.where(self.with_mass, (updated - g) / eps, 0.0)
        fell = ~(dual >= self.dual - self.fall)
        failed_again = fell & self.failed
        self.anderson.forget(fell | (self.dual == -torch.inf))
        self.anderson.append((g - self.g) / eps, r - self.r, (self.dual > -torch.inf) & ~failed_again)
        self.g, self.r = torch.where(fell[:, None], self.g, g), torch.where(fell[:, None], self.r, r)
        self.dual = torch.fmax(self.dual, dual)
        self.failed = fell & ~failed_again
        self._punish(failed_again)
        return self.g + eps * self._step()

    def _punish(self, which: Tensor) -> None:
        self.plain = torch.where(which, self.penalty, (self.plain - 1).clamp(min=0))
        self.penalty = torch.where(which, 2 * self.penalty, self.penalty).clamp(max=PLAIN_STEPS)

    def _step(self) -> Tensor:
        """In units of ε, from the reference point."""
        step = self.anderson.step(self.r)
        length = self.anderson.norm(step)
        # A secant step stays within the first half of the step that fell; plain steps make all lengths obsolete.
        last = torch.where(self.plain > 0, 0.0, self.length)
        longest = torch.where(self.failed, last / 2, CAP * torch.maximum(last, self.anderson.norm(self.r)))
        extrapolate = (self.plain == 0) & self.anderson.valid.any(1)
        self.length = torch.where(extrapolate, torch.minimum(length, longest), last)
        shrink = (longest / length).nan_to_num(1.0).clamp(max=1).to(step.dtype)
        return torch.where(extrapolate[:, None], shrink[:, None] * step, self.r)
