"""What derivatives are judged by: dense linear algebra in float64, and differences of gradients.

The sharp value's derivative comes from Q23's linear system, formed and factorised; where that does not fit, from our
own solve in float64 at a tight tolerance. Hessian-vector products come from central differences of gradients.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

import sinkdiv
from benchmarks.frame.clock import say
from benchmarks.frame.references import PATIENT, Exact, cached
from benchmarks.frame.workloads import Workload

#: Pairs up to which the linear system is formed: a few float64 matrices.
DENSE_PAIRS = 4_000_000


def exact_matrix(C: Tensor, eps: float, tol: float = 1e-13) -> Exact:
    """Entropic and sharp value of a cost matrix (n, m) in float64, uniform weights, with their derivatives in C."""
    n, m = C.shape
    transport = sinkdiv.solve_matrix(C, eps=eps, tol=tol, solver=PATIENT)
    reduced = C - transport.f[:, None] - transport.g
    P = torch.exp(-reduced / eps) / (n * m)
    rows, columns = P.sum(1), P.sum(0)
    # The reduced cost in place of C gives the same derivative with less cancellation; c cᵀ fixes the gauge.
    mu, nu = (P * reduced).sum(1), (P * reduced).sum(0)
    D = torch.diag(columns) - P.T @ (P / rows[:, None]) + columns[:, None] * columns
    s_v = torch.linalg.solve(D, nu - P.T @ (mu / rows))
    s_u = (mu - P @ s_v) / rows
    return {
        "entropic": (transport.value, P),
        "sharp": ((P * C).sum(), P * (1 + (s_u[:, None] + s_v - reduced) / eps)),
        "marginal_error": marginal_error(P), "converged": transport.converged,
    }  # fmt: skip


def marginal_error(P: Tensor) -> float:
    """The L1 error of both marginals of a plan between uniform weights."""
    n, m = P.shape
    return float((P.sum(1) - 1 / n).abs().sum() + (P.sum(0) - 1 / m).abs().sum())


def iterated_plan(C: Tensor, eps: float, iterations: int) -> Tensor:
    """The plan after so many plain iterations from g = 0, in logarithms."""
    n, m = C.shape
    f, g = C.new_zeros(n), C.new_zeros(m)
    for _ in range(iterations):
        f = -eps * torch.logsumexp((g - C) / eps, 1) + eps * math.log(m)
        g = -eps * torch.logsumexp((f[:, None] - C) / eps, 0) + eps * math.log(n)
    return torch.exp((f[:, None] + g - C) / eps) / (n * m)


def exact_points(workload: Workload, value: str, cache: Path | None) -> Exact:
    """A value of OT_ε, not debiased, and its gradient in x."""

    def make() -> Exact:
        say(f"  reference of {workload.title}, {value}")
        x, y, eps = workload.x.double(), workload.y.double(), 2 * workload.blur**2
        if workload.pairs > DENSE_PAIRS:
            return streamed(x, y, eps, value)
        C = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()
        exact = exact_matrix(C, eps, tol=1e-12)
        number, in_C = exact[value]
        gradient = 2 * (in_C.sum(1)[:, None] * x - in_C @ y)
        return {"value": number, "gradient": gradient, "kind": "dense", "converged": exact["converged"]}

    return cached(cache, workload, ("transport", value), make)


def streamed(x: Tensor, y: Tensor, eps: float, value: str, tol: float = 1e-9) -> Exact:
    x = x.requires_grad_()
    transport = sinkdiv.solve(x, y, eps=eps, tol=tol, solver=PATIENT)
    number = transport.value if value == "entropic" else transport.sharp
    (gradient,) = torch.autograd.grad(number, x)
    return {
        "value": number.detach(), "gradient": gradient, "kind": f"streamed, tol {tol:.0e}",
        "converged": transport.converged,
    }  # fmt: skip


def exact_product(workload: Workload, v: Tensor, cache: Path | None) -> Exact:
    """The debiased entropic value and its Hessian in x times v (n, d), with the differences' own error."""
    x, y = workload.x.double(), workload.y.double()
    tol = 1e-11 if workload.pairs <= DENSE_PAIRS else 1e-9
    step = 4e-3 * workload.blur

    def value_and_gradient(at: Tensor) -> tuple[Tensor, Tensor]:
        at = at.requires_grad_()
        value = sinkdiv.sinkhorn_divergence(at, y, blur=workload.blur, tol=tol, solver=PATIENT)
        return value.detach(), torch.autograd.grad(value, at)[0]

    def difference(h: float) -> Tensor:
        return (value_and_gradient(x + h * v)[1] - value_and_gradient(x - h * v)[1]) / (2 * h)

    def make() -> Exact:
        say(f"  reference of {workload.title}, Hessian")
        near, far = difference(step), difference(2 * step)
        # Richardson's extrapolation is more accurate than ``near`` by about as much as it differs from it.
        product = (4 * near - far) / 3
        uncertainty = float((near - product).norm() / product.norm())
        value = value_and_gradient(x.clone())[0]
        return {
            "value": value, "gradient": product, "kind": f"differences of gradients, tol {tol:.0e}",
            "uncertainty": uncertainty, "converged": True,
        }  # fmt: skip

    return cached(cache, workload, ("product", tol, step), make)
