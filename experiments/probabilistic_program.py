"""An autoencoder whose decoder is a small program: draw a digit, then place it (P19, probabilistic programming).

    python experiments/probabilistic_program.py --runs runs/program --out experiments/results/probabilistic_program

makes canvases with digits at random places under salt (`canvases.py`), trains the program with what it draws on S⁹ and
where it lies in R³, under the sum of their two Sinkhorn divergences, and an autoencoder of perceptrons with codes of
the same prior. Then it writes one record a run to records/, and table.md, canvases.png and moved.png. Finished runs are
skipped, interrupted ones go on; all scores are those of digits that were not trained with.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import canvases
import torch
from program_report import write_report
from program_scores import score
from resumable import machine, records, say, until_interrupted
from training_runs import trained

from sinkdiv.generative.autoencoder import Autoencoder
from sinkdiv.generative.config import AutoencoderConfig
from sinkdiv.generative.files import write_text
from sinkdiv.generative.runs import load_run

# The unit sphere's default ε (a quarter of its spread) and P19's weight, for both terms.
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
    "program": Row("program", {"network": "placed"}),
    "perceptrons": Row("perceptrons, same prior", {"network": "mlp"}),
    "no-latent-loss": Row("program, no latent loss", {"network": "placed", "method": "ae"}),
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs and their data")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--digits", choices=canvases.COPIES, default="mnist-5k", help="what lies on the canvases")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--max-epochs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch and of sinkdiv")
    options = parser.parse_args(arguments)
    for name in ("max_epochs", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, not {getattr(options, name)}")
    return options


def work(options: argparse.Namespace) -> None:
    known, others = canvases.of(options.digits)
    data = options.runs / f"{options.digits}.npz"
    if not data.exists():
        canvases.write(data, known)
    runs = [(name, seed) for seed in options.seeds for name in ROWS if name in options.only]
    for count, (name, seed) in enumerate(runs, 1):
        run = f"{options.digits}-{name}-{seed}"
        say(f"{count} of {len(runs)}: {run}")
        given = own_settings(ROWS[name]) | {"data": str(data), "seed": seed, "max_epochs": options.max_epochs}
        folder = trained(options.runs / run, AutoencoderConfig, given)
        model = load_run(folder).model
        assert isinstance(model, Autoencoder)
        metrics = folder.load_metrics()
        # A record is read elsewhere, where the folder of the runs means nothing.
        metrics["data"]["name"] = data.name
        record = {
            "row": name, "digits": options.digits, "seed": seed, "settings": given | {"data": data.name},
            "machine": machine(), "metrics": metrics, "scores": score(model, known, others),
        }  # fmt: skip
        write_text(options.out / "records" / f"{run}.json", json.dumps(record, indent=1) + "\n")


def own_settings(row: Row) -> dict[str, Any]:
    settings = SHARED | row.settings
    if settings.get("method", "sae") != "sae":
        del settings["eps"], settings["beta"]
    return settings


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    status = until_interrupted(functools.partial(work, options))
    if found := records(options.out):
        write_report(found, {name: row.title for name, row in ROWS.items()}, options.runs, options.out)
    sys.exit(status)


if __name__ == "__main__":
    main()
