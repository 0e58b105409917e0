"""Move one point cloud onto another by following the gradient of three losses (F19 §4, in two dimensions).

The entropic transport cost alone pulls the cloud onto a shrunk copy of its target; the Sinkhorn divergence removes that
bias; the energy distance moves everything a little and leaves stragglers.

    python -m experiments.gradient_flow
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.datasets import make_moons
from torch import Tensor

import sinkdiv

POINTS, STEPS, STEP, BLUR = 500, 60, 0.1, 0.25
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "entropic transport cost": lambda x, y: sinkdiv.transport_cost(x, y, blur=BLUR),
    "Sinkhorn divergence": lambda x, y: sinkdiv.sinkhorn_divergence(x, y, blur=BLUR),
    "energy distance (MMD)": lambda x, y: sinkdiv.mmd(x, y, kernel="energy"),
}


def clouds() -> tuple[Tensor, Tensor]:
    """A small disc, and the two moons beside it: (POINTS, 2) each."""
    generator = torch.Generator().manual_seed(0)
    angle, radius = 2 * torch.pi * torch.rand(2, POINTS, generator=generator)
    disc = 0.06 * radius.sqrt()[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    moons, _ = make_moons(POINTS, noise=0.05, random_state=0)
    return disc + torch.tensor([-1.6, 0.8]), torch.tensor(moons, dtype=torch.float32)


def flow(loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """STEPS explicit Euler steps of dx_i/dt = −(n/2) ∂loss/∂x_i, which for W2² heads straight for the target."""
    for _ in range(STEPS):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(x, y), x)
        x = x - STEP * len(x) / 2 * gradient
    return x.detach()


def draw(start: Tensor, target: Tensor, ends: dict[str, Tensor], path: Path) -> None:
    figure = Figure(figsize=(12, 2.3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 1 + len(ends), sharex=True, sharey=True)
    for axis, (title, points) in zip(axes, {"start": start, **ends}.items(), strict=True):
        axis.scatter(*target.T, s=7, color="#b8c4d6", linewidths=0, label="target")
        axis.scatter(*points.T, s=7, color="#c2410c", linewidths=0, label="moving cloud")
        axis.set(title=title, aspect="equal", xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    axes[0].legend(loc="lower left", frameon=False, markerscale=2)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images/gradient_flow.png"), help="the picture")
    path = parser.parse_args().out
    start, target = clouds()
    draw(start, target, {name: flow(loss, start, target) for name, loss in LOSSES.items()}, path)


if __name__ == "__main__":
    main()
