"""The semi-dual: the dual value as a concave function of g alone, f being its best partner (Q23 §3).

    F(g) = <a, f(g)> + <b, g>,    ∇F = b − Pᵀ1,    ∇²F = −D/ε        (`sinkdiv.solvers.hessian`)

and with soft marginals the same with b·exp(−g/ρ) in place of b. A value and its gradient cost two passes: one softmin
to the rows and one back. The methods that climb it share the points, the search along a line and the start: Sinkhorn's
algorithm while it anneals, until the marginal error is moderate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from sinkdiv.solvers.gibbs import REACH, Gibbs
from sinkdiv.solvers.step import Iterate, plain_update, sinkhorn_step

#: Sinkhorn's algorithm begins, until this marginal error, and for so many steps at the target ε at most.
FIRST_ERROR = 0.1
FIRST_STEPS = 40

#: A step is accepted if the value rises by this fraction of what its slope promises.
SUFFICIENT = 1e-4

#: The fraction of a slope at which a step is long enough.
STEEP = 0.9

#: Evaluations of one search along a line.
TRIALS = 16

#: A search that overshot goes on within these fractions of the step.
SHORTEST, LONGEST = 0.1, 0.5


@dataclass(frozen=True)
class Point:
    """F and its gradient at ``iterate.g``: ``dual`` (B,) relative to ε·mass, ``gradient`` (B, m)."""

    iterate: Iterate
    dual: Tensor
    gradient: Tensor

    def where(self, which: Tensor, other: Point) -> Point:
        """This point in the problems marked in ``which`` (B,), the other in the rest."""
        gradient = torch.where(which[:, None], self.gradient, other.gradient)
        dual = torch.where(which, self.dual, other.dual)
        return Point(self.iterate.where(which, other.iterate), dual, gradient)


class SemiDual:
    """The semi-dual of a solve that Sinkhorn's algorithm has begun."""

    def __init__(self, gibbs: Gibbs) -> None:
        self.gibbs, self.problem, self.progress = gibbs, gibbs.problem, gibbs.progress
        self.eps = gibbs.problem.eps_column()
        spread, eps = gibbs.problem.geometry.spread().double(), self.eps[:, 0].double()
        self._reach = REACH * (spread + eps)
        self._unit = (self.eps[:, 0] * gibbs.problem.a.sum(-1)).double()
        #: Differences of dual values below this are rounding: that of a potential, which is of the size of the costs.
        self.rounding = 4 * torch.finfo(self.problem.a.dtype).eps * (1 + spread / eps)

    def point(self, g: Tensor) -> Point:
        """Evaluate at g (B, m): two passes."""
        problem, eps = self.problem, self.eps
        found = sinkhorn_step(problem, g, eps)
        g = torch.where(problem.b > 0, found.g, plain_update(problem, found, eps))
        iterate = replace(found, g=g)
        gradient = problem.target(g, side=1) - problem.marginal(g, found.raw_g, eps, side=1)
        gradient = torch.where(problem.b > 0, gradient, 0.0)
        return Point(iterate, problem.dual(found.f, g, eps), gradient)

    def note(self, point: Point) -> bool:
        """Tell the progress of a point; True ends the solve."""
        return self.progress.note(point.iterate, torch.ones_like(self.progress.running), self.eps)

    def slope(self, point: Point, direction: Tensor) -> Tensor:
        """The derivative (B,) of the dual value along a direction (B, m)."""
        return (point.gradient.double() * direction.double()).sum(-1) / self._unit

    def search_or_step(self, point: Point, direction: Tensor, first: Tensor) -> tuple[Point, Tensor]:
        """`_search`, and one of Sinkhorn's steps where it finds nothing; marks the problems (B,) that took it."""
        found = self._search(point, direction, first)
        lost = self.progress.running & (found.iterate.g == point.iterate.g).all(-1)
        if bool(lost.any()) and not self.progress.exhausted():
            updated = plain_update(self.problem, point.iterate, self.eps)
            found = self.point(torch.where(lost[:, None], updated, found.iterate.g)).where(lost, found)
        return found, lost

    def useful(self, before: Point, after: Point) -> bool:
        """Whether a problem that runs has come up, or closer."""
        up = after.dual > before.dual + self.rounding
        closer = after.iterate.error < 0.9 * before.iterate.error
        return bool((self.progress.running & (up | closer)).any())

    def _search(self, point: Point, direction: Tensor, first: Tensor) -> Point:
        """A point along ``direction`` whose value has risen; ``point`` itself in problems where none was found.

        The first step is ``first`` (B,) times the direction. A step is long enough if the slope has fallen to `STEEP`
        times what it was (Wolfe). Where values differ by rounding only, the error decides.
        """
        slope, found = self.slope(point, direction), point
        low, high = torch.zeros_like(slope), self._reach / direction.abs().amax(-1).double()
        step = torch.minimum(first.double(), high)
        searching = self.progress.running & (slope > 0) & (step > 0)
        for _ in range(TRIALS):
            if not bool(searching.any()) or self.progress.exhausted():
                break
            moving = torch.where(searching, step, 0.0).to(direction.dtype)
            trial = self.point(point.iterate.g + moving[:, None] * direction)
            rise = trial.dual - point.dual
            closer = (step * slope <= self.rounding) & (trial.iterate.error < point.iterate.error)
            rises = (rise >= SUFFICIENT * step * slope) | closer
            short = rises & ~closer & (step < high / 2) & (self.slope(trial, direction) > STEEP * slope)
            found = trial.where(searching & rises, found)
            low, high = torch.where(rises, step, low), torch.where(rises, high, step)
            searching = searching & (short | ~rises)
            step = torch.where(short, _lengthened(step, high), _shortened(step, low, rise, slope))
        return found


