"""Train a small generator on a sample in the plane, with one of three losses that differ in their derivative (Q23).

The loss is the sharp transport cost <P_ε, C> under |x−y|², which Q23 differentiates analytically ("implicit") and G18
through the iterations ("unrolled"). "debiased" is the same loss with its bias removed, and the derivative of Q23.
The generator is judged by W2², by linear assignment, between points it has not been trained with and the sample.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

import sinkdiv
from experiments.analytic_differentiation.targets import TARGETS
from experiments.frame.runs import Record, show

EPS, LATENT, LEARNING_RATE = 0.5, 5, 1e-3
UNROLLED = sinkdiv.Unrolled(iterations=10)
#: The final figure is the mean over so many fresh samples.
DRAWS = 5

METHODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "implicit": lambda x, y: sinkdiv.transport_cost(x, y, eps=EPS, value="sharp", derivative="implicit"),
    "unrolled": lambda x, y: sinkdiv.transport_cost(x, y, eps=EPS, value="sharp", solver=UNROLLED),
    "debiased": lambda x, y: sinkdiv.sinkhorn_divergence(x, y, eps=EPS, value="sharp", derivative="implicit"),
}


@dataclass(frozen=True)
class Run:
    """What determines a run."""

    target: str
    method: str
    seed: int
    steps: int
    n: int
    """Points in the sample, and generated at each step."""
    every: int
    """Steps between two judgements."""

    @property
    def name(self) -> str:
        return f"{self.target}-{self.method}-{self.seed}"


def train(run: Run) -> Record:
    """Train a generator and judge it as it goes; the seconds count the steps only."""
    data = TARGETS[run.target](run.n, run.seed)
    torch.manual_seed(run.seed)
    net = network()
    latents, fresh = (torch.Generator().manual_seed(1000 * (1 + run.seed) + k) for k in range(2))
    optimiser = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    loss_of = METHODS[run.method]

    def generated(generator: torch.Generator) -> Tensor:
        return net(torch.randn(run.n, LATENT, generator=generator))

    curve, times = [(0, 0.0, judge(generated, fresh, data))], []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(1, run.steps + 1):
            begin = time.perf_counter()
            loss = loss_of(generated(latents), data)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            times.append(time.perf_counter() - begin)
            if step % run.every == 0 or step == run.steps:
                curve.append((step, sum(times), judge(generated, fresh, data)))
                show(f"{run.name}: step {step}, W2² {curve[-1][2]:.3f}")
    draws = [judge(generated, fresh, data) for _ in range(DRAWS)]
    return {
        "curve": [(step, round(seconds, 3), round(w2, 5)) for step, seconds, w2 in curve],
        "seconds": round(sum(times), 2), "milliseconds_a_step": round(1e3 * statistics.median(times), 2),
        "w2": statistics.mean(draws), "w2_draws": draws, "w2_target": floor(run, data),
        "warnings": sorted({f"{warning.category.__name__}: {warning.message}" for warning in caught})[:5],
        "warnings_count": len(caught), "points": rounded(generated(fresh)),
    }  # fmt: skip


def network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(LATENT, 64), nn.ReLU6(), nn.Linear(64, 128), nn.ReLU6(), nn.Linear(128, 64), nn.ReLU6(),
        nn.Linear(64, 2),
    )  # fmt: skip


def judge(generated: Callable[[torch.Generator], Tensor], fresh: torch.Generator, data: Tensor) -> float:
    with torch.no_grad():
        return exact_w2(generated(fresh), data)


def exact_w2(x: Tensor, y: Tensor) -> float:
    """W2² between two uniform samples of equal size."""
    costs = torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist").square().numpy()
    rows, columns = linear_sum_assignment(costs)
    return float(costs[rows, columns].mean())


def floor(run: Run, data: Tensor) -> float:
    """What a perfect generator would get: W2² between other samples of the target and this one."""
    others = [TARGETS[run.target](run.n, 10_000 + DRAWS * run.seed + k) for k in range(DRAWS)]
    return statistics.mean(exact_w2(other, data) for other in others)


def rounded(points: Tensor) -> list[list[float]]:
    return [[round(number, 3) for number in point] for point in points.tolist()]
