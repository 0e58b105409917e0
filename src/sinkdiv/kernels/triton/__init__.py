"""Passes over pairs in Triton for GPUs: the operations of `sinkdiv.kernels.reference`, each fused into one kernel.

Triton comes with the CUDA builds of PyTorch. It is imported when the first kernel is needed, never by `import sinkdiv`.
Where it is missing, `available` is False and the reference serves.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

available = find_spec("triton") is not None

DTYPES = (torch.float32, torch.float64)

#: The oldest compute capability that Triton compiles for.
CAPABILITY = (8, 0)


def serves(tensor: Tensor) -> bool:
    """Whether data of this kind can be reduced here."""
    return available and tensor.is_cuda and tensor.dtype in DTYPES and _capable(tensor.device)


def _capable(device: torch.device) -> bool:
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= CAPABILITY
