"""The progress of a solve: which problems are done, what it cost, whether to go on. Shared by all solvers.

Whether to go on is a number on the device, and reading it makes the host wait. Problems that are done are frozen on the
device, so it may be read late: steps beyond the last change nothing, and what was noted of each step is read together,
in one transfer. Results, passes and history are those of a solve that is tested at each step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from sinkdiv.solvers.problem import Check, Limits, Problem, Solution, Status
from sinkdiv.solvers.step import Iterate, sinkhorn_step

#: Roundings of an exponent of size spread/ε that survive in a marginal error, where they partly cancel. Measured: the
#: marginals of float32 solutions, recomputed in float64, were off by up to 1/50 of unit·spread/ε, plus two units.
SURVIVING = 1 / 32


#: What a test costs on an accelerator, and the small operations of a step, in pairs that are passed over in that time.
#: Estimated, not measured, at 10⁶ pairs a microsecond: a round trip and a queue that runs empty are some 50 µs, the 100
#: to 200 launches of a step some 500 µs.
TEST_PAIRS = 5e7
STEP_PAIRS = 5e8


def interval(steps: int, pairs: int, device: torch.device) -> int:
    """Steps until the next test of a solve that has made so many steps, of two passes over so many pairs.

    Tests cost T and, k steps apart, steps S beyond the last one (k − 1)/2 on average. If as many steps as were made are
    still to come, T·steps/k + S·k/2 is least at k = √(2·steps·T/S): after 100 steps 4 in small problems, 1 where a pass
    takes a millisecond. On a CPU nothing waits, and every step is tested.
    """
    if device.type == "cpu":
        return 1
    return max(1, math.isqrt(int(2 * steps * TEST_PAIRS / (STEP_PAIRS + 2 * pairs))))


class _Step(NamedTuple):
    """What is known of a step, on the device: errors (B,) and the problems (B,) that were then still running."""

    spent: int
    error: Tensor
    best_error: Tensor
    running: Tensor
    eps: Tensor


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
        self._parts = problem.parts or (batch,)
        self.histories: list[list[tuple[int, float]]] = [[] for _ in self._parts]
        """What `Solution.history` will be, of each part."""
        self._unread: list[_Step] = []
        self._until_test = 1
        self._steps = 0
        self._ended = [False] * len(self._parts)

    def record(self, iterate: Iterate, at_target: Tensor, spent: int, eps: Tensor) -> bool:
        """Take note of an iterate after ``spent`` passes; True ends the solve, by itself or a few steps later.

        ``at_target`` (B,) marks the problems whose iterate belongs to their target ε; only those have an error.
        """
        error = torch.where(at_target, iterate.error, torch.inf)
        self._keep(iterate, error, self.running & (error <= self.best.error))
        self.passes = torch.where(self.running, spent, self.passes)
        self.running = self.running & ~(self.best.error <= self.limits.tol)
        self._note(error, spent, eps)
        return len(self._unread) >= self._until_test and self._test()

    def solution(self) -> Solution:
        if self._unread:
            self._test()
        if self.stopped:
            self._settle()
        best, histories = self.best, tuple(map(tuple, self.histories))
        value = self.problem.dual_value(best.raw_f, best.g)
        return Solution(
            best.f, best.g, best.raw_f, best.raw_g, best.error, value, self.passes, self._status(), lambda: histories
        )

    def _keep(self, iterate: Iterate, error: Tensor, better: Tensor) -> None:
        self.best = replace(iterate, error=error).where(better, self.best)

    def _note(self, error: Tensor, spent: int, eps: Tensor) -> None:
        if self.limits.tested:
            self._steps += 1
            self._unread.append(_Step(spent, error, self.best.error, self.running, eps))

    def _test(self) -> bool:
        """Read what was noted, in one transfer; True ends the solve."""
        steps, self._unread = self._unread, []
        errors, best, running, eps = (torch.stack(part) for part in list(zip(*steps, strict=True))[1:])
        # A problem that is done counts with the error it was done with.
        worst = self._of_parts(torch.where(running, errors, best), torch.amax)
        unfinished = self._of_parts(running.to(worst.dtype), torch.sum)
        numbers = torch.cat([unfinished, worst, eps.amax(1)], 1).tolist()
        for noted, row in zip(steps, numbers, strict=True):
            left, found, largest_eps = row[: len(self._parts)], row[len(self._parts) : -1], row[-1]
            for history, ended, error in zip(self.histories, self._ended, found, strict=True):
                if not ended and error < torch.inf:
                    history.append((noted.spent, error))
            self._ended = [not one for one in left]
            if all(self._ended):
                break
        if self.limits.watch is not None:
            error = max(found) if all(one < torch.inf for one in found) else torch.nan
            self.stopped = self.limits.watch(Check(noted.spent, largest_eps, error, int(sum(left)))) and not self._done
        self._until_test = interval(self._steps, self.problem.geometry.price, running.device)
        return self.stopped or self._done

    @property
    def _done(self) -> bool:
        """Whether the last test has found all errors below the tolerance."""
        return all(self._ended)

    def _of_parts(self, numbers: Tensor, reduce: Callable[..., Tensor]) -> Tensor:
        """Numbers (k, B) of problems, reduced to those (k, parts) of the parts."""
        if len(self._parts) == numbers.shape[1]:
            return numbers
        return torch.stack([reduce(part, 1) for part in numbers.split(self._parts, 1)], 1)

    def _settle(self) -> None:
        """Bring the problems that were stopped above their target ε down to it: two passes for a consistent iterate."""
        annealing = self.best.error == torch.inf
        if not bool(annealing.any()):
            return
        problem, eps = self.problem, self.problem.eps_column()
        found = sinkhorn_step(problem, self.best.g, eps)
        if problem.symmetric:
            # The mean of both potentials: a plan of at most the mass wanted, by the Cauchy-Schwarz inequality.
            f = (found.f + found.g) / 2
            raw = problem.raw_potential(f, eps, side=0)
            found = Iterate(f, f, raw, raw, 2 * problem.residual(f, raw, eps, side=1))
        self._keep(found, found.error, annealing)
        self.passes = torch.where(annealing, self.passes + 2, self.passes)

    def _status(self) -> tuple[Status, ...]:
        if not self.limits.tested:
            return (Status.FIXED,) * len(self.running)
        if self.stopped:
            return tuple(Status.STOPPED if running else Status.CONVERGED for running in self.running.tolist())
        errors = [self.limits.tol] * len(self.running) if self._done else self.best.error.tolist()
        return statuses(errors, self._magnitudes(), self.problem, self.limits)

    def _magnitudes(self) -> Sequence[float]:
        """The size of each problem's costs and potentials, whose rounding marginal errors inherit."""
        return self.problem.spreads


def statuses(errors: Sequence[float], spreads: Sequence[float], problem: Problem, limits: Limits) -> tuple[Status, ...]:
    """How each problem of a solve ended that nobody stopped, from its marginal error and the spread of its cost."""
    if not limits.tested:
        return (Status.FIXED,) * len(errors)
    worst = _resolution(max(spreads), min(problem.eps), problem)
    if worst <= limits.tol and all(error <= limits.tol for error in errors):
        return (Status.CONVERGED,) * len(errors)
    each = zip(errors, spreads, problem.eps, strict=True)
    return tuple(_status_of(error, _resolution(spread, eps, problem), limits) for error, spread, eps in each)


def _status_of(error: float, resolution: float, limits: Limits) -> Status:
    if limits.tol < resolution:
        return Status.PRECISION
    return Status.CONVERGED if error <= limits.tol else Status.MAX_PASSES


def _resolution(spread: float, eps: float, problem: Problem) -> float:
    """The least marginal error that the arithmetic can tell from zero."""
    return float(torch.finfo(problem.a.dtype).eps) * (2 + SURVIVING * spread / eps)
