"""Encoders and decoders. They see flat images (n, pixels) and codes (n, d); a decoder returns logits.

One architecture a file; a new one is a file and a line in `NETWORKS`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from sinkdiv.generative.errors import InputError
from sinkdiv.generative.networks import convolutional, perceptron, placed

Pair = tuple[nn.Module, nn.Module]


@dataclass(frozen=True)
class Architecture:
    """How a pair of networks is made.

    Attributes:
        make: (image_shape, outputs, latent_dim, hidden) to an encoder (n, pixels) → (n, outputs) and a decoder
            (n, latent_dim) → (n, pixels); raises `InputError` where these cannot go together.
        default_hidden: image_shape to widths that suit images of this size.
    """

    make: Callable[[tuple[int, ...], int, int, Sequence[int]], Pair]
    default_hidden: Callable[[tuple[int, ...]], tuple[int, ...]]


NETWORKS = {
    "mlp": Architecture(perceptron.make, perceptron.default_hidden),
    "conv": Architecture(convolutional.make, convolutional.default_hidden),
    "placed": Architecture(placed.make, placed.default_hidden),
}


def make_networks(
    name: str, image_shape: tuple[int, ...], outputs: int, latent_dim: int, hidden: Sequence[int]
) -> Pair:
    """An encoder (n, pixels) → (n, outputs) and a decoder (n, latent_dim) → logits (n, pixels), freshly initialised.

    Args:
        name: a key of `NETWORKS`.
        image_shape: (channels, height, width).
        outputs: numbers that the encoder gives for an image: those that a prior or a posterior makes codes of.
        latent_dim: dimension d of the codes.
        hidden: widths of the encoder's hidden layers (for `conv`, channels); the decoder mirrors them.

    Raises:
        InputError: for an unknown name, and where the options cannot go together, with a line naming the option.
    """
    return _architecture(name).make(image_shape, outputs, latent_dim, hidden)


def default_hidden(name: str, image_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Widths to start from for the networks called `name` on images of this shape; raises like `make_networks`."""
    return _architecture(name).default_hidden(image_shape)


def _architecture(name: str) -> Architecture:
    if name not in NETWORKS:
        raise InputError(f"--network {name}: unknown network; choose one of {', '.join(NETWORKS)}")
    return NETWORKS[name]
