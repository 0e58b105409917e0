"""From the CPU, where all random numbers are drawn, to the device that trains."""

from __future__ import annotations

import torch
from torch import Tensor

#: Devices whose copies are waited for: on MPS the source may change before it is read.
BLOCKING = ("cpu", "mps")


def sent(numbers: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """The numbers on the device, in the dtype (their own if omitted).

    The host does not wait for a GPU to receive them: CUDA copies memory that is not pinned aside before it returns.
    """
    return numbers.to(dtype or numbers.dtype).to(device, non_blocking=device.type not in BLOCKING)
