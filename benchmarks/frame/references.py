"""What answers are judged by: solves in float64 to tight tolerances, kept between runs."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import sinkdiv
from benchmarks.frame.clock import say
from benchmarks.frame.methods import Answer
from benchmarks.frame.workloads import Workload

Exact = dict[str, Any]
#: Solves references, which may take many passes.
PATIENT = sinkdiv.Auto(max_passes=100_000)


def cached(cache: Path | None, workload: Workload, key: tuple[Any, ...], make: Callable[[], Exact]) -> Exact:
    """What ``make`` returns, from a file of the folder ``cache`` if it was made of the same points before."""
    if cache is None:
        return make()
    digest = hashlib.sha256(repr((workload.blur, *key)).encode())
    for points in (workload.x, workload.y):
        digest.update(points.numpy().tobytes())
    file = cache / f"{digest.hexdigest()[:20]}.pt"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(make(), file)
    return torch.load(file)


def divergence(workload: Workload, cache: Path | None, *, tol: float = 1e-8) -> Exact:
    """Value, gradient and certified interval of the divergence."""

    def make() -> Exact:
        say(f"  reference of {workload.title}")
        begin = time.perf_counter()
        x = workload.x.double().requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the report says so where a reference did not converge
            solved = sinkdiv.solve_divergence(x, workload.y.double(), blur=workload.blur, tol=tol, solver=PATIENT)
        (gradient,) = torch.autograd.grad(solved.value.sum(), x)
        lower, upper = solved.bounds
        return {
            "value": solved.value.detach(), "gradient": gradient, "lower": lower, "upper": upper, "tol": tol,
            "converged": bool(torch.as_tensor(solved.converged).all()), "seconds": time.perf_counter() - begin,
        }  # fmt: skip

    return cached(cache, workload, ("divergence", tol), make)


def described(exact: Exact) -> dict[str, Any]:
    """What the results keep of `divergence`: the interval of its first problem and the widest relative width."""
    lower, upper, value = (torch.atleast_1d(exact[key]) for key in ("lower", "upper", "value"))
    return {
        "value": float(value[0]), "lower": float(lower[0]), "upper": float(upper[0]),
        "relative_width": float(((upper - lower) / upper.abs()).max()), "problems": len(value),
        "tol": exact["tol"], "converged": exact["converged"], "seconds": exact["seconds"],
    }  # fmt: skip


def errors(answer: Answer, exact: Exact | None) -> dict[str, float | None]:
    """Relative errors: of the value, the largest of a batch; of the gradient in x, in L2 over everything."""
    if exact is None:
        return {"value": None, "gradient": None}
    value, gradient = answer.value.double(), answer.gradient.double()
    return {
        "value": float((value / exact["value"] - 1).abs().max()),
        "gradient": float((gradient - exact["gradient"]).norm() / exact["gradient"].norm()),
    }
