"""Transport distances between two sets of images, in pixels or in features."""

import math

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import sinkdiv
from sinkdiv.generative.scores.subject import LOWER, MOST_IMAGES_COMPARED, Score, Subject

#: The blur of the divergence between images is this root-mean-square difference of grey levels per pixel. At half of
#: it, 500 images are too few: the sampling noise of real digits against real digits exceeds the score of blurred ones.
IMAGE_BLUR_PER_PIXEL = 0.2
#: The blur of the divergence between features, in root-mean-square distances of held-out ones. At 0.3 a thousand real
#: digits score 1, and a thousand without fours 5; at 0.2 sampling noise counts for more: 3 and 8.
FEATURE_BLUR = 0.3


def exact_wasserstein(x: Tensor, y: Tensor) -> float:
    """The Wasserstein-2 distance of two equally large point sets, exactly: the optimal assignment.

    Lower is better; the length units of the points. It is far above zero for two samples of one law, by an amount that
    falls like n^(−1/d): compare with that of real images only. Computed in float64; time O(n³), memory O(n²).

    Args:
        x, y: (n, d).
    """
    if len(x) != len(y):
        raise ValueError(f"x and y must be equally many, not {len(x)} and {len(y)}")
    squares = torch.cdist(x.double(), y.double()).square().numpy()
    rows, columns = linear_sum_assignment(squares)
    return math.sqrt(float(squares[rows, columns].mean()))


def certified_divergence(x: Tensor, y: Tensor, blur: float) -> dict[str, float | bool]:
    """The Sinkhorn divergence of |x−y|² between (n, d) and (m, d), with its certified interval (F19).

    Lower is better, 0 for the same points; squared length units. The wider the blur, the less noise there is from
    having few points, and the fewer details are seen.
    """
    divergence = sinkdiv.solve_divergence(x, y, blur=blur)
    lower, upper = divergence.bounds
    return {
        "value": float(divergence.value),
        "lower": float(lower),
        "upper": float(upper),
        "blur": blur,
        "converged": bool(divergence.converged),
    }


def root_mean_square_distance(points: Tensor) -> float:
    """√E|y−y'|² over pairs of different points (n, d): the scale that blurs are chosen by."""
    return math.sqrt(2 * float(points.double().var(0).sum()))


def _pixel_divergence(subject: Subject) -> dict[str, float | bool]:
    blur = IMAGE_BLUR_PER_PIXEL * math.sqrt(subject.few.shape[1])
    return certified_divergence(subject.few, subject.reference.few, blur)


def _compared(subject: Subject) -> tuple[Tensor, Tensor]:
    """Features of samples and of held-out images, or the pixels of both where there are no features."""
    if subject.reference.features is None:
        return subject.few, subject.reference.few
    features, held_out = subject.features
    return features[:MOST_IMAGES_COMPARED], held_out[:MOST_IMAGES_COMPARED]


def _feature_divergence(subject: Subject) -> dict[str, float | bool]:
    blur = FEATURE_BLUR * root_mean_square_distance(subject.features[1])
    return certified_divergence(*_compared(subject), blur)


PIXEL_DIVERGENCE = Score("samples, Sinkhorn divergence (pixels)", 3, _pixel_divergence)
WASSERSTEIN = Score(
    "samples, Wasserstein-2 distance ({space})", 2, lambda subject: exact_wasserstein(*_compared(subject))
)
FEATURE_DIVERGENCE = Score(
    "samples, Sinkhorn divergence ({features})", 3, _feature_divergence, LOWER, Subject.missing_features
)
