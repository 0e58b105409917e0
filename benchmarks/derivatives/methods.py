"""The derivatives in the race: ours, and those of POT, OTT-JAX, GeomLoss and plain PyTorch.

Conventions as in `benchmarks.speed.methods`. "implicit" solves Q23's linear system at the plan; "unrolled" and
"autograd" differentiate the iterations; "envelope" needs neither, and belongs to the entropic value. OTT-JAX's implicit
differentiation is used as it is installed, with its defaults.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

import sinkdiv
from benchmarks.frame.methods import DENSE_PAIRS, TAPED_PAIRS, Answer, Method, Prepared
from benchmarks.frame.workloads import Workload
from benchmarks.speed.methods import Loss, on_torch

MAX_ITERATIONS = 20_000


class Pair(NamedTuple):
    """Two calls of a method that are timed side by side: without and with the derivative in question."""

    before: Method
    full: Method


# Losses between points, for the times.


def sinkdiv_pair(name: str, tol: float = 1e-3, **options: Any) -> Pair:
    """Our transport cost with these options."""

    def loss(x: Tensor, y: Tensor, blur: float) -> Tensor:
        return sinkdiv.transport_cost(x, y, blur=blur, tol=tol, **options)

    return torch_pair(f"sinkdiv {name}", "sinkdiv", loss)


def unrolled_pair(iterations: int) -> Pair:
    return sinkdiv_pair(f"unrolled, L = {iterations}", value="sharp", solver=sinkdiv.Unrolled(iterations=iterations))


def pot_pair(value: str, gradient: str, tol: float = 1e-4) -> Pair:
    """POT on torch; "autodiff" goes through all iterations, "envelope" through none."""

    def loss(x: Tensor, y: Tensor, blur: float) -> Tensor:
        import ot

        options = {"reg": 2 * blur**2, "reg_type": "KL", "max_iter": MAX_ITERATIONS, "tol": tol, "grad": gradient}
        result = ot.solve_sample(x, y, **options)
        return result.value if value == "entropic" else result.value_linear

    taped = gradient == "autodiff"
    name = f"POT {'autograd' if taped else gradient}, L2 tol {tol:.0e}"
    return torch_pair(name, "ot", loss, TAPED_PAIRS if taped else DENSE_PAIRS)


def geomloss_pair(scaling: float = 0.5) -> Pair:
    def loss(x: Tensor, y: Tensor, blur: float) -> Tensor:
        import geomloss

        criterion = geomloss.SamplesLoss(
            "sinkhorn", p=2, blur=blur, scaling=scaling, debias=False, backend="tensorized"
        )
        return 2 * criterion(x, y)

    return torch_pair(f"GeomLoss tensorized, scaling {scaling:g}", "geomloss", loss)


def torch_pair(name: str, package: str, loss: Loss, most_pairs: float = DENSE_PAIRS) -> Pair:
    """The value alone, and with its gradient in x."""

    def value(workload: Workload) -> Prepared:
        def run() -> Answer:
            with torch.no_grad():
                number = loss(workload.x, workload.y, workload.blur)
            return Answer(number, torch.full((), torch.nan))

        return Prepared(run)

    # The value alone keeps nothing, so that only its dense matrices bound it.
    before, full = (math.inf, math.inf) if package == "sinkdiv" else (DENSE_PAIRS, most_pairs)
    return Pair(
        Method(name, package, value, most_pairs=before),
        Method(name, package, lambda workload: on_torch(loss, workload), most_pairs=full),
    )


def ott_pair(value: str, threshold: float = 1e-3) -> Pair:
    """OTT-JAX, compiled ahead of time: the entropic value by its envelope, the sharp one implicitly."""

    def loss(workload: Workload) -> Callable[[Any, Any], tuple[Any, Any]]:
        from ott.geometry.pointcloud import PointCloud

        def number(x: Any, y: Any) -> tuple[Any, Any]:
            output = ott_solve(PointCloud(x, y, epsilon=2 * workload.blur**2), threshold)
            sharp = output.primal_cost if value == "sharp" else output.reg_ot_cost
            return sharp, (output.n_iters, output.converged)

        return number

    def prepare(
        workload: Workload, transform: Callable[[Any], Any], read: Callable[[Any], tuple[Any, Any]]
    ) -> Prepared:
        import jax

        x, y = (jax.numpy.asarray(points.numpy()) for points in (workload.x, workload.y))
        compiled = jax.jit(transform(loss(workload))).lower(x, y).compile()
        return Prepared(lambda: ott_run(compiled, x, y), lambda result: ott_answer(*read(result)))

    def before(workload: Workload) -> Prepared:
        return prepare(workload, lambda function: function, lambda result: (result, torch.nan))

    def full(workload: Workload) -> Prepared:
        import jax

        return prepare(workload, lambda function: jax.value_and_grad(function, has_aux=True), lambda result: result)

    name = f"OTT-JAX {'implicit' if value == 'sharp' else 'envelope'}, L1 threshold {threshold:.0e}"
    return Pair(*(Method(name, "ott", prepared, most_pairs=DENSE_PAIRS) for prepared in (before, full)))


def ott_solve(geometry: Any, threshold: float, linear_tol: float | None = None) -> Any:
    """The solution; ``linear_tol`` replaces the tolerance, 1e-6, of the linear solver behind implicit derivatives."""
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.implicit_differentiation import ImplicitDiff
    from ott.solvers.linear.sinkhorn import Sinkhorn

    options = {} if linear_tol is None else {"solver_kwargs": {"rtol": linear_tol, "atol": linear_tol}}
    solver = Sinkhorn(threshold=threshold, max_iterations=MAX_ITERATIONS, implicit_diff=ImplicitDiff(**options))
    return solver(LinearProblem(geometry))


def ott_run(compiled: Callable[..., Any], *arguments: Any) -> Any:
    """Call a compiled function; what its linear solver has to say is 100 lines long, the essence comes back."""
    import jax

    try:
        return jax.block_until_ready(compiled(*arguments))
    except jax.errors.JaxRuntimeError as error:
        if "non-finite" not in str(error):
            raise
        raise ArithmeticError("the linear solver of the implicit derivative returned NaN or inf") from None


def ott_answer(value: Any, gradient: Any) -> Answer:
    import numpy as np

    number, (iterations, converged) = value
    state = "" if bool(np.all(converged)) else ", not converged"
    note = f"{int(np.max(iterations))} iterations{state}"
    return Answer(torch.tensor(np.array(number)), torch.tensor(np.array(gradient)), note)


# Hessian-vector products of the debiased entropic value.


def sinkdiv_product(direction: Tensor, dtype: torch.dtype, tol: float) -> Pair:
    """Value and gradient, and with them the Hessian in x times the direction."""

    def prepare(workload: Workload, second: bool) -> Prepared:
        start, y, v = (tensor.to(dtype) for tensor in (workload.x, workload.y, direction[: len(workload.x)]))

        def run() -> Answer:
            x = start.clone().requires_grad_()
            value = sinkdiv.sinkhorn_divergence(x, y, blur=workload.blur, tol=tol)
            (gradient,) = torch.autograd.grad(value, x, create_graph=second)
            if second:
                (gradient,) = torch.autograd.grad(gradient, x, v)
            return Answer(value.detach(), gradient)

        return Prepared(run)

    name = f"sinkdiv {str(dtype).removeprefix('torch.')}, L1 tol {tol:.0e}"
    return Pair(
        Method(name, "sinkdiv", lambda workload: prepare(workload, False)),
        Method(name, "sinkdiv", lambda workload: prepare(workload, True)),
    )


def ott_product(direction: Tensor, threshold: float, *, danskin: bool, double: bool = False) -> Pair:
    """OTT-JAX by ``jax.jvp`` of its gradient; by default (Danskin's theorem) it takes the potentials as constant."""
    dtype = torch.float64 if double else torch.float32

    def prepare(workload: Workload, second: bool) -> Prepared:
        import jax
        from ott.geometry.pointcloud import PointCloud
        from ott.tools.sinkhorn_divergence import sinkhorn_divergence

        options = {"threshold": threshold, "max_iterations": MAX_ITERATIONS}
        options |= {} if danskin else {"use_danskin": False}

        def loss(x: Any) -> tuple[Any, Any]:
            eps = 2 * workload.blur**2
            value, output = sinkhorn_divergence(PointCloud, x, y, epsilon=eps, solve_kwargs=options)
            return value, (output.n_iters, output.converged)

        def with_product(x: Any) -> Any:
            def gradient(x: Any) -> tuple[Any, Any]:
                value, derivative = jax.value_and_grad(loss, has_aux=True)(x)
                return derivative, value

            _, product, value = jax.jvp(gradient, (x,), (v,), has_aux=True)
            return value, product

        def run() -> Any:
            with jax.enable_x64(double):
                return ott_run(compiled, x)

        chosen = with_product if second else jax.value_and_grad(loss, has_aux=True)
        tensors = (workload.x, workload.y, direction[: len(workload.x)])
        with jax.enable_x64(double):
            x, y, v = (jax.numpy.asarray(tensor.to(dtype).numpy()) for tensor in tensors)
            compiled = jax.jit(chosen).lower(x).compile()
        return Prepared(run, lambda result: ott_answer(*result))

    kind, default = str(dtype).removeprefix("torch."), "" if danskin else ", use_danskin=False"
    name = f"OTT-JAX {kind}, L1 threshold {threshold:.0e}{default}"
    return Pair(
        Method(name, "ott", lambda workload: prepare(workload, False), most_pairs=DENSE_PAIRS),
        Method(name, "ott", lambda workload: prepare(workload, True), most_pairs=DENSE_PAIRS),
    )
