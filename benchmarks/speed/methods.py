"""The libraries in the race: each turns a workload into a call that computes a value and its gradient in x.

Conventions, which the section ``conventions`` of the benchmark checks against a float64 solve of sinkdiv:

- sinkdiv's cost is |x−y|² and its ε is 2·blur²; ``tol`` bounds the L1 error of both marginals together.
- GeomLoss's cost is |x−y|²/2 and its ε is blur²: its value is half of ours. It runs a fixed schedule of ε without a
  convergence test; ``scaling`` is the ratio of successive blurs.
- POT's cost is |x−y|²; ``tol`` bounds the L2 norm of one marginal's error. The gradient is its envelope gradient.
- OTT's cost is |x−y|²; ``threshold`` bounds the L1 error of one marginal. Its entropy term differs from KL(P|abᵀ) by
  functions of the marginals, which cancel in the divergence.

Every library is imported when it is first asked for, so that one that is absent is reported, not fatal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import sinkdiv
from benchmarks.frame.methods import DENSE_PAIRS, Answer, Method, Prepared
from benchmarks.frame.workloads import Workload

Loss = Callable[[Tensor, Tensor, float], Tensor]


def on_torch(loss: Loss, workload: Workload) -> Prepared:
    """Value and gradient of a differentiable loss; a batch of values is summed before it is differentiated."""

    def run() -> Answer:
        x = workload.x.clone().requires_grad_()
        value = loss(x, workload.y, workload.blur)
        (gradient,) = torch.autograd.grad(value.sum(), x)
        return Answer(value.detach(), gradient)

    return Prepared(run)


def looped(loss: Loss) -> Loss:
    """The same loss for a batch, one problem after the other."""

    def loop(x: Tensor, y: Tensor, blur: float) -> Tensor:
        return torch.stack([loss(one, other, blur) for one, other in zip(x, y, strict=True)])

    return loop


def sinkdiv_method(tol: float = 1e-3, *, loop: bool = False, suffix: str = "") -> Method:
    """sinkdiv's loss, at an L1 marginal error of ``tol``."""

    def loss(x: Tensor, y: Tensor, blur: float) -> Tensor:
        return sinkdiv.sinkhorn_divergence(x, y, blur=blur, tol=tol)

    def details(workload: Workload) -> dict[str, Any]:
        divergence = sinkdiv.solve_divergence(workload.x, workload.y, blur=workload.blur, tol=tol)
        terms = {"cross": divergence.ab, "self x": divergence.aa, "self y": divergence.bb}
        return {
            "converged": bool(torch.as_tensor(divergence.converged).all()),
            "passes": {name: int(torch.as_tensor(term.passes).max()) for name, term in terms.items()},
            "marginal_error": {name: float(term.marginal_error.max()) for name, term in terms.items()},
        }

    name = f"sinkdiv, L1 tol {tol:.0e}{suffix}"
    chosen = looped(loss) if loop else loss
    return Method(name, "sinkdiv", lambda workload: on_torch(chosen, workload), details=None if loop else details)


def sinkdiv_certified(tol: float = 1e-3) -> Method:
    """The same with the certified interval of the value, which is computed in float64."""

    def prepare(workload: Workload) -> Prepared:
        def run() -> tuple[Answer, tuple[Tensor, Tensor]]:
            x = workload.x.clone().requires_grad_()
            divergence = sinkdiv.solve_divergence(x, workload.y, blur=workload.blur, tol=tol)
            value = divergence.value
            (gradient,) = torch.autograd.grad(value.sum(), x)
            return Answer(value.detach(), gradient), divergence.bounds

        def read(result: tuple[Answer, tuple[Tensor, Tensor]]) -> Answer:
            answer, (lower, upper) = result
            width = float(((upper - lower) / upper.abs()).max())
            return Answer(answer.value, answer.gradient, f"interval of relative width {width:.1e}")

        return Prepared(run, read)

    return Method(f"sinkdiv, L1 tol {tol:.0e}, with bounds", "sinkdiv", prepare)


