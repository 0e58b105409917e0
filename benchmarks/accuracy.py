"""How right is a Sinkhorn divergence, and what does it cost? Peers and sinkdiv on the same inputs, in one run.

    pip install geomloss==0.3.1 pot==0.9.7.post1
    python benchmarks/accuracy.py --out benchmarks/results/accuracy.md

For each problem: the relative error of the value S_ε and of its gradient in x (L2) against a float64 solve to a
marginal error of 1e-9, whose certified interval is printed beside it; and the median wall time of value and gradient
over the repetitions, which alternate between the methods. Everybody computes in float32 on dense matrices. The
tolerances of sinkdiv and POT are norms of different kinds: compare times at similar errors, not at similar tolerances.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import geomloss
import ot
import torch
from torch import Tensor

import sinkdiv

Loss = Callable[[Tensor, Tensor, float], Tensor]
REPETITIONS = 5


def geomloss_loss(scaling: float) -> Loss:
    def loss(x: Tensor, y: Tensor, blur: float) -> Tensor:
        # GeomLoss's cost is |x−y|²/2 with ε = blur²: half of S_ε at the same blur.
        return 2 * geomloss.SamplesLoss("sinkhorn", p=2, blur=blur, scaling=scaling, backend="tensorized")(x, y)

    return loss


def pot_loss(tol: float) -> Loss:
    def loss(x: Tensor, y: Tensor, blur: float) -> Tensor:
        def cost(x: Tensor, y: Tensor) -> Tensor:
            eps = 2 * blur**2
            return ot.solve_sample(x, y, reg=eps, reg_type="KL", max_iter=20_000, tol=tol, grad="envelope").value

        return cost(x, y) - (cost(x, x) + cost(y, y)) / 2

    return loss


def our_loss(x: Tensor, y: Tensor, blur: float) -> Tensor:
    return sinkdiv.sinkhorn_divergence(x, y, blur=blur)


METHODS: dict[str, Loss] = {
    "sinkdiv, L1 tol 1e-3": our_loss,
    "GeomLoss, scaling .5": geomloss_loss(0.5),
    "GeomLoss, scaling .9": geomloss_loss(0.9),
    # POT's tol is the L2 norm of a marginal's error; at n points ours, an L1 norm, is up to √n times larger.
    "POT, L2 tol 1e-4": pot_loss(1e-4),
    "POT, L2 tol 1e-5": pot_loss(1e-5),
}


def problems() -> dict[str, tuple[Tensor, Tensor, float]]:
    """Pairs of float32 clouds and a blur, from one seed."""
    generator = torch.Generator().manual_seed(0)

    def sphere() -> Tensor:
        return torch.nn.functional.normalize(torch.randn(128, 10, generator=generator))

    def cube() -> Tensor:
        return torch.rand(1000, 3, generator=generator)

    return {
        "codes: 128 × 128 on the sphere in 10-D, blur .3": (sphere(), sphere(), 0.3),
        "cubes: 1000 × 1000 in 3-D, shifted by .1, blur .1": (cube(), cube() + 0.1, 0.1),
        "cubes: 1000 × 1000 in 3-D, shifted by .1, blur .05": (cube(), cube() + 0.1, 0.05),
    }


def value_and_gradient(loss: Loss, x: Tensor, y: Tensor, blur: float) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    value = loss(x, y, blur)
    (gradient,) = torch.autograd.grad(value, x)
    return value.detach(), gradient


def reference(x: Tensor, y: Tensor, blur: float) -> tuple[Tensor, Tensor, tuple[float, float]]:
    x = x.double().requires_grad_()
    divergence = sinkdiv.solve_divergence(x, y.double(), blur=blur, tol=1e-9, max_passes=100_000)
    (gradient,) = torch.autograd.grad(divergence.value, x)
    lower, upper = divergence.bounds
    return divergence.value.detach(), gradient, (float(lower), float(upper))


def measure(x: Tensor, y: Tensor, blur: float) -> list[str]:
    """The rows of one problem's table."""
    exact, exact_gradient, (lower, upper) = reference(x, y, blur)
    assert upper - lower < 1e-5 * upper, "the reference must be certified"
    times: dict[str, list[float]] = {name: [] for name in METHODS}
    answers = {}
    for _ in range(REPETITIONS):
        for name, loss in METHODS.items():
            start = time.perf_counter()
            answers[name] = value_and_gradient(loss, x, y, blur)
            times[name].append(time.perf_counter() - start)
    rows = [
        f"Exact value in [{lower:.9g}, {upper:.9g}].\n",
        "| method | value error | gradient error | ms |",
        "|---|---|---|---|",
    ]
    for name, (value, gradient) in answers.items():
        value_error = abs(float(value) / float(exact) - 1)
        gradient_error = float((gradient - exact_gradient).norm() / exact_gradient.norm())
        rows.append(
            f"| {name} | {value_error:.1e} | {gradient_error:.1e} | {1e3 * statistics.median(times[name]):.1f} |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("accuracy.md"))
    path = parser.parse_args().out
    lines = [
        "# Accuracy and cost of a Sinkhorn divergence and its gradient",
        "",
        f"`python benchmarks/accuracy.py`: torch {torch.__version__}, geomloss {geomloss.__version__}, "
        f"POT {ot.__version__}, sinkdiv {sinkdiv.__version__}; {platform.machine()}, "
        f"{torch.get_num_threads()} threads; "
        f"medians of {REPETITIONS} interleaved runs. Errors are relative to a certified float64 solve.",
    ]
    for title, problem in problems().items():
        lines += ["", f"## {title}", "", *measure(*problem)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
