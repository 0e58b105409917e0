"""Intervals that contain OT_ε, or the optimum OT_0 without regularisation, computed from any potentials.

Any pair of potentials gives a lower bound, the dual value; any plan with the right marginals gives an upper bound, the
primal value. The plan of the potentials is made feasible by the rounding of Altschuler, Weed and Rigollet (2017,
Algorithm 2). Both are computed in float64 whatever the dtype of the solve, so that the arithmetic of the certificate
does not enter the certificate. With soft marginals every plan is feasible and none is rounded.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sinkdiv.geometry import RoundedPlan
from sinkdiv.solvers.problem import Problem


def bounds(problem: Problem, g: Tensor) -> tuple[Tensor, Tensor]:
    """An interval (lower, upper), each (B,) in float64, that contains OT_ε, from the second potential alone.

    Costs one float64 pass for the lower bound and, if the problem is balanced, three more for the upper one. The
    interval is widened by the rounding with which weights and costs entered in the dtype of the problem. ``upper`` is
    +∞ where making the plan's marginals exact would put mass on a forbidden pair.
    """
    wide = _in_float64(problem)
    eps = wide.eps_column()
    g = g.double()
    raw_f = wide.raw_potential(g, eps, side=0)
    lower = wide.dual_value(raw_f, g)
    # With the best f for this g the rows of the plan are exact, so only its columns need rounding.
    f = wide.damped(raw_f, eps, side=0)
    rows = wide.target(f, side=0)
    columns = wide.marginal(g, wide.raw_potential(f, eps, side=1), eps, side=1)
    upper = _rounded_primal(wide, f, g, columns) if wide.balanced else _soft_primal(wide, f, g, rows, columns)
    return _widened(wide, lower, upper, f, g, problem.a.dtype)


def unregularised_bounds(problem: Problem, g: Tensor) -> tuple[Tensor, Tensor]:
    """An interval (lower, upper), each (B,) in float64, that contains OT_0, the optimum of the same problem at ε = 0.

    The lower end is the dual value of potentials that c-transforms of g have made feasible, f_i + g_j ≤ C_ij, the upper
    end the cost of the plan behind the upper end of `bounds`, without its entropy. Float64 passes: two, and five if the
    problem is balanced or three if not. Widened, and ``upper`` perhaps +∞, as there.
    """
    wide = _in_float64(problem)
    eps = wide.eps_column()
    g = g.double()
    f = wide.damped(wide.raw_potential(g, eps, side=0), eps, side=0)
    columns = wide.marginal(g, wide.raw_potential(f, eps, side=1), eps, side=1)
    upper = (_rounded_cost if wide.balanced else _soft_cost)(wide, f, g, columns)
    lower, f, g = _feasible_dual(wide, g)
    return _widened(wide, lower, upper, f, g, problem.a.dtype)


def _widened(
    problem: Problem, lower: Tensor, upper: Tensor, f: Tensor, g: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The interval of potentials (f, g) with room for the rounding of weights and costs that came in the dtype."""
    width = torch.where(upper < torch.inf, (upper - lower).abs(), 0.0)
    magnitude = (problem.a * f.abs()).sum(-1) + (problem.b * g.abs()).sum(-1) + width
    slack = 4 * torch.finfo(dtype).eps * magnitude
    return lower - slack, upper + slack


def _in_float64(problem: Problem) -> Problem:
    a = problem.a.double()
    b = a if problem.b is problem.a else problem.b.double()
    if problem.balanced and b is not a:
        b = b * (a.sum(-1, keepdim=True) / b.sum(-1, keepdim=True))
    return replace(problem, geometry=problem.geometry.exact(), a=a, b=b)


def _rounded_primal(problem: Problem, f: Tensor, g: Tensor, columns: Tensor) -> Tensor:
    """The primal value of the plan of (f, g), whose rows are exact, after its columns have been made exact too."""
    a, b = problem.a, problem.b
    energy = problem.geometry.energy(_rounded(problem, f, g, columns))
    plan_mass, product = a.sum(-1), a.sum(-1) * b.sum(-1)
    return energy - _eps(problem) * (plan_mass - product)


