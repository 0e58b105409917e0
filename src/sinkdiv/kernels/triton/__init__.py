"""Passes over pairs in Triton for GPUs: the operations of `sinkdiv.kernels.reference`, each fused into one kernel.

Triton comes with the CUDA builds of PyTorch. It is imported when the first kernel is needed, never by `import sinkdiv`.
Where it is missing, `available` is False and the reference serves.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sinkdiv.costs import Cost

if TYPE_CHECKING:
    from sinkdiv.kernels.triton.launching import Counts
    from sinkdiv.kernels.triton.reductions import MatrixReductions, PointReductions

available = find_spec("triton") is not None

DTYPES = (torch.float32, torch.float64)

#: The oldest compute capability that Triton compiles for.
CAPABILITY = (8, 0)


def serves(tensor: Tensor) -> bool:
    """Whether these kernels can reduce data of this dtype on this device."""
    return tensor.is_cuda and tensor.dtype in DTYPES and missing(tensor.device) is None


@cache
def missing(device: torch.device) -> str | None:
    """Why these kernels cannot run on a CUDA (or ROCm) device, or None if they can."""
    if not available:
        return "Triton is not installed"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < CAPABILITY:
        return "Triton needs compute capability {}.{}".format(*CAPABILITY)
    return None


def version() -> str:
    """Triton's version."""
    try:
        return package_version("triton")
    except PackageNotFoundError:  # builds of PyTorch for ROCm bring it under another name
        module_version: str = import_module("triton").__version__
        return module_version


def of_points(x: Tensor, y: Tensor, cost: Cost, *, precision: str, counts: Counts | None) -> PointReductions:
    """Reductions over the pairs of x (B, n, d) and y (B, m, d); the first ``counts`` of each problem are real."""
    from sinkdiv.kernels.triton.reductions import PointReductions

    return PointReductions(x, y, cost, precision=precision, counts=counts)


def of_matrix(C: Tensor) -> MatrixReductions:
    """Reductions over pairs whose costs are C (B, n, m), of any strides; some may be +∞."""
    from sinkdiv.kernels.triton.reductions import MatrixReductions

    return MatrixReductions(C)
