"""What share of a training step is its Sinkhorn loss, at the papers' batch sizes, on one thread?

    OMP_NUM_THREADS=1 python benchmarks/training_step.py --out benchmarks/results

writes training_step.json and training_step.md.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import machine, quartiles, say
from report import where
from torch import Tensor, nn

from sinkdiv.generative.autoencoder import Autoencoder
from sinkdiv.generative.config import AutoencoderConfig
from sinkdiv.generative.data import load_images
from sinkdiv.generative.generator_loss import GeneratorLoss
from sinkdiv.generative.matching import (
    EnergyMatching,
    HungarianMatching,
    Matching,
    MMDMatching,
    SinkhornMatching,
    SlicedMatching,
)
from sinkdiv.generative.networks.perceptron import mlp
from sinkdiv.generative.opening import autoencoder_settings
from sinkdiv.generative.seeds import Stream, generator

INTRODUCTION = """\
Written by `python benchmarks/training_step.py` from `training_step.json`. Every loss trains a model of its own, all
from the same weights, on the same batches, in turns of one step. A loss's part of the step is drawing from the prior,
the loss, and its gradient with respect to the encoder's outputs (or the generator's images); the rest is forward and
backward through the networks, reconstruction, and the optimiser. Times are the processor's, on one thread, so that
other programs' turns do not count; but where others were running ("load"), caches and memory were shared with them."""
DEFAULT, ROUNDED = "default: debiased entropic", "debiased sharp, rounded"
# P19's regularisation is that of the sphere.
P19_LOSSES: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "debiased sharp, implicit": {"value": "sharp"},
    "P19 v1: sharp, 50 unrolled": {
        "value": "sharp", "debias": "none", "derivative": "unrolled", "iterations": 50, "eps": 0.1,
    },
    f"P19 v3: {ROUNDED}": {"value": "sharp", "rounding": True, "eps": 0.1},
    "entropic, debiased by halves": {"debias": "independent"},
    "Hungarian (HAE)": {"method": "hae"},
    "MMD (WAE)": {"method": "wae"},
    "sliced (SWAE)": {"method": "swae"},
    "Gaussian W2 (W2GAE)": {"method": "w2gae"},
    "energy distance": {"method": "energy"},
}  # fmt: skip
# Among networks that take seconds, where no loss matters, and keep half a gigabyte for each.
IN_LONG_STEPS = (DEFAULT, "P19 v1: sharp, 50 unrolled", f"P19 v3: {ROUNDED}")
# Mean |x−y|² of two digits is about 100; G18 takes ε = 1 with 10 iterations.
G18_EPS = 1.0


def as_trained(**options: Any) -> Matching:
    loss = GeneratorLoss(G18_EPS, **options)
    return lambda samples, data, _: loss(samples, data)


G18_LOSSES: dict[str, Matching] = {
    "default: debiased sharp, implicit": as_trained(),
    "debiased entropic": as_trained(value="entropic"),
    "G18: debiased sharp, 10 unrolled": as_trained(derivative="unrolled", iterations=10),
    ROUNDED: SinkhornMatching(G18_EPS, value="sharp", rounding=True),
    "Hungarian": HungarianMatching(),
    "MMD": MMDMatching(100.0),
    "energy distance": EnergyMatching(),
    "sliced": SlicedMatching(),
}
STEP_SETTINGS = {"lr": 1e-3, "fused": True}


@dataclass(frozen=True)
class Sizes:
    """Steps that are timed, those before (one with convolutional networks), and the widths of these networks."""

    warm_up: int
    steps: int
    convolutional_steps: int
    widths: tuple[int, ...]


FULL = Sizes(20, 100, 4, (128, 256, 512, 1024))
QUICK = Sizes(1, 2, 1, (8, 16))

# One step: of the number given, the seconds of the loss and of the whole.
Step = Callable[[int], tuple[float, float]]


def autoencoder_step(settings: dict[str, Any], images: Tensor, shape: tuple[int, ...]) -> Step:
    given = {"data": "mnist-5k", "prior": "sphere", "batch_size": 128} | settings
    chosen = autoencoder_settings(given, shape)
    model = Autoencoder(AutoencoderConfig(**chosen, data_fingerprint="", image_shape=shape))
    optimizer = torch.optim.Adam(model.parameters(), **STEP_SETTINGS)

    def step(number: int) -> tuple[float, float]:
        rows = torch.randint(len(images), (128,), generator=generator(0, Stream.ORDER, number))
        begin = time.process_time()
        optimizer.zero_grad()
        batch = images[rows]
        outputs = model.encoder(batch)
        ends = outputs.detach().requires_grad_()
        loss_begin = time.process_time()
        _, latent = model.method.train(ends, lambda stream: generator(0, stream, number))
        (model.config.beta * latent).backward()
        loss_seconds = time.process_time() - loss_begin
        reconstruction = model.reconstruction_loss(model.method.encode(outputs), batch)
        torch.autograd.backward([reconstruction, outputs], [None, ends.grad])
        optimizer.step()
        return loss_seconds, time.process_time() - begin

    return step


