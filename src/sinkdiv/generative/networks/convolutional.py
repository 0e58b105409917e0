"""The convolutional networks of WAE (Tolstikhin et al. 2018, appendix), which P19 uses for CIFAR-10 and CelebA.

The encoder halves the image once for each width, with a strided convolution, batch norm and ReLU; a dense layer ends
it. The decoder begins with a dense layer onto the image halved once less, and doubles it back with transposed
convolutions; a last convolution at full size makes the channels. WAE's widths are 128, 256, 512, 1024.

While training, batch norm takes mean and variance over the batch, so that an image's code depends a little on its
neighbours; in evaluation it takes the running ones, and an image has one code. Several GPUs normalise over the whole
batch (training converts the layers to synchronised ones), several CPU processes each over its own share.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from sinkdiv.generative.errors import InputError
from sinkdiv.generative.networks.base import Architecture, AutoencoderArchitecture

# A multiple of the stride, so that a transposed convolution covers all pixels equally often (no checkerboard).
KERNEL = 4
SMALLEST_MAP = 4
DEFAULT_WIDTHS = (64, 128, 256, 512)


def encoder_and_decoder(
    image_shape: tuple[int, ...], outputs: int, latent_dim: int, hidden: Sequence[int]
) -> tuple[nn.Module, nn.Module]:
    """An encoder with a strided convolution for each width in `hidden`, and its mirror image.

    Raises:
        InputError: when the image cannot be halved as often as `hidden` has widths.
    """
    _, height, width = image_shape
    most = math.floor(math.log2(min(height, width)))
    if len(hidden) > most:
        raise InputError(
            f"--hidden {','.join(map(str, hidden))}: each width halves the image, and {height}×{width} pixels "
            f"can be halved {most} times; expected at most {most} widths"
        )
    return _encoder(image_shape, outputs, hidden), _decoder(image_shape, latent_dim, hidden)


def default_hidden(image_shape: tuple[int, ...]) -> tuple[int, ...]:
    """As many widths as leave a map about `SMALLEST_MAP` pixels wide."""
    halvings = round(math.log2(min(image_shape[1:]) / SMALLEST_MAP))
    return DEFAULT_WIDTHS[: max(1, halvings)]


def _encoder(image_shape: tuple[int, ...], outputs: int, hidden: Sequence[int]) -> nn.Sequential:
    channels, height, width = image_shape
    layers: list[nn.Module] = [nn.Unflatten(1, image_shape)]
    for before, after in pairwise([channels, *hidden]):
        layers += [nn.Conv2d(before, after, KERNEL, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    left = hidden[-1] * (height >> len(hidden)) * (width >> len(hidden))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(left, outputs))


def _decoder(image_shape: tuple[int, ...], latent_dim: int, hidden: Sequence[int]) -> nn.Sequential:
    channels, height, width = image_shape
    doublings = len(hidden) - 1
    start = (hidden[-1], height >> doublings, width >> doublings)
    layers: list[nn.Module] = [nn.Linear(latent_dim, math.prod(start)), nn.ReLU(), nn.Unflatten(1, start)]
    for level, (before, after) in zip(range(doublings, 0, -1), pairwise(reversed(hidden)), strict=True):
        # Halving an odd size drops half a pixel, which doubling has to add again.
        odd = ((height >> level - 1) % 2, (width >> level - 1) % 2)
        double = nn.ConvTranspose2d(before, after, KERNEL, stride=2, padding=1, output_padding=odd, bias=False)
        layers += [double, nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(hidden[0], channels, 3, padding=1), nn.Flatten())


CONV = Architecture(autoencoder=AutoencoderArchitecture(encoder_and_decoder, default_hidden))
