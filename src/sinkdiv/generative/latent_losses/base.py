"""What a latent loss is."""

from typing import Protocol

import torch
from torch import Tensor


class LatentLoss(Protocol):
    """How far an encoder's codes of a batch are from draws of the prior.

    Called with codes (n, d), draws (m, d), both equally weighted, and a CPU generator for the randomness of its own, if
    it has any. It returns a scalar in squared latent distance (kernel losses: see there) that is differentiable in the
    codes.
    """

    def __call__(self, codes: Tensor, draws: Tensor, generator: torch.Generator) -> Tensor: ...


def require_equal_counts(codes: Tensor, draws: Tensor) -> None:
    """Raise `ValueError` unless there are as many codes (n, d) as draws (m, d)."""
    if len(codes) != len(draws):
        raise ValueError(f"codes and draws must be equally many, not {len(codes)} and {len(draws)}")
