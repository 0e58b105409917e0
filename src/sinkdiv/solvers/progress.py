"""Keeps the book of a solve: who is done, what it cost, whether to go on. Shared by all solvers."""

from __future__ import annotations

import torch
from torch import Tensor

from sinkdiv.solvers.problem import Check, Limits, Problem, Solution, Status


class Progress:
    """Freezes each problem of the batch at the iterate with which it met the tolerance."""

    def __init__(self, problem: Problem, limits: Limits) -> None:
        batch, n, m = problem.geometry.shape
        self.problem, self.limits = problem, limits
        self.f, self.row_sums = problem.a.new_zeros(batch, n), torch.zeros_like(problem.a)
        self.g, self.column_sums = problem.b.new_zeros(batch, m), torch.zeros_like(problem.b)
        self.error = problem.a.new_full((batch,), torch.inf)
        self.passes = torch.zeros(batch, dtype=torch.int64, device=problem.a.device)
        self.running = torch.ones(batch, dtype=torch.bool, device=problem.a.device)
        self.stopped = False
        self.history: list[tuple[int, float]] = []

    def record(
        self,
        f: Tensor,
        g: Tensor,
        rows: Tensor,
        columns: Tensor,
        error: Tensor,
        at_target: Tensor,
        spent: int,
        eps: Tensor,
    ) -> bool:
        """Take note of an iterate (f, g), its marginals and its error (B,) after ``spent`` passes; True ends the solve.

        ``at_target`` (B,) marks the problems whose iterate belongs to their target ε; only those can be done.
        """
        running = self.running
        pick = running[:, None]
        self.f, self.g = torch.where(pick, f, self.f), torch.where(pick, g, self.g)
        self.row_sums = torch.where(pick, rows, self.row_sums)
        self.column_sums = torch.where(pick, columns, self.column_sums)
        self.error = torch.where(running, torch.where(at_target, error, torch.inf), self.error)
        self.passes = torch.where(running, spent, self.passes)
        self.running = running & ~(self.error <= self.limits.tol)
        return self._finished(spent, eps)

    def solution(self) -> Solution:
        return Solution(
            self.f,
            self.g,
            self.row_sums,
            self.column_sums,
            self.error,
            self.passes,
            self._status(),
            tuple(self.history),
        )

    def _finished(self, spent: int, eps: Tensor) -> bool:
        unfinished = int(self.running.sum())
        worst = float(self.error.max())
        if worst < torch.inf:
            self.history.append((spent, worst))
        if self.limits.watch is not None:
            check = Check(spent, float(eps.max()), worst if worst < torch.inf else torch.nan, unfinished)
            self.stopped = bool(self.limits.watch(check)) and unfinished > 0
        return self.stopped or unfinished == 0

    def _status(self) -> tuple[Status, ...]:
        # An exponent of size spread/ε carries that many units of rounding, and so does each entry of the plan.
        rounding = torch.finfo(self.error.dtype).eps * self.problem.geometry.spread() / self.problem.eps
        statuses = []
        for running, floor in zip(self.running.tolist(), rounding.tolist(), strict=True):
            if not running:
                statuses.append(Status.CONVERGED)
            elif self.stopped:
                statuses.append(Status.STOPPED)
            else:
                statuses.append(Status.PRECISION if self.limits.tol < floor else Status.MAX_PASSES)
        return tuple(statuses)
