"""The caller's form and ours: problems are batched inside, and of a dtype that kernels know."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Form(Protocol):
    """What is remembered of how the caller gave a problem."""

    @property
    def batched(self) -> bool:
        """Whether it was a batch."""

    @property
    def dtype(self) -> torch.dtype:
        """The caller's own dtype."""


class Measures(Form, Protocol):
    """Two measures that were given, checked and batched, still attached to the caller's graph."""

    @property
    def a(self) -> Tensor:
        """Weights of the rows, (B, n)."""

    @property
    def b(self) -> Tensor:
        """Weights of the columns, (B, m)."""

    @property
    def unit_masses(self) -> bool:
        """Whether all masses are 1 because no weights were given."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """(a, b, *costs): all that a value may be differentiated in."""

    def detached(self) -> Measures:
        """The same without a graph."""


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype a problem is computed in: half types in float32, float32 and float64 natively."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def batched_form(tensor: Tensor, batched: bool) -> Tensor:
    """A caller's tensor as (B, ...), in the dtype of the computation."""
    tensor = tensor.to(compute_dtype(tensor.dtype))
    return tensor if batched else tensor.unsqueeze(0)


def given_form(tensor: Tensor, form: Form) -> Tensor:
    """A result (B, ...) in the caller's form: without B if there was no batch, in the caller's dtype."""
    return (tensor if form.batched else tensor.squeeze(0)).to(form.dtype)
