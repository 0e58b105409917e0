"""Generators of CIFAR-10 images under a learned cost, from ε = 10 to the MMD (G18 §5.3).

    python experiments/cifar10.py --train-zip cifar10-train.zip --runs runs/cifar10 --out experiments/results/cifar10
    python experiments/cifar10.py --train-zip … --runs … --out … --full

The first command is a reduced run for one core: some of the images, narrow networks, few steps, which show that it all
works and how large the costs are, not how good a generator becomes. --full, for a GPU, trains on all images at full
width, some 50,000 steps of the generator for each ε, in float32. Both write one record a run to records/, then table.md
and samples.png, each in one step. Interrupted runs go on where they were when the command is repeated: after Ctrl-C at
the next step, else after the last whole epoch (450 batches of the full run).
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from resumable import Record, conditions, load, records, work
from training_runs import trained

from sinkdiv.generative import figures
from sinkdiv.generative.config import ACCELERATORS, GeneratorConfig
from sinkdiv.generative.critic import features
from sinkdiv.generative.files import replacing, write_image, write_text
from sinkdiv.generative.generator import SinkhornGenerator
from sinkdiv.generative.opening import load_run_images
from sinkdiv.generative.processes import gpu_count, uses_gpu
from sinkdiv.generative.runs import RunFolder, load_run
from sinkdiv.generative.seeds import Stream
from sinkdiv.generative.watch import TrainingFailure

#: Inception scores of G18, of 20,000 samples.
PUBLISHED = {10.0: "3.11 ± .03", 100.0: "3.09 ± .04", 1000.0: "4.14 ± .06", math.inf: "4.04 ± .07"}
SHOWN, COMPARED = 16, 200


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


def picture(runs: list[Run], options: argparse.Namespace) -> None:
    rows = []
    for run in runs:
        folder = RunFolder(options.runs / run.name)
        if folder.metrics.exists():
            rows.append(load_run(folder).model.draw(SHOWN, Stream.SAMPLES, 0))
    if rows:
        write_image(options.out / "samples.png", figures.grid(torch.cat(rows), (3, 32, 32), SHOWN, zoom=1))


def table(found: list[Record], options: argparse.Namespace) -> Iterator[str]:
    first = next((record for record in found if "scores" in record), None)
    yield "# CIFAR-10 under a learned cost"
    yield ""
    if first is None:
        yield "No run has come to its first epoch's end."
        return
    moves = first["steps"] // (1 + first["critic_steps"])
    data, compared = first["scores"]["training_data"], (first["features"] or {}).get("images", 0)
    yield f"{first['training_images']} training images of CIFAR-10, DCGAN networks of width {first['width']}, batches"
    yield f"of {first['batch_size']}, {first['epochs']} epochs: {moves} steps of the generator and"
    yield f"{first['critic_steps']} times as many of the critic. RMSprop from 5·10⁻⁵ along half a cosine to zero, the"
    yield "critic clipped to ±0.01, the sharp debiased loss, the cost |f(x)−f(y)|. The numbers of critic steps and of"
    yield "features (16), the batch and the latents, 100 normal ones, are ours."
    if not options.full:
        yield ""
        yield "**A reduced run.** It shows that training works from end to end under every ε and how large ε is beside"
        yield "the learned cost. It cannot show which ε is best: after so few steps at this step size none of the"
        yield "generators makes objects, and the scores below must not be compared with the paper's, which are of other"
        yield "networks, other features and of trainings to their end."
    yield ""
    yield "FID and KID compare EfficientNet-Lite0's features of samples with those of held-out images; the ImageNet"
    yield "score is exp E KL(p(class|x) ‖ p(class)) of its 1,000 classes, *not* the inception score;"
    yield f"{compared} images each, and FID is only sound with more images than its 1,280 features."
    yield "`cost` is the mean learned cost between a sample and an image at the end: where ε is far above it the plan"
    yield "is nearly the product of the marginals, and the loss nearly the MMD."
    yield f"Times beside other work: {load(found)}."
    yield ""
    yield "| ε | cost | energy ×1000 | FID | KID ×1000 | ImageNet score | s | failure | inception score in G18 |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for record in sorted(found, key=lambda record: record["eps"]):
        eps, scores = record["eps"], record.get("scores", {}).get("model")
        cells = [_shown(scores), f"{record['seconds']:.0f}"] if scores else ["– | – | – | –", "–"]
        cost = f"{record['mean_cost']:.3g}" if scores else "–"
        failed = record["failed"] or "none"
        yield f"| {eps:g} | {cost} | {' | '.join(cells)} | {failed} | {PUBLISHED.get(eps, '–')} |"
    yield f"| untrained | – | {_shown(first['scores']['untrained'])} | – | – | – |"
    yield f"| real images | – | {_shown(data)} | – | – | – |"
    yield ""
    yield "![Samples](samples.png)"
    yield ""
    yield f"*{SHOWN} samples a row; ε from above as in the table.*"
    yield ""
    yield conditions(found)


def _shown(scores: dict[str, Any]) -> str:
    names = (("sample_mmd_energy_x1000", 0), ("fid", 2), ("kid_x1000", 1), ("classifier_score", 2))
    return " | ".join(f"{scores[name]:.{digits}f}" if name in scores else "–" for name, digits in names)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train-zip", type=Path, required=True, help="CIFAR-10's training images, a folder a class")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--eps", type=float, nargs="+", default=sorted(PUBLISHED), help="(10 100 1000 inf)")
    parser.add_argument("--images", type=int, default=5000, help="of the reduced run, a tenth held out (5000)")
    parser.add_argument("--epochs", type=int, help="(6 of the reduced run, 670 of the full one)")
    parser.add_argument("--full", action="store_true", help="all images, width 64, 670 epochs: for a GPU")
    parser.add_argument("--accelerator", choices=ACCELERATORS, default="auto", help="(auto: a GPU if there is one)")
    options = parser.parse_args(arguments)
    if not options.train_zip.exists():
        parser.error(f"--train-zip {options.train_zip}: no such file")
    if options.accelerator == "gpu" and not gpu_count():
        parser.error("--accelerator gpu: PyTorch finds no GPU here")
    for name, least in (("images", 200), ("epochs", 1)):
        if getattr(options, name) is not None and getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}, not {getattr(options, name)}")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if not uses_gpu(options.accelerator):
        torch.set_num_threads(1)
    runs = planned(options)
    status = work(runs, options.out, functools.partial(train, options))
    found = records(options.out)
    if found:
        picture(runs, options)
        write_text(options.out / "table.md", "\n".join(table(found, options)) + "\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
