"""Generators of CIFAR-10 images under a learned cost, from ε = 10 to the MMD (G18 §5.3).

    python -m experiments.cifar10 --train-zip cifar10-train.zip
    python -m experiments.cifar10 --train-zip cifar10-train.zip --full

The first command is a reduced run for one core: some of the images, narrow networks, few steps, which show that it all
works and how large the costs are, not how good a generator becomes. --full, for a GPU, trains on all images at full
width, some 50,000 steps of the generator for each ε, in float32. Both write one record a run to records/, then table.md
and samples.png, each in one step. Interrupted runs go on where they were when the command is repeated: after Ctrl-C at
the next step, else after the last whole epoch (450 batches of the full run).
"""

from __future__ import annotations

import argparse
import functools
import sys
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.cifar10.report import PUBLISHED, write_report
from experiments.frame import command
from experiments.frame.runs import Record, carried_out
from experiments.frame.training import trained
from sinkdiv.generative.config import GeneratorConfig
from sinkdiv.generative.config.run import ACCELERATORS
from sinkdiv.generative.critic import features
from sinkdiv.generative.failures import TrainingFailure
from sinkdiv.generative.files import replacing
from sinkdiv.generative.launcher import gpu_count, uses_gpu
from sinkdiv.generative.models import SinkhornGenerator
from sinkdiv.generative.runs import RunFolder, load_run, load_run_images
from sinkdiv.generative.seeds import Stream

COMPARED = 200


@dataclass(frozen=True)
class Run:
    eps: float
    images: int
    width: int
    epochs: int
    seed: int = 0
    batch_size: int = 100
    critic_steps: int = 5
    latent_dim: int = 100

    @property
    def name(self) -> str:
        return f"eps-{self.eps:g}-{self.images}-images-{self.seed}"

    @property
    def settings(self) -> dict[str, Any]:
        """G18's, as far as its text gives them: learned cost, weights clipped to ±.01, RMSprop at 5·10⁻⁵."""
        own = {key: value for key, value in asdict(self).items() if key not in ("images", "epochs")}
        return own | {
            "max_epochs": self.epochs, "network": "dcgan", "cost": "learned", "value": "sharp", "critic_bound": "clip",
            "optimizer": "rmsprop", "lr": 5e-5, "prior": "normal",
        }  # fmt: skip


def planned(options: argparse.Namespace) -> list[Run]:
    images, width, epochs = (50_000, 64, 670) if options.full else (options.images, 16, 6)
    return [Run(eps=eps, images=images, width=width, epochs=options.epochs or epochs) for eps in options.eps]


def some_images(source: Path, count: int, folder: Path) -> Path:
    """A zip with `count` of the images of `source`, evenly chosen from its sorted names, so from all classes."""
    with zipfile.ZipFile(source) as whole:
        names = sorted(name for name in whole.namelist() if not name.endswith("/"))
        if count >= len(names):
            return source
        path = folder / f"cifar10-{count}.zip"
        if not path.exists():
            with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as part:
                for k in range(count):
                    name = names[k * len(names) // count]
                    part.writestr(zipfile.ZipInfo(name), whole.read(name))
    return path


def train(options: argparse.Namespace, run: Run) -> Record:
    given = run.settings | {"data": str(some_images(options.train_zip, run.images, options.runs).resolve())}
    try:
        folder = trained(options.runs / run.name, GeneratorConfig, given | {"accelerator": options.accelerator})
    except TrainingFailure as failure:
        return {"failed": failure.reason}
    metrics = folder.load_metrics() or {}
    kept = {name: metrics[name] for name in ("failed", "steps", "features", "scores")}
    return kept | {"training_images": metrics["data"]["training_images"], **costs(folder)}


@torch.no_grad()
def costs(folder: RunFolder) -> dict[str, float]:
    """How large the learned cost is, so that ε can be judged by it: its mean over pairs of a sample and an image."""
    model = load_run(folder).model
    assert isinstance(model, SinkhornGenerator)
    assert model.critic is not None
    images = load_run_images(folder.load_config()).held_out[:COMPARED]
    model.critic.train()  # its normalisation, as in training, over the batch
    seen = features(model.critic, model.draw(len(images), Stream.EVALUATION), images)
    return {"mean_cost": float(torch.cdist(*seen).mean())}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = command.parser(__doc__, "cifar10")
    parser.add_argument("--train-zip", type=Path, required=True, help="CIFAR-10's training images, a folder a class")
    parser.add_argument("--runs", type=Path, default=Path("runs/cifar10"), help="folder of the runs (runs/cifar10)")
    parser.add_argument("--eps", type=float, nargs="+", default=sorted(PUBLISHED), help="(10 100 1000 inf)")
    parser.add_argument("--images", type=int, default=5000, help="of the reduced run, a tenth held out (5000)")
    parser.add_argument("--epochs", type=int, help="(6 of the reduced run, 670 of the full one)")
    parser.add_argument("--full", action="store_true", help="all images, width 64, 670 epochs: for a GPU")
    parser.add_argument("--accelerator", choices=ACCELERATORS, default="auto", help="(auto: a GPU if there is one)")
    options = command.parsed(parser, arguments, images=200, epochs=1)
    if not options.train_zip.exists():
        parser.error(f"--train-zip {options.train_zip}: no such file")
    if options.accelerator == "gpu" and not gpu_count():
        parser.error("--accelerator gpu: PyTorch finds no GPU here")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if not uses_gpu(options.accelerator):
        torch.set_num_threads(1)
    runs = planned(options)
    folders = [options.runs / run.name for run in runs]
    report = functools.partial(write_report, runs=folders, folder=options.out, full=options.full)
    sys.exit(carried_out(runs, options.out / "records", functools.partial(train, options), report))


if __name__ == "__main__":
    main()
