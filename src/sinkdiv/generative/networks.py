"""Encoders and decoders. They see flat images (n, pixels) and codes (n, d); a decoder returns logits."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """A multilayer perceptron with ReLU between layers; `widths` runs from the input to the output."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def make_networks(pixels: int, latent_dim: int, hidden: Sequence[int]) -> tuple[nn.Module, nn.Module]:
    """An encoder (n, pixels) → (n, latent_dim) and its mirror image, a decoder to logits (P19 §5, MNIST)."""
    widths = [pixels, *hidden, latent_dim]
    return mlp(widths), mlp(widths[::-1])
