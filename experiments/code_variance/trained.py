"""The variance of codes that autoencoders end with under N(0, I_64), and what it does to samples (P19 v3, CelebA).

    python -m experiments.code_variance.trained

trains an autoencoder on MNIST for each loss that `experiments.code_variance` looked at without one, and writes one
record a run to trained/, then trained.md and trained.png. Finished runs are skipped, interrupted ones go on.
"""

from __future__ import annotations

import functools
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.frame import command
from experiments.frame.runs import Record, carried_out
from experiments.frame.tables import table, write_page
from experiments.frame.training import trained
from sinkdiv.generative.config import AutoencoderConfig
from sinkdiv.generative.files import write_image
from sinkdiv.generative.models import Autoencoder
from sinkdiv.generative.report import figures
from sinkdiv.generative.runs import RunFolder, load_run, load_run_images
from sinkdiv.generative.seeds import Stream

DIMENSION = 64
SHARED = {
    "data": "mnist", "binarize": True, "prior": "normal", "latent_dim": DIMENSION, "hidden": (256, 256),
    "method": "sae", "beta": 10.0,
}  # fmt: skip
# ε = 32 is the library's default, a quarter of E|z−z'|² = 128; biased losses collapse there, so they get a small one.
ROWS: dict[str, dict[str, Any]] = {
    "sharp, biased, ε = 1.28": {"value": "sharp", "debias": "none", "eps": 1.28},
    "sharp, biased, ε = 32": {"value": "sharp", "debias": "none", "eps": 32.0},
    "sharp, debiased, ε = 32": {"value": "sharp", "debias": "self", "eps": 32.0},
    "entropic, debiased, ε = 32": {"value": "entropic", "debias": "self", "eps": 32.0},
    "entropic, debiased by other halves, ε = 32": {"value": "entropic", "debias": "independent", "eps": 32.0},
    "entropic, debiased, β = 100, ε = 32": {"debias": "self", "beta": 100.0, "eps": 32.0},
    "entropic, debiased by other halves, β = 100, ε = 32": {"debias": "independent", "beta": 100.0, "eps": 32.0},
}
SHOWN = 10
# A principal direction of less variance carries next to nothing of a code.
USED = 0.1


@dataclass(frozen=True)
class Run:
    row: str
    max_epochs: int

    @property
    def name(self) -> str:
        return file_name(self.row)


def file_name(row: str) -> str:
    return row.replace(", ε = ", "-eps-").replace(", β = ", "-beta-").replace(", ", "-").replace(" ", "-")


def train(folder: Path, run: Run) -> Record:
    """The scale and the principal variances of codes of held-out images, 1 under the prior, and the run's scores."""
    given = SHARED | ROWS[run.row] | {"max_epochs": run.max_epochs}
    finished = trained(folder / run.name, AutoencoderConfig, given)
    saved = load_run(finished)
    assert isinstance(saved.model, Autoencoder)
    codes = saved.model.encode(load_run_images(saved.config).held_out)
    variances = torch.linalg.eigvalsh(torch.cov(codes.T)).flip(0)
    return {
        "code_scale": float(codes.square().mean().sqrt()),
        "principal_variances": variances.tolist(),
        "metrics": finished.load_metrics() or {},
    }


def lines(records: dict[str, Record]) -> Iterator[str]:
    yield "Scale: root mean square of the code coordinates of test images, 1 under the prior. Directions: principal"
    yield f"directions of the codes with a variance above {USED:g}, and the median of their variances; under the prior"
    yield f"there are {DIMENSION}, of variance 1. Latent MMD × 1000 (WAE's"
    yield "kernels, unbiased), reconstruction of test images in nats, FID of 10,000 samples in the MNIST classifier's"
    yield "features. β = 10 where nothing is said. One seed. Written by `experiments.code_variance.trained` from the"
    yield "files in `trained/`."
    yield ""
    head = ["loss", "scale", "directions", "their variance", "latent MMD", "reconstruction", "FID", "recall", "epochs"]
    yield from table(head, ([row, *cells(records.get(row))] for row in ROWS))
    seconds = sum(record["metrics"]["seconds"]["training"] for record in records.values())
    versions = ", ".join(f"{k} {v}" for k, v in next(iter(records.values()))["metrics"]["versions"].items())
    yield ""
    yield f"{len(records)} runs, {seconds / 60:.0f} minutes of training on one thread of a shared machine; {versions}."


def cells(record: Record | None) -> list[str]:
    if record is None:
        return ["missing", *([""] * 7)]
    scores = record["metrics"]["scores"]["model"]
    keys = (("latent_mmd_imq_x1000", 1), ("reconstruction_nats_per_image", 1), ("fid", 2), ("recall", 2))
    used = [variance for variance in record["principal_variances"] if variance > USED]
    typical = f"{statistics.median(used):.2f}" if used else "–"
    figures = [f"{scores[key]:.{digits}f}" for key, digits in keys]
    return [f"{record['code_scale']:.2f}", str(len(used)), typical, *figures, str(record["metrics"]["epochs"])]


def write_report(found: list[Record], folder: Path, runs: Path) -> None:
    records = {record["row"]: record for record in found}
    title = f"Autoencoders with N(0, I) in {DIMENSION} dimensions"
    write_page(folder / "trained.md", title, lines(records))
    at_hand = [runs / file_name(row) for row in ROWS if row in records and (runs / file_name(row)).exists()]
    if at_hand:
        models = [load_run(RunFolder(root)).model for root in at_hand]
        samples = torch.cat([model.draw(SHOWN, Stream.SAMPLES, 0) for model in models])
        write_image(folder / "trained.png", figures.grid(samples, models[0].config.image_shape, SHOWN, zoom=1))


def main(arguments: list[str] | None = None) -> None:
    parser = command.parser(__doc__, "code_variance")
    command.add_trainer(parser, "variance", max_epochs=5)
    command.add_threads(parser)
    options = command.parsed(parser, arguments)
    report = functools.partial(write_report, folder=options.out, runs=options.runs)
    runs = [Run(row, options.max_epochs) for row in ROWS]
    sys.exit(carried_out(runs, options.out / "trained", functools.partial(train, options.runs), report))


if __name__ == "__main__":
    main()
