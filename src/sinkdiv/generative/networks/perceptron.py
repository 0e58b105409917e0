"""Multilayer perceptrons (P19 §5, MNIST)."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """A multilayer perceptron with ReLU between layers; `widths` runs from the input to the output."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def make(
    image_shape: tuple[int, ...], outputs: int, latent_dim: int, hidden: Sequence[int]
) -> tuple[nn.Module, nn.Module]:
    """An encoder with hidden layers of these widths, and a decoder with the same in reverse."""
    pixels = math.prod(image_shape)
    return mlp([pixels, *hidden, outputs]), mlp([latent_dim, *reversed(hidden), pixels])


def default_hidden(image_shape: tuple[int, ...]) -> tuple[int, ...]:
    return (256, 256) if math.prod(image_shape) < 256 else (512, 512)
