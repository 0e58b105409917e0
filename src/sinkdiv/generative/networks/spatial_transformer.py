"""P19's probabilistic program: a code says what the digit is and where, and a spatial transformer puts it there.

A code is (what, where). `what` has all dimensions but the last three, and a perceptron draws a digit of it on a small
square. `where`, the last three, is (scale, shift right, shift down): standard normal numbers, sent through their
cumulative distribution function, so that the prior N(0, I₃) means a uniform place and a uniform logarithm of the scale.

The encoder runs the program backwards: a perceptron looks at the whole canvas and says where, the transformer brings
that place back onto the square, and a second perceptron says what is there. It need not know each digit at each place.

The transformer is that of Jaderberg et al. 2015 without rotation. Then bilinear interpolation is separable: it is the
product of the square with one matrix from the left and one from the right. Unlike gathering pixels by index, that
has the same gradient, to the last bit, each time it is computed.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sinkdiv.generative.errors import InputError
from sinkdiv.generative.networks.base import Architecture, AutoencoderArchitecture
from sinkdiv.generative.networks.perceptron import mlp
from sinkdiv.generative.tensors import at_least_float32
from sinkdiv.transforms import full_precision

SQUARE = 28
WHERE = 3
# A digit of MNIST fills 20 of its 28 pixels: at this scale and at the farthest shift it still touches no edge.
LARGEST_SCALE = math.sqrt(2)
# Probabilities are kept this far from 0 and 1, where logits end.
MARGIN = 1e-6
FIRST_BACKGROUND = 0.01


def encoder_and_decoder(
    image_shape: tuple[int, ...], outputs: int, latent_dim: int, hidden: Sequence[int]
) -> tuple[nn.Module, nn.Module]:
    """The program as decoder, and its inverse as encoder, whose perceptrons have `hidden` widths each.

    Raises:
        InputError: when images are not larger than the square, or codes have no dimension for `what`.
    """
    _, height, width = image_shape
    if min(height, width) <= SQUARE:
        raise InputError(
            f"--network spatial-transformer: images of {height}×{width}; expected more than {SQUARE}×{SQUARE}"
        )
    if latent_dim <= WHERE:
        raise InputError(
            f"--latent-dim {latent_dim}: expected at least {WHERE + 1} with --network spatial-transformer; "
            f"the last {WHERE} say where"
        )
    return PlacingEncoder(image_shape, outputs, latent_dim, hidden), PlacingDecoder(image_shape, latent_dim, hidden)


def default_hidden(image_shape: tuple[int, ...]) -> tuple[int, ...]:
    return (400, 400)


class PlacingDecoder(nn.Module):
    """Codes (n, latent_dim) to the logits (n, pixels) of a digit, placed, under salt: white pixels that lie anywhere.

    A pixel is white if the digit makes it so or the salt does: with probability 1 − (1 − digit)(1 − background), where
    the rate of the background is one learned number.
    """

    def __init__(self, image_shape: tuple[int, ...], latent_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        channels, *canvas = image_shape
        self.canvas = tuple(canvas)
        self.drawing = nn.Sequential(
            mlp([latent_dim - WHERE, *reversed(hidden), channels * SQUARE**2]),
            nn.Unflatten(1, (channels, SQUARE, SQUARE)),
            nn.Sigmoid(),
        )
        self.background_logit = nn.Parameter(torch.logit(torch.tensor(FIRST_BACKGROUND)))

    def forward(self, codes: Tensor) -> Tensor:
        what, where = codes[:, :-WHERE], codes[:, -WHERE:]
        # Half precision would round 1 − 1e-6 to 1, and places to whole pixels.
        digit = place(
            at_least_float32(self.drawing(what)), *placement(at_least_float32(where), self.canvas), self.canvas
        )
        white = 1 - (1 - digit) * torch.sigmoid(-self.background_logit)
        return torch.logit(white, eps=MARGIN).flatten(1)


class PlacingEncoder(nn.Module):
    """Canvases (n, pixels) to outputs (n, outputs), of which those from latent_dim − 3 to latent_dim say where."""

    def __init__(self, image_shape: tuple[int, ...], outputs: int, latent_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        channels, *canvas = image_shape
        self.image_shape, self.canvas, self.what = image_shape, tuple(canvas), latent_dim - WHERE
        self.seeking = mlp([math.prod(image_shape), *hidden, WHERE])
        self.looking = mlp([channels * SQUARE**2, *hidden, outputs - WHERE])

    def forward(self, images: Tensor) -> Tensor:
        where = at_least_float32(self.seeking(images))
        scales, shifts = placement(where, self.canvas)
        canvases = at_least_float32(images).unflatten(1, self.image_shape)
        square = place(canvases, 1 / scales, -shifts / scales[:, None], (SQUARE, SQUARE))
        seen = self.looking(square.flatten(1))
        return torch.cat([seen[:, : self.what], where, seen[:, self.what :]], dim=1)


def placement(where: Tensor, canvas: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Normal numbers (n, 3) to scales (n,) in [1/√2, √2] and shifts (n, 2), right and down, in pixels of the canvas.

    The farthest shift puts a square of scale 1 at the canvas's edge. Zeros mean scale 1 in the middle.
    """
    uniform = torch.erf(where / math.sqrt(2))
    height, width = canvas
    farthest = uniform.new_tensor([(width - SQUARE) / 2, (height - SQUARE) / 2])
    return torch.exp(math.log(LARGEST_SCALE) * uniform[:, 0]), farthest * uniform[:, 1:]


def place(images: Tensor, scales: Tensor, shifts: Tensor, canvas: Sequence[int]) -> Tensor:
    """Images (n, c, h, w), enlarged and moved, on a canvas that is zero elsewhere: (n, c, height, width).

    Args:
        scales: (n,) factors of size.
        shifts: (n, 2), right and down from the canvas's middle, in its pixels.
        canvas: (height, width).
    """
    height, width = canvas
    down = _interpolation(height, images.shape[2], scales, shifts[:, 1])
    right = _interpolation(width, images.shape[3], scales, shifts[:, 0])
    with full_precision(images):
        return down[:, None] @ images @ right[:, None].mT


def _interpolation(length: int, side: int, scales: Tensor, shifts: Tensor) -> Tensor:
    """Weights (n, length, side) of an image's pixels in those of the canvas, along one axis."""
    pixels = torch.arange(length, dtype=scales.dtype, device=scales.device) - (length - 1) / 2
    sources = (pixels - shifts[:, None]) / scales[:, None] + (side - 1) / 2
    columns = torch.arange(side, dtype=scales.dtype, device=scales.device)
    return (1 - (sources[:, :, None] - columns).abs()).clamp(min=0)


SPATIAL_TRANSFORMER = Architecture(autoencoder=AutoencoderArchitecture(encoder_and_decoder, default_hidden))
