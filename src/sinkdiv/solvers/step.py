"""The one step of Sinkhorn's algorithm: g is sent to f and f back to g, and what the two softmins tell is kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sinkdiv.solvers.problem import Problem


@dataclass(frozen=True)
class Iterate:
    """Potentials (f, g), the softmins they send to each other (`Solution`), and the plan's marginal error (B,)."""

    f: Tensor
    g: Tensor
    raw_f: Tensor
    raw_g: Tensor
    error: Tensor

    def where(self, which: Tensor, other: Iterate) -> Iterate:
        """This iterate in the problems marked in ``which`` (B,), the other in the rest."""
        column = which[:, None]
        return Iterate(
            torch.where(column, self.f, other.f),
            torch.where(column, self.g, other.g),
            torch.where(column, self.raw_f, other.raw_f),
            torch.where(column, self.raw_g, other.raw_g),
            torch.where(which, self.error, other.error),
        )


def sinkhorn_step(problem: Problem, g: Tensor, eps: Tensor, near: Iterate | None = None) -> Iterate:
    """The iterate of g (B, m) at the regularisation ``eps`` (B, 1): two passes.

    f is the best partner of g, so that the rows of the plan are exact; the softmin back to g measures its columns.
    Where the marginals are soft, g is first moved by its best constant (`Problem.translated`). ``near`` is the iterate
    before, whose softmins are good guesses.
    """
    near_f, near_g = (None, None) if near is None else (near.raw_f, near.raw_g)
    g, raw_f = problem.translated(g, problem.raw_potential(g, eps, 0, near_f), eps)
    f = problem.damped(raw_f, eps, side=0)
    raw_g = problem.raw_potential(f, eps, 1, near_g)
    return Iterate(f, g, raw_f, raw_g, problem.residual(g, raw_g, eps, side=1))


def plain_update(problem: Problem, iterate: Iterate, eps: Tensor) -> Tensor:
    """The g (B, m) that the next plain step starts from."""
    return problem.damped(iterate.raw_g, eps, side=1)
