"""The losses of training steps, timed among the networks that they train. Each section returns plain data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.frame.book import Section
from benchmarks.frame.rows import Row
from sinkdiv.generative.config import AutoencoderConfig
from sinkdiv.generative.data import Images, load_images
from sinkdiv.generative.generator_loss import GeneratorLoss, GeneratorLossSettings
from sinkdiv.generative.latent_losses import (
    EnergyLoss,
    HungarianLoss,
    LatentLoss,
    LatentSinkhornSettings,
    MMDLoss,
    SinkhornLoss,
    SlicedLoss,
)
from sinkdiv.generative.models import Autoencoder
from sinkdiv.generative.networks.perceptron import mlp
from sinkdiv.generative.seeds import Stream, generator
from sinkdiv.generative.settings import settle

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


def as_trained(**chosen: Any) -> LatentLoss:
    loss = GeneratorLoss(GeneratorLossSettings(eps=G18_EPS, **chosen))
    return lambda samples, data, _: loss(samples, data)


G18_LOSSES: dict[str, LatentLoss] = {
    "default: debiased sharp, implicit": as_trained(),
    "debiased entropic": as_trained(value="entropic"),
    "G18: debiased sharp, 10 unrolled": as_trained(derivative="unrolled", iterations=10),
    ROUNDED: SinkhornLoss(LatentSinkhornSettings(eps=G18_EPS, value="sharp", rounding=True)),
    "Hungarian": HungarianLoss(),
    "MMD": MMDLoss(100.0),
    "energy distance": EnergyLoss(),
    "sliced": SlicedLoss(),
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


@dataclass(frozen=True)
class Context:
    """What all sections share."""

    out: Path
    sizes: Sizes


# One step: of the number given, the seconds of the loss and of the whole.
Step = Callable[[int], tuple[float, float]]


def autoencoder_step(chosen: dict[str, Any], images: Images) -> Step:
    model = Autoencoder(settle(AutoencoderConfig, {"prior": "sphere", "batch_size": 128} | chosen, images))
    optimizer = torch.optim.Adam(model.parameters(), **STEP_SETTINGS)

    def step(number: int) -> tuple[float, float]:
        rows = torch.randint(len(images.train), (128,), generator=generator(0, Stream.ORDER, number))
        begin = time.process_time()
        optimizer.zero_grad()
        batch = images.train[rows]
        outputs = model.encoder(batch)
        ends = outputs.detach().requires_grad_()
        loss_begin = time.process_time()
        _, latent = model.method.codes_and_loss(ends, lambda stream: generator(0, stream, number))
        (model.config.beta * latent).backward()
        loss_seconds = time.process_time() - loss_begin
        reconstruction = model.reconstruction_loss(model.method.encode(outputs), batch)
        torch.autograd.backward([reconstruction, outputs], [None, ends.grad])
        optimizer.step()
        return loss_seconds, time.process_time() - begin

    return step


def generator_step(loss: LatentLoss, images: Tensor) -> Step:
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
        loss(ends, data, source).backward()
        loss_seconds = time.process_time() - loss_begin
        made.backward(ends.grad)
        optimizer.step()
        return loss_seconds, time.process_time() - begin

    return step


def in_turns(steps: dict[str, Step], warm_up: int, count: int) -> list[Row]:
    """A row for each loss: seconds of the loss and of the step, one of each for every turn."""
    rows = {name: {"loss": name, "loss_seconds": [], "step_seconds": []} for name in steps}
    for number in range(warm_up + count):
        for name, step in steps.items():
            loss, whole = step(number)
            if number >= warm_up:
                rows[name]["loss_seconds"].append(round(loss, 6))
                rows[name]["step_seconds"].append(round(whole, 6))
    return list(rows.values())


def perceptron(context: Context) -> dict[str, Any]:
    images = load_images("mnist-5k")
    common = {"hidden": (512, 512), "latent_dim": 10}
    steps = {name: autoencoder_step(common | chosen, images) for name, chosen in P19_LOSSES.items()}
    return {"rows": in_turns(steps, context.sizes.warm_up, context.sizes.steps)}


def convolutional(context: Context) -> dict[str, Any]:
    sizes, shape = context.sizes, (3, 32, 32)
    pixels = torch.rand(1000, math.prod(shape), generator=generator(0, Stream.SPLIT))
    images = Images("noise", shape, pixels, pixels[:0], None, None, "")
    common = {"network": "conv", "hidden": sizes.widths, "latent_dim": 64, "beta": 10.0}
    steps = {name: autoencoder_step(common | P19_LOSSES[name], images) for name in IN_LONG_STEPS}
    widths = "-".join(map(str, sizes.widths))
    title = f"P19, CIFAR-10's size: WAE's convolutions, {widths} channels, 128 images of 3 × 32 × 32, S⁶³"
    return {"title": title, "rows": in_turns(steps, 1, sizes.convolutional_steps)}


def generated(context: Context) -> dict[str, Any]:
    images = load_images("mnist-5k").train
    steps = {name: generator_step(loss, images) for name, loss in G18_LOSSES.items()}
    return {"rows": in_turns(steps, context.sizes.warm_up, context.sizes.steps)}


_GENERATED = f"G18, MNIST: perceptron 2-500-500-784, 200 images against 200 in their 784 dimensions, ε = {G18_EPS:g}"
SECTIONS: dict[str, Section] = {
    "perceptron": ("P19, MNIST: perceptron 784-512-512-10 and its mirror, 128 images, sphere prior", perceptron),
    "convolutional": ("P19, CIFAR-10's size: WAE's convolutions", convolutional),
    "generated": (_GENERATED, generated),
}
