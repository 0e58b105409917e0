"""Codes of too small a variance under a high-dimensional normal prior (P19 v3, CelebA): which losses make them?

    python experiments/code_variance.py --out experiments/results/code_variance

Codes s·z with z from N(0, I_d) are compared with draws of N(0, I_d), in batches. A good loss is smallest, on average
over batches, at s = 1. For each dimension, batch size and ε the minimising s is found for four losses: the transport
cost itself (`biased`, P19 v1) and debiased (P19 v3), sharp and entropic; and for a fifth, debiased by other batches.
One file a run, written when it ends; a repeated command goes on.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from code_variance_report import write_report
from resumable import records, work
from scipy.optimize import minimize_scalar
from torch import Tensor

import sinkdiv

DIMENSIONS = (2, 10, 64)
BATCHES = (128, 1024)
# ε relative to E|z−z'|² = 2d between draws of the prior; the library's default is a quarter.
RELATIVE_EPS = (0.001, 0.01, 0.05, 0.25, 1.0)
LARGEST_SCALE = 2.0
TOLERANCE = 1e-3


def entropic(x: Tensor, y: Tensor, eps: float) -> Tensor:
    return sinkdiv.transport_cost(x, y, eps=eps, tol=TOLERANCE)


def sharp(x: Tensor, y: Tensor, eps: float) -> Tensor:
    return sinkdiv.transport_cost(x, y, eps=eps, tol=TOLERANCE, value="sharp")


def debiased(x: Tensor, y: Tensor, eps: float, value: str) -> Tensor:
    return sinkdiv.sinkhorn_divergence(x, y, eps=eps, tol=TOLERANCE, value=value)


def independent(x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Half of each batch stands for codes or draws, the other half for independent ones, so no point meets itself."""
    x, other_x = x.chunk(2)
    y, other_y = y.chunk(2)
    return entropic(x, y, eps) - (entropic(x, other_x, eps) + entropic(y, other_y, eps)) / 2


LOSSES = {
    "sharp, biased": sharp,
    "entropic, biased": entropic,
    "sharp, debiased": lambda x, y, eps: debiased(x, y, eps, "sharp"),
    "entropic, debiased": lambda x, y, eps: debiased(x, y, eps, "entropic"),
    "entropic, debiased by other batches": independent,
}


@dataclass(frozen=True)
class Run:
    dimension: int
    batch: int
    relative_eps: float
    loss: str
    repeats: int
    seed: int = 0

    @property
    def name(self) -> str:
        loss = self.loss.replace(", ", "-").replace(" ", "-")
        return f"{self.dimension}-{self.batch}-{self.relative_eps:g}-{loss}"


def best_scale(run: Run) -> dict[str, Any]:
    """The s at which the mean loss over `repeats` batches, always the same ones, is smallest."""
    source = torch.Generator().manual_seed(run.seed)
    draws = torch.randn(2, run.repeats, run.batch, run.dimension, generator=source)
    eps = run.relative_eps * 2 * run.dimension
    loss = LOSSES[run.loss]

    def mean_loss(scale: float) -> float:
        pairs = zip(scale * draws[0], draws[1], strict=True)
        return float(torch.stack([loss(x, y, eps) for x, y in pairs]).mean())

    found = minimize_scalar(mean_loss, bounds=(0, LARGEST_SCALE), method="bounded", options={"xatol": 1e-3})
    # The bounded search never tries its ends: codes that all collapse to one point are the smallest of all.
    collapsed = mean_loss(0.0) <= found.fun
    scale = 0.0 if collapsed else float(found.x)
    return {"scale": scale, "loss_at_scale": mean_loss(scale), "loss_at_one": mean_loss(1.0)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--repeats", type=int, default=16, help="batches over which a loss is averaged")
    parser.add_argument("--dimensions", nargs="+", type=int, default=DIMENSIONS)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    options = parser.parse_args(arguments)
    for name in ("repeats", "dimensions", "batches"):
        value = getattr(options, name)
        if min(value if isinstance(value, list | tuple) else [value]) < (2 if name == "batches" else 1):
            parser.error(f"--{name} {value}: too small")
    torch.set_num_threads(1)
    runs = [
        Run(dimension, batch, eps, loss, options.repeats if batch <= BATCHES[0] else max(1, options.repeats // 4))
        for batch in options.batches
        for dimension in options.dimensions
        for eps in RELATIVE_EPS
        for loss in LOSSES
    ]
    status = work(runs, options.out, best_scale)
    if found := records(options.out):
        write_report(found, options.out)
    sys.exit(status)


if __name__ == "__main__":
    main()
