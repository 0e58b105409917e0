"""Codes of too small a variance under a high-dimensional normal prior (P19 v3, CelebA): which losses make them?

    python -m experiments.code_variance

Codes s·z with z from N(0, I_d) are compared with draws of N(0, I_d), in batches. A good loss is smallest, on average
over batches, at s = 1. For each dimension, batch size and ε the minimising s is found for four losses: the transport
cost itself (`biased`, P19 v1) and debiased (P19 v3), sharp and entropic; and for a fifth, debiased by other batches.
One file a run, written when it ends; a repeated command goes on.
"""

from __future__ import annotations

import argparse
import functools
import sys
from dataclasses import dataclass

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

import sinkdiv
from experiments.code_variance.report import write_report
from experiments.frame import command
from experiments.frame.runs import Record, carried_out

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


def best_scale(run: Run) -> Record:
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


def planned(options: argparse.Namespace) -> list[Run]:
    return [
        Run(dimension, batch, eps, loss, options.repeats if batch <= BATCHES[0] else max(1, options.repeats // 4))
        for batch in options.batches
        for dimension in options.dimensions
        for eps in RELATIVE_EPS
        for loss in LOSSES
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = command.parser(__doc__, "code_variance")
    parser.add_argument("--repeats", type=int, default=16, help="batches over which a loss is averaged (16)")
    parser.add_argument("--dimensions", nargs="+", type=int, default=DIMENSIONS)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    command.add_threads(parser)
    options = command.parsed(parser, arguments, repeats=1, dimensions=1, batches=2)
    report = functools.partial(write_report, folder=options.out)
    sys.exit(carried_out(planned(options), options.out / "records", best_scale, report))


if __name__ == "__main__":
    main()
