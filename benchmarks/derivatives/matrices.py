"""How wrong is the derivative of the sharp value when the forward solve is that wrong? On cost matrices, in float64.

Each method is stopped at several of its own thresholds (or numbers of iterations); what it is judged by is the L1
marginal error of the plan that it reached, which is the same quantity for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

import sinkdiv
from benchmarks.derivatives.methods import ott_run, ott_solve
from benchmarks.derivatives.references import exact_matrix, iterated_plan, marginal_error
from benchmarks.frame.clock import deadline, say, seconds
from benchmarks.frame.methods import Method, Prepared, named_like
from benchmarks.frame.racing import quiet
from benchmarks.frame.references import PATIENT, Exact
from benchmarks.frame.rows import Row, attempted

#: Iterations that POT may put on its tape: a few GB at 200 × 200.
TAPED_ITERATIONS = 2000
THRESHOLDS = tuple(10.0**-k for k in range(2, 11))
UNROLLED = (3, 10, 30, 100, 300, 1000)


@dataclass(frozen=True)
class Outcome:
    """The sharp value, its derivative in C and the plan (n, m), or what the plan's marginal error is."""

    value: float
    gradient: Tensor
    plan: Tensor


def implicit(C: Tensor, eps: float, tol: float) -> Outcome:
    C = C.clone().requires_grad_()
    transport = sinkdiv.solve_matrix(C, eps=eps, tol=tol, solver=PATIENT)
    value = transport.sharp
    (gradient,) = torch.autograd.grad(value, C)
    return Outcome(float(value), gradient, transport.plan().detach())


def unrolled(C: Tensor, eps: float, iterations: float) -> Outcome:
    C, points = C.clone().requires_grad_(), [torch.zeros(size, 1, dtype=C.dtype) for size in C.shape]
    value = sinkdiv.transport_cost(
        *points, eps=eps, cost=lambda x, y: C, value="sharp", solver=sinkdiv.Unrolled(iterations=int(iterations))
    )
    (gradient,) = torch.autograd.grad(value, C)
    return Outcome(float(value), gradient, iterated_plan(C.detach(), eps, int(iterations)))


def pot(C: Tensor, eps: float, tol: float) -> Outcome:
    import ot

    C = C.clone().requires_grad_()
    a, b = (torch.full((size,), 1 / size, dtype=C.dtype) for size in C.shape)
    plan = ot.sinkhorn(a, b, C, eps, "sinkhorn_log", numItermax=TAPED_ITERATIONS, stopThr=tol)
    value = (plan * C).sum()
    (gradient,) = torch.autograd.grad(value, C)
    return Outcome(float(value), gradient, plan.detach())


def ott(C: Tensor, eps: float, threshold: float, linear_tol: float | None = None) -> Outcome:
    import jax
    import numpy as np
    from ott.geometry.geometry import Geometry

    def sharp(C: Any) -> tuple[Any, Any]:
        output = ott_solve(Geometry(cost_matrix=C, epsilon=eps), threshold, linear_tol)
        return (output.matrix * C).sum(), output.matrix

    with jax.enable_x64(True):
        function = jax.jit(jax.value_and_grad(sharp, has_aux=True))
        (value, plan), gradient = ott_run(function, jax.numpy.asarray(C.numpy()))
        return Outcome(float(value), *(torch.tensor(np.array(one)) for one in (gradient, plan)))


def method(
    name: str, package: str, settings: tuple[float, ...], run: Callable[[Tensor, float, float], Outcome]
) -> Method:
    """``run`` (C, eps, setting) gives an outcome."""
    return Method(name, package, lambda problem, setting: Prepared(lambda: run(*problem, setting)), settings)


METHODS = [
    method("sinkdiv implicit", "sinkdiv", THRESHOLDS, implicit),
    method("sinkdiv unrolled", "sinkdiv", UNROLLED, unrolled),
    method("POT autograd", "ot", THRESHOLDS, pot),
    method("OTT-JAX implicit", "ott", THRESHOLDS, ott),
    method("OTT-JAX implicit, linear solver at 1e-12", "ott", THRESHOLDS, partial(ott, linear_tol=1e-12)),
]


def problems(n: int) -> dict[str, tuple[Tensor, float]]:
    """Cost matrices (n, n) with values of about one, and ε."""
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(n, n, generator=generator, dtype=torch.float64)
    x, y = torch.rand(2, n, 2, generator=generator, dtype=torch.float64)
    cloud = torch.cdist(x, 0.3 + 0.8 * y).square()
    kinds = {"uniform random costs": uniform, "squared distances in 2-D": cloud}
    return {f"{name}, ε = {eps:g}": (C, eps) for name, C in kinds.items() for eps in (0.1, 0.01)}


def compare(n: int, every: int, wanted: str, limit: float) -> list[dict[str, Any]]:
    """A table for each problem, of every ``every``-th setting of the methods whose name contains ``wanted``."""
    tables = []
    for title, problem in problems(n).items():
        say(f" {title}")
        exact = exact_matrix(*problem)
        rows = [
            row(method, problem, setting, exact, limit)
            for method in named_like(METHODS, wanted)
            for setting in method.settings[::every]
        ]
        tables.append({"title": f"{n} × {n}, {title}", "reference_error": exact["marginal_error"], "rows": rows})
    return tables


def row(method: Method, problem: tuple[Tensor, float], setting: float, exact: Exact, limit: float) -> Row:
    head: Row = {"method": method.name, "setting": setting, "note": method.obstacle()}

    def measure() -> Row:
        prepared, outcomes = method.prepare(problem, setting), []
        with quiet(), deadline(limit):  # the marginal error says how far it came
            spent = seconds(lambda: outcomes.append(prepared.run()))
        return {"seconds": spent} | judged(outcomes[0], exact)

    return head if head["note"] else attempted(head, measure, limit)


def judged(outcome: Outcome, exact: Exact) -> Row:
    value, gradient = exact["sharp"]
    return {
        "marginal_error": marginal_error(outcome.plan),
        "value_error": abs(outcome.value / float(value) - 1),
        "gradient_error": float((outcome.gradient - gradient).norm() / gradient.norm()),
    }
