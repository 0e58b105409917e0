"""The libraries that solve an explicit cost matrix, and those that differentiate its sharp value, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import sinkdiv
from benchmarks.frame.methods import Method, Prepared
from sinkdiv.solvers.choice import IterativeSolver

#: The L1 marginal error that everybody is asked for, and the tolerances that are tried where a library's is of another
#: norm.
TOL = 1e-6
TOLERANCES = (1e-6, 3e-7, 1e-7, 3e-8)
SOLVERS = tuple(kind(max_passes=20_000) for kind in (sinkdiv.Auto, sinkdiv.Sinkhorn, sinkdiv.LBFGS, sinkdiv.Newton))

Array = np.ndarray


@dataclass(frozen=True)
class Problem:
    """Costs C (n, m), or (B, n, m), and uniform weights."""

    name: str
    C: Array
    eps: float

    @property
    def weights(self) -> tuple[Array, Array]:
        n, m = self.C.shape[-2:]
        return np.full(n, 1 / n), np.full(m, 1 / m)


def costs(kind: str, n: int, batch: tuple[int, ...] = ()) -> Array:
    generator = np.random.default_rng(0)
    if kind == "uniform":
        return generator.random((*batch, n, n))
    x, y = generator.random((*batch, n, 2)), generator.random((*batch, n, 2))
    C = np.square(x[..., :, None, :] - y[..., None, :, :]).sum(-1)
    return C / C.max((-2, -1), keepdims=True)


def sinkdiv_method(solver: IterativeSolver) -> Method:
    def prepare(problem: Problem, tol: float) -> Prepared:
        C = torch.tensor(problem.C)
        return Prepared(
            lambda: sinkdiv.solve_matrix(C, eps=problem.eps, tol=tol, solver=solver),
            lambda transport: transport.plan().numpy(),
        )

    return Method(f"sinkdiv {solver.name}", "sinkdiv", prepare, (TOL,))


def regot_method(name: str, iterations: int) -> Method:
    def prepare(problem: Problem, tol: float) -> Prepared:
        import regot

        C, (a, b) = np.asfortranarray(problem.C), problem.weights
        solve = getattr(regot, f"sinkhorn_{name}")
        return Prepared(
            lambda: solve(C, a, b, problem.eps, tol=tol, max_iter=iterations), lambda result: np.asarray(result.plan)
        )

    return Method(f"regot {name}", "regot", prepare, TOLERANCES)


def pot_method(name: str) -> Method:
    def prepare(problem: Problem, tol: float) -> Prepared:
        import ot

        a, b = problem.weights
        return Prepared(
            lambda: ot.sinkhorn(a, b, problem.C, problem.eps, method=name, numItermax=5000, stopThr=tol), np.asarray
        )

    return Method(f"POT {name}", "ot", prepare, TOLERANCES)


def ott_method() -> Method:
    def prepare(problem: Problem, tol: float) -> Prepared:
        import jax

        jax.config.update("jax_enable_x64", True)
        from ott.geometry import geometry
        from ott.problems.linear import linear_problem
        from ott.solvers.linear import sinkhorn

        solver = sinkhorn.Sinkhorn(threshold=tol, max_iterations=20_000)
        solve = jax.jit(lambda C: solver(linear_problem.LinearProblem(geometry.Geometry(C, epsilon=problem.eps))))
        C = jax.numpy.asarray(problem.C)
        return Prepared(lambda: jax.block_until_ready(solve(C)), lambda out: np.asarray(out.matrix))

    return Method("OTT-JAX, jitted", "ott", prepare, TOLERANCES)


METHODS = [
    *map(sinkdiv_method, SOLVERS),
    *(pot_method(name) for name in ("sinkhorn", "sinkhorn_log", "sinkhorn_stabilized")),
    ott_method(),
    *(
        regot_method(name, iterations)
        for name, iterations in (
            ("bcd", 3000), ("apdagd", 1000), ("lbfgs_dual", 3000), ("newton", 100), ("sparse_newton", 200),
            ("ssns", 200), ("splr", 1000),
        )
    ),
]  # fmt: skip


# The sharp value and its gradient in C: what is timed returns both.


def sinkdiv_gradient(problem: Problem) -> Prepared:
    C = torch.tensor(problem.C, requires_grad=True)

    def run() -> tuple[float, Array]:
        value = sinkdiv.solve_matrix(C, eps=problem.eps, tol=TOL, solver=SOLVERS[0]).sharp
        (gradient,) = torch.autograd.grad(value, C)
        return float(value), gradient.numpy()

    return Prepared(run)


def pot_gradient(problem: Problem) -> Prepared:
    import ot

    C = torch.tensor(problem.C, requires_grad=True)
    a, b = (torch.tensor(w) for w in problem.weights)

    def run() -> tuple[float, Array]:
        value = ot.sinkhorn2(a, b, C, problem.eps, numItermax=20_000, stopThr=3e-8)
        (gradient,) = torch.autograd.grad(value, C)
        return float(value), gradient.numpy()

    return Prepared(run)


def ott_gradient(problem: Problem) -> Prepared:
    import jax

    jax.config.update("jax_enable_x64", True)
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import implicit_differentiation, sinkhorn

    solver = sinkhorn.Sinkhorn(
        threshold=TOL, max_iterations=20_000, implicit_diff=implicit_differentiation.ImplicitDiff()
    )

    def sharp(C: Any) -> Any:
        out = solver(linear_problem.LinearProblem(geometry.Geometry(C, epsilon=problem.eps)))
        return (out.matrix * C).sum()

    both, C = jax.jit(jax.value_and_grad(sharp)), jax.numpy.asarray(problem.C)

    def run() -> tuple[float, Array]:
        value, gradient = jax.block_until_ready(both(C))
        return float(value), np.asarray(gradient)

    return Prepared(run)


GRADIENTS = [
    Method("sinkdiv auto, implicit", "sinkdiv", sinkdiv_gradient),
    Method("POT, autograd", "ot", pot_gradient),
    Method("OTT-JAX, implicit", "ott", ott_gradient),
]
