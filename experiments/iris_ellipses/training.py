"""One run: three ellipsoids that learn the flowers under a loss."""

from __future__ import annotations

import math
import statistics
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

import sinkdiv
from experiments.frame.runs import Record
from experiments.iris_ellipses.ellipsoids import Ellipsoids, counts_by_class
from experiments.iris_ellipses.flowers import flowers
from sinkdiv.generative.generator_loss import GeneratorLoss, GeneratorLossSettings

LATENTS, ITERATIONS, LEARNING_RATE = 200, 20, 0.05
#: (cost, ε, derivative) → what G18's table says.
PAPER: dict[tuple[str, float, str], str] = {
    ("euclidean", math.inf, "auto"): "36 / 39 / 42",
    ("sqeuclidean", 1.0, "unrolled"): "50 / 50 / 47",
    ("sqeuclidean", 0.1, "unrolled"): "44 / 38 / 40",
    ("sqeuclidean", 0.001, "unrolled"): "33 / 37 / 25",
}
OURS = [(cost, eps, "auto") for cost in ("sqeuclidean", "euclidean") for eps in (1.0, 0.1, 0.001)]


@dataclass(frozen=True)
class Run:
    cost: str
    eps: float
    derivative: str
    seed: int
    steps: int

    @property
    def name(self) -> str:
        return f"{self.cost}-{self.eps:g}-{self.derivative}-{self.seed}"


def apart(points: Tensor, first: int) -> Tensor:
    """Three flowers (3, 3): one, the farthest from it, and the one whose nearest of the two is farthest away."""
    chosen = points[first, None]
    while len(chosen) < 3:
        farthest = torch.cdist(points, chosen).amin(1).argmax()
        chosen = torch.cat([chosen, points[farthest, None]])
    return chosen


def train(run: Run) -> Record:
    points, labels = flowers()
    numbers = torch.Generator().manual_seed(run.seed)
    first = int(torch.randint(len(points), (1,), generator=numbers))
    ellipsoids = Ellipsoids(apart(points, first), radius=0.5)
    iterations = ITERATIONS if run.derivative == "unrolled" else 0
    settings = GeneratorLossSettings(cost=run.cost, eps=run.eps, derivative=run.derivative, iterations=iterations)
    loss_of = GeneratorLoss(settings)
    optimiser = torch.optim.Adam(ellipsoids.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / run.steps)
    losses = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(run.steps):
            loss = loss_of(ellipsoids.sample(LATENTS, numbers), points)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
    inside = ellipsoids.inside(points)
    return {
        "inside": counts_by_class(inside, labels), "in_any": int(inside.any(1).sum()),
        "in_several": int((inside.sum(1) > 1).sum()), "loss": statistics.mean(losses[-run.steps // 10 :]),
        "matrices": ellipsoids.matrices.tolist(), "centres": ellipsoids.centres.tolist(),
        "not_converged": sum(issubclass(warning.category, sinkdiv.ConvergenceWarning) for warning in caught),
    }  # fmt: skip
