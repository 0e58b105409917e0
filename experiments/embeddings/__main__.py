"""Encoders without decoders: data sent onto a distribution by the Sinkhorn divergence alone (P19).

    python -m experiments.embeddings

trains an encoder for each case and seed on S_ε(codes, draws from the prior) and nothing else, and writes one file a run
to records/, then table.md and embeddings.png from these files. A run whose file exists is skipped.

Nothing in the loss asks for neighbours to stay neighbours: what is kept of them, the encoder keeps by being continuous.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.datasets import make_swiss_roll
from torch import Tensor, nn

import sinkdiv
from experiments.embeddings.report import write_report
from experiments.frame import command
from experiments.frame.runs import carried_out, show
from experiments.frame.scores import certified, neighbourhoods, votes
from sinkdiv.generative.data import load_images
from sinkdiv.generative.networks.perceptron import mlp
from sinkdiv.generative.priors import make_prior
from sinkdiv.generative.seeds import Stream, generator

LEARNING_RATE = 1e-3
TOLERANCE = 1e-2
#: Points of a case that are measured and drawn, none of them trained with, and as many draws from the prior.
MEASURED = 1000


@dataclass(frozen=True)
class Points:
    """Points (n, p) with what is known of them.

    `true` (n, q) are the coordinates whose neighbours should be kept: the rolled-up sheet's own, or the points
    themselves. `colours` (n,) are positions along the roll, or classes.
    """

    points: Tensor
    true: Tensor
    colours: Tensor


@dataclass(frozen=True)
class Case:
    """Data, and the prior, dimension and ε that P19 names for it.

    `load` gives the points to train with and those to measure.
    """

    title: str
    load: Callable[[int], tuple[Points, Points]]
    prior: str
    dim: int
    eps: float
    hidden: tuple[int, ...]


@dataclass(frozen=True)
class Run:
    """What determines a run."""

    case: str
    seed: int
    steps: int
    batch: int

    @property
    def name(self) -> str:
        return f"{self.case}-{self.seed}"


def swiss_roll(seed: int) -> tuple[Points, Points]:
    """A sheet rolled up in space: 4,000 points to train with."""
    return _sheet(4000, 2 * seed), _sheet(MEASURED, 2 * seed + 1)


def _sheet(count: int, seed: int) -> Points:
    rolled, angle = (torch.tensor(each, dtype=torch.float32) for each in make_swiss_roll(count, random_state=seed))
    # The arc length of the spiral r = angle, in which the sheet is flat.
    length = (angle * (1 + angle.square()).sqrt() + torch.asinh(angle)) / 2
    # Centre and radius of this roll, the same for every sample.
    return Points((rolled - torch.tensor([0.0, 10.5, 0.0])) / 10, torch.stack([length, rolled[:, 1]], 1), angle)


def digits(seed: int) -> tuple[Points, Points]:
    """4,000 digits to train with, and 1,000 others."""
    images = load_images("mnist-5k")
    pixels = torch.cat([images.train, images.held_out])
    labels = torch.cat([images.train_labels, images.held_out_labels])
    order = torch.randperm(len(pixels), generator=generator(seed, Stream.SPLIT))
    parts = order[MEASURED:], order[:MEASURED]
    return tuple(Points(pixels[rows], pixels[rows], labels[rows]) for rows in parts)


CASES = {
    "square": Case("Swiss roll to the unit square", swiss_roll, "uniform", 2, 1e-3, (128, 128, 128)),
    "sphere": Case("Swiss roll to the sphere S²", swiss_roll, "sphere", 3, 1e-3, (128, 128, 128)),
    "digits": Case("MNIST to the sphere S⁹", digits, "sphere", 10, 0.5, (500, 500)),
}


def train(run: Run) -> dict[str, Any]:
    """Train an encoder and measure it, before and after."""
    case, prior = CASES[run.case], make_prior(CASES[run.case].prior)
    known, others = case.load(run.seed)
    encoder = network(run, known.points.shape[1])
    scores = {"before": measure(run, encoder, known, others)}
    optimiser = torch.optim.Adam(encoder.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, run.steps)
    begin = time.perf_counter()
    for step in range(1, run.steps + 1):
        rows = torch.randint(len(known.points), (run.batch,), generator=generator(run.seed, Stream.ORDER, step))
        draws = prior.sample(run.batch, case.dim, generator(run.seed, Stream.PRIOR, step))
        codes = prior.project(encoder(known.points[rows]))
        loss = sinkdiv.sinkhorn_divergence(codes, draws, eps=case.eps, tol=TOLERANCE)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 10 == 0:
            show(f"{run.name}: step {step}, S_ε {float(loss.detach()):.3g}")
    seconds = time.perf_counter() - begin
    scores["after"] = measure(run, encoder, known, others)
    return {
        "prior": case.prior, "dim": case.dim, "eps": case.eps, "hidden": case.hidden,
        "training_seconds": round(seconds, 1),
        "colours": [round(float(colour), 2) for colour in others.colours], **scores,
    }  # fmt: skip


def network(run: Run, inputs: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator(run.seed, Stream.NETWORKS).initial_seed())
        return mlp([inputs, *CASES[run.case].hidden, CASES[run.case].dim])


@torch.no_grad()
def measure(run: Run, encoder: nn.Module, known: Points, others: Points) -> dict[str, Any]:
    """Of points not trained with: how near their codes are to the prior, and what they keep of neighbourhoods."""
    case, prior = CASES[run.case], make_prior(CASES[run.case].prior)
    draws, more = (prior.sample(MEASURED, case.dim, generator(run.seed, Stream.EVALUATION, k)) for k in range(2))
    codes = prior.project(encoder(others.points))
    found = {
        "divergence": certified(codes, draws, case.eps),
        "divergence_of_draws": certified(more, draws, case.eps),
        **neighbourhoods(others.true, codes),
        "codes": [[round(number, 4) for number in code] for code in codes.tolist()],
    }
    if not others.colours.is_floating_point():
        found["votes"] = votes(prior.project(encoder(known.points)), known.colours, codes, others.colours)
        found["votes_of_pixels"] = votes(known.points, known.colours, others.points, others.colours)
    return found


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = command.parser(__doc__, "embeddings")
    command.add_choice(parser, "only", CASES)
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0 (3)")
    parser.add_argument("--steps", type=int, default=1000, help="steps of Adam (1000)")
    parser.add_argument("--batch", type=int, default=400, help="points in a step, and draws from the prior (400)")
    command.add_threads(parser)
    return command.parsed(parser, arguments, steps=1, seeds=1, batch=2)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    runs = [Run(case, seed, options.steps, options.batch) for seed in range(options.seeds) for case in options.only]
    titles = {name: case.title for name, case in CASES.items()}
    report = functools.partial(write_report, titles=titles, folder=options.out)
    sys.exit(carried_out(runs, options.out / "records", train, report))


if __name__ == "__main__":
    main()