def generator_step(matching: Matching, images: Tensor) -> Step:
    torch.manual_seed(0)
    network = nn.Sequential(mlp([2, 500, 500, images.shape[1]]), nn.Sigmoid())
    optimizer = torch.optim.Adam(network.parameters(), **STEP_SETTINGS)

    def step(number: int) -> tuple[float, float]:
        source = generator(0, Stream.PRIOR, number)
        begin = time.process_time()
        optimizer.zero_grad()
        data = images[torch.randint(len(images), (200,), generator=source)]
        made = network(torch.rand(200, 2, generator=source))
        ends = made.detach().requires_grad_()
        loss_begin = time.process_time()
        matching(ends, data, source).backward()
        loss_seconds = time.process_time() - loss_begin
        made.backward(ends.grad)
        optimizer.step()
        return loss_seconds, time.process_time() - begin

    return step


def in_turns(steps: dict[str, Step], warm_up: int, count: int) -> list[dict[str, Any]]:
    """A row for each loss: seconds of the loss and of the step, one of each for every turn."""
    rows = {name: {"loss": name, "loss_seconds": [], "step_seconds": []} for name in steps}
    for number in range(warm_up + count):
        for name, step in steps.items():
            loss, whole = step(number)
            if number >= warm_up:
                rows[name]["loss_seconds"].append(round(loss, 6))
                rows[name]["step_seconds"].append(round(whole, 6))
    return list(rows.values())


def perceptron(sizes: Sizes) -> dict[str, Any]:
    images = load_images("mnist-5k")
    common = {"hidden": (512, 512), "latent_dim": 10}
    steps = {
        name: autoencoder_step(common | settings, images.train, images.shape) for name, settings in P19_LOSSES.items()
    }
    title = "P19, MNIST: perceptron 784-512-512-10 and its mirror, 128 images, sphere prior"
    return {"title": title, "rows": in_turns(steps, sizes.warm_up, sizes.steps)}


def convolutional(sizes: Sizes) -> dict[str, Any]:
    shape = (3, 32, 32)
    images = torch.rand(1000, math.prod(shape), generator=generator(0, Stream.SPLIT))
    common = {"network": "conv", "hidden": sizes.widths, "latent_dim": 64, "beta": 10.0}
    steps = {name: autoencoder_step(common | P19_LOSSES[name], images, shape) for name in IN_LONG_STEPS}
    widths = "-".join(map(str, sizes.widths))
    title = f"P19, CIFAR-10's size: WAE's convolutions, {widths} channels, 128 images of 3 × 32 × 32, S⁶³"
    return {"title": title, "rows": in_turns(steps, 1, sizes.convolutional_steps)}


def generated(sizes: Sizes) -> dict[str, Any]:
    images = load_images("mnist-5k").train
    steps = {name: generator_step(matching, images) for name, matching in G18_LOSSES.items()}
    title = f"G18, MNIST: perceptron 2-500-500-784, 200 images against 200 in their 784 dimensions, ε = {G18_EPS:g}"
    return {"title": title, "rows": in_turns(steps, sizes.warm_up, sizes.steps)}


SECTIONS = {"perceptron": perceptron, "convolutional": convolutional, "generated": generated}


def markdown(results: dict[str, Any]) -> str:
    lines = ["# The loss's share of a training step", "", *INTRODUCTION.splitlines(), ""]
    for section in results["sections"].values():
        lines += [f"## {section['title']}", ""]
        lines += ["| loss | loss, ms [quartiles] | step, ms [quartiles] | share of the step |", "|---|---|---|---|"]
        lines += [f"| {' | '.join([row['loss'], *cells(row)])} |" for row in section["rows"]]
        lines += ["", f"{len(section['rows'][0]['step_seconds'])} steps each.", "", *where(section), ""]
    return "\n".join(lines).rstrip() + "\n"


def cells(row: dict[str, Any]) -> list[str]:
    loss, step = (
        "{1} [{0}–{2}]".format(*(milliseconds(value) for value in quartiles(row[key])))
        for key in ("loss_seconds", "step_seconds")
    )
    return [loss, step, f"{100 * share(row):.2g} %"]


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.0f}" if seconds >= 1 else f"{1e3 * seconds:.3g}"


def share(row: dict[str, Any]) -> float:
    """The median, over steps, of the loss's part."""
    parts = [loss / whole for loss, whole in zip(row["loss_seconds"], row["step_seconds"], strict=True)]
    return quartiles(parts)[1]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the results")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--quick", action="store_true", help="few steps that show that all works, and measure nothing")
    options = parser.parse_args(arguments)
    sizes, size = (QUICK, "quick") if options.quick else (FULL, "full")
    torch.set_num_threads(1)
    file = options.out / "training_step.json"
    before = json.loads(file.read_text())["sections"] if file.exists() else {}
    found = dict(before)
    for name in options.only.split(","):
        say(name)
        head = {"size": size, "machine": machine()}
        found[name] = head | SECTIONS[name](sizes)
    results = {"sections": {name: found[name] for name in SECTIONS if name in found}}
    options.out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=1) + "\n")
    (options.out / "training_step.md").write_text(markdown(results))


if __name__ == "__main__":
    main()
