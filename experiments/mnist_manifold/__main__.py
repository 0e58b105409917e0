"""The plane that a Sinkhorn generator makes of MNIST, after few and many iterations (G18 §5.2).

    python -m experiments.mnist_manifold --steps 100

Latents are uniform on the square [0, 1]², the generator is an MLP with two hidden layers of 500, the cost |x−y|² of
images in [0, 1]^784, the optimiser Adam. A picture shows the images of a 20 × 20 grid of the square. One file a run
is written to records/ and one picture, then table.md. A run counts steps, not epochs, so that batches of 10 and of 200
are trained alike.
"""

from __future__ import annotations

import argparse
import functools
import logging
import math
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from PIL import Image

import sinkdiv
from experiments.frame import command
from experiments.frame.runs import Record, carried_out
from experiments.mnist_manifold.report import write_report
from sinkdiv.generative.config import GeneratorConfig
from sinkdiv.generative.data import Images, load_images, training_loader
from sinkdiv.generative.failures import FailureDetector, TrainingFailure
from sinkdiv.generative.features import features_for
from sinkdiv.generative.files import replacing
from sinkdiv.generative.models import SinkhornGenerator
from sinkdiv.generative.report.sections import SQUARE_SIDE, square
from sinkdiv.generative.scores.frechet import frechet_distance
from sinkdiv.generative.seeds import Stream, generator
from sinkdiv.generative.settings import settle
from sinkdiv.generative.training import draw_samples

COMPARED = 2000


@dataclass(frozen=True)
class Run:
    data: str
    eps: float
    iterations: int | None
    """None: converged, with the implicit derivative."""
    batch_size: int
    seed: int
    steps: int

    @property
    def name(self) -> str:
        end = "exact" if self.iterations is None else f"{self.iterations}-iterations"
        return f"eps-{self.eps:g}-{end}-batch-{self.batch_size}-{self.seed}"


def planned(options: argparse.Namespace) -> list[Run]:
    # The one that takes longest last.
    kinds = [(1.0, None), (0.1, None), (1.0, 10), (0.1, 100)]
    return [
        Run(options.data, eps, iterations, batch, seed, options.steps)
        for seed in range(options.seeds)
        for eps, iterations in kinds
        if options.only in (None, "exact" if iterations is None else "unrolled")
        for batch in (10, 200)
    ]


def configuration(images: Images, run: Run) -> GeneratorConfig:
    chosen = {
        "data": images.name, "batch_size": run.batch_size, "lr": 1e-3, "seed": run.seed,
        "max_epochs": math.ceil(run.steps * run.batch_size / len(images.train)),
        "prior": "uniform", "latent_dim": 2, "network": "mlp", "hidden": (500, 500), "eps": run.eps, "value": "sharp",
    }  # fmt: skip
    if run.iterations is not None:
        chosen |= {"derivative": "unrolled", "iterations": run.iterations}
    return settle(GeneratorConfig, chosen, images)


def train(images: Images, folder: Path, run: Run) -> Record:
    model = SinkhornGenerator(configuration(images, run), run.steps)
    failures = FailureDetector(draw_samples, images.mean_squared_distance, grace=500)
    trainer = Trainer(
        accelerator="cpu", max_steps=run.steps, max_epochs=-1, callbacks=[failures], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    failure, begin = None, time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", sinkdiv.ConvergenceWarning)
        try:
            trainer.fit(model, training_loader(images, run.batch_size, run.seed))
        except TrainingFailure as found:
            failure = f"step {trainer.global_step}: {found.reason}"
    seconds = time.perf_counter() - begin
    picture(model, images.shape, folder / f"{run.name}.png")
    unfinished = sum(issubclass(warning.category, sinkdiv.ConvergenceWarning) for warning in caught)
    return {
        "failure": failure, "training_seconds": round(seconds, 1),
        "milliseconds_a_step": round(1e3 * seconds / max(1, trainer.global_step), 1),
        "not_converged": unfinished, **scores(model, images),
    }  # fmt: skip


@torch.no_grad()
def scores(model: SinkhornGenerator, images: Images) -> dict[str, float]:
    """Energy distance and FID to held-out images, and what training images get."""
    chosen = torch.randperm(len(images.held_out), generator=generator(0, Stream.EVALUATION))[:COMPARED]
    held_out, samples = images.held_out[chosen], model.draw(COMPARED, Stream.SAMPLES)
    found = {}
    extractor = features_for(images.name, images.shape)
    assert extractor is not None, "MNIST has a classifier"
    reference = extractor(held_out).features
    for name, points in (("", samples), ("_of_data", images.train[:COMPARED])):
        found[f"energy{name}_x1000"] = 1e3 * float(sinkdiv.mmd(points, held_out, kernel="energy"))
        found[f"fid{name}"] = frechet_distance(extractor(points).features, reference)
    return found


@torch.no_grad()
def picture(model: SinkhornGenerator, shape: tuple[int, ...], path: Path) -> None:
    """The images of a grid over the square of latents."""
    side, (_, height, width) = SQUARE_SIDE, shape
    tiles = square(model).reshape(side, side, height, width).permute(0, 2, 1, 3).reshape(side * height, side * width)
    with replacing(path) as temporary:
        Image.fromarray((255 * (1 - tiles)).round().byte().numpy(), mode="L").save(temporary, optimize=True)


def main(arguments: list[str] | None = None) -> None:
    parser = command.parser(__doc__, "mnist_manifold")
    parser.add_argument("--data", choices=("mnist", "mnist-5k"), default="mnist", help="(mnist)")
    parser.add_argument("--only", choices=("exact", "unrolled"), help="(both)")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, from 0 (1)")
    parser.add_argument("--steps", type=int, default=1000, help="steps of Adam (1000)")
    command.add_threads(parser)
    options = command.parsed(parser, arguments, seeds=1, steps=1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    do = functools.partial(train, load_images(options.data), options.out)
    report = functools.partial(write_report, folder=options.out, compared=COMPARED)
    sys.exit(carried_out(planned(options), options.out / "records", do, report))


if __name__ == "__main__":
    main()