class Directions(Protocol):
    """A way of choosing the direction of each step of a `climb`."""

    futile: int
    """Steps in a row without progress that end the climb."""

    worst: int
    """The most passes that finding a direction may take."""

    def direction(self, semidual: SemiDual, point: Point) -> tuple[Tensor, Tensor]:
        """A direction (B, m), and the fraction (B,) of it to try first."""

    def note(self, before: Point, after: Point, lost: Tensor) -> None:
        """See the step that was made; ``lost`` (B,) marks the problems whose search found nothing."""


def climb(gibbs: Gibbs, directions: Directions, most: float = math.inf) -> bool:
    """Climb from where Sinkhorn's algorithm is, for at most so many passes, and leave it where that led.

    True if nothing is left to do.
    """
    semidual, progress, end = SemiDual(gibbs), gibbs.progress, gibbs.kernel.passes + most
    point, futile = semidual.point(gibbs.reached), 0
    while not semidual.note(point):
        if progress.exhausted():
            return True
        unaffordable = directions.worst > 0 and progress.exhausted(directions.worst)
        if futile == directions.futile or unaffordable or gibbs.kernel.passes > end:
            gibbs.take_up(point.iterate.g)
            return False
        direction, first = directions.direction(semidual, point)
        found, lost = semidual.search_or_step(point, direction, first)
        directions.note(point, found, lost)
        futile = 0 if semidual.useful(point, found) else futile + 1
        point = found
    return True


def begun(gibbs: Gibbs) -> bool:
    """Run Sinkhorn's algorithm until it is close enough to climb from; True if that was all there is to do."""
    steps = 0

    def leave() -> bool:
        nonlocal steps
        errors = gibbs.progress.best.error
        steps += bool((errors < torch.inf).all())
        return bool((errors <= FIRST_ERROR).all()) or steps >= FIRST_STEPS

    return gibbs.run(leave)


def _lengthened(step: Tensor, high: Tensor) -> Tensor:
    return torch.minimum(2 * step, (step + high) / 2)


def _shortened(step: Tensor, low: Tensor, rise: Tensor, slope: Tensor) -> Tensor:
    """The top of the parabola through the start, its slope and the trial, kept off the ends."""
    parabola = slope * step.square() / (2 * (slope * step - rise))
    parabola = torch.where(parabola.isfinite(), parabola, 0.0)
    return torch.maximum(torch.minimum(parabola, low + LONGEST * (step - low)), low + SHORTEST * (step - low))