def _rounded_cost(problem: Problem, f: Tensor, g: Tensor, columns: Tensor) -> Tensor:
    """<P,C> of the same plan: the cost of what is left of the plan of (f, g), and that of its correction."""
    a, b = problem.a, problem.b
    plan = _rounded(problem, f, g, columns)
    kept = problem.geometry.plan_cost(a.log() + plan.u, b.log() + plan.h, plan.eps)
    moved = problem.geometry.plan_cost((a * plan.p).log(), (b * plan.q).log(), torch.full_like(plan.eps, torch.inf))
    return kept + moved


def _rounded(problem: Problem, f: Tensor, g: Tensor, columns: Tensor) -> RoundedPlan:
    """The plan of (f, g) with exact marginals."""
    eps = problem.eps_column()
    a, b = problem.a, problem.b
    shrink = torch.where(columns > b, b / columns, 1.0)
    g = g + eps * shrink.log()
    missing_columns = (b - columns * shrink).clamp(min=0)
    rows = problem.marginal(f, problem.raw_potential(g, eps, side=0), eps, side=0)
    missing_rows = (a - rows).clamp(min=0)
    # Both sides miss the same mass up to rounding; the correction is missing_rows ⊗ missing_columns / mass.
    missing = missing_columns.sum(-1, keepdim=True)
    p = torch.where(a > 0, missing_rows / a, 0.0)
    q = torch.where((b > 0) & (missing > 0), missing_columns / b / missing, 0.0)
    # Points without weight have no say, but their potentials may be large enough to overflow.
    u, h = torch.where(a > 0, f / eps, -torch.inf), torch.where(b > 0, g / eps, -torch.inf)
    return RoundedPlan(a, b, u, h, eps, p, q)


def _soft_primal(problem: Problem, f: Tensor, g: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The primal value of the plan of (f, g) as it is, whose marginals are soft.

    <P,C> + ε KL(P|abᵀ) needs no pass: on the plan of the potentials it is <r,f> + <c,g> − ε(mass − m_a m_b).
    """
    product = problem.a.sum(-1) * problem.b.sum(-1)
    linear = (rows * f).sum(-1) + (columns * g).sum(-1) - _eps(problem) * (rows.sum(-1) - product)
    return linear + _divergence(rows, problem.a, problem.rho[0]) + _divergence(columns, problem.b, problem.rho[1])


def _soft_cost(problem: Problem, f: Tensor, g: Tensor, columns: Tensor) -> Tensor:
    """<P,C> + ρ₁ KL(P1|a) + ρ₂ KL(Pᵀ1|b) of the same plan."""
    eps = problem.eps_column()
    log_a, log_b = problem.log_weights
    cost = problem.geometry.plan_cost(log_a + f / eps, log_b + g / eps, eps)
    rows = problem.target(f, side=0)
    return cost + _divergence(rows, problem.a, problem.rho[0]) + _divergence(columns, problem.b, problem.rho[1])


def _feasible_dual(problem: Problem, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The dual value (B,) at ε = 0 of potentials f (B, n) and g (B, m) that are feasible, from any g; and they."""
    sharp = replace(problem, eps=(0.0,) * len(problem.eps))
    rows, columns = problem.a > 0, problem.b > 0
    f = problem.geometry.ctransform(torch.where(columns, g, -torch.inf), side=0)
    g = problem.geometry.ctransform(torch.where(rows, f, -torch.inf), side=1)
    f, g = torch.where(rows, f, 0.0), torch.where(columns, g, 0.0)
    g, f = sharp.translated(g, f, sharp.eps_column())
    return sharp.dual_value(f, g), f, g


def _eps(problem: Problem) -> Tensor:
    """ε (B,)."""
    return problem.eps_column()[:, 0]


def _divergence(marginal: Tensor, weights: Tensor, rho: float) -> Tensor:
    """ρ KL(r|a), (B,)."""
    ratio = torch.where(weights > 0, marginal / weights, 1.0)
    return rho * (weights * (torch.xlogy(ratio, ratio) - ratio + 1)).sum(-1)
