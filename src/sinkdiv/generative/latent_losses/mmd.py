"""Maximum mean discrepancies: WAE-MMD (Tolstikhin et al. 2018) and the energy distance."""

from collections.abc import Sequence

import torch
from torch import Tensor

import sinkdiv
from sinkdiv.costs import squared_distances

#: Widths of the inverse multiquadratic kernels, relative to the prior's E|z−z'|² (Tolstikhin et al. 2018, their code).
IMQ_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class MMDLoss:
    """WAE-MMD: `imq_mmd`, without diagonal terms; between −14 and 14, in units of the kernels.

    Args:
        mean_squared_distance: E|z−z'|² of two draws of the prior, which `Prior` knows. For N(0, σ²I) it is 2dσ², the
            paper's constant.
    """

    def __init__(self, mean_squared_distance: float) -> None:
        self.mean_squared_distance = mean_squared_distance

    def __call__(self, codes: Tensor, draws: Tensor, generator: torch.Generator) -> Tensor:
        return imq_mmd(codes, draws, self.mean_squared_distance)


class EnergyLoss:
    """Half the energy distance, E|z−z'| − ½E|z−z₂| − ½E|z'−z'₂|, diagonal terms included; a latent distance."""

    def __call__(self, codes: Tensor, draws: Tensor, generator: torch.Generator) -> Tensor:
        return sinkdiv.mmd(codes, draws, kernel="energy")


def imq_mmd(codes: Tensor, draws: Tensor, mean_squared_distance: float, *, unbiased: bool = True) -> Tensor:
    """Squared MMD of codes (n, d) and draws (m, d) in inverse multiquadratic kernels, as WAE trains and P19 reports.

    Σ over scales s in (.1, .2, .5, 1, 2, 5, 10) of k(z,z') = C/(C + |z−z'|²) with C = s·E|z−z'|²: the plain sum, not
    the mean. P19's tables give 1000 times such a number. Memory O(nm).

    Args:
        mean_squared_distance: E|z−z'|² of two draws of the prior.
        unbiased: leave out the pairs of a point with itself (U-statistic, WAE), so that the expectation is 0 for
            samples of one law; if False the value is that of the empirical measures, at least 0.
    """
    scales = [scale * mean_squared_distance for scale in IMQ_SCALES]
    within = _mean_kernel(codes, codes, scales, unbiased) + _mean_kernel(draws, draws, scales, unbiased)
    return within - 2 * _mean_kernel(codes, draws, scales, False)


def _mean_kernel(x: Tensor, y: Tensor, scales: Sequence[float], off_diagonal: bool) -> Tensor:
    squares = squared_distances(x[None], y[None])[0]
    kernel = sum((scale / (scale + squares) for scale in scales), torch.zeros_like(squares))
    if not off_diagonal:
        return kernel.mean()
    return (kernel.sum() - kernel.diagonal().sum()) / (len(x) * (len(x) - 1))
