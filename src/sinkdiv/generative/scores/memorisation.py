"""Whether generated images are copies of the images trained on."""

from typing import NamedTuple

import torch
from torch import Tensor

# Distances to this many training images at a time.
ROWS = 1000
QUANTILE = 0.01


class Memorisation(NamedTuple):
    """Nearness of samples to training images, in proportion to that of real images the model has not seen.

    Attributes:
        nearest_training_ratio: the median distance to the nearest training image, over that of held-out images. 1 for
            new real images, 0 for verbatim copies; noise on a copy raises it slowly, blur even less. Above 1 samples
            are strange rather than new. None where half of the held-out images are training images themselves.
        copied_share: how many samples are as near as the nearest 1 % of held-out images. 0.01 for new real images, 1
            for verbatim copies.
    """

    nearest_training_ratio: float | None
    copied_share: float


def memorisation_scores(nearest: Tensor, nearest_of_held_out: Tensor) -> Memorisation:
    """How much nearer samples are to the training images than held-out images are.

    Args:
        nearest: (n,) distances of samples to their nearest training image, `nearest_distances`.
        nearest_of_held_out: (m,) the same of held-out images.
    """
    usual = float(nearest_of_held_out.median())
    near = nearest_of_held_out.quantile(QUANTILE)
    return Memorisation(
        nearest_training_ratio=float(nearest.median()) / usual if usual > 0 else None,
        copied_share=float((nearest <= near).double().mean()),
    )


def nearest_distances(images: Tensor, training: Tensor, own: Tensor | None = None) -> Tensor:
    """(n,) Euclidean distances of `images` (n, d) to the nearest row of `training` (m, d); zero for exact copies.

    Args:
        images: (n, d).
        training: (m, d).
        own: (n,) rows of `training` that are the images themselves and do not count.
    """
    centre = training[:ROWS].mean(0)
    centred = images - centre
    norms = centred.square().sum(1, keepdim=True)
    least, place = torch.full((len(images),), torch.inf), torch.zeros(len(images), dtype=torch.int64)
    for start in range(0, len(training), ROWS):
        block = training[start : start + ROWS] - centre
        squares = (norms + block.square().sum(1)).addmm_(centred, block.T, alpha=-2)
        if own is not None:
            inside = (own >= start) & (own < start + len(block))
            squares[inside, own[inside] - start] = torch.inf
        nearest, position = squares.min(1)
        closer = nearest < least
        least, place = torch.where(closer, nearest, least), torch.where(closer, start + position, place)
    # The expansion of the square finds the nearest row, but its rounding would hide that a copy is exact.
    distances: Tensor = torch.linalg.vector_norm(images - training[place], dim=1)
    return distances
