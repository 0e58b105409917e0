"""An autoencoder whose decoder is a small program: draw a digit, then place it (P19, probabilistic programming).

    python -m experiments.probabilistic_program

makes canvases with digits at random places under salt (`canvases.py`), trains the program with what it draws on S⁹ and
where it lies in R³, under the sum of their two Sinkhorn divergences, and an autoencoder of perceptrons with codes of
the same prior. Then it writes one record a run to records/, and table.md, canvases.png and moved.png. Finished runs are
skipped, interrupted ones go on; all scores are those of digits that were not trained with.
"""

from __future__ import annotations

import argparse
import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.frame import command
from experiments.frame.runs import Record, carried_out
from experiments.frame.training import trained
from experiments.probabilistic_program import canvases
from experiments.probabilistic_program.report import write_report
from experiments.probabilistic_program.scores import score
from sinkdiv.generative.config import AutoencoderConfig
from sinkdiv.generative.models import Autoencoder
from sinkdiv.generative.runs import load_run

# The unit sphere's default ε (a quarter of the mean |z−z'|² of two draws) and P19's weight, for both terms.
SHARED = {
    "prior": "sphere@10*normal@3", "latent_dim": 13, "hidden": (400, 400), "likelihood": "bernoulli",
    "eps": 0.5, "beta": 100.0,
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A run of the table."""

    title: str
    settings: dict[str, Any]


ROWS = {
    "program": Row("program", {"network": "spatial-transformer"}),
    "perceptrons": Row("perceptrons, same prior", {"network": "mlp"}),
    "no-latent-loss": Row("program, no latent loss", {"network": "spatial-transformer", "method": "ae"}),
}


@dataclass(frozen=True)
class Run:
    row: str
    digits: str
    seed: int
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.digits}-{self.row}-{self.seed}"


def planned(options: argparse.Namespace) -> list[Run]:
    # A record is read elsewhere, where the folder of the runs means nothing.
    given = {"data": f"{options.digits}.npz", "max_epochs": options.max_epochs}
    return [
        Run(name, options.digits, seed, own_settings(ROWS[name]) | given | {"seed": seed})
        for seed in options.seeds
        for name in ROWS
        if name in options.only
    ]


def own_settings(row: Row) -> dict[str, Any]:
    settings = SHARED | row.settings
    if settings.get("method", "sae") != "sae":
        del settings["eps"], settings["beta"]
    return settings


def train(folder: Path, run: Run) -> Record:
    known, others = canvases.of(run.digits)
    data = folder / run.settings["data"]
    if not data.exists():
        canvases.write(data, known)
    trained_run = trained(folder / run.name, AutoencoderConfig, run.settings | {"data": str(data)})
    model = load_run(trained_run).model
    assert isinstance(model, Autoencoder)
    metrics = trained_run.load_metrics()
    metrics["data"]["name"] = data.name
    return {"metrics": metrics, "scores": score(model, known, others)}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = command.parser(__doc__, "probabilistic_program")
    command.add_trainer(parser, "program", max_epochs=20)
    parser.add_argument("--digits", choices=canvases.COPIES, default="mnist-5k", help="what lies on the canvases")
    command.add_choice(parser, "only", ROWS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    command.add_threads(parser)
    return command.parsed(parser, arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    titles = {name: row.title for name, row in ROWS.items()}
    report = functools.partial(write_report, titles=titles, runs=options.runs, folder=options.out)
    train_in = functools.partial(train, options.runs)
    sys.exit(carried_out(planned(options), options.out / "records", train_in, report))


if __name__ == "__main__":
    main()
