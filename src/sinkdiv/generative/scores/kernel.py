"""Kernel distances between two sets, without bias and without the matrix of all pairs."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import sinkdiv
from sinkdiv.generative.latent_losses.mmd import IMQ_SCALES
from sinkdiv.generative.scores.subject import (
    LOWER,
    MOST_IMAGES_COMPARED,
    Score,
    Subject,
)

# Pairs of this many rows at a time: a block that stays in a core's cache.
ROWS = 250

Kernel = Callable[[Tensor, Tensor], Tensor]


def kernel_distance(features: Tensor, reference: Tensor) -> float:
    """Squared maximum mean discrepancy in the kernel (x·y/d + 1)³, without bias: it may be negative.

    Bińkowski et al. 2018, who called it KID in features of Inception-v3; in other features it needs another name. Lower
    is better; no units. The U-statistic over all pairs, where the paper averages over random subsets of
    1,000 to save time: nothing is drawn, and the estimate is the least noisy one. Computed in float64.

    Args:
        features: (n, d) of the images to judge, n ≥ 2.
        reference: (m, d) of real images, m ≥ 2.
    """
    dimension = features.shape[1]

    def cubic(x: Tensor, y: Tensor) -> Tensor:
        base = x @ y.T / dimension + 1
        return base.square().mul_(base)

    return unbiased_mmd(features.double(), reference.double(), cubic)


def multiquadric_distance(codes: Tensor, draws: Tensor, scales: Sequence[float]) -> float:
    """Squared maximum mean discrepancy in the kernel Σ C/(C + |x−y|²) over the scales C, without bias.

    What Wasserstein autoencoders are trained with, and what P19 reports of the codes (Tolstikhin et al. 2018). Lower is
    better, 0 in expectation for two samples of one law. Kernels in the dtype given: their rounding errors are
    independent, and 10,000 codes have 10⁸ of them to average.

    Args:
        codes: (n, d), n ≥ 2.
        draws: (m, d) from the prior, m ≥ 2.
        scales: squared lengths C.
    """

    def multiquadric(x: Tensor, y: Tensor) -> Tensor:
        squares = (x.square().sum(1, keepdim=True) + y.square().sum(1)).addmm_(x, y.T, alpha=-2)
        total = torch.zeros_like(squares)
        for scale in scales:
            total.add_((squares + scale).reciprocal_(), alpha=scale)
        return total

    return unbiased_mmd(codes, draws, multiquadric)


def unbiased_mmd(x: Tensor, y: Tensor, kernel: Kernel) -> float:
    """E k(x,x') + E k(y,y') − 2 E k(x,y) over pairs of different points (Gretton et al. 2012, equation 3).

    Args:
        x: (n, d), n ≥ 2.
        y: (m, d), m ≥ 2.
        kernel: a symmetric one, as matrices (a, b) of points (a, d) and (b, d).
    """
    between = sum(float(kernel(a, b).sum()) for a in x.split(ROWS) for b in y.split(ROWS)) / (len(x) * len(y))
    return _mean_of_pairs(x, kernel) + _mean_of_pairs(y, kernel) - 2 * between


def _mean_of_pairs(x: Tensor, kernel: Kernel) -> float:
    blocks = x.split(ROWS)
    total = 0.0
    for number, block in enumerate(blocks):
        own = kernel(block, block)
        total += float(own.sum() - own.diagonal().sum())
        total += 2 * sum(float(kernel(block, other).sum()) for other in blocks[number + 1 :])
    return total / (len(x) * (len(x) - 1))


def _energy(x: Tensor, y: Tensor) -> float:
    """1000 · ½|x − y|² in the energy kernel, diagonal terms included."""
    few = slice(MOST_IMAGES_COMPARED)
    return 1000 * float(sinkdiv.mmd(x[few], y[few], kernel="energy"))


def _latent_energy(subject: Subject) -> float:
    return _energy(subject.encoded.codes, subject.encoded.draws)


def _latent_multiquadric(subject: Subject) -> float:
    codes, draws, total = subject.encoded.codes, subject.encoded.draws, 0.0
    for part, factor in subject.encoded.model.prior.factors(codes.shape[1]):
        square = factor.mean_squared_distance(part.stop - part.start)
        total += multiquadric_distance(codes[:, part], draws[:, part], [scale * square for scale in IMQ_SCALES])
    return 1000 * total


ENERGY = Score("samples, energy MMD ×1000 (pixels)", 1, lambda subject: _energy(subject.samples, subject.reference.few))
KID = Score(
    "samples, KID ×1000 ({features})",
    2,
    lambda subject: 1000 * kernel_distance(*subject.features),
    LOWER,
    Subject.missing_features,
)
LATENT_ENERGY = Score("codes, energy MMD ×1000", 2, _latent_energy, LOWER, Subject.missing_encoder)
LATENT_MULTIQUADRIC = Score("codes, IMQ MMD ×1000", 2, _latent_multiquadric, LOWER, Subject.missing_encoder)
