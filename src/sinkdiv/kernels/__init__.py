"""Inner loops over pairs of points. This room knows tensors; it knows no solver."""

from __future__ import annotations

import torch

from sinkdiv.kernels import reference

__all__ = ["describe", "reference"]


def describe() -> list[tuple[str, str]]:
    """Which kernels serve which device on this machine: pairs (device, kernels)."""
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [(device, "reference (PyTorch, tiled)") for device in devices]
