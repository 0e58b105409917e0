"""The sliced Wasserstein distance of SWAE (Kolouri et al. 2018)."""

import torch
from torch import Tensor
from torch.nn import functional

from sinkdiv.generative.latent_losses.base import require_equal_counts
from sinkdiv.generative.tensors import to_device

DIRECTIONS = 50


class SlicedLoss:
    """SWAE: the mean over 50 random unit directions of the squared 1-D Wasserstein-2 distance, by sorting.

    Its expectation is of the order of W2²/d: no factor d is put in, as in the paper.
    """

    def __call__(self, codes: Tensor, draws: Tensor, generator: torch.Generator) -> Tensor:
        require_equal_counts(codes, draws)
        normal = torch.randn(codes.shape[-1], DIRECTIONS, generator=generator, dtype=torch.float64)
        directions = to_device(functional.normalize(normal, dim=0), codes.device, codes.dtype)
        return ((codes @ directions).sort(0).values - (draws @ directions).sort(0).values).square().mean()
