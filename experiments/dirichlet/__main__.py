"""Sinkhorn autoencoders with Dirichlet priors: codes on a simplex, digits that gather at its vertices (P19).

    python -m experiments.dirichlet

trains P19's two cases, Dir(½) on 10 weights and Dir(⅕) on 16, and writes one record a run to records/, then table.md,
vertices.png and classes.svg. Finished runs are skipped, interrupted ones go on; scores are those of held-out digits.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

from experiments.dirichlet.report import write_report
from experiments.frame import command
from experiments.frame.runs import Record, carried_out
from experiments.frame.scores import certified, votes
from experiments.frame.training import trained
from sinkdiv.generative.config import AutoencoderConfig
from sinkdiv.generative.data import Images
from sinkdiv.generative.models import Autoencoder
from sinkdiv.generative.runs import load_run, load_run_images
from sinkdiv.generative.seeds import Stream

ROWS = {
    "half-10": {"prior": "dirichlet:0.5", "latent_dim": 10},
    "fifth-16": {"prior": "dirichlet:0.2", "latent_dim": 16},
}
DATA = ("mnist-5k", "mnist", "fashion-mnist")
#: Training codes that are looked at, and draws from the prior.
KNOWN = 5000


@dataclass(frozen=True)
class Run:
    row: str
    data: str
    seed: int
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.data}-{self.row}-{self.seed}"


def planned(options: argparse.Namespace) -> list[Run]:
    given = {"data": options.data, "max_epochs": options.max_epochs}
    return [
        Run(name, options.data, seed, ROWS[name] | given | {"seed": seed})
        for seed in options.seeds
        for name in ROWS
        if name in options.only
    ]


def train(folder: Path, run: Run) -> Record:
    trained_run = trained(folder / run.name, AutoencoderConfig, run.settings)
    model = load_run(trained_run).model
    assert isinstance(model, Autoencoder)
    return {
        "run": run.name, "eps": model.config.eps, "beta": model.config.beta, "metrics": trained_run.load_metrics(),
        "scores": score(model, load_run_images(model.config)),
    }  # fmt: skip


@torch.no_grad()
def score(model: Autoencoder, images: Images) -> dict[str, Any]:
    """Plain numbers for a record.

    - `divergence` of held-out codes from the prior at the training ε, with its interval, and that of two sets of draws
    - `largest`, the mean of a code's largest weight, and that of draws: how much gathers at vertices
    - `purity`, the share of held-out digits that have the class which most training digits at their vertex have;
      `information`, normalised, of vertex and class; `votes` of the nearest training codes
    - `shares` (d, classes): of all held-out digits, those of each class at each vertex
    """
    labels, known_labels = images.held_out_labels, images.train_labels[:KNOWN]
    codes, known = model.encode(images.held_out), model.encode(images.train[:KNOWN])
    draws, more = (model.draw_codes(len(codes), Stream.EVALUATION, k) for k in (10, 11))
    vertices, known_vertices = codes.argmax(1), known.argmax(1)
    named = class_of_vertex(known_vertices, known_labels)
    guesses = torch.tensor([named.get(int(vertex), -1) for vertex in vertices])
    shares = torch.zeros(codes.shape[1], int(labels.max()) + 1)
    shares.index_put_((vertices, labels), torch.full((len(codes),), 1 / len(codes)), accumulate=True)
    return {
        "divergence": certified(codes, draws, model.config.eps),
        "divergence_of_draws": certified(more, draws, model.config.eps),
        "largest": float(codes.max(1).values.mean()),
        "largest_of_draws": float(draws.max(1).values.mean()),
        "purity": float((guesses == labels).float().mean()),
        "information": float(normalized_mutual_info_score(labels.numpy(), vertices.numpy())),
        "votes": votes(known, known_labels, codes, labels),
        "shares": [[round(share, 4) for share in row] for row in shares.tolist()],
    }


def class_of_vertex(vertices: Tensor, labels: Tensor) -> dict[int, int]:
    """The commonest of the labels (n,) at each of the vertices (n,)."""
    found: dict[int, Counter[int]] = {}
    for vertex, label in zip(vertices.tolist(), labels.tolist(), strict=True):
        found.setdefault(vertex, Counter())[label] += 1
    return {vertex: counter.most_common(1)[0][0] for vertex, counter in found.items()}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = command.parser(__doc__, "dirichlet")
    command.add_trainer(parser, "dirichlet", max_epochs=40)
    parser.add_argument("--data", choices=DATA, default="mnist-5k")
    command.add_choice(parser, "only", ROWS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    command.add_threads(parser)
    return command.parsed(parser, arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    report = functools.partial(write_report, order=list(ROWS), runs=options.runs, folder=options.out)
    train_in = functools.partial(train, options.runs)
    sys.exit(carried_out(planned(options), options.out / "records", train_in, report))


if __name__ == "__main__":
    main()
