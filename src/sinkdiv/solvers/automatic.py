"""Sinkhorn's algorithm, and Newton's where a forecast says that it is cheaper.

The marginal error of the last checks gives a rate, the rate the passes that are left to the tolerance. If these are
more than Newton's steps would cost, Newton's method takes over, with twice that cost to spend. If
it comes to nothing Sinkhorn's algorithm goes on from there, and the next change of mind needs a forecast
twice as long. So a bad forecast costs a bounded part of the passes, and the best iterate is never lost. Small problems
are begun in one native call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sinkdiv.solvers.gibbs import Gibbs, quick_engine, sinkhorn
from sinkdiv.solvers.newton import NewtonDirections, step_passes
from sinkdiv.solvers.problem import History, Limits, Problem, Solution, Start
from sinkdiv.solvers.progress import statuses
from sinkdiv.solvers.semidual import begun, climb

#: Steps that Newton's method is expected to take from where a forecast can be made.
NEWTON_STEPS = 12

#: Checks between two forecasts, and those that the rate is taken from.
EVERY = 8
WINDOW = 24

#: Passes of the native beginning.
FIRST_PASSES = 400


def automatic(problem: Problem, limits: Limits, start: Start | None = None) -> Solution:
    """Solve the problem of a cost matrix. The rows of the returned plan are exact; its columns carry the error."""
    if quick_engine(problem, limits) is None:
        return _watched(problem, limits, Gibbs(problem, limits, start))
    left = limits.max_passes - FIRST_PASSES
    if left < 2 * _newton_passes(problem):
        return sinkhorn(problem, limits, start)
    first = sinkhorn(problem, replace(limits, max_passes=FIRST_PASSES), start)
    late = first.marginal_error > limits.tol
    if not bool(late.any()):
        return first
    rest, rest_limits, rest_start = _part(problem, late), replace(limits, max_passes=left), Start(first.g[late])
    if 0 < passes_left(first.history, limits.tol) < _newton_passes(problem):
        ended = sinkhorn(rest, rest_limits, rest_start)
    else:
        ended = _late(rest, rest_limits, rest_start)
    return _joined(problem, limits, first, ended, late)


def passes_left(history: Sequence[tuple[int, float]], tol: float) -> float:
    """The passes still needed if the error goes on falling as it did; 0 if it is too early to tell."""
    if len(history) < WINDOW:
        return 0.0
    (first, before), (last, after) = history[-WINDOW], history[-1]
    fall = math.log(before / after) / (last - first)
    return math.log(after / tol) / fall if fall > 0 else math.inf


def _late(problem: Problem, limits: Limits, start: Start) -> Solution:
    """Solve what Sinkhorn's algorithm has taken long over: Newton's turn comes first."""
    gibbs = Gibbs(problem, limits, start)
    if begun(gibbs) or climb(gibbs, NewtonDirections(gibbs), 2 * _newton_passes(problem)):
        return gibbs.progress.solution()
    return _watched(problem, limits, gibbs)


def _watched(problem: Problem, limits: Limits, gibbs: Gibbs) -> Solution:
    progress, cost, patience = gibbs.progress, _newton_passes(problem), 1.0
    (history,) = progress.histories

    def leave() -> bool:
        early = len(history) % EVERY or progress.exhausted(int(2 * cost))
        return not early and passes_left(history, limits.tol) > patience * cost

    while not gibbs.run(leave) and not climb(gibbs, NewtonDirections(gibbs), 2 * cost):
        patience *= 2
    return progress.solution()


def _newton_passes(problem: Problem) -> float:
    return NEWTON_STEPS * step_passes(problem)


def _part(problem: Problem, which: Tensor) -> Problem:
    """The problems of a batch marked in ``which`` (B,)."""
    dense = problem.geometry.dense
    assert dense is not None, "only stored costs are solved here"
    eps = tuple(number for number, chosen in zip(problem.eps, which.tolist(), strict=True) if chosen)
    return replace(problem, geometry=dense.part(which), a=problem.a[which], b=problem.b[which], eps=eps)


def _joined(problem: Problem, limits: Limits, first: Solution, ended: Solution, which: Tensor) -> Solution:
    """The better of both solutions for the problems marked in ``which`` (B,), the first for the others."""
    better = torch.zeros_like(which)
    better[which] = ended.marginal_error <= first.marginal_error[which]
    chosen = better[which]

    def pick(name: str) -> Tensor:
        tensor: Tensor = getattr(first, name).clone()
        tensor[better] = getattr(ended, name)[chosen]
        return tensor

    passes = first.passes.clone()
    passes[which] += ended.passes
    error = pick("marginal_error")
    status = statuses(error.tolist(), problem.spreads, problem, limits)
    spent = int(first.passes.max())

    def histories() -> tuple[History]:
        return ((*first.history, *((spent + more, error) for more, error in ended.history)),)

    return Solution(pick("f"), pick("g"), pick("raw_f"), pick("raw_g"), error, pick("value"), passes, status, histories)