def geomloss_method(backend: str, scaling: float) -> Method:
    """GeomLoss's SamplesLoss; "online" and "multiscale" run on KeOps, "tensorized" takes batches."""

    def prepare(workload: Workload) -> Prepared:
        import geomloss

        criterion = geomloss.SamplesLoss("sinkhorn", p=2, blur=workload.blur, scaling=scaling, backend=backend)
        return on_torch(lambda x, y, _: 2 * criterion(x, y), workload)

    name = f"GeomLoss {backend}, scaling {scaling:g}"
    package = "geomloss" if backend == "tensorized" else "pykeops"
    return Method(name, package, prepare, most_pairs=DENSE_PAIRS if backend == "tensorized" else math.inf)


def pot_method(tol: float, *, loop: bool = False) -> Method:
    """POT on torch: dense, in logarithms. Its lazy solver returns no value for this problem, so it has no row."""

    def loss(x: Tensor, y: Tensor, blur: float) -> Tensor:
        import ot

        options = {"reg": 2 * blur**2, "reg_type": "KL", "max_iter": 20_000, "tol": tol, "grad": "envelope"}
        return ot.solve_sample(x, y, debias=True, **options).value

    chosen, suffix = (looped(loss), ", a loop") if loop else (loss, "")
    name = f"POT, L2 tol {tol:.0e}{suffix}"
    return Method(name, "ot", lambda workload: on_torch(chosen, workload), most_pairs=DENSE_PAIRS)


def pot_batched(tol: float) -> Method:
    """POT's solver of batches, debiased by hand."""

    def loss(x: Tensor, y: Tensor, blur: float) -> Tensor:
        import ot

        def cost(x: Tensor, y: Tensor) -> Tensor:
            options = {"reg": 2 * blur**2, "max_iter": 20_000, "tol": tol, "grad": "envelope"}
            return ot.batch.solve_sample_batch(x, y, **options).value

        return cost(x, y) - (cost(x, x) + cost(y, y)) / 2

    name = f"POT batched, L2 tol {tol:.0e}"
    return Method(name, "ot", lambda workload: on_torch(loss, workload), most_pairs=DENSE_PAIRS)


def ott_method(threshold: float, *, lines: int | None = None, batched: bool = False) -> Method:
    """OTT-JAX, compiled ahead of time; ``lines`` of the cost matrix at a time, or the whole matrix if None."""
    style = "" if lines is None else f" online (batch_size {lines})"
    name = f"OTT-JAX{style}{' vmap' if batched else ''}, L1 threshold {threshold:.0e}"
    most_pairs = DENSE_PAIRS if lines is None else math.inf
    return Method(name, "ott", lambda workload: prepare_ott(workload, threshold, lines, batched), most_pairs=most_pairs)


def prepare_ott(workload: Workload, threshold: float, lines: int | None, batched: bool) -> Prepared:
    """Compile value and gradient for these shapes."""
    import jax
    import numpy as np
    from ott.geometry.pointcloud import PointCloud
    from ott.tools.sinkhorn_divergence import sinkhorn_divergence

    options = {"epsilon": 2 * workload.blur**2, "batch_size": None if lines is None else min(lines, len(workload.x))}
    solver = {"threshold": threshold, "max_iterations": 20_000}

    def loss(x: Any, y: Any) -> tuple[Any, Any]:
        value, output = sinkhorn_divergence(PointCloud, x, y, solve_kwargs=solver, **options)
        return value, (output.n_iters, output.converged)

    function = jax.value_and_grad(loss, has_aux=True)
    x, y = (jax.numpy.asarray(points.numpy()) for points in (workload.x, workload.y))
    compiled = jax.jit(jax.vmap(function) if batched else function).lower(x, y).compile()

    def read(result: Any) -> Answer:
        (value, (iterations, converged)), gradient = result
        counts = ", ".join(str(int(np.max(count))) for count in iterations)
        state = "" if all(bool(np.all(flag)) for flag in converged) else ", not converged"
        # Copies: the arrays of JAX are read-only.
        return Answer(torch.tensor(np.array(value)), torch.tensor(np.array(gradient)), f"{counts} iterations{state}")

    return Prepared(lambda: jax.block_until_ready(compiled(x, y)), read)
