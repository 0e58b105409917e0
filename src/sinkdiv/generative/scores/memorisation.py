"""Whether generated images are copies of the images trained on."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sinkdiv.generative.scores.subject import Reference, Score, Subject

# Distances to this many images at a time.
ROWS = 1000
QUANTILE = 0.01


class Memorisation(NamedTuple):
    """How much nearer to training images samples are than real images that the model has not seen.

    Attributes:
        nearest_training_ratio: the median `relative_distances` of samples, over that of held-out images. 1 for new
            images, real or not; 0 for verbatim copies, and rising slowly with noise or blur on them. None where half of
            the images on one side have a twin in the data, so that there is no ratio.
        copied_share: the share of samples whose relative distance is among the least 1 % of held-out images or less.
            0.01 for new real images, 1 for copies, verbatim or with a little noise.
    """

    nearest_training_ratio: float | None
    copied_share: float


def memorisation_scores(samples: Tensor, held_out: Tensor) -> Memorisation:
    """Compare the relative distances of samples (n,) with those of held-out images (m,)."""
    median, usual = float(samples.median()), float(held_out.median())
    defined = usual > 0 and math.isfinite(usual) and math.isfinite(median)
    return Memorisation(
        nearest_training_ratio=median / usual if defined else None,
        copied_share=float((samples <= held_out.quantile(QUANTILE)).double().mean()),
    )


def relative_distances(to_training: Tensor, to_held_out: Tensor) -> Tensor:
    """(n,) distances to the nearest training image, over those to the nearest held-out image.

    The distance to training images alone would take smooth images for copies: they are near to every image. One of
    the same law as the data and independent of both sets has them in the same proportion as a new real image. 1 where
    both are zero.
    """
    return torch.where((to_training == 0) & (to_held_out == 0), 1, to_training / to_held_out)


def nearest_distances(images: Tensor, others: Tensor, own: Tensor | None = None) -> Tensor:
    """(n,) Euclidean distances of `images` (n, d) to the nearest row of `others` (m, d); zero for exact copies.

    Args:
        images: (n, d).
        others: (m, d).
        own: (n,) rows of `others` that are the images themselves and do not count; m > 1 then.
    """
    centre = others[:ROWS].mean(0)
    centred = images - centre
    norms = centred.square().sum(1, keepdim=True)
    least, place = torch.full((len(images),), torch.inf), torch.zeros(len(images), dtype=torch.int64)
    for start in range(0, len(others), ROWS):
        block = others[start : start + ROWS] - centre
        squares = (norms + block.square().sum(1)).addmm_(centred, block.T, alpha=-2)
        if own is not None:
            inside = (own >= start) & (own < start + len(block))
            squares[inside, own[inside] - start] = torch.inf
        nearest, position = squares.min(1)
        closer = nearest < least
        least, place = torch.where(closer, nearest, least), torch.where(closer, start + position, place)
    # The expansion of the square finds the nearest row, but its rounding would hide that a copy is exact.
    distances: Tensor = torch.linalg.vector_norm(images - others[place], dim=1)
    return distances


def _of_held_out(reference: Reference) -> Tensor:
    own = torch.arange(len(reference.few))
    to_training = nearest_distances(reference.few, reference.training)
    return relative_distances(to_training, nearest_distances(reference.few, reference.all, own))


def _memorisation(subject: Subject) -> Memorisation:
    reference, own = subject.reference, subject.own_rows
    to_training = nearest_distances(subject.few, reference.training, None if own is None else own[: len(subject.few)])
    samples = relative_distances(to_training, nearest_distances(subject.few, reference.all))
    return memorisation_scores(samples, reference.once(_of_held_out))


NEAREST_TRAINING_RATIO = Score(
    "samples, distance to training ÷ held-out images (pixels)",
    3,
    lambda subject: subject.once(_memorisation).nearest_training_ratio,
    "→ 1",
)
COPIED_SHARE = Score(
    "samples, share of copies (pixels)", 3, lambda subject: subject.once(_memorisation).copied_share, "→ 0.01"
)
