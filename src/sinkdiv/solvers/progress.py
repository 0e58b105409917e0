"""Keeps the book of a solve: who is done, what it cost, whether to go on. Shared by all solvers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sinkdiv.solvers.problem import Check, Limits, Problem, Solution, Status


@dataclass(frozen=True)
class Iterate:
    """Potentials (f, g), the softmins they send to each other (`Solution`), and the plan's marginal error (B,)."""

    f: Tensor
    g: Tensor
    raw_f: Tensor
    raw_g: Tensor
    error: Tensor


#: Roundings of an exponent of size spread/ε that survive in a marginal error, where they partly cancel. Measured: the
#: marginals of float32 solutions, recomputed in float64, were off by up to 1/50 of unit·spread/ε, plus two units.
SURVIVING = 1 / 32


class Progress:
    """Keeps each problem's best iterate, and freezes the problem when it meets the tolerance."""

    def __init__(self, problem: Problem, limits: Limits) -> None:
        batch = problem.geometry.shape[0]
        f, g = torch.zeros_like(problem.a), torch.zeros_like(problem.b)
        self.problem, self.limits = problem, limits
        self.best = Iterate(f, g, f, g, problem.a.new_full((batch,), torch.inf))
        self.passes = torch.zeros(batch, dtype=torch.int64, device=problem.a.device)
        self.running = torch.ones(batch, dtype=torch.bool, device=problem.a.device)
        self.stopped = False
        self.history: list[tuple[int, float]] = []

    def record(self, iterate: Iterate, at_target: Tensor, spent: int, eps: Tensor) -> bool:
        """Take note of an iterate after ``spent`` passes; True ends the solve.

        ``at_target`` (B,) marks the problems whose iterate belongs to their target ε; only those have an error.
        """
        error = torch.where(at_target, iterate.error, torch.inf)
        self._keep(iterate, error, self.running & (error <= self.best.error))
        self.passes = torch.where(self.running, spent, self.passes)
        self.running = self.running & ~(self.best.error <= self.limits.tol)
        return self._finished(error, spent, eps)

    def solution(self) -> Solution:
        if self.stopped:
            self._settle()
        best, history = self.best, tuple(self.history)
        value = self.problem.dual_value(best.raw_f, best.g)
        return Solution(
            best.f, best.g, best.raw_f, best.raw_g, best.error, value, self.passes, self._status(), lambda: history
        )

    def _keep(self, iterate: Iterate, error: Tensor, better: Tensor) -> None:
        pick, best = better[:, None], self.best
        self.best = Iterate(
            torch.where(pick, iterate.f, best.f),
            torch.where(pick, iterate.g, best.g),
            torch.where(pick, iterate.raw_f, best.raw_f),
            torch.where(pick, iterate.raw_g, best.raw_g),
            torch.where(better, error, best.error),
        )

    def _finished(self, error: Tensor, spent: int, eps: Tensor) -> bool:
        unfinished = int(self.running.sum())
        # A problem that is done counts with the error it was done with.
        worst = float(torch.where(self.running, error, self.best.error).max())
        if worst < torch.inf:
            self.history.append((spent, worst))
        if self.limits.watch is not None:
            check = Check(spent, float(eps.max()), worst if worst < torch.inf else torch.nan, unfinished)
            self.stopped = self.limits.watch(check) and unfinished > 0
        return self.stopped or unfinished == 0

    def _settle(self) -> None:
        """Bring the problems that were stopped above their target ε down to it: two passes for a consistent iterate."""
        annealing = self.best.error == torch.inf
        if not bool(annealing.any()):
            return
        problem, eps, g = self.problem, self.problem.eps_column(), self.best.g
        raw_f = problem.raw_potential(g, eps, side=0)
        f = problem.damped(raw_f, eps, side=0)
        if problem.symmetric:
            f = g = (f + g) / 2  # a plan of at most the mass wanted, by the Cauchy-Schwarz inequality
            raw_f = raw_g = problem.raw_potential(f, eps, side=0)
        else:
            raw_g = problem.raw_potential(f, eps, side=1)
        sides = 2 if problem.symmetric else 1
        error = sides * problem.residual(g, raw_g, eps, side=1)
        self._keep(Iterate(f, g, raw_f, raw_g, error), error, annealing)
        self.passes = torch.where(annealing, self.passes + 2, self.passes)

    def _status(self) -> tuple[Status, ...]:
        if self.stopped:
            return tuple(Status.STOPPED if running else Status.CONVERGED for running in self.running.tolist())
        return statuses(self.best.error.tolist(), self._magnitude().tolist(), self.problem, self.limits)

    def _magnitude(self) -> Tensor:
        """The size (B,) of costs and potentials, whose rounding marginal errors inherit."""
        return self.problem.geometry.spread()


def statuses(errors: Sequence[float], spreads: Sequence[float], problem: Problem, limits: Limits) -> tuple[Status, ...]:
    """How each problem of a solve ended that nobody stopped, from its marginal error and the spread of its cost."""
    if all(error <= limits.tol for error in errors) and _resolution(max(spreads), problem) <= limits.tol:
        return (Status.CONVERGED,) * len(errors)
    return tuple(_status_of(error, spread, problem, limits) for error, spread in zip(errors, spreads, strict=True))


def _status_of(error: float, spread: float, problem: Problem, limits: Limits) -> Status:
    if limits.tol < _resolution(spread, problem):
        return Status.PRECISION
    return Status.CONVERGED if error <= limits.tol else Status.MAX_PASSES


def _resolution(spread: float, problem: Problem) -> float:
    """The least marginal error that the arithmetic can tell from zero."""
    return float(torch.finfo(problem.a.dtype).eps) * (2 + SURVIVING * spread / problem.eps)
