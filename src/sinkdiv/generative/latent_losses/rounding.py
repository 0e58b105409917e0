"""The cost of a plan rounded to exact marginals (P19 v3), and its derivative through the plan in closed form."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def rounded_plan(plan: Tensor) -> Tensor:
    """The plan (n, m) with row sums 1/n and column sums 1/m exactly (Altschuler et al. 2017, Algorithm 2)."""
    rows, columns = 1 / plan.shape[0], 1 / plan.shape[1]
    plan = plan * (rows / plan.sum(1, keepdim=True).clamp(min=rows))
    plan = plan * (columns / plan.sum(0, keepdim=True).clamp(min=columns))
    missing_rows, missing_columns = rows - plan.sum(1), columns - plan.sum(0)
    missing = missing_rows.sum()
    if float(missing.detach()) < torch.finfo(plan.dtype).eps:
        return plan
    return plan + missing_rows[:, None] * missing_columns / missing


def rounded_cost(costs: Tensor, plan: Tensor, eps: float) -> Tensor:
    """<R(P), C> of the rounded entropic plan, once differentiable in the costs, of which the plan is a function.

    Args:
        costs: C, (n, m).
        plan: P, (n, m), which solves them at `eps` between equal weights; its numbers, without a graph.
        eps: regularisation, in units of the costs.
    """
    cost: Tensor = _RoundedCost.apply(costs, plan, eps)
    return cost


class _RoundedCost(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, costs: Tensor, plan: Tensor, eps: float) -> Tensor:
        wide, C = plan.double(), costs.double()
        with torch.enable_grad():
            P = wide.detach().requires_grad_()
            rounded = rounded_plan(P)
            cost = (rounded * C).sum()
        ctx.needed = ctx.needs_input_grad[0]
        if ctx.needed:
            (G,) = torch.autograd.grad(cost, P)
            ctx.save_for_backward(rounded.detach(), wide, G)
            ctx.eps = eps
        return cost.detach().to(costs.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None]:
        rounded, P, G = ctx.saved_tensors
        return (cotangent * (rounded + _through_plan(P, G, ctx.eps))).to(cotangent.dtype), None, None


def _through_plan(P: Tensor, G: Tensor, eps: float) -> Tensor:
    """dL/dC (n, m) of a loss L(P) with the gradient G, for the entropic plan P of C: P∘(s_u⊕s_v − G)/ε (Q23 §3).

    (s_u, s_v) are the multipliers of the plan's own marginals r and c:

        [diag r, P; Pᵀ, diag c] [s_u; s_v] = [(P∘G)1; (P∘G)ᵀ1].

    With s_u eliminated, and √c s_v as the unknowns, the matrix is I − K̂ᵀK̂ for K̂ = diag(r^−½) P diag(c^−½). Constants,
    which are free, are moved from its eigenvalue 0 to 1; what rounding may make of others near 0 is made positive.
    """
    # Squares of what is left are no subnormal numbers, with which processors are many times slower.
    P = P.masked_fill(P.lt(torch.finfo(P.dtype).tiny ** 0.5), 0.0)
    rows, columns, weighted = P.sum(1), P.sum(0), P * G
    # A row or column that has no mass takes no part.
    inverse_rows, inverse_root = (torch.where(sums > 0, sums.rsqrt(), 0.0) for sums in (rows, columns))
    scaled = inverse_rows[:, None] * P * inverse_root
    constant = columns.sqrt() / columns.sum().sqrt()
    system = torch.outer(constant, constant) - scaled.mT @ scaled
    system.diagonal().add_(1 + len(system) * torch.finfo(P.dtype).eps)
    means = inverse_rows.square() * weighted.sum(1)
    right = inverse_root * (weighted.sum(0) - P.mT @ means)
    s_columns = inverse_root * torch.cholesky_solve(right[:, None], torch.linalg.cholesky(system)).squeeze(1)
    s_rows = means - inverse_rows.square() * (P @ s_columns)
    return P * (s_rows[:, None] + s_columns - G) / eps
