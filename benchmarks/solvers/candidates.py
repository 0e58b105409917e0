"""Solvers that were measured against the library's and not taken, each for one problem (a batch of one).

Every function returns the history [(passes, marginal error)] of its iterates at the target ε. All start with the same
annealing: from the spread of the cost by factors of ¼, one plain step a level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sinkdiv.solvers import Limits, Problem, Start

History = list[tuple[int, float]]
Solver = Callable[[Problem, Limits], History]


@dataclass
class Point:
    """A g with all that a step of two passes tells about it."""

    g: Tensor
    f: Tensor
    updated: Tensor
    error: float
    dual: float

    def residual(self, problem: Problem) -> Tensor:
        """(updated − g)/ε, (m,), modulo constants; zero where there is no weight."""
        r = torch.where(problem.b > 0, (self.updated - self.g) / problem.eps[0], 0.0)[0]
        weights = metric(problem)
        return r - (weights * r).sum()


def metric(problem: Problem) -> Tensor:
    return (problem.b / problem.b.sum())[0]


def evaluate(problem: Problem, g: Tensor, eps: Tensor, *, translate: bool = True) -> Point:
    """Two passes."""
    raw_f = problem.raw_potential(g, eps, side=0)
    if translate:
        g, raw_f = problem.translated(g, raw_f, eps)
    f = problem.damped(raw_f, eps, side=0)
    raw_g = problem.raw_potential(f, eps, side=1)
    error = float(problem.residual(g, raw_g, eps, side=1))
    return Point(g, f, problem.damped(raw_g, eps, side=1), error, float(problem.dual(f, g, eps)))


def levels(problem: Problem) -> Iterator[Tensor]:
    """ε above the target, descending."""
    count = math.ceil(math.log(max(1.0, float(problem.geometry.spread()) / problem.eps[0]), 4))
    for level in range(count, 0, -1):
        yield problem.eps_column() * 4.0**level


def annealed(problem: Problem, *, translate: bool = True) -> tuple[Tensor, int]:
    """g when the target is reached, and the passes spent."""
    g, passes = torch.zeros_like(problem.b), 0
    for eps in levels(problem):
        g, passes = evaluate(problem, g, eps, translate=translate).updated, passes + 2
    return g, passes


def alternating(problem: Problem, limits: Limits, *, translate: bool = False) -> History:
    """Sinkhorn's algorithm; with ``translate``, invariant under translations where the marginals are soft."""
    g, passes = annealed(problem, translate=translate)
    history: History = []
    while passes + 2 <= limits.max_passes:
        point = evaluate(problem, g, problem.eps_column(), translate=translate)
        g, passes = point.updated, passes + 2
        history.append((passes, point.error))
        if point.error <= limits.tol:
            break
    return history


def over_relaxed(problem: Problem, limits: Limits, omega: float | None = None) -> History:
    """Successive over-relaxation of both half steps; ω from the observed contraction if not given.

    The error adds up what the two passes of a step measure: the rows' before, the columns' after f has been updated.
    """
    g, passes = annealed(problem)
    eps = problem.eps_column()
    f = problem.damped(problem.raw_potential(g, eps, side=0), eps, side=0)
    passes += 1
    history: History = []
    errors: list[float] = []
    factor = omega or 1.0
    while passes + 2 <= limits.max_passes:
        raw_f = problem.raw_potential(g, eps, side=0)
        rows = float(problem.residual(f, raw_f, eps, side=0))
        f = f + factor * (problem.damped(raw_f, eps, side=0) - f)
        raw_g = problem.raw_potential(f, eps, side=1)
        error = rows + float(problem.residual(g, raw_g, eps, side=1))
        g = g + factor * (problem.damped(raw_g, eps, side=1) - g)
        passes += 2
        history.append((passes, error))
        errors.append(error)
        if error <= limits.tol:
            break
        if omega is None and not error <= 4 * min(errors):
            factor, errors = 1.0, []  # too bold: plain steps, and a new estimate
        elif omega is None and factor == 1.0 and len(errors) >= 8:
            contraction = min(0.9999, (errors[-1] / errors[-5]) ** 0.25)
            factor = min(1.97, 2 / (1 + math.sqrt(1 - contraction)))
    return history


def textbook_anderson(problem: Problem, limits: Limits, depth: int = 8) -> History:
    """Type II with a sliding window, mixing 1 and no safeguard."""
    g, passes = annealed(problem)
    history: History = []
    points: list[Point] = []
    while passes + 2 <= limits.max_passes:
        points = [*points, evaluate(problem, g, problem.eps_column())][-depth - 1 :]
        passes += 2
        history.append((passes, points[-1].error))
        if points[-1].error <= limits.tol:
            break
        r = torch.stack([point.residual(problem) for point in points])
        updated = torch.cat([point.updated for point in points])
        differences, weights = r.diff(dim=0), metric(problem)
        gram = (weights * differences) @ differences.T
        ridge = 1e-13 * gram.trace() + (gram.trace() == 0)
        gamma = torch.linalg.solve(gram + ridge * torch.eye(len(gram)), (weights * differences) @ r[-1])
        g = (updated[-1] - gamma @ updated.diff(dim=0))[None]
    return history


