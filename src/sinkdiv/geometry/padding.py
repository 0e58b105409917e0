"""Tensors of different sizes as one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def stacked(tensors: Sequence[Tensor], *, repeat: bool = False) -> Tensor:
    """Tensors (B_k, n_k, ...) as one (ΣB_k, max n_k, ...), filled up with zeros or with each one's first row."""
    count = max(tensor.shape[1] for tensor in tensors)

    def padded(tensor: Tensor) -> Tensor:
        missing = count - tensor.shape[1]
        if not missing:
            return tensor
        first = tensor[:, :1] if repeat else torch.zeros_like(tensor[:, :1])
        return torch.cat([tensor, first.expand(-1, missing, *first.shape[2:])], 1)

    return torch.cat([padded(tensor) for tensor in tensors])
