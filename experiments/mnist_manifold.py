"""The plane that a Sinkhorn generator makes of MNIST, after few and many iterations (G18 §5.2).

    python experiments/mnist_manifold.py --out experiments/results/mnist_manifold

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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from PIL import Image
from resumable import Record, conditions, load, records, spread, work

import sinkdiv
from sinkdiv.generative.config import GeneratorConfig
from sinkdiv.generative.data import Images, load_images, training_loader
from sinkdiv.generative.features import features_for
from sinkdiv.generative.files import replacing, write_text
from sinkdiv.generative.generator import SinkhornGenerator
from sinkdiv.generative.scores.frechet import frechet_distance
from sinkdiv.generative.seeds import Stream, generator
from sinkdiv.generative.showing import SQUARE_SIDE, square
from sinkdiv.generative.watch import TrainingFailure, Watch
from sinkdiv.generative.watch import spread as squared_spread

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
        for batch in (10, 200)
    ]


def configuration(images: Images, run: Run) -> GeneratorConfig:
    return GeneratorConfig(
        data=images.name, data_fingerprint=images.fingerprint, image_shape=images.shape, binarize=False,
        batch_size=run.batch_size, lr=1e-3, max_epochs=math.ceil(run.steps * run.batch_size / len(images.train)),
        seed=run.seed, prior="uniform", latent_dim=2, network="mlp", hidden=(500, 500), eps=run.eps, value="sharp",
        derivative="auto" if run.iterations is None else "unrolled", iterations=run.iterations or 0,
    )  # fmt: skip


def train(images: Images, folder: Path, run: Run) -> Record:
    model = SinkhornGenerator(configuration(images, run), run.steps)
    watch = Watch(
        lambda module, step: module.draw(64, Stream.EVALUATION, step), squared_spread(images.train), grace=500
    )
    trainer = Trainer(
        accelerator="cpu", max_steps=run.steps, max_epochs=-1, callbacks=[watch], logger=False,
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


def table(found: list[Record]) -> Iterator[str]:
    first = found[0]
    yield "# The square of latents as digits"
    yield ""
    steps = " or ".join(str(each) for each in sorted({record["steps"] for record in found}))
    yield f"Data: {first['data']}. {steps} steps of Adam, from 10⁻³ along half a cosine to zero, which is few: these"
    yield "pictures are to be compared with each other. Debiased sharp loss, |x−y|² of images in [0, 1]^784."
    yield f"Energy distance (½ MMD² in the kernel −|x−y|, × 1000) and FID (MNIST classifier) of {COMPARED} samples to"
    yield f"{COMPARED} held-out images; training images get {first['energy_of_data_x1000']:.1f} and"
    yield f"{first['fid_of_data']:.2f}. `exact`: converged, implicit derivative."
    yield f"Times beside other work: {load(found)}."
    yield "Written by `mnist_manifold.py`."
    yield ""
    yield "| ε | iterations | batch | energy distance | FID | steps not converged | ms a step | s | failure |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for kind in sorted({kind_of(record) for record in found}):
        own = [record for record in found if kind_of(record) == kind]
        cells = [
            f"{kind[0]:g}", str(kind[1]) if kind[1] else "exact", str(kind[2]),
            spread([record["energy_x1000"] for record in own], 1), spread([record["fid"] for record in own], 1),
            spread([record["not_converged"] for record in own], 0),
            spread([record["milliseconds_a_step"] for record in own], 0),
            spread([record["training_seconds"] for record in own], 0),
            "; ".join(record["failure"] for record in own if record["failure"]) or "none",
        ]  # fmt: skip
        yield "| " + " | ".join(cells) + " |"
    yield ""
    yield conditions(found)


def kind_of(record: Record) -> tuple[float, int, int]:
    return record["eps"], record["iterations"] or 0, record["batch_size"]


def parse(arguments: list[str] | None) -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--data", choices=("mnist", "mnist-5k"), default="mnist", help="(mnist)")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, from 0 (1)")
    parser.add_argument("--steps", type=int, default=1000, help="steps of Adam (1000)")
    options = parser.parse_args(arguments)
    for name in ("seeds", "steps"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, not {getattr(options, name)}")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    images = load_images(options.data)
    status = work(planned(options), options.out, functools.partial(train, images, options.out))
    found = records(options.out)
    if found:
        write_text(options.out / "table.md", "\n".join(table(found)) + "\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
