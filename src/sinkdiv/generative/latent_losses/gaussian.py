"""The Wasserstein distance of fitted Gaussians: W2GAE, a baseline of P19 v3."""

import torch
from torch import Tensor


class GaussianLoss:
    """W2GAE: the squared Wasserstein-2 distance of the Gaussians with the means and covariances of codes and draws.

    |m−m'|² + tr A + tr B − 2 tr (A^½ B A^½)^½ with the plain sample covariances (divided by the count). Both are fitted
    to samples, so that codes and draws of one law have the same bias. Draws are taken as constants.
    """

    def __call__(self, codes: Tensor, draws: Tensor, generator: torch.Generator) -> Tensor:
        wide_codes, wide_draws = codes.double(), draws.detach().double()
        mean, other_mean = wide_codes.mean(0), wide_draws.mean(0)
        deviations, others = (wide_codes - mean) / len(codes) ** 0.5, (wide_draws - other_mean) / len(draws) ** 0.5
        values, vectors = torch.linalg.eigh(others.T @ others)
        root = vectors * values.clamp(min=0).sqrt() @ vectors.T
        # With A = XᵀX the fidelity is the nuclear norm of X B^½, whose derivative has no root of an eigenvalue in it.
        fidelity = torch.linalg.svdvals(deviations @ root).sum()
        distance: Tensor = (mean - other_mean).square().sum() + deviations.square().sum() + values.sum() - 2 * fidelity
        return distance.to(codes.dtype)
