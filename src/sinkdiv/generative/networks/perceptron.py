"""Multilayer perceptrons (P19 §5, MNIST)."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from sinkdiv.generative.networks.base import Architecture, AutoencoderArchitecture, GeneratorArchitecture


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """A multilayer perceptron with ReLU between layers; `widths` runs from the input to the output."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def encoder_and_decoder(
    image_shape: tuple[int, ...], outputs: int, latent_dim: int, hidden: Sequence[int]
) -> tuple[nn.Module, nn.Module]:
    """An encoder with hidden layers of these widths, and a decoder with the same in reverse."""
    pixels = math.prod(image_shape)
    return mlp([pixels, *hidden, outputs]), mlp([latent_dim, *reversed(hidden), pixels])


def default_hidden(image_shape: tuple[int, ...]) -> tuple[int, ...]:
    return (256, 256) if math.prod(image_shape) < 256 else (512, 512)


def generator(image_shape: tuple[int, ...], latent_dim: int, hidden: Sequence[int], width: int) -> nn.Module:
    """Latents (n, latent_dim) to flat images (n, pixels) in [0, 1]; it has no `width`."""
    return nn.Sequential(*mlp([latent_dim, *hidden, math.prod(image_shape)]), nn.Sigmoid())


def critic(
    image_shape: tuple[int, ...], features: int, hidden: Sequence[int], width: int, batch_norm: bool
) -> nn.Module:
    """Flat images (n, pixels) to features (n, features), the generator's mirror image; without normalisation."""
    return mlp([math.prod(image_shape), *reversed(hidden), features])


MLP = Architecture(
    AutoencoderArchitecture(encoder_and_decoder, default_hidden), GeneratorArchitecture(generator, critic)
)