def lbfgs(problem: Problem, limits: Limits, depth: int = 8) -> History:
    """L-BFGS on the semi-dual in variables scaled by √b; it starts from a plain step and backs up if the dual falls."""
    g, passes = annealed(problem)
    weights = metric(problem)
    history: History = []
    pairs: list[tuple[Tensor, Tensor]] = []
    reference: Point | None = None
    move = torch.zeros_like(g)
    while passes + 2 <= limits.max_passes:
        point = evaluate(problem, g, problem.eps_column())
        passes += 2
        history.append((passes, point.error))
        if point.error <= limits.tol:
            break
        if reference is not None and not point.dual >= reference.dual - 1e-9:
            move, pairs = move / 4, []
            g = reference.g + move
            continue
        if reference is not None:
            s = (point.g - reference.g)[0] / problem.eps[0]
            y = reference.residual(problem) - point.residual(problem)
            if (weights * s * y).sum() > 1e-12 * (weights * y * y).sum():
                pairs = [*pairs, (s - (weights * s).sum(), y)][-depth:]
        reference = point
        move = problem.eps[0] * _two_loops(point.residual(problem), pairs, weights)[None]
        g = point.g + move
    return history


def _two_loops(q: Tensor, pairs: list[tuple[Tensor, Tensor]], weights: Tensor) -> Tensor:
    alphas = []
    for s, y in reversed(pairs):
        alphas.append((weights * s * q).sum() / (weights * s * y).sum())
        q = q - alphas[-1] * y
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        q = q + (alpha - (weights * y * q).sum() / (weights * s * y).sum()) * s
    return q


def newton_cg(problem: Problem, limits: Limits) -> History:
    """Newton's method on the semi-dual, balanced only: truncated conjugate gradients, then backtracking.

    A product with the Hessian costs two passes, as does a trial of a step.
    """
    g, passes = annealed(problem)
    eps = problem.eps_column()
    history: History = []
    point = evaluate(problem, g, eps)
    passes += 2
    while True:
        history.append((passes, point.error))
        if point.error <= limits.tol or passes + 2 > limits.max_passes:
            return history
        direction, spent = _newton_direction(problem, point, limits.max_passes - passes)
        passes += spent
        length = 1.0
        while passes + 2 <= limits.max_passes:
            trial = evaluate(problem, point.g + length * direction, eps)
            passes += 2
            if trial.dual >= point.dual - 1e-9:
                break
            length /= 4
        else:
            return history
        point = trial


def _newton_direction(problem: Problem, point: Point, budget: int) -> tuple[Tensor, int]:
    eps, root = problem.eps_column(), problem.b.sqrt()
    inverse = torch.where(problem.b > 0, 1 / root, 0.0)
    u, h = problem.a.log() + point.f / eps, problem.b.log() + point.g / eps
    columns = problem.b * torch.exp(((point.g - point.updated) / eps).clamp(max=50))

    def product(v: Tensor) -> Tensor:
        v = inverse * v
        across = problem.geometry.plan_product(u, h, eps, v[:, :, None], 0)
        there = torch.where(problem.a[:, :, None] > 0, across / problem.a[:, :, None], 0.0)
        back = problem.geometry.plan_product(u, h, eps, there, 1)
        return inverse * (columns * v - back[:, :, 0])

    r = inverse * (problem.b - columns)
    start = r
    x, p, spent = torch.zeros_like(r), r, 0
    while spent + 2 <= budget and r.norm() > min(0.3, point.error**0.5) * start.norm():
        image = product(p)
        spent += 2
        curvature = (p * image).sum()
        if curvature <= 1e-12 * (p * p).sum():
            x = x if spent > 2 else p
            break
        alpha = (r * r).sum() / curvature
        x, last, r = x + alpha * p, r, r - alpha * image
        p = r + (r * r).sum() / (last * last).sum() * p
    return problem.eps[0] * inverse * x, spent


def gaussian_start(problem: Problem) -> Start:
    """Squared cost: the second potential, at the target ε, of the Gaussians of the clouds' means and covariances."""
    x, y, d = problem.geometry.x[0], problem.geometry.y[0], problem.geometry.x.shape[2]  # type: ignore[attr-defined]
    means = problem.a[0] @ x, problem.b[0] @ y
    x, y, shift = x - means[0], y - means[1], means[0] - means[1]
    identity, rate = torch.eye(d, dtype=x.dtype), 2 / problem.eps[0]
    precisions = [
        torch.linalg.inv((w[:, None] * z).T @ z + 1e-9 * identity) for w, z in ((problem.a[0], x), (problem.b[0], y))
    ]
    F = G = torch.zeros_like(identity)
    for _ in range(5000):  # Sinkhorn's algorithm for quadratic potentials: no pass over pairs
        F = identity - rate * torch.linalg.inv(precisions[1] + rate * (identity - G))
        G = identity - rate * torch.linalg.inv(precisions[0] + rate * (identity - F))
    g = ((y @ G) * y).sum(1) - 2 * y @ shift
    return Start(g[None])


def averaged(problem: Problem, limits: Limits) -> History:
    """The self problem by averages f ← ½(f + softmin f), annealed: what `symmetric` was before."""
    f, passes = torch.zeros_like(problem.a), 0
    history: History = []
    for eps in levels(problem):
        f, passes = (f + problem.damped(problem.raw_potential(f, eps, side=0), eps, side=0)) / 2, passes + 1
    eps = problem.eps_column()
    while passes + 1 <= limits.max_passes:
        raw = problem.raw_potential(f, eps, side=0)
        updated = problem.damped(raw, eps, side=0)
        f = torch.where(problem.a > 0, f, updated)
        passes += 1
        history.append((passes, 2 * float(problem.residual(f, raw, eps, side=0))))
        if history[-1][1] <= limits.tol:
            break
        f = (f + updated) / 2
    return history
